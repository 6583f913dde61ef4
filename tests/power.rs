//! Killed at each system call that changes files, and the power gone at each of them: the next run succeeds, and no file is ever
//! there by half. And each of them refused once: the run says so, or does without.
//!
//! The minion is a stand-in that holds a connection, since it is our own files that count here; the bootstrap's memory and the
//! keys have their turn in `tests/salt/kills.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::heat::StandIn;
use lab::process::{Finished, run};
use lab::trace::{Call, Disk, Image, calls, killing, refusing, tracing};
use serde_json::{Value, json};

/// Cuts side by side.
const LANES: usize = 4;
/// What a run writes here, and what this is about.
const WRITTEN: [&str; 6] = [
    "etc/salt/minion",
    "etc/salt/minion.d/zz-heat-salt-bootstrap.conf",
    "etc/tmpfiles.d/heat-salt-bootstrap.conf",
    "var/lib/heat-salt-bootstrap/report.json",
    "var/lib/heat-salt-bootstrap/restart-due",
    "var/lib/heat-salt-bootstrap/signal.json",
];

/// A machine with a minion that does nothing but hold a connection.
struct Machine {
    dir: tempfile::TempDir,
    heat: StandIn,
    master: TcpListener,
    minions: Arc<Mutex<Vec<Child>>>,
    starter: Option<JoinHandle<()>>,
}

impl Machine {
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("mkfifo").arg(dir.path().join("start")).status().unwrap();
        assert!(made.success());
        let machine = Machine {
            heat: StandIn::start().unwrap(),
            master: TcpListener::bind("127.0.0.1:0").unwrap(),
            minions: Arc::default(),
            starter: None,
            dir,
        };
        machine.begin_anew();
        machine.starting()
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("salt-minion")
    }

    /// The minion is no child of the agent's: whoever traces the agent would wait for its end.
    fn starting(mut self) -> Machine {
        let (fifo, program, minions) = (self.dir.path().join("start"), self.program(), Arc::clone(&self.minions));
        self.starter = Some(thread::spawn(move || {
            while fs::read_to_string(&fifo).unwrap().contains("start") {
                let minion = Command::new("bash").arg(&program).arg("--stay").stdin(Stdio::null()).spawn().unwrap();
                minions.lock().unwrap().push(minion);
            }
        }));
        self
    }

    /// An empty disk, with nothing on it but the configuration.
    fn begin_anew(&self) {
        self.end_minions();
        let root = self.root();
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        for dir in ["etc/heat-salt-bootstrap", "usr/lib/tmpfiles.d", "var/run"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        let (port, dir) = (self.master.local_addr().unwrap().port(), self.dir.path().display());
        let program = format!(
            "#!/bin/bash\ncase $1 in\n--version) echo 'salt-minion 3006.27' ;;\n\
             --stay)\n    exec 3<>/dev/tcp/127.0.0.1/{port}\n    echo $$ >{dir}/root/var/run/salt-minion.pid\n    read -r _ <&3 ;;\n\
             *) echo start >{dir}/start ;;\nesac\n"
        );
        fs::write(self.program(), program).unwrap();
        fs::set_permissions(self.program(), fs::Permissions::from_mode(0o755)).unwrap();
        let config = json!({
            "minion": {
                "id": "web-1", "master": "127.0.0.1", "trust_on_first_use": true, "program": self.program(), "start": "direct",
                "config": {"publish_port": port}, "grains": {"roles": ["web"]},
            },
            "install": {"source": "preinstalled"},
            "accept": "none",
            "signal": self.heat.handle(),
            "deadline": "20s",
        });
        let file = root.join("etc/heat-salt-bootstrap/config.json");
        fs::write(&file, config.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn end_minions(&self) {
        for mut minion in self.minions.lock().unwrap().drain(..) {
            // The agent may have ended it.
            let _ = minion.kill();
            let _ = minion.wait();
        }
    }

    fn agent(&self, prefix: &[String]) -> Finished {
        let agent = env!("CARGO_BIN_EXE_heat-salt-bootstrap").to_owned();
        let words: Vec<String> = prefix.iter().cloned().chain([agent]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run").arg("--root").arg(self.root());
        run(&mut command, Duration::from_secs(60)).unwrap()
    }

    /// The run after the one that was cut off.
    #[track_caller]
    fn goes_on(&self, what: &str) {
        let ended = self.agent(&[]);
        assert_eq!(ended.code, 0, "{what}: {}", ended.stderr);
        let signals = self.heat.signals();
        assert_eq!(signals.last().map(|told| told.status.as_str()), Some("SUCCESS"), "{what}: {signals:?}");
        let state = self.root().join("var/lib/heat-salt-bootstrap");
        let report: Value = serde_json::from_slice(&fs::read(state.join("report.json")).unwrap()).unwrap();
        assert_eq!((&report["verdict"], &report["signal"]["delivered"]), (&json!("done"), &json!(true)), "{what}: {report:#}");
        let left: Vec<PathBuf> = files(&self.root());
        for name in ["signal.json", "restart-due"] {
            assert!(!state.join(name).exists(), "{what}: {name} is still there");
        }
        assert!(!left.iter().any(|path| path.extension().is_some_and(|end| end == "new")), "{what}: {left:?}");
        for path in WRITTEN.iter().filter(|path| path.ends_with(".json")).map(|path| self.root().join(path)).filter(|path| path.exists()) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{what}: {}", path.display());
        }
        let drop_in = fs::read_to_string(self.root().join(WRITTEN[1])).unwrap();
        let options: Value = serde_json::from_str(drop_in.split_once('\n').unwrap().1).unwrap();
        assert_eq!(options["id"], "web-1", "{what}");
    }

    /// A whole run, and what it did to files.
    fn traced(&self) -> Vec<Call> {
        let file = self.dir.path().join("trace");
        let ended = self.agent(&tracing(&file));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let calls = calls(&fs::read_to_string(file).unwrap(), &self.root());
        for path in WRITTEN {
            let path = self.root().join(path);
            let named = calls.iter().any(|call| call.name.starts_with("rename") && call.paths[1] == path);
            assert!(named, "{} was not renamed into place: {calls:#?}", path.display());
        }
        calls
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Whoever waits to be told to start a minion is told to go.
        let told = fs::write(self.dir.path().join("start"), "end");
        if let (Ok(()), Some(starter)) = (told, self.starter.take()) {
            let _ = starter.join();
        }
        self.end_minions();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

/// Written in place, and worth nothing after a loss of power: who holds the lock, how far he has come, and a log.
fn may_be_cut(path: &Path) -> bool {
    path.ends_with("lock") || path.ends_with("progress") || path.extension().is_some_and(|end| end == "log")
}

/// Each system call of a run that changes a file of its own: its name, the file, and which one of these it is.
fn each_call() -> Vec<(String, PathBuf, usize)> {
    let model = Machine::new();
    let mut times: BTreeMap<(String, PathBuf), BTreeMap<String, usize>> = BTreeMap::new();
    for call in model.traced() {
        let path = call.paths[0].strip_prefix(model.root()).unwrap().to_owned();
        *times.entry((call.name, path)).or_default().entry(call.thread).or_default() += 1;
    }
    let most = |threads: BTreeMap<String, usize>| threads.into_values().max().unwrap_or(0);
    times.into_iter().flat_map(|((call, path), threads)| (1..=most(threads)).map(move |nth| (call.clone(), path.clone(), nth))).collect()
}

/// Does this at each of them, on a new machine, and lets the next run go on; says how many there were.
fn at_each_call(what: &str, strike: impl Fn(&Machine, &str, &Path, usize, &str) + Sync) -> usize {
    let cuts = each_call();
    let (all, cuts) = (cuts.len(), Mutex::new(cuts));
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                let machine = Machine::new();
                loop {
                    let Some((call, path, nth)) = cuts.lock().unwrap().pop() else { break };
                    let what = format!("{what} {call} number {nth} of {}", path.display());
                    machine.begin_anew();
                    strike(&machine, &call, &machine.root().join(&path), nth, &what);
                    machine.goes_on(&what);
                }
            });
        }
    });
    assert!(all > 30, "{all} are not all");
    all
}

#[test]
fn killed_at_each_system_call() {
    let all = at_each_call("killed at", |machine, call, path, nth, what| {
        let ended = machine.agent(&killing(call, path, nth));
        // Whoever watches it tells what it wanted to tell; if the work was done by then, that is a success.
        let spoken_for = ended.stderr.contains("killed by SIGKILL");
        assert!(ended.code != 0 || spoken_for, "{what}: it was not: {}", ended.stderr);
    });
    println!("power: killed at {all} system calls, and recovered");
}

#[test]
fn refused_each_system_call() {
    let done_without = AtomicUsize::new(0);
    let all = at_each_call("refused", |machine, call, path, nth, what| {
        let told = machine.heat.signals().len();
        let ended = machine.agent(&refusing(call, path, nth));
        assert!(!ended.stderr.contains("panicked"), "{what}: {}", ended.stderr);
        let signals = machine.heat.signals().split_off(told);
        if ended.code == 0 {
            // A log, how far it has come, whether the next boot goes on: nothing that the result hangs on.
            done_without.fetch_add(1, Ordering::Relaxed);
            assert!(signals.iter().all(|told| told.status == "SUCCESS") && signals.len() == 1, "{what}: {signals:?}");
            return;
        }
        // What it could not do, at what, in words; and Heat hears the same, if only the report was kept from it.
        assert!(ended.stderr.contains("Operation not permitted") && ended.stderr.contains("what to do"), "{what}: {}", ended.stderr);
        let codes = if path.ends_with("config.json") { vec![10] } else { vec![24, 70] };
        assert!(codes.contains(&ended.code), "{what}: {}: {}", ended.code, ended.stderr);
        assert!(signals.iter().all(|told| told.status == "FAILURE"), "{what}: {signals:?}");
    });
    let without = done_without.into_inner();
    println!("power: refused {all} system calls; {without} were done without, the others told");
    assert!(without > 0 && without < all);
}

#[test]
fn power_gone_at_each_system_call() {
    let machine = Machine::new();
    let calls = machine.traced();
    let (root, finished) = (machine.root(), files(&machine.root()));
    let modes: BTreeMap<PathBuf, u32> =
        finished.iter().map(|path| (path.clone(), fs::metadata(path).unwrap().permissions().mode() & 0o7777)).collect();
    let known = |dir: &Path| {
        ["", "etc", "var", "etc/heat-salt-bootstrap", "usr/lib/tmpfiles.d", "var/run"].iter().any(|known| dir == root.join(known))
    };
    let mut disk = Disk::default();
    let mut whole: BTreeMap<PathBuf, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut images = BTreeSet::new();
    for call in &calls {
        disk.take(call);
        if call.name.starts_with("rename") {
            let path = &call.paths[1];
            whole.entry(path.clone()).or_default().insert(disk.seen().files[path].clone());
        }
        for image in [disk.at_worst(known), disk.torn()] {
            for (path, content) in &image.files {
                let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
                let is_whole = whole.get(path).is_some_and(|all| all.contains(content));
                assert!(is_whole || hidden || may_be_cut(path), "after {call:?} {} would be there by half", path.display());
            }
            images.insert(image);
        }
    }
    // What the run said that it did lasts.
    let left = disk.at_worst(known);
    for path in WRITTEN.iter().filter(|path| !path.ends_with("signal.json") && !path.ends_with("restart-due")) {
        assert!(left.files.contains_key(&root.join(path)), "{path} would be lost after the end of the run: {:?}", left.files.keys());
    }
    let mode = |path: &Path| modes.get(path).copied().unwrap_or(if path.is_dir() { 0o700 } else { 0o600 });
    for (number, image) in images.iter().enumerate() {
        machine.begin_anew();
        Image::restore(image, mode).unwrap();
        machine.goes_on(&format!("image {number}: {:?}", image.files.keys()));
    }
    println!("power: gone at {} system calls, which leave {} different disks, and recovered", calls.len(), images.len());
}

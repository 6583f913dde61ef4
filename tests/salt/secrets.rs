//! Secrets, planted in every place that takes one, and looked for in every place where they might come to light.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::faults::Faulty;
use lab::http::Answer;
use lab::peer::{Certificate, Scripted};
use lab::process::{Running, family, run, until};
use lab::schema;
use lab::tls::Authority;
use lab::venv::Line;
use serde_json::{Value, json};

use crate::OnEachLine;
use crate::fixture::{LONG, Vm};

pub const CASES: &[OnEachLine] =
    &[("nowhere_to_be_found", nowhere_to_be_found), ("of_a_claim", of_a_claim), ("in_no_core_file", in_no_core_file)];

const PILLAR: &str = "Planted-in-Pillar-71c4";
const PROXY: &str = "Planted-in-Proxy-0b9e";
const KEYSTONE: &str = "Planted-for-Keystone-55aa";
const SIGNATURE: &str = "PlantedSignature8d21";
const ON_STDIN: &str = "Planted-on-Stdin-c3f0";

fn agent() -> PathBuf {
    fs::canonicalize(env!("CARGO_BIN_EXE_heat-salt-bootstrap")).unwrap()
}

/// Looks at the command line and the environment of every process, again and again.
struct Watch {
    over: Arc<AtomicBool>,
    looking: JoinHandle<(usize, BTreeSet<String>)>,
}

impl Watch {
    /// Looks for these; those of the second list may stand in the environment of the agent, into which they were put.
    fn over(secrets: Vec<String>, given: Vec<String>) -> Watch {
        let over = Arc::new(AtomicBool::new(false));
        let looking = thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let (mut looks, mut found) = (0, BTreeSet::new());
                while !over.load(Ordering::Relaxed) {
                    look(&secrets, &given, &mut found);
                    looks += 1;
                }
                (looks, found)
            }
        });
        Watch { over, looking }
    }

    #[track_caller]
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let (looks, found) = self.looking.join().unwrap();
        assert!(found.is_empty(), "{found:#?}");
        assert!(looks > 10, "it was looked {looks} times");
    }
}

fn look(secrets: &[String], given: &[String], found: &mut BTreeSet<String>) {
    let agent = agent();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let path = process.path();
        if !process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process may end at any moment.
        let text = |name: &str| String::from_utf8_lossy(&fs::read(path.join(name)).unwrap_or_default()).into_owned();
        let is_agent = || fs::read_link(path.join("exe")).is_ok_and(|exe| exe == agent);
        let before = is_agent();
        let (line, environment) = (text("cmdline"), text("environ"));
        // Meanwhile it may have become the agent. So may what waits to become it, whose arguments tell what it will be; and of one that is
        // gone by now nobody can say what it was.
        let will_be = || text("cmdline").split('\0').any(|word| fs::canonicalize(word).is_ok_and(|word| word == agent));
        let may_have_them = || before || is_agent() || will_be() || !path.join("exe").exists();
        for secret in secrets {
            let mut note = |place: &str| found.extend([format!("{secret} in the {place} of {}", line.replace('\0', " "))]);
            if line.contains(secret.as_str()) {
                note("command line");
            }
            if environment.contains(secret.as_str()) && !(given.contains(secret) && may_have_them()) {
                note("environment");
            }
        }
    }
}

/// No file that was changed since this one was made, anywhere but in the lab's own directories, holds any of these.
#[track_caller]
fn nowhere_else(since: &Path, secrets: &[String]) {
    let patterns = since.with_file_name("patterns");
    fs::write(&patterns, secrets.join("\n")).unwrap();
    let script = format!(
        "find /etc /var /run /root /tmp /dev/shm -xdev \\( -path '/tmp/hsb-*' -o -path '*/target' \\) -prune -o \
         -newer '{}' -type f -size -8M -print0 2>/dev/null | xargs -0 -r grep -slaF -f '{}' --; test -s '{0}'",
        since.display(),
        patterns.display()
    );
    let ended = run(Command::new("sh").arg("-c").arg(&script), LONG).unwrap();
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
}

/// A file made now.
fn stamp() -> (tempfile::TempDir, PathBuf) {
    // By this name other cases pass over it, as over all of the lab's directories.
    let dir = tempfile::Builder::new().prefix("hsb-").tempdir().unwrap();
    let file = dir.path().join("stamp");
    fs::write(&file, "now").unwrap();
    (dir, file)
}

fn nowhere_to_be_found(line: Line) {
    let (dir, stamp) = stamp();
    let mut vm = Vm::new(line, "secrets");
    let (_, password) = vm.master.credentials("boot");
    vm.set("apply/pillar", json!({"who": "world", "database": {"password": PILLAR}})).shipped();
    vm.secrets.extend([PILLAR, PROXY, KEYSTONE, SIGNATURE, &password].map(str::to_owned));
    let mut secrets = vm.secrets.clone();
    secrets.push(vm.heat.token().to_owned());
    vm.environment = vec![("https_proxy".to_owned(), format!("http://somebody:{PROXY}@127.0.0.1:9"))];
    let watch = Watch::over(secrets.clone(), vec![PROXY.to_owned()]);

    // In the configuration and in the environment.
    vm.agent(&["run", "-vvv"]).done();

    // On standard input, and for Keystone.
    let heat = Arc::new(lab::heat::StandIn::start().unwrap());
    let openstack = Arc::clone(&heat);
    let front = Faulty::start(vm.master.authority(), move |request| match request.path.as_str() {
        "/v3/auth/tokens" => {
            let headers = vec![("X-Subject-Token".to_owned(), openstack.token().to_owned())];
            Answer::Reply { status: 201, headers, body: json!({"token": {"catalog": []}}).to_string().into_bytes() }
        }
        _ => openstack.answer(request),
    })
    .unwrap();
    let signal = json!({
        "auth_url": format!("{}/v3", front.url()), "user_id": "u", "password": KEYSTONE, "project_id": "p",
        "alarm_url": heat.endpoint_at(&front.url()), "ca": vm.master.authority().ca_pem(),
    });
    let typed = dir.path().join("typed");
    fs::write(&typed, &password).unwrap();
    vm.set("signal", signal).set("api/password", Value::Null);
    vm.prefix = ["sh", "-c", "exec \"$@\" <\"$0\"", typed.to_str().unwrap()].map(str::to_owned).to_vec();
    let ended = vm.agent(&["run", "--again", "-vvv", "--log-format", "json", "--password-file", "-"]);
    ended.expect(ended.code == 0, "exit code 0");
    let lines = schema::log(&ended.stderr);
    for level in ["info", "debug"] {
        ended.expect(lines.iter().any(|line| line["level"] == level), level);
    }
    assert_eq!(heat.signals().len(), 1, "Heat was told");

    // As a credential of systemd's, and in a signed URL.
    fs::create_dir(dir.path().join("credentials")).unwrap();
    fs::write(dir.path().join("credentials/api.password"), &password).unwrap();
    vm.environment.push(("CREDENTIALS_DIRECTORY".to_owned(), dir.path().join("credentials").display().to_string()));
    let signed = Scripted::start(vm.master.authority(), Certificate::Good, |_| Answer::text(200, "text/plain", "ok")).unwrap();
    let url = format!(
        "{}/v1/signal/arn?Timestamp=2026-01-01T00%3A00%3A00Z&SignatureMethod=HmacSHA256&AWSAccessKeyId=a&SignatureVersion=2&Signature={SIGNATURE}",
        signed.url()
    );
    vm.prefix.clear();
    vm.set("signal", json!({"alarm_url": url, "ca": vm.master.authority().ca_pem()}));
    let ended = vm.agent(&["run", "--again", "-vv"]);
    ended.expect(ended.code == 0, "exit code 0");
    assert!(signed.requests().iter().any(|request| request.path.contains(SIGNATURE)), "Heat was told");

    // A wrong one that is refused is as secret.
    vm.secrets.push(ON_STDIN.to_owned());
    vm.environment.pop();
    fs::write(&typed, ON_STDIN).unwrap();
    vm.prefix = ["sh", "-c", "exec \"$@\" <\"$0\"", typed.to_str().unwrap()].map(str::to_owned).to_vec();
    let ended = vm.agent(&["run", "--again", "-vvv", "--password-file", "-"]);
    ended.expect(ended.code == 32, "exit code 32");
    vm.prefix.clear();
    for verb in [&["status", "--json"][..], &["plan"], &["check", "-vvv"]] {
        vm.agent(verb);
    }
    watch.end();
    secrets.push(ON_STDIN.to_owned());
    nowhere_else(&stamp, &secrets);
}

fn of_a_claim(line: Line) {
    let (_dir, stamp) = stamp();
    let mut vm = Vm::new(line, "secret-claim");
    let token = vm.master.token("secret-claim", &[]).unwrap();
    vm.enrolling(&token);
    let secrets = vm.secrets.clone();
    let watch = Watch::over(secrets.clone(), Vec::new());
    vm.agent(&["run", "-vvv"]).done();
    watch.end();
    nowhere_else(&stamp, &secrets);
    let private = vm.path("etc/salt/pki/minion/minion.pem");
    assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o177, 0);
}

/// The kernel writes no core file of a process whose entries in /proc are root's although the process is somebody else's (prctl(2),
/// PR_SET_DUMPABLE). That can be seen wherever the kernel would write one.
fn in_no_core_file(_: Line) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (program, root) = (dir.path().join("heat-salt-bootstrap"), dir.path().join("root"));
    fs::copy(agent(), &program).unwrap();
    let silent = Scripted::start(&Authority::new().unwrap(), Certificate::Plain, |_| Answer::Hang).unwrap();
    let config = json!({
        "minion": {"id": "core", "master": "127.0.0.1", "trust_on_first_use": true, "program": "/no/such/program"},
        "install": {"source": "preinstalled"}, "accept": "none", "deadline": "30s",
        "signal": {"endpoint": format!("{}/signal", silent.url()), "token": "t"},
    });
    let file = root.join("etc/heat-salt-bootstrap/config.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, config.to_string()).unwrap();
    let owned = run(Command::new("chown").args(["-R", "65534:65534"]).arg(&root), LONG).unwrap();
    assert_eq!(owned.code, 0, "{owned:?}");
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(words);
        Running::start(&mut command).unwrap()
    };
    let owner = |pid: i32| fs::metadata(format!("/proc/{pid}/environ")).map(|meta| meta.uid()).ok();
    let other = as_nobody(&["sleep", "20"]);
    until(LONG, || (owner(other.pid()) == Some(65534)).then_some(())).expect("one that may be dumped is its user's");
    let running = as_nobody(&[program.to_str().unwrap(), "run", "--root", root.to_str().unwrap()]);
    until(LONG, || (!silent.requests().is_empty()).then_some(())).expect("it is telling Heat");
    for pid in family(running.pid(), &program) {
        assert_eq!(owner(pid), Some(0), "process {pid}");
    }
    for one in [running, other] {
        one.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        one.finish(Duration::from_secs(40)).unwrap();
    }
}

//! Killed anywhere: a run against real Salt is killed, or told to stop, at some moment, and another one follows. That one has to
//! succeed, whatever lay there half done.
//!
//! Moments are random, one in each part of a run, in as many parts as there are moments: half of them are so long after the start of it, whose
//! length is measured first, and half come right after a file was changed, which is where half-done things are to be expected. Runs
//! by salt-api and by the enrolment service take turns. A run that is stopped for a while and goes on is to succeed by itself. `KILLS`,
//! `TERMS`, `FREEZES`, `FROZEN` (seconds) and `SEED` in the environment change how many there are and which.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lab::harness::Case;
use lab::keys::KeyState;
use lab::process::{end_daemons, family};
use lab::venv::Line;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fixture::{Ended, Started, Vm, shared};

/// What runs side by side. A run that starts a minion keeps a core busy for half of its time.
const LANES: usize = 3;
/// So many runs are begun for each that is to be hit. Most are: those that come too late are about as many as a whole run takes longer
/// when it is measured than later on.
const MOST_TRIES: usize = 10;
/// Where what counts is written.
const WATCHED: [&str; 4] = ["var/lib/heat-salt-bootstrap", "etc/salt", "etc/salt/minion.d", "etc/salt/pki/minion"];

static SEED: LazyLock<u64> = LazyLock::new(|| asked_for("SEED").unwrap_or_else(|| RandomState::new().hash_one(0)));
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LANE: AtomicUsize = AtomicUsize::new(0);
static KILLED: AtomicUsize = AtomicUsize::new(0);
static STOPPED: AtomicUsize = AtomicUsize::new(0);
static FROZEN: AtomicUsize = AtomicUsize::new(0);
static TOO_LATE: AtomicUsize = AtomicUsize::new(0);
static UNHEARD: AtomicUsize = AtomicUsize::new(0);
static REPORTED: AtomicUsize = AtomicUsize::new(0);
static ONCE: AtomicUsize = AtomicUsize::new(0);
static AGAIN: AtomicUsize = AtomicUsize::new(0);

fn asked_for(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// A case for each lane: its share of the kills, and of the requests to stop.
pub fn cases() -> Vec<Case> {
    let count = |name, usual| asked_for(name).unwrap_or(usual) as usize;
    let (kills, terms, freezes) = (count("KILLS", 20), count("TERMS", 8), count("FREEZES", LANES as u64));
    let lane = |number: usize| {
        let line = Line::ALL[number % 2];
        // What is left over goes to the first ones.
        let share = move |all: usize| (all + LANES - 1 - number) / LANES;
        Case::new(format!("{line}::soak::lane_{number}"), move || {
            Lane::new(line, number).soak(share(kills), share(terms), share(freezes));
            Ok(())
        })
    };
    (0..LANES).map(lane).collect()
}

/// Says how it went, if anything was tried.
pub fn finish() {
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    if count(&KILLED) + count(&STOPPED) == 0 {
        return;
    }
    println!(
        "soak: {} kills tried and {} requests to stop (of these {} before anybody listened), all recovered; {} stopped for a while; {} reported to Heat at once; \
         states ran once after {} of them, and again on purpose after {}; {} came too late and do not count; SEED={}",
        count(&KILLED),
        count(&STOPPED),
        count(&UNHEARD),
        count(&FROZEN),
        count(&REPORTED),
        count(&ONCE),
        count(&AGAIN),
        count(&TOO_LATE),
        *SEED,
    );
    for line in TOLD.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("soak: {line}");
    }
}

/// SplitMix64: good enough to pick moments, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// When it happens.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the start.
    After(Duration),
    /// So long after so many changes to files.
    Change(usize, Duration),
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// The process that works is killed, as by the kernel when memory runs out.
    Worker,
    /// Everything of the agent is killed.
    Agent,
    /// So is everything else on this machine: the power is gone.
    Machine,
    /// The agent is told to stop, as by a service manager.
    Term,
    /// So is its process group, as by Ctrl-C on a terminal.
    Interrupt,
    /// All of the agent stands still for a while, as a machine that is suspended or moved to another host, and goes on.
    Freeze,
}

/// Runs one after the other, on one master.
struct Lane {
    line: Line,
    number: usize,
    /// No two lanes have the same: what is tried once more must not be taken for what was there before.
    name: usize,
    random: Random,
    /// How long a run takes, and how many changes to files it makes.
    whole: (Duration, usize),
    token: String,
    tried: usize,
    /// How many jobs an id has at least, and how often they were triggered.
    counts: BTreeMap<String, (usize, usize)>,
}

impl Lane {
    fn new(line: Line, number: usize) -> Lane {
        let random = Random(SEED.wrapping_add(number as u64));
        let name = LANE.fetch_add(1, Ordering::Relaxed);
        let token = shared(line).token(&format!("soak-{name}-*"), &["--states", "append", "--uses", "1000"]).unwrap();
        Lane { line, number, name, random, whole: (Duration::ZERO, 0), token, tried: 0, counts: BTreeMap::new() }
    }

    fn soak(mut self, kills: usize, terms: usize, freezes: usize) {
        self.measure();
        self.hit_so_often(kills, &[Blow::Worker, Blow::Agent, Blow::Machine], &KILLED);
        self.hit_so_often(terms, &[Blow::Term, Blow::Interrupt], &STOPPED);
        self.hit_so_often(freezes, &[Blow::Freeze], &FROZEN);
        self.compare_with_the_master();
    }

    fn hit_so_often(&mut self, wanted: usize, blows: &[Blow], counter: &AtomicUsize) {
        let (mut hit, mut tried) = (0, 0);
        while hit < wanted {
            // The last parts may come too late each time: a run that is measured takes longer than later ones.
            let part = tried % wanted;
            tried += 1;
            assert!(tried <= MOST_TRIES * wanted, "{hit} of {tried} runs were hit, the others had ended before: SEED={}", *SEED);
            let blow = blows[self.random.below(blows.len() as u64) as usize];
            if self.hit(blow, (part, wanted)) {
                hit += 1;
                counter.fetch_add(1, Ordering::Relaxed);
            } else {
                TOO_LATE.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A machine that nobody has been on. Every second joins by the enrolment service.
    fn machine(&mut self) -> Vm {
        let id = format!("soak-{}-{}", self.name, self.tried);
        self.tried += 1;
        let mut vm = Vm::new(self.line, &id);
        vm.states(&["append"]);
        if self.tried.is_multiple_of(2) {
            vm.enrolling(&self.token);
        }
        vm
    }

    /// A whole run that nobody disturbs.
    fn measure(&mut self) {
        let vm = self.machine();
        let started = vm.start(&["run"]);
        let (begun, pid) = (Instant::now(), started.running.pid());
        let mut files = Changes::of(&vm);
        while runs(pid) {
            files.look();
            thread::sleep(Duration::from_millis(1));
        }
        self.whole = (begun.elapsed(), files.seen);
        started.end(&vm).done();
        let told =
            format!("lane {}: a whole run takes {:.1} s and changes files {} times", self.number, self.whole.0.as_secs_f64(), files.seen);
        TOLD.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    /// One in this part of so many of a run.
    fn moment(&mut self, (part, of): (usize, usize)) -> Moment {
        let (length, changes) = self.whole;
        let (part, of) = (part as u64, of as u64);
        let mut within = |all: u64| (part * all + self.random.below(all)) / of;
        let (after, change) = (within(length.as_micros() as u64), within(changes as u64));
        if self.random.below(2) == 0 {
            Moment::After(Duration::from_micros(after))
        } else {
            Moment::Change(1 + change as usize, Duration::from_micros(self.random.below(5000)))
        }
    }

    /// One run that is hit, and one that is not. Says whether the first one still ran.
    fn hit(&mut self, blow: Blow, part: (usize, usize)) -> bool {
        let moment = self.moment(part);
        let mut vm = self.machine();
        let what = format!("{} {blow:?} {moment:?} SEED={}", vm.root.id(), *SEED);
        let started = vm.start(&["run"]);
        wait_for(moment, &vm, started.running.pid());
        let watched = strike(blow, &started, &vm);
        let first = started.finish(&vm);
        let in_time = judge(blow, &first, watched, &what);
        check_files(&vm, &what);
        // A stack that has failed stays so: whoever runs this again has another one.
        if first.signals.iter().any(|told| told.status == "FAILURE") {
            REPORTED.fetch_add(1, Ordering::Relaxed);
            vm.next_stack();
        }
        // The session of a run that was killed ends by itself, so here nobody asks whether all of them are closed.
        let second = vm.start(&["run"]).finish(&vm);
        second.in_time();
        eprintln!("soak: {what}: {} s, then {} s", first.seconds, second.seconds);
        let log = vm.root.minion_log();
        second.expect(second.code == 0, &format!("{what}: success\nthe first run said:\n{}\nthe minion said:\n{log}", first.stderr));
        second.done();
        check_files(&vm, &what);
        assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1), "{what}: the key");
        self.count(&vm, &first, &second, &what);
        in_time
    }

    fn count(&mut self, vm: &Vm, first: &Ended, second: &Ended, what: &str) {
        let asked = vm.gate.requests().iter().filter(|request| *request == "POST /v1/apply").count();
        let fired = vm.gate.hooks().len() + asked;
        let ran = vm.runs();
        // One that the enrolment service publishes once more is the same job.
        let jobs = if asked > 0 { 1 } else { ran };
        self.counts.insert(vm.root.id().to_owned(), (jobs, fired));
        second.expect((1..=fired).contains(&ran), &format!("{what}: ran {ran} times, triggered {fired} times"));
        if ran == 1 {
            ONCE.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // More than once only for a reason, which is said.
        let reasons = ["firing it again", "is gone without a result", "triggering again", "publishing it again"];
        let said = [first, second].iter().any(|run| reasons.iter().any(|reason| run.stderr.contains(reason)));
        second.expect(said, &format!("{what}: a reason why the states ran {ran} times\nthe first run said:\n{}", first.stderr));
        AGAIN.fetch_add(1, Ordering::Relaxed);
    }

    /// The master has seen as many jobs as the minions ran, and none that nobody triggered.
    fn compare_with_the_master(&self) {
        let listed = shared(self.line).salt_run(&["jobs.list_jobs", "search_function=state.sls"]).unwrap();
        for (id, (jobs, fired)) in &self.counts {
            let of = |job: &&Value| {
                job["Target"] == id.as_str() || job["Target"].as_array().is_some_and(|all| all.iter().any(|one| one == id.as_str()))
            };
            let known = listed.as_object().unwrap().values().filter(of).count();
            assert!((*jobs..=*fired).contains(&known), "{id}: {jobs} jobs ran, triggered {fired} times, and the master knows {known}");
        }
    }
}

/// Does it run? One that has ended and was not waited for yet does not.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Counts the changes to what is written.
struct Changes {
    dirs: Vec<PathBuf>,
    known: BTreeMap<PathBuf, (u64, i64, i64, u64)>,
    seen: usize,
}

impl Changes {
    fn of(vm: &Vm) -> Changes {
        let mut changes = Changes { dirs: WATCHED.map(|dir| vm.path(dir)).to_vec(), known: BTreeMap::new(), seen: 0 };
        changes.look();
        changes.seen = 0;
        changes
    }

    fn look(&mut self) {
        let entries = self.dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
        let state = |path: &Path| fs::symlink_metadata(path).map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()));
        let now: BTreeMap<_, _> = entries.filter_map(|entry| Some((entry.path(), state(&entry.path()).ok()?))).collect();
        let new = now.iter().filter(|(path, state)| self.known.get(*path) != Some(state)).count();
        let gone = self.known.keys().filter(|path| !now.contains_key(*path)).count();
        self.seen += new + gone;
        self.known = now;
    }
}

/// Waits until it is time, or too late.
fn wait_for(moment: Moment, vm: &Vm, pid: i32) {
    let begun = Instant::now();
    let mut files = Changes::of(vm);
    loop {
        let rest = match moment {
            Moment::After(span) if begun.elapsed() >= span => Some(Duration::ZERO),
            Moment::After(_) => None,
            Moment::Change(wanted, rest) => {
                files.look();
                (files.seen >= wanted).then_some(rest)
            }
        };
        if let Some(rest) = rest {
            thread::sleep(rest);
            return;
        }
        if !runs(pid) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Deals the blow. Says whether somebody watched the process that was killed.
fn strike(blow: Blow, started: &Started, vm: &Vm) -> bool {
    let pid = started.running.pid();
    // Whoever has ended by itself a moment ago is gone.
    let send = |pid: i32, signal: Signal| kill(Pid::from_raw(pid), signal).unwrap_or_default();
    let all = family(pid, Path::new(env!("CARGO_BIN_EXE_heat-salt-bootstrap")));
    match blow {
        Blow::Worker => send(*all.last().unwrap_or(&pid), Signal::SIGKILL),
        Blow::Agent | Blow::Machine => {
            // The one that watches first, or it would have the last word.
            all.iter().for_each(|&pid| send(pid, Signal::SIGKILL));
            send(-pid, Signal::SIGKILL);
        }
        Blow::Term => send(pid, Signal::SIGTERM),
        Blow::Interrupt => send(-pid, Signal::SIGINT),
        Blow::Freeze => {
            all.iter().for_each(|&pid| send(pid, Signal::SIGSTOP));
            thread::sleep(Duration::from_secs(asked_for("FROZEN").unwrap_or(10)));
            all.iter().rev().for_each(|&pid| send(pid, Signal::SIGCONT));
        }
    }
    if blow == Blow::Machine {
        end_daemons("salt-minion", vm.root.path(), Duration::ZERO);
    }
    all.len() > 1
}

/// Did the run that was hit end as it should? Says whether it was hit at all.
fn judge(blow: Blow, first: &Ended, watched: bool, what: &str) -> bool {
    let so = |so: bool, expected: &str| first.expect(so, &format!("{what}: {expected}"));
    let told: Vec<&str> = first.signals.iter().map(|told| told.status.as_str()).collect();
    let killed = 128 + Signal::SIGKILL as i32;
    if blow == Blow::Freeze {
        so(first.code == 0 && told == ["SUCCESS"], "it goes on, and tells Heat once");
        return watched;
    }
    if first.code == 0 {
        // Whoever watches cannot know whether Heat had heard a worker that was killed right after it told.
        let twice = blow == Blow::Worker && told == ["SUCCESS", "SUCCESS"];
        so(told == ["SUCCESS"] || twice, "one that was done has told Heat so");
        return false;
    }
    match blow {
        Blow::Worker if watched => {
            so(told == ["FAILURE"] || told == ["SUCCESS"], "whoever watched has told Heat, unless that was done");
            so(first.code != killed, "whoever watched lives");
        }
        Blow::Worker | Blow::Agent | Blow::Machine => {
            so(first.code == killed, "it was killed");
            so(told.is_empty() || told == ["SUCCESS"], "nobody has told Heat anything that is not so");
        }
        Blow::Term | Blow::Interrupt if first.code == 61 => {
            so(told == ["FAILURE"], "Heat was told once");
            so(first.signals[0].reason.starts_with("interrupted: "), "and why");
            so(first.report["reason"] == "interrupted" && !first.report["hint"].is_null(), "the report says so");
        }
        Blow::Term | Blow::Interrupt => {
            let unheard = [Signal::SIGTERM, Signal::SIGINT].iter().any(|&signal| first.code == 128 + signal as i32);
            so(unheard && told.is_empty() && first.requests.is_empty(), "exit code 61, or the end before anybody listens");
            UNHEARD.fetch_add(1, Ordering::Relaxed);
        }
        Blow::Freeze => unreachable!("it has ended well"),
    }
    true
}

/// Every file is whole, and what is secret is root's own.
fn check_files(vm: &Vm, what: &str) {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let state = vm.path("var/lib/heat-salt-bootstrap");
    for entry in fs::read_dir(&state).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if !entry.file_type().unwrap().is_file() {
            continue;
        }
        assert_eq!(mode(&path), 0o600, "{what}: {}", path.display());
        // Beside a file lies the next one, which nobody reads before it has the name.
        if name.ends_with(".json") && !name.starts_with('.') {
            let text = fs::read(&path).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap_or_else(|error| panic!("{what}: {}: {error}", path.display()));
        }
    }
    if state.exists() {
        assert_eq!(mode(&state), 0o700, "{what}: {}", state.display());
    }
    let drop_in = vm.text("etc/salt/minion.d/zz-heat-salt-bootstrap.conf");
    if !drop_in.is_empty() {
        let options = drop_in.split_once('\n').map_or("", |(_, options)| options);
        let options: Value = serde_json::from_str(options).unwrap_or_else(|error| panic!("{what}: the drop-in: {error}\n{drop_in}"));
        assert_eq!(options["id"], vm.root.id(), "{what}: the drop-in");
    }
    let private = vm.path("etc/salt/pki/minion/minion.pem");
    if private.exists() {
        assert_eq!(mode(&private) & 0o177, 0, "{what}: the private key");
        let (private, public) = (vm.text("etc/salt/pki/minion/minion.pem"), vm.text("etc/salt/pki/minion/minion.pub"));
        // One that the minion itself was writing it writes once more.
        let made_here = vm.path("var/lib/heat-salt-bootstrap/made-keys").exists();
        let whole = private.trim_end().ends_with("PRIVATE KEY-----") && public.trim_end().ends_with("PUBLIC KEY-----");
        assert!(whole || !made_here, "{what}: the key pair");
    }
}

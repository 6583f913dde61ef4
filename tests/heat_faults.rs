//! A table of faults and steps between this machine and OpenStack: Heat's own answer, with a token and with Keystone's, and
//! Keystone's answer. Heat and Keystone are stand-ins, Heat with the measured rules: what it counts, it counts as the real one.
//!
//! The run itself fails at once, since there is no minion; what is looked at is how Heat hears of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lab::faults::{Fault, Faulty, Lasts, most_tries};
use lab::heat::StandIn;
use lab::http::{Answer, Request};
use lab::process::{Finished, Running, most_memory};
use lab::tls::Authority;
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

const PASSWORD: &str = "^pass#w@rd%";
const KEYSTONE: &str = "/v3/auth/tokens";
/// The run's own failure: there is no salt-minion.
const CODE: i32 = 20;
/// So often in a row something doubtful is seen before it is believed (`machine::patience`).
const DOUBTS: usize = 5;
/// An answer may have 8 MiB, and is held twice while it grows; the rest is the program.
const MOST_MEMORY: usize = 64 * 1024;

/// Most of the time the cells wait.
const THREADS: usize = 24;

/// Cells in which Heat was told by the run, and those in which it was told later.
static SURVIVED: AtomicUsize = AtomicUsize::new(0);
static REPORTED: AtomicUsize = AtomicUsize::new(0);

/// The table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The signal of TOKEN_SIGNAL.
    Token,
    /// Keystone's login of HEAT_SIGNAL.
    Keystone,
    /// The signal of HEAT_SIGNAL.
    Heat,
}

impl Step {
    const ALL: [Step; 3] = [Step::Token, Step::Keystone, Step::Heat];

    fn name(self) -> &'static str {
        match self {
            Step::Token => "token",
            Step::Keystone => "keystone",
            Step::Heat => "heat",
        }
    }

    fn is_at(self, request: &Request) -> bool {
        (request.path == KEYSTONE) == (self == Step::Keystone)
    }
}

/// A VM that cannot be bootstrapped, and the Heat that waits for it behind a bad line.
struct Cell {
    root: tempfile::TempDir,
    heat: Arc<StandIn>,
    line: Faulty,
    deadline: u64,
}

impl Cell {
    fn new(step: Step, fault: Fault, lasts: Lasts, deadline: u64) -> Cell {
        let authority = Authority::new().unwrap();
        let heat = Arc::new(StandIn::start().unwrap());
        let openstack = Arc::clone(&heat);
        let line = Faulty::start(&authority, move |request| match request.path.as_str() {
            KEYSTONE => {
                let headers = vec![("X-Subject-Token".to_owned(), openstack.token().to_owned())];
                Answer::Reply { status: 201, headers, body: json!({"token": {"catalog": []}}).to_string().into_bytes() }
            }
            _ => openstack.answer(request),
        })
        .unwrap();
        let endpoint = heat.endpoint_at(&line.url());
        let mut signal = match step {
            Step::Token => json!({"endpoint": endpoint, "token": heat.token()}),
            Step::Keystone | Step::Heat => {
                json!({"auth_url": format!("{}/v3", line.url()), "user_id": "u", "password": PASSWORD, "project_id": "p", "alarm_url": endpoint})
            }
        };
        signal["ca"] = authority.ca_pem().into();
        let config = json!({
            "minion": {"id": "web-1", "master": "127.0.0.1", "trust_on_first_use": true, "program": "/no/such/program", "start": "direct"},
            "install": {"source": "preinstalled"},
            "accept": "none",
            "signal": signal,
            "deadline": format!("{deadline}s"),
        });
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("etc/heat-salt-bootstrap/config.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, config.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        line.play(fault, lasts, step != Step::Heat, move |request| step.is_at(request));
        Cell { root, heat, line, deadline }
    }

    fn below(&self, path: &str) -> PathBuf {
        self.root.path().join("var/lib/heat-salt-bootstrap").join(path)
    }

    /// Runs the agent and looks at what holds in every cell.
    fn agent(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heat-salt-bootstrap"));
        let running = Running::start(command.args(arguments).arg("-v").arg("--root").arg(self.root.path())).unwrap();
        let pid = running.pid();
        let memory = thread::spawn(move || most_memory(pid));
        let finished = running.finish(Duration::from_secs(self.deadline + 10)).unwrap();
        let memory = memory.join().unwrap();
        assert!((1..MOST_MEMORY).contains(&memory), "{memory} kB of memory");
        assert!(finished.seconds <= self.deadline as f64 + 1.0, "{finished:?}");
        assert!(self.line.lured().is_empty(), "a redirect was followed");
        assert!(self.line.is_left_alone(), "Retry-After is not kept to");
        for secret in [PASSWORD, self.heat.token()] {
            assert!(!finished.stdout.contains(secret) && !finished.stderr.contains(secret), "{secret} in {finished:?}");
            assert_eq!(holding(&self.root.path().join("var"), secret), Vec::<PathBuf>::new(), "they hold {secret}");
        }
        finished
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.below("report.json")).unwrap()).unwrap()
    }

    /// Heat counts one FAILURE, of this VM, however often it heard of it. Only where its answer was lost it may have heard of it
    /// more than once: so often as the fault was met, and once more.
    fn counted(&self, lost: usize) {
        let signals = self.heat.signals();
        assert!(signals.len() <= 1 + lost, "{} signals, and {lost} answers were lost: {signals:?}", signals.len());
        let ids: BTreeSet<&str> = signals.iter().map(|signal| signal.id.as_str()).collect();
        assert_eq!(ids.len(), 1, "{signals:?}");
        assert!(
            !signals.is_empty() && signals.iter().all(|one| (one.status.as_str(), one.id.as_str()) == ("FAILURE", "web-1")),
            "{signals:?}"
        );
        assert!(signals.iter().all(|one| one.reason.starts_with("package-failed: ") && one.data["code"] == CODE), "{signals:?}");
        assert_eq!(self.heat.stack_status(1).0, "CREATE_FAILED");
    }
}

fn holding(dir: &Path, secret: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, secret));
        } else if fs::read(&path).unwrap().windows(secret.len()).any(|window| window == secret.as_bytes()) {
            found.push(path);
        }
    }
    found
}

/// Everything that a client needs stands before the half that is missing: `null`, and Keystone's catalog, which nobody asks for here.
fn does_not_matter(fault: Fault) -> bool {
    fault == Fault::HalfABody
}

fn is_doubtful(fault: Fault) -> bool {
    match fault {
        Fault::HandshakeNoise | Fault::OtherCertificate | Fault::Garbage | Fault::Page | Fault::HugeBody | Fault::Redirect => true,
        Fault::TwoLengths | Fault::HugeHeaders => true,
        Fault::Refused | Fault::HandshakeReset | Fault::HandshakeStalls | Fault::Cut(..) => false,
        Fault::Status(..) | Fault::Echo | Fault::HalfABody => false,
    }
}

/// How many of Heat's answers were lost, when the fault was met so often.
fn lost(step: Step, fault: Fault, met: usize) -> usize {
    if fault.comes_through() && step != Step::Keystone { met } else { 0 }
}

fn for_ever(step: Step, fault: Fault) {
    let deadline = 8;
    let cell = Cell::new(step, fault, Lasts::ForEver, deadline);
    let finished = cell.agent(&["run"]);
    let (report, seen) = (cell.report(), cell.line.seen());
    assert_eq!((finished.code, &report["reason"]), (CODE, &json!("package-failed")), "the run's own code stands: {finished:?}");
    if does_not_matter(fault) {
        assert_eq!(report["signal"]["delivered"], true, "{report:#}");
        cell.counted(0);
        SURVIVED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    assert_eq!(report["signal"]["delivered"], false, "{report:#}");
    assert!(report["signal"]["error"].as_str().is_some_and(|why| !why.is_empty()), "{report:#}");
    let most = if is_doubtful(fault) { DOUBTS } else { most_tries(fault, deadline as f64) } + usize::from(fault.is_of_the_connection());
    assert!(seen <= most, "{seen} tries, and {most} are allowed: {finished:?}");
    assert!(seen > 0 || fault == Fault::Refused, "the fault was not met");
    if !fault.comes_through() || step == Step::Keystone {
        assert!(cell.heat.signals().is_empty(), "Heat heard of it");
    }
    // Whatever was wrong may be mended: it is told then.
    assert!(cell.below("signal.json").exists(), "it is forgotten");
    cell.line.calm();
    assert_eq!(cell.agent(&["signal", "--kept"]).code, 0);
    cell.counted(lost(step, fault, seen));
    REPORTED.fetch_add(1, Ordering::Relaxed);
}

fn goes_away(step: Step, fault: Fault) {
    let (times, deadline) = match fault {
        // The first try takes 20 s.
        _ if fault.keeps_waiting() => (1, 45),
        // Half of the time is waited.
        Fault::Status(_, Some(2..)) => (1, 12),
        _ => (2, 20),
    };
    let cell = Cell::new(step, fault, Lasts::Times(times), deadline);
    let finished = cell.agent(&["run"]);
    assert_eq!(finished.code, CODE, "{finished:?}");
    assert_eq!(cell.report()["signal"]["delivered"], true, "{finished:?}");
    assert!(!cell.below("signal.json").exists(), "it is to be told again");
    assert!(cell.line.seen() > 0 || fault == Fault::Refused, "the fault was not met");
    cell.counted(lost(step, fault, times));
    SURVIVED.fetch_add(1, Ordering::Relaxed);
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let ends = [("for_ever", for_ever as fn(Step, Fault)), ("goes_away", goes_away)];
    let mut trials = Vec::new();
    for step in Step::ALL {
        for fault in Fault::ALL {
            for (end, cell) in ends {
                let played = move || {
                    cell(step, fault);
                    Ok(())
                };
                trials.push(Trial::test(format!("{}::{fault}::{end}", step.name()), played));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let (survived, reported) = (SURVIVED.load(Ordering::Relaxed), REPORTED.load(Ordering::Relaxed));
    if survived + reported > 0 {
        println!("faults: {} cells tried, {survived} survived, {reported} reported", conclusion.num_passed + conclusion.num_failed);
    }
    conclusion.exit_code()
}

//! A table of faults and steps between this machine and OpenStack: Heat's own answer, with a token and with Keystone's, and
//! Keystone's answer. Heat and Keystone are stand-ins, Heat with the measured rules: what it counts, it counts as the real one.
//!
//! The run itself fails at once, since there is no minion; what is looked at is how Heat hears of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::faults::{Fault, Faulty, Lasts, most_tries};
use lab::harness::{self, Case, Slots};
use lab::heat::StandIn;
use lab::http::{Answer, Request};
use lab::process::{Finished, most_memory, until};
use lab::sandbox::Sandbox;
use lab::stall::Stalls;
use lab::tls::Authority;
use serde_json::{Value, json};

const PASSWORD: &str = "^pass#w@rd%";
const KEYSTONE: &str = "/v3/auth/tokens";
/// The run's own failure: there is no salt-minion.
const CODE: i32 = 20;
/// So often in a row something doubtful is seen before it is believed (`system::retry`).
const DOUBTS: usize = 5;
/// An answer may have 8 MiB, and is held twice while it grows; the rest is the program.
const MOST_MEMORY: usize = 64 * 1024;

/// Most of the time the cells wait.
const SLOTS: Slots = Slots { heavy: 1, light: 12 };
/// After its deadline the agent has a last word, and two processes start and end.
const LAST_WORDS: f64 = 3.0;

/// Cells in which Heat was told by the run, and those in which it was told later.
static SURVIVED: AtomicUsize = AtomicUsize::new(0);
static REPORTED: AtomicUsize = AtomicUsize::new(0);
static MEASURED: AtomicUsize = AtomicUsize::new(0);

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
    machine: Sandbox,
    heat: Arc<StandIn>,
    line: Faulty,
    deadline: u64,
    /// The line refuses connections until that was met.
    comes_back: bool,
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
        let machine = Sandbox::configured(env!("CARGO_BIN_EXE_heat-salt-bootstrap"), &config);
        line.play(fault, lasts, step != Step::Heat, move |request| step.is_at(request));
        Cell { machine, heat, line, deadline, comes_back: fault == Fault::Refused && lasts != Lasts::ForEver }
    }

    /// Runs the agent and looks at what holds in every cell.
    fn agent(&self, arguments: &[&str]) -> Finished {
        let stalls = Stalls::begin();
        let running = self.machine.start(&[arguments, &["-v"]].concat());
        let end = Instant::now() + Duration::from_secs(self.deadline);
        let pid = running.pid();
        let memory = thread::spawn(move || most_memory(pid));
        if self.comes_back {
            let so = || running.stderr_so_far().contains("refused").then_some(());
            until(Duration::from_secs(self.deadline), so).unwrap();
            self.line.come_back();
        }
        let finished = running.finish(Duration::from_secs(self.deadline + 120)).unwrap();
        let memory = memory.join().unwrap();
        // It is looked at now and then, and never if the agent ends first.
        if memory > 0 {
            MEASURED.fetch_add(1, Ordering::Relaxed);
        }
        assert!(memory < MOST_MEMORY, "{memory} kB of memory");
        let limit = self.deadline as f64 + LAST_WORDS + 2.0 * stalls.so_far().as_secs_f64();
        assert!(finished.seconds <= limit, "no end within {limit} s: {finished:?}");
        assert!(self.line.lured().is_empty(), "a redirect was followed");
        assert!(self.line.is_left_alone(end, stalls.so_far()), "Retry-After is not kept to");
        for secret in [PASSWORD, self.heat.token()] {
            assert!(!finished.stdout.contains(secret) && !finished.stderr.contains(secret), "{secret} in {finished:?}");
            assert_eq!(holding(&self.machine.path("var"), secret), Vec::<PathBuf>::new(), "they hold {secret}");
        }
        finished
    }

    fn report(&self) -> Value {
        self.machine.report()
    }

    /// Heat counts a FAILURE, of this VM. It heard of it once, unless its answer was lost.
    fn counted(&self, step: Step, fault: Fault) {
        let signals = self.heat.signals();
        let answer_lost = fault.comes_through() && step != Step::Keystone && !does_not_matter(fault);
        assert!(signals.len() == 1 || answer_lost, "it was told {} times", signals.len());
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

fn for_ever(step: Step, fault: Fault) {
    // Of what is left half is waited at most, and two pauses of a second have to fit in.
    let deadline = if matches!(fault, Fault::Status(_, Some(_))) { 16 } else { 8 };
    let cell = Cell::new(step, fault, Lasts::ForEver, deadline);
    let finished = cell.agent(&["run"]);
    let (report, seen) = (cell.report(), cell.line.seen());
    assert_eq!((finished.code, &report["reason"]), (CODE, &json!("package-failed")), "the run's own code stands: {finished:?}");
    if does_not_matter(fault) {
        assert_eq!(report["signal"]["delivered"], true, "{report:#}");
        cell.counted(step, fault);
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
    assert!(cell.machine.state("signal.json").exists(), "it is forgotten");
    cell.line.calm();
    assert_eq!(cell.agent(&["signal", "--kept"]).code, 0);
    cell.counted(step, fault);
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
    assert!(!cell.machine.state("signal.json").exists(), "it is to be told again");
    assert!(cell.line.seen() > 0 || fault == Fault::Refused, "the fault was not met");
    cell.counted(step, fault);
    SURVIVED.fetch_add(1, Ordering::Relaxed);
}

fn main() -> ExitCode {
    let ends = [("for_ever", for_ever as fn(Step, Fault)), ("goes_away", goes_away)];
    let mut all = Vec::new();
    // What waits longest begins first.
    for (end, cell) in ends.into_iter().rev() {
        for step in Step::ALL {
            for fault in Fault::ALL {
                let played = move || {
                    cell(step, fault);
                    Ok(())
                };
                all.push(Case::new(format!("{}::{fault}::{end}", step.name()), played).light());
            }
        }
    }
    all.sort_by_key(|case| !case.name().contains("stalls"));
    let told = || {
        let [survived, reported, measured] = [&SURVIVED, &REPORTED, &MEASURED].map(|count| count.load(Ordering::Relaxed));
        println!(
            "faults: {} cells ended well, {survived} survived, {reported} reported; memory was seen in {measured}",
            survived + reported
        );
        assert!(measured > 0, "memory was seen in none of them");
    };
    harness::run("heat_faults", SLOTS, all, || (), told)
}

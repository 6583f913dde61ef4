//! The package source's column of the table of faults: the way to a repository goes wrong at its index, and at a package. apt is
//! real, and so is what it makes of it; what is looked at is what the agent makes of apt.
//!
//! Most of the time the cells wait, so they are light cases.

use std::thread;
use std::time::{Duration, Instant};

use lab::faults::{Fault, Faulty, Lasts};
use lab::harness::Case;
use lab::heat::StandIn;
use lab::http::Request;
use lab::process::until;
use lab::stall::Stalls;
use lab::tls::Authority;
use lab::vm::{Vm, file, served};
use serde_json::json;

use crate::case_of;

/// apt tries each file four times, and each of the agent's tries may do so; the pauses let so many into the time that a cell has.
const MOST_TRIES: usize = 20;
/// After its deadline the agent has a last word, and two processes start and end, in a machine that is made for them.
const LAST_WORDS: f64 = 3.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Index,
    Package,
}

impl Step {
    fn is_at(self, request: &Request) -> bool {
        match self {
            Step::Index => request.path.contains("InRelease"),
            Step::Package => request.path.ends_with(".deb"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Step::Index => "index",
            Step::Package => "package",
        }
    }
}

/// How a fault that stays is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Survived,
    Reported(i32, &'static str),
}

fn taken(step: Step, fault: Fault) -> Taken {
    match (step, fault) {
        // apt reads the first length; without InRelease there is Release, and its signature beside it.
        (_, Fault::TwoLengths) | (Step::Index, Fault::HugeBody) => Taken::Survived,
        (_, Fault::Page | Fault::HalfABody | Fault::Redirect | Fault::HugeBody) => Taken::Reported(22, "package-untrusted"),
        // It says nothing while it waits, and may be unpacking for all that anybody can see.
        (Step::Package, fault) if waits(fault) => Taken::Reported(60, "out-of-time"),
        _ => Taken::Reported(21, "repository-unreachable"),
    }
}

/// Does apt wait until its own patience of 30 s ends?
fn waits(fault: Fault) -> bool {
    fault.keeps_waiting() || fault == Fault::HugeHeaders
}

/// A package manager does not look at Retry-After, so one row of each status is enough.
fn rows() -> impl Iterator<Item = Fault> {
    let alike = |fault: &Fault| matches!(fault, Fault::Status(502, _) | Fault::Status(_, Some(1 | u64::MAX)));
    Fault::ALL.into_iter().filter(move |fault| !alike(fault))
}

/// A stream that drips would do so for hours: it is the one that does not go away.
fn goes_away(fault: Fault) -> bool {
    !fault.to_string().starts_with("drips")
}

pub fn all() -> Vec<Case> {
    let mut cells = Vec::new();
    for step in [Step::Index, Step::Package] {
        cells.extend(rows().map(|fault| (step, fault, Lasts::ForEver)));
        cells.extend(rows().filter(|fault| goes_away(*fault)).map(|fault| (step, fault, Lasts::Times(1))));
    }
    // The ones that take longest first.
    cells.sort_by_key(|(_, fault, lasts)| !(waits(*fault) && *lasts != Lasts::ForEver));
    let one = |(step, fault, lasts): (Step, Fault, Lasts)| {
        let end = if lasts == Lasts::ForEver { "for_ever" } else { "goes_away" };
        case_of(format!("faults::{}::{fault}::{end}", step.name()), move || cell(step, fault, lasts)).light()
    };
    cells.into_iter().map(one).collect()
}

fn cell(step: Step, fault: Fault, lasts: Lasts) {
    let (taken, deadline) = if lasts == Lasts::ForEver { (taken(step, fault), 8) } else { (Taken::Survived, 60) };
    let (authority, heat) = (Authority::new().unwrap(), StandIn::start().unwrap());
    let mirror = Faulty::start(&authority, |request| served(&request.path)).unwrap();
    let repository = json!({"url": format!("{}/deb/good", mirror.url()), "gpg_key": String::from_utf8(file("key.asc")).unwrap()});
    let vm = Vm::new("bookworm", &json!({"version": "3006", "repository": repository}));
    vm.trust(&authority);
    vm.set("/signal", heat.handle());
    vm.set("/deadline", json!(format!("{deadline}s")));
    mirror.play(fault, lasts, step == Step::Index, move |request| step.is_at(request));
    let (begun, stalls) = (Instant::now(), Stalls::begin());
    let ended = thread::scope(|scope| {
        if fault == Fault::Refused && lasts != Lasts::ForEver {
            scope.spawn(|| {
                let met = || vm.text("var/log/heat-salt-bootstrap.log").contains("trying again").then_some(());
                // If it is not, the cell says so.
                let _ = until(Duration::from_secs(deadline), met);
                mirror.come_back();
            });
        }
        vm.install()
    });
    let (seconds, seen) = (begun.elapsed().as_secs_f64(), mirror.seen());
    let what = |said: &str| format!("{step:?}, {fault}, {lasts:?}: {said} ({seconds:.1} s, {seen} tries)");
    match taken {
        Taken::Survived => {
            ended.expect(ended.code == 0, &what("success"));
            ended.expect(vm.version() == "3006.27", &what("the package"));
            ended.expect(heat.signals().is_empty(), &what("nothing to tell Heat yet"));
        }
        Taken::Reported(code, reason) => {
            ended.expect((ended.code, &ended.report["reason"]) == (code, &json!(reason)), &what(reason));
            ended.expect(ended.report["hint"].as_str().is_some_and(|hint| !hint.is_empty()), &what("a hint"));
            let told = heat.signals();
            let so = told.len() == 1 && told[0].status == "FAILURE" && told[0].reason.starts_with(&format!("{reason}: "));
            ended.expect(so, &what(&format!("Heat was told once, and why: {told:?}")));
            ended.expect(vm.version().is_empty(), &what("no package"));
        }
    }
    ended.expect(seconds <= deadline as f64 + LAST_WORDS + 2.0 * stalls.so_far().as_secs_f64(), &what("the end in time"));
    ended.expect(seen > 0 || fault == Fault::Refused, &what("the fault was met"));
    ended.expect(seen <= MOST_TRIES, &what("no more tries than that"));
}

//! A table of faults and steps: what is between this machine and salt-api, or the enrolment service, goes wrong, in every way that
//! `lab::faults` knows, at every step at which one of them is asked. A cell lasts to the end, and then the run has to end in time and say the right thing;
//! or it goes away, and then the run has to survive it.
//!
//! Salt and the service are real behind the proxy that plays the fault. A minion that is there already serves many cells one after the other: what
//! is asked of salt-api is the same, and the start of a minion would cost more than everything else.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lab::faults::{Fault, Lasts, most_tries};
use lab::harness::Case;
use lab::http::Request;
use lab::keys::KeyState;
use lab::process::most_memory;
use lab::stall::Stalls;
use lab::venv::Line;

use crate::fixture::{Ended, Vm};
use crate::gate::described;

/// So often in a row something doubtful is seen before it is believed (`system::retry`).
const DOUBTS: usize = 5;
/// The part of a deadline of up to 20 s that is kept for telling Heat (`cli::run`).
const RESERVE: u64 = 2;
/// So many seconds a hook has for its answer (`salt::session`).
const HOOK_TIMEOUT: u64 = 10;
/// So many a report to the service has in all (`cli::run`).
const NOTING: f64 = 10.0;
/// An answer of salt-api may have 8 MiB, and is held twice while it grows; the rest is the program.
const MOST_MEMORY: usize = 64 * 1024;

static TRIED: AtomicUsize = AtomicUsize::new(0);
static SURVIVED: AtomicUsize = AtomicUsize::new(0);
static MEASURED: AtomicUsize = AtomicUsize::new(0);
static REPORTED: AtomicUsize = AtomicUsize::new(0);

/// Minions that wait for their next cell: of either line, by salt-api and by the enrolment service.
static LANES: [[Mutex<Vec<Vm>>; 2]; 2] = [const { [const { Mutex::new(Vec::new()) }; 2] }; 2];
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// The table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Login,
    LookUp,
    Accept,
    Hook,
    Logout,
    /// Of the enrolment service.
    Enroll,
    Publish,
    Report,
}

impl Step {
    const ALL: [Step; 8] = [Step::Login, Step::LookUp, Step::Accept, Step::Hook, Step::Logout, Step::Enroll, Step::Publish, Step::Report];

    fn is_of_the_service(self) -> bool {
        matches!(self, Step::Enroll | Step::Publish | Step::Report)
    }

    fn name(self) -> &'static str {
        match self {
            Step::Login => "login",
            Step::LookUp => "look_up",
            Step::Accept => "accept",
            Step::Hook => "hook",
            Step::Logout => "logout",
            Step::Enroll => "enroll",
            Step::Publish => "publish",
            Step::Report => "report",
        }
    }

    /// As the gate describes it.
    fn request(self) -> &'static str {
        match self {
            Step::Login => "POST /login",
            Step::LookUp => "key.print",
            Step::Accept => "key.accept",
            Step::Hook => "POST /hook/states/state",
            Step::Logout => "POST /logout",
            Step::Enroll => "POST /v1/enroll",
            Step::Publish => "POST /v1/apply",
            Step::Report => "POST /v1/report",
        }
    }

    /// The verb that takes it.
    fn verb(self) -> &'static str {
        match self {
            Step::LookUp | Step::Accept | Step::Enroll => "accept",
            Step::Login | Step::Hook | Step::Logout | Step::Publish | Step::Report => "apply",
        }
    }

    /// What the report calls it.
    fn reported(self) -> &'static str {
        match self {
            Step::Login => "login",
            Step::LookUp | Step::Accept => "accept",
            Step::Hook | Step::Publish => "states",
            Step::Logout | Step::Report => "",
            Step::Enroll => "enroll",
        }
    }
}

/// How the product takes a fault that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It goes on all the same.
    Survived,
    /// It tries to the end.
    Passing(u8, &'static str),
    /// It tries a few times more: this is somebody's mistake.
    Doubtful(u8, &'static str),
}

fn taken(fault: Fault, step: Step) -> Taken {
    match (step, fault) {
        // A session that is not closed ends by itself, and nothing hangs on whether the service knows how a run ended.
        (Step::Logout | Step::Report, _) => Taken::Survived,
        // The hook was fired, and the job is seen on this machine, whatever salt-api says.
        (Step::Hook, fault) if fault.comes_through() => Taken::Survived,
        (_, Fault::HandshakeNoise | Fault::OtherCertificate) => Taken::Doubtful(31, "api-tls"),
        (
            _,
            Fault::Garbage | Fault::Page | Fault::HalfABody | Fault::HugeBody | Fault::Redirect | Fault::TwoLengths | Fault::HugeHeaders,
        ) => Taken::Doubtful(34, "api-protocol"),
        (_, Fault::Refused | Fault::HandshakeReset | Fault::HandshakeStalls | Fault::Cut(..) | Fault::Status(..) | Fault::Echo) => {
            Taken::Passing(30, "api-unreachable")
        }
    }
}

/// The line with each fault at each step, with one end or the other. On the other one it is each fault once, with the other end. The whole
/// matrix has all of it on both.
const WHOLE: Line = Line::Lts3006;

/// A test for each cell, and for each way in which it ends.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in Line::ALL {
        for (column, step) in Step::ALL.into_iter().enumerate() {
            for (row, fault) in Fault::ALL.into_iter().enumerate() {
                // The steps take turns, and each of them has many faults. What Salt does has no part in how the service is asked.
                let elsewhere = line != WHOLE && (step.is_of_the_service() || row % Step::ALL.len() != column);
                let mut add = |case: Case, repeats| cases.push(if elsewhere || repeats { case.repeats() } else { case });
                if step == Step::Report && fault.is_of_the_connection() {
                    // Over a connection that is none the request before it ends the run.
                    continue;
                }
                if step == Step::Logout {
                    // It is tried once.
                    add(one(line, step, fault, "for_ever", for_ever), false);
                    continue;
                }
                // So do the ends: how a fault is told, or survived, is the same at each step.
                let stays = (row + column + usize::from(line != WHOLE)).is_multiple_of(2);
                add(one(line, step, fault, "for_ever", for_ever), !stays);
                add(one(line, step, fault, "goes_away", goes_away), stays);
            }
        }
    }
    // These take several times as long as the others.
    cases.sort_by_key(|case| !["stall", "drips"].iter().any(|slow| case.name().contains(slow)));
    cases
}

fn one(line: Line, step: Step, fault: Fault, end: &str, cell: fn(&mut Vm, Step, Fault) -> Taken) -> Case {
    let name = format!("{line}::faults::{}::{fault}::{end}", step.name());
    let run = move || {
        let mut vm = lane(line, step);
        // An accept of the cell before, which its run did not wait for, must not come after the key is moved.
        vm.gate.await_quiet();
        vm.next_stack().forget_runs();
        if step == Step::Enroll {
            // It is accepted, and asks all the same. After a cell in which it never learned that, there is none.
            let _ = fs::remove_file(vm.path("var/lib/heat-salt-bootstrap/enrolled"));
        }
        vm.move_key(if step == Step::Accept { KeyState::Pending } else { KeyState::Accepted });
        TRIED.fetch_add(1, Ordering::Relaxed);
        let ended = cell(&mut vm, step, fault);
        let count = if ended == Taken::Survived { &SURVIVED } else { &REPORTED };
        count.fetch_add(1, Ordering::Relaxed);
        assert!(vm.gate.faults.lured().is_empty(), "a redirect was followed");
        vm.gate.faults.calm();
        // A cell that fails leaves its minion to nobody.
        lanes(line, step).lock().unwrap_or_else(PoisonError::into_inner).push(vm);
        Ok(())
    };
    Case::new(name, run).light()
}

fn lanes(line: Line, step: Step) -> &'static Mutex<Vec<Vm>> {
    let of_line = match line {
        Line::Lts3006 => &LANES[0],
        Line::Lts3008 => &LANES[1],
    };
    &of_line[usize::from(step.is_of_the_service())]
}

/// A VM with a minion that is connected.
fn lane(line: Line, step: Step) -> Vm {
    let waiting = lanes(line, step).lock().unwrap_or_else(PoisonError::into_inner).pop();
    waiting.unwrap_or_else(|| {
        let mut vm = Vm::new(line, &format!("faults-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        if step.is_of_the_service() {
            let token = vm.master.token(vm.root.id(), &[]).unwrap();
            vm.enrolling(&token);
        } else {
            // Nobody has to be asked for the master, so that the first key that is looked up is the minion's.
            vm.trusting();
        }
        vm.joined();
        vm
    })
}

/// Ends the minions and says how the table went, if any of it was tried.
pub fn finish() {
    for lanes in LANES.iter().flatten() {
        lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    if count(&TRIED) > 0 {
        println!(
            "faults: {} cells tried, {} survived, {} reported; memory was seen in {}",
            count(&TRIED),
            count(&SURVIVED),
            count(&REPORTED),
            count(&MEASURED)
        );
        assert!(count(&MEASURED) > 0, "memory was seen in none of them");
    }
}

fn for_ever(vm: &mut Vm, step: Step, fault: Fault) -> Taken {
    let taken = taken(fault, step);
    let mut seconds = match taken {
        // It takes all the time there is; of what is left half is waited at most, and two pauses of a second have to fit in.
        Taken::Passing(..) if matches!(fault, Fault::Status(_, Some(_))) => 16,
        Taken::Passing(..) => 8,
        // It ends as soon as it is done, or believed, which on a busy machine may be late.
        Taken::Survived | Taken::Doubtful(..) => 40,
    };
    let mut ended = played(vm, step, fault, Lasts::ForEver, seconds);
    // Connections that are refused from the first on nobody sees.
    let unseen = fault == Fault::Refused && [Step::Login, Step::Enroll].contains(&step);
    // On a slow machine what comes before the step may take all of a short time.
    while ended.code == 30 && vm.gate.faults.seen() == 0 && !unseen && seconds < 64 {
        seconds *= 2;
        vm.next_stack().forget_runs();
        ended = played(vm, step, fault, Lasts::ForEver, seconds);
    }
    let seen = vm.gate.faults.seen();
    // With the whole connection bad, the first request and the logout meet the fault as well; a login meets it at once, and there is
    // nothing to log out of.
    let (besides, report) = match step {
        _ if !fault.is_of_the_connection() => (0, 0),
        Step::Login | Step::Enroll => (0, 0),
        // How it ended is told as well, or is tried to be.
        Step::Publish => (0, DOUBTS),
        Step::Report => unreachable!("it has no such cell"),
        Step::LookUp | Step::Accept | Step::Hook | Step::Logout => (2, 0),
    };
    let (least, most) = match taken {
        Taken::Survived if step == Step::Logout => {
            succeeded(&ended, step);
            (1, 1 + usize::from(fault.is_of_the_connection()))
        }
        Taken::Survived if step == Step::Report => {
            succeeded(&ended, step);
            (1, most_tries(fault, NOTING).max(DOUBTS))
        }
        Taken::Survived => {
            succeeded(&ended, step);
            // An answer to a hook is waited for only so long.
            (1, most_tries(fault, (seconds - RESERVE) as f64).max(seconds.div_ceil(HOOK_TIMEOUT) as usize))
        }
        Taken::Passing(code, reason) => {
            ended.failed(code, reason, step.reported());
            (usize::from(!unseen), most_tries(fault, (seconds - RESERVE) as f64) + besides + report)
        }
        Taken::Doubtful(code, reason) => {
            ended.failed(code, reason, step.reported());
            // On a machine that stalls the connection of a logout before this cell, which is not waited for, may be met here.
            (DOUBTS + besides, DOUBTS + besides + report + 1)
        }
    };
    ended.expect((least..=most).contains(&seen), &format!("from {least} to {most} tries, and it was {seen}"));
    if [Step::Login, Step::Enroll].contains(&step) && fault.is_of_the_connection() {
        ended.expect(ended.requests.is_empty(), "nothing is said over a connection that is none");
    }
    taken
}

fn goes_away(vm: &mut Vm, step: Step, fault: Fault) -> Taken {
    let (times, seconds) = match fault {
        // The first try takes 15 s.
        _ if fault.keeps_waiting() => (1, 45),
        // Half of the time is waited.
        Fault::Status(_, Some(2..)) => (1, 24),
        _ => (2, 30),
    };
    let ended = played(vm, step, fault, Lasts::Times(times), seconds);
    succeeded(&ended, step);
    let seen = vm.gate.faults.seen();
    let least = match fault {
        // The job of a hook may be here before it is fired once more.
        _ if step == Step::Hook && fault.comes_through() => 1,
        // A report has no time for a second try then.
        _ if step == Step::Report && fault.keeps_waiting() => 1,
        // Connections that are refused nobody sees.
        Fault::Refused => 1,
        _ => times + 1,
    };
    ended.expect(seen >= least, &format!("the fault was met {times} times and went away: {least} tries, and it was {seen}"));
    let lost = step == Step::Login && fault.comes_through();
    if !lost {
        for token in &ended.tokens {
            ended.expect(vm.is_closed(token), "its session is closed");
        }
    }
    Taken::Survived
}

/// A run of the verb that takes the step, with the fault in its way.
fn played(vm: &mut Vm, step: Step, fault: Fault, lasts: Lasts, seconds: u64) -> Ended {
    vm.deadline(seconds);
    let wanted = step.request();
    let fits = move |request: &Request| described(request) == wanted;
    vm.gate.faults.play(fault, lasts, [Step::Login, Step::Enroll].contains(&step), fits);
    let started = vm.start(&[step.verb()]);
    let (end, stalls) = (Instant::now() + Duration::from_secs(seconds - RESERVE), Stalls::begin());
    let pid = started.running.pid();
    let memory = thread::spawn(move || most_memory(pid));
    if fault == Fault::Refused && lasts != Lasts::ForEver {
        started.await_word("refused");
        vm.gate.faults.come_back();
    }
    // This looks for secrets too.
    let ended = started.finish(vm);
    ended.in_time();
    // A report has a deadline of its own, and what is left of it is waited by halves.
    ended.expect(step == Step::Report || vm.gate.faults.is_left_alone(end, stalls.so_far()), "Retry-After is kept to");
    let memory = memory.join().unwrap();
    // It is looked at now and then, and never if the agent ends first.
    if memory > 0 {
        MEASURED.fetch_add(1, Ordering::Relaxed);
    }
    ended.expect(memory < MOST_MEMORY, &format!("less than {MOST_MEMORY} kB of memory, and it was {memory} kB"));
    ended
}

#[track_caller]
fn succeeded(ended: &Ended, step: Step) {
    if step.verb() == "apply" {
        ended.done();
        return;
    }
    ended.expect(ended.code == 0 && ended.report["verdict"] == "done", "exit code 0");
    ended.expect(ended.signals.is_empty(), "nothing to tell Heat yet");
}

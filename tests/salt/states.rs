//! The trigger and what comes of it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use lab::process::{run, until};
use lab::venv::Line;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::OnEachLine;
use crate::fixture::{LONG, Started, Vm};

pub const CASES: &[OnEachLine] = &[
    ("failing", failing),
    ("missing_sls", |line| not_rendered(line, "missing", "no_such_state", "no_such_state")),
    ("jinja_error", |line| not_rendered(line, "jinja", "render", "ZeroDivisionError")),
    ("bad_yaml", |line| not_rendered(line, "bad-yaml", "badyaml", "badyaml")),
    ("pillar_key_missing", |line| not_rendered(line, "no-pillar", "needs_pillar", "who")),
    ("pillar_error", |line| not_rendered(line, "pillarbad-1", "ok", "no_such_pillar")),
    ("nothing_in_it", |line| not_rendered(line, "nothing", "nothing", "not one state")),
    ("only_tested", only_tested),
    ("somebody_else_tries", somebody_else_tries),
    ("somebody_else_applies", somebody_else_applies),
    ("too_slow", too_slow),
    ("nobody_listens", nobody_listens),
    ("another_run_in_the_way", another_run_in_the_way),
    ("another_run_stays", another_run_stays),
    ("another_run_queued", another_run_queued),
    ("half_a_job_file", half_a_job_file),
    ("again_after_a_failure", again_after_a_failure),
    ("killed_while_states_run", |line| killed_while_states_run(line, "states/state")),
    ("killed_while_states_run_shipped", |line| killed_while_states_run(line, "states/shipped")),
    ("killed_before_the_trigger", killed_before_the_trigger),
    ("terminated_while_states_run", terminated_while_states_run),
];

fn failing(line: Line) {
    let mut vm = Vm::new(line, "failing");
    let ended = vm.states(&["fail", "second"]).run();
    ended.failed(51, "state-failed", "states").states(5, 2).says("bad, after_bad");
    let failures = &ended.report["states"]["failures"];
    ended.expect(failures[0]["id"] == "bad" && failures[0]["sls"] == "fail", "which state failed");
    ended.expect(failures[0]["comment"] == "the database is not there", "why it failed");
    ended.expect(failures[1]["id"] == "after_bad", "what failed with it");
    let told = &ended.signals[0].reason;
    ended.expect(told.contains("bad (fail): the database is not there"), "Heat knows the state");
    let status = vm.agent(&["status"]);
    for word in ["FAILED  failing (state-failed, exit code 51)", "FAILED bad (fail): the database is not there"] {
        status.expect(status.stdout.contains(word), word);
    }
}

fn not_rendered(line: Line, id: &str, state: &str, says: &str) {
    let mut vm = Vm::new(line, id);
    let ended = vm.states(&[state]).run();
    ended.failed(52, "state-not-rendered", "states").says(state).says(says);
    ended.expect(ended.report["states"].is_null(), "no state ran");
    ended.expect(ended.triggered("states/state") == 1, "it was triggered once");
    assert!(!vm.path("ok.out").exists());
}

/// A minion that only tries: each state says what it would do, and does nothing.
fn only_tested(line: Line) {
    let mut vm = Vm::new(line, "only-tested");
    vm.states(&["append"]).shipped().set("minion/config/test", true);
    let ended = vm.run();
    ended.failed(54, "state-pending", "states").says("2 of 2 states").says("zz-heat-salt-bootstrap.conf").states(2, 0);
    ended.expect(ended.report["states"]["pending"] == 2, "two states are pending");
    assert_eq!(vm.runs(), 0);
    // Once more, and for good.
    let ended = vm.next_stack().set("minion/config/test", Value::Null).run();
    ended.done().states(2, 0);
    assert_eq!(vm.runs(), 1);
}

/// A run is killed when it was about to fire; what its operator tries then is no job of the next run.
fn somebody_else_tries(line: Line) {
    let mut vm = Vm::new(line, "else-tries");
    vm.states(&["append"]).joined();
    killed_at_the_hook(&vm, "states/state");
    let admin = vm.master.session("admin").unwrap();
    let tried =
        until(LONG, || Some(admin.local(vm.root.id(), "state.apply", &["append", "test=True"]).unwrap()).filter(|said| !said.is_null()));
    assert!(tried.unwrap().to_string().contains("\"result\":null"), "it was tried");
    assert_eq!(vm.runs(), 0);
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(ended.asked("POST /hook/states/state") == 1, "it was triggered");
    assert_eq!(vm.runs(), 1);
}

/// The same where the operator means it, and the reactor tells whose job is whose.
fn somebody_else_applies(line: Line) {
    let mut vm = Vm::new(line, "else-applies");
    vm.states(&["append"]).shipped().run().done();
    // By now it is known that this reactor passes the id on.
    vm.next_stack().set("apply/pillar", json!({"another": "bootstrap"}));
    killed_at_the_hook(&vm, "states/shipped");
    let admin = vm.master.session("admin").unwrap();
    let applied = || (admin.local(vm.root.id(), "state.apply", &["append"]).is_ok() && vm.runs() > 1).then_some(());
    until(LONG, applied).unwrap();
    let before = vm.runs();
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(ended.asked("POST /hook/states/shipped") == 1, "it was triggered");
    assert_eq!(vm.runs(), before + 1);
}

fn killed_at_the_hook(vm: &Vm, hook: &str) {
    let hook = format!("POST /hook/{hook}");
    let fired = vm.gate.requests().iter().filter(|one| **one == hook).count();
    vm.gate.hold(Some(&hook));
    let started = vm.start(&["run"]);
    vm.await_nth_request(&hook, fired + 1);
    started.kill(vm);
    vm.gate.hold(None);
}

fn too_slow(line: Line) {
    let mut vm = Vm::new(line, "too-slow");
    vm.states(&["held"]).joined();
    let ended = vm.deadline(20).run();
    ended.failed(53, "state-timeout", "states").says("held");
    assert_eq!(vm.runs(), 1);
}

fn nobody_listens(line: Line) {
    let mut vm = Vm::new(line, "nobody-listens");
    vm.joined();
    let ended = vm.set("apply/hook", "states/nobody").deadline(20).run();
    ended.failed(50, "no-reaction", "states").says("salt/netapi/hook/states/nobody").hints("reactor");
    ended.expect(ended.asked("POST /hook/states/nobody") == 2, "it was fired twice");
    assert!(!vm.path("ok.out").exists());
}

/// Somebody else's state run, until there is a file `go-on`; returns when it is under way.
fn occupy(vm: &Vm) {
    let slow = json!({"tgt": vm.root.id(), "matcher": "list", "args": "occupied"});
    vm.master.session("admin").unwrap().hook("states/shipped", &slow).unwrap();
    let proc = vm.path("var/cache/salt/minion/proc");
    let under_way = || {
        let files = fs::read_dir(&proc).ok()?.flatten();
        let mut jobs = files.filter_map(|file| fs::read(file.path()).ok());
        jobs.any(|job| job.windows(8).any(|word| word == b"occupied")).then_some(())
    };
    until(LONG, under_way).unwrap();
}

/// The classic reactor does not queue: Salt refuses, and that is no failure of ours.
fn another_run_in_the_way(line: Line) {
    let mut vm = Vm::new(line, "in-the-way");
    vm.states(&["append"]).joined();
    occupy(&vm);
    let started = vm.start(&["run"]);
    started.await_word("another state run is in the way");
    vm.make("go-on");
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.triggered("states/state") == 2, "once refused, once more");
    assert_eq!(vm.runs(), 1);
}

/// It is waited for as long as there is time, and then said to be what it was.
fn another_run_stays(line: Line) {
    let mut vm = Vm::new(line, "stays");
    vm.states(&["append"]).joined();
    occupy(&vm);
    let ended = vm.deadline(17).run();
    ended.failed(52, "state-not-rendered", "states").says("another state run was in the way");
    ended.expect(ended.triggered("states/state") == 1, "it was refused once");
    vm.make("go-on");
}

fn another_run_queued(line: Line) {
    let mut vm = Vm::new(line, "queued");
    vm.states(&["append"]).shipped().joined();
    occupy(&vm);
    let started = vm.start(&["run"]);
    vm.await_request("POST /hook/states/shipped");
    vm.make("go-on");
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.triggered("states/shipped") == 1, "it was triggered once");
    assert_eq!(vm.runs(), 1);
}

/// Salt itself falls over a file that another job is just writing, before it runs one state: it is asked again.
fn half_a_job_file(line: Line) {
    let mut vm = Vm::new(line, "half-a-file");
    vm.states(&["append"]).joined();
    let started = beside_half_a_job_file(&vm);
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.triggered("states/state") == 2, "once it fell over it, once more");
    assert_eq!(vm.runs(), 1);
    // One that stays
    let half = HalfAFile::of(&vm);
    let ended = vm.next_stack().agent(&["run", "--again"]);
    drop(half);
    ended.failed(52, "state-not-rendered", "states").says("could not read its own job files: salt.exceptions").hints("minion/proc");
    ended.expect(ended.triggered("states/state") == 3, "it was asked for three times");
    assert_eq!(vm.runs(), 1);
}

/// The file of a job that is just being written. The minion would remove it as soon as it came by; what something is mounted on stays until
/// that is off.
struct HalfAFile(PathBuf);

impl HalfAFile {
    fn of(vm: &Vm) -> HalfAFile {
        let half = vm.path("var/cache/salt/minion/proc/20260102030405060708");
        // Two values, where one is expected.
        fs::write(&half, b"\xc0\xc0").unwrap();
        assert_eq!(run(Command::new("mount").arg("--bind").args([&half, &half]), LONG).unwrap().code, 0);
        HalfAFile(half)
    }
}

impl Drop for HalfAFile {
    fn drop(&mut self) {
        assert_eq!(run(Command::new("umount").arg(&self.0), LONG).unwrap().code, 0);
        // By the minion, if it was faster.
        let _ = fs::remove_file(&self.0);
    }
}

/// A run that meets such a file, which is gone when it has.
pub fn beside_half_a_job_file(vm: &Vm) -> Started {
    let half = HalfAFile::of(vm);
    let started = vm.start(&["run"]);
    let over = || {
        let said = started.running.stderr_so_far();
        (said.contains("Salt could not read") || said.contains("signalled")).then_some(())
    };
    until(LONG, over).unwrap();
    drop(half);
    started
}

fn again_after_a_failure(line: Line) {
    let mut vm = Vm::new(line, "after-failure");
    let jid = |report: &Value| report["facts"]["jid"].as_str().unwrap().to_owned();
    let first = vm.states(&["append", "fail"]).run();
    first.failed(51, "state-failed", "states");
    let second = vm.next_stack().run();
    second.failed(51, "state-failed", "states");
    second.expect(jid(&first.report) != jid(&second.report), "another job");
    assert_eq!(vm.runs(), 2);
    vm.next_stack().states(&["append"]).run().done().states(2, 0);
    assert_eq!(vm.runs(), 3);
}

/// The job goes on without us, and the next run finds it.
fn killed_while_states_run(line: Line, hook: &str) {
    let mut vm = Vm::new(line, &format!("killed-{}", hook.replace('/', "-")));
    vm.set("apply/hook", hook);
    let started = vm.states(&["held"]).start(&["run"]);
    vm.await_file("runs.out");
    started.kill(&vm);
    let next = vm.start(&["run"]);
    next.await_word("runs held on this minion");
    vm.make("go");
    let ended = next.end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.asked(&format!("POST /hook/{hook}")) == 0, "it was not triggered again");
    assert_eq!(vm.runs(), 1);
}

fn killed_before_the_trigger(line: Line) {
    let mut vm = Vm::new(line, "killed-before");
    vm.states(&["append"]);
    for last in ["key.accept", "POST /hook/states/state"] {
        vm.gate.hold(Some(last));
        let started = vm.start(&["run"]);
        vm.await_request(last);
        started.kill(&vm);
    }
    vm.gate.hold(None);
    vm.run().done().states(2, 0);
    assert_eq!(vm.runs(), 1);
}

fn terminated_while_states_run(line: Line) {
    let mut vm = Vm::new(line, "terminated");
    let started = vm.states(&["held"]).start(&["run"]);
    vm.await_file("runs.out");
    started.running.signal(Signal::SIGTERM).unwrap();
    // The states go on, and it does not wait for them.
    let ended = started.end(&vm);
    ended.failed(61, "interrupted", "states").says("SIGTERM");
}

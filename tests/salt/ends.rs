//! How a run ends: the deadline, the report, Heat, the verbs that only look.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use lab::process;
use lab::venv::Line;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::OnEachLine;
use crate::fixture::{Ended, LONG, Vm};

pub const CASES: &[OnEachLine] = &[
    ("deadline_passed", deadline_passed),
    ("bad_configuration", bad_configuration),
    ("broken_configuration", broken_configuration),
    ("plan", plan),
    ("status_without_a_run", status_without_a_run),
    ("explain", explain),
    ("heat_down", heat_down),
    ("heat_hangs_and_the_run_fails", heat_hangs_and_the_run_fails),
    ("heat_token_wrong", heat_token_wrong),
    ("signal_by_hand", signal_by_hand),
    ("not_root", not_root),
];

fn deadline_passed(line: Line) {
    let mut vm = Vm::new(line, "deadline-passed");
    let store = vm.path("var/lib/heat-salt-bootstrap");
    fs::create_dir_all(&store).unwrap();
    // Another run that never ends.
    let file = File::create(store.join("lock")).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    let nothing = |ended: &Ended, code: i32| {
        ended.expect(ended.code == code && ended.stderr.contains("another run"), &format!("exit code {code}"));
        ended.expect(ended.requests.is_empty(), "salt-api was left alone");
        ended.expect(ended.signals.is_empty() && ended.report.is_null(), "that run reports and tells, and nobody else");
    };
    nothing(&vm.deadline(6).run(), 60);
    let started = vm.deadline(90).start(&["run"]);
    started.await_word("another run is under way");
    started.running.signal(Signal::SIGINT).unwrap();
    nothing(&started.end(&vm), 61);
    drop(lock);
    vm.run().done();
}

fn bad_configuration(line: Line) {
    let mut vm = Vm::new(line, "bad-config");
    vm.set("minion/idd", "x").set("api/url", "http://127.0.0.1:8000");
    vm.set("apply/states", 5).set("apply/matcher", "nosuch").set("deadline", "soon").set("applied", json!({}));
    let ended = vm.run();
    ended.refused(10, "config").says("6 problems").says("config.json");
    for key in ["minion.idd", "api.url", "apply.states", "apply.matcher", "deadline", "applied"] {
        ended.says(key);
    }
    ended.expect(ended.requests.is_empty(), "salt-api was left alone");
    let plan = vm.agent(&["plan"]);
    plan.expect(plan.code == 10 && plan.stderr.contains("minion.idd"), "plan finds it too");
}

/// With the signal in a file of its own Heat hears even of a configuration that is no JSON.
fn broken_configuration(line: Line) {
    let vm = Vm::new(line, "broken-config");
    let main = vm.root.write_config(&vm.config).unwrap();
    let parts = main.with_file_name("config.d");
    fs::create_dir(&parts).unwrap();
    let readable = json!({"signal": vm.config["signal"], "minion": {"id": "broken-config"}});
    fs::write(parts.join("signal.json"), readable.to_string()).unwrap();
    fs::write(&main, "{\n  \"minion\": {\"master\": }\n}").unwrap();
    let ended = vm.start_as_is(&["run"]).end(&vm);
    ended.refused(10, "config").says("1 problem:").says("config.json").says("line 2");
}

fn plan(line: Line) {
    let mut vm = Vm::new(line, "plan");
    vm.set("apply/pillar", json!({"database": {"password": "Pillar-Secret"}}));
    vm.set("minion/config/mysql.pass", "Minion-Secret");
    vm.secrets.extend(["Pillar-Secret", "Minion-Secret"].map(str::to_owned));
    vm.root.write_config(&vm.config).unwrap();
    let before = vm.tree();
    let shown = vm.agent(&["plan"]);
    for word in ["zz-heat-salt-bootstrap.conf", "salt-minion -d", "POST", "key.accept match=plan", "args=ok", "TOKEN_SIGNAL"] {
        shown.expect(shown.code == 0 && shown.stdout.contains(word), word);
    }
    let as_json = vm.agent(&["plan", "--json"]);
    let plan: Value = serde_json::from_str(&as_json.stdout).unwrap();
    assert_eq!(plan["minion_id"], "plan");
    assert_eq!(vm.tree(), before, "something was changed");
    assert!(vm.gate.requests().is_empty() && vm.heat.requests().is_empty());
}

fn status_without_a_run(line: Line) {
    let vm = Vm::new(line, "no-status");
    for verb in ["status", "signal"] {
        let ended = vm.agent(&[verb]);
        ended.expect(ended.code == 24 && ended.stderr.contains("no report"), "it says what is missing");
        ended.expect(ended.signals.is_empty(), "nothing to tell Heat");
    }
}

fn explain(line: Line) {
    let vm = Vm::new(line, "explain");
    let by_code = vm.agent(&["explain", "42"]);
    by_code.expect(by_code.code == 0 && by_code.stdout.contains("salt-key -d ID"), "what to do");
    let by_reason = vm.agent(&["explain", "key-conflict"]);
    assert_eq!(by_code.stdout, by_reason.stdout);
    let all = vm.agent(&["explain"]);
    for word in ["0 done", "42 key-conflict", "90 bug"] {
        all.expect(all.stdout.contains(word), word);
    }
    let unknown = vm.agent(&["explain", "13"]);
    unknown.expect(unknown.code == 11 && unknown.stdout.is_empty(), "exit code 11");
    let wrong = vm.start_as_is(&["dance"]).finish(&vm);
    wrong.expect(wrong.code == 11, "exit code 11");
}

/// The work is done once, and Heat is told when it is back.
fn heat_down(line: Line) {
    let mut vm = Vm::new(line, "heat-down");
    vm.heat.fail_next(1000, 503);
    vm.states(&["append"]).joined();
    let ended = vm.deadline(20).run();
    ended.expect(ended.code == 70, "exit code 70");
    ended.expect(ended.report["verdict"] == "done" && ended.report["code"] == 70, "the work is done");
    ended.expect(ended.report["reason"] == "signal-undelivered", "Heat was not told");
    ended.expect(ended.report["signal"]["delivered"] == false, "Heat was not told");
    ended.expect(ended.report["signal"]["error"].as_str().unwrap().contains("503"), "why");
    let tries = vm.heat.requests();
    assert!(tries.len() > 2, "it was tried {} times", tries.len());
    let status = vm.agent(&["status"]);
    status.expect(status.stdout.contains("Heat: NOT told"), "status says so");

    vm.heat.recover();
    vm.agent(&["signal"]).done().states(2, 0);
    assert_eq!(vm.heat.requests().last().unwrap().request.json()["id"], tries[0].request.json()["id"]);
    let again = vm.next_stack().run();
    again.done();
    again.expect(again.changed().is_empty(), "nothing was left to do");
    assert_eq!(vm.runs(), 1);
}

/// The run's own code stands, and the report names both.
fn heat_hangs_and_the_run_fails(line: Line) {
    let mut vm = Vm::new(line, "heat-hangs");
    vm.heat.hang_next(1000);
    let ended = vm.set("api/password", "not-the-Secret").deadline(6).run();
    ended.expect(ended.code == 32 && ended.report["reason"] == "login-refused", "exit code 32");
    ended.expect(ended.report["signal"]["delivered"] == false, "Heat was not told");
    ended.expect(ended.report["signal"]["error"].is_string(), "why");
    vm.heat.recover();
    vm.agent(&["signal"]);
    let told = vm.heat.signals();
    assert_eq!((told.len(), told[0].status.as_str(), told[0].id.as_str()), (1, "FAILURE", "heat-hangs"));
    assert!(told[0].reason.starts_with("login-refused: "), "{}", told[0].reason);
}

fn heat_token_wrong(line: Line) {
    let mut vm = Vm::new(line, "heat-token");
    vm.secrets.push("gAAAAABwrong-token".to_owned());
    let ended = vm.set("signal/token", "gAAAAABwrong-token").run();
    ended.expect(ended.code == 70 && ended.report["verdict"] == "done", "exit code 70");
    ended.expect(ended.report["signal"]["error"].as_str().unwrap().contains("401"), "why");
    assert_eq!(vm.heat.requests().len(), 5, "it is believed after the fifth time");
    assert!(vm.path("ok.out").exists(), "the work is done");
}

fn signal_by_hand(line: Line) {
    let vm = Vm::new(line, "by-hand");
    let ended = vm.agent(&["signal", "--status", "failure", "--reason", "the disk is full"]);
    let told = &ended.signals;
    ended.expect(ended.code == 0 && told.len() == 1, "Heat was told");
    ended.expect((told[0].status.as_str(), told[0].id.as_str()) == ("FAILURE", "by-hand"), "FAILURE");
    ended.expect(told[0].reason == "the disk is full", "the reason given");
    let ended = vm.agent(&["signal", "--status", "success"]);
    ended.expect(ended.code == 0 && ended.signals[0].status == "SUCCESS", "SUCCESS");
}

/// Without a root of its own the program changes the machine, which takes root.
fn not_root(line: Line) {
    let vm = Vm::new(line, "not-root");
    let dir = tempfile::tempdir().unwrap();
    let (program, config) = (dir.path().join("agent"), dir.path().join("config.json"));
    fs::copy(env!("CARGO_BIN_EXE_heat-salt-bootstrap"), &program).unwrap();
    fs::write(&config, vm.config.to_string()).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    if !nix::unistd::geteuid().is_root() {
        command = Command::new("env");
    }
    command.arg(program).arg("run").arg("--config").arg(config);
    let finished = process::run(&mut command, Duration::from_secs(70).min(LONG)).unwrap();
    assert_eq!(finished.code, 12, "{finished:?}");
    assert!(finished.stderr.contains("not-root"), "{}", finished.stderr);
    let told = vm.heat.signals();
    assert_eq!((told.len(), told[0].status.as_str(), told[0].id.as_str()), (1, "FAILURE", "not-root"));
    assert!(told[0].reason.starts_with("not-root: "), "{}", told[0].reason);
}

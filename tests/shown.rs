//! What people see, whole: help, plan, status, check and explain, as tests/snapshots has them. What differs from machine to machine is
//! put out of the way first. A text that changed on purpose is taken over by `INSTA_UPDATE=always cargo test --test shown`, and read in
//! the diff.

use std::process::Command;

use lab::listen::ClosedPort;
use lab::sandbox::Sandbox;
use serde_json::{Value, json};

const AGENT: &str = env!("CARGO_BIN_EXE_heat-salt-bootstrap");
const RHEL: &str = "ID=rocky\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=9.5\n";
const UBUNTU: &str = "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=24.04\n";
const LEAP: &str = "ID=opensuse-leap\nVERSION_ID=15.6\n";

/// Compares with `tests/snapshots/NAME.snap`.
#[track_caller]
fn is_as_before(name: &str, text: &str) {
    let mut settings = insta::Settings::new();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// What the program prints for these arguments, wherever it runs.
fn printed(arguments: &[&str]) -> String {
    let output = Command::new(AGENT).args(arguments).env_clear().output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn help() {
    let verbs = "run install accept apply renew deregister signal plan check status support explain template";
    let all = printed(&["-h"]);
    let listed: Vec<&str> = all
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|word| !word.is_empty()))
        .collect();
    assert_eq!(listed.join(" "), verbs);
    is_as_before("help", &all);
    for verb in listed {
        let help = printed(&[verb, "-h"]);
        // What every verb takes stands in the first one.
        let own: Vec<&str> = help.lines().filter(|line| !all.lines().any(|common| common == *line) || line.is_empty()).collect();
        is_as_before(&format!("help-{verb}"), &own.join("\n"));
    }
    is_as_before("help-long", &printed(&["--help"]));
}

#[test]
fn explain() {
    is_as_before("explain", &printed(&["explain"]));
    is_as_before("explain-42", &printed(&["explain", "key-conflict"]));
    is_as_before("explain-unknown", &without_times(&printed(&["explain", "13"])));
}

/// The log's lines without the time of day that each begins with.
fn without_times(log: &str) -> String {
    let cut = |line: &str| match line.split_once(' ') {
        Some((time, rest)) if time.len() == 12 && time.as_bytes()[8] == b'.' => rest.to_owned(),
        _ => line.to_owned(),
    };
    log.lines().map(cut).collect::<Vec<_>>().join("\n")
}

/// What a verb shows on this machine, with the places and ports that are the test's own put out of the way.
fn shown(machine: &Sandbox, arguments: &[&str], ports: &[(&str, u16)]) -> String {
    let ended = machine.run(arguments);
    let root = machine.root().canonicalize().unwrap();
    let mut text = format!("{}\nended with {}", without_times(&format!("{}{}", ended.stdout, ended.stderr)), ended.code);
    text = text.replace(root.to_str().unwrap(), "ROOT").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    for (name, port) in ports {
        text = text.replace(&port.to_string(), name);
    }
    text
}

fn minion() -> Value {
    // No such program is anywhere, so that it is missing on every machine.
    json!({"id": "web-1", "master": "salt", "program": "salt-minion-of-this-test", "start": "direct", "master_finger": vec!["00"; 32].join(":")})
}

#[test]
fn plan() {
    let token = format!("hsb2.0123456789abcdef.{:A<43}.s{:A<43}", "", "");
    let mut by_wheel = minion();
    by_wheel["config"] = json!({"log_level": "info", "mysql.pass": "geheim"});
    by_wheel["master"] = json!(["salt-1", "salt-2"]);
    let by_wheel = json!({"minion": by_wheel, "api": {"url": "https://salt:8000/", "username": "boot", "password": "geheim"},
        "apply": {"states": ["web", "db"], "pillar": {"key": "geheim"}},
        "install": {"version": "3006.2", "repository": {"url": "https://mirror.example/salt/", "username": "u", "password": "geheim"}},
        "signal": {"endpoint": "https://u:geheim@heat:8004/v1/signal?x=geheim", "token": "geheim"}});
    let by_service = json!({"minion": minion(), "enroll": {"url": "https://salt:8010", "token": token}, "apply": {"states": ["web"]},
        "install": {"source": "package", "package_url": "https://mirror.example/salt-minion.deb", "sha256": "0".repeat(64)},
        "signal": {"auth_url": "http://keystone:5000", "user_id": "u", "password": "geheim", "project_id": "p", "alarm_url": "http://heat/x"}});
    let nobody = json!({"minion": minion(), "accept": "none", "install": {"repository": {"gpg_key_url": "https://mirror.example/key"}}});
    let there = json!({"minion": minion(), "accept": "none", "install": {"source": "preinstalled"}});
    for (name, config, release) in [
        ("plan-by-wheel", &by_wheel, RHEL),
        ("plan-by-service", &by_service, UBUNTU),
        ("plan-by-nobody", &nobody, LEAP),
        ("plan-of-an-image", &there, RHEL),
        ("plan-elsewhere", &nobody, "ID=plan9\n"),
    ] {
        let machine = Sandbox::configured(AGENT, config);
        let release = machine.write("os-release", release);
        let arguments = ["plan", "--os-release", release.to_str().unwrap()];
        for (name, more) in [(name.to_owned(), &[][..]), (format!("{name}-json"), &["--json"])] {
            let text = shown(&machine, &[&arguments, more].concat(), &[]);
            assert!(!text.contains("geheim") && !text.contains(&token), "{text}");
            is_as_before(&name, &text);
        }
    }
}

/// A report as it lies there, of a run that began at a fixed time.
fn report(verdict: &str, code: u8, reason: &str, message: &str) -> Value {
    let step = |name: &str, seconds: f64, changed: bool, attempts: u32| json!({"name": name, "seconds": seconds, "changed": changed, "attempts": attempts});
    json!({"schema": 1, "agent": "0.0.1", "verb": "run", "minion_id": "web-1", "bootstrap_id": "11111111-2222-4333-8444-555555555555",
        "instance_id": "i-1", "jid": "20261130080000000000", "verdict": verdict, "code": code, "reason": reason, "step": null, "message": message,
        "hint": null, "facts": {}, "started": 1_795_473_999, "seconds": 41.25,
        "steps": [step("look", 0.01, false, 1), step("install", 20.5, true, 1), step("login", 3.25, false, 4), step("states", 17.49, true, 1)],
        "states": {"total": 7, "failed": 0, "changed": 3, "pending": 0, "failures": []},
        "signal": {"transport": "HEAT_SIGNAL", "delivered": true}})
}

#[test]
fn status() {
    let machine = Sandbox::new(AGENT);
    is_as_before("status-of-nothing", &shown(&machine, &["status"], &[]));
    let keep =
        |report: &Value| machine.write("var/lib/heat-salt-bootstrap/report.json", &lab::schema::report(&report.to_string()).to_string());
    keep(&report("done", 0, "done", "applied: 7 of 7 states succeeded, 3 with changes"));
    is_as_before("status-done", &shown(&machine, &["status"], &[]));
    is_as_before("status-json", &shown(&machine, &["status", "--json"], &[]));
    let mut failed = report("failed", 51, "state-failed", "1 of 7 states failed");
    failed["step"] = json!("states");
    failed["hint"] = json!("Look there.");
    failed["facts"] = json!({"output": "one line\nanother line", "jid": "20261130080000000000"});
    failed["states"]["failed"] = json!(1);
    failed["states"]["pending"] = json!(2);
    failed["states"]["failures"] = json!([{"id": "nginx", "sls": "web", "comment": "no such package:\nnginx"}]);
    failed["signal"] = json!({"transport": "TOKEN_SIGNAL", "delivered": false, "error": "Heat answered 401"});
    keep(&failed);
    is_as_before("status-failed", &shown(&machine, &["status"], &[]));
    // Nobody works on it any more.
    let known = json!({"verb": "run", "minion_id": "web-1", "bootstrap_id": null, "started": 1_795_474_999, "seconds": 0.0, "steps": failed["steps"], "states": null});
    machine.write("var/lib/heat-salt-bootstrap/progress", &json!({"pid": 1, "known": known, "step": "connect", "ended": null}).to_string());
    is_as_before("status-cut-off", &shown(&machine, &["status"], &[]));
}

/// Of a machine on which nothing is right, and nobody anywhere answers.
#[test]
fn check() {
    let ports = [(); 3].map(|()| ClosedPort::pick().unwrap());
    let [ret, publish, api] = [0, 1, 2].map(|number| ports[number].address().port());
    assert!(ret.min(publish).min(api) > 9_999, "names of five letters stand for numbers of five digits, so that the table stays one");
    let mut minion = minion();
    (minion["master"], minion["config"]) = (json!("127.0.0.1"), json!({"master_port": ret, "publish_port": publish}));
    let config = json!({"minion": minion, "install": {"source": "preinstalled"}, "apply": {"states": ["web"]},
        "api": {"url": format!("https://127.0.0.1:{api}"), "username": "boot", "password": "geheim"}});
    let machine = Sandbox::configured(AGENT, &config);
    let names = [("RPORT", ret), ("PPORT", publish), ("APORT", api)];
    is_as_before("check", &shown(&machine, &["check"], &names));
    is_as_before("check-json", &shown(&machine, &["check", "--json"], &names));
    machine.configure(&json!({"minion": {"id": "web-*"}, "deadline": "soon", "unknown": 1}));
    is_as_before("check-of-no-configuration", &shown(&machine, &["check"], &[]));
}

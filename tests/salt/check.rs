//! `check`: what it says of a machine that is all right, and of one that is not; and that it leaves everything as it is.

use std::net::TcpListener;
use std::sync::Arc;

use lab::api::one_hook;
use lab::http::{Answer, Request};
use lab::keys::{KeyState, new_key_pair};
use lab::listen::ClosedPort;
use lab::master::{Master, MasterOptions};
use lab::peer::{Certificate, Scripted};
use lab::venv::Line;
use serde_json::{Value, json};

use crate::OnEachLine;
use crate::fixture::{Ended, Vm, alone};

pub const CASES: &[OnEachLine] = &[
    ("fresh", fresh),
    ("after_a_run", after_a_run),
    ("enrolling", enrolling),
    ("wrong_password", wrong_password),
    ("no_permission", no_permission),
    ("client_disabled", client_disabled),
    ("master_away", master_away),
    ("api_closed", api_closed),
    ("next_url", next_url),
    ("each_master", each_master),
    ("unknown_names", unknown_names),
    ("expired_certificate", |line| bad_certificate(line, Certificate::Expired, "has expired")),
    ("future_certificate", |line| bad_certificate(line, Certificate::Future, "not valid yet")),
    ("clock", clock),
    ("ports_closed", ports_closed),
    ("taken", taken),
    ("wrong_master_finger", wrong_master_finger),
    ("program_missing", program_missing),
    ("login_hangs", login_hangs),
    ("api_hangs", api_hangs),
];

const HOOK: &str = "POST /hook/heat-salt-bootstrap-check/nobody-listens";

/// What `check --json` printed.
struct Checked {
    ended: Ended,
    lines: Vec<Value>,
}

/// Checks a machine, which afterwards is as it was before; Heat has heard nothing.
#[track_caller]
fn checked(vm: &Vm) -> Checked {
    let keys = vm.master.key_states(vm.root.id());
    let seen = unwatched(vm);
    seen.ended.expect(vm.master.key_states(vm.root.id()) == keys, "nothing was changed on the master");
    seen
}

/// The same with a master that cannot be asked whether it is as it was.
#[track_caller]
fn unwatched(vm: &Vm) -> Checked {
    vm.root.write_config(&vm.config).unwrap();
    let (before, asked) = (own_files(vm), vm.heat.requests().len());
    let ended = vm.start_as_is(&["check", "--json"]).end(vm);
    let lines = serde_json::from_str::<Vec<Value>>(&ended.stdout);
    ended.expect(lines.is_ok(), "an array on standard output");
    ended.expect(own_files(vm) == before, "nothing was changed");
    let asked = vm.heat.requests().split_off(asked);
    let only_asked = !asked.is_empty() && asked.iter().all(|received| received.request.method == "GET");
    ended.expect(only_asked, "Heat was asked, and told nothing");
    for change in ["key.accept", "key.delete", "POST /hook/states/state", "POST /hook/heat-salt-bootstrap/enroll"] {
        ended.expect(ended.asked(change) == 0, change);
    }
    Checked { ended, lines: lines.unwrap() }
}

/// Every file, unless a minion runs, which changes its own all the time.
fn own_files(vm: &Vm) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let minions =
        if vm.root.running_pids().is_empty() { vec![] } else { vec![vm.path("var/cache"), vm.path("var/log"), vm.path("var/run")] };
    vm.tree().into_iter().filter(|(path, _)| !minions.iter().any(|dir| path.starts_with(dir))).collect()
}

impl Checked {
    /// It ended with this code.
    #[track_caller]
    fn code(&self, code: u8) -> &Checked {
        self.ended.expect(self.ended.code == i32::from(code), &format!("exit code {code}"));
        self
    }

    /// The line of this name is so, and says this.
    #[track_caller]
    fn line(&self, what: &str, state: &str, says: &str) -> &Checked {
        let line = self.lines.iter().find(|line| line["what"] == what).unwrap_or(&Value::Null);
        let fits = line["state"] == state && line["said"].as_str().is_some_and(|said| said.contains(says));
        self.ended.expect(fits, &format!("{what}: {state}, {says:?}; it is {line}"));
        let mend = line["hint"].as_str().is_some_and(|hint| !hint.is_empty()) && line["code"].is_u64();
        self.ended.expect(mend == (state == "wrong"), &format!("a mend where {what} is wrong, and only there"));
        self
    }

    /// The line of this name is wrong with this code.
    #[track_caller]
    fn wrong(&self, what: &str, code: u8, says: &str, hints: &str) -> &Checked {
        self.line(what, "wrong", says);
        let line = self.lines.iter().find(|line| line["what"] == what).unwrap();
        self.ended.expect(line["code"] == code, &format!("{what}: code {code}"));
        self.ended.expect(line["hint"].as_str().unwrap().contains(hints), &format!("{what}: {hints:?} in the mend"));
        self
    }

    /// Nothing else is wrong.
    #[track_caller]
    fn only(&self, whats: &[&str]) -> &Checked {
        let wrong = self.lines.iter().filter(|line| line["state"] == "wrong");
        let wrong: Vec<&str> = wrong.filter_map(|line| line["what"].as_str()).collect();
        self.ended.expect(wrong == whats, &format!("{whats:?} wrong, and nothing else"));
        self
    }
}

fn fresh(line: Line) {
    let mut vm = Vm::new(line, "check-fresh");
    let seen = checked(&vm);
    seen.code(0).only(&[]);
    seen.line("configuration", "ok", "check-fresh").line("program", "ok", "salt-minion is there").line(
        "package source",
        "ok",
        "not needed",
    );
    seen.line("salt-api name", "ok", "127.0.0.1").line("salt-api port", "ok", "answers").line("certificate", "ok", "https://127.0.0.1:");
    seen.line("login", "ok", "boot").line("permissions", "ok", "key.accept").line(
        "master's key",
        "ok",
        &vm.master.public_key_finger().unwrap(),
    );
    seen.line("own key", "ok", "none yet").line("hook", "ok", "no reactor listens").line("master name", "ok", "127.0.0.1");
    seen.line("minion", "ok", "does not run yet").line("heat", "ok", "TOKEN_SIGNAL");
    let expected = ["GET /", "POST /login", "key.finger_master", "key.print", HOOK, "POST /logout"];
    seen.ended.expect(seen.ended.requests == expected, &format!("{expected:?}"));
    assert!(!vm.path("etc/salt").exists() && !vm.path("var/lib/heat-salt-bootstrap").exists());

    // salt-api itself says what time it is there.
    let url = vm.master.api_url();
    // Its hook is not fired through the gate, which lets one pass at a time.
    let _alone = one_hook();
    checked(vm.set("api/url", url)).code(0).only(&[]).line("clock", "ok", "UTC");
}

fn after_a_run(line: Line) {
    let vm = Vm::new(line, "check-after");
    vm.run().done();
    let seen = checked(&vm);
    seen.code(0).only(&[]).line("minion", "ok", "is connected to port").line("own key", "ok", "accepted on the master");
    seen.line("master's key", "ok", "the minion has met it");

    let shown = vm.agent(&["check"]);
    shown.expect(shown.code == 0 && shown.signals.is_empty(), "exit code 0");
    let begin = |line: &str| line.starts_with("ok      ") || line.starts_with("unknown ");
    shown.expect(shown.stdout.lines().all(begin) && shown.stdout.lines().count() == seen.lines.len(), "one line each");
    vm.run().done().says("nothing had to change");
}

/// The enrolment service says what the token would be good for, and counts nothing for it.
fn enrolling(line: Line) {
    let mut vm = Vm::new(line, "check-enrolling");
    let token = vm.master.token("check-enrolling", &[]).unwrap();
    vm.enrolling(&token);
    for _ in 0..2 {
        let seen = checked(&vm);
        seen.code(0).only(&[]).line("service name", "ok", "is an address").line("service port", "ok", "answers");
        seen.line("certificate", "ok", "can be trusted").line("clock", "ok", "master's machine").line("token", "ok", "uses left: 1");
        seen.ended.expect(seen.ended.requests == ["GET /v1/status", "POST /v1/check"], "nothing that changes anything");
    }
    assert_eq!(vm.own_key(), (None, 0));
    vm.run().done();
    checked(&vm).code(0).only(&[]).line("token", "ok", "is accepted").line("minion", "ok", "");
    vm.set("apply/states", json!(["second"]));
    checked(&vm).code(33).wrong("token", 33, "second", "").only(&["token"]);
    vm.gate.hold(Some("POST /v1/check"));
    checked(&vm).code(30).only(&["token"]);
}

fn wrong_password(line: Line) {
    let mut vm = Vm::new(line, "check-password");
    let seen = checked(vm.set("api/password", "not-the-Secret"));
    seen.code(32).wrong("login", 32, "boot", "external_auth").only(&["login"]);
    seen.line("permissions", "unknown", "login").line("hook", "unknown", "login").line("heat", "ok", "TOKEN_SIGNAL");
    let shown = vm.agent(&["check"]);
    shown.expect(shown.code == 32, "exit code 32");
    for text in ["\nWRONG   login  ", "login-refused: ", "\n          what to do: salt-api does not say"] {
        shown.expect(shown.stdout.contains(text), text);
    }
}

fn no_permission(line: Line) {
    let mut vm = Vm::new(line, "check-noperm");
    let seen = checked(vm.account("noperm"));
    seen.code(33).wrong("permissions", 33, "key.accept, key.print, key.finger_master", "\"enroll\"").only(&["permissions"]);
    seen.line("master's key", "unknown", "may not see").line("own key", "unknown", "may not see").line("hook", "ok", "no reactor listens");

    let seen = checked(vm.account("onlyaccept").trusting());
    seen.code(33).wrong("permissions", 33, "may not call key.print;", "[key.print]").only(&["permissions"]);
    checked(vm.account("nofinger")).code(0).only(&[]).line("permissions", "ok", "key.accept, key.print");
}

/// Wheel calls are refused to everybody.
fn client_disabled(line: Line) {
    let mut options = MasterOptions::new(line);
    options.netapi_clients = vec!["local".into(), "runner".into()];
    let master = Arc::new(Master::start_with(options).unwrap());
    checked(&Vm::on(&master, "check-disabled")).code(33).wrong("permissions", 33, "wheel", "netapi_enable_clients").only(&["permissions"]);
}

/// salt-api lives, and the master behind it does not.
fn master_away(line: Line) {
    alone(line, |private| {
        let vm = Vm::on(&private.master, "check-away");
        private.master.stop_master();
        let seen = unwatched(&vm);
        private.master.start_master().unwrap();
        let ports = vm.master.minion_ports();
        let [ret, publish] =
            [("master", "master_port"), ("publish", "publish_port")].map(|(what, key)| format!("{what} port {}", ports[key]));
        seen.code(30)
            .wrong("login", 30, "no complete answer", "curl")
            .wrong(&ret, 40, "refused", "listens")
            .wrong(&publish, 44, "refused", "listens");
        seen.only(&["login", &ret, &publish]).line("certificate", "ok", "https://127.0.0.1:").line("hook", "unknown", "login");
        seen.line("permissions", "unknown", "login").line("own key", "unknown", "login").line("heat", "ok", "TOKEN_SIGNAL");
    });
}

fn closed() -> ClosedPort {
    ClosedPort::pick().unwrap()
}

fn api_closed(line: Line) {
    let mut vm = Vm::new(line, "check-api-closed");
    let closed = closed();
    let address = closed.address().to_string();
    let seen = checked(vm.set("api/url", format!("https://{address}")));
    seen.code(30).wrong("salt-api port", 30, &address, "listens").only(&["salt-api port"]);
    seen.line("login", "unknown", "salt-api port").line("heat", "ok", "").line("minion", "ok", "");
}

fn next_url(line: Line) {
    let mut vm = Vm::new(line, "check-next-url");
    let closed = closed();
    let (address, good) = (closed.address(), vm.gate.url());
    let seen = checked(vm.set("api/url", json!([format!("https://{address}"), good])));
    seen.code(0).only(&[]).line("login", "ok", &good).line(&format!("salt-api port ({address})"), "unknown", "another URL");
}

/// Where each URL belongs to a master of its own, each has its own lines.
fn each_master(line: Line) {
    let mut vm = Vm::new(line, "check-each");
    let closed = closed();
    let (address, good) = (closed.address(), vm.gate.url());
    vm.set("minion/master", json!(["127.0.0.1", "localhost"])).set("api/url", json!([good, format!("https://{address}")]));
    let seen = checked(&vm);
    let (port, login) = (format!("salt-api port ({address})"), format!("login ({})", good.trim_start_matches("https://")));
    seen.code(30).wrong(&port, 30, "refused", "listens").only(&[&port]).line(&login, "ok", &good);
    seen.line(&format!("login ({address})"), "unknown", &port).line("master name (localhost)", "ok", "127.0.0.1");
}

fn unknown_names(line: Line) {
    let mut vm = Vm::new(line, "check-names");
    let seen = checked(vm.set("api/url", "https://salt.invalid:8000").set("minion/master", "master.invalid"));
    seen.code(30).wrong("salt-api name", 30, "salt.invalid", "resolv.conf").wrong("master name", 40, "master.invalid", "getent");
    seen.only(&["salt-api name", "master name"]);
}

fn bad_certificate(line: Line, certificate: Certificate, says: &str) {
    let mut vm = Vm::new(line, &format!("check-{certificate:?}"));
    let answer = Answer::json(200, &Value::Null);
    let peer = Scripted::in_turn(vm.master.authority(), certificate, vec![answer]).unwrap();
    let seen = checked(vm.set("api/url", format!("https://{}", peer.address())));
    seen.code(31).wrong("certificate", 31, says, "clock").only(&["certificate"]).line("clock", "unknown", "UTC");
    seen.line("login", "unknown", "certificate");
    let only_the_time = |asked: &Request| {
        (asked.method.as_str(), asked.path.as_str(), asked.body.len()) == ("GET", "/", 0) && asked.header("x-auth-token").is_none()
    };
    assert!(peer.requests().iter().all(only_the_time), "whom nobody trusts is asked for the time and told nothing: {:?}", peer.requests());
}

/// By the Date of an answer that can be trusted.
fn clock(line: Line) {
    let mut vm = Vm::new(line, "check-clock");
    let headers = vec![("Date".to_owned(), "Thu, 01 Jan 2026 00:00:00 GMT".to_owned())];
    let answer = Answer::Reply { status: 200, headers, body: b"{}".to_vec() };
    let peer = Scripted::in_turn(vm.master.authority(), Certificate::Good, vec![answer]).unwrap();
    let seen = checked(vm.set("api/url", format!("https://{}", peer.address())));
    seen.code(24).wrong("clock", 24, "ahead of", "timedatectl").wrong("login", 34, "salt-api", "rest_cherrypy");
}

fn ports_closed(line: Line) {
    let mut vm = Vm::new(line, "check-ports");
    let closed = [closed(), closed()];
    let ports = closed.each_ref().map(|closed| closed.address().port());
    vm.set("minion/config/master_port", ports[0]).set("minion/config/publish_port", ports[1]);
    let seen = checked(&vm);
    let whats = [format!("master port {}", ports[0]), format!("publish port {}", ports[1])];
    seen.code(40).wrong(&whats[0], 40, "refused", "listens").wrong(&whats[1], 44, "refused", "listens").only(&[&whats[0], &whats[1]]);
}

fn taken(line: Line) {
    let vm = Vm::new(line, "check-taken");
    let key = new_key_pair(vm.master.venv()).unwrap();
    vm.master.place_key("check-taken", KeyState::Accepted, &key.public_pem).unwrap();
    // Before the machine has a key, and afterwards.
    checked(&vm).code(42).wrong("own key", 42, "another key is accepted", "salt-key -d").only(&["own key"]);
    vm.run().failed(42, "key-conflict", "accept");
    vm.root.stop_minion();
    checked(&vm).code(42).wrong("own key", 42, "another key is accepted", "salt-key -d");
}

fn wrong_master_finger(line: Line) {
    let mut vm = Vm::new(line, "check-finger");
    let seen = checked(vm.set("minion/master_finger", vec!["ab"; 32].join(":")));
    seen.code(43).wrong("master's key", 43, &vm.master.public_key_finger().unwrap(), "salt-key -F").only(&["master's key"]);

    // A minion that has met another one.
    let mut vm = Vm::new(line, "check-another-life");
    let pki = vm.path("etc/salt/pki/minion");
    std::fs::create_dir_all(&pki).unwrap();
    std::fs::write(pki.join("minion_master.pub"), new_key_pair(vm.master.venv()).unwrap().public_pem).unwrap();
    checked(vm.trusting()).code(43).wrong("master's key", 43, "expected", "minion_master.pub");
}

fn program_missing(line: Line) {
    let mut vm = Vm::new(line, "check-program");
    let seen = checked(vm.set("minion/program", "/nowhere/salt-minion"));
    seen.code(20).wrong("program", 20, "/nowhere/salt-minion", "minion.program").only(&["program"]).line("login", "ok", "boot");
    // Another root has no package manager of its own.
    checked(vm.set("install/source", "repository")).code(23).wrong("program", 23, "not below", "preinstalled");
}

/// As where the master is away and salt-api is not.
fn login_hangs(line: Line) {
    let vm = Vm::new(line, "check-login-hangs");
    vm.gate.hold(Some("POST /login"));
    let seen = checked(&vm);
    seen.code(30).wrong("login", 30, "no complete answer", "curl").only(&["login"]).line("heat", "ok", "").line("minion", "ok", "");
}

/// Somebody takes the connection and says nothing.
fn api_hangs(line: Line) {
    let mut vm = Vm::new(line, "check-api-hangs");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    vm.heat.hang_next(1000);
    let seen = checked(vm.set("api/url", format!("https://{}", listener.local_addr().unwrap())));
    seen.code(30).wrong("certificate", 30, "no complete answer", "curl").wrong("heat", 70, "no complete answer", "HEAT_SIGNAL");
    seen.only(&["certificate", "heat"]);
}

//! salt-api as it should not be, and accounts that may not do what they should.

use lab::http::{Answer, Request};
use lab::keys::KeyState;
use lab::listen::ClosedPort;
use lab::master::{Master, MasterOptions};
use lab::peer::{Certificate, Scripted};
use lab::proxy::Proxy;
use lab::tls::Authority;
use lab::venv::Line;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::OnEachLine;
use crate::fixture::{Vm, alone};

pub const CASES: &[OnEachLine] = &[
    ("next_url", next_url),
    ("wrong_password", wrong_password),
    ("unknown_eauth", unknown_eauth),
    ("wrong_ca", wrong_ca),
    ("expired_certificate", |line| bad_certificate(line, Certificate::Expired, "has expired", "clock")),
    ("future_certificate", |line| bad_certificate(line, Certificate::Future, "not valid yet", "clock")),
    ("wrong_name", |line| bad_certificate(line, Certificate::WrongName, "name", "subjectAltName")),
    ("certificate_of_a_ca", |line| bad_certificate(line, Certificate::Authority, "CA:TRUE", "CA:FALSE")),
    ("dies_in_between", dies_in_between),
    ("plain_http", |line| bad_certificate(line, Certificate::Plain, "TLS", "disable_ssl")),
    ("port_closed", port_closed),
    ("unknown_name", unknown_name),
    ("no_permission", no_permission),
    ("client_disabled", client_disabled),
    ("fingers_only", fingers_only),
    ("master_not_shown", master_not_shown),
    ("master_given", master_given),
    ("pam", pam),
    ("api_restarted", api_restarted),
    ("event_socket_broken", event_socket_broken),
    ("event_socket_dead", event_socket_dead),
    ("master_away_while_accepting", master_away_while_accepting),
    ("master_away_while_states_run", master_away_while_states_run),
];

/// Masters behind each other: the first does not answer.
fn next_url(line: Line) {
    let mut vm = Vm::new(line, "next-url");
    let closed = ClosedPort::pick().unwrap();
    let urls = json!([format!("https://{}", closed.address()), vm.gate.url()]);
    let ended = vm.set("api/url", urls).run();
    ended.done().states(2, 0);
    ended.expect(ended.report["steps"][0]["attempts"] == 2, "the second URL at the second try");
}

/// The first answers the login and no more: whatever has to be asked then is asked of the second.
fn dies_in_between(line: Line) {
    for last in ["key.finger_master", "key.print", "key.accept", "POST /hook/states/state"] {
        let mut vm = Vm::new(line, &format!("dies-at-{}", last.rsplit(['/', '.']).next().unwrap()));
        let wire = Arc::new(Proxy::start(vm.gate.faults.address()).unwrap());
        let urls = json!([format!("https://{}", wire.address()), vm.gate.url()]);
        let cut = Arc::clone(&wire);
        vm.gate.then(last, move || {
            cut.refuse(true);
            cut.drop_connections();
        });
        let ended = vm.states(&["append"]).set("api/url", urls).start(&["run"]).finish(&vm);
        ended.done().states(2, 0);
        ended.expect(ended.asked("POST /login") == 2, "the second one was logged in to");
        assert_eq!(vm.runs(), 1, "{last}");
    }
}

/// The run ended before anything came to be on the machine.
#[track_caller]
fn untouched(vm: &Vm) {
    assert!(!vm.path("etc/salt").exists() && vm.root.running_pids().is_empty());
    assert_eq!(vm.master.key_states(vm.root.id()), []);
}

fn wrong_password(line: Line) {
    let mut vm = Vm::new(line, "wrong-password");
    let ended = vm.set("api/password", "not-the-Secret").run();
    ended.failed(32, "login-refused", "login").says("boot").hints("external_auth");
    ended.expect(ended.requests == ["POST /login"], "one try, since the answer is final");
    untouched(&vm);
    let status = vm.agent(&["status"]);
    for word in ["FAILED", "login-refused, exit code 32", "in step: login", "what to do"] {
        status.expect(status.code == 0 && status.stdout.contains(word), word);
    }
}

fn unknown_eauth(line: Line) {
    let mut vm = Vm::new(line, "unknown-eauth");
    let ended = vm.set("api/eauth", "nosuch").run();
    ended.failed(32, "login-refused", "login").says("nosuch");
    untouched(&vm);
}

fn wrong_ca(line: Line) {
    let mut vm = Vm::new(line, "wrong-ca");
    let other = Authority::new().unwrap().ca_pem();
    let url = vm.master.api_url();
    let ended = vm.set("api/url", url).set("api/ca", other).run();
    // Both are of the same name, as a CA that was made anew is.
    ended.failed(31, "api-tls", "login").says("signed by an unknown CA").hints("api.ca");
    untouched(&vm);
}

fn bad_certificate(line: Line, certificate: Certificate, says: &str, hints: &str) {
    let mut vm = Vm::new(line, &format!("certificate-{certificate:?}"));
    let answer = Answer::json(200, &Value::Null);
    let peer = Scripted::in_turn(vm.master.authority(), certificate, vec![answer]).unwrap();
    let url = format!("https://{}", peer.address());
    // A clock may yet be set, so that one is tried to the end.
    let ended = vm.set("api/url", url).deadline(6).run();
    ended.failed(31, "api-tls", "login").says(says).hints(hints);
    let only_the_time = |asked: &Request| {
        (asked.method.as_str(), asked.path.as_str(), asked.body.len()) == ("GET", "/", 0) && asked.header("x-auth-token").is_none()
    };
    assert!(peer.requests().iter().all(only_the_time), "whom nobody trusts is asked for the time and told nothing: {:?}", peer.requests());
    untouched(&vm);
}

fn port_closed(line: Line) {
    let mut vm = Vm::new(line, "port-closed");
    let closed = ClosedPort::pick().unwrap();
    let url = format!("https://{}", closed.address());
    let ended = vm.set("api/url", url.as_str()).deadline(10).run();
    ended.failed(30, "api-unreachable", "login").says(&url);
    let tries = ended.report["facts"]["attempts"].as_str().unwrap().parse::<u32>();
    ended.expect(tries.unwrap() > 1, "it was tried more than once");
    untouched(&vm);
}

fn unknown_name(line: Line) {
    let mut vm = Vm::new(line, "unknown-name");
    let ended = vm.set("api/url", "https://salt.invalid:8000").deadline(6).run();
    ended.failed(30, "api-unreachable", "login").says("salt.invalid").hints("resolv.conf");
    untouched(&vm);
}

fn no_permission(line: Line) {
    let mut vm = Vm::new(line, "no-permission");
    let ended = vm.account("noperm").run();
    ended.failed(33, "permission-refused", "master").says("key.finger_master");
    untouched(&vm);

    // Whoever names the master gets as far as the key.
    let mut vm = Vm::new(line, "no-permission-for-keys");
    let ended = vm.account("noperm").trusting().run();
    ended.failed(33, "permission-refused", "accept").says("key.").hints("key.accept");
    assert_eq!(vm.own_key(), (Some(KeyState::Pending), 1));
}

fn client_disabled(line: Line) {
    let mut options = MasterOptions::new(line);
    options.netapi_clients = vec!["local".into(), "runner".into()];
    let master = Arc::new(Master::start_with(options).unwrap());
    let vm = Vm::on(&master, "client-disabled");
    let ended = vm.run();
    ended.failed(33, "permission-refused", "master").hints("netapi_enable_clients");
    untouched(&vm);
}

/// Without key.print the keys are compared by their fingerprints.
fn fingers_only(line: Line) {
    let mut vm = Vm::new(line, "fingers-only");
    let ended = vm.account("bootfinger").run();
    ended.done();
    ended.expect(ended.asked("key.finger") > 0, "key.finger was asked");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

fn master_not_shown(line: Line) {
    let mut vm = Vm::new(line, "master-not-shown");
    let ended = vm.account("nofinger").run();
    ended.failed(33, "permission-refused", "master").hints("minion.master_finger");
    untouched(&vm);
}

fn master_given(line: Line) {
    let mut vm = Vm::new(line, "master-given");
    let ended = vm.account("nofinger").trusting().run();
    ended.done();
    ended.expect(ended.asked("key.finger_master") == 0, "nobody asked for the master");

    let mut vm = Vm::new(line, "master-key-given");
    let key = vm.master.public_key().unwrap();
    vm.account("nofinger").set("minion/master_public_key", key).run().done();
}

fn pam(line: Line) {
    alone(line, |private| {
        let mut vm = Vm::on(&private.master, "pam");
        vm.set("api/eauth", "pam").set("api/username", private.user.name());
        vm.set("api/password", private.user.password()).run().done();
    });
}

/// The minion's start takes until a file `go` is there; it says by `waiting` that it waits.
const HELD: &str = "touch \"${0%/*}/waiting\"\nwhile [ ! -e \"${0%/*}/go\" ]; do sleep 0.05; done\nexec \"$MINION\" \"$@\"";

/// A deadline for runs during which a daemon of the master is stopped and started again, which may take it as long as it takes
/// in a case that waits for it.
const MASTER_COMES_BACK: u64 = 300;

/// Sessions live in salt-api's memory.
fn api_restarted(line: Line) {
    alone(line, |private| {
        let mut vm = Vm::on(&private.master, "api-restarted");
        let started = vm.program(HELD).deadline(MASTER_COMES_BACK).start(&["run"]);
        vm.await_file("waiting");
        private.master.restart_api().unwrap();
        vm.make("go");
        let ended = started.end(&vm);
        ended.done().states(2, 0);
        ended.expect(ended.asked("POST /login") == 2, "a second login");
    });
}

fn master_away_while_accepting(line: Line) {
    alone(line, |private| {
        let mut vm = Vm::on(&private.master, "away-accepting");
        let started = vm.program(HELD).deadline(MASTER_COMES_BACK).start(&["run"]);
        vm.await_file("waiting");
        private.master.stop_master();
        assert!(vm.gate.requests().iter().all(|one| one != "key.print"), "the key is looked for before there is one");
        vm.make("go");
        // Of a master that is not there.
        vm.await_request("key.print");
        private.master.start_master().unwrap();
        started.end(&vm).done().states(2, 0);
    });
}

fn master_away_while_states_run(line: Line) {
    alone(line, |private| {
        let mut vm = Vm::on(&private.master, "away-running");
        let started = vm.states(&["held"]).deadline(MASTER_COMES_BACK).start(&["run"]);
        vm.await_file("runs.out");
        private.master.stop_master();
        private.master.start_master().unwrap();
        vm.make("go");
        let ended = started.end(&vm);
        ended.done().states(2, 0);
        assert_eq!(vm.runs(), 1);
    });
}

/// Many VMs that trigger at the same moment leave a salt-api 3008 with more than one thread in a state in which it answers
/// each hook with 500 and yet fires it, with the next one. The states run, and that is what counts. It takes luck to bring a real one to that,
/// so the gate does what such a one does.
fn event_socket_broken(line: Line) {
    let mut vm = Vm::new(line, "broken-socket");
    vm.gate.break_hooks();
    let ended = vm.states(&["append"]).run();
    ended.done().states(2, 0);
    ended.expect(ended.asked("POST /hook/states/state") > 1, "the first one went out with the second");
    ended.expect(ended.triggered("states/state") == 1, "and yet it was meant once");
    ended.expect(ended.stderr.contains("answered states/state with an error, but the job has started"), "the log says it");
}

/// One that fires nothing any more. `run` and `check` name what is known to do this, and `run` goes on trying until salt-api has been
/// restarted, which the gate plays too.
fn event_socket_dead(line: Line) {
    let mut vm = Vm::new(line, "dead-socket");
    vm.gate.kill_hooks(true);
    let checked = vm.agent(&["check"]);
    checked.expect(checked.code == 30 && checked.stdout.contains("restart salt-api, and set thread_pool: 1"), "check says what to do");
    let started = vm.states(&["append"]).deadline(MASTER_COMES_BACK).start(&["run"]);
    started.await_word("restart salt-api, and set thread_pool: 1");
    let refused = vm.gate.requests().iter().filter(|one| *one == "POST /hook/states/state").count();
    assert!(refused >= 3, "it is said after a few answers: {refused}");
    vm.gate.kill_hooks(false);
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    assert_eq!(vm.runs(), 1);
}

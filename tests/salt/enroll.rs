//! Joining by the enrolment service: a VM with a token and nothing else, what the service refuses, and what goes wrong on the way.
//!
//! Claims that no agent would make are tried in the extension's own tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use lab::faults::{Fault, Lasts};
use lab::http::{At, Then};
use lab::keys::{KeyPair, KeyState, new_key_pair};
use lab::master::{Master, MasterOptions};
use lab::process::until;
use lab::venv::Line;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::OnEachLine;
use crate::fixture::{LONG, Vm, alone, shared};
use crate::states::beside_half_a_job_file;

pub const CASES: &[OnEachLine] = &[
    ("joined", joined),
    ("pinned", pinned),
    ("pinned_other_key", pinned_other_key),
    ("link_by_link", link_by_link),
    ("second_run", second_run),
    ("key_deleted", key_deleted),
    ("renamed", renamed),
    ("moved_from_wheel", moved_from_wheel),
    ("killed_after_the_claim", killed_after_the_claim),
    ("killed_after_the_job", killed_after_the_job),
    ("answers_lost", answers_lost),
    ("clock_off", clock_off),
    ("worthless_tokens", worthless_tokens),
    ("taken", taken),
    ("rebuilt", rebuilt),
    ("rejected", rejected),
    ("wrong_master_finger", wrong_master_finger),
    ("other_master_met", other_master_met),
    ("one_token_two_machines", one_token_two_machines),
    ("state_fails", state_fails),
    ("minion_restarted", minion_restarted),
    ("job_never_comes", job_never_comes),
    ("half_a_job_file", half_a_job_file),
    ("without_openssl", without_openssl),
    ("openssl_hangs", openssl_hangs),
    ("deregistered", deregistered),
    ("deregistered_by_wheel", deregistered_by_wheel),
    ("lease", lease),
    ("back_by_wheel", back_by_wheel),
    ("forgotten_secrets", forgotten_secrets),
    ("two_masters", two_masters),
    ("service_away", service_away),
    ("master_restarted", master_restarted),
];

const ENROLL: &str = "POST /v1/enroll";
const APPLY: &str = "POST /v1/apply";
const RENEW: &str = "POST /v1/renew";
const REPORT: &str = "POST /v1/report";

/// A VM with a token of its own for the state `ok`.
fn enrolling(line: Line, id: &str) -> Vm {
    with_token(Vm::new(line, id), &[])
}

fn with_token(mut vm: Vm, more: &[&str]) -> Vm {
    let token = vm.master.token(vm.root.id(), more).unwrap();
    vm.enrolling(&token);
    vm
}

/// It was decided so about an id, once at least.
#[track_caller]
fn decided(master: &Master, id: &str, verb: &str, granted: bool, why: &str) {
    let decisions = master.decisions(id);
    let fits = |one: &Value| one["verb"] == verb && one["granted"] == granted && one["why"].as_str().is_some_and(|said| said.contains(why));
    assert!(decisions.iter().any(fits), "not decided so: {verb}, {granted}, {why:?}: {decisions:#?}\n{}", master.log_tail());
}

fn granted(master: &Master, id: &str, verb: &str) -> usize {
    master.decisions(id).iter().filter(|one| one["verb"] == verb && one["granted"] == true).count()
}

/// What the operator sees of a minion.
fn fleet(master: &Master, id: &str) -> Value {
    let said: Value = serde_json::from_str(&master.heat_bootstrap(&["fleet", "--json"]).unwrap()).unwrap();
    let all = said["bootstraps"].as_array().or(said.as_array()).unwrap();
    all.iter().find(|one| one["id"] == id).cloned().unwrap_or_default()
}

/// No user, no password, no fingerprint: three requests, one key, one job, and the operator knows.
fn joined(line: Line) {
    let vm = enrolling(line, "joined");
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(ended.changed() == ["keys", "enroll", "configure", "states"], "four changes");
    ended.expect(ended.requests == [ENROLL, APPLY, REPORT], "three requests");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    assert_eq!(vm.text("ok.out").trim(), "hello joined nobody");
    assert!(!vm.root.minion_log().contains("has cached the public key"), "the key was accepted before the minion first called");
    let drop_in = vm.text("etc/salt/minion.d/zz-heat-salt-bootstrap.conf");
    assert!(drop_in.contains(&vm.master.public_key_finger().unwrap()), "the master was known before the minion started: {drop_in}");
    let decisions = vm.master.decisions("joined");
    for verb in ["enroll", "apply"] {
        let one = decisions.iter().find(|one| one["verb"] == verb).unwrap_or_else(|| panic!("{verb}: {decisions:#?}"));
        assert_eq!((&one["granted"], &one["bootstrap_id"]), (&json!(true), &ended.report["bootstrap_id"]), "{one:#}");
    }
    let seen = fleet(&vm.master, "joined");
    assert_eq!((&seen["verdict"], &seen["code"], &seen["jid"]), (&json!("done"), &json!(0), &ended.report["jid"]), "{seen:#}");

    let token = vm.config["enroll"]["token"].as_str().unwrap();
    let (name, secret) = (token.split('.').nth(1).unwrap(), token.split('.').nth(2).unwrap());
    let list = vm.master.heat_bootstrap(&["token", "list", "--json"]).unwrap();
    assert!(list.contains(name) && !list.contains(secret), "{list}");
    assert_eq!(fs::metadata(vm.path("etc/salt/pki/minion/minion.pem")).unwrap().permissions().mode() & 0o777, 0o400);
}

/// The token says what the service is known by: its own key, or the CA that it shows. Neither a name nor a CA has to be configured.
fn pinned(line: Line) {
    for pin in ["key", "ca"] {
        let mut vm = Vm::new(line, &format!("pinned-{pin}"));
        let token = vm.master.token(vm.root.id(), &["--pin", pin]).unwrap();
        vm.enrolling(&token);
        // The gate has another key.
        let url = vm.master.service_url();
        vm.set("enroll/url", url).set("enroll/ca", json!(null));
        if pin == "key" {
            vm.run().done().states(2, 0);
        } else {
            let ended = vm.agent(&["install"]);
            ended.expect(ended.code == 0, "exit code 0");
        }
        assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    }
}

/// Somebody else answers, with a certificate of the very CA: nothing is said to him.
fn pinned_other_key(line: Line) {
    let mut vm = Vm::new(line, "pinned-other");
    let token = vm.master.token(vm.root.id(), &["--pin", "key"]).unwrap();
    let ended = vm.enrolling(&token).run();
    ended.failed(31, "api-tls", "enroll").says("not the one that the token pins").hints("heat-bootstrap token create");
    ended.expect(ended.requests.is_empty(), "nobody was told anything");
    let checked = vm.agent(&["check"]);
    checked.expect(checked.code == 31, "check says the same");
}

fn link_by_link(line: Line) {
    let vm = enrolling(line, "enrol-links");
    // By fetch.sh, just now: all of them share one deadline.
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let began = vm.path("run/heat-salt-bootstrap/began");
    fs::create_dir_all(began.parent().unwrap()).unwrap();
    fs::write(&began, uptime.split('.').next().unwrap()).unwrap();
    let ended = vm.agent(&["install"]);
    ended.expect(ended.code == 0 && ended.requests == [ENROLL, REPORT], "who does not know the master does not start a minion");
    let ended = vm.agent(&["accept"]);
    ended.expect(ended.code == 0, "exit code 0");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    assert!(began.exists(), "Heat waits still");
    vm.agent(&["apply"]).done().states(2, 0);
    assert!(!began.exists(), "Heat knows");
    assert_eq!(granted(&vm.master, "enrol-links", "apply"), 1);
}

fn second_run(line: Line) {
    let vm = enrolling(line, "enrolled-twice");
    vm.run().done();
    let ended = vm.run();
    ended.done();
    ended.expect(ended.changed().is_empty() && ended.requests == ["POST /v1/check"], "nothing to do");
    // A service that does not answer is asked for a part of the time; then a new connection shows it.
    vm.gate.hold(Some("POST /v1/check"));
    let ended = vm.run();
    vm.gate.hold(None);
    ended.done();
    ended.expect(ended.changed().is_empty(), "the minion is let in as before");
    ended.expect(ended.stderr.contains("does not say whether the key is accepted"), "it says what it could not find out");
    // A minion that was stopped is started, and its states held before.
    vm.root.stop_minion();
    let ended = vm.run();
    ended.done();
    ended.expect(ended.asked(APPLY) == 0, "no second job");
    // The token is used up; whose key is accepted needs no more of it.
    vm.agent(&["run", "--again"]).done().states(2, 0);
    let name = vm.config["enroll"]["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    vm.master.heat_bootstrap(&["token", "revoke", &name]).unwrap();
    let ended = vm.run();
    ended.done();
    ended.expect(ended.changed().is_empty(), "a revoked token changes nothing for who is in place");
}

/// A connection that stands proves nothing: whose key was deleted is let in again, if the token allows it.
fn key_deleted(line: Line) {
    let vm = with_token(Vm::new(line, "enrol-deleted"), &["--uses", "2"]);
    vm.run().done();
    vm.master.remove_key("enrol-deleted").unwrap();
    let ended = vm.run();
    ended.done();
    ended.expect(ended.asked(ENROLL) == 1, "it was enrolled again");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

/// The same machine under another id is another minion: its key is let in again under that id, or not.
fn renamed(line: Line) {
    let id = "enrol-renamed-to";
    let mut vm = enrolling(line, "enrol-renamed");
    vm.master.forget(id).unwrap();
    vm.run().done();
    let ended = vm.next_stack().set("minion/id", id).run();
    ended.failed(33, "permission-refused", "enroll");
    ended.expect(ended.report["facts"]["refused"] == "id-not-allowed", "the token is for the other id");
    let token = vm.master.token(id, &[]).unwrap();
    let ended = vm.next_stack().enrolling(&token).run();
    ended.done().states(2, 0);
    ended.expect(ended.asked(ENROLL) == 1 && ended.report["minion_id"] == id, "enrolled under its new id");
    assert_eq!(vm.text("ok.out").lines().last(), Some("hello enrol-renamed-to nobody"));
    let own = vm.text("etc/salt/pki/minion/minion.pub");
    let states = |id: &str| vm.master.key_states(id).into_iter().map(|(state, pem)| (state, pem.trim() == own.trim())).collect::<Vec<_>>();
    assert_eq!(states(id), [(KeyState::Accepted, true)]);
    // Who had its old name knows what still stands there.
    assert_eq!(states("enrol-renamed"), [(KeyState::Accepted, true)]);
    let said = vm.master.heat_bootstrap(&["audit", id]).unwrap();
    assert!(said.contains("is accepted; it is also accepted as enrol-renamed\n"), "{said}");
    let ended = vm.run();
    ended.done();
    ended.expect(ended.changed().is_empty() && ended.requests == ["POST /v1/check"], "nothing to do");
}

/// A machine that has joined in the classic way goes on with a token: its key is accepted already, and now the service knows it.
fn moved_from_wheel(line: Line) {
    let mut vm = Vm::new(line, "enrol-moved");
    vm.run().done();
    let token = vm.master.token("enrol-moved", &["--states", "second"]).unwrap();
    vm.enrolling(&token).states(&["second"]);
    let ended = vm.next_stack().run();
    ended.done();
    ended.expect(ended.requests == [ENROLL, APPLY, REPORT] && ended.changed() == ["enroll", "states"], "enrolled as it is");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

/// A claim that was granted is not lost, and a token is not used twice by one machine.
fn killed_after_the_claim(line: Line) {
    let mut vm = enrolling(line, "enrol-killed");
    vm.program("while [ ! -e \"$(dirname \"$0\")/go\" ]; do sleep 0.05; done; exec \"$MINION\" \"$@\"");
    let started = vm.start(&["run"]);
    vm.await_request(ENROLL);
    until(LONG, || (vm.own_key().0 == Some(KeyState::Accepted)).then_some(())).unwrap();
    started.kill(&vm);
    fs::write(vm.path("go"), "").unwrap();
    vm.run().done().states(2, 0);
    let list: Value = serde_json::from_str(&vm.master.heat_bootstrap(&["token", "list", "--json"]).unwrap()).unwrap();
    let name = vm.config["enroll"]["token"].as_str().unwrap().split('.').nth(1).unwrap();
    let ours = list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(ours["used"], 1, "{ours:#}");
}

/// The job that a killed run has asked for is the next one's.
fn killed_after_the_job(line: Line) {
    let mut vm = with_token(Vm::new(line, "enrol-job-killed"), &["--states", "held"]);
    vm.states(&["held"]);
    let started = vm.start(&["run"]);
    vm.await_file("runs.out");
    started.kill(&vm);
    vm.make("go");
    vm.run().done();
    assert_eq!(vm.runs(), 1, "the states ran once");
    assert_eq!(granted(&vm.master, "enrol-job-killed", "apply"), 1, "one job: {:#?}", vm.master.decisions("enrol-job-killed"));
}

/// Each answer is lost once, after the service has done what it was asked for.
fn answers_lost(line: Line) {
    let mut vm = with_token(Vm::new(line, "answers-lost"), &["--states", "append"]);
    vm.states(&["append"]);
    let lose = |vm: &Vm, path: &'static str| {
        vm.gate.faults.play(Fault::Cut(At::Byte(0), Then::Close), Lasts::Times(1), false, move |request| request.path == path);
    };
    lose(&vm, "/v1/enroll");
    let ended = vm.agent(&["install"]);
    ended.expect(ended.code == 0 && ended.asked(ENROLL) == 2, "it was asked again, and let in once");
    vm.agent(&["accept"]);
    lose(&vm, "/v1/apply");
    let ended = vm.agent(&["apply"]);
    ended.done();
    ended.expect(ended.asked(APPLY) == 2, "it was asked again");
    assert_eq!(vm.runs(), 1, "the states ran once");
    assert_eq!(granted(&vm.master, "answers-lost", "enroll"), 1);
}

/// A clock that nobody has set yet is waited for, however wrong it is, and by how much it is off is said: by the service in its refusal, or
/// where its certificate seems none yet by its `Date`. Nothing is counted meanwhile.
fn clock_off(line: Line) {
    let mut vm = Vm::new(line, "clock-off");
    let token = vm.master.token("clock-off", &[]).unwrap();
    vm.enrolling(&token);
    let (url, ca) = (vm.master.service_url(), vm.master.authority().ca_pem());
    vm.set("enroll/url", url).set("enroll/ca", json!(ca));
    let clock = Clock::of(&mut vm);
    clock.is_off(-20 * YEAR);
    let started = vm.start(&["run"]);
    started.await_word("not valid yet");
    started.await_word(" days behind the server's");
    clock.is_off(20 * YEAR);
    started.await_word(" days ahead of the enrolment service's, which refuses enroll for it");
    clock.is_off(-600);
    started.await_word(" min behind the enrolment service's");
    assert_eq!((vm.own_key(), granted(&vm.master, "clock-off", "enroll")), ((None, 0), 0));
    decided(&vm.master, "clock-off", "enroll", false, "The VM's clock is ");
    // So much is allowed.
    clock.is_off(-200);
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    assert_eq!(granted(&vm.master, "clock-off", "enroll"), 1);
    // A machine that has come so far, and whose clock is lost afterwards: what it asks for is refused, and neither its key nor its job goes.
    clock.is_off(YEAR);
    vm.set("deadline", json!(6)).set("apply/states", json!(["ok", "second"]));
    let ended = vm.run();
    ended.expect(ended.code == 31, "exit code 31");
    ended.expect(ended.report["facts"]["skew_seconds"].as_str().is_some_and(|skew| skew.starts_with("315")), "how much it is off");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

const YEAR: i64 = 365 * 24 * 3600;

/// The clock of the agent alone, which a library that is loaded before libc reads wrongly.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn of(vm: &mut Vm) -> Clock {
        let [source, library, file] = ["clock.c", "clock.so", "clock.off"].map(|name| vm.root.path().with_extension(name));
        fs::write(&source, include_str!("clock.c")).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]);
        assert!(cc.status().unwrap().success());
        let of_both = [("LD_PRELOAD", &library), ("CLOCK_IS_OFF", &file)];
        vm.environment.extend(of_both.map(|(name, path)| (name.to_owned(), path.display().to_string())));
        Clock { file }
    }

    fn is_off(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(new, &self.file).unwrap();
    }
}

fn worthless_tokens(line: Line) {
    let master = shared(line);
    let name = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let used_up = master.token("worthless-*", &[]).unwrap();
    let mut first = Vm::on(&master, "worthless-before");
    let ended = first.enrolling(&used_up).agent(&["install"]);
    ended.expect(ended.code == 0, "exit code 0");
    let revoked = master.token("worthless-*", &[]).unwrap();
    master.heat_bootstrap(&["token", "revoke", &name(&revoked)]).unwrap();
    let expired = master.token("worthless-*", &["--expires", "1s"]).unwrap();
    let good = master.token("worthless-*", &[]).unwrap();
    let wrong = format!("{}{}", &good[..good.len() - 2], if good.ends_with("AA") { "BB" } else { "AA" });
    let others = master.token("somebody-else", &[]).unwrap();
    let other_state = master.token("worthless-*", &["--states", "second"]).unwrap();
    let unknown = format!("hsb2.0123456789abcdef.{}", "N".repeat(43));
    let cases = [
        ("wrong", wrong, "token-wrong"),
        ("unknown", unknown, "token-unknown"),
        ("used-up", used_up, "token-used-up"),
        ("revoked", revoked, "token-revoked"),
        ("expired", expired, "token-expired"),
        ("others", others, "id-not-allowed"),
        ("state", other_state, "state-not-allowed"),
    ];
    thread::scope(|scope| {
        for (name, token, word) in cases {
            let master = &master;
            scope.spawn(move || {
                let mut vm = Vm::on(master, &format!("worthless-{name}"));
                vm.enrolling(&token);
                // Before the run, and the same.
                let checked = vm.agent(&["check"]);
                checked.expect(checked.code == 33, "check says so");
                let ended = vm.run();
                ended.failed(33, "permission-refused", "enroll").says("the enrolment service refuses enroll");
                ended.expect(ended.report["facts"]["refused"] == word, &format!("{word} in the facts"));
                ended.expect(ended.asked(ENROLL) == 1, "it is known at once");
                assert_eq!(vm.own_key(), (None, 0));
                assert!(vm.root.running_pids().is_empty(), "no minion was started");
            });
        }
    });
}

fn placed(vm: &Vm, state: KeyState) -> KeyPair {
    let key = new_key_pair(vm.master.venv()).unwrap();
    vm.master.place_key(vm.root.id(), state, &key.public_pem).unwrap();
    key
}

/// The commonest failure of all: a machine is built anew under its old name.
fn taken(line: Line) {
    let vm = enrolling(line, "enrol-taken");
    let old = placed(&vm, KeyState::Accepted);
    let ended = vm.run();
    ended.failed(42, "key-conflict", "enroll").hints("salt-key -d");
    ended.expect(ended.asked(ENROLL) == 1, "it is known at once");
    let keys = vm.master.key_states("enrol-taken");
    assert!(keys.contains(&(KeyState::Accepted, old.public_pem)), "{keys:?}");
    assert!(!vm.path("ok.out").exists());
}

fn rebuilt(line: Line) {
    let vm = with_token(Vm::new(line, "enrol-rebuilt"), &["--rebuild"]);
    let old = placed(&vm, KeyState::Accepted);
    vm.run().done().states(2, 0);
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    decided(&vm.master, "enrol-rebuilt", "enroll", true, &lab::keys::finger(&old.public_pem));
}

/// An operator has said no to this very key.
fn rejected(line: Line) {
    let vm = with_token(Vm::new(line, "enrol-rejected"), &["--rebuild"]);
    let key = placed(&vm, KeyState::Rejected);
    let pki = vm.path("etc/salt/pki/minion");
    fs::create_dir_all(&pki).unwrap();
    fs::write(pki.join("minion.pub"), &key.public_pem).unwrap();
    fs::write(pki.join("minion.pem"), &key.private_pem).unwrap();
    vm.run().failed(41, "key-rejected", "enroll").hints("salt-key");
    decided(&vm.master, "enrol-rejected", "enroll", false, "rejected");
    assert_eq!(vm.own_key(), (Some(KeyState::Rejected), 1));
}

fn wrong_master_finger(line: Line) {
    let mut vm = enrolling(line, "enrol-wrong-finger");
    let finger = vec!["ab"; 32].join(":");
    let ended = vm.set("minion/master_finger", finger.as_str()).run();
    ended.failed(43, "master-untrusted", "enroll").hints("master_finger");
    assert!(vm.root.running_pids().is_empty(), "no minion was started");
}

/// The minion has met another master before, which answers in this one's place.
fn other_master_met(line: Line) {
    let vm = enrolling(line, "enrol-other-master");
    let pki = vm.path("etc/salt/pki/minion");
    fs::create_dir_all(&pki).unwrap();
    fs::write(pki.join("minion_master.pub"), new_key_pair(vm.master.venv()).unwrap().public_pem).unwrap();
    vm.run().failed(43, "master-untrusted", "configure").hints("minion_master.pub");
    assert!(!vm.path("ok.out").exists());
}

/// Exactly one wins, and the other is told.
fn one_token_two_machines(line: Line) {
    let master = shared(line);
    let token = master.token("race-*", &[]).unwrap();
    let run = |id: &str| {
        let mut vm = Vm::on(&master, id);
        let ended = vm.enrolling(&token).run();
        (ended.code, vm.own_key())
    };
    let ended = thread::scope(|scope| {
        let both = ["race-1", "race-2"].map(|id| scope.spawn(move || run(id)));
        both.map(|one| one.join().unwrap())
    });
    let mut codes = ended.iter().map(|one| one.0).collect::<Vec<_>>();
    codes.sort();
    assert_eq!(codes, [0, 33]);
    for (code, key) in ended {
        assert_eq!(key.0, (code == 0).then_some(KeyState::Accepted));
    }
}

/// The operator sees which state has failed, and the next run has another job.
fn state_fails(line: Line) {
    let mut vm = with_token(Vm::new(line, "enrol-fails"), &["--states", "fail"]);
    let ended = vm.states(&["fail"]).run();
    ended.failed(51, "state-failed", "states");
    let seen = fleet(&vm.master, "enrol-fails");
    assert_eq!((&seen["verdict"], &seen["code"]), (&json!("failed"), &json!(51)), "{seen:#}");
    let failing = ended.report["states"]["failures"][0]["id"].as_str().unwrap();
    assert!(seen.to_string().contains(failing), "{seen:#}");
    let again = vm.next_stack().run();
    again.failed(51, "state-failed", "states");
    again.expect(again.report["jid"] != ended.report["jid"], "another job");
}

/// A minion that is restarted while its job runs gets the same one once more.
fn minion_restarted(line: Line) {
    let mut vm = with_token(Vm::new(line, "enrol-restarted"), &["--states", "held"]);
    vm.states(&["held"]);
    let started = vm.start(&["run"]);
    vm.await_file("runs.out");
    vm.root.stop_minion();
    vm.root.start_minion(&json!({})).unwrap();
    until(LONG, || (vm.runs() == 2).then_some(())).unwrap();
    vm.make("go");
    let ended = started.end(&vm);
    ended.done();
    // What is published to a minion that is just ending is lost, and then published once more.
    ended.expect(ended.asked(APPLY) >= 2, "it was asked for again");
    assert_eq!(vm.runs(), 2, "{:#?}", vm.master.decisions("enrol-restarted"));
}

/// A minion that is stopped takes no job, however often that is published; and once it goes on, it runs it once.
fn job_never_comes(line: Line) {
    let mut vm = with_token(Vm::new(line, "enrol-no-job"), &["--states", "append"]);
    vm.states(&["append"]).joined();
    let stopped: Vec<Pid> = vm.root.running_pids().into_iter().map(Pid::from_raw).collect();
    stopped.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP).unwrap());
    let ended = vm.deadline(17).agent(&["apply"]);
    stopped.iter().for_each(|pid| kill(*pid, Signal::SIGCONT).unwrap());
    ended.failed(50, "no-reaction", "states").says("never reached this minion").hints("jobs.lookup_jid");
    ended.expect(ended.asked(APPLY) == 2, "it was published twice");
    until(LONG, || (vm.runs() > 0).then_some(())).unwrap();
    // What comes after it in order shows that the second publication ran nothing.
    assert_eq!(vm.master.local("enrol-no-job", "test.ping", &[]).unwrap(), json!(true));
    assert_eq!(vm.runs(), 1);
}

/// Salt falls over a file that another job is just writing: a job of another name is asked for.
fn half_a_job_file(line: Line) {
    let vm = enrolling(line, "enrol-half-a-file");
    for verb in ["install", "accept"] {
        let ended = vm.agent(&[verb]);
        ended.expect(ended.code == 0, "exit code 0");
    }
    let ended = beside_half_a_job_file(&vm).end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.asked(APPLY) == 2, "once it fell over it, once more");
}

/// Without openssl the minion makes its key pair itself, at its first start; for that it has to know its master.
fn without_openssl(line: Line) {
    let mut vm = enrolling(line, "enrol-no-openssl");
    let hidden = "mount --bind /dev/null \"$(command -v openssl)\" && exec \"$@\"";
    vm.prefix = ["unshare", "--mount", "sh", "-c", hidden, "sh"].map(str::to_owned).to_vec();
    vm.run().failed(24, "local-system", "keys").hints("openssl").hints("minion.master_finger");
    assert!(vm.root.running_pids().is_empty(), "no minion was started");
    let ended = vm.trusting().next_stack().run();
    ended.done().states(2, 0);
    ended.expect(ended.requests == [ENROLL, APPLY, REPORT], "three requests");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

/// One that hangs gets its part of the time, and is named with it; where the minion may make its own pair, the run goes on. What hangs is a
/// script in openssl's place.
fn openssl_hangs(line: Line) {
    let mut vm = enrolling(line, "enrol-openssl-hangs");
    let script = vm.path("openssl");
    fs::write(&script, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let instead = format!("mount --bind '{}' \"$(command -v openssl)\" && exec \"$@\"", script.display());
    vm.prefix = ["unshare", "--mount", "sh", "-c", &instead, "sh"].map(str::to_owned).to_vec();
    let ended = vm.deadline(12).run();
    ended.failed(24, "local-system", "keys").says("openssl genrsa").says("had not ended after").hints("minion.master_finger");
    assert!(vm.root.running_pids().is_empty(), "no minion was started");
    let ended = vm.trusting().next_stack().deadline(90).run();
    ended.done().states(2, 0);
    ended.expect(ended.stderr.contains("openssl genrsa") && ended.stderr.contains("makes its own"), "it says so");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

/// A machine that goes for good takes its own key with it.
fn deregistered(line: Line) {
    let mut vm = with_token(Vm::new(line, "leaver"), &["--deregister"]);
    vm.run().done();
    let idle = vm.agent(&["deregister", "--at-shutdown"]);
    idle.expect(idle.code == 0 && idle.requests.is_empty(), "this machine is not being switched off");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    let ended = vm.agent(&["deregister"]);
    ended.expect(ended.code == 0 && ended.signals.is_empty(), "it leaves, and Heat need not know");
    ended.expect(ended.asked("POST /v1/deregister") == 1, "one claim");
    assert_eq!(vm.own_key(), (None, 0));
    assert!(vm.root.running_pids().is_empty(), "the minion still runs");
    let again = vm.agent(&["deregister"]);
    again.expect(again.code == 0 && again.changed().is_empty(), "there is nothing left");
    // The token was good for one time.
    vm.next_stack().run().failed(33, "permission-refused", "enroll");
    // One that does not say so keeps its key.
    let vm = enrolling(line, "stayer");
    vm.run().done();
    let ended = vm.agent(&["deregister"]);
    ended.expect(ended.code == 33 && ended.report["facts"]["refused"] == "deregister-not-allowed", "it is refused");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

fn deregistered_by_wheel(line: Line) {
    let mut vm = Vm::new(line, "wheel-leaver");
    vm.run().done();
    let refused = vm.agent(&["deregister"]);
    refused.expect(refused.code == 33 && refused.stderr.contains("key.delete"), "the permission is named");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    vm.account("admin");
    let ended = vm.agent(&["deregister"]);
    ended.expect(ended.code == 0, "exit code 0");
    assert_eq!(vm.own_key(), (None, 0));
    let again = vm.agent(&["deregister"]);
    again.expect(again.code == 0 && again.changed().is_empty(), "there is nothing left");
    // A machine of another key that has the name now is not harmed.
    let other = placed(&vm, KeyState::Accepted);
    let ended = vm.agent(&["deregister"]);
    ended.expect(ended.code == 42, "exit code 42");
    assert_eq!(vm.master.key_states("wheel-leaver"), [(KeyState::Accepted, other.public_pem)]);
}

/// A machine that says that it lives keeps its key, also where that was not heard for a while; one that is gone loses it, and gets it back
/// by itself, unless an operator has removed it.
fn lease(line: Line) {
    let mut vm = with_token(Vm::new(line, "tenant"), &["--deregister"]);
    vm.set("deregister", "when-gone");
    let ended = vm.run();
    ended.done();
    ended.expect(ended.requests == [ENROLL, RENEW, APPLY, REPORT], "its lease begins");
    let prune = |more: &[&str]| vm.master.heat_bootstrap(&[&["prune", "--gone", "1s"], more].concat()).unwrap();
    // Its lease runs out, and the minion answers.
    until(LONG, || prune(&["--dry-run"]).lines().any(|row| row.starts_with("tenant ") && row.contains("it answers")).then_some(()))
        .unwrap();
    prune(&[]);
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    vm.root.stop_minion();
    prune(&[]);
    assert_eq!(vm.own_key(), (None, 0));
    let last = vm.master.decisions("tenant").pop().unwrap();
    assert_eq!((&last["verb"], &last["word"]), (&json!("prune"), &json!("gone")));
    let before = vm.report();
    let back = vm.agent(&["renew"]);
    back.expect(back.code == 0 && back.stdout.contains("accepted again"), "it was only switched off");
    back.expect(back.requests == [RENEW] && back.signals.is_empty() && back.report == before, "nobody else hears of it");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    let again = vm.agent(&["renew"]);
    again.expect(again.code == 0 && !again.stdout.contains("again"), "it lives");
    vm.next_stack().run().done();
    // An operator has the last word.
    vm.master.remove_key("tenant").unwrap();
    let refused = vm.agent(&["renew"]);
    refused.expect(refused.code == 33 && refused.stderr.contains("its key was removed"), "it stays away");
    assert_ne!(vm.own_key().0, Some(KeyState::Accepted));
    // Who may not leave is not expected to say that he lives.
    let mut vm = enrolling(line, "owner");
    vm.set("deregister", "when-gone");
    vm.run().failed(33, "permission-refused", "lease").hints("--deregister");
}

/// Without the service, what was removed at a shutdown is accepted again by wheel.
fn back_by_wheel(line: Line) {
    let mut vm = Vm::new(line, "wheel-back");
    vm.account("admin");
    vm.run().done();
    let lives = vm.agent(&["renew"]);
    lives.expect(lives.code == 0 && !lives.stdout.contains("again"), "it lives");
    vm.root.stop_minion();
    let lives = vm.agent(&["renew"]);
    lives.expect(lives.code == 0 && !lives.stdout.contains("again"), "its key is accepted, and the minion has no part in that");
    vm.master.remove_key("wheel-back").unwrap();
    // Only the minion shows its key, and nobody is about to start it.
    let gone = vm.agent(&["renew"]);
    gone.expect(gone.code == 40 && gone.stderr.contains("which shows it, does not run"), "it is not waited for to the end");
    // At its next start the minion shows its key again.
    vm.root.start_minion(&json!({})).unwrap();
    let back = vm.agent(&["renew"]);
    back.expect(back.code == 0 && back.stdout.contains("accepted again"), "it is back");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

/// The token goes, and with it what it pins: that is remembered, and the rest needs the minion's key alone.
fn forgotten_secrets(line: Line) {
    let mut vm = Vm::new(line, "forgetful");
    let token = vm.master.token("forgetful", &["--pin", "key", "--deregister"]).unwrap();
    vm.enrolling(&token);
    let dir = vm.path("etc/heat-salt-bootstrap");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("token"), format!("{token}\n")).unwrap();
    let url = vm.master.service_url();
    vm.set("enroll", json!({"url": url, "token_file": "/etc/heat-salt-bootstrap/token"})).set("forget_secrets", true);
    vm.run().done();
    let text = vm.text("etc/heat-salt-bootstrap/config.json");
    let heat = vm.heat.token().to_owned();
    for secret in [&token, &heat] {
        assert!(!text.contains(secret.as_str()), "{text}");
    }
    assert!(text.contains("forgetful") && !dir.join("token").exists(), "{text}");
    assert_eq!(fs::metadata(dir.join("config.json")).unwrap().permissions().mode() & 0o777, 0o600);
    // All is in place, and nothing needs it.
    let second = vm.start_as_is(&["run"]).finish(&vm);
    second.expect(second.code == 0 && second.changed().is_empty(), "nothing to do");
    let again = vm.start_as_is(&["run", "--again"]).finish(&vm);
    again.expect(again.code == 0, "the states are applied again without a token");
    let left = vm.start_as_is(&["deregister"]).finish(&vm);
    left.expect(left.code == 0, "it may leave without one");
    assert_eq!(vm.own_key(), (None, 0));
    let late = vm.start_as_is(&["run"]).finish(&vm);
    late.expect(late.code == 10 && late.stderr.contains("forget_secrets"), "it says what it lacks");
}

/// Two masters with one database: enrolled with each, and a use is counted once.
fn two_masters(line: Line) {
    alone(line, |private| {
        let first = &private.master;
        let mut options = MasterOptions::new(line);
        options.twin = Some(Arc::clone(first));
        let second = Arc::new(Master::start_with(options).unwrap());
        let mut vm = with_token(Vm::on(first, "two-masters"), &[]);
        let urls = json!([vm.gate.url(), second.service_url()]);
        let cas = format!("{}{}", first.authority().ca_pem(), second.authority().ca_pem());
        vm.set("minion/master", json!(["127.0.0.1", "127.0.0.2"])).set("enroll/url", urls).set("enroll/ca", cas);
        let ended = vm.run();
        ended.done().states(2, 0);
        assert_eq!(second.key_states("two-masters").len(), 1);
        assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
        for master in [first, &second] {
            assert_eq!(master.local("two-masters", "test.ping", &[]).unwrap(), json!(true));
        }
        // One that cannot be reached is no reason to call the work done.
        second.stop_api();
        let mut vm = with_token(Vm::on(first, "one-of-two"), &[]);
        let urls = json!([vm.gate.url(), second.service_url()]);
        vm.set("minion/master", json!(["127.0.0.1", "127.0.0.2"])).set("enroll/url", urls).deadline(20);
        vm.run().failed(30, "api-unreachable", "enroll").says(&second.service_url());
    });
}

/// What is not there yet is waited for.
fn service_away(line: Line) {
    alone(line, |private| {
        let vm = with_token(Vm::on(&private.master, "service-away"), &[]);
        vm.master.stop_api();
        let started = vm.start(&["run"]);
        started.await_word("trying again");
        vm.master.restart_api().unwrap();
        started.end(&vm).done().states(2, 0);
    });
}

/// Between the claim and the minion's first call.
fn master_restarted(line: Line) {
    alone(line, |private| {
        let mut vm = with_token(Vm::on(&private.master, "enrol-restart"), &[]);
        // The master's start counts too.
        vm.deadline(300);
        vm.program("while [ ! -e \"$(dirname \"$0\")/go\" ]; do sleep 0.05; done; exec \"$MINION\" \"$@\"");
        let started = vm.start(&["run"]);
        until(LONG, || (vm.own_key().0 == Some(KeyState::Accepted)).then_some(())).unwrap();
        vm.master.stop_master();
        vm.master.start_master().unwrap();
        fs::write(vm.path("go"), "").unwrap();
        started.end(&vm).done().states(2, 0);
    });
}

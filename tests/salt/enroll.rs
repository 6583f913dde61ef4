//! Joining by a claim: a VM that needs no power over the master, and everybody who would like to have some.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::api::Session;
use lab::keys::{KeyPair, KeyState, new_key_pair};
use lab::master::Master;
use lab::process::until;
use lab::venv::Line;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{digest, hmac};
use serde_json::{Value, json};

use crate::OnEachLine;
use crate::fixture::{LONG, Vm, alone, shared};

pub const CASES: &[OnEachLine] = &[
    ("joined", joined),
    ("link_by_link", link_by_link),
    ("second_run", second_run),
    ("killed_after_the_claim", killed_after_the_claim),
    ("worthless_tokens", worthless_tokens),
    ("taken", taken),
    ("rebuilt", rebuilt),
    ("rejected", rejected),
    ("wrong_master_finger", wrong_master_finger),
    ("one_token_two_machines", one_token_two_machines),
    ("classic_trigger", classic_trigger),
    ("state_not_allowed", state_not_allowed),
    ("replayed", replayed),
    ("forged_triggers", forged_triggers),
    ("hostile_claims", hostile_claims),
    ("many_claims", many_claims),
    ("deregistered", deregistered),
    ("deregistered_by_wheel", deregistered_by_wheel),
    ("forgotten_secrets", forgotten_secrets),
    ("first_use", first_use),
    ("two_masters", two_masters),
    ("as_shipped", as_shipped),
    ("nobody_decides", nobody_decides),
    ("runner_fails", runner_fails),
    ("master_restarted", master_restarted),
];

fn minted(vm: &Vm, more: Value) -> String {
    let mut arguments = json!({"id": vm.root.id(), "states": "ok"});
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    vm.master.mint(arguments).unwrap()
}

/// A VM with a token of its own for the state `ok`.
fn claiming(line: Line, id: &str) -> Vm {
    let mut vm = Vm::new(line, id);
    let token = minted(&vm, json!({}));
    vm.claiming(&token);
    vm
}

/// It was decided so about an id, by now or soon. The reactor decides several claims at once, in no order.
#[track_caller]
fn decided(master: &Master, id: &str, granted: bool, why: &str) {
    decided_so_often(master, id, granted, why, 1);
}

#[track_caller]
fn decided_so_often(master: &Master, id: &str, granted: bool, why: &str, times: usize) {
    let fits = |one: &Value| one["granted"] == granted && one["why"].as_str().is_some_and(|said| said.contains(why));
    let so = || (master.decisions(id).iter().filter(|one| fits(one)).count() >= times).then_some(());
    until(LONG, so).unwrap_or_else(|_| panic!("not decided so: {granted}, {why:?}: {:#?}\n{}", master.decisions(id), master.log_tail()));
}

/// A user with an empty permission list gets its own key accepted and its own states run, and can do nothing else.
fn joined(line: Line) {
    let vm = claiming(line, "joined");
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(
        ended.changed() == ["keys", "configure", "enroll", "states"] || ended.changed() == ["keys", "enroll", "configure", "states"],
        "four changes",
    );
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    assert_eq!(vm.text("ok.out").trim(), "hello joined nobody");
    let triggers = ended.triggered("heat-salt-bootstrap/apply");
    ended.expect(triggers == 1, "one trigger");
    let expected = ["POST /login", "POST /hook/heat-salt-bootstrap/enroll", "POST /hook/heat-salt-bootstrap/apply", "POST /logout"];
    let mut requests = ended.requests.clone();
    requests.dedup();
    ended.expect(requests == expected, "four requests");
    let log = vm.root.minion_log();
    ended.expect(!log.contains("has cached the public key"), "the key was accepted before the minion first called");
    let decisions = vm.master.decisions("joined");
    let verbs: Vec<_> = decisions.iter().map(|one| (one["verb"].as_str().unwrap(), one["granted"].as_bool().unwrap())).collect();
    assert_eq!(verbs[..3], [("mint", true), ("enroll", true), ("apply", true)], "{decisions:#?}");
    assert!(decisions[1..].iter().all(|one| one["bootstrap_id"] == ended.report["bootstrap_id"]), "{decisions:#?}");

    let session = vm.master.session("noperm").unwrap();
    assert!(session.wheel("key.accept", json!({"match": "joined"})).is_err());
    assert!(session.wheel("key.list_all", json!({})).is_err());
    assert!(session.runner("heat_salt_bootstrap.list", json!({})).is_err());
    assert!(session.local("joined", "test.ping", &[]).is_err());

    let list = vm.master.salt_run(&["heat_salt_bootstrap.list"]).unwrap().to_string();
    let token = vm.config["enroll"]["token"].as_str().unwrap();
    let (name, secret) = (token.split('.').nth(1).unwrap(), token.rsplit('.').next().unwrap());
    assert!(list.contains(name) && !list.contains(secret) && !list.contains("\"hash\""), "{list}");
    for kept in ["state.json", "audit.log"] {
        let text = fs::read_to_string(vm.master.claims_dir().join(kept)).unwrap();
        assert!(!text.contains(secret), "{kept} holds the token");
    }
    assert_eq!(fs::metadata(vm.path("etc/salt/pki/minion/minion.pem")).unwrap().permissions().mode() & 0o777, 0o400);
}

/// The minion makes its own pair, by Salt, and is claimed afterwards.
fn link_by_link(line: Line) {
    let vm = claiming(line, "claimed-link");
    let ended = vm.agent(&["install"]);
    ended.expect(ended.code == 0, "exit code 0");
    until(LONG, || (vm.own_key().0 == Some(KeyState::Pending)).then_some(())).unwrap();
    let ended = vm.agent(&["accept"]);
    ended.expect(ended.code == 0, "exit code 0");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    vm.agent(&["apply"]).done().states(2, 0);
}

fn second_run(line: Line) {
    let vm = claiming(line, "claimed-twice");
    vm.run().done();
    let ended = vm.run();
    ended.done();
    ended.expect(ended.requests.is_empty() && ended.changed().is_empty(), "nothing to do");
    // A minion that was stopped is started; its claim is none too many, and its states held before.
    vm.root.stop_minion();
    let ended = vm.run();
    ended.done();
    ended.expect(ended.asked("POST /hook/heat-salt-bootstrap/apply") == 0, "no second trigger");
    // The token is used up, and nothing needs it.
    let again = vm.agent(&["run", "--again"]);
    again.done().states(2, 0);
    again.expect(again.asked("POST /hook/heat-salt-bootstrap/enroll") == 0, "no second claim");
}

/// A claim that was granted is not lost, and a token is not used twice by one machine.
fn killed_after_the_claim(line: Line) {
    let mut vm = claiming(line, "claim-killed");
    vm.program("while [ ! -e \"$(dirname \"$0\")/go\" ]; do sleep 0.05; done; exec \"$MINION\" \"$@\"");
    let started = vm.start(&["run"]);
    vm.await_request("POST /hook/heat-salt-bootstrap/enroll");
    decided(&vm.master, "claim-killed", true, "accepted");
    started.kill(&vm);
    fs::write(vm.path("go"), "").unwrap();
    vm.run().done().states(2, 0);
    decided(&vm.master, "claim-killed", true, "job");
    let uses = vm.master.session("admin").unwrap().runner("heat_salt_bootstrap.list", json!({})).unwrap();
    let name = vm.config["enroll"]["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    assert_eq!(uses[&name]["used"].as_array().unwrap().len(), 1, "{uses:#}");
}

fn worthless_tokens(line: Line) {
    let master = shared(line);
    let admin = master.session("admin").unwrap();
    let used_up = master.mint(json!({"id": "worthless-*", "states": "ok", "uses": 1})).unwrap();
    let key = Forger::new(&master);
    master.forget("worthless-before").unwrap();
    key.enroll(&admin, "worthless-before", &used_up);
    decided(&master, "worthless-before", true, "accepted");
    let revoked = master.mint(json!({"id": "worthless-*"})).unwrap();
    admin.runner("heat_salt_bootstrap.revoke", json!({"name": revoked.split('.').nth(1).unwrap()})).unwrap();
    let expired = master.mint(json!({"id": "worthless-*", "hours": 0.0001})).unwrap();
    let wrong = format!("{}x", master.mint(json!({"id": "worthless-*"})).unwrap());
    let others = master.mint(json!({"id": "somebody-else"})).unwrap();
    let unknown = "hsb1.0123456789abcdef.Never-Minted-Secret".to_owned();
    let cases = [
        ("wrong", wrong, "not proved by the token"),
        ("unknown", unknown, "no token of that name"),
        ("used-up", used_up, "used up"),
        ("revoked", revoked, "revoked"),
        ("expired", expired, "expired"),
        ("others", others, "for somebody-else"),
    ];
    thread::scope(|scope| {
        for (name, token, why) in cases {
            let master = &master;
            scope.spawn(move || {
                let mut vm = Vm::on(master, &format!("worthless-{name}"));
                vm.claiming(&token);
                let ended = vm.run();
                ended.failed(33, "permission-refused", "connect").says(vm.root.id()).hints("heat_salt_bootstrap.audit");
                ended.expect(ended.asked("POST /hook/heat-salt-bootstrap/enroll") == 3, "three claims");
                decided(master, vm.root.id(), false, why);
                assert_eq!(vm.own_key(), (Some(KeyState::Pending), 1));
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
    let vm = claiming(line, "claim-taken");
    let old = placed(&vm, KeyState::Accepted);
    let ended = vm.run();
    ended.failed(42, "key-conflict", "connect").hints("salt-key -d claim-taken").hints("rebuild=True");
    ended.expect(ended.asked("POST /hook/heat-salt-bootstrap/enroll") == 1, "it is known at once");
    decided(&vm.master, "claim-taken", false, "another key is accepted");
    let keys = vm.master.key_states("claim-taken");
    assert!(keys.contains(&(KeyState::Accepted, old.public_pem)), "{keys:?}");
    assert!(!vm.path("ok.out").exists());
}

fn rebuilt(line: Line) {
    let mut vm = Vm::new(line, "claim-rebuilt");
    let token = minted(&vm, json!({"rebuild": true}));
    let old = placed(&vm, KeyState::Accepted);
    vm.claiming(&token).run().done().states(2, 0);
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    let granted = vm.master.decisions("claim-rebuilt").into_iter().find(|one| one["verb"] == "enroll").unwrap();
    let finger = lab::keys::finger(&old.public_pem);
    assert!(granted["why"].as_str().unwrap().contains(&finger), "{granted}");
}

/// An operator has said no to this very key.
fn rejected(line: Line) {
    let mut vm = Vm::new(line, "claim-rejected");
    let token = minted(&vm, json!({"rebuild": true}));
    let key = placed(&vm, KeyState::Rejected);
    let pki = vm.path("etc/salt/pki/minion");
    fs::create_dir_all(&pki).unwrap();
    fs::write(pki.join("minion.pub"), &key.public_pem).unwrap();
    fs::write(pki.join("minion.pem"), &key.private_pem).unwrap();
    vm.claiming(&token).run().failed(41, "key-rejected", "connect").hints("salt-key -L");
    decided(&vm.master, "claim-rejected", false, "rejected");
    assert_eq!(vm.own_key(), (Some(KeyState::Rejected), 1));
}

fn wrong_master_finger(line: Line) {
    let mut vm = claiming(line, "claim-wrong-master");
    let finger = vec!["ab"; 32].join(":");
    let ended = vm.set("minion/master_finger", finger.as_str()).run();
    ended.failed(43, "master-untrusted", "connect").hints("master_finger");
    assert!(!vm.path("ok.out").exists());
}

/// Exactly one wins, and the other is told.
fn one_token_two_machines(line: Line) {
    let master = shared(line);
    let token = master.mint(json!({"id": "race-*", "states": "ok"})).unwrap();
    let run = |id: &str| {
        let mut vm = Vm::on(&master, id);
        vm.claiming(&token);
        let ended = vm.run();
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
        assert_eq!(key.0, Some(if code == 0 { KeyState::Accepted } else { KeyState::Pending }));
    }
}

/// A master that has a reactor of its own keeps it.
fn classic_trigger(line: Line) {
    let mut vm = claiming(line, "claim-classic");
    vm.set("apply/hook", "states/state").run().done().states(2, 0);
    assert_eq!(vm.gate.hooks().iter().filter(|(path, _)| path == "states/state").count(), 1);
}

fn state_not_allowed(line: Line) {
    let mut vm = claiming(line, "claim-other-state");
    let ended = vm.states(&["second"]).deadline(20).run();
    ended.failed(50, "no-reaction", "states").hints("heat_salt_bootstrap.audit");
    decided(&vm.master, "claim-other-state", false, "does not allow second");
    assert!(!vm.path("second.out").exists());
}

/// Whoever reads the event bus, as everybody may who can log in, can do nothing with what he read.
fn replayed(line: Line) {
    let mut vm = claiming(line, "claim-replayed");
    vm.set("apply/states", json!(["append"]));
    let token = minted(&vm, json!({"states": "append", "uses": 5, "deregister": true}));
    vm.claiming(&token).run().done();
    let runs = vm.runs();
    let thief = vm.master.session("noperm").unwrap();
    let find = |path: &str| vm.gate.hooks().into_iter().find(|(hook, _)| hook == path).unwrap().1;
    let (enroll, apply) = (find("heat-salt-bootstrap/enroll"), find("heat-salt-bootstrap/apply"));
    thief.hook("heat-salt-bootstrap/apply", &apply).unwrap();
    decided(&vm.master, "claim-replayed", false, "used before");
    assert_eq!(vm.runs(), runs, "the states ran again");
    // What was signed for one hook is nothing at another.
    thief.hook("heat-salt-bootstrap/deregister", &apply).unwrap();
    vm.master.remove_key("claim-replayed").unwrap();
    thief.hook("heat-salt-bootstrap/enroll", &enroll).unwrap();
    decided_so_often(&vm.master, "claim-replayed", false, "used before", 2);
    assert_ne!(vm.own_key().0, Some(KeyState::Accepted), "a key that an operator has deleted is back");
    let others = vm.master.decisions("claim-replayed").iter().filter(|one| one["verb"] == "deregister").count();
    assert_eq!(others, 0, "the claim for another hook was not even read");
}

/// A key pair in the hands of somebody who writes his own claims.
struct Forger {
    pem: String,
    private: RsaKeyPair,
}

impl Forger {
    fn new(master: &Master) -> Forger {
        let pair = new_key_pair(master.venv()).unwrap();
        let body: String = pair.private_pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).unwrap();
        let private = RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der)).unwrap();
        Forger { pem: pair.public_pem, private }
    }

    fn claim(&self, verb: &str, id: Value, more: Value) -> Value {
        let mut nonce = [0; 16];
        ring::rand::SecureRandom::fill(&SystemRandom::new(), &mut nonce).unwrap();
        let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut claim = json!({"verb": verb, "id": id, "key": self.pem, "bootstrap_id": "forged", "nonce": nonce});
        claim.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claim
    }

    fn post(&self, session: &Session, verb: &str, claim: &Value, token: &str) {
        self.try_post(session, verb, claim, token).unwrap();
    }

    /// Says whether salt-api took it: of what is too large for its event bus a busy one says 500.
    fn try_post(&self, session: &Session, verb: &str, claim: &Value, token: &str) -> Result<Value, String> {
        let document = claim.to_string();
        let mut signature = vec![0; self.private.public().modulus_len()];
        self.private.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), document.as_bytes(), &mut signature).unwrap();
        let key = digest::digest(&digest::SHA256, token.as_bytes());
        let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), document.as_bytes());
        let proof: String = proof.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({"claim": STANDARD.encode(&document), "signature": STANDARD.encode(&signature), "proof": proof});
        session.hook(&format!("heat-salt-bootstrap/{verb}"), &body).map_err(|error| format!("{error:#}"))
    }

    fn enroll(&self, session: &Session, id: &str, token: &str) {
        let name = token.split('.').nth(1).unwrap();
        self.post(session, "enroll", &self.claim("enroll", json!(id), json!({"token": name})), token);
    }
}

/// Somebody who was enrolled himself asks for things on others, or for more than his token allows.
fn forged_triggers(line: Line) {
    let victim = claiming(line, "victim");
    victim.run().done();
    fs::remove_file(victim.path("ok.out")).unwrap();
    let master = &victim.master;
    let token = master.mint(json!({"id": "forger", "states": "ok"})).unwrap();
    let forger = Forger::new(master);
    master.forget("forger").unwrap();
    let session = master.session("noperm").unwrap();
    forger.enroll(&session, "forger", &token);
    decided(master, "forger", true, "accepted");
    let states = |names: Value| json!({"states": names});
    for id in ["victim", "*", "forger,victim", "vict?m", "[v]ictim"] {
        forger.post(&session, "apply", &forger.claim("apply", json!(id), states(json!(["ok"]))), "");
    }
    decided(master, "victim", false, "another key");
    // His key is not that of the minion that he would like to see leave.
    forger.post(&session, "deregister", &forger.claim("deregister", json!("victim"), json!({})), "");
    for name in ["second", "ok,second", "ok\n    - tgt: '*'", "{{ grains }}", "../ok", ""] {
        let before = (master.decisions("forger").len(), refusals(master));
        forger.post(&session, "apply", &forger.claim("apply", json!("forger"), states(json!([name]))), "");
        // What is not even well-formed is written down without an id that somebody made up.
        let answered = || (master.decisions("forger").len() > before.0 || refusals(master) > before.1).then_some(());
        until(LONG, answered).unwrap();
    }
    forger.post(&session, "deregister", &forger.claim("deregister", json!("forger"), json!({})), "");
    decided(master, "forger", false, "does not allow to deregister");
    decided_so_often(master, "victim", false, "another key", 2);
    assert!(master.decisions("forger").iter().filter(|one| one["verb"] == "apply").all(|one| one["granted"] == false));
    assert!(master.decisions("victim").iter().all(|one| one["granted"] == true || one["why"].as_str().unwrap().contains("another key")));
    assert!(!victim.path("ok.out").exists() && !victim.path("second.out").exists(), "a state ran on the victim");
    assert_eq!(victim.own_key().0, Some(KeyState::Accepted));
}

/// How many claims were refused that named nobody.
fn refusals(master: &Master) -> usize {
    let log = fs::read_to_string(master.claims_dir().join("audit.log")).unwrap_or_default();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries.filter(|entry| entry["granted"] == false && entry.get("id").is_none()).count()
}

/// What is posted is refused, unless salt-api does not even take it, as `post` says. If nothing comes of it, it is posted again, as the
/// agent does: a busy master of 3008 loses a hook now and then, and more of them the more come at once.
#[track_caller]
fn refused(master: &Master, post: impl Fn() -> bool) {
    let told = refusals(master);
    for _ in 0..5 {
        if !post() || until(Duration::from_secs(20), || (refusals(master) > told).then_some(())).is_ok() {
            return;
        }
    }
    panic!("it is not refused\n{}", master.log_tail());
}

/// Nothing leaves the key directory, and nothing that is no RSA key gets into it.
fn hostile_claims(line: Line) {
    alone(line, |private| {
        let master = &private.master;
        master.forget("hostile-good").unwrap();
        let token = master.mint(json!({"id": "*", "states": "ok", "uses": 100})).unwrap();
        let name = token.split('.').nth(1).unwrap();
        let forger = Forger::new(master);
        let session = master.session("noperm").unwrap();
        let listed = || {
            let mut all = Vec::new();
            for state in KeyState::ALL {
                let dir = master.pki_dir().join(state.dir());
                all.extend(fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            all.sort();
            all
        };
        let before = listed();
        let long = "x".repeat(300);
        let ids = [
            json!("../evil"),
            json!("/etc/evil"),
            json!("a/b"),
            json!("a\\b"),
            json!("*"),
            json!("web-[12]"),
            json!("a,b"),
            json!("a b"),
            json!("a\nb"),
            json!(".hidden"),
            json!(""),
            json!(".."),
            json!(long),
            json!(7),
            json!(null),
            json!(["a"]),
            json!("a\u{0}b"),
        ];
        for id in &ids {
            let claim = forger.claim("enroll", id.clone(), json!({"token": name}));
            refused(master, || {
                forger.post(&session, "enroll", &claim, &token);
                true
            });
        }
        let short = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK\n-----END PUBLIC KEY-----";
        let elliptic = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEQ5g1yq4wR6FJxJ6pYb4kYtN9cG1O\nQ9M6H2Y7QkIqKq4wR6FJxJ6pYb4kYtN9cG1OQ9M6H2Y7QkIqKq4wR6FJxA==\n-----END PUBLIC KEY-----";
        let keys = [json!("no key"), json!(short), json!(elliptic), json!(null), json!({}), json!("{{ 7 * 7 }}")];
        for key in keys {
            let claim = forger.claim("enroll", json!("hostile"), json!({"token": name, "key": key}));
            refused(master, || {
                forger.post(&session, "enroll", &claim, &token);
                true
            });
        }
        for body in [json!({}), json!([1]), json!({"claim": 3}), json!({"claim": "%%%"}), json!({"claim": "e30="}), json!("text")] {
            refused(master, || {
                session.hook("heat-salt-bootstrap/enroll", &body).unwrap();
                true
            });
        }
        // Of what is too large for its event bus a busy salt-api says 500.
        let large = forger.claim("enroll", json!("hostile"), json!({"token": name, "key": "A".repeat(1024 * 1024)}));
        refused(master, || forger.try_post(&session, "enroll", &large, &token).is_ok());
        assert_eq!(listed(), before, "a key was placed");
        for evil in ["evil", "../evil"] {
            assert!(!master.pki_dir().join(evil).exists());
        }
        // And it still decides.
        forger.enroll(&session, "hostile-good", &token);
        decided(master, "hostile-good", true, "accepted");
        assert_eq!(master.key_states("hostile-good").len(), 1);
        assert_eq!(listed().len(), before.len() + 1, "a key was placed");
    });
}

/// None is lost, and the master goes on answering.
fn many_claims(line: Line) {
    alone(line, |private| {
        let master: &Arc<Master> = &private.master;
        (0..200).for_each(|number| master.forget(&format!("many-{number}")).unwrap());
        let token = master.mint(json!({"id": "many-*", "uses": 200})).unwrap();
        let forger = Forger::new(master);
        let session = master.session("noperm").unwrap();
        let begun = Instant::now();
        for number in 0..200 {
            forger.enroll(&session, &format!("many-{number}"), &token);
            thread::sleep(Duration::from_millis(50 * (number + 1)).saturating_sub(begun.elapsed()));
        }
        // It answers while there may still be claims to decide.
        master.session("admin").unwrap().wheel("key.list", json!({"match": "accepted"})).unwrap();
        let accepted = || (0..200).filter(|number| !master.key_states(&format!("many-{number}")).is_empty()).count();
        let all = until(LONG, || (accepted() == 200).then_some(()));
        assert!(all.is_ok(), "{} of 200 were accepted\n{}", accepted(), master.log_tail());
    });
}

/// A machine that goes for good takes its own key with it.
fn deregistered(line: Line) {
    let mut vm = Vm::new(line, "leaver");
    let token = minted(&vm, json!({"deregister": true}));
    vm.claiming(&token).run().done();
    let idle = vm.agent(&["deregister", "--at-shutdown"]);
    idle.expect(idle.code == 0 && idle.requests.is_empty(), "this machine is not being switched off");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    let ended = vm.agent(&["deregister"]);
    ended.expect(ended.code == 0 && ended.signals.is_empty(), "it leaves, and Heat need not know");
    ended.expect(ended.asked("POST /hook/heat-salt-bootstrap/deregister") == 1, "one claim");
    decided(&vm.master, "leaver", true, "removed");
    assert_eq!(vm.own_key(), (None, 0));
    assert!(vm.root.running_pids().is_empty(), "the minion still runs");
    // The token was good for one time.
    vm.next_stack().run().failed(33, "permission-refused", "connect");
    decided(&vm.master, "leaver", false, "used up");
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

fn forgotten_secrets(line: Line) {
    let mut vm = Vm::new(line, "forgetful");
    let token = minted(&vm, json!({}));
    vm.claiming(&token).set("forget_secrets", true);
    let password = vm.config["api"]["password"].as_str().unwrap().to_owned();
    let dir = vm.path("etc/heat-salt-bootstrap");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("token"), format!("{token}\n")).unwrap();
    vm.set("enroll", json!({"token_file": "/etc/heat-salt-bootstrap/token"}));
    vm.run().done();
    let text = vm.text("etc/heat-salt-bootstrap/config.json");
    let heat = vm.heat.token().to_owned();
    for secret in [&token, &password, &heat] {
        assert!(!text.contains(secret.as_str()), "{text}");
    }
    assert!(text.contains("forgetful") && !dir.join("token").exists(), "{text}");
    assert_eq!(fs::metadata(dir.join("config.json")).unwrap().permissions().mode() & 0o777, 0o600);
    // All is in place, and nothing needs them.
    let second = vm.start_as_is(&["run"]).finish(&vm);
    second.expect(second.code == 0 && second.requests.is_empty(), "nothing to do");
    let again = vm.start_as_is(&["run", "--again"]).finish(&vm);
    again.expect(again.code == 10 && again.stderr.contains("forget_secrets"), "it says what it lacks");
}

/// Who may do nothing may not even ask for the master's fingerprint; believing whoever answers has to be said.
fn first_use(line: Line) {
    let mut vm = claiming(line, "first-use");
    vm.set("minion/master_finger", json!(null));
    vm.run().failed(33, "permission-refused", "master").hints("master_finger");
    let started = vm.next_stack().start(&["run", "--trust-on-first-use"]);
    started.end(&vm).done().states(2, 0);
    assert!(!vm.text("etc/salt/minion.d/zz-heat-salt-bootstrap.conf").contains("master_finger"));
}

/// Each of them is enrolled with, and the minion is connected to each before states are run.
fn two_masters(line: Line) {
    alone(line, |private| {
        let first = &private.master;
        let mut options = lab::master::MasterOptions::new(line);
        options.twin = Some(Arc::clone(first));
        let second = Arc::new(Master::start_with(options).unwrap());
        let mut vm = Vm::on(first, "two-masters");
        let token = minted(&vm, json!({}));
        vm.claiming(&token);
        // Each master has tokens of its own; these two share them, as they would share their pki_dir.
        fs::create_dir_all(second.claims_dir()).unwrap();
        fs::copy(first.claims_dir().join("state.json"), second.claims_dir().join("state.json")).unwrap();
        let urls = json!([vm.gate.url(), second.api_url()]);
        let cas = format!("{}{}", first.authority().ca_pem(), second.authority().ca_pem());
        vm.set("minion/master", json!(["127.0.0.1", "127.0.0.2"])).set("api/url", urls).set("api/ca", cas);
        let ended = vm.run();
        ended.done().states(2, 0);
        decided(&second, "two-masters", true, "accepted");
        assert_eq!(second.key_states("two-masters").len(), 1);
        assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
        for master in [first, &second] {
            assert_eq!(master.local("two-masters", "test.ping", &[]).unwrap(), json!(true));
        }
        // One that cannot be reached is no reason to call the work done.
        second.stop_api();
        let mut vm = Vm::on(first, "one-of-two");
        let token = minted(&vm, json!({}));
        vm.claiming(&token);
        let urls = json!([vm.gate.url(), second.api_url()]);
        vm.set("minion/master", json!(["127.0.0.1", "127.0.0.2"])).set("api/url", urls).deadline(20);
        vm.run().failed(30, "api-unreachable", "enroll").says(&second.api_url());
    });
}

/// The configuration that is shipped for a master, but for the paths and the way its users are known.
fn as_shipped(line: Line) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("cloud-init/salt-master");
    let runners = tempfile::tempdir().unwrap();
    fs::copy(files.join("runners/heat_salt_bootstrap.py"), runners.path().join("heat_salt_bootstrap.py")).unwrap();
    let text = fs::read_to_string(files.join("master.d/heat-salt-bootstrap.conf")).unwrap();
    let text =
        text.replace("/srv/reactor", files.join("reactor").to_str().unwrap()).replace("/srv/runners", runners.path().to_str().unwrap());
    let python = lab::venv::salt(line).unwrap().program("python");
    let convert = "import json, os, yaml; print(json.dumps(yaml.safe_load(os.environ['TEXT'])))";
    let output = Command::new(python).args(["-c", convert]).env("TEXT", text).output().unwrap();
    let shipped: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut options = lab::master::MasterOptions::new(line);
    assert_eq!(shipped["external_auth"], json!({"pam": {"boot": []}}));
    assert_eq!(shipped["rest_cherrypy"]["thread_pool"], 1);
    for key in ["netapi_enable_clients", "runner_dirs", "reactor"] {
        options.config.insert(key.to_owned(), shipped[key].clone());
    }
    let master = Arc::new(Master::start_with(options).unwrap());
    let mut vm = Vm::on(&master, "as-shipped");
    let token = master.salt_run(&["heat_salt_bootstrap.mint", "as-*", "states=ok"]).unwrap();
    vm.claiming(token.as_str().unwrap()).run().done().states(2, 0);
    assert_eq!(master.salt_run(&["heat_salt_bootstrap.audit", "as-shipped"]).unwrap().as_array().unwrap().len(), 2);
}

/// A file of the master that has its content again when this is gone, also if the case fails.
struct Kept {
    file: PathBuf,
    content: Vec<u8>,
}

impl Kept {
    fn of(file: PathBuf) -> Kept {
        let content = fs::read(&file).unwrap();
        Kept { file, content }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // A second panic while the first one unwinds would end the whole suite.
        if let Err(error) = fs::write(&self.file, &self.content) {
            eprintln!("{} is not as it was: {error}", self.file.display());
        }
    }
}

/// The reactor is missing: the key waits, and the hint says where to look.
fn nobody_decides(line: Line) {
    alone(line, |private| {
        let mut vm = Vm::on(&private.master, "undecided");
        let token = minted(&vm, json!({}));
        let kept = Kept::of(vm.master.reactor_dir().join("claims.sls"));
        fs::remove_file(&kept.file).unwrap();
        let ended = vm.claiming(&token).run();
        drop(kept);
        ended.failed(33, "permission-refused", "connect").hints("the reactor for").hints("the master's log");
        assert_eq!(vm.own_key(), (Some(KeyState::Pending), 1));
        // Once it is there again, the next run joins.
        vm.next_stack().run().done();
    });
}

fn runner_fails(line: Line) {
    alone(line, |private| {
        let mut vm = Vm::on(&private.master, "runner-fails");
        let token = minted(&vm, json!({}));
        let kept = Kept::of(vm.master.claims_dir().join("state.json"));
        fs::write(&kept.file, "{ broken").unwrap();
        let ended = vm.claiming(&token).run();
        assert_eq!(fs::read_to_string(&kept.file).unwrap(), "{ broken", "what cannot be read is not written over");
        drop(kept);
        ended.failed(33, "permission-refused", "connect").hints("heat_salt_bootstrap.audit");
        decided(&vm.master, "runner-fails", false, "the master failed");
        vm.next_stack().run().done();
    });
}

/// Between the claim and the minion's first call.
fn master_restarted(line: Line) {
    alone(line, |private| {
        let mut vm = Vm::on(&private.master, "claim-restart");
        let token = minted(&vm, json!({}));
        // The master's start counts too.
        vm.claiming(&token).deadline(300);
        vm.program("while [ ! -e \"$(dirname \"$0\")/go\" ]; do sleep 0.05; done; exec \"$MINION\" \"$@\"");
        let started = vm.start(&["run"]);
        decided(&vm.master, "claim-restart", true, "accepted");
        vm.master.stop_master();
        vm.master.start_master().unwrap();
        fs::write(vm.path("go"), "").unwrap();
        started.end(&vm).done().states(2, 0);
    });
}

//! Whose key is accepted, and whose is not; minions that do not come up; masters that are not the right one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use lab::keys::{KeyPair, KeyState, new_key_pair};
use lab::process::until;
use lab::venv::Line;
use serde_json::json;

use crate::OnEachLine;
use crate::fixture::{LONG, Vm};

pub const CASES: &[OnEachLine] = &[
    ("rejected", rejected),
    ("refused_and_nobody_to_ask", refused_and_nobody_to_ask),
    ("taken", |line| taken(line, KeyState::Accepted)),
    ("another_pending", |line| taken(line, KeyState::Pending)),
    ("pending_once_more", pending_once_more),
    ("start_fails", start_fails),
    ("nothing_starts", nothing_starts),
    ("program_missing", program_missing),
    ("version_by_the_program", version_by_the_program),
    ("wrong_master_finger", wrong_master_finger),
    ("master_of_another_life", master_of_another_life),
    ("id_as_pattern", id_as_pattern),
    ("accepted_by_someone_else", accepted_by_someone_else),
];

fn key_placed(vm: &Vm, state: KeyState) -> KeyPair {
    let key = new_key_pair(vm.master.venv()).unwrap();
    vm.master.place_key(vm.root.id(), state, &key.public_pem).unwrap();
    key
}

/// Nothing was triggered on this machine.
#[track_caller]
fn nothing_ran(vm: &Vm) {
    assert!(!vm.path("ok.out").exists(), "the state ran");
    let hooks = vm.gate.requests().iter().filter(|one| one.contains("/hook/")).count();
    assert_eq!(hooks, 0, "a hook was fired");
}

/// An operator has said no to this very key.
fn rejected(line: Line) {
    let vm = Vm::new(line, "rejected");
    let key = new_key_pair(vm.master.venv()).unwrap();
    let pki = vm.path("etc/salt/pki/minion");
    std::fs::create_dir_all(&pki).unwrap();
    std::fs::write(pki.join("minion.pub"), &key.public_pem).unwrap();
    std::fs::write(pki.join("minion.pem"), &key.private_pem).unwrap();
    vm.master.place_key("rejected", KeyState::Rejected, &key.public_pem).unwrap();
    vm.run().failed(41, "key-rejected", "accept").says("rejected").hints("salt-key");
    assert_eq!(vm.own_key(), (Some(KeyState::Rejected), 1));
    nothing_ran(&vm);
}

/// The key that was there first stays as it was.
fn taken(line: Line, state: KeyState) {
    let vm = Vm::new(line, &format!("taken-{state:?}"));
    let other = key_placed(&vm, state);
    vm.run().failed(42, "key-conflict", "accept").says(vm.root.id()).hints("salt-key -d");
    // The master may still be writing down that it refuses the minion's.
    until(LONG, || (vm.own_key().0 == Some(KeyState::Denied)).then_some(())).unwrap();
    let mut keys = vm.master.key_states(vm.root.id());
    keys.retain(|(state, _)| *state != KeyState::Denied);
    assert_eq!(keys, [(state, other.public_pem)]);
    nothing_ran(&vm);
}

/// To the minion the master says the same of a key that was rejected and of one that was denied (`salt/channel/server.py`, `_auth`), and with
/// `accept: none` there is nobody else to ask.
fn refused_and_nobody_to_ask(line: Line) {
    let mut vm = Vm::new(line, "refused-alone");
    key_placed(&vm, KeyState::Accepted);
    let ended = vm.set("accept", "none").run();
    ended.failed(41, "key-rejected", "connect").says("rejected there, or another key holds its id").hints("salt-key -l all");
    until(LONG, || (vm.own_key().0 == Some(KeyState::Denied)).then_some(())).unwrap();
    nothing_ran(&vm);
}

/// A busy 3008 that was just answering the minion writes its key down as pending after it was accepted. Here the lab writes it: a real
/// master does so once in some hundred bootstraps.
fn pending_once_more(line: Line) {
    let vm = Vm::new(line, "pending-again");
    let master = std::sync::Arc::clone(&vm.master);
    vm.gate.then("key.accept", move || {
        let (_, pem) = master.key_states("pending-again").remove(0);
        std::fs::remove_file(master.pki_dir().join("minions/pending-again")).unwrap();
        master.place_key("pending-again", KeyState::Pending, &pem).unwrap();
    });
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(ended.asked("key.accept") == 2, "accepted twice");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
}

fn start_fails(line: Line) {
    let mut vm = Vm::new(line, "start-fails");
    let ended = vm.program("echo no such luck >&2; exit 1").run();
    ended.failed(24, "local-system", "accept").says("minion-program");
    let told = ended.report["facts"].to_string() + &ended.report["message"].to_string();
    ended.expect(told.contains("no such luck"), "the program's own words");
    nothing_ran(&vm);
}

fn nothing_starts(line: Line) {
    let mut vm = Vm::new(line, "nothing-starts");
    let ended = vm.program("exit 0").deadline(15).run();
    ended.failed(40, "key-not-seen", "accept");
    // Nor is it said to run where the deadline comes before it can be told from one that is late.
    let ended = vm.next_stack().trusting().set("accept", "none").run();
    ended.failed(44, "minion-not-connected", "connect").says("salt-minion does not run");
    nothing_ran(&vm);
}

fn program_missing(line: Line) {
    let mut vm = Vm::new(line, "program-missing");
    let ended = vm.set("minion/program", "/nowhere/salt-minion").run();
    ended.failed(20, "package-failed", "install").says("/nowhere/salt-minion");
    nothing_ran(&vm);
}

/// No package has brought it, as where it was installed by pip. Asked as it likes to be asked best: by itself it starts a process to keep
/// alive, and does not end before that has slept for 5 s.
fn version_by_the_program(line: Line) {
    let mut vm = Vm::new(line, "version");
    let (program, asked) = (vm.path("salt-minion"), vm.path("asked"));
    let text = format!("#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n", asked.display(), vm.master.venv().program("salt-minion").display());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let ended = vm.set("minion/program", program.to_str().unwrap()).set("install/version", "9999").run();
    ended.failed(20, "package-failed", "install").says(&format!("is version {line}")).says("wanted is 9999");
    let asked = std::fs::read_to_string(asked).unwrap();
    assert!(asked.lines().all(|line| line == "--version --disable-keepalive"), "{asked}");
    nothing_ran(&vm);
}

/// The minion refuses this master, and is not made to think otherwise.
fn wrong_master_finger(line: Line) {
    let mut vm = Vm::new(line, "wrong-finger");
    let finger = vec!["ab"; 32].join(":");
    let ended = vm.set("minion/master_finger", finger.as_str()).run();
    ended.failed(43, "master-untrusted", "connect").hints("master_finger");
    assert_ne!(vm.own_key().0, None, "the minion knocked");
    nothing_ran(&vm);
    let alive = vm.master.local("wrong-finger", "test.ping", &[]).unwrap();
    assert_ne!(alive, json!(true), "it obeys a master whose fingerprint is wrong");
}

fn master_of_another_life(line: Line) {
    let vm = Vm::new(line, "another-life");
    let pki = vm.path("etc/salt/pki/minion");
    let other = new_key_pair(vm.master.venv()).unwrap().public_pem;
    std::fs::create_dir_all(&pki).unwrap();
    std::fs::write(pki.join("minion_master.pub"), &other).unwrap();
    let ended = vm.run();
    ended.failed(43, "master-untrusted", "configure").hints("minion_master.pub");
    assert!(vm.root.running_pids().is_empty());
    assert_eq!(vm.own_key(), (None, 0));
    assert_eq!(vm.text("etc/salt/pki/minion/minion_master.pub"), other, "it is not for us to remove");
    nothing_ran(&vm);
}

/// Salt takes what `key.accept` matches for a pattern.
fn id_as_pattern(line: Line) {
    for id in ["web-*", "web-?", "web-[12]", "web-1,web-2", "../web", "web 1"] {
        let mut vm = Vm::new(line, "id-as-pattern");
        vm.set("minion/id", id);
        let ended = vm.start(&["run"]).finish(&vm);
        ended.expect(ended.code == 10, "exit code 10");
        ended.says("minion.id").says("config.json");
        ended.expect(ended.requests.is_empty(), "salt-api was left alone");
        ended.expect(ended.signals.len() == 1 && ended.signals[0].status == "FAILURE", "Heat was told");
        ended.expect(ended.signals[0].reason.starts_with("config: "), "Heat knows why");
    }
}

/// Meanwhile the minion asks more and more rarely: after a master was rebuilt a whole fleet may wait like this for days.
fn accepted_by_someone_else(line: Line) {
    let mut vm = Vm::new(line, "by-someone-else");
    let started = vm.set("minion/config/log_level_logfile", "info").set("accept", "none").start(&["run"]);
    until(LONG, || (vm.own_key().0 == Some(KeyState::Pending)).then_some(())).unwrap();
    let rarely = || vm.root.minion_log().contains("Waiting 2 seconds before retry").then_some(());
    until(LONG, rarely).unwrap_or_else(|_| panic!("it goes on asking each second:\n{}", vm.root.minion_log()));
    let admin = vm.master.session("admin").unwrap();
    admin.wheel("key.accept", json!({"match": "by-someone-else"})).unwrap();
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.asked("key.accept") == 0, "it accepted nothing by itself");
}

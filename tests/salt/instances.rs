//! Whether this machine is the one that was bootstrapped, and whether its master still knows it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lab::keys::KeyState;
use lab::process::until;
use lab::venv::Line;
use serde_json::json;

use crate::OnEachLine;
use crate::fixture::{LONG, Vm};

pub const CASES: &[OnEachLine] = &[
    ("key_deleted", key_deleted),
    ("key_deleted_and_nobody_to_ask", key_deleted_and_nobody_to_ask),
    ("api_away_on_the_second_run", api_away_on_the_second_run),
    ("copy_of_a_disk", copy_of_a_disk),
    ("copy_of_the_same_name", copy_of_the_same_name),
    ("copy_that_keeps_its_key", copy_that_keeps_its_key),
    ("halves_of_two_pairs", halves_of_two_pairs),
    ("restart_due", restart_due),
    ("job_cache_is_private", job_cache_is_private),
];

const PRESENT: &str = "nothing had to change";

/// The old connection stands: Salt does not end it. A run that takes it for proof calls a minion good that gets no job any more.
fn key_deleted(line: Line) {
    let mut vm = Vm::new(line, "key-deleted");
    vm.states(&["append"]).run().done();
    vm.run().done().says(PRESENT);
    vm.master.remove_key("key-deleted").unwrap();
    let ended = vm.next_stack().run();
    ended.done().says("was applied before");
    ended.expect(ended.changed() == ["configure", "accept"], "the minion is restarted, and its key accepted");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    assert_eq!(vm.runs(), 1);
}

/// Without somebody who may ask, a new connection shows it.
fn key_deleted_and_nobody_to_ask(line: Line) {
    let mut vm = Vm::new(line, "nobody-to-ask");
    vm.set("accept", "none").states(&["append"]);
    let accepted_by_hand = |vm: &Vm| {
        until(LONG, || (vm.own_key().0 == Some(KeyState::Pending)).then_some(())).unwrap();
        vm.master.session("admin").unwrap().wheel("key.accept", json!({"match": "nobody-to-ask"})).unwrap();
    };
    let started = vm.start(&["run"]);
    accepted_by_hand(&vm);
    started.end(&vm).done();
    let again = vm.run();
    again.done().says(PRESENT);
    again.expect(again.requests.is_empty(), "salt-api was left alone");
    vm.master.remove_key("nobody-to-ask").unwrap();
    let started = vm.next_stack().deadline(120).start(&["run"]);
    started.await_word("starting over");
    // A person is waited for.
    started.await_word("still waiting: salt-minion has no connection");
    accepted_by_hand(&vm);
    let ended = started.end(&vm);
    ended.done().says("was applied before");
    assert_eq!(vm.runs(), 1);
}

fn api_away_on_the_second_run(line: Line) {
    let mut vm = Vm::new(line, "api-away");
    vm.run().done();
    let closed = lab::listen::ClosedPort::pick().unwrap();
    let ended = vm.set("api/url", format!("https://{}", closed.address())).next_stack().run();
    ended.done().says(PRESENT);
    ended.expect(ended.stderr.contains("salt-api cannot be asked"), "it says what it could not do");
}

fn copied(vm: &mut Vm) {
    vm.next_stack();
    let id = vm.path("etc/machine-id");
    fs::create_dir_all(id.parent().unwrap()).unwrap();
    fs::write(id, "ffffffffffffffffffffffffffffffff\n").unwrap();
}

fn original(line: Line, id: &str) -> Vm {
    let mut vm = Vm::new(line, id);
    fs::create_dir_all(vm.path("etc")).unwrap();
    fs::write(vm.path("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    vm.states(&["append"]).run().done();
    assert_eq!(vm.report()["instance_id"], "0123456789abcdef0123456789abcdef");
    vm
}

/// Another machine with a copy of the disk: it must not sign with the original's key, whatever it is called.
fn copy_of_a_disk(line: Line) {
    let mut vm = original(line, "original");
    let first = (vm.report(), vm.text("etc/salt/pki/minion/minion.pem"));
    copied(&mut vm);
    let refused = |vm: &Vm, verb: &str| {
        let ended = vm.agent(&[verb]);
        ended.expect(ended.code == 24 && ended.stderr.contains("copy of 0123456789abcdef"), "it says whose disk it was");
    };
    refused(&vm, "apply");
    refused(&vm, "deregister");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1), "the original keeps its key on the master");
    // As a machine whose name is the host's.
    let ended = vm.next_stack().set("minion/id", "copy").run();
    ended.states(2, 0);
    ended.expect(ended.code == 0 && ended.signals.len() == 1 && ended.signals[0].status == "SUCCESS", "Heat was told");
    ended.expect(ended.report["bootstrap_id"] != first.0["bootstrap_id"], "another bootstrap");
    assert_ne!(vm.text("etc/salt/pki/minion/minion.pem"), first.1);
    assert_eq!(vm.runs(), 2);
    assert_eq!(vm.master.key_states("copy").len(), 1);
    assert_eq!(vm.master.key_states("original").len(), 1, "the original keeps its own");
}

/// Another machine with a copy of the disk, and under the original's name: its own key is another one, and the master holds the original's.
fn copy_of_the_same_name(line: Line) {
    let mut vm = original(line, "same-name");
    let key = vm.own_key();
    let first = vm.text("etc/salt/pki/minion/minion.pub");
    assert_eq!(key, (Some(KeyState::Accepted), 1));
    copied(&mut vm);
    vm.run().failed(42, "key-conflict", "accept").says("another key is accepted under the id same-name").hints("another minion.id");
    let token = vm.master.token("same-name", &["--states", "append"]).unwrap();
    vm.enrolling(&token).next_stack();
    vm.run().failed(42, "key-conflict", "enroll").hints("salt-key -d");
    assert_ne!(vm.text("etc/salt/pki/minion/minion.pub"), first);
    let keys = vm.master.key_states("same-name");
    assert!(
        keys.iter().any(|(state, pem)| (*state, pem.trim()) == (KeyState::Accepted, first.trim())),
        "the original keeps its own: {keys:?}"
    );
    assert_eq!(vm.runs(), 1);
}

fn copy_that_keeps_its_key(line: Line) {
    let mut vm = original(line, "kept-key");
    let key = vm.text("etc/salt/pki/minion/minion.pem");
    copied(&mut vm);
    let ended = vm.set("minion/keep_key", true).run();
    ended.done().states(2, 0);
    ended.expect(ended.changed() == ["states"], "the states run on this instance too");
    assert_eq!(vm.text("etc/salt/pki/minion/minion.pem"), key);
    assert_eq!(vm.runs(), 2);
}

/// Salt shows the public half and signs with the private one.
fn halves_of_two_pairs(line: Line) {
    let vm = Vm::new(line, "two-halves");
    let pki = vm.path("etc/salt/pki/minion");
    fs::create_dir_all(&pki).unwrap();
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl").args(arguments).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        made.stdout
    };
    let half = |name: &str| {
        let private = openssl(&["genrsa", "2048"]);
        let path = vm.path(name);
        fs::write(&path, &private).unwrap();
        (private, openssl(&["rsa", "-in", path.to_str().unwrap(), "-pubout"]))
    };
    let ((ours, right), (_, wrong)) = (half("ours.pem"), half("other.pem"));
    fs::write(pki.join("minion.pem"), &ours).unwrap();
    fs::set_permissions(pki.join("minion.pem"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::write(pki.join("minion.pub"), wrong).unwrap();
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(ended.stderr.contains("was not the public half"), "it says so");
    let [private, public] = ["minion.pem", "minion.pub"].map(|name| fs::read(pki.join(name)).unwrap());
    assert_eq!((private, public.trim_ascii_end()), (ours, right.trim_ascii_end()));
}

/// Whatever job comes later is cached with the pillar that it was given.
fn job_cache_is_private(line: Line) {
    let vm = Vm::new(line, "private-cache");
    let cache = vm.path("var/cache/salt/minion/minion_jobs");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).unwrap();
    vm.run().done();
    let asked = || Some(vm.master.local(vm.root.id(), "test.ping", &[]).unwrap()).filter(|said| *said == true);
    until(LONG, asked).unwrap();
    until(LONG, || fs::read_dir(&cache).ok()?.next().map(|_| ())).expect("the job is cached");
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
}

/// A run was killed between the new configuration and the restart: whoever sees the old process connected has seen nothing yet.
fn restart_due(line: Line) {
    let mut vm = Vm::new(line, "restart-due");
    vm.joined();
    let minion = vm.root.pid_file();
    // What such a run leaves.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let debt = vm.path("var/lib/heat-salt-bootstrap/restart-due");
    fs::write(&debt, format!("{} {:.0}", boot.trim(), uptime * 1000.0)).unwrap();
    for verb in ["accept", "apply"] {
        let ended = vm.agent(&[verb]);
        ended.expect(ended.code == 0 && ended.stderr.contains("older configuration"), "it says so");
        assert!(debt.exists(), "{verb}: the old process pays nothing");
    }
    assert_eq!(vm.root.pid_file(), minion);
    let ended = vm.next_stack().run();
    ended.done();
    ended.expect(ended.changed() == ["configure"], "the minion is restarted");
    assert!(!debt.exists() && vm.root.pid_file() != minion);
}

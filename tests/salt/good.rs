//! Bootstraps that end well.

use lab::keys::KeyState;
use lab::process::until;
use lab::venv::Line;
use serde_json::json;

use crate::OnEachLine;
use crate::fixture::{LONG, Vm, alone};

pub const CASES: &[OnEachLine] = &[
    ("one_state", one_state),
    ("two_states", two_states),
    ("pillar", pillar),
    ("shipped_reactor", shipped_reactor),
    ("few_requests", few_requests),
    ("second_run", second_run),
    ("renamed", renamed),
    ("link_by_link", link_by_link),
    ("two_at_once", two_at_once),
    ("password_in_a_file", password_in_a_file),
    ("grains", grains),
    ("first_use", first_use),
    ("odd_values_and_foreign_files", odd_values_and_foreign_files),
];

fn one_state(line: Line) {
    let vm = Vm::new(line, "one-state");
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(ended.report["minion_id"] == "one-state", "the id in the report");
    ended.expect(ended.changed() == ["configure", "accept", "states"], "three changes");
    assert_eq!(vm.text("ok.out").trim(), "hello one-state nobody");
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    let status = vm.agent(&["status"]);
    for word in ["DONE", "one-state", "2 ran, 0 failed", "login", "Heat: told"] {
        status.expect(status.code == 0 && status.stdout.contains(word), word);
    }
    let status = vm.agent(&["status", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(shown, vm.report());
}

/// What was believed without a proof is told in so many words, with the fingerprint, so that somebody can compare it.
fn first_use(line: Line) {
    let mut vm = Vm::new(line, "first-use");
    let ended = vm.set("minion/trust_on_first_use", true).run();
    ended.done().states(2, 0);
    ended.expect(ended.asked("key.finger_master") == 0, "nobody asked for the master");
    let finger = vm.master.public_key_finger().unwrap();
    ended.expect(ended.report["facts"]["trusted_on_first_use"] == finger, "the report says who was believed");
    ended.expect(ended.stderr.contains("the first master that answered is trusted") && ended.stderr.contains(&finger), "so does the log");
}

fn two_states(line: Line) {
    let mut vm = Vm::new(line, "two-states");
    let ended = vm.states(&["ok", "second"]).run();
    ended.done().states(4, 0);
    ended.expect(ended.report["states"]["changed"] == 2, "two states with changes");
    assert_eq!(vm.text("ok.out").trim(), "hello two-states nobody");
}

fn pillar(line: Line) {
    let mut vm = Vm::new(line, "pillar");
    vm.set("apply/pillar", json!({"who": "world", "database": {"password": "Pillar-Secret"}}));
    vm.secrets.push("Pillar-Secret".to_owned());
    // The classic reactor passes no pillar on.
    vm.shipped().run().done();
    assert_eq!(vm.text("ok.out").trim(), "hello pillar world");
}

fn shipped_reactor(line: Line) {
    let mut vm = Vm::new(line, "shipped");
    vm.shipped().run().done().states(2, 0);
    assert_eq!(vm.text("ok.out").trim(), "hello shipped nobody");
}

/// Counted by salt-api itself, with nothing in between.
fn few_requests(line: Line) {
    alone(line, |private| {
        let master = &private.master;
        let mut vm = Vm::on(master, "few-requests");
        vm.set("api/url", master.api_url());
        let mark = master.mark();
        vm.run().done();
        let mut requests = master.api_requests_since(mark);
        // While a minion has not yet asked to be let in, the keys are looked at again and again.
        requests.dedup();
        assert!(requests.len() <= 8, "{requests:?}");
        assert_eq!(requests.first().unwrap(), "POST /login");
        assert_eq!(requests.last().unwrap(), "POST /logout");
        let logins = requests.iter().filter(|one| *one == "POST /login");
        assert_eq!(logins.count(), 1);
    });
}

/// The same machine under another id is another minion, whose key has to be accepted and whose states run.
fn renamed(line: Line) {
    let id = "renamed-to";
    let mut vm = Vm::new(line, "renamed");
    vm.master.forget(id).unwrap();
    vm.run().done();
    let ended = vm.set("minion/id", id).run();
    ended.done().states(2, 0);
    ended.expect(ended.changed() == ["configure", "accept", "states"], "configured, accepted and applied anew");
    assert_eq!(vm.text("ok.out").lines().last(), Some("hello renamed-to nobody"));
    assert_eq!(vm.master.key_states(id).first().map(|(state, _)| *state), Some(KeyState::Accepted));
    vm.run().done().says("nothing had to change");
}

/// One root from here to there: a run after a run, after a change of what is asked for, and by order.
fn second_run(line: Line) {
    let mut vm = Vm::new(line, "second-run");
    vm.states(&["append"]).run().done();
    let first = vm.report();
    let minion = vm.root.pid_file();
    assert!(minion.is_some(), "the minion runs");

    let again = vm.run();
    again.done().says("nothing had to change").states(2, 0);
    again.expect(again.changed().is_empty(), "no step that changed anything");
    again.expect(again.requests == ["POST /login", "key.print", "POST /logout"], "the master was asked whether it accepts this minion");
    again.expect(again.report["bootstrap_id"] == first["bootstrap_id"], "the same bootstrap");
    assert_eq!(vm.runs(), 1);

    vm.agent(&["run", "--again"]).done().states(2, 0);
    assert_eq!(vm.runs(), 2);
    assert_ne!(vm.report()["bootstrap_id"], first["bootstrap_id"]);

    let changed = vm.states(&["append", "second"]).run();
    changed.done().states(4, 0);
    changed.expect(changed.changed() == ["states"], "only the states changed");
    assert_eq!(vm.runs(), 3);
    assert_eq!(vm.root.pid_file(), minion, "the minion was restarted");

    vm.set("minion/config/mine_interval", 61);
    let reconfigured = vm.run();
    reconfigured.done();
    reconfigured.expect(reconfigured.changed() == ["configure"], "the minion was configured anew");
    assert_eq!(vm.runs(), 3, "the states hold as before");
    assert_ne!(vm.root.pid_file(), minion, "the minion still runs as before");
}

fn link_by_link(line: Line) {
    let mut vm = Vm::new(line, "link-by-link");
    let installed = vm.agent(&["install"]);
    installed.expect(installed.code == 0 && installed.signals.is_empty(), "quietly installed");
    installed.expect(installed.asked("key.accept") == 0, "the key is another link's affair");
    assert!(!vm.root.running_pids().is_empty());

    vm.joined();
    assert_eq!(vm.own_key(), (Some(KeyState::Accepted), 1));
    assert!(!vm.path("ok.out").exists());

    let applied = vm.agent(&["apply"]);
    applied.done().states(2, 0);
    applied.expect(applied.asked("key.accept") == 0, "the key was accepted before");
    assert_eq!(vm.text("ok.out").trim(), "hello link-by-link nobody");
    let run = vm.agent(&["run", "--json"]);
    run.done().says("nothing had to change");
    let printed: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(printed, run.report);
}

fn two_at_once(line: Line) {
    let mut vm = Vm::new(line, "two-at-once");
    vm.states(&["append"]).lingering(2);
    vm.root.write_config(&vm.config).unwrap();
    let mut told = 0;
    // The first pair does the work, and the others find it done and end at the same moment.
    for _ in 0..8 {
        let both = [vm.start_as_is(&["run"]), vm.start_as_is(&["run"])];
        for started in both {
            let ended = started.finish(&vm);
            ended.expect(ended.code == 0 && ended.report["verdict"] == "done", "exit code 0");
            told += 1;
        }
    }
    assert_eq!(vm.runs(), 1);
    let signals = vm.heat.signals();
    assert_eq!(signals.iter().filter(|one| one.status == "SUCCESS").count(), told);
    assert_eq!(signals.len(), told);
}

fn password_in_a_file(line: Line) {
    let mut vm = Vm::new(line, "password-file");
    let (_, password) = vm.master.credentials("boot");
    vm.set("api/password", "not-the-Secret");
    let file = vm.root.write_config(&vm.config).unwrap().with_file_name("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    vm.secrets.push(password);
    // Paths are those of the root, and flags beat files.
    let flag = ["run", "--password-file", "/etc/heat-salt-bootstrap/password"];
    vm.agent(&flag).done();
}

/// What the minion answers; a master gives null where one was too slow.
fn asked(vm: &Vm, fun: &str, what: &str) -> serde_json::Value {
    let answer = || Some(vm.master.local(vm.root.id(), fun, &[what]).unwrap()).filter(|answer| !answer.is_null());
    until(LONG, answer).unwrap()
}

/// Salt overlooks grains in minion.d where there is no /etc/salt/minion.
fn grains(line: Line) {
    let mut vm = Vm::new(line, "grains");
    vm.set("minion/grains", json!({"roles": ["web", "db"], "rack": 7}));
    vm.run().done();
    let ask = |name: &str| asked(&vm, "grains.get", name);
    assert_eq!((ask("roles"), ask("rack")), (json!(["web", "db"]), json!(7)));
}

/// What would be something else in YAML arrives as it is, and what others wrote stays.
fn odd_values_and_foreign_files(line: Line) {
    let mut vm = Vm::new(line, "odd-values");
    let odd = json!({
        "texts": ["yes", "null", "~", "1e3", "012", "0x10", "1:30", "2001-01-01", "", " ", "a: b", "- a", "# c", "a #b", "{{ x }}", "%a", "@b", "`c`", "*d", "&e",
            "!f", "|", ">", "'", "\"", "\\", "\\n", "two\nlines\n", "tab\there", "\u{85}\u{2028}\u{feff}", "ünïcödé", "\u{1f600}", "=", "<<", "...", "---"],
        "yes": true, "no": "no", "null": null, "1": 1, "float": 1.5, "large": 1e21, "small": -0.000001, "big": 9007199254740993_u64,
        "empty": [{}, []], "with: colon": "x", "ü": "y",
    });
    vm.set("minion/config/lab_odd", odd.clone());
    vm.set("minion/grains", json!({"lab_grain": odd, "roles": ["web"]}));
    let foreign =
        [("etc/salt/minion", "# by hand\nmine_interval: 67\n"), ("etc/salt/minion.d/10-other.conf", "log_level: info  # by others\r\n")];
    std::fs::create_dir_all(vm.path("etc/salt/minion.d")).unwrap();
    for (path, text) in foreign {
        std::fs::write(vm.path(path), text).unwrap();
    }
    vm.run().done();
    for (path, text) in foreign {
        assert_eq!(vm.text(path), text, "{path} was touched");
    }
    let ask = |fun: &str, what: &str| asked(&vm, fun, what);
    assert_eq!(ask("config.get", "lab_odd"), odd);
    assert_eq!(ask("grains.item", "lab_grain")["lab_grain"], odd);
    assert_eq!(ask("grains.get", "roles"), json!(["web"]));
    assert_eq!(ask("config.get", "mine_interval"), json!(67));
    assert_eq!(ask("config.get", "log_level"), json!("info"));
}

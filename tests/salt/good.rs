//! Bootstraps that end well.

use lab::keys::KeyState;
use lab::venv::Line;
use serde_json::json;

use crate::Case;
use crate::fixture::{Vm, alone};

pub const CASES: &[Case] = &[
    ("one_state", one_state),
    ("two_states", two_states),
    ("pillar", pillar),
    ("shipped_reactor", shipped_reactor),
    ("few_requests", few_requests),
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

fn two_states(line: Line) {
    let mut vm = Vm::new(line, "two-states");
    let ended = vm.states(&["ok", "second"]).run();
    ended.done().states(4, 0);
    ended.expect(ended.report["states"]["changed"] == 2, "two states with changes");
    assert_eq!(vm.text("ok.out").trim(), "hello two-states nobody");
}

fn pillar(line: Line) {
    let mut vm = Vm::new(line, "pillar");
    vm.set("apply/pillar", json!({"who": "world"}));
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
        let requests = master.api_requests_since(mark);
        assert!(requests.len() <= 8, "{requests:?}");
        assert_eq!(requests.first().unwrap(), "POST /login");
        assert_eq!(requests.last().unwrap(), "POST /logout");
        let logins = requests.iter().filter(|one| *one == "POST /login");
        assert_eq!(logins.count(), 1);
    });
}

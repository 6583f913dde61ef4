//! A machine's life: a bootstrap is killed, or the machine rebooted, at each point at which it can wait for something, and goes on. A real
//! systemd, a real package manager, a real minion, a real master; Heat is the stand-in, and what a run waits for is a gate of the test's.

use std::time::Duration;

use lab::harness::Case;
use lab::heat::StandIn;
use lab::keys::KeyState;
use lab::master::Master;
use lab::minion::{Root, enrolling};
use lab::process::until;
use lab::site::{Gate, On, Site, Told};
use lab::venv::Line;
use lab::vm::{self, Mirror, Vm, file};
use serde_json::{Value, json};

use crate::boot::{VERSION, become_instance};
use crate::case_of;

const LONG: Duration = Duration::from_secs(60);
const UNIT: &str = "heat-salt-bootstrap.service";

pub fn all() -> Vec<Case> {
    // A machine that boots and shuts down mostly waits.
    vec![
        case_of("life::rebooted_at_each_point", rebooted_at_each_point).light(),
        case_of("life::killed_at_each_point", killed_at_each_point).light(),
        case_of("life::killed_without_a_unit", killed_without_a_unit).light(),
    ]
}

type World = Site<StandIn>;

/// A machine that has this program, and its configuration. It joins by a token that is good for one use.
fn world(vm: Vm) -> World {
    let world = Site::new(Master::start(Line::Lts3008).unwrap(), StandIn::start().unwrap(), Mirror::start(None), vm);
    let (master, vm) = (&world.master, &world.vm);
    let mut config = Root::new(master, "vm-1").unwrap().base_config(Some(&world.heat));
    let key = String::from_utf8(file("key.asc")).unwrap();
    config["install"] = json!({"version": "3008.5", "repository": {"url": world.mirror.url("rpm/good"), "gpg_key": key}});
    config["minion"]["start"] = json!("auto");
    config["minion"].as_object_mut().unwrap().remove("program");
    config["apply"] = json!({"states": ["held"]});
    config["deadline"] = json!("10m");
    enrolling(&mut config, master, &master.service_url(), &master.token("vm-1", &["--states", "held"]).unwrap());
    vm.write_config(&config);
    become_instance(vm, "i-1");
    world
}

/// By the package's unit. Each time all of it is killed at once, guardian and all; Heat is told which step it was, each start goes on where
/// the one before was ended, and at last the states hold: they ran once, of one token's one use.
fn killed_at_each_point() {
    let world = world(Vm::carrying("el", "rpm", VERSION));
    let points = [
        (Gate::KeyPair, "keys"),
        (Gate::Service, "enroll"),
        (Gate::Repository, "install"),
        (Gate::Scriptlet, "install"),
        (Gate::Start, "connect"),
        (Gate::Master, "connect"),
        (Gate::Service, "states"),
        (Gate::States, "states"),
    ];
    world.boot(On::Bare, |keyboard| {
        let reaches = |gate: Gate, step: &str| world.reaches(gate, &json!(step));
        for gate in points.iter().map(|(gate, _)| *gate).filter(|gate| ![Gate::Service, Gate::Master].contains(gate)) {
            world.set(gate, true);
        }
        for (number, (gate, step)) in points.into_iter().enumerate() {
            let before = number.checked_sub(1).map(|before| points[before].0);
            let starts = || keyboard.types(&format!("systemctl start --no-block {UNIT}"));
            if (gate, before) == (Gate::Service, Some(Gate::Master)) {
                // The service is asked before the master is met, too.
                starts();
                reaches(Gate::Master, "connect");
            }
            world.set(gate, true);
            if let Some(before) = before {
                world.set(before, false);
            }
            if before != Some(Gate::Master) {
                starts();
            }
            reaches(gate, step);
            keyboard.types(&format!("systemctl kill --kill-who=all --signal=KILL {UNIT}"));
            let ended = keyboard.awaits_end();
            assert!(ended.contains("Result=signal"), "{gate:?}: {ended}");
            let heard = world.heat.heard();
            assert_eq!(heard.len(), number + 1, "{gate:?}: {ended} {heard:#?}");
            assert_eq!(heard[number].0, "FAILURE", "{gate:?}: {heard:#?}");
            assert!(heard[number].1.contains(&format!("killed during step {step}")), "{gate:?}: {}", heard[number].1);
        }
        world.set(Gate::States, false);
        keyboard.types(&format!("systemctl start {UNIT}"));
        let ended = keyboard.awaits_end();
        assert!(ended.contains("Result=success"), "{ended}");
    });
    let heard = world.heat.heard();
    assert_eq!((heard.len(), heard[points.len()].0.as_str()), (points.len() + 1, "SUCCESS"), "{heard:#?}");
    assert_eq!(world.vm.text("runs.out"), "run\n");
    assert_eq!(world.master.key_states("vm-1").len(), 1);
    assert_eq!(world.master.key_states("vm-1")[0].0, KeyState::Accepted);
}

/// No package of ours, as after fetch.sh: what the run itself writes goes on with it at each boot. Heat is told once, and the truth.
fn rebooted_at_each_point() {
    let world = world(Vm::new("el", &json!({})));
    let units = world.vm.path("etc/systemd/system");
    vm::UNITS.iter().for_each(|unit| world.vm.story_wants(unit));
    let points = [
        (Gate::Service, json!("enroll")),
        (Gate::Repository, json!("install")),
        (Gate::Master, json!("connect")),
        (Gate::States, json!("states")),
        (Gate::Heat, Value::Null),
    ];
    for (number, (gate, step)) in points.iter().enumerate() {
        world.set(*gate, true);
        if let Some(before) = number.checked_sub(1) {
            world.set(points[before].0, false);
        }
        world.boot(On::Bare, |keyboard| {
            if number == 0 {
                keyboard.types("heat-salt-bootstrap run >/opt/first.out 2>&1 &");
            }
            world.reaches(*gate, step);
            keyboard.reboots();
        });
        assert_eq!(world.heat.heard(), [], "{gate:?}: a reboot is no end");
    }
    world.set(Gate::Heat, false);
    world.boot(On::Bare, |keyboard| {
        let told = || (!world.heat.heard().is_empty()).then_some(());
        until(LONG, told).expect("Heat is told");
        keyboard.awaits_end();
    });
    let heard = world.heat.heard();
    assert_eq!((heard.len(), heard[0].0.as_str()), (1, "SUCCESS"), "{heard:#?}");
    // The reboot ended the first one, and nobody knows whether it held.
    assert_eq!(world.vm.text("runs.out"), "run\nrun\n");
    assert_eq!(world.master.key_states("vm-1").len(), 1);
    for unit in vm::UNITS {
        assert!(!units.join("multi-user.target.wants").join(unit).is_symlink() && !units.join(unit).exists(), "{unit} is left");
    }
}

/// Started by a person, or by a script of cloud-init's, on a machine without a package of ours: systemd itself has somebody who is left, of all
/// that belongs to the script's service, and of everything that has this program's name.
fn killed_without_a_unit() {
    let world = world(Vm::new("el", &json!({})));
    world.set(Gate::Service, true);
    world.set(Gate::States, false);
    let watched = "until [ \"$(pgrep -c -x heat-salt-boots)\" = 3 ]; do sleep 0.1; done";
    let left = "while pgrep -x heat-salt-boots >/opt/none; do sleep 0.1; done
        ls /etc/systemd/system /etc/systemd/system/*.wants /run/systemd/system | grep heat-salt-bootstrap
        systemctl list-units --no-legend 'heat-salt-bootstrap*'
        ls /var/lib/heat-salt-bootstrap/progress 2>/opt/none";
    world.boot(On::Bare, |keyboard| {
        for (number, (starts, kills)) in [
            ("systemd-run --quiet --unit=script heat-salt-bootstrap run", "systemctl kill --kill-who=all --signal=KILL script.service"),
            ("heat-salt-bootstrap run >/opt/second.out 2>&1 &", "pkill -KILL -x heat-salt-boots"),
        ]
        .into_iter()
        .enumerate()
        {
            keyboard.types(starts);
            world.reaches(Gate::Service, &json!("enroll"));
            keyboard.types(&format!("{watched}; {kills}"));
            until(LONG, || (world.heat.heard().len() > number).then_some(())).expect("Heat is told");
            assert_eq!(keyboard.types(left), "", "{kills}");
            let heard = world.heat.heard();
            assert_eq!((heard.len(), heard[number].0.as_str()), (number + 1, "FAILURE"), "{kills}: {heard:#?}");
            assert!(heard[number].1.contains("killed during step enroll"), "{kills}: {}", heard[number].1);
        }
        world.set(Gate::Service, false);
        let run = keyboard.types("heat-salt-bootstrap run 2>&1");
        assert_eq!(keyboard.types(left), "", "{run}");
        let heard = world.heat.heard();
        assert_eq!((heard.len(), heard[2].0.as_str()), (3, "SUCCESS"), "{heard:#?} {run}");
        // While it tells Heat, what it was about to tell is told in its place.
        world.set(Gate::Heat, true);
        keyboard.types("heat-salt-bootstrap run >/opt/fourth.out 2>&1 &");
        world.reaches(Gate::Heat, &Value::Null);
        // What it keeps is there before it asks: a gate that is opened by then stops nobody.
        let asks = || world.heat.requests().last().is_some_and(|last| last.answered.is_none()).then_some(());
        until(LONG, asks).expect("it tells Heat");
        world.set(Gate::Heat, false);
        keyboard.types(&format!("{watched}; pkill -KILL -x heat-salt-boots"));
        until(LONG, || (world.heat.heard().len() > 3).then_some(())).expect("Heat is told");
        assert_eq!(keyboard.types(left), "");
        let heard = world.heat.heard();
        assert_eq!((heard.len(), heard[3].0.as_str()), (4, "SUCCESS"), "{heard:#?}");
    });
    assert_eq!(world.vm.text("runs.out"), "run\n");
}

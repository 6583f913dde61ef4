//! From a bare machine to applied states: a real systemd, a real package manager, a real minion and a real master.

use lab::heat::StandIn;
use lab::master::Master;
use lab::minion::Root;
use lab::venv::Line;
use serde_json::{Value, json};

use crate::Case;
use lab::vm::{Mirror, Vm, file};

pub fn all() -> Vec<Case> {
    vec![
        ("boot::dnf".to_owned(), Box::new(|| bare_to_applied(Line::Lts3008, "el", "rpm", "3008.5"))),
        ("boot::apt".to_owned(), Box::new(|| bare_to_applied(Line::Lts3006, "bookworm", "deb", "3006.27"))),
    ]
}

fn bare_to_applied(line: Line, root: &str, format: &str, version: &str) {
    let (master, heat, mirror) = (Master::start(line).unwrap(), StandIn::start().unwrap(), Mirror::start(None));
    let key = String::from_utf8(file("key.asc")).unwrap();
    let mut config = Root::new(&master, "vm-1").unwrap().base_config(Some(&heat));
    let url = mirror.url(&format!("{format}/good"));
    config["install"] = json!({"version": version, "repository": {"url": url, "gpg_key": key}});
    config["minion"]["start"] = json!("auto");
    config["minion"].as_object_mut().unwrap().remove("program");
    let vm = Vm::new(root, &json!({}));
    vm.write_config(&config);
    let console = vm.boot(
        "cd /opt
        for turn in first second; do
            heat-salt-bootstrap run >$turn.out 2>&1
            echo $? >$turn.code
            cp /var/lib/heat-salt-bootstrap/report.json $turn.report
            { systemctl is-enabled salt-minion; systemctl is-active salt-minion; systemctl show -p MainPID --value salt-minion; } >$turn.service
        done
        systemctl show -p NRestarts --value salt-minion >restarts
        systemctl stop salt-minion",
    );
    let seen = format!("{}{}\n{console}", vm.text("opt/first.out"), vm.text("opt/second.out"));
    for turn in ["first", "second"] {
        assert_eq!(vm.text(&format!("opt/{turn}.code")).trim(), "0", "{turn}: {seen}");
        assert!(vm.text(&format!("opt/{turn}.service")).starts_with("enabled\nactive\n"), "{turn}: {seen}");
    }
    let changed = |turn: &str| -> Vec<String> {
        let report: Value = serde_json::from_str(&vm.text(&format!("opt/{turn}.report"))).unwrap_or_default();
        let steps = report["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().filter(|step| step["changed"] == true).filter_map(|step| step["name"].as_str().map(str::to_owned)).collect()
    };
    let first = changed("first");
    for step in ["install", "accept", "states"] {
        assert!(first.iter().any(|one| one == step), "{step} in {first:?}: {seen}");
    }
    assert_eq!(changed("second"), Vec::<String>::new(), "{seen}");
    // The package of Debian starts the minion by itself: it was not started again for the sake of its configuration.
    assert_eq!(vm.text("opt/first.service"), vm.text("opt/second.service"), "{seen}");
    assert_eq!(vm.version(), version, "{seen}");
    assert_eq!(heat.signals().len(), 2, "{seen}");
}

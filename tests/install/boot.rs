//! From a bare machine to applied states: a real systemd, a real package manager, a real minion and a real master.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use lab::harness::Case;
use lab::heat::StandIn;
use lab::master::Master;
use lab::minion::Root;
use lab::schema;
use lab::venv::Line;
use serde_json::{Value, json};

use crate::case_of;
use lab::vm::{self, Mirror, Vm, file};

/// Of the packages that are installed.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn all() -> Vec<Case> {
    vec![
        // These mostly wait.
        case_of("boot::unit_of_the_rpm", unit_of_the_rpm).light(),
        case_of("boot::rebooted_by_a_state", rebooted_by_a_state).light(),
        case_of("boot::unit_beside_cloud_init", unit_beside_cloud_init).light(),
        case_of("boot::dnf", || bare_to_applied(Line::Lts3008, "el", "rpm", "3008.5")),
        case_of("boot::apt", || bare_to_applied(Line::Lts3006, "bookworm", "deb", "3006.27")),
        case_of("boot::start_hangs", start_hangs),
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
    // Only what is installed says where this minion's cache is: nobody could have looked it up before.
    if format == "deb" {
        let brings = "DPkg::Pre-Invoke {\"mkdir -p /etc/salt/minion.d && echo cachedir: /srv/cache >/etc/salt/minion.d/site.conf\";};\n";
        fs::write(vm.path("etc/apt/apt.conf.d/99site"), brings).unwrap();
    }
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
        let report = schema::report(&vm.text(&format!("opt/{turn}.report")));
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
    // What the states returned has been read, and is no more in the minion's cache, wherever that is.
    let cache = vm.path(if format == "deb" { "srv/cache" } else { "var/cache/salt/minion" });
    let jobs = fs::read_dir(cache.join("minion_jobs")).unwrap_or_else(|error| panic!("{}: {error}: {seen}", cache.display()));
    let jobs: Vec<_> = jobs.map(|job| job.unwrap().file_name()).collect();
    assert_eq!(jobs, Vec::<std::ffi::OsString>::new(), "{seen}");
}

/// A unit that never says that it is ready, under a systemd that waits for ever, and under one that gives it up. What hangs is a script in the
/// minion's place.
fn start_hangs() {
    let heat = StandIn::start().unwrap();
    let vm = Vm::new("bookworm", &json!({"source": "preinstalled"}));
    let minion = vm.path("usr/bin/salt-minion");
    fs::write(&minion, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&minion, fs::Permissions::from_mode(0o755)).unwrap();
    let unit = |timeout: &str| {
        let text = format!(
            "[Service]\nType=notify\nExecStart=/usr/bin/salt-minion\nTimeoutStartSec={timeout}\n[Install]\nWantedBy=multi-user.target\n"
        );
        fs::write(vm.path("etc/systemd/system/salt-minion.service"), text).unwrap();
    };
    vm.set("/signal", heat.handle());
    vm.set("/minion/start", json!("systemd"));
    for (timeout, deadline, says) in [
        ("infinity", "15s", "`systemctl restart salt-minion.service` had not ended after "),
        ("3", "60s", "`systemctl restart salt-minion.service` exited with 1 after "),
    ] {
        unit(timeout);
        vm.set("/deadline", json!(deadline));
        let told = heat.signals().len();
        let console = vm.boot("heat-salt-bootstrap run >/opt/out 2>&1; echo $? >/opt/code; systemctl kill --signal=KILL salt-minion");
        let report = schema::report(&vm.text("var/lib/heat-salt-bootstrap/report.json"));
        let seen = format!("{}{report:#}\n{console}", vm.text("opt/out"));
        assert_eq!(
            (vm.text("opt/code").trim(), &report["reason"], &report["step"]),
            ("24", &json!("local-system"), &json!("connect")),
            "{seen}"
        );
        let message = report["message"].as_str().unwrap();
        assert!(message.starts_with(says), "{seen}");
        assert!(timeout == "infinity" || message.contains("a timeout was exceeded"), "{seen}");
        assert!(report["hint"].as_str().is_some_and(|hint| hint.contains("journalctl -u salt-minion")), "{seen}");
        let signals = heat.signals().split_off(told);
        assert!(signals.len() == 1 && signals[0].status == "FAILURE" && signals[0].reason.contains(says), "{seen}");
    }
}

/// What such a machine is told, by whatever writes its configuration.
fn told(master: &Master, heat: &StandIn, install: &Value) -> Value {
    let mut config = Root::new(master, "vm-1").unwrap().base_config(Some(heat));
    config["install"] = install.clone();
    config["minion"]["start"] = json!("auto");
    config["minion"].as_object_mut().unwrap().remove("program");
    config
}

/// What cloud-init leaves of an instance.
pub fn become_instance(vm: &Vm, id: &str) {
    let cloud = vm.path("var/lib/cloud");
    fs::create_dir_all(cloud.join("instances").join(id)).unwrap();
    fs::create_dir_all(cloud.join("data")).unwrap();
    fs::write(cloud.join("data/instance-id"), id).unwrap();
    let link = cloud.join("instance");
    if link.is_symlink() {
        fs::remove_file(&link).unwrap();
    }
    symlink(format!("instances/{id}"), link).unwrap();
}

/// Waits, within one boot, for what the unit does, and writes down what came of it; with `WAITS` for the other unit too, which else may
/// try for a minute more what the run has tried in vain.
const WAIT_FOR_UNIT: &str = "
    while [ \"$(systemctl is-active heat-salt-bootstrap.service)\" = activating ]; do sleep 0.2; done
    while [ -n \"$WAITS\" ] && [ \"$(systemctl is-active heat-salt-bootstrap-signal.service)\" = activating ]; do sleep 0.2; done
    systemctl show -p ConditionResult,Result,ExecMainStatus heat-salt-bootstrap.service >/opt/unit
    systemctl show -p ConditionResult,Result,ExecMainStatus heat-salt-bootstrap-signal.service >/opt/signal-unit
    journalctl --boot --no-pager --unit heat-salt-bootstrap --unit heat-salt-bootstrap-signal >/opt/journal";
/// Waits until the states run.
const WAIT_FOR_STATES: &str =
    "until grep -q '\"step\":\"states\"' /var/lib/heat-salt-bootstrap/progress 2>/dev/null; do sleep 0.1; done; sleep 1";

/// Without the power-off that otherwise follows a story.
const REBOOT: &str = "
    mkdir -p /run/systemd/system/story.service.d
    printf '[Service]\\nExecStopPost=\\n' >/run/systemd/system/story.service.d/reboot.conf
    systemctl daemon-reload
    systemctl --no-block reboot
    sleep 100";

/// No package of ours: the run itself arranges for the next boot, and a state reboots the machine twice. It is one bootstrap in one time, Heat
/// hears of its end, and nothing of what was arranged is left.
fn rebooted_by_a_state() {
    let (master, heat, mirror) = (Master::start(Line::Lts3008).unwrap(), StandIn::start().unwrap(), Mirror::start(None));
    let key = String::from_utf8(file("key.asc")).unwrap();
    let mut config = told(&master, &heat, &json!({"version": "3008.5", "repository": {"url": mirror.url("rpm/good"), "gpg_key": key}}));
    config["apply"] = json!({"hook": "states/shipped", "states": ["reboots"], "pillar": {"reboots": 2}});
    config["deadline"] = json!("10m");
    let vm = Vm::new("el", &json!({}));
    fs::remove_file(vm.path("etc/heat-salt-bootstrap/config.json")).unwrap();
    become_instance(&vm, "i-1");
    fs::write(vm.path("opt/config.json"), config.to_string()).unwrap();
    let unit = |target: &str, name: &str| vm.path(&format!("etc/systemd/system/{target}{name}.service"));
    let story = |what: &str| {
        format!(
            "mkdir -p /run/systemd/system/story.service.d
            printf '[Service]\\nExecStopPost=\\n' >/run/systemd/system/story.service.d/reboot.conf
            systemctl daemon-reload
            {what}"
        )
    };
    // A path that is relative, and a flag, have to be the same at the next boot.
    let console = vm
        .boot(&story("cd /opt; heat-salt-bootstrap run --config config.json -v >first.out 2>&1; sleep 30; systemctl --no-block poweroff"));
    let seen = |console: &str| format!("{}{}{console}", vm.text("opt/first.out"), vm.text("var/log/heat-salt-bootstrap.log"));
    let report = || schema::report(&vm.text("var/lib/heat-salt-bootstrap/report.json"));
    assert_eq!(report()["code"], 61, "{}", seen(&console));
    assert_eq!(heat.signals(), [], "a reboot is no end: {}", seen(&console));
    let bootstrap = report()["bootstrap_id"].clone();
    for name in ["heat-salt-bootstrap", "heat-salt-bootstrap-signal"] {
        assert!(unit("multi-user.target.wants/", name).is_symlink() && unit("", name).exists(), "{name}: {}", seen(&console));
        vm.story_wants(&format!("{name}.service"));
    }
    let console = vm.boot(&story("sleep 60; systemctl --no-block poweroff"));
    assert_eq!((vm.text("reboots").as_str(), heat.signals().len()), ("once\nonce\n", 0), "{}", seen(&console));
    assert_eq!(report()["code"], 61, "{}", seen(&console));

    let console = vm.boot(WAIT_FOR_UNIT);
    assert_eq!((&report()["code"], &report()["bootstrap_id"]), (&json!(0), &bootstrap), "{}", seen(&console));
    assert_eq!(vm.text("runs.out"), "run\n", "{}", seen(&console));
    assert_eq!((heat.signals().len(), heat.signals()[0].status.as_str()), (1, "SUCCESS"), "{}", seen(&console));
    for name in ["heat-salt-bootstrap", "heat-salt-bootstrap-signal"] {
        assert!(!unit("multi-user.target.wants/", name).is_symlink() && !unit("", name).exists(), "{name} is left: {}", seen(&console));
    }
}

/// A machine of an image that carries the RPM, over six boots: with nothing configured, cut off by a reboot, gone on with while Heat does
/// not answer, not repeated but told, killed with all its processes as another instance, and gone on with again.
fn unit_of_the_rpm() {
    let (master, heat, mirror) = (Master::start(Line::Lts3008).unwrap(), StandIn::start().unwrap(), Mirror::start(None));
    let vm = Vm::carrying("el", "rpm", VERSION);
    // What is booted here is not multi-user.target but a smaller one.
    let wants = |target: &str| vm.path("etc/systemd/system").join(format!("{target}.target.wants"));
    fs::create_dir_all(wants("story")).unwrap();
    for unit in vm::UNITS {
        fs::rename(wants("multi-user").join(unit), wants("story").join(unit)).unwrap();
    }

    // Nothing is configured yet.
    become_instance(&vm, "i-1");
    vm.boot(WAIT_FOR_UNIT);
    assert!(vm.text("opt/unit").contains("ConditionResult=no"), "{}", vm.text("opt/unit"));

    let key = String::from_utf8(file("key.asc")).unwrap();
    let install = json!({"version": "3008.5", "repository": {"url": mirror.url("rpm/good"), "gpg_key": key}});
    let mut config = told(&master, &heat, &install);
    config["apply"] = json!({"hook": "states/shipped", "states": ["slow"], "pillar": {"sleep": 5}});
    // Of the first run: what is left of it counts after the reboot.
    config["deadline"] = json!("80s");
    // The other instance has the same name, and the master would take no other key for it.
    config["minion"]["keep_key"] = json!(true);
    vm.write_config(&config);
    let seen = |console: &str| {
        format!("{}{}{}{console}", vm.text("opt/unit"), vm.text("opt/signal-unit"), vm.text("var/log/heat-salt-bootstrap.log"))
    };
    let report = || schema::report(&vm.text("var/lib/heat-salt-bootstrap/report.json"));
    // For `make demo-rpm`: what a person would read in the log of each boot.
    let mut read = 0;
    let mut show = |what: &str| {
        let log = vm.text("var/log/heat-salt-bootstrap.log");
        if std::env::var_os("HSB_SHOW").is_some() {
            println!("\n== {what}");
            log[read..].lines().filter(|line| !line.contains(" debug ")).for_each(|line| println!("{line}"));
        }
        read = log.len();
    };
    let mark = |id: &str| vm.path(&format!("var/lib/cloud/instances/{id}/heat-salt-bootstrap.done"));

    let console = vm.boot(&format!("{WAIT_FOR_STATES}\n{REBOOT}"));
    show("First boot: rebooted while the states run");
    assert_eq!(report()["code"], 61, "{}", seen(&console));
    assert_eq!(heat.signals(), [], "a reboot is no end: {}", seen(&console));
    assert!(!mark("i-1").exists(), "{}", seen(&console));

    heat.set_down(true);
    let console = vm.boot(WAIT_FOR_UNIT);
    show("Second boot: it goes on; Heat does not answer");
    assert!(vm.text("opt/unit").contains("ExecMainStatus=70\n"), "{}", seen(&console));
    assert!(mark("i-1").exists() && vm.path("var/lib/heat-salt-bootstrap/signal.json").exists(), "{}", seen(&console));
    heat.set_down(false);

    let console = vm.boot(&format!("WAITS=yes{WAIT_FOR_UNIT}"));
    show("Third boot: not repeated; Heat is told");
    assert!(vm.text("opt/unit").contains("ConditionResult=no"), "it is done in this instance: {}", seen(&console));
    assert!(vm.text("opt/signal-unit").contains("Result=success"), "{}", seen(&console));
    let heard = |n: usize| heat.signals().get(n).map(|signal| (signal.status.clone(), signal.reason.clone())).unwrap_or_default();
    assert_eq!((heat.signals().len(), heard(0).0.as_str()), (1, "SUCCESS"), "{}", seen(&console));
    assert!(!vm.path("var/lib/heat-salt-bootstrap/signal.json").exists(), "{}", seen(&console));

    become_instance(&vm, "i-2");
    let console =
        vm.boot(&format!("{WAIT_FOR_STATES}\nsystemctl kill --kill-who=all --signal=KILL heat-salt-bootstrap.service\n{WAIT_FOR_UNIT}"));
    show("Fourth boot, as another instance: killed, with its guardian, while the states run");
    assert_eq!((heat.signals().len(), heard(1).0.as_str()), (2, "FAILURE"), "{}", seen(&console));
    assert!(heard(1).1.contains("killed during step states"), "{}", heard(1).1);
    assert!(vm.text("opt/unit").contains("Result=signal"), "{}", seen(&console));
    assert!(!mark("i-2").exists(), "{}", seen(&console));

    // Whoever asks for help sends the journal of both units, without what it tells.
    let service = vm.path("etc/systemd/system/salt-minion.service.d");
    fs::create_dir_all(&service).unwrap();
    fs::write(service.join("indiscreet.conf"), "[Service]\nExecStartPre=/bin/echo the password: Planted-in-Journal stays here\n").unwrap();
    let console = vm.boot(&format!(
        "{WAIT_FOR_UNIT}
        journalctl --boot --no-pager --unit salt-minion >/opt/journal-of-the-minion
        heat-salt-bootstrap support /opt/support.tar.gz >/opt/support.out 2>&1 && tar -C /opt -xzf /opt/support.tar.gz"
    ));
    show("Fifth boot: it goes on");
    assert!(vm.text("opt/unit").contains("Result=success"), "{}", seen(&console));
    assert_eq!((heat.signals().len(), heard(2).0.as_str()), (3, "SUCCESS"), "{}", seen(&console));
    assert!(mark("i-2").exists(), "{}", seen(&console));

    let planted = "Planted-in-Journal";
    assert!(vm.text("opt/journal-of-the-minion").contains(planted), "{console}");
    let sent = |name: &str| vm.text(&format!("opt/support/{name}"));
    let collected = vm.text("opt/support.out");
    for (name, part) in [
        ("journalctl-salt-minion", "the password: *** stays here"),
        ("journalctl-heat-salt-bootstrap", "vm-1 applied slow"),
        ("systemctl-heat-salt-bootstrap", "heat-salt-bootstrap.service"),
        ("salt-minion", "salt-minion 3008.5"),
    ] {
        assert!(sent(name).contains(part), "{part} in {name}: {:?}\n{collected}{console}", sent(name));
        assert!(!sent(name).contains(planted), "{name}: {}", sent(name));
        assert!(collected.contains(&format!("\n  {name} ")), "{collected}");
    }
}

/// cloud-init writes the configuration, and the unit finds it at the same boot; a script of cloud-init's final stage may start the unit and
/// wait for it. A clone is another instance, and bootstraps anew.
fn unit_beside_cloud_init() {
    let (master, heat, mirror) = (Master::start(Line::Lts3006).unwrap(), StandIn::start().unwrap(), Mirror::start(None));
    let key = String::from_utf8(file("key.asc")).unwrap();
    let install = json!({"version": "3006.27", "repository": {"url": mirror.url("deb/good"), "gpg_key": key}});
    let vm = Vm::carrying("cloud", "deb", VERSION);
    let mut config = told(&master, &heat, &install);
    config["minion"]["keep_key"] = json!(true);
    let write = json!([{
        "path": "/etc/heat-salt-bootstrap/config.d/10-heat.json",
        "permissions": "0600",
        "content": config.to_string(),
    }]);
    let script = "systemctl show -p ActiveState --value heat-salt-bootstrap >/opt/met; systemctl start heat-salt-bootstrap; \
        systemctl show -p ActiveState --value heat-salt-bootstrap >/opt/left";
    // JSON is YAML.
    let user_data = format!("#cloud-config\n{}\n", json!({"write_files": write, "runcmd": [script]}));
    let seen = |console: &str| format!("{}{}{console}", vm.text("opt/unit"), vm.text("var/log/heat-salt-bootstrap.log"));
    for boots in 1..=2 {
        let console = vm.boot_with("web-1", &user_data, WAIT_FOR_UNIT);
        assert!(vm.text("opt/unit").contains("Result=success"), "{}", seen(&console));
        // Whether the script met the unit at work or after it depends on who was faster; it never runs a second time.
        let statuses: Vec<String> = heat.signals().into_iter().map(|signal| signal.status).collect();
        assert!(statuses.len() == boots && statuses.iter().all(|status| status == "SUCCESS"), "{statuses:?} {}", seen(&console));
        assert_ne!(vm.text("opt/met"), "", "{}", seen(&console));
        assert_eq!(vm.text("opt/left"), "inactive\n", "it was waited for: {}", seen(&console));
        let instances = fs::read_dir(vm.path("var/lib/cloud/instances")).unwrap().map(Result::unwrap);
        let marks = instances.filter(|instance| instance.path().join("heat-salt-bootstrap.done").exists()).count();
        assert_eq!(marks, boots, "{}", seen(&console));
        for evidence in ["opt/unit", "opt/met", "opt/left"] {
            fs::remove_file(vm.path(evidence)).unwrap();
        }
        assert_eq!(vm.version(), "3006.27", "{}", seen(&console));
    }
}

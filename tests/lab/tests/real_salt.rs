//! That the lab's masters and minions do what the tests of the product take for granted, on both lines of Salt.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::keys::{KeyState, finger, new_key_pair};
use lab::master::{Master, MasterOptions};
use lab::minion::Root;
use lab::pam::SystemUser;
use lab::process::until;
use lab::venv::{Line, salt};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_minion_of_3006_goes_from_pending_to_applied() {
    from_pending_to_applied(Line::Lts3006);
}

#[test]
fn a_minion_of_3008_goes_from_pending_to_applied() {
    from_pending_to_applied(Line::Lts3008);
}

/// The example that is shipped for a master, for both families of systems and with what a hook may bring as pillar.
#[test]
fn the_shipped_state_renders() {
    for line in Line::ALL {
        let venv = salt(line).unwrap();
        let root = tempfile::tempdir().unwrap();
        let states = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud-init/salt-master/states").canonicalize().unwrap();
        let shown = |family: &str, pillar: Value| -> Value {
            let minion = json!({"root_dir": root.path(), "file_client": "local", "file_roots": {"base": [states]}, "grains": {"os_family": family},
                "pki_dir": "/pki", "cachedir": "/cache", "sock_dir": "/run", "log_file": "/log"});
            fs::write(root.path().join("minion"), minion.to_string()).unwrap();
            let mut command = std::process::Command::new(venv.program("salt-call"));
            command.arg("-c").arg(root.path()).args([
                "--local",
                "--out=json",
                "--retcode-passthrough",
                "state.show_low_sls",
                "memcached_v14",
            ]);
            command.arg(format!("pillar={pillar}"));
            let finished = lab::process::run(&mut command, LONG).unwrap();
            assert_eq!(finished.code, 0, "{}{}", finished.stdout, finished.stderr);
            serde_json::from_str::<Value>(&finished.stdout).unwrap()["local"].take()
        };
        let debian = shown("Debian", json!({}));
        let functions: Vec<String> = debian
            .as_array()
            .unwrap()
            .iter()
            .map(|low| format!("{}.{}", low["state"].as_str().unwrap(), low["fun"].as_str().unwrap()))
            .collect();
        assert_eq!(functions, ["pkg.installed", "file.managed", "service.running"], "{debian}");
        let file = |lows: &Value| lows.as_array().unwrap().iter().find(|low| low["state"] == "file").unwrap().clone();
        assert_eq!(file(&debian)["name"], "/etc/memcached.conf");
        assert_eq!(file(&debian)["contents"][2], "-m 64");
        let redhat = file(&shown("RedHat", json!({"memcached": {"memory": 256, "listen": "10.0.0.1\"\n- x: y"}})));
        assert_eq!(redhat["name"], "/etc/sysconfig/memcached");
        assert_eq!(redhat["contents"][3], "CACHESIZE=\"256\"");
        // Whatever comes as pillar stays a text.
        assert_eq!(redhat["contents"][4], "OPTIONS=\"-l 10.0.0.1\"\n- x: y\"");
    }
}

fn from_pending_to_applied(line: Line) {
    let clock = Clock::new(line);
    let user = SystemUser::create().unwrap();
    let mut options = MasterOptions::new(line);
    options.pam_user = Some(user.name().to_owned());
    let reactor = Path::new(env!("CARGO_MANIFEST_DIR")).join("reactor/classic.sls");
    options.hooks.insert("lab/extra".to_owned(), reactor);
    let master = Master::start_with(options).unwrap();
    clock.tell("master and API ready");

    let root = Root::new(&master, "w1").unwrap();
    root.start_minion(&json!({"acceptance_wait_time": 1, "cache_jobs": true})).unwrap();
    clock.tell("minion started");
    assert!(root.running_pids().contains(&root.pid_file().unwrap()));
    // Salt makes the file before it fills it.
    let (state, pem) = until(LONG, || master.key_states("w1").pop().filter(|(_, pem)| pem.contains("-----END"))).unwrap();
    clock.tell("key pending");
    assert_eq!(state, KeyState::Pending);

    let boot = master.session("boot").unwrap();
    let printed = boot.wheel("key.print", json!({"match": "w1"})).unwrap();
    assert_eq!(printed["minions_pre"]["w1"].as_str().unwrap().trim(), pem.trim());
    let own = boot.wheel("key.finger_master", json!({})).unwrap();
    assert_eq!(own["local"]["master.pub"], master.public_key_finger().unwrap());
    // 3008 hashes a minion's whole PEM here, where the minion itself hashes only its body.
    let fingers = boot.wheel("key.finger", json!({"match": "w1"})).unwrap();
    assert_eq!(fingers["minions_pre"]["w1"] == finger(&pem), line == Line::Lts3006, "{fingers}");

    let mark = master.mark();
    assert_eq!(boot.wheel("key.accept", json!({"match": "w1"})).unwrap(), json!({"minions": ["w1"]}));
    assert_eq!(master.api_requests_since(mark), ["POST /"]);
    until(LONG, || (master.local("w1", "test.ping", &[]).ok()? == Value::Bool(true)).then_some(())).unwrap();
    clock.tell("accepted and answering");

    for hook in ["states/state", "lab/extra"] {
        let asked = json!({"tgt": "w1", "matcher": "list", "args": "ok,second"});
        boot.hook(hook, &asked).unwrap();
        let ok = root.path().join("ok.out");
        // Salt makes the file before it fills it.
        let written = until(LONG, || fs::read_to_string(&ok).ok().filter(|text| !text.is_empty())).unwrap();
        clock.tell("state applied");
        assert_eq!(written.trim(), "hello w1 nobody");
        // Otherwise the next run refuses with "state.sls is running".
        until(LONG, || master.local("w1", "state.running", &[]).ok().filter(|list| *list == json!([]))).unwrap();
        fs::remove_file(ok).unwrap();
    }

    let key = new_key_pair(master.venv()).unwrap();
    master.place_key("w2", KeyState::Rejected, &key.public_pem).unwrap();
    let printed = boot.wheel("key.print", json!({"match": "w2"})).unwrap();
    assert_eq!(finger(printed["minions_rejected"]["w2"].as_str().unwrap()), finger(&key.public_pem));
    master.remove_key("w2").unwrap();
    assert!(master.key_states("w2").is_empty());

    for (user, allowed) in [("noperm", false), ("onlyaccept", false), ("nofinger", true), ("bootfinger", false)] {
        let session = master.session(user).unwrap();
        assert_eq!(session.wheel("key.print", json!({"match": "w1"})).is_ok(), allowed, "{user} and key.print");
    }
    master.api().unwrap().login(user.name(), user.password(), "pam").unwrap();
    clock.tell("accounts checked");

    master.restart_api().unwrap();
    assert!(boot.wheel("key.print", json!({"match": "w1"})).is_err(), "a session outlived its salt-api");
    clock.tell("API restarted");
    let pid = master.master_pid().unwrap();
    master.stop_master();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    clock.tell("master stopped");
    master.start_master().unwrap();
    clock.tell("master started again");

    root.stop_minion();
    assert!(root.running_pids().is_empty());
    clock.tell("minion stopped");
    let dir = root.path().parent().unwrap().to_owned();
    drop(root);
    drop(master);
    clock.tell("all gone");
    assert!(!dir.exists());
}

struct Clock {
    line: Line,
    started: Instant,
}

impl Clock {
    fn new(line: Line) -> Clock {
        Clock { line, started: Instant::now() }
    }

    fn tell(&self, what: &str) {
        println!("{} {:6.2} s {what}", self.line, self.started.elapsed().as_secs_f64());
    }
}

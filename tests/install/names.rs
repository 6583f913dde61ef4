//! The static program looks up names wherever it may run: where the C library would load modules for that, and where there is nothing
//! but the program.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lab::harness::Case;
use lab::heat::StandIn;
use lab::http::{Answer, Request};
use lab::island::{Island, Question, Says};
use lab::peer::{Certificate, Scripted};
use lab::process::run;
use lab::sandbox::Sandbox;
use lab::tls::Authority;
use lab::vm::{Vm, agent};
use serde_json::{Value, json};

use crate::case_of;

const ROOTS: [&str; 4] = ["bullseye", "bookworm", "trixie", "el"];
/// The modules, and the lines of nsswitch.conf that have to name them.
const MODULES: [(&str, &str); 4] = [("myhostname", "hosts"), ("resolve", "hosts"), ("systemd", "passwd"), ("sss", "passwd")];

pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = ROOTS.iter().map(|&root| case_of(format!("names::{root}"), move || modules(root))).collect();
    cases.push(case_of("names::empty", empty));
    cases.push(case_of("names::ipv6_refused", || one_answer(Says::Refused)));
    cases.push(case_of("names::ipv6_failing", || one_answer(Says::Failed)));
    // It waits out a minute; `names a_network_that_comes_late_is_waited_for` shows the same in less.
    cases.push(case_of("names::silent_for_a_minute", silent_for_a_minute).light().repeats());
    cases
}

/// Nothing is installed, so the run fails at once; what counts is that Heat hears of it.
fn config(heat: &StandIn, host: &str) -> Value {
    json!({
        "minion": {"id": "web-1", "master": "127.0.0.1", "trust_on_first_use": true, "program": "no-such-program"},
        "install": {"source": "preinstalled"},
        "accept": "none",
        "signal": {"endpoint": heat.endpoint().replace("127.0.0.1", host), "token": heat.token()},
        "deadline": "5s",
    })
}

fn modules(root: &str) {
    let heat = StandIn::start().unwrap();
    let vm = Vm::new(root, &Value::Null);
    let switch = vm.text("etc/nsswitch.conf");
    for (module, database) in MODULES {
        let named =
            switch.lines().any(|line| line.starts_with(&format!("{database}:")) && line.split_whitespace().any(|word| word == module));
        assert!(named, "{root}: {module} is not in nsswitch.conf: {switch}");
        let there = vm.sh(&format!("ls /lib/*/libnss_{module}.so.2 /usr/lib/*/libnss_{module}.so.2"));
        assert!(there.stdout.contains(module), "{root}: {}", there.stderr);
    }
    assert_eq!(vm.sh("echo 127.0.0.1 heat.lab >>/etc/hosts").code, 0);
    for (number, host) in ["localhost", "heat.lab"].into_iter().enumerate() {
        vm.write_config(&config(&heat, host));
        let ended = vm.sh("heat-salt-bootstrap --version && heat-salt-bootstrap run");
        assert_eq!(ended.code, 20, "{root}, {host}: {}", ended.stderr);
        assert_eq!(heat.signals().len(), number + 1, "{root}, {host}: {}", ended.stderr);
    }
    vm.write_config(&config(&heat, "nowhere.invalid"));
    let ended = vm.sh("heat-salt-bootstrap run");
    assert_eq!(ended.code, 20, "{root}: {}", ended.stderr);
    assert!(ended.stderr.contains("the name nowhere.invalid does not resolve"), "{root}: {}", ended.stderr);
}

/// No /proc either: then there is no second process to watch the one that works.
fn empty() {
    let heat = StandIn::start().unwrap();
    let machine = Sandbox::configured(agent(), &config(&heat, "127.0.0.1"));
    fs::copy(agent(), machine.path("agent")).unwrap();
    let ended = run(Command::new("chroot").arg(machine.root()).args(["/agent", "run"]), Duration::from_secs(30)).unwrap();
    assert_eq!(ended.code, 20, "{}", ended.stderr);
    assert_eq!(heat.signals().len(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot start a second process"), "{}", ended.stderr);
}

/// A name server that answers the question for IPv4 addresses well, and the one for IPv6 like this: it is no real one.
fn one_answer(to_ipv6: Says) {
    let heat = StandIn::start().unwrap();
    let machine = Sandbox::configured(agent(), &config(&heat, "heat.test"));
    let resolv_conf = machine.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    let island = Island::new().unwrap();
    island.sh(&format!("mount --bind '{}' /etc/resolv.conf", resolv_conf.display())).unwrap();
    let address = heat.endpoint().split('/').nth(2).unwrap().parse().unwrap();
    island.let_through(address, address).unwrap();
    island.name_server([127, 0, 0, 1], move |question| if question == Question::Ipv4 { Says::Known } else { to_ipv6 }).unwrap();
    let mut command = machine.command_by(&island.prefix(), &["run"]);
    let ended = run(&mut command, Duration::from_secs(60)).unwrap();
    assert_eq!((ended.code, heat.signals().len()), (20, 1), "{}", ended.stderr);
}

/// A name server that says nothing until a minute after it was first asked: the run goes on from there, and Heat is told once. salt-api is a
/// stand-in that lets nobody in, by which it shows that it was reached.
fn silent_for_a_minute() {
    let authority = Authority::new().unwrap();
    let refusal = |_: &Request| Answer::cherrypy_error(401, "Could not authenticate using provided credentials");
    let peer = Scripted::start(&authority, Certificate::Good, refusal).unwrap();
    let heat = StandIn::start().unwrap();
    let machine = Sandbox::configured(
        agent(),
        &json!({
            "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["ab"; 32].join(":"), "program": "/bin/true"},
            "install": {"source": "preinstalled"},
            "api": {"url": format!("https://salt.test:{}", peer.address().port()), "ca": authority.ca_pem(), "username": "u", "password": "p"},
            "signal": {"endpoint": heat.endpoint().replace("127.0.0.1", "heat.test"), "token": heat.token()},
            "deadline": "10m",
        }),
    );
    let resolv_conf = machine.write("resolv.conf", "nameserver 127.0.0.1\n");
    let island = Island::new().unwrap();
    island.sh(&format!("mount --bind '{}' /etc/resolv.conf", resolv_conf.display())).unwrap();
    let told = heat.endpoint().split('/').nth(2).unwrap().parse().unwrap();
    for address in [peer.address(), told] {
        island.let_through(address, address).unwrap();
    }
    let first = OnceLock::new();
    let silent = move || first.get_or_init(Instant::now).elapsed() < Duration::from_secs(60);
    island.name_server([127, 0, 0, 1], move |_| if silent() { Says::Nothing } else { Says::Known }).unwrap();
    let mut command = machine.command_by(&island.prefix(), &["run", "-v"]);
    let ended = run(&mut command, Duration::from_secs(300)).unwrap();
    assert_eq!((ended.code, heat.signals().len()), (32, 1), "{}", ended.stderr);
    assert!(ended.stderr.contains("the name salt.test does not resolve; trying again") && ended.seconds >= 60.0, "{}", ended.stderr);
}

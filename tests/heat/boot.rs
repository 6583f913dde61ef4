//! The whole way: the shipped template in a real Heat, its user_data in a real cloud-init on a machine that boots, a real package
//! manager, a real Salt master, and the stack's end with the report in its outputs. Only Nova is not there: the machine is booted here.

use std::fs;
use std::path::Path;

use lab::http::{Answer, Server};
use lab::master::Master;
use lab::minion::Root;
use lab::proxy::Proxy;
use lab::site::{On, Site};
use lab::tls::{Authority, Validity};
use lab::venv::Line;
use lab::vm::{Mirror, Vm, agent, file};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::afterwards::{Leaves, is_deleted, is_rebuilt_and_refused, is_rebuilt_and_taken, is_stopped_and_started};
use crate::fixture::{assert_complete, assert_failed, named, shared};
use crate::life::{Live, disk};
use crate::templates::{beside, booted, parameters, shipped};

pub const CASES: &[(&str, fn())] = &[
    ("boot::server_complete", || complete("server.yaml", "boot-server", Line::Lts3006, By::Token)),
    ("boot::multipart_complete", || complete("multipart.yaml", "boot-multipart", Line::Lts3008, By::Wheel)),
    ("boot::image_failed", image_failed),
    ("boot::nothing_to_fetch", nothing_to_fetch),
];

/// Too slow for every day: a computer is emulated. `make vm` runs it and keeps what its console shows.
pub const SLOW: &[(&str, fn())] = &[("vm::server_complete", emulated)];

/// What stands outside the machine.
pub struct World {
    pub master: Master,
    pub mirror: Mirror,
    /// The program is fetched from here.
    pub program: Server,
    authority: Authority,
    line: Line,
}

/// How the key gets accepted.
#[derive(Clone, Copy)]
pub enum By {
    Token,
    Wheel,
}

impl World {
    pub fn new(line: Line) -> World {
        let authority = Authority::new().unwrap();
        let tls = authority.issue(&["127.0.0.1"], Validity::Current).unwrap().server_config().unwrap();
        let program = Server::start(Some(tls), |request| match request.path.as_str() {
            "/heat-salt-bootstrap" => Answer::Reply { status: 200, headers: Vec::new(), body: fs::read(agent()).unwrap() },
            _ => Answer::text(404, "text/plain", "not here"),
        });
        World { master: Master::start(line).unwrap(), mirror: Mirror::start(None), program: program.unwrap(), authority, line }
    }

    /// A token of an id that may be rebuilt once, and whose key goes with it.
    pub fn tenant(&self, id: &str, states: &str) -> String {
        self.master.token(id, &["--states", states, "--pin", "key", "--rebuild", "--deregister", "--uses", "2"]).unwrap()
    }

    /// What is given to the template: a token and where it is good; without one, a user who may accept keys.
    pub fn parameters(&self, template: &str, states: &str, by: By) -> Value {
        let token = match by {
            By::Token => self.master.token("*", &["--states", states, "--pin", "key"]).unwrap(),
            By::Wheel => String::new(),
        };
        let (username, password) = self.master.credentials("boot");
        let root = Root::new(&self.master, "unused").unwrap();
        let config = root.base_config(None);
        let mut all = parameters(template);
        let sha256: String = digest(&SHA256, &fs::read(agent()).unwrap()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let version = match self.line {
            Line::Lts3006 => "3006",
            Line::Lts3008 => "3008",
        };
        let key = String::from_utf8(file("key.asc")).unwrap();
        let given = json!({
            "agent_url": format!("{}/heat-salt-bootstrap", self.program.url()),
            "agent_sha256": sha256,
            "ca": format!("{}\n{}", self.authority.ca_pem(), config["api"]["ca"].as_str().unwrap()),
            "salt_master": config["minion"]["master"],
            "minion_config": config["minion"]["config"],
            "salt_enroll_url": self.master.service_url(),
            "salt_master_finger": "",
            "salt_token": token,
            "salt_api_url": config["api"]["url"],
            "salt_api_username": username,
            "salt_api_eauth": config["api"]["eauth"],
            "salt_api_password": password,
            "salt_install": {"version": version, "repository": {"url": self.mirror.url("deb/good"), "gpg_key": key}},
            "salt_states": states,
            "salt_pillar": {},
            "timeout": 300,
        });
        for (key, value) in given.as_object().unwrap() {
            if !key.starts_with("agent_") || all.contains_key(key) {
                all.insert(key.clone(), value.clone());
            }
        }
        all.into()
    }
}

/// Boots a machine with the user_data that Heat rendered; returns it with what it left to read.
fn boot(server: &Path, prepare: impl FnOnce(&Vm)) -> (Vm, String) {
    let vm = Vm::new("cloud", &json!({}));
    fs::remove_dir_all(vm.path("etc/heat-salt-bootstrap")).unwrap();
    prepare(&vm);
    let name = server.file_name().unwrap().to_string_lossy().into_owned();
    let user_data = fs::read_to_string(server.join("user_data")).unwrap();
    let console = vm.boot_with(
        &name,
        &user_data,
        "cloud-init status --long >/opt/cloud-init
        systemctl is-enabled salt-minion >/opt/minion; systemctl is-active salt-minion >>/opt/minion
        systemctl stop salt-minion",
    );
    let seen = format!("{console}\n{}\n{}", vm.text("opt/cloud-init"), vm.text("var/log/cloud-init-output.log"));
    (vm, seen)
}

fn complete(template: &str, name: &str, line: Line, by: By) {
    let world = World::new(line);
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped(template);
    let mut parameters = world.parameters(&text, "ok", by);
    let name = named(name);
    let leaves = match by {
        By::Token => {
            parameters["salt_token"] = world.tenant(&name, "ok").into();
            parameters["deregister"] = true.into();
            Leaves::WhenGone
        }
        By::Wheel => Leaves::Never,
    };
    let stack = heat.stack_of(&name, &text, &beside(), parameters.clone()).unwrap();
    // The program is fetched.
    let (vm, seen) = boot(&booted(heat, &name, 1)[0], |vm| fs::remove_file(vm.path("usr/bin/heat-salt-bootstrap")).unwrap());
    assert!(vm.path("usr/local/bin/heat-salt-bootstrap").exists(), "{seen}");
    assert_eq!(vm.text("opt/minion"), "enabled\nactive\n", "{seen}");
    assert!(vm.text("opt/cloud-init").contains("status: done"), "{seen}");
    let (status, reason) = stack.status().unwrap();
    assert_ne!(status, "CREATE_FAILED", "{reason}\n{seen}");
    assert_complete(&stack);
    let report: Value = serde_json::from_str(stack.output("report").unwrap().as_str().unwrap()).unwrap();
    let report = &report[&name];
    assert_eq!((&report["verdict"], &report["states"]["total"], &report["minion_id"]), (&json!("done"), &json!(2), &json!(name)), "{seen}");
    // What was secret in user_data is shown nowhere.
    for secret in ["salt_api_password", "salt_token"] {
        let secret = parameters[secret].as_str().unwrap();
        assert!(secret.is_empty() || !seen.contains(secret));
    }

    let World { master, mirror, program: _program, .. } = world;
    let mut site = Site::new(master, Live::new(heat, &stack, "handle"), mirror, vm);
    is_stopped_and_started(&site, &name, On::Again, leaves);
    match by {
        By::Token => is_rebuilt_and_taken(&mut site, &name, disk(true), On::Again, 1, |_| ()),
        By::Wheel => is_rebuilt_and_refused(&mut site, &name, disk(true), On::Again, "key-conflict: "),
    }
    is_deleted(site, &stack, &name, leaves);
}

/// The failing twin, from an image that carries the program.
fn image_failed() {
    let world = World::new(Line::Lts3006);
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("image.yaml");
    let name = named("boot-image");
    let stack = heat.stack_of(&name, &text, &[], world.parameters(&text, "fail", By::Token)).unwrap();
    let (_vm, seen) = boot(&booted(heat, &name, 1)[0], |_| ());
    let reason = assert_failed(&stack);
    assert!(reason.contains("bad (fail): the database is not there"), "{reason}\n{seen}");
    assert!(reason.contains("resources.condition: state-failed: "), "{reason}");
}

/// fetch.sh itself says so, by HEAT_SIGNAL, and the stack fails for that reason.
fn nothing_to_fetch() {
    let world = World::new(Line::Lts3006);
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("server.yaml");
    let mut parameters = world.parameters(&text, "ok", By::Token);
    parameters["agent_url"] = format!("{}/gone", world.program.url()).into();
    let name = named("boot-nothing");
    let stack = heat.stack_of(&name, &text, &beside(), parameters).unwrap();
    let (_vm, seen) = boot(&booted(heat, &name, 1)[0], |vm| fs::remove_file(vm.path("usr/bin/heat-salt-bootstrap")).unwrap());
    let reason = assert_failed(&stack);
    assert!(
        reason.contains("repository-unreachable: ") && reason.contains("404") && reason.ends_with("(step fetch, code 21)"),
        "{reason}\n{seen}"
    );
}

fn emulated() {
    let world = World::new(Line::Lts3006);
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("server.yaml");
    let mut parameters = world.parameters(&text, "ok", By::Token);
    parameters["timeout"] = 1800.into();
    let name = named("vm-server");
    let stack = heat.stack_of(&name, &text, &beside(), parameters).unwrap();
    let vm = Vm::new("qemu", &json!({}));
    fs::remove_dir_all(vm.path("etc/heat-salt-bootstrap")).unwrap();
    fs::remove_file(vm.path("usr/bin/heat-salt-bootstrap")).unwrap();
    // Of this machine the emulated one reaches 127.0.0.1 only.
    let wire = Proxy::start(heat.api_url().trim_start_matches("http://").parse().unwrap()).unwrap();
    let user_data = fs::read_to_string(booted(heat, &name, 1)[0].join("user_data")).unwrap();
    let user_data = user_data.replace(heat.api_url(), &format!("http://{}", wire.address()));
    let console =
        vm.emulate(&name, &user_data, "/usr/local/bin/heat-salt-bootstrap status >/dev/console; cloud-init status --long >/dev/console");
    let kept = std::env::var_os("HSB_CONSOLE").map_or_else(|| "console.log".into(), std::path::PathBuf::from);
    fs::write(&kept, &console).unwrap();
    let (status, reason) = stack.status().unwrap();
    let tail = console.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    assert_ne!(status, "CREATE_FAILED", "{reason}\n{tail}");
    assert!(console.contains("Linux version") && console.contains(&format!("DONE  {name}")), "{tail}");
    assert_complete(&stack);
    let report: Value = serde_json::from_str(stack.output("report").unwrap().as_str().unwrap()).unwrap();
    assert_eq!(report[&name]["states"]["total"], 2);
    eprintln!(
        "the machine took {:.0} s from its start of the program to the end; its console is in {}",
        report[&name]["seconds"].as_f64().unwrap(),
        kept.display()
    );
}

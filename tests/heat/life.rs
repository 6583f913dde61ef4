//! A machine's life as a real Heat hears of it: a run is killed with all that belongs to it, or its machine rebooted, by each way of starting,
//! and the stack's events say what was told, and how often. The points are spread over the ways; all of them by one way, against a stand-in for
//! Heat, are tried by `tests/install/life.rs`. A real systemd, cloud-init, package manager, minion and master.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use lab::harness::Case;
use lab::http::Server;
use lab::openstack::{Heat, Stack, condition};
use lab::process::until;
use lab::proxy::Proxy;
use lab::site::{Gate, Keyboard, On, Site, Told};
use lab::venv::Line;
use lab::vm::Vm;
use serde_json::{Value, json};

use crate::boot::{By, World};
use crate::fixture::{LONG, assert_complete, assert_failed, attribute, named, shared};
use crate::templates::{beside, booted, shipped};

pub fn all() -> Vec<Case> {
    let case_of = |name: &str, run: fn()| {
        Case::new(name, move || {
            run();
            Ok(())
        })
    };
    vec![
        case_of("life::server_killed", server_killed).light(),
        case_of("life::multipart_killed", multipart_killed).light(),
        case_of("life::image_killed", image_killed).light(),
        case_of("life::unit_killed", unit_killed).light(),
        case_of("life::deployment_killed", deployment_killed).light(),
        case_of("life::deployment_rebooted", deployment_rebooted).light(),
        // The others show all of it but that it is a state, which `install boot::rebooted_by_a_state` shows.
        case_of("life::server_rebooted", server_rebooted).light().repeats(),
        case_of("life::image_rebooted", image_rebooted).light(),
        case_of("life::multipart_rebooted", multipart_rebooted).light(),
    ]
}

/// A handle of a live stack. Heat's API is met by way of a wire, which can be held.
struct Live<'a> {
    stack: &'a Stack<'a>,
    handle: &'static str,
    wire: Proxy,
}

impl<'a> Live<'a> {
    fn new(heat: &Heat, stack: &'a Stack, handle: &'static str) -> Live<'a> {
        Live { stack, handle, wire: Proxy::start(heat.api_url().trim_start_matches("http://").parse().unwrap()).unwrap() }
    }

    /// A text in which Heat's API has its own address, with that of the wire.
    fn by_wire(&self, text: &str) -> String {
        let its = self.stack.heat().api_url();
        assert!(text.contains(its), "{its} is not in {text}");
        text.replace(its, &format!("http://{}", self.wire.address()))
    }

    /// Waits for this many messages; this is the last of them.
    fn hears(&self, count: usize) -> (String, String) {
        let heard = until(LONG, || Some(self.heard()).filter(|heard| heard.len() >= count));
        let heard = heard.unwrap_or_else(|error| panic!("message {count}: {error}: {:#?}", self.heard()));
        assert_eq!(heard.len(), count, "{heard:#?}");
        heard.last().unwrap().clone()
    }

    /// Waits for this many messages, of which the last says that it was killed at this step.
    fn hears_of_a_kill(&self, count: usize, step: &str) {
        let (status, reason) = self.hears(count);
        assert_eq!(status, "FAILURE", "{reason}");
        assert!(reason.starts_with("interrupted: ") && reason.contains(&format!("killed during step {step}")), "{reason}");
        assert!(reason.ends_with(&format!("(step {step}, code 61)")), "{reason}");
    }
}

impl Told for Live<'_> {
    fn be_silent(&self, silent: bool) {
        if !silent {
            // What was held is of somebody who has been killed meanwhile.
            self.wire.drop_connections();
        }
        self.wire.stall(silent);
    }

    fn heard(&self) -> Vec<(String, String)> {
        let told = self.stack.signals(self.handle).unwrap();
        let parts = |told: &String| told.strip_prefix("status:")?.split_once(" reason:").map(|(a, b)| (a.to_owned(), b.to_owned()));
        told.iter().map(|told| parts(told).unwrap_or_else(|| ("of a deployment".to_owned(), told.clone()))).collect()
    }
}

/// What became of the stack: the first FAILURE failed it, and a SUCCESS that comes later changes nothing but what is known of the machine.
fn assert_failed_by(stack: &Stack, first: &str) {
    let reason = assert_failed(stack);
    assert!(reason.contains(first), "{reason}");
    assert!(!reason.contains("done"), "{reason}");
}

/// Everything of this unit at once, and nobody is left.
fn kill_all_of(keyboard: &Keyboard, unit: &str) {
    keyboard.types(&format!(
        "systemctl kill --kill-who=all --signal=KILL {unit}; while systemctl --quiet is-active {unit}; do sleep 0.1; done"
    ));
}

/// What cloud-init has run, by a person who runs it once more.
const AGAIN: &str = "for part in /var/lib/cloud/instance/scripts/*; do $part; done";

/// A machine of a shipped template, whose user_data cloud-init runs at its first boot. It is killed there at the first point, with cloud-init's
/// last stage and all that it has started; when that is done once more, at the next one. Heat hears of each once, and then how it ended.
fn killed(template: &str, name: &str, line: Line, by: By, points: &[(Gate, &str)]) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let name = named(name);
    let world = World::new(line);
    let text = shipped(template);
    let parameters = world.parameters(&text, "held", by);
    let stack = heat.stack_of(&name, &text, &beside(), parameters).unwrap();
    let (site, user_data, _program) = cloud_site(heat, &stack, &name, world, text.contains("fetch.sh"));
    for (gate, _) in points {
        site.set(*gate, true);
    }
    if points.iter().all(|(gate, _)| *gate != Gate::States) {
        site.set(Gate::States, false);
    }
    site.boot(On::Cloud(&name, &user_data), |keyboard| {
        for (number, (gate, step)) in points.iter().enumerate() {
            let unit = match number.checked_sub(1) {
                None => "cloud-final.service".to_owned(),
                Some(before) => {
                    site.set(points[before].0, false);
                    keyboard.types(&format!("systemd-run --quiet --unit=again-{number} sh -c '{AGAIN}'"));
                    format!("again-{number}.service")
                }
            };
            site.reaches(*gate, &json!(step));
            kill_all_of(keyboard, &unit);
            site.heat.hears_of_a_kill(number + 1, step);
        }
        site.set(points[points.len() - 1].0, false);
        let run = keyboard.types(AGAIN);
        let (status, reason) = site.heat.hears(points.len() + 1);
        assert_eq!(status, "SUCCESS", "{reason}\n{run}");
    });
    assert_eq!(site.vm.text("runs.out"), "run\n");
    assert_failed_by(&stack, &format!("killed during step {}", points[0].1));
    assert_eq!(site.heat.heard().len(), points.len() + 1, "{:#?}", site.heat.heard());
}

/// A machine that this stack would have booted, and all that it meets; with its user_data.
fn cloud_site<'a>(heat: &Heat, stack: &'a Stack, name: &str, world: World, fetches: bool) -> (Site<Live<'a>>, String, Server) {
    let server = booted(heat, name, 1).remove(0);
    let live = Live::new(heat, stack, "handle");
    let user_data = live.by_wire(&fs::read_to_string(server.join("user_data")).unwrap());
    let vm = Vm::new("cloud", &json!({}));
    fs::remove_dir_all(vm.path("etc/heat-salt-bootstrap")).unwrap();
    if fetches {
        fs::remove_file(vm.path("usr/bin/heat-salt-bootstrap")).unwrap();
    }
    let World { master, mirror, program, .. } = world;
    (Site::new(master, live, mirror, vm), user_data, program)
}

fn server_killed() {
    killed("server.yaml", "life-server", Line::Lts3008, By::Token, &[(Gate::KeyPair, "keys"), (Gate::Master, "connect")]);
}

/// In its second part, and in its last.
fn multipart_killed() {
    killed("multipart.yaml", "life-multipart", Line::Lts3006, By::Wheel, &[(Gate::Repository, "install"), (Gate::States, "states")]);
}

fn image_killed() {
    killed("image.yaml", "life-image", Line::Lts3006, By::Token, &[(Gate::Service, "enroll"), (Gate::Scriptlet, "install")]);
}

/// The units of the packages, as they lie in the source; `install life::killed_at_each_point` has them of a package. Killed while the states
/// run, and then while it tells Heat: before that has heard of it, and when it has and its answer is not there yet.
fn unit_killed() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let stack = heat.stack_create(&named("life-unit"), &condition("HEAT_SIGNAL"), json!({"timeout": 600})).unwrap();
    let handle = attribute(&stack, "signal");
    let world = World::new(Line::Lts3008);
    let parameters = world.parameters("", "held", By::Token);
    let live = Live::new(heat, &stack, "h");
    let signal: Value = serde_json::from_str(&live.by_wire(handle.as_str().unwrap())).unwrap();
    let vm = Vm::new("cloud", &json!({}));
    vm.write_config(&json!({
        "minion": {"id": "vm-1", "master": parameters["salt_master"], "config": parameters["minion_config"]},
        "enroll": {"url": parameters["salt_enroll_url"], "token": parameters["salt_token"], "ca": parameters["ca"]},
        "install": parameters["salt_install"], "apply": {"states": ["held"]}, "signal": signal, "deadline": "10m",
    }));
    for unit in ["heat-salt-bootstrap.service", "heat-salt-bootstrap-signal.service"] {
        let of_source = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd").join(unit);
        fs::copy(of_source, vm.path("etc/systemd/system").join(unit)).unwrap();
        fs::create_dir_all(vm.path("etc/systemd/system/multi-user.target.wants")).unwrap();
        symlink(format!("../{unit}"), vm.path("etc/systemd/system/multi-user.target.wants").join(unit)).unwrap();
    }
    let World { master, mirror, program: _program, .. } = world;
    let site = Site::new(master, live, mirror, vm);
    const UNIT: &str = "heat-salt-bootstrap.service";
    let kill = |keyboard: &Keyboard| {
        keyboard.types(&format!("systemctl kill --kill-who=all --signal=KILL {UNIT}"));
    };
    let starts = |keyboard: &Keyboard| keyboard.types(&format!("systemctl start --no-block {UNIT}"));
    site.boot(On::Bare, |keyboard| {
        starts(keyboard);
        site.reaches(Gate::States, &json!("states"));
        kill(keyboard);
        let ended = keyboard.awaits_end();
        assert!(ended.contains("Result=signal"), "{ended}");
        site.heat.hears_of_a_kill(1, "states");

        // The message is on its way when it is killed.
        site.set(Gate::States, false);
        site.set(Gate::Heat, true);
        starts(keyboard);
        site.reaches(Gate::Heat, &Value::Null);
        kill(keyboard);
        site.set(Gate::Heat, false);
        keyboard.awaits_end();
        let (status, reason) = site.heat.hears(2);
        assert_eq!(status, "SUCCESS", "{reason}");

        // Heat has it, and the answer is on its way.
        site.heat.wire.keep_answers();
        starts(keyboard);
        let (status, reason) = site.heat.hears(3);
        assert_eq!(status, "SUCCESS", "{reason}");
        kill(keyboard);
        site.set(Gate::Heat, false);
        keyboard.awaits_end();
        assert_eq!(site.heat.hears(4), (status, reason), "the same once more");
    });
    assert_failed_by(&stack, "killed during step states");
    // Whoever is told twice knows it by the id.
    let data = stack.data().unwrap();
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["vm-1"], "{data:#}");
    assert_eq!((&data["vm-1"]["verdict"], site.vm.text("runs.out").as_str()), (&json!("done"), "run\n"), "{data:#}");
    assert_eq!(site.heat.heard().len(), 4, "{:#?}", site.heat.heard());
    // An operator who has seen that it is done need not begin anew.
    stack.update(&condition("HEAT_SIGNAL").to_string(), &[], json!({"timeout": 600})).unwrap();
    let (status, reason) = stack.wait(&["UPDATE_COMPLETE", "UPDATE_FAILED"], LONG).unwrap();
    assert_eq!(status, "UPDATE_COMPLETE", "{reason}");
}

/// The machine of a deployment, with a stand-in for heat-config: as the real one does (55-heat-config of heat-agents), it notes that it has begun
/// with a script before it begins, and never begins with that again; it would tell Heat what became of it, but for that it has to live.
fn deployed(name: &str, does: impl FnOnce(&Site<Live>, &Stack)) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let world = World::new(Line::Lts3006);
    let text = shipped("deployment.yaml");
    let name = named(name);
    let mut parameters = world.parameters(&text, "held", By::Token);
    parameters["timeout"] = json!(600);
    let stack = heat.stack_of(&name, &text, &[], parameters).unwrap();
    let server: Value = serde_json::from_slice(&fs::read(booted(heat, &name, 1)[0].join("server.json")).unwrap()).unwrap();
    let inputs = until(LONG, || heat.deployment_inputs(server["id"].as_str().unwrap()).ok()?.pop()).unwrap();
    let vm = Vm::new("cloud", &json!({}));
    fs::remove_dir_all(vm.path("etc/heat-salt-bootstrap")).unwrap();
    let given = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('\'', r"'\''");
    let exports: String = inputs.iter().map(|(name, value)| format!("export {name}='{}'\n", given(value))).collect();
    let heat_config = "[ ! -e /opt/begun ] || exit 0\n: >/opt/begun\nheat_outputs_path=/opt/out sh /opt/script\n";
    fs::write(vm.path("opt/script"), inputs["config_text"].as_str().unwrap()).unwrap();
    fs::write(vm.path("opt/heat-config"), format!("{exports}{heat_config}")).unwrap();
    let World { master, mirror, program: _program, .. } = world;
    does(&Site::new(master, Live::new(heat, &stack, "deployment"), mirror, vm), &stack);
}

const HEAT_CONFIG: &str = "systemd-run --quiet --unit=os-collect-config sh /opt/heat-config";

fn deployment_killed() {
    deployed("life-deployment", |site, stack| {
        site.set(Gate::Service, true);
        site.boot(On::Bare, |keyboard| {
            keyboard.types(HEAT_CONFIG);
            site.reaches(Gate::Service, &json!("enroll"));
            kill_all_of(keyboard, "os-collect-config.service");
            let reason = assert_failed(stack);
            assert!(reason.contains("resources.deployment: Deployment to server failed: deploy_status_code"), "{reason}");
            assert_eq!(stack.output("log").unwrap(), "interrupted: killed during step enroll (step enroll, code 61)");
        });
        assert_eq!(site.heat.heard().len(), 1, "{:#?}", site.heat.heard());
    });
}

/// It goes on at the next boot, which heat-config does not.
fn deployment_rebooted() {
    deployed("life-deployment-reboot", |site, stack| {
        site.boot(On::Cloud("vm-1", "#cloud-config\n{}\n"), |keyboard| {
            keyboard.types(HEAT_CONFIG);
            site.reaches(Gate::States, &json!("states"));
            keyboard.reboots();
        });
        assert_eq!(site.heat.heard(), [], "a reboot is no end: {}", site.vm.text("var/log/heat-salt-bootstrap.log"));
        site.set(Gate::States, false);
        site.boot(On::Again, |_| assert_complete(stack));
        let report: Value = serde_json::from_str(stack.output("report").unwrap().as_str().unwrap()).unwrap();
        assert_eq!((&report["verdict"], site.heat.heard().len()), (&json!("done"), 1), "{report:#}");
    });
}

/// The machine of a shipped template; with its user_data.
fn rebooted(template: &str, name: &str, by: By, states: &str, does: impl FnOnce(&Site<Live>, &Stack, On)) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let name = named(name);
    let world = World::new(Line::Lts3006);
    let text = shipped(template);
    let mut parameters = world.parameters(&text, states, by);
    parameters["salt_pillar"] = json!({"reboots": 2});
    parameters["timeout"] = json!(600);
    let stack = heat.stack_of(&name, &text, &beside(), parameters).unwrap();
    let (site, user_data, _program) = cloud_site(heat, &stack, &name, world, text.contains("fetch.sh"));
    does(&site, &stack, On::Cloud(&name, &user_data));
}

/// The stack is complete, by the one message that there was.
fn assert_complete_by_one(site: &Site<Live>, stack: &Stack) {
    assert_complete(stack);
    let heard = site.heat.heard();
    assert_eq!((heard.len(), heard[0].0.as_str()), (1, "SUCCESS"), "{heard:#?}");
}

/// By somebody while it enrols, then by its states, twice.
fn server_rebooted() {
    rebooted("server.yaml", "life-server-reboot", By::Token, "reboots", |site, stack, first| {
        site.set(Gate::Service, true);
        site.boot(first, |keyboard| {
            site.reaches(Gate::Service, &json!("enroll"));
            keyboard.reboots();
        });
        site.set(Gate::Service, false);
        for _ in 0..2 {
            site.boot_to_reboot();
            assert_eq!(site.heat.heard(), [], "a reboot is no end");
        }
        site.boot(On::Again, |_| assert_complete(stack));
        assert_eq!((site.vm.text("reboots").as_str(), site.vm.text("runs.out").as_str()), ("once\nonce\n", "run\n"));
        assert_complete_by_one(site, stack);
    });
}

/// While a package comes, while the states run, and while Heat does not answer.
fn image_rebooted() {
    rebooted("image.yaml", "life-image-reboot", By::Token, "held", |site, stack, first| {
        let points = [(Gate::Repository, json!("install")), (Gate::States, json!("states")), (Gate::Heat, Value::Null)];
        for (number, (gate, step)) in points.iter().enumerate() {
            site.set(*gate, true);
            if let Some(before) = number.checked_sub(1) {
                site.set(points[before].0, false);
            }
            site.boot(if number == 0 { first } else { On::Again }, |keyboard| {
                site.reaches(*gate, step);
                keyboard.reboots();
            });
            assert_eq!(site.heat.heard(), [], "{gate:?}: a reboot is no end");
        }
        site.set(Gate::Heat, false);
        site.boot(On::Again, |_| assert_complete(stack));
        assert_complete_by_one(site, stack);
    });
}

/// cloud-init does not go on with its parts, and one part is not the work: Heat is told so.
fn multipart_rebooted() {
    rebooted("multipart.yaml", "life-multipart-reboot", By::Wheel, "held", |site, stack, first| {
        site.set(Gate::Scriptlet, true);
        site.boot(first, |keyboard| {
            site.reaches(Gate::Scriptlet, &json!("install"));
            keyboard.reboots();
        });
        site.boot(On::Again, |_| drop(site.heat.hears(1)));
        let (status, reason) = site.heat.hears(1);
        assert_eq!(status, "FAILURE");
        assert!(reason.ends_with("(step install, code 61)"), "{reason}");
        assert_failed_by(stack, &reason);
    });
}

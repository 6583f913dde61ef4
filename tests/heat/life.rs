//! A machine's life as a real Heat hears of it: a run is killed with all that belongs to it, or its machine rebooted, by each way of starting,
//! and the stack's events say what was told, and how often. The points are spread over the ways; all of them by one way, against a stand-in for
//! Heat, are tried by `tests/install/life.rs`. A real systemd, cloud-init, package manager, minion and master.

use std::fs;
use std::path::PathBuf;

use lab::harness::Case;
use lab::http::Server;
use lab::openstack::{Heat, Stack, condition};
use lab::process::until;
use lab::proxy::Proxy;
use lab::site::{Gate, Keyboard, On, Site, Told};
use lab::venv::Line;
use lab::vm::{self, Vm};
use serde_json::{Value, json};

use crate::afterwards::{Leaves, is_deleted, is_rebuilt_and_refused, is_rebuilt_and_taken, is_stopped_and_started};
use crate::boot::{By, World};
use crate::fixture::{LONG, assert_complete, assert_failed, attribute, named, shared, type_to_client};
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
        case_of("life::deployment_starved", deployment_starved).light(),
        case_of("life::deployment_rebooted", deployment_rebooted).light(),
        // The others show all of it but that it is a state, which `install boot::rebooted_by_a_state` shows.
        case_of("life::server_rebooted", server_rebooted).light().repeats(),
        case_of("life::image_rebooted_by_states", image_rebooted_by_states).light().repeats(),
        case_of("life::deployment_rebooted_by_states", deployment_rebooted_by_states).light().repeats(),
        case_of("life::unit_rebooted_by_states", unit_rebooted_by_states).light().repeats(),
        // Its machine is one of server.yaml.
        case_of("life::group_killed", group_killed).light().repeats(),
        case_of("life::image_rebooted", image_rebooted).light(),
        case_of("life::multipart_rebooted", multipart_rebooted).light(),
    ]
}

/// A handle of a live stack. Whoever is asked first is met by way of a wire, which can be held.
pub struct Live<'a> {
    stack: &'a Stack<'a>,
    handle: &'static str,
    /// What is met by way of the wire.
    met: String,
    wire: Proxy,
}

impl<'a> Live<'a> {
    pub fn new(heat: &Heat, stack: &'a Stack, handle: &'static str) -> Live<'a> {
        // Who tells of a deployment is given Keystone's address, and asks that one where Heat is.
        let met = if handle == "deployment" { heat.keystone_url() } else { heat.api_url() }.to_owned();
        Live { stack, handle, wire: Proxy::start(met.trim_start_matches("http://").parse().unwrap()).unwrap(), met }
    }

    /// A text with its own address, with that of the wire in place of it.
    fn by_wire(&self, text: &str) -> String {
        let its = &self.met;
        assert!(text.contains(its), "{its} is not in {text}");
        text.replace(its, &format!("http://{}", self.wire.address()))
    }

    /// Waits for this many messages; this is the last of them.
    pub fn hears(&self, count: usize) -> (String, String) {
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

    /// The same of one whom the kernel has ended at this step.
    fn hears_of_no_memory(&self, count: usize, step: &str) {
        let expected = format!("interrupted: killed by the kernel during step {step}: out of memory (step {step}, code 61)");
        assert_eq!(self.hears(count), ("FAILURE".to_owned(), expected));
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

/// The kernel ends the one that works, and systemd at once the rest of the unit, as it does by default (`OOMPolicy=stop`; it sees such an end
/// in control groups of the second version alone, which not every machine of ours has: so it is told). Who watched tells Heat meanwhile.
fn starve_in(site: &Site<Live>, keyboard: &Keyboard, unit: &str) {
    site.heat.wire.stall(true);
    site.starve();
    // What it says is on its way.
    site.reaches(Gate::Heat, &site.progress()["step"]);
    keyboard.types(&format!(
        "systemctl stop --no-block {unit}; until [ \"$(systemctl show -p ActiveState --value {unit})\" != activating ]; do sleep 0.1; done"
    ));
    // It has come to nothing, and has to be said once more.
    site.heat.wire.drop_connections();
    site.heat.wire.stall(false);
    keyboard.types(&format!("while systemctl is-active {unit} | grep -q ing; do sleep 0.1; done"));
}

/// How a run comes to its end at some point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Somebody kills everything.
    Killed,
    /// It finds no more memory.
    Starved,
}

/// What cloud-init has run, by a person who runs it once more.
const AGAIN: &str = "for part in /var/lib/cloud/instance/scripts/*; do $part; done";

/// A machine of a shipped template, whose user_data cloud-init runs at its first boot. It is killed there at the first point, with cloud-init's
/// last stage and all that it has started; when that is done once more, at the next one. Heat hears of each once, and then how it ended.
fn killed(template: &str, name: &str, line: Line, by: By, points: &[(Gate, &str, Ends)]) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let name = named(name);
    let world = World::new(line);
    let text = shipped(template);
    let mut parameters = world.parameters(&text, "held", by);
    let of_group = template == "autoscaling.yaml";
    if of_group {
        parameters["salt_token"] = json!(world.tenant(&format!("{name}-*"), "held"));
    }
    let whole = heat.stack_of(&name, &text, &beside(), parameters).unwrap();
    let node;
    let (stack, name) = if of_group {
        let of_node = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned()).filter(|node| node.starts_with(&name));
        let name = until(LONG, || heat.servers().into_iter().find_map(of_node)).unwrap();
        node = heat.stack_named(&name).unwrap();
        (&node, name)
    } else {
        (&whole, name)
    };
    let (site, user_data, _program) = cloud_site(heat, stack, &name, world, text.contains("fetch.sh"));
    for (gate, ..) in points {
        site.set(*gate, true);
    }
    if points.iter().all(|(gate, ..)| *gate != Gate::States) {
        site.set(Gate::States, false);
    }
    site.boot(On::Cloud(&name, &user_data), |keyboard| {
        for (number, (gate, step, ends)) in points.iter().enumerate() {
            let unit = match number.checked_sub(1) {
                None => "cloud-final.service".to_owned(),
                Some(before) => {
                    site.set(points[before].0, false);
                    keyboard.types(&format!("systemd-run --quiet --unit=again-{number} sh -c '{AGAIN}'"));
                    format!("again-{number}.service")
                }
            };
            site.reaches(*gate, &json!(step));
            match ends {
                Ends::Killed => {
                    kill_all_of(keyboard, &unit);
                    site.heat.hears_of_a_kill(number + 1, step);
                }
                Ends::Starved => {
                    starve_in(&site, keyboard, &unit);
                    site.heat.hears_of_no_memory(number + 1, step);
                }
            }
        }
        site.set(points[points.len() - 1].0, false);
        let run = keyboard.types(AGAIN);
        let (status, reason) = site.heat.hears(points.len() + 1);
        assert_eq!(status, "SUCCESS", "{reason}\n{run}");
    });
    assert_eq!(site.vm.text("runs.out"), "run\n");
    for stack in [stack, &whole] {
        assert_failed_by(stack, &format!("killed during step {}", points[0].1));
    }
    assert_eq!(site.heat.heard().len(), points.len() + 1, "{:#?}", site.heat.heard());
}

/// A machine that this stack would have booted, and all that it meets; with its user_data.
fn cloud_site<'a>(heat: &Heat, stack: &'a Stack, name: &str, world: World, fetches: bool) -> (Site<Live<'a>>, String, Server) {
    let server = booted(heat, name, 1).remove(0);
    let live = Live::new(heat, stack, "handle");
    let user_data = live.by_wire(&fs::read_to_string(server.join("user_data")).unwrap());
    let World { master, mirror, program, .. } = world;
    (Site::new(master, live, mirror, disk(fetches)), user_data, program)
}

/// A new disk for such a machine: of an image that carries the program, unless it is fetched.
pub fn disk(fetches: bool) -> Vm {
    let vm = Vm::new("cloud", &json!({}));
    fs::remove_dir_all(vm.path("etc/heat-salt-bootstrap")).unwrap();
    if fetches {
        fs::remove_file(vm.path("usr/bin/heat-salt-bootstrap")).unwrap();
    }
    vm
}

fn server_killed() {
    killed(
        "server.yaml",
        "life-server",
        Line::Lts3008,
        By::Token,
        &[(Gate::KeyPair, "keys", Ends::Killed), (Gate::Master, "connect", Ends::Starved)],
    );
}

/// The one machine of its group.
fn group_killed() {
    let points = [(Gate::KeyPair, "keys", Ends::Killed), (Gate::States, "states", Ends::Starved)];
    killed("autoscaling.yaml", "life-group", Line::Lts3008, By::Token, &points);
}

/// In its second part, and in its last.
fn multipart_killed() {
    killed(
        "multipart.yaml",
        "life-multipart",
        Line::Lts3006,
        By::Wheel,
        &[(Gate::Repository, "install", Ends::Killed), (Gate::States, "states", Ends::Starved)],
    );
}

fn image_killed() {
    killed(
        "image.yaml",
        "life-image",
        Line::Lts3006,
        By::Token,
        &[(Gate::Service, "enroll", Ends::Killed), (Gate::Scriptlet, "install", Ends::Killed), (Gate::States, "states", Ends::Starved)],
    );
}

/// What starts with it again once it is a minion, besides the package's units.
const OF_LEASE: [&str; 2] = ["salt-minion.service", "heat-salt-bootstrap-renew.service"];

/// An image that carries the package, on a machine `vm-1` whose configuration has a condition's handle.
fn of_image(name: &str, states: &str, does: impl FnOnce(Site<Live>, &Stack, &str, &dyn Fn() -> Vm)) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let name = named(name);
    let stack = heat.stack_create(&name, &condition("HEAT_SIGNAL"), json!({"timeout": 600})).unwrap();
    let handle = attribute(&stack, "signal");
    let world = World::new(Line::Lts3008);
    let parameters = world.parameters("", states, By::Token);
    let live = Live::new(heat, &stack, "h");
    let signal: Value = serde_json::from_str(&live.by_wire(handle.as_str().unwrap())).unwrap();
    let config = json!({
        "minion": {"id": "vm-1", "master": parameters["salt_master"], "config": parameters["minion_config"]},
        "enroll": {"url": parameters["salt_enroll_url"], "token": world.tenant("vm-1", states), "ca": parameters["ca"]},
        "install": parameters["salt_install"], "apply": {"states": [states], "pillar": {"reboots": 2}}, "signal": signal,
        "deadline": "10m", "deregister": "when-gone",
    });
    let disk = || {
        let vm = Vm::carrying("cloud", "deb", env!("CARGO_PKG_VERSION"));
        vm.write_config(&config);
        vm
    };
    let World { master, mirror, program: _program, .. } = world;
    does(Site::new(master, live, mirror, disk()), &stack, &name, &disk);
}

/// Killed while the states run, where it finds no memory too, and then while it tells Heat: before that has heard of it, and when it has and
/// its answer is not there yet.
fn unit_killed() {
    of_image("life-unit", "held", |mut site, stack, name, disk| {
        everything_of_the_unit_is_killed(&site, stack);
        // An operator who has seen that it is done need not begin anew.
        let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/life.md")).unwrap();
        const UPDATE: &str = "openstack stack update --existing STACK";
        assert!(page.contains(UPDATE), "{page}");
        let ended = type_to_client(stack.heat(), &UPDATE.replace("STACK", name)).finish(LONG).unwrap();
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        let (status, reason) = stack.wait(&["UPDATE_COMPLETE", "UPDATE_FAILED"], LONG).unwrap();
        assert_eq!(status, "UPDATE_COMPLETE", "{reason}");

        // It runs to its end once more, as a rebuilt machine, and not again when that is switched on.
        let disk = disk();
        vm::UNITS.iter().chain(&OF_LEASE).for_each(|unit| disk.story_wants(unit));
        fs::write(disk.path("go"), "").unwrap();
        is_rebuilt_and_taken(&mut site, "vm-1", disk, On::Bare, 1, |_| ());
        is_stopped_and_started(&site, "vm-1", On::Bare, Leaves::WhenGone);
        is_deleted(site, stack, "vm-1", Leaves::WhenGone);
    });
}

fn everything_of_the_unit_is_killed(site: &Site<Live>, stack: &Stack) {
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

        // The unit says that whoever watches is left alone (`OOMPolicy=continue`).
        starts(keyboard);
        site.reaches(Gate::States, &json!("states"));
        site.starve();
        let ended = keyboard.awaits_end();
        assert!(ended.contains("ExecMainStatus=61"), "{ended}");
        site.heat.hears_of_no_memory(2, "states");

        // The message is on its way when it is killed.
        site.set(Gate::States, false);
        site.set(Gate::Heat, true);
        starts(keyboard);
        site.reaches(Gate::Heat, &Value::Null);
        kill(keyboard);
        site.set(Gate::Heat, false);
        keyboard.awaits_end();
        let (status, reason) = site.heat.hears(3);
        assert_eq!(status, "SUCCESS", "{reason}");

        // Heat has it, and the answer is on its way.
        site.heat.wire.keep_answers();
        starts(keyboard);
        let (status, reason) = site.heat.hears(4);
        assert_eq!(status, "SUCCESS", "{reason}");
        kill(keyboard);
        site.set(Gate::Heat, false);
        keyboard.awaits_end();
        assert_eq!(site.heat.hears(5), (status, reason), "the same once more");
    });
    assert_failed_by(stack, "killed during step states");
    // Whoever is told twice knows it by the id.
    let data = stack.data().unwrap();
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["vm-1"], "{data:#}");
    assert_eq!((&data["vm-1"]["verdict"], site.vm.text("runs.out").as_str()), (&json!("done"), "run\n"), "{data:#}");
    assert_eq!(site.heat.heard().len(), 5, "{:#?}", site.heat.heard());
}

/// The machine of a deployment, with a stand-in for heat-config: as the real one does (55-heat-config of heat-agents), it notes that it has begun
/// with a script before it begins, and never begins with that again; it would tell Heat what became of it, but for that it has to live.
fn deployed(name: &str, states: &str, does: impl FnOnce(Site<Live>, &Stack, &str, &dyn Fn() -> Vm)) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let world = World::new(Line::Lts3006);
    let text = shipped("deployment.yaml");
    let name = named(name);
    let mut parameters = world.parameters(&text, states, By::Token);
    parameters["timeout"] = json!(600);
    parameters["salt_pillar"] = json!({"reboots": 2});
    parameters["salt_token"] = json!(world.tenant(&name, states));
    let stack = heat.stack_of(&name, &text, &[], parameters).unwrap();
    let server: Value = serde_json::from_slice(&fs::read(booted(heat, &name, 1)[0].join("server.json")).unwrap()).unwrap();
    let inputs = until(LONG, || heat.deployment_inputs(server["id"].as_str().unwrap()).ok()?.pop()).unwrap();
    let given = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('\'', r"'\''");
    let live = Live::new(heat, &stack, "deployment");
    let exports: String = inputs.iter().map(|(name, value)| format!("export {name}='{}'\n", given(value))).collect();
    let exports = live.by_wire(&exports);
    let heat_config = "[ ! -e /opt/begun ] || exit 0\n: >/opt/begun\nheat_outputs_path=/opt/out sh /opt/script\n";
    let disk = || {
        let vm = disk(false);
        fs::write(vm.path("opt/script"), inputs["config_text"].as_str().unwrap()).unwrap();
        fs::write(vm.path("opt/heat-config"), format!("{exports}{heat_config}")).unwrap();
        vm
    };
    let World { master, mirror, program: _program, .. } = world;
    does(Site::new(master, live, mirror, disk()), &stack, &name, &disk);
}

/// For machines that a cloud boots without telling them anything.
const NO_USER_DATA: &str = "#cloud-config\n{}\n";

const HEAT_CONFIG: &str = "systemd-run --quiet --unit=os-collect-config sh /opt/heat-config";

fn deployment_killed() {
    deployed("life-deployment", "held", |site, stack, _, _| {
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

/// systemd's SIGTERM is for all of the unit, the one that tells Heat included.
fn deployment_starved() {
    deployed("life-deployment-memory", "held", |site, stack, _, _| {
        site.boot(On::Bare, |keyboard| {
            keyboard.types(HEAT_CONFIG);
            site.reaches(Gate::States, &json!("states"));
            starve_in(&site, keyboard, "os-collect-config.service");
            let reason = assert_failed(stack);
            assert!(reason.contains("resources.deployment: Deployment to server failed: deploy_status_code"), "{reason}");
            let told = "interrupted: killed by the kernel during step states: out of memory (step states, code 61)";
            assert_eq!(stack.output("log").unwrap(), told);
        });
        assert_eq!(site.heat.heard().len(), 1, "{:#?}", site.heat.heard());
    });
}

/// It goes on at the next boot, which heat-config does not.
fn deployment_rebooted() {
    deployed("life-deployment-reboot", "held", |mut site, stack, id, disk| {
        site.boot(On::Cloud("vm-1", NO_USER_DATA), |keyboard| {
            keyboard.types(HEAT_CONFIG);
            site.reaches(Gate::States, &json!("states"));
            keyboard.reboots();
        });
        assert_eq!(site.heat.heard(), [], "a reboot is no end: {}", site.vm.text("var/log/heat-salt-bootstrap.log"));
        site.set(Gate::States, false);
        site.boot(On::Again, |_| assert_complete(stack));
        let report: Value = serde_json::from_str(stack.output("report").unwrap().as_str().unwrap()).unwrap();
        assert_eq!((&report["verdict"], site.heat.heard().len()), (&json!("done"), 1), "{report:#}");

        is_stopped_and_started(&site, id, On::Again, Leaves::Never);
        // On a new disk heat-config has not begun with anything yet. Heat takes nothing more of a deployment that is complete.
        let disk = disk();
        fs::write(disk.path("go"), "").unwrap();
        is_rebuilt_and_taken(&mut site, id, disk, On::Again, 0, |keyboard| drop(keyboard.types(HEAT_CONFIG)));
        is_deleted(site, stack, id, Leaves::Never);
    });
}

/// The machine of a shipped template; with its user_data.
fn rebooted(template: &str, name: &str, by: By, states: &str, does: impl FnOnce(Site<Live>, &Stack, &str, On)) {
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
    does(site, &stack, &name, On::Cloud(&name, &user_data));
}

/// The stack is complete, by the one message that there was.
fn assert_complete_by_one(site: &Site<Live>, stack: &Stack) {
    assert_complete(stack);
    let heard = site.heat.heard();
    assert_eq!((heard.len(), heard[0].0.as_str()), (1, "SUCCESS"), "{heard:#?}");
}

/// By somebody while it enrols, then by its states, twice.
fn is_rebooted_by_states(site: &Site<Live>, stack: &Stack, first: On, starts: impl FnOnce(&Keyboard) + Send) {
    site.set(Gate::Service, true);
    site.boot(first, |keyboard| {
        starts(keyboard);
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
    assert_eq!(site.heat.heard().len(), 1, "{:#?}", site.heat.heard());
}

fn server_rebooted() {
    rebooted("server.yaml", "life-server-reboot", By::Token, "reboots", |site, stack, _, first| {
        is_rebooted_by_states(&site, stack, first, |_| ());
        assert_complete_by_one(&site, stack);
    });
}

fn image_rebooted_by_states() {
    rebooted("image.yaml", "life-image-states", By::Token, "reboots", |site, stack, _, first| {
        is_rebooted_by_states(&site, stack, first, |_| ());
        assert_complete_by_one(&site, stack);
    });
}

fn deployment_rebooted_by_states() {
    deployed("life-deployment-states", "reboots", |site, stack, _, _| {
        is_rebooted_by_states(&site, stack, On::Cloud("vm-1", NO_USER_DATA), |keyboard| drop(keyboard.types(HEAT_CONFIG)));
    });
}

fn unit_rebooted_by_states() {
    of_image("life-unit-states", "reboots", |site, stack, _, _| {
        is_rebooted_by_states(&site, stack, On::Cloud("vm-1", NO_USER_DATA), |_| ());
        assert_complete_by_one(&site, stack);
    });
}

/// While a package comes, while the states run, and while Heat does not answer.
fn image_rebooted() {
    rebooted("image.yaml", "life-image-reboot", By::Token, "held", |mut site, stack, id, first| {
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
        assert_complete_by_one(&site, stack);

        is_stopped_and_started(&site, id, On::Again, Leaves::Never);
        // A token for one server, as it is made by default.
        is_rebuilt_and_refused(&mut site, id, disk(false), On::Again, "The token is used up: 1 of 1. (step enroll, code 33)");
        is_deleted(site, stack, id, Leaves::Never);
    });
}

/// cloud-init does not go on with its parts, and one part is not the work: Heat is told so.
fn multipart_rebooted() {
    rebooted("multipart.yaml", "life-multipart-reboot", By::Wheel, "held", |site, stack, _, first| {
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

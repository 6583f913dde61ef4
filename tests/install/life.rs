//! A machine's life: a bootstrap is killed, or the machine rebooted, at each point at which it can wait for something, and goes on. A real
//! systemd, a real package manager, a real minion, a real master; Heat is the stand-in, and what a run waits for is a gate of the test's.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;
use std::time::Duration;

use lab::harness::Case;
use lab::heat::StandIn;
use lab::keys::KeyState;
use lab::master::Master;
use lab::minion::{Root, enrolling};
use lab::process::{descendants, until};
use lab::venv::Line;
use lab::vm::{Mirror, Mood, Vm, file};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::boot::{become_instance, carrying};
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

/// What a run waits for, at the gates that are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// openssl, which makes the key pair.
    KeyPair,
    /// The enrolment service.
    Service,
    /// The repository's metadata.
    Repository,
    /// A scriptlet of the package: it is half installed.
    Scriptlet,
    /// systemd, which starts the minion.
    Start,
    /// The master.
    Master,
    /// The states.
    States,
    /// Heat.
    Heat,
}

/// Everything that a bootstrap meets.
struct World {
    master: Master,
    heat: StandIn,
    mirror: Mirror,
    vm: Vm,
}

impl World {
    /// A machine that has this program, and its configuration. It joins by a token that is good for one use.
    fn new(vm: Vm) -> World {
        let (master, heat, mirror) = (Master::start(Line::Lts3008).unwrap(), StandIn::start().unwrap(), Mirror::start(None));
        let mut config = Root::new(&master, "vm-1").unwrap().base_config(Some(&heat));
        let key = String::from_utf8(file("key.asc")).unwrap();
        config["install"] = json!({"version": "3008.5", "repository": {"url": mirror.url("rpm/good"), "gpg_key": key}});
        config["minion"]["start"] = json!("auto");
        config["minion"].as_object_mut().unwrap().remove("program");
        config["apply"] = json!({"states": ["held"]});
        config["deadline"] = json!("10m");
        enrolling(&mut config, &master, &master.service_url(), &master.token("vm-1", &["--states", "held"]).unwrap());
        vm.write_config(&config);
        let program = |path: &str, text: &str| {
            fs::create_dir_all(vm.path(path).parent().unwrap()).unwrap();
            fs::write(vm.path(path), text).unwrap();
            fs::set_permissions(vm.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("usr/local/bin/openssl", "#!/bin/sh\nwhile [ -e /opt/no-openssl ]; do sleep 0.1; done\nexec /usr/bin/openssl \"$@\"\n");
        program(
            "etc/systemd/system/salt-minion.service.d/gate.conf",
            "[Service]\nExecStartPre=/bin/sh -c 'while [ -e /opt/no-start ]; do sleep 0.1; done'\nTimeoutStartSec=infinity\n",
        );
        become_instance(&vm, "i-1");
        World { master, heat, mirror, vm }
    }

    fn set(&self, gate: Gate, closed: bool) {
        let marked = |path: &str, there: bool| {
            if there {
                fs::write(self.vm.path(path), "").unwrap();
            } else {
                let _ = fs::remove_file(self.vm.path(path));
            }
        };
        let frozen = |pid: Option<u32>| {
            let signal = if closed { Signal::SIGSTOP } else { Signal::SIGCONT };
            for pid in descendants(i32::try_from(pid.unwrap()).unwrap()) {
                // A worker may have ended.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        };
        match gate {
            Gate::KeyPair => marked("opt/no-openssl", closed),
            Gate::Service => frozen(self.master.api_pid()),
            Gate::Repository => self.mirror.be(if closed { Mood::Slow(Duration::from_secs(20)) } else { Mood::Good }),
            Gate::Scriptlet => {
                marked("hold", closed);
                marked("held", false);
            }
            Gate::Start => marked("opt/no-start", closed),
            Gate::Master => frozen(self.master.master_pid()),
            Gate::States => marked("go", !closed),
            Gate::Heat if closed => self.heat.hang_next(100),
            Gate::Heat => self.heat.recover(),
        }
    }

    fn progress(&self) -> Value {
        serde_json::from_str(self.vm.text("var/lib/heat-salt-bootstrap/progress").trim_end_matches('\0')).unwrap_or_default()
    }

    /// The run is at this step, and waits at the gate.
    fn waits(&self, gate: Gate, step: &Value) -> bool {
        let at_it = match gate {
            Gate::Repository => self.mirror.asked().iter().any(|path| path.contains("repomd")),
            Gate::Scriptlet => self.vm.path("held").exists(),
            Gate::States => self.vm.path("runs.out").exists(),
            Gate::Heat => self.vm.path("var/lib/heat-salt-bootstrap/signal.json").exists(),
            _ => true,
        };
        at_it && self.progress()["step"] == *step
    }

    /// Boots the machine. While it runs, this is done from outside, by a person who may look and type.
    fn boot(&self, does: impl FnOnce(&Keyboard) + Send) {
        for name in ["typed", "doing", "said", "over", "listens"] {
            let _ = fs::remove_file(self.vm.path("opt").join(name));
        }
        thread::scope(|scope| {
            let sits_there = scope.spawn(|| does(&Keyboard { vm: &self.vm, reboots: Cell::new(false) }));
            let console = self.vm.boot(LISTENS);
            if let Err(panic) = sits_there.join() {
                let log = self.vm.text("var/log/heat-salt-bootstrap.log");
                eprintln!("{log}\nHeat: {:#?}\n{:#}\n{console}", self.heat.signals(), self.progress());
                std::panic::resume_unwind(panic);
            }
        });
    }

    fn heard(&self) -> Vec<(String, String)> {
        self.heat.signals().into_iter().map(|signal| (signal.status, signal.reason)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Who is frozen cannot be told to end.
        for gate in [Gate::Service, Gate::Master] {
            self.set(gate, false);
        }
    }
}

/// Does what is typed, one thing after the other, until there is a file that says that it is over.
const LISTENS: &str = "
    mkdir -p /run/systemd/system/story.service.d
    printf '[Service]\\nTimeoutStartSec=infinity\\n' >/run/systemd/system/story.service.d/time.conf
    : >/opt/listens
    while [ ! -e /opt/over ]; do
        if mv /opt/typed /opt/doing 2>/dev/null; then sh /opt/doing >/opt/said.new 2>&1; mv /opt/said.new /opt/said; fi
        sleep 0.05
    done";

/// What a person does who sits there, and who switches the machine off at last, whatever happens here.
struct Keyboard<'a> {
    vm: &'a Vm,
    reboots: Cell<bool>,
}

impl Keyboard<'_> {
    /// Types this, and reads what is said.
    fn types(&self, line: &str) -> String {
        self.puts(line);
        until(LONG, || fs::read_to_string(self.vm.path("opt/said")).ok()).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn puts(&self, line: &str) {
        let at = |name: &str| self.vm.path("opt").join(name);
        until(LONG, || at("listens").exists().then_some(())).expect("it boots");
        let _ = fs::remove_file(at("said"));
        fs::write(at("typed.new"), line).unwrap();
        fs::rename(at("typed.new"), at("typed")).unwrap();
    }

    /// Reboots the machine, which else, as after every story, is powered off.
    fn reboots(&self) {
        self.reboots.set(true);
        self.puts(
            "printf '[Service]\\nExecStopPost=\\n' >/run/systemd/system/story.service.d/reboot.conf
            systemctl daemon-reload
            systemctl --no-block reboot
            sleep 100",
        );
    }

    /// Waits until the unit neither runs nor starts nor stops.
    fn awaits_end(&self) -> String {
        self.types(&format!(
            "until systemctl is-active {UNIT} | grep -q -x -e failed -e inactive; do sleep 0.1; done; systemctl show -p Result,ExecMainStatus {UNIT}"
        ))
    }
}

impl Drop for Keyboard<'_> {
    fn drop(&mut self) {
        if !self.reboots.get() {
            fs::write(self.vm.path("opt/over"), "").unwrap();
        }
    }
}

/// By the package's unit. Each time all of it is killed at once, guardian and all; Heat is told which step it was, each start goes on where
/// the one before was ended, and at last the states hold: they ran once, of one token's one use.
fn killed_at_each_point() {
    let world = World::new(carrying("el", "rpm"));
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
    world.boot(|keyboard| {
        let reaches = |gate: Gate, step: &str| {
            until(LONG, || world.waits(gate, &json!(step)).then_some(())).unwrap_or_else(|_| panic!("{gate:?}: {:#}", world.progress()));
        };
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
            let heard = world.heard();
            assert_eq!(heard.len(), number + 1, "{gate:?}: {ended} {heard:#?}");
            assert_eq!(heard[number].0, "FAILURE", "{gate:?}: {heard:#?}");
            assert!(heard[number].1.contains(&format!("killed during step {step}")), "{gate:?}: {}", heard[number].1);
        }
        world.set(Gate::States, false);
        keyboard.types(&format!("systemctl start {UNIT}"));
        let ended = keyboard.awaits_end();
        assert!(ended.contains("Result=success"), "{ended}");
    });
    let heard = world.heard();
    assert_eq!((heard.len(), heard[points.len()].0.as_str()), (points.len() + 1, "SUCCESS"), "{heard:#?}");
    assert_eq!(world.vm.text("runs.out"), "run\n");
    assert_eq!(world.master.key_states("vm-1").len(), 1);
    assert_eq!(world.master.key_states("vm-1")[0].0, KeyState::Accepted);
}

/// No package of ours, as after fetch.sh: what the run itself writes goes on with it at each boot. Heat is told once, and the truth.
fn rebooted_at_each_point() {
    let world = World::new(Vm::new("el", &json!({})));
    // What is booted here is not multi-user.target but a smaller one.
    let wants = |target: &str| world.vm.path("etc/systemd/system").join(format!("{target}.target.wants"));
    fs::create_dir_all(wants("story")).unwrap();
    for unit in [UNIT, "heat-salt-bootstrap-signal.service"] {
        symlink(format!("../{unit}"), wants("story").join(unit)).unwrap();
    }
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
        world.boot(|keyboard| {
            if number == 0 {
                keyboard.types("heat-salt-bootstrap run >/opt/first.out 2>&1 &");
            }
            until(LONG, || world.waits(*gate, step).then_some(())).unwrap_or_else(|_| panic!("{gate:?}: {:#}", world.progress()));
            keyboard.reboots();
        });
        assert_eq!(world.heard(), [], "{gate:?}: a reboot is no end");
    }
    world.set(Gate::Heat, false);
    world.boot(|keyboard| {
        let told = || (!world.heard().is_empty()).then_some(());
        until(LONG, told).expect("Heat is told");
        keyboard.awaits_end();
    });
    let heard = world.heard();
    assert_eq!((heard.len(), heard[0].0.as_str()), (1, "SUCCESS"), "{heard:#?}");
    // The reboot ended the first one, and nobody knows whether it held.
    assert_eq!(world.vm.text("runs.out"), "run\nrun\n");
    assert_eq!(world.master.key_states("vm-1").len(), 1);
    for unit in [UNIT, "heat-salt-bootstrap-signal.service"] {
        assert!(!wants("multi-user").join(unit).is_symlink() && !world.vm.path("etc/systemd/system").join(unit).exists(), "{unit} is left");
    }
}

/// Started by a person, or by a script of cloud-init's, on a machine without a package of ours: systemd itself has somebody who is left, of all
/// that belongs to the script's service, and of everything that has this program's name.
fn killed_without_a_unit() {
    let world = World::new(Vm::new("el", &json!({})));
    world.set(Gate::Service, true);
    world.set(Gate::States, false);
    let watched = "until [ \"$(pgrep -c -x heat-salt-boots)\" = 3 ]; do sleep 0.1; done";
    let left = "while pgrep -x heat-salt-boots >/opt/none; do sleep 0.1; done
        ls /etc/systemd/system /etc/systemd/system/*.wants /run/systemd/system | grep heat-salt-bootstrap
        systemctl list-units --no-legend 'heat-salt-bootstrap*'
        ls /var/lib/heat-salt-bootstrap/progress 2>/opt/none";
    world.boot(|keyboard| {
        for (number, (starts, kills)) in [
            ("systemd-run --quiet --unit=script heat-salt-bootstrap run", "systemctl kill --kill-who=all --signal=KILL script.service"),
            ("heat-salt-bootstrap run >/opt/second.out 2>&1 &", "pkill -KILL -x heat-salt-boots"),
        ]
        .into_iter()
        .enumerate()
        {
            keyboard.types(starts);
            until(LONG, || world.waits(Gate::Service, &json!("enroll")).then_some(())).unwrap_or_else(|_| panic!("{:#}", world.progress()));
            keyboard.types(&format!("{watched}; {kills}"));
            until(LONG, || (world.heard().len() > number).then_some(())).expect("Heat is told");
            assert_eq!(keyboard.types(left), "", "{kills}");
            let heard = world.heard();
            assert_eq!((heard.len(), heard[number].0.as_str()), (number + 1, "FAILURE"), "{kills}: {heard:#?}");
            assert!(heard[number].1.contains("killed during step enroll"), "{kills}: {}", heard[number].1);
        }
        world.set(Gate::Service, false);
        let run = keyboard.types("heat-salt-bootstrap run 2>&1");
        assert_eq!(keyboard.types(left), "", "{run}");
        let heard = world.heard();
        assert_eq!((heard.len(), heard[2].0.as_str()), (3, "SUCCESS"), "{heard:#?} {run}");
        // While it tells Heat, what it was about to tell is told in its place.
        world.set(Gate::Heat, true);
        keyboard.types("heat-salt-bootstrap run >/opt/fourth.out 2>&1 &");
        until(LONG, || world.waits(Gate::Heat, &Value::Null).then_some(())).unwrap_or_else(|_| panic!("{:#}", world.progress()));
        world.set(Gate::Heat, false);
        keyboard.types(&format!("{watched}; pkill -KILL -x heat-salt-boots"));
        until(LONG, || (world.heard().len() > 3).then_some(())).expect("Heat is told");
        assert_eq!(keyboard.types(left), "");
        let heard = world.heard();
        assert_eq!((heard.len(), heard[3].0.as_str()), (4, "SUCCESS"), "{heard:#?}");
    });
    assert_eq!(world.vm.text("runs.out"), "run\n");
}

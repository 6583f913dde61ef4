//! A machine at work, all that it meets, and gates at which a run waits: for what happens to it at a point that a test chooses. Somebody
//! sits at it, and types.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cgroup::Starved;
use crate::heat::StandIn;
use crate::master::Master;
use crate::process::{descendants, until};
use crate::vm::{Mirror, Mood, Vm};

/// Longer than a run takes to get anywhere.
const LONG: Duration = Duration::from_secs(120);
const UNIT: &str = "heat-salt-bootstrap.service";

/// What a run waits for, at the gates that are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
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
    /// The states, which are `held`.
    States,
    /// Heat.
    Heat,
}

/// Who is told how it ended.
pub trait Told {
    /// Says nothing from now on to whoever comes, or answers again.
    fn be_silent(&self, silent: bool);
    /// Status and reason of each message that has counted, in the order they came.
    fn heard(&self) -> Vec<(String, String)>;
}

impl Told for StandIn {
    fn be_silent(&self, silent: bool) {
        if silent { self.hang_next(100) } else { self.recover() }
    }

    fn heard(&self) -> Vec<(String, String)> {
        self.signals().into_iter().map(|signal| (signal.status, signal.reason)).collect()
    }
}

/// How the machine is switched on.
#[derive(Clone, Copy)]
pub enum On<'a> {
    /// With systemd alone.
    Bare,
    /// By a cloud, as a new instance of this name with this user_data.
    Cloud(&'a str, &'a str),
    /// Once more, as the instance that it is.
    Again,
}

/// Everything that a bootstrap meets.
pub struct Site<T> {
    /// The master, with its services.
    pub master: Master,
    /// Whom a run tells how it ended.
    pub heat: T,
    /// The repositories.
    pub mirror: Mirror,
    /// The machine.
    pub vm: Vm,
}

impl<T: Told + Sync> Site<T> {
    /// Has gates in the machine, too; all are open but that of the states.
    pub fn new(master: Master, heat: T, mirror: Mirror, vm: Vm) -> Site<T> {
        put_gates(&vm);
        Site { master, heat, mirror, vm }
    }

    /// The machine gets this new disk, as by a rebuild, and stays the instance that it is.
    pub fn rebuild(&mut self, disk: Vm) {
        const SEED: &str = "var/lib/cloud/seed/config_drive/openstack/latest";
        for given in fs::read_dir(self.vm.path(SEED)).into_iter().flatten() {
            let given = given.unwrap();
            fs::create_dir_all(disk.path(SEED)).unwrap();
            fs::copy(given.path(), disk.path(SEED).join(given.file_name())).unwrap();
        }
        put_gates(&disk);
        self.vm = disk;
    }

    /// Closes a gate, or opens it.
    pub fn set(&self, gate: Gate, closed: bool) {
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
            Gate::Heat => self.heat.be_silent(closed),
        }
    }

    /// How far the run has come, as it has noted.
    pub fn progress(&self) -> Value {
        serde_json::from_str(self.vm.text("var/lib/heat-salt-bootstrap/progress").trim_end_matches('\0')).unwrap_or_default()
    }

    /// The run is at this step, and waits at the gate.
    pub fn waits(&self, gate: Gate, step: &Value) -> bool {
        let at_it = match gate {
            Gate::Repository => self.mirror.asked().iter().any(|path| path.contains("repomd") || path.contains("InRelease")),
            Gate::Scriptlet => self.vm.path("held").exists(),
            Gate::States => self.vm.path("runs.out").exists(),
            Gate::Heat => self.vm.path("var/lib/heat-salt-bootstrap/signal.json").exists(),
            _ => true,
        };
        at_it && self.progress()["step"] == *step
    }

    /// Waits for that.
    pub fn reaches(&self, gate: Gate, step: &Value) {
        until(LONG, || self.waits(gate, step).then_some(())).unwrap_or_else(|_| panic!("{gate:?}, {step}: {:#}", self.progress()));
    }

    /// What works here finds no more memory: the kernel ends it, and it alone.
    pub fn starve(&self) {
        // The process that watches calls itself so too, and is its parent.
        let ours = self.vm.processes("heat-salt-boots");
        let worker = ours.iter().find(|pid| ours.iter().any(|other| other != *pid && descendants(*other).contains(pid)));
        let worker = *worker.unwrap_or_else(|| panic!("nobody works: {ours:?}"));
        let _starved = Starved::of(worker).unwrap();
        let is_gone = || (!self.vm.processes("heat-salt-boots").contains(&worker)).then_some(());
        until(LONG, is_gone).expect("the kernel ends it");
    }

    /// Boots a machine of a cloud once more, which somebody in it reboots.
    pub fn boot_to_reboot(&self) {
        let unit = self.vm.path("etc/systemd/system/story.service.d");
        fs::create_dir_all(&unit).unwrap();
        fs::write(unit.join("reboot.conf"), "[Service]\nExecStopPost=\n").unwrap();
        self.vm.boot_again("sleep infinity");
        fs::remove_dir_all(unit).unwrap();
    }

    /// Boots the machine. While it runs, this is done from outside, by a person who may look and type.
    pub fn boot(&self, on: On, does: impl FnOnce(&Keyboard) + Send) {
        for name in ["typed", "doing", "said", "over", "listens"] {
            let _ = fs::remove_file(self.vm.path("opt").join(name));
        }
        if !matches!(on, On::Bare) {
            // The story of such a machine begins when cloud-init has ended, and much happens before.
            let units = self.vm.path("etc/systemd/system");
            fs::create_dir_all(units.join("multi-user.target.wants")).unwrap();
            fs::write(units.join("keyboard.service"), "[Service]\nExecStart=/bin/sh /opt/keyboard\n").unwrap();
            let wanted = units.join("multi-user.target.wants/keyboard.service");
            let _ = std::os::unix::fs::symlink("../keyboard.service", wanted);
            fs::write(self.vm.path("opt/keyboard"), LISTENS).unwrap();
        }
        const UNTIL_OVER: &str = "while [ ! -e /opt/over ]; do sleep 0.1; done";
        thread::scope(|scope| {
            let sits_there = scope.spawn(|| does(&Keyboard { vm: &self.vm, reboots: Cell::new(false) }));
            let console = match on {
                On::Bare => self.vm.boot(LISTENS),
                On::Cloud(name, user_data) => self.vm.boot_with(name, user_data, UNTIL_OVER),
                On::Again => self.vm.boot_again(UNTIL_OVER),
            };
            if let Err(panic) = sits_there.join() {
                let log = self.vm.text("var/log/heat-salt-bootstrap.log");
                let scripts = self.vm.text("var/log/cloud-init-output.log");
                eprintln!("{log}\n{scripts}\nHeat: {:#?}\n{:#}\n{console}", self.heat.heard(), self.progress());
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl<T> Drop for Site<T> {
    fn drop(&mut self) {
        // Who is frozen cannot be told to end.
        for pid in [self.master.api_pid(), self.master.master_pid()].into_iter().flatten() {
            for pid in descendants(i32::try_from(pid).unwrap()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
            }
        }
    }
}

fn put_gates(vm: &Vm) {
    let program = |path: &str, text: &str| {
        fs::create_dir_all(vm.path(path).parent().unwrap()).unwrap();
        fs::write(vm.path(path), text).unwrap();
        fs::set_permissions(vm.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("usr/local/bin/openssl", "#!/bin/sh\nwhile [ -e /opt/no-openssl ]; do sleep 0.1; done\nexec /usr/bin/openssl \"$@\"\n");
    // A state that waits at its gate would keep the minion, and so a reboot, for 90 s.
    program(
        "etc/systemd/system/salt-minion.service.d/gate.conf",
        "[Service]\nExecStartPre=/bin/sh -c 'while [ -e /opt/no-start ]; do sleep 0.1; done'\nTimeoutStartSec=infinity\nTimeoutStopSec=5\n",
    );
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
pub struct Keyboard<'a> {
    vm: &'a Vm,
    reboots: Cell<bool>,
}

impl Keyboard<'_> {
    /// Types this, and reads what is said.
    pub fn types(&self, line: &str) -> String {
        self.puts(line);
        until(LONG, || fs::read_to_string(self.vm.path("opt/said")).ok()).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Types this.
    pub fn puts(&self, line: &str) {
        let at = |name: &str| self.vm.path("opt").join(name);
        until(LONG, || at("listens").exists().then_some(())).expect("it boots");
        let _ = fs::remove_file(at("said"));
        fs::write(at("typed.new"), line).unwrap();
        fs::rename(at("typed.new"), at("typed")).unwrap();
    }

    /// Reboots the machine, which else, as after every story, is powered off.
    pub fn reboots(&self) {
        self.reboots.set(true);
        self.puts(
            "mkdir -p /run/systemd/system/story.service.d
            printf '[Service]\\nExecStopPost=\\n' >/run/systemd/system/story.service.d/reboot.conf
            systemctl daemon-reload
            systemctl --no-block reboot
            sleep 100",
        );
    }

    /// Waits until the unit neither runs nor starts nor stops.
    pub fn awaits_end(&self) -> String {
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

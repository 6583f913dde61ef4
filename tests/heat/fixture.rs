//! What the cases share: one Heat, and VMs that run the agent.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use lab::openstack::{Heat, Stack};
use lab::process::{Finished, Running};
use lab::sandbox::Sandbox;
use serde_json::{Value, json};

/// Longer than anything takes that happens at all.
pub const LONG: Duration = Duration::from_secs(120);

static HEAT: RwLock<Option<Heat>> = RwLock::new(None);

/// Starts the Heat of all cases.
pub fn start() {
    let begun = Instant::now();
    let heat = Heat::start().unwrap_or_else(|error| panic!("no Heat: {error:#}"));
    eprintln!("Heat is up after {:.1} s", begun.elapsed().as_secs_f64());
    *HEAT.write().unwrap() = Some(heat);
}

/// Stops it. Statics are never dropped.
pub fn stop() {
    drop(HEAT.write().unwrap_or_else(PoisonError::into_inner).take());
}

/// The Heat, for a case that leaves it running. Never asked for twice at once by one case: somebody may wait for [`alone`] between.
pub fn shared() -> RwLockReadGuard<'static, Option<Heat>> {
    loop {
        let heat = HEAT.read().unwrap_or_else(PoisonError::into_inner);
        if heat.as_ref().is_none_or(Heat::is_whole) {
            return heat;
        }
        drop(heat);
        drop(alone());
    }
}

/// The Heat, for a case that no other may run beside. Whatever the one before has stopped, or failed before it could start it again, runs.
pub fn alone() -> RwLockWriteGuard<'static, Option<Heat>> {
    let heat = HEAT.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(heat) = heat.as_ref().filter(|heat| !heat.is_whole()) {
        heat.restart().unwrap_or_else(|error| panic!("Heat does not come back: {error:#}"));
    }
    heat
}

/// A name for a stack: this one, and another when the case is tried again, since the stack of its first try is still there.
pub fn named(name: &str) -> String {
    static GIVEN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let times = given.entry(name.to_owned()).and_modify(|times| *times += 1).or_insert(1);
    if *times == 1 { name.to_owned() } else { format!("{name}-{times}") }
}

/// A VM that the agent runs on, with nothing of Salt.
pub struct Vm {
    machine: Sandbox,
}

impl Vm {
    /// One whose configuration tells nothing but its id and whom to signal: `run` refuses it.
    pub fn new(id: &str, signal: Value) -> Vm {
        Vm::with(&json!({"minion": {"id": id}, "signal": signal}))
    }

    /// One with this configuration.
    pub fn with(config: &Value) -> Vm {
        let machine = Sandbox::configured(env!("CARGO_BIN_EXE_heat-salt-bootstrap"), config);
        // All are one machine: a report that one of them has made is told by another.
        machine.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        Vm { machine }
    }

    /// Starts the agent.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.machine.start(arguments)
    }

    /// Runs the agent, and expects this exit code.
    pub fn agent(&self, arguments: &[&str], code: i32) -> Finished {
        let finished = self.start(arguments).finish(LONG).unwrap();
        assert_eq!(finished.code, code, "{arguments:?}: {}", finished.stderr);
        finished
    }

    /// Signals success; the reason is the data too.
    pub fn succeed(&self, reason: &str) {
        self.agent(&["signal", "--status", "success", "--reason", reason], 0);
    }

    /// Signals failure.
    pub fn fail(&self, reason: &str) {
        self.agent(&["signal", "--status", "failure", "--reason", reason], 0);
    }

    /// What the agent keeps of its last run.
    pub fn report(&self) -> Value {
        self.machine.report()
    }

    /// Replaces that.
    pub fn keep_report(&self, report: &Value) {
        self.machine.write("var/lib/heat-salt-bootstrap/report.json", &report.to_string());
    }
}

/// Types this in a shell, where `openstack` is the owner of the stacks and shipped templates lie.
pub fn type_to_client(heat: &Heat, typed: &str) -> Running {
    let python = lab::openstack::python().unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", typed])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/cloud-init"))
        .env("PATH", format!("{}:/usr/bin:/bin", python.parent().unwrap().display()))
        .envs(heat.openrc());
    Running::start(&mut shell).unwrap()
}

/// The endpoint and token of a stack's TOKEN_SIGNAL handle, as a template hands them over.
pub fn token_handle(stack: &Stack) -> Value {
    json!({"endpoint": attribute(stack, "endpoint"), "token": attribute(stack, "token")})
}

/// An attribute of a stack's handle.
pub fn attribute(stack: &Stack, name: &str) -> Value {
    stack.attribute("h", name).unwrap()
}

/// The stack's end: COMPLETE.
pub fn assert_complete(stack: &Stack) {
    let (status, reason) = stack.wait(&["CREATE_COMPLETE", "CREATE_FAILED"], LONG).unwrap();
    assert_eq!(status, "CREATE_COMPLETE", "{reason}");
}

/// The stack's end: FAILED; the reason.
pub fn assert_failed(stack: &Stack) -> String {
    let (status, reason) = stack.wait(&["CREATE_COMPLETE", "CREATE_FAILED"], LONG).unwrap();
    assert_eq!(status, "CREATE_FAILED", "{reason}");
    reason
}

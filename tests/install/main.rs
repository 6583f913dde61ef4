//! Installing salt-minion with real package managers from signed repositories on loopback, on throw-away machines. What the
//! packages hold is a stand-in with a pid, except in the cases that boot a machine: those run real Salt.

mod boot;
mod cases;
mod faults;
mod fetch;
mod life;
mod metadata;
mod names;

use std::process::ExitCode;

use lab::harness::{self, Case, Slots};
use lab::vm;

/// A package manager keeps a core busy; where it waits for a server that plays a fault it does not.
const SLOTS: Slots = Slots { heavy: 3, light: 6 };

fn main() -> ExitCode {
    // What takes longest begins first.
    let all = [life::all(), boot::all(), cases::all(), faults::all(), fetch::all(), metadata::all(), names::all()].into_iter().flatten();
    harness::run("install", SLOTS, all.collect(), vm::prepare, || ())
}

fn case_of(name: impl Into<String>, run: impl Fn() + Send + Sync + 'static) -> Case {
    Case::new(name, move || {
        run();
        Ok(())
    })
}

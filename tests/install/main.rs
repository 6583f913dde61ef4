//! Installing salt-minion with real package managers from signed repositories on loopback, on throw-away machines. What the
//! packages hold is a stand-in with a pid, except in the cases that boot a machine: those run real Salt.

mod boot;
mod cases;
mod faults;
mod fetch;
mod names;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trials =
        cases::all().into_iter().chain(faults::all()).chain(fetch::all()).chain(names::all()).chain(boot::all()).map(|(name, case)| {
            Trial::test(name, move || {
                case();
                Ok(())
            })
        });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A case, by its name.
pub type Case = (String, Box<dyn FnOnce() + Send>);

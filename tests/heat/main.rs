//! The agent against a real Heat: what it sends is seen in the stack, since a 200 proves nothing.
//!
//! `cargo test --test heat` needs MariaDB's and RabbitMQ's programs beside what the other tests need.

mod afterwards;
mod boot;
mod cases;
mod fixture;
mod life;
mod templates;

use std::process::ExitCode;
use std::time::Duration;

use lab::harness::{self, Case, Slots};

/// A case waits for Heat, which has one engine; or it boots a machine.
const SLOTS: Slots = Slots { heavy: 2, light: 4 };

fn main() -> ExitCode {
    let one = |&(name, case): &(&str, fn())| {
        Case::new(name, move || {
            case();
            Ok(())
        })
    };
    let waiting = cases::CASES.iter().chain(templates::CASES).map(|case| one(case).light());
    let all = life::all().into_iter().chain(boot::CASES.iter().map(one)).chain(waiting);
    // Each of them boots an emulated computer.
    let slow = boot::SLOW.iter().map(|case| one(case).by_hand().within(Duration::from_secs(3600)));
    harness::run("heat", SLOTS, all.chain(slow).collect(), fixture::start, fixture::stop)
}

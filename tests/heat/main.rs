//! The agent against a real Heat: what it sends is seen in the stack, since a 200 proves nothing.
//!
//! `cargo test --test heat` needs MariaDB's and RabbitMQ's programs beside what the other tests need.

mod boot;
mod cases;
mod fixture;
mod templates;

use std::process::ExitCode;
use std::time::Duration;

use lab::harness::{self, Case, Slots};

/// What a case waits for is Heat, which has one engine.
const SLOTS: Slots = Slots { heavy: 2, light: 1 };

fn main() -> ExitCode {
    let one = |&(name, case): &(&str, fn())| {
        Case::new(name, move || {
            case();
            Ok(())
        })
    };
    let all = cases::CASES.iter().chain(templates::CASES).chain(boot::CASES).map(one);
    // Each of them boots an emulated computer.
    let slow = boot::SLOW.iter().map(|case| one(case).by_hand().within(Duration::from_secs(3600)));
    harness::run("heat", SLOTS, all.chain(slow).collect(), fixture::start, fixture::stop)
}

//! The agent against a real Heat: what it sends is seen in the stack, since a 200 proves nothing.
//!
//! `cargo test --test heat` needs MariaDB's and RabbitMQ's programs beside what the other tests need.

mod boot;
mod cases;
mod fixture;
mod templates;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// What a case waits for is Heat, which has one engine.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let run = |case: fn()| {
        move || {
            case();
            Ok(())
        }
    };
    let slow = boot::SLOW.iter().map(|&(name, case)| Trial::test(name, run(case)).with_ignored_flag(true));
    let trials: Vec<Trial> = cases::CASES
        .iter()
        .chain(templates::CASES)
        .chain(boot::CASES)
        .map(|&(name, case)| Trial::test(name, run(case)))
        .chain(slow)
        .collect();
    if !arguments.list {
        fixture::start();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    fixture::stop();
    conclusion.exit_code()
}

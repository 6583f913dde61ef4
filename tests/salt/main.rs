//! The program against real Salt of both LTS lines, through its binary, as a VM would run it.
//!
//! `cargo test --test salt` runs everything; `cargo test --test salt -- 3008::keys` a part of it.

mod api;
mod check;
mod ends;
mod enroll;
mod faults;
mod fixture;
mod gate;
mod good;
mod keys;
mod kills;
mod secrets;
mod states;
mod surroundings;

use std::process::ExitCode;

use lab::venv::{Line, salt};
use libtest_mimic::{Arguments, Trial};

/// A test case: a name, and what is done on each line.
type Case = (&'static str, fn(Line));

/// A minion that starts takes a core for two seconds, and the deadlines in the cases count on it.
const THREADS: usize = 3;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let themes: [(&str, &[Case]); 9] = [
        ("good", good::CASES),
        ("api", api::CASES),
        ("keys", keys::CASES),
        ("enroll", enroll::CASES),
        ("states", states::CASES),
        ("ends", ends::CASES),
        ("check", check::CASES),
        ("secrets", secrets::CASES),
        ("surroundings", surroundings::CASES),
    ];
    // What takes longest begins first.
    let mut trials = kills::trials();
    for (theme, cases) in themes {
        for line in Line::ALL {
            for &(name, case) in cases {
                let run = move || {
                    case(line);
                    Ok(())
                };
                trials.push(Trial::test(format!("{line}::{theme}::{name}"), run));
            }
        }
    }
    trials.extend(faults::trials());
    if !arguments.list {
        // Built before the clock of any case runs.
        for line in Line::ALL {
            salt(line).unwrap_or_else(|error| panic!("no Salt {line}: {error:#}"));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    faults::finish();
    kills::finish();
    fixture::stop_masters();
    conclusion.exit_code()
}

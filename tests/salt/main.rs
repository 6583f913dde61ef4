//! The program against real Salt of both LTS lines, through its binary, as a VM would run it.
//!
//! `cargo test --test salt` runs what [`matrix`] chooses; `HSB_ALL=1 cargo test --test salt` everything;
//! `cargo test --test salt -- 3008::keys` a part of it.

mod api;
mod check;
mod ends;
mod enroll;
mod faults;
mod fixture;
mod gate;
mod good;
mod instances;
mod keys;
mod kills;
mod matrix;
mod secrets;
mod states;
mod surroundings;

use std::process::ExitCode;

use lab::harness::{self, Slots};
use lab::venv::{Line, salt};

/// A name, and what is done on each line.
type OnEachLine = (&'static str, fn(Line));

/// A minion that starts takes a core for two seconds. Cells of the table of faults have theirs already, and wait; so do, for the most
/// part, the two cases that have a master for themselves.
const SLOTS: Slots = Slots { heavy: 3, light: 8 };

fn main() -> ExitCode {
    let themes: [(&str, &[OnEachLine]); 10] = [
        ("good", good::CASES),
        ("api", api::CASES),
        ("keys", keys::CASES),
        ("enroll", enroll::CASES),
        ("states", states::CASES),
        ("ends", ends::CASES),
        ("instances", instances::CASES),
        ("check", check::CASES),
        ("secrets", secrets::CASES),
        ("surroundings", surroundings::CASES),
    ];
    let mut all = Vec::new();
    for (theme, cases) in themes {
        for line in Line::ALL {
            all.extend(cases.iter().map(|&(name, run)| matrix::case(line, theme, name, run)));
        }
    }
    matrix::in_order(&mut all);
    // What takes longest begins first.
    all.splice(0..0, kills::cases());
    all.extend(faults::cases());
    // Built before the clock of any case runs.
    let before = || {
        for line in Line::ALL {
            salt(line).unwrap_or_else(|error| panic!("no Salt {line}: {error:#}"));
        }
    };
    let after = || {
        faults::finish();
        kills::finish();
        fixture::stop_masters();
    };
    harness::run("salt", SLOTS, all, before, after)
}

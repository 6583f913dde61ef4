//! What reaches the person who waits: results on standard output, and what went wrong on standard error.

use std::io::Write as _;

use tracing::{error, warn};

use crate::types::failure::Failure;

/// Says on standard error what is wrong and what to do; returns the exit code.
pub fn complain(failure: &Failure) -> u8 {
    error!("{failure}");
    error!("what to do: {}", failure.hint.as_deref().unwrap_or(failure.kind.advice()));
    failure.kind.code()
}

/// Results go to standard output. A reader that has gone away (`| head`) is no failure; says whether there is one.
pub fn print(text: &str) -> bool {
    let mut out = std::io::stdout();
    // What does not end in a line feed is shown, too.
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.inspect_err(|error| warn!("standard output: {error}")).is_ok()
}

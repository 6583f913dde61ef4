//! What reaches the person who waits: results on standard output, and what went wrong on standard error.

use std::io::Write as _;
use std::os::fd::AsFd;

use terminal_size::{Width, terminal_size_of};
use tracing::{error, warn};

use crate::types::excerpt::{CUT, one_line};
use crate::types::failure::Failure;

/// Of a terminal that does not say how wide it is.
const USUAL_WIDTH: u16 = 80;
/// What a terminal shows of a key that ends a program, `^C`.
const ECHO: usize = 2;
/// Takes the last line away, and begins it anew.
pub const ERASE: &str = "\r\x1b[2K";

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

/// What a terminal's last line shows of a run: it is drawn anew as time goes by.
#[derive(Debug, Default)]
pub struct LastLine<'a> {
    /// The step that is under way, and for how many seconds it has been.
    pub step: Option<(&'a str, u64)>,
    /// The seconds that are left.
    pub left: Option<u64>,
    /// Which try comes next, or is under way, from the second on.
    pub attempt: Option<u32>,
    /// What was said last.
    pub message: Option<&'a str>,
}

impl LastLine<'_> {
    /// The line, shorter than a terminal with so many columns: one that is wrapped could not be taken away again. There is room for the `^C`
    /// that a terminal shows. `turn` moves the first character, so that one sees that time goes by.
    pub fn drawn(&self, turn: usize, columns: usize) -> String {
        let mark = ['|', '/', '-', '\\'][turn % 4];
        let step = self.step.map(|(step, seconds)| format!("{step}: {seconds} s"));
        let left = self.left.map(|left| format!("{left} s left"));
        let attempt = self.attempt.map(|attempt| format!("try {attempt}"));
        let facts: Vec<String> = [step, left, attempt].into_iter().flatten().collect();
        let message = self.message.map_or_else(String::new, |message| format!(": {message}"));
        one_line(&format!("{mark} {}{message}", facts.join(", ")), columns.saturating_sub(CUT.len() + ECHO + 1))
    }
}

/// How many columns the terminal has to which this leads.
pub fn columns(stream: impl AsFd) -> usize {
    let width = terminal_size_of(stream).map_or(USUAL_WIDTH, |(Width(width), _)| width);
    usize::from(if width == 0 { USUAL_WIDTH } else { width })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_shorter_than_the_terminal() {
        let message = "salt-api at https://salt.example.net:8000 does not answer; trying again in 1.0 s (try 3)";
        let line = LastLine { step: Some(("login", 6)), left: Some(50), attempt: Some(3), message: Some(message) };
        assert_eq!(line.drawn(1, 200), format!("/ login: 6 s, 50 s left, try 3: {message}"));
        assert_eq!(line.drawn(2, 60), "- login: 6 s, 50 s left, try 3: salt-api at https:/ [...]");
        for columns in 0..120 {
            assert!(line.drawn(0, columns).len() + ECHO < columns.max(CUT.len() + ECHO + 1), "{columns}");
        }
        assert_eq!(LastLine { left: Some(5), ..LastLine::default() }.drawn(4, 80), "| 5 s left");
    }
}

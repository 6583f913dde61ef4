//! What a run that is under way does at this moment, as `status --follow` shows it: put together from its progress and its log.

use serde_json::{Value, json};

use super::terminal::LastLine;
use crate::bootstrap::progress::Progress;
use crate::types::excerpt::without_credentials;

/// What a line of the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The level's word.
    pub level: String,
    /// The message, without the step and the time that are left: those have moved on.
    pub message: String,
}

/// What somebody who follows a run knows of it.
#[derive(Debug, Default)]
pub struct Moment {
    progress: Option<Progress>,
    said: Option<Said>,
    attempt: Option<u32>,
}

impl Moment {
    /// Takes in how far it has come; says whether another step is under way now.
    pub fn came_to(&mut self, progress: Progress) -> bool {
        let moved = self.progress.as_ref().is_none_or(|before| before.step != progress.step);
        if moved && self.progress.is_some() {
            // What was said and counted belonged to the step before.
            (self.said, self.attempt) = (None, None);
        }
        self.progress = Some(progress);
        moved
    }

    /// Takes in what the run said.
    pub fn heard(&mut self, said: Said) {
        self.attempt = attempt(&said.message).or(self.attempt);
        self.said = Some(said);
    }

    /// How far it has come, once that is known.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    fn step(&self) -> Option<&str> {
        self.progress.as_ref()?.step.as_deref()
    }

    fn left(&self, now: u64) -> Option<u64> {
        Some(self.progress.as_ref()?.ends?.saturating_sub(now))
    }

    /// For how long the step has been under way: it began when the progress was written.
    fn seconds(&self, now: u64) -> u64 {
        let written = self.progress.as_ref().map_or(now, |progress| progress.known.started + progress.known.seconds as u64);
        now.saturating_sub(written)
    }

    /// As a line of its own: `login, 1492 s left: ...`.
    pub fn line(&self, now: u64) -> String {
        let left = self.left(now).map_or_else(String::new, |left| format!(", {left} s left"));
        let message = self.said.as_ref().map_or_else(String::new, |said| format!(": {}", said.message));
        format!("{}{left}{message}\n", self.step().unwrap_or("between two steps"))
    }

    /// As the last line of a terminal that has so many columns.
    pub fn drawn(&self, now: u64, turn: usize, columns: usize) -> String {
        let step = (self.step().unwrap_or("between two steps"), self.seconds(now));
        let message = self.said.as_ref().map(|said| said.message.as_str());
        LastLine { step: Some(step), left: self.left(now), attempt: self.attempt, message }.drawn(turn, columns)
    }

    /// For programs: an object a line.
    pub fn json(&self, now: u64, state: &str) -> Value {
        let mut shown =
            json!({"state": state, "step": self.step(), "seconds": self.seconds(now), "left": self.left(now), "attempt": self.attempt});
        if let Some(Progress { pid, known, .. }) = &self.progress {
            (shown["pid"], shown["verb"], shown["minion_id"]) = (json!(pid), json!(known.verb), json!(known.minion_id));
        }
        if let Some(Said { level, message }) = &self.said {
            (shown["level"], shown["message"]) = (json!(level), json!(message));
        }
        shown
    }
}

/// What a line of the log file says, if it is of this process and no detail: `2026-11-23T22:46:39.123Z info  [7] [login, 5 s left] ...`.
pub fn said(line: &str, pid: u32) -> Option<Said> {
    let (_, line) = line.split_once(' ')?;
    let (level, rest) = line.split_once('[')?;
    let (level, rest) = (level.trim(), rest.strip_prefix(&format!("{pid}] "))?);
    if !["info", "warn", "error"].contains(&level) {
        return None;
    }
    let message = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(rest, |(_, message)| message);
    Some(Said { level: level.to_owned(), message: without_credentials(message).into_owned() })
}

/// Which try comes next, of a message that says so (`Wait::retry`).
pub fn attempt(message: &str) -> Option<u32> {
    message.strip_suffix(')')?.rsplit_once(" (try ")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::report::Circumstances;

    fn at(step: &str) -> Progress {
        let known =
            Circumstances { verb: "run".into(), minion_id: "web-1".into(), started: 1000, seconds: 4.5, ..Circumstances::default() };
        Progress { pid: 7, known, step: Some(step.into()), ended: None, ends: Some(1060), continues: false, reports: false }
    }

    #[test]
    fn a_line_of_the_log_is_taken_apart() {
        let of = |level: &str, message: &str| Some(Said { level: level.into(), message: message.into() });
        for (line, expected) in [
            (
                "2026-11-23T22:46:39.123Z info  [7] [login, 5 s left] closed; trying again in 1.0 s (try 2)",
                of("info", "closed; trying again in 1.0 s (try 2)"),
            ),
            ("2026-11-23T22:46:39.123Z warn  [7] a file is open", of("warn", "a file is open")),
            ("2026-11-23T22:46:39.123Z error [7] [5 s left] https://u:p@h/ failed", of("error", "https://***@h/ failed")),
            ("2026-11-23T22:46:39.123Z debug [7] [login, 5 s left] POST https://h/", None),
            ("2026-11-23T22:46:39.123Z info  [77] another one", None),
            ("    the second line of a message", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(said(line, 7), expected, "{line}");
        }
    }

    #[test]
    fn a_step_begins_with_nothing_said_and_counted() {
        let mut moment = Moment::default();
        assert_eq!(moment.line(1010), "between two steps\n");
        moment.heard(Said { level: "info".into(), message: "was said before anybody knew of a step".into() });
        assert!(moment.came_to(at("login")));
        assert_eq!(moment.line(1010), "login, 50 s left: was said before anybody knew of a step\n");
        moment.heard(Said { level: "info".into(), message: "login: closed; trying again in 1.0 s (try 3)".into() });
        assert!(!moment.came_to(at("login")));
        assert_eq!(moment.drawn(1010, 1, 81), "/ login: 6 s, 50 s left, try 3: login: closed; trying again in 1.0 s (tr [...]");
        moment.heard(Said { level: "warn".into(), message: "\u{1b}[31m\u{fc}ber".into() });
        assert_eq!(moment.drawn(1070, 4, 81), "| login: 66 s, 0 s left, try 3: [31m\u{fc}ber");
        let shown = moment.json(1010, "under-way");
        assert_eq!((&shown["attempt"], &shown["level"], &shown["seconds"]), (&json!(3), &json!("warn"), &json!(6)));
        assert!(moment.came_to(at("connect")));
        assert_eq!(moment.drawn(900, 2, 81), "- connect: 0 s, 160 s left");
    }
}

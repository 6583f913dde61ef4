//! `status --follow`: what a run does that another process is at, until it has ended.

use std::io::{IsTerminal, stdout};
use std::thread;
use std::time::{Duration, Instant};

use super::logging::{FILE, TICK};
use super::moment::{self, Moment, Said};
use super::terminal::{ERASE, columns, print};
use crate::bootstrap::progress::Progress;
use crate::bootstrap::state::Store;
use crate::system::clock;
use crate::system::files::Root;
use crate::system::log_file::LogReader;

/// Whoever watches a run that was killed takes the lock at once, to report in its place. If nobody has after so long, nobody does.
const TAKING_OVER: Duration = Duration::from_secs(5);
/// What is said meanwhile.
const LEFT_ALONE: &str = "nobody works on it any more; waiting for whoever reports in its place";

/// In what form it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A last line that is drawn anew, below the steps that have ended.
    Redrawn,
    /// A line whenever something has changed.
    Lines,
    /// The same as JSON.
    Json,
}

/// Somebody who looks again and again.
struct Follower {
    form: Form,
    store: Store,
    log: LogReader,
    moment: Moment,
    /// Of how many steps the end was shown.
    ended: usize,
    /// How often it has looked.
    turn: usize,
    /// Is there somebody who reads it?
    is_read: bool,
}

/// Shows the run that is under way until it has ended. Says whether there was one.
pub fn follow(as_json: bool, root: &Root, store: &Store) -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
    let form = match (as_json, stdout().is_terminal() && !dumb) {
        (true, _) => Form::Json,
        (false, true) => Form::Redrawn,
        (false, false) => Form::Lines,
    };
    let log = LogReader::of(&root.at(FILE));
    let mut follower = Follower { form, store: store.clone(), log, moment: Moment::default(), ended: 0, turn: 0, is_read: true };
    follower.until_the_end()
}

impl Follower {
    fn until_the_end(&mut self) -> bool {
        let mut left_alone: Option<Instant> = None;
        loop {
            let (runner, progress) = (self.store.runner(), under_way(&self.store));
            let followed = self.moment.progress().map(|progress| progress.pid);
            match (runner, progress) {
                // Another one has begun since.
                (Some(runner), Some(progress)) if followed.is_some_and(|pid| pid != progress.pid) && runner == progress.pid.to_string() => {
                    break;
                }
                // One that was killed is not followed only because the next one has the lock and has not yet written what it does.
                (Some(runner), Some(progress)) if followed.is_some() || runner == progress.pid.to_string() => {
                    left_alone = None;
                    self.look(progress);
                }
                (Some(_), _) => left_alone = None,
                (None, Some(_)) if followed.is_some() => {
                    if left_alone.is_none() {
                        self.moment.heard(Said { level: "warn".to_owned(), message: LEFT_ALONE.to_owned() });
                        self.tell(clock::seconds());
                    }
                    self.draw(self.moment.drawn(clock::seconds(), self.turn, columns(stdout())));
                    if left_alone.get_or_insert_with(Instant::now).elapsed() >= TAKING_OVER {
                        break;
                    }
                }
                (None, _) => break,
            }
            if !self.is_read {
                break;
            }
            self.turn += 1;
            thread::sleep(TICK);
        }
        self.draw(String::new());
        if let Some(pid) = self.moment.progress().map(|progress| progress.pid) {
            self.hear(pid, clock::seconds());
        }
        let was_followed = self.moment.progress().is_some();
        // For a person `status` says that.
        if let (Form::Json, None, Some(cut_off)) = (self.form, self.store.runner(), under_way(&self.store)) {
            self.moment.came_to(cut_off);
            self.say(&format!("{}\n", self.moment.json(clock::seconds(), "cut-off")));
        }
        was_followed
    }

    fn look(&mut self, progress: Progress) {
        let (pid, now) = (progress.pid, clock::seconds());
        if self.moment.progress().is_none() {
            // Of what was said before somebody looked, the last line is enough.
            let before: Vec<_> = self.log.lines().iter().filter_map(|line| moment::said(line, pid)).collect();
            self.moment.came_to(progress);
            before.into_iter().for_each(|said| self.moment.heard(said));
            self.tell(now);
        } else {
            let moved = self.moment.came_to(progress);
            // What was said while the step changed is the next step's at the worst.
            if !self.hear(pid, now) && moved {
                self.tell(now);
            }
        }
        if self.form == Form::Redrawn {
            self.draw_steps();
            self.draw(self.moment.drawn(now, self.turn, columns(stdout())));
        }
    }

    /// Passes on what the run has said since; says whether there was anything.
    fn hear(&mut self, pid: u32, now: u64) -> bool {
        let all: Vec<_> = self.log.lines().iter().filter_map(|line| moment::said(line, pid)).collect();
        let any = !all.is_empty();
        for said in all {
            self.moment.heard(said);
            self.tell(now);
        }
        any
    }

    fn tell(&mut self, now: u64) {
        match self.form {
            Form::Redrawn => (),
            Form::Lines => self.say(&self.moment.line(now)),
            Form::Json => self.say(&format!("{}\n", self.moment.json(now, "under-way"))),
        }
    }

    /// The steps that have ended since stand above the line that is drawn anew.
    fn draw_steps(&mut self) {
        let Some(Progress { known, step, .. }) = self.moment.progress() else { return };
        let under_way = usize::from(step.is_some());
        let steps = known.steps.get(self.ended..known.steps.len().saturating_sub(under_way)).unwrap_or_default();
        let lines: String = steps.iter().map(|step| format!("{ERASE}{}", super::output::step(step))).collect();
        self.ended += steps.len();
        self.say(&lines);
    }

    fn draw(&mut self, line: String) {
        if self.form == Form::Redrawn {
            self.say(&format!("{ERASE}{line}"));
        }
    }

    fn say(&mut self, text: &str) {
        self.is_read = self.is_read && print(text);
    }
}

fn under_way(store: &Store) -> Option<Progress> {
    Progress::of(store).filter(|progress| progress.ended.is_none())
}

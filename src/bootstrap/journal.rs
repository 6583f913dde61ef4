//! The journal of a run: which step is under way, how long each took, what is known so far. It is
//! shared with the thread that reports if the one that works cannot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::span::EnteredSpan;
use tracing::{info, info_span, warn};

use super::progress::Progress;
use super::state::Store;
use crate::system::clock;
use crate::system::retry::Wait;
use crate::types::deadline::Deadline;
use crate::types::failure::{Fact, Failure};
use crate::types::names::Jid;
use crate::types::report::{Circumstances, States, Step};
use crate::types::step::StepName;

/// Everybody who holds a copy writes into the same journal.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Entries>>);

struct Entries {
    begun: Instant,
    known: Circumstances,
    current: Option<(StepName, Instant)>,
    jobs_to_clean: Vec<Jid>,
    shown_in: Option<Store>,
    deadline: Option<Deadline>,
    continues: bool,
    reports: bool,
}

/// What a step brought, and whether anything had to change for it.
pub struct Changed<T> {
    value: T,
    changed: bool,
}

/// A step that is under way.
struct Open {
    begun: Instant,
    wait: Wait,
    span: EnteredSpan,
}

impl<T> Changed<T> {
    /// Something was changed.
    pub fn yes(value: T) -> Changed<T> {
        Changed { value, changed: true }
    }

    /// Everything was in place.
    pub fn no(value: T) -> Changed<T> {
        Changed { value, changed: false }
    }

    /// As `changed` says.
    pub fn when(value: T, changed: bool) -> Changed<T> {
        Changed { value, changed }
    }
}

impl Journal {
    /// Begins a journal for a verb.
    pub fn begin(verb: &str, minion_id: &str) -> Journal {
        let started = clock::seconds();
        let known = Circumstances { verb: verb.to_owned(), minion_id: minion_id.to_owned(), started, ..Circumstances::default() };
        Journal(Arc::new(Mutex::new(Entries {
            begun: Instant::now(),
            known,
            current: None,
            jobs_to_clean: Vec::new(),
            shown_in: None,
            deadline: None,
            continues: false,
            reports: false,
        })))
    }

    /// Takes a step: what `work` returns is passed on, and how it went is recorded. A step that
    /// fails stays the current one, so that the report can name it.
    pub fn step<T>(&self, name: StepName, wait: &Wait, work: impl FnOnce(&Wait) -> Result<Changed<T>, Failure>) -> Result<T, Failure> {
        let open = self.open(name, wait);
        let result = work(&open.wait);
        self.close(name, open, result.as_ref().ok().map(|did| did.changed));
        result.map(|did| did.value)
    }

    // Apart from `step`, of which there is one for each kind of result.
    fn open(&self, name: StepName, wait: &Wait) -> Open {
        let begun = Instant::now();
        // The log names the step beside whatever is said meanwhile.
        let span = info_span!("step", name = name.as_str()).entered();
        let mut entries = self.entries();
        entries.current = Some((name, begun));
        entries.show(None);
        Open { begun, wait: wait.counting(), span }
    }

    /// `changed` says whether it did, of a step that did not fail.
    fn close(&self, name: StepName, open: Open, changed: Option<bool>) {
        drop(open.span);
        let seconds = open.begun.elapsed().as_secs_f64();
        let (ended_well, changed) = (changed.is_some(), changed.unwrap_or(false));
        let mut entries = self.entries();
        entries.known.steps.push(Step { name: name.to_string(), seconds: rounded(seconds), changed, attempts: open.wait.attempts() });
        if ended_well {
            entries.current = None;
            entries.show(None);
        }
        drop(entries);
        match (ended_well, changed) {
            (true, true) => info!("{name}: changed ({seconds:.2} s)"),
            (true, false) => info!("{name}: ok ({seconds:.2} s)"),
            (false, _) => warn!("{name}: failed after {seconds:.2} s"),
        }
    }

    /// By then the run has ended.
    pub fn note_deadline(&self, deadline: Deadline) {
        self.entries().deadline = Some(deadline);
    }

    /// From now on the store shows how far this has come, to whoever looks and to whoever has to report if this is killed.
    pub fn show_in(&self, store: &Store) {
        let mut entries = self.entries();
        entries.shown_in = Some(store.clone());
        entries.show(None);
    }

    /// The report is about to be kept.
    pub fn note_report(&self) {
        let mut entries = self.entries();
        entries.reports = true;
        entries.show(None);
    }

    /// Everybody has been told, and this is the exit code.
    pub fn note_end(&self, code: u8) {
        self.entries().show(Some(code));
    }

    /// The same of a run that a reboot has cut off.
    pub fn note_cut(&self, code: u8) {
        let mut entries = self.entries();
        entries.continues = true;
        entries.show(Some(code));
    }

    /// The same, and nobody else is there to take away what the store shows.
    pub fn leave_no_trace(&self) {
        if let Some(store) = &self.entries().shown_in {
            Progress::forget(store).unwrap_or_else(|failure| warn!("{failure}"));
        }
    }

    /// The configuration says what the minion is called.
    pub fn name_minion(&self, id: &str) {
        self.entries().known.minion_id = id.to_owned();
    }

    /// This is the instance, if that can be known.
    pub fn name_instance(&self, id: Option<String>) {
        self.entries().known.instance_id = id;
    }

    /// The states run as this job.
    pub fn name_job(&self, jid: &Jid) {
        self.entries().known.jid = Some(jid.to_string());
    }

    /// Something that whoever reads the report should know, however the run ends.
    pub fn note_fact(&self, fact: Fact, value: String) {
        self.entries().known.facts.insert(fact.as_str().to_owned(), value);
    }

    /// This bootstrap has an id.
    pub fn name_bootstrap(&self, id: &str) {
        self.entries().known.bootstrap_id = Some(id.to_owned());
    }

    /// The id of this bootstrap, if it has one by now.
    pub fn bootstrap_id(&self) -> Option<String> {
        self.entries().known.bootstrap_id.clone()
    }

    /// The state run had a result.
    pub fn note_states(&self, states: States) {
        self.entries().known.states = Some(states);
    }

    /// A job of ours lies in the minion's cache, to be removed once the report is safe.
    pub fn note_job_to_clean(&self, jid: Jid) {
        self.entries().jobs_to_clean.push(jid);
    }

    /// The jobs that were noted.
    pub fn jobs_to_clean(&self) -> Vec<Jid> {
        self.entries().jobs_to_clean.clone()
    }

    /// The step that is under way, or that failed.
    pub fn current_step(&self) -> Option<String> {
        self.entries().current.map(|(name, _)| name.to_string())
    }

    /// What is known now.
    pub fn circumstances(&self) -> Circumstances {
        self.entries().circumstances()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Entries are whole between any two statements that hold the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn show(&self, ended: Option<u8>) {
        if let Some(store) = &self.shown_in {
            let step = self.current.map(|(name, _)| name.to_string());
            // Anew each time: somebody may have set the clock meanwhile.
            let ends = self.deadline.map(|deadline| clock::seconds() + deadline.remaining().as_secs());
            let (known, continues, reports) = (self.circumstances(), self.continues, self.reports);
            Progress { pid: std::process::id(), known, step, ended, ends, continues, reports }.keep(store);
        }
    }

    fn circumstances(&self) -> Circumstances {
        let mut known = self.known.clone();
        known.seconds = rounded(self.begun.elapsed().as_secs_f64());
        // A step that somebody else had to end was never recorded.
        if let Some((name, begun)) = self.current.filter(|(name, _)| known.steps.last().is_none_or(|last| last.name != name.as_str())) {
            known.steps.push(Step { name: name.to_string(), seconds: rounded(begun.elapsed().as_secs_f64()), changed: false, attempts: 1 });
        }
        known
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

//! The report: what happened, in the one form that the file, Heat and `status` share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::excerpt::without_credentials;
use super::failure::{Failure, Kind};
use super::version::VERSION;

/// The content of `report.json` and of the `data` that Heat gets. Field names are fixed by the
/// project's contract; new fields may be added, none is renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The form of this document; 1.
    pub schema: u32,
    /// The version of the program that wrote it.
    pub agent: String,
    /// Which verb was run (`run`, `install`, `accept`, `apply`).
    #[serde(default)]
    pub verb: String,
    /// The minion's id, or the host name where the configuration gave no usable one.
    pub minion_id: String,
    /// The id that ties the hook, the job and a re-run together; absent before there is one.
    pub bootstrap_id: Option<String>,
    /// The instance it is about: the id that cloud-init has of Nova, or the machine's.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// The job that ran the states, once there was one.
    #[serde(default)]
    pub jid: Option<String>,
    /// Did everything hold?
    pub verdict: Verdict,
    /// The exit code.
    pub code: u8,
    /// The short stable word for the code.
    pub reason: String,
    /// The step that failed.
    pub step: Option<String>,
    /// One sentence for a person.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Details that belong to the failure.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// When the verb began, in seconds since 1970.
    pub started: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The steps in the order in which they were begun.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What the state run brought, where it came to one.
    pub states: Option<States>,
    /// Whether Heat was told.
    pub signal: Option<Signal>,
}

/// The two ends a run can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything holds.
    Done,
    /// Something does not.
    Failed,
}

/// One step of a bootstrap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, as in the log.
    pub name: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Whether it changed anything here or on the master.
    pub changed: bool,
    /// How often it was tried.
    pub attempts: u32,
}

/// The result of the state run as counts, with the failing states in full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct States {
    /// How many states ran.
    pub total: usize,
    /// How many of them have the result `false`.
    pub failed: usize,
    /// How many report changes.
    pub changed: usize,
    /// How many were only tried, since somebody has set `test: True`, and would change something.
    #[serde(default)]
    pub pending: usize,
    /// The ones that failed.
    pub failures: Vec<FailedState>,
}

/// A state that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedState {
    /// The state's id in its SLS.
    pub id: String,
    /// The SLS it stands in.
    pub sls: String,
    /// Salt's comment on it.
    pub comment: String,
}

/// How Heat was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The kind of handle, in Heat's word, such as TOKEN_SIGNAL.
    pub transport: String,
    /// Did the endpoint take it?
    pub delivered: bool,
    /// Why not, where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is known of a run apart from how it ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Circumstances {
    /// Which verb was run.
    pub verb: String,
    /// The minion's id as far as it is known.
    pub minion_id: String,
    /// The id of this bootstrap, once there is one.
    pub bootstrap_id: Option<String>,
    /// The instance on which it runs, if that can be known.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// The job that runs the states, once there is one.
    #[serde(default)]
    pub jid: Option<String>,
    /// Seconds since 1970 at the start.
    pub started: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// What else is worth knowing, by name.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// The steps so far.
    pub steps: Vec<Step>,
    /// The result of the state run, where there is one.
    pub states: Option<States>,
}

impl Report {
    /// The report of a run that ended well; `message` says what holds.
    pub fn done(of: Circumstances, message: String) -> Report {
        Report::new(of, Verdict::Done, Kind::Done, message)
    }

    /// The report of a run that failed in `step`.
    pub fn failed(of: Circumstances, step: Option<String>, failure: Failure) -> Report {
        let mut report = Report::new(of, Verdict::Failed, failure.kind, failure.message);
        report.step = step;
        let masked = |text: String| without_credentials(&text).into_owned();
        report.hint = Some(masked(failure.hint.unwrap_or_else(|| failure.kind.advice().to_owned())));
        report.facts.extend(failure.facts.into_iter().map(|(fact, text)| (fact.as_str().to_owned(), masked(text))));
        report
    }

    fn new(of: Circumstances, verdict: Verdict, kind: Kind, message: String) -> Report {
        Report {
            schema: 1,
            agent: VERSION.to_owned(),
            verb: of.verb,
            minion_id: of.minion_id,
            bootstrap_id: of.bootstrap_id,
            instance_id: of.instance_id,
            jid: of.jid,
            verdict,
            code: kind.code(),
            reason: kind.reason().to_owned(),
            step: None,
            message: without_credentials(&message).into_owned(),
            hint: None,
            facts: of.facts,
            started: of.started,
            seconds: of.seconds,
            steps: of.steps,
            states: of.states,
            signal: None,
        }
    }

    /// Is Heat told of this? A link of the chain that did its part has nothing to tell yet, and whoever leaves never has.
    pub fn is_told(&self) -> bool {
        match self.verb.as_str() {
            "run" | "apply" => true,
            "install" | "accept" => self.verdict == Verdict::Failed,
            _ => false,
        }
    }

    /// Is it about the run that began then?
    pub fn is_of(&self, run: &Circumstances) -> bool {
        (self.started, &self.verb) == (run.started, &run.verb)
    }

    /// The one line that Heat shows as the reason of the stack's state.
    pub fn line(&self) -> String {
        match &self.step {
            Some(step) => format!("{}: {} (step {step}, code {})", self.reason, self.message, self.code),
            None => format!("{}: {} (code {})", self.reason, self.message, self.code),
        }
    }
}

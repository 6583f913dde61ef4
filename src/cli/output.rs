//! What `status`, `explain` and `check` show.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::bootstrap::progress::Progress;
use crate::types::failure::{Failure, Kind};
use crate::types::finding::{Finding, State};
use crate::types::report::{Report, Step, Verdict};
use crate::types::time;

/// A report as a person reads it.
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, text: &mut String) -> std::fmt::Result {
    let verdict = match report.verdict {
        Verdict::Done => "DONE",
        Verdict::Failed => "FAILED",
    };
    writeln!(text, "{verdict}  {} ({}, exit code {})", report.minion_id, report.reason, report.code)?;
    writeln!(text, "  {}", report.message.replace('\n', "\n  "))?;
    if let Some(step) = &report.step {
        writeln!(text, "  in step: {step}")?;
    }
    if let Some(hint) = &report.hint {
        writeln!(text, "  what to do: {hint}")?;
    }
    for (name, fact) in &report.facts {
        writeln!(text, "  {name}: {}", fact.trim().replace('\n', "\n    "))?;
    }
    if let Some(states) = &report.states {
        write!(text, "\nStates: {} ran, {} failed, {} with changes", states.total, states.failed, states.changed)?;
        if states.pending > 0 {
            write!(text, ", {} only tried", states.pending)?;
        }
        writeln!(text)?;
        for failed in &states.failures {
            writeln!(text, "  FAILED {} ({}): {}", failed.id, failed.sls, failed.comment.replace('\n', "\n    "))?;
        }
    }
    writeln!(text, "\nSteps of `{}`, {:.2} s in all:", report.verb, report.seconds)?;
    for step in &report.steps {
        let share = if report.seconds > 0.0 { step.seconds / report.seconds } else { 0.0 };
        let bar = "#".repeat((share.min(1.0) * 30.0).round() as usize);
        writeln!(text, "  {:10} {:8.2} s  {bar:30}  {}", step.name, step.seconds, change(step))?;
    }
    match &report.signal {
        None => writeln!(text, "\nHeat: not configured")?,
        Some(signal) if signal.delivered => writeln!(text, "\nHeat: told ({})", signal.transport)?,
        Some(signal) => writeln!(text, "\nHeat: NOT told ({}): {}", signal.transport, signal.error.as_deref().unwrap_or("unknown"))?,
    }
    if let Some(id) = &report.bootstrap_id {
        writeln!(text, "Bootstrap id: {id}")?;
    }
    Ok(())
}

/// A step that has ended, in a line.
pub fn step(step: &Step) -> String {
    format!("  {:10} {:8.2} s  {}\n", step.name, step.seconds, change(step))
}

fn change(step: &Step) -> String {
    let change = if step.changed { "changed" } else { "as it was" };
    if step.attempts > 1 { format!("{change}, {} tries", step.attempts) } else { change.to_owned() }
}

/// A run that has not come to its end; `runner` is the process that works on it, if there is one.
pub fn under_way(progress: &Progress, runner: Option<&str>) -> String {
    let Progress { known, .. } = progress;
    let began = time::written(known.started as i64);
    let of = format!("`{}` for {}, which began at {began}", known.verb, known.minion_id);
    let mut text = match runner {
        Some(pid) => format!("UNDER WAY  {of} (pid {pid}): {}\n", progress.during()),
        None => format!(
            "CUT OFF  {of}: killed {}\n  what to do: run it again, it continues where it stopped; `signal --killed` tells Heat that it failed\n",
            progress.during()
        ),
    };
    for step in &known.steps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:10} {:8.2} s", step.name, step.seconds);
    }
    text
}

/// What a kind of failure means.
pub fn explanation(kind: Kind) -> String {
    format!("{} {}\n  {}\n  What to do: {}\n", kind.code(), kind.reason(), kind.meaning(), kind.advice())
}

/// What a look that did not end says of itself.
const LATE: &str = "the check did not finish in time";

/// Findings as a table: one line each, below a wrong one what to do about it.
pub fn findings(findings: &[Finding]) -> String {
    let width = findings.iter().map(|one| one.row.to_string().chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { row, state } in findings {
        let (word, detail) = match state {
            State::Fine(detail) => ("ok", detail.clone()),
            State::Wrong(failure) => ("WRONG", failure.to_string()),
            State::Unknown(why) => ("unknown", why.clone()),
            State::Late => ("unknown", LATE.to_owned()),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{word:7} {:width$}  {}", row.to_string(), detail.trim().replace('\n', "\n          "));
        if let State::Wrong(failure) = state {
            let _ = writeln!(text, "          what to do: {}", advice_of(failure).replace('\n', "\n          "));
        }
    }
    text
}

/// The same for programs.
pub fn findings_json(findings: &[Finding]) -> Value {
    let one = |Finding { row, state }: &Finding| {
        let (word, detail, hint) = match state {
            State::Fine(detail) => ("ok", detail.as_str(), None),
            State::Wrong(failure) => ("wrong", failure.message.as_str(), Some(advice_of(failure))),
            State::Unknown(why) => ("unknown", why.as_str(), None),
            State::Late => ("unknown", LATE, None),
        };
        json!({"what": row.to_string(), "state": word, "said": detail, "hint": hint, "code": state.code()})
    };
    Value::Array(findings.iter().map(one).collect())
}

fn advice_of(failure: &Failure) -> &str {
    failure.hint.as_deref().unwrap_or(failure.kind.advice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::finding::Subject;

    fn some() -> Vec<Finding> {
        let of = |subject: Subject, state| Finding { row: subject.alone(), state };
        let failure = Failure::new(Kind::KeyConflict, "another key\nis there");
        vec![
            of(Subject::Configuration, State::Fine("can be used".into())),
            of(Subject::OwnKey, State::Wrong(failure.clone())),
            of(Subject::Login, State::Wrong(failure.hint("Do this."))),
            of(Subject::Hook, State::Unknown("nobody knows".into())),
            of(Subject::Heat, State::Late),
        ]
    }

    #[test]
    fn a_table_for_people() {
        let expected = [
            "ok      configuration  can be used",
            "WRONG   own key        key-conflict: another key",
            "          is there",
            &format!("          what to do: {}", Kind::KeyConflict.advice()),
            "WRONG   login          key-conflict: another key",
            "          is there",
            "          what to do: Do this.",
            "unknown hook           nobody knows",
            "unknown heat           the check did not finish in time",
        ];
        assert_eq!(findings(&some()).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn and_an_array_for_programs() {
        let shown = findings_json(&some());
        assert_eq!(shown[0], json!({"what": "configuration", "state": "ok", "said": "can be used", "hint": null, "code": null}));
        assert_eq!(shown[2], json!({"what": "login", "state": "wrong", "said": "another key\nis there", "hint": "Do this.", "code": 42}));
        assert_eq!((&shown[3]["state"], &shown[3]["code"]), (&json!("unknown"), &json!(null)));
        assert_eq!((&shown[4]["state"], &shown[4]["code"]), (&json!("unknown"), &json!(60)));
    }
}

//! What `status` and `explain` show to a person.

use std::fmt::Write as _;

use crate::words::failure::Kind;
use crate::words::report::{Report, Verdict};

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
        writeln!(text, "\nStates: {} ran, {} failed, {} with changes", states.total, states.failed, states.changed)?;
        for failed in &states.failures {
            writeln!(text, "  FAILED {} ({}): {}", failed.id, failed.sls, failed.comment.replace('\n', "\n    "))?;
        }
    }
    writeln!(text, "\nSteps of `{}`, {:.2} s in all:", report.verb, report.seconds)?;
    for step in &report.steps {
        let share = if report.seconds > 0.0 { step.seconds / report.seconds } else { 0.0 };
        let bar = "#".repeat((share.min(1.0) * 30.0).round() as usize);
        let tries = if step.attempts > 1 { format!(", {} tries", step.attempts) } else { String::new() };
        let change = if step.changed { "changed" } else { "as it was" };
        writeln!(text, "  {:10} {:8.2} s  {bar:30}  {change}{tries}", step.name, step.seconds)?;
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

/// What a kind of failure means.
pub fn explanation(kind: Kind) -> String {
    format!("{} {}\n  {}\n  What to do: {}\n", kind.code(), kind.reason(), kind.meaning(), kind.advice())
}

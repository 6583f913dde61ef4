//! What the end of a state run means.

use std::path::Path;

use crate::bootstrap::context::Context;
use crate::minion::job::Outcome;
use crate::salt::settings::Apply;
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::names::Jid;
use crate::types::report::States;

pub fn still_running(apply: &Apply, jid: &Jid) -> Failure {
    Failure::new(Kind::StateTimeout, format!("{} was still running as job {jid} when the time was up", apply.argument()))
        .fact(Fact::Jid, jid.as_str())
}

pub fn killed_twice(apply: &Apply, jid: &Jid) -> Failure {
    let what = format!("job {jid} ended without a result, twice: something kills the minion while it runs {}", apply.argument());
    Failure::new(Kind::StateTimeout, what)
}

/// What a state run's end means. `tests_by` is the file that makes this minion try states only, if it was not the job itself.
pub fn result_of(context: &Context, apply: &Apply, jid: &Jid, outcome: Outcome, tests_by: Option<&Path>) -> Result<States, Failure> {
    let names = apply.argument();
    match outcome {
        Outcome::Held(states) => {
            context.journal.note_states(states.clone());
            Ok(states)
        }
        Outcome::Failed(states) => {
            context.journal.note_states(states.clone());
            let ids: Vec<&str> = states.failures.iter().map(|failed| failed.id.as_str()).collect();
            let which = match ids.len() {
                0 => "no state failed, but Salt reports the run as failed".to_owned(),
                1..=5 => format!("{} of {} states failed: {}", ids.len(), states.total, ids.join(", ")),
                more => format!("{more} of {} states failed: {}, ...", states.total, ids[..5].join(", ")),
            };
            Err(Failure::new(Kind::StateFailed, format!("{names} failed: {which}")).fact(Fact::Jid, jid.as_str()))
        }
        Outcome::Pending(states) => {
            context.journal.note_states(states.clone());
            let whose = match tests_by {
                Some(path) => format!("the minion's option `test` in {} is true", path.display()),
                None => "the job was given test=True, by the reactor or by the minion's options".to_owned(),
            };
            let message = format!("{names} was only tested: {} of {} states would change something, and nothing was applied: {whose}", states.pending, states.total);
            let failure = Failure::new(Kind::StatePending, message).fact(Fact::Jid, jid.as_str());
            Err(match tests_by {
                Some(path) => failure.hint(format!("Take `test: True` out of {}, or set it to False in minion.config, and run again.", path.display())),
                None => failure,
            })
        }
        Outcome::NotRendered { lines, pillar } => {
            let what = if pillar { "the pillar of this minion has errors" } else { "Salt could not render the states" };
            let failure = Failure::new(Kind::StateNotRendered, format!("{names} did not run: {what}: {}", lines.join(" | "))).fact(Fact::Jid, jid.as_str());
            Err(if pillar { failure.hint(format!("On the master try `salt '{}' pillar.items`; the errors stand under _errors.", context.settings.minion.id)) } else { failure })
        }
        Outcome::Fell(line) => {
            let what = format!("{names} did not run: Salt could not read its own job files: {line}");
            let hint = "Stop the minion and remove what lies in proc below its cachedir (/var/cache/salt/minion/proc); then run again.";
            Err(Failure::new(Kind::StateNotRendered, what).hint(hint).fact(Fact::Jid, jid.as_str()))
        }
        Outcome::Busy { lines, .. } => Err(Failure::new(Kind::StateNotRendered, format!("{names} did not run: another state run was in the way: {}", lines.join(" ")))
            .hint("See what runs states on this minion (a schedule, startup_states, another reactor); the reactor shipped with this program queues instead.")
            .fact(Fact::Jid, jid.as_str())),
    }
}

//! The classic way: a hook of salt-api puts an event on the master's bus, and a reactor there starts the job. Nobody says which one it
//! is: it is looked for on this machine.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::{info, warn};

use super::limits::{self, FIRINGS, REFUSED_AGAIN};
use super::memory::remembered;
use super::verdict::{killed_twice, result_of, still_running};
use crate::bootstrap::context::Context;
use crate::bootstrap::state::{Memory, Phase, Store};
use crate::minion::connection::{self, Connected};
use crate::minion::daemon::Minion;
use crate::minion::job::{Outcome, Wanted};
use crate::minion::jobs::{self, Ended, Watch};
use crate::salt::public_key::Fingerprint;
use crate::salt::session::Session;
use crate::salt::settings::Apply;
use crate::system::process;
use crate::system::retry::Wait;
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::names::{Jid, MinionId};
use crate::types::report::States;

/// Triggers the states, unless an earlier run has and their job can still be found, and waits for
/// what comes of it.
pub fn by_hook(
    context: &Context,
    apply: &Apply,
    minion: &mut Minion,
    master: Option<&Fingerprint>,
    session: &mut Session,
    mut connected: Connected,
    wait: &Wait,
) -> Result<States, Failure> {
    let paths = minion.paths.clone();
    let mut memory = remembered(context, apply, &paths);
    context.journal.name_bootstrap(&memory.bootstrap_id);
    let bootstrap_id = memory.bootstrap_id.clone();
    let trigger = Trigger { apply, id: &context.settings.minion.id, bootstrap_id: &bootstrap_id, store: context.store };
    let wanted = Wanted {
        bootstrap_id: bootstrap_id.clone(),
        argument: apply.argument(),
        pillar: apply.pillar.clone(),
        known_by_id: memory.tells_id.as_deref() == Some(apply.hook.as_str()),
    };
    let mut watch = Watch::new(&paths, wanted, memory.before.clone());
    let boot = process::boot_id();
    let rebooted = memory.boot.as_ref().is_some_and(|fired_in| *fired_in != boot);
    if rebooted {
        // What was fired before then is over: states may reboot the machine as often as they need to.
        memory.firings = 0;
    }
    memory.boot = Some(boot);
    // A job that an earlier run started needs no second trigger, and one that is on its way is no less started: fired once more
    // at once, both would run side by side, and Salt ends either because of the other.
    let mut found = on_its_way(&memory, rebooted, &mut watch, wait)?;
    let (mut attempts_left, mut refusals, mut fallen) = (2, 0, 0);
    loop {
        let jid = match found.take() {
            Some(jid) => jid,
            None => trigger.fire(&mut memory, session, &connected, &mut watch, wait)?,
        };
        info!("job {jid} runs {} on this minion", apply.argument());
        context.journal.name_job(&jid);
        let outcome = match watch.end_of(&jid, wait)? {
            Ended::Finished(outcome) => outcome,
            Ended::NotYet => {
                return Err(still_running(apply, &jid));
            }
            Ended::Vanished if attempts_left > 1 && memory.firings < FIRINGS => {
                attempts_left -= 1;
                warn!("job {jid} is gone without a result: the minion was probably restarted; triggering again");
                watch.pass_over(jid);
                connected = connection::wait(minion, master, wait)?;
                continue;
            }
            Ended::Vanished => {
                return Err(minion.explain(killed_twice(apply, &jid)));
            }
        };
        if let Some(ours) = watch.better_than(&jid) {
            info!("job {jid} was somebody else's: job {ours} carries our id");
            found = Some(ours);
            continue;
        }
        context.journal.note_job_to_clean(jid.clone());
        // Salt has refused it, so nothing was triggered yet.
        let once_more = match &outcome {
            Outcome::Busy { lines, other } => {
                info!("another state run is in the way ({}): waiting for it", lines.join(" "));
                refusals += 1;
                watch.out_of_the_way(other.as_ref(), wait)?
            }
            Outcome::Fell(line) => {
                refusals += 1;
                fallen += 1;
                limits::fallen_again(fallen, line)
            }
            _ => false,
        };
        if once_more && !wait.over() {
            watch.pass_over(jid);
            if refusals > 1 {
                // Whatever it is comes again and again.
                wait.pause(REFUSED_AGAIN)?;
            }
            memory.firings = memory.firings.saturating_sub(1);
            continue;
        }
        // Remembered before it is judged: the next run must not take this job for its own.
        memory.phase = if matches!(outcome, Outcome::Held(_)) { Phase::Held } else { Phase::Failed };
        memory.before = jobs::known(&paths);
        memory.firings = 0;
        if watch.known_by_id() {
            memory.tells_id = Some(apply.hook.as_str().to_owned());
        }
        context.store.keep_memory(&memory)?;
        let option = if watch.only_tests(&jid) { None } else { paths.tests_by.as_deref() };
        return result_of(context, apply, &jid, outcome, option);
    }
}

/// The job of a hook that an earlier run has fired, or was about to. One that was on its way when the machine was rebooted never comes.
fn on_its_way(memory: &Memory, rebooted: bool, watch: &mut Watch, wait: &Wait) -> Result<Option<Jid>, Failure> {
    let span = match memory.phase {
        Phase::Held | Phase::Failed => return Ok(None),
        Phase::Firing => limits::on_its_way(wait.remaining()),
        Phase::Fired => reaction_time(memory.firings, wait),
    };
    if let Some(jid) = watch.probe() {
        return Ok(Some(jid));
    }
    if rebooted {
        info!("the machine was rebooted since the hook was fired: firing it again");
        return Ok(None);
    }
    info!("an earlier run fired the hook or was about to: waiting for its job");
    let found = watch.find(&wait.slice(span))?;
    if found.is_none() {
        warn!("no job came of the hook that an earlier run fired or was about to fire");
    }
    Ok(found)
}

/// How long a job may take to come of a hook that was fired so often: one third of the time for each of two firings, and the last one is
/// for the states.
fn reaction_time(firings: u32, wait: &Wait) -> Duration {
    wait.remaining() / if firings < FIRINGS { 3 } else { 2 }
}

/// What is fired, and in whose name.
struct Trigger<'a> {
    apply: &'a Apply,
    id: &'a MinionId,
    bootstrap_id: &'a str,
    store: &'a Store,
}

impl Trigger<'_> {
    /// Fires the hook until a job starts on this minion. How often it was taken is remembered, so that no number of runs fires it a third time
    /// for one job.
    fn fire(
        &self,
        memory: &mut Memory,
        session: &mut Session,
        _connected: &Connected,
        watch: &mut Watch,
        wait: &Wait,
    ) -> Result<Jid, Failure> {
        let Trigger { apply, id, bootstrap_id, store } = self;
        while memory.firings < FIRINGS {
            memory.before = watch.begin();
            // One that comes late of an earlier hook, and bears our id.
            if let Some(jid) = watch.probe() {
                return Ok(jid);
            }
            memory.phase = Phase::Firing;
            store.keep_memory(memory)?;
            let fired = session.hook(&apply.hook, &hook_body(apply, id.as_str(), bootstrap_id), wait, || watch.probe())?;
            memory.phase = Phase::Fired;
            memory.firings += 1;
            store.keep_memory(memory)?;
            if let Some(jid) = fired {
                warn!("salt-api answered {} with an error, but the job has started", apply.hook.as_str());
                return Ok(jid);
            }
            let span = reaction_time(memory.firings, wait);
            if let Some(jid) = watch.find(&wait.slice(span))? {
                return Ok(jid);
            }
            if memory.firings < FIRINGS {
                warn!("no job came of the hook within {:.0} s: firing it once more", span.as_secs_f64());
            }
        }
        let tag = apply.hook.tag();
        let what = format!("the hook was fired {} times, but no job for {} started on this minion", memory.firings, apply.argument());
        // This bootstrap has failed; the next run begins one.
        memory.phase = Phase::Failed;
        memory.firings = 0;
        store.keep_memory(memory)?;
        let failure = if let Some((jid, why)) = watch.refused() {
            Failure::new(Kind::NoReaction, format!("{what}; job {jid}, which runs them, was started by something else: {why}"))
        } else {
            Failure::new(Kind::NoReaction, format!("{what}: no reactor answers the tag {tag}"))
        };
        Err(failure.fact(Fact::Tag, tag))
    }
}

/// What the hook carries, for the classic reactor and for ours. The classic one takes `matcher` and
/// pastes `args` as they are; both `matcher` and `tgt_type` say the same.
fn hook_body(apply: &Apply, minion_id: &str, bootstrap_id: &str) -> Value {
    let mut body = json!({"tgt": minion_id, "matcher": apply.matcher, "tgt_type": apply.matcher, "args": apply.argument(), "bootstrap_id": bootstrap_id});
    if !apply.pillar.is_empty() {
        body["pillar"] = Value::Object(apply.pillar.clone());
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::retry::tests::patience;

    #[test]
    fn a_longer_deadline_waits_longer_for_the_job() {
        let waits = |firings, minutes: u64| {
            let wait = patience(Duration::from_secs(60 * minutes));
            reaction_time(firings, &wait).as_secs_f64().round()
        };
        assert_eq!((waits(1, 3), waits(1, 30)), (60.0, 600.0));
        // Of what is left by then; so the last third is never waited for.
        assert_eq!((waits(2, 2), waits(2, 20)), (60.0, 600.0));
    }
}

//! The way of the enrolment service, which publishes the job itself and says which one it is: no other is looked at.

use std::time::Duration;

use tracing::{info, warn};

use super::limits::{FIRINGS, REFUSED_AGAIN, fallen_again, on_its_way};
use super::memory::remembered;
use super::verdict::{killed_twice, result_of, still_running};
use crate::bootstrap::context::Context;
use crate::bootstrap::state::Phase;
use crate::minion::connection::{self, Connected};
use crate::minion::daemon::Minion;
use crate::minion::job::{Outcome, Wanted};
use crate::minion::jobs::{self, Ended, Watch};
use crate::minion::keypair;
use crate::salt::claim::Job;
use crate::salt::enrolment::{self, Asking, Service};
use crate::salt::public_key::Fingerprint;
use crate::salt::settings::Apply;
use crate::system::retry::Wait;
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::report::States;

/// After this a job is published once more to a minion that was restarted; one that it has got meanwhile it ignores.
const AFTER_A_RESTART: Duration = Duration::from_secs(10);
/// Less is no time for a job to arrive.
const AT_LEAST: Duration = Duration::from_secs(1);
/// A job that was published and is not here after this may be lost, as in a master that was restarted. Once more it bears the same id, so it
/// does no harm.
const AT_FIRST: Duration = Duration::from_secs(60);

/// Has the states applied, and waits for what comes of it. The job is asked for under a name that is
/// remembered before, so that whoever asks again, after a lost answer or a kill, gets the same one. Published once more it bears the
/// same id, and a minion that has it ignores that.
pub fn by_service(
    context: &Context,
    service: &mut Service,
    apply: &Apply,
    minion: &mut Minion,
    master: Option<&Fingerprint>,
    _connected: Connected,
    wait: &Wait,
) -> Result<States, Failure> {
    let Context { settings, store, journal, .. } = *context;
    let paths = minion.paths.clone();
    let mut memory = remembered(context, apply, &paths);
    journal.name_bootstrap(&memory.bootstrap_id);
    let keys = keypair::own(&paths)?;
    let bootstrap_id = memory.bootstrap_id.clone();
    let asking = Asking { keys: Some(&keys), id: &settings.minion.id, bootstrap_id: &bootstrap_id };
    let mut resumed = memory.job.is_some();
    let (mut attempts_left, mut publications, mut fallen) = (2, 0, 0);
    let (third, arrival) = (wait.remaining() / 3, wait.slice(wait.remaining() * 2 / 3));
    loop {
        let name = match memory.job.clone() {
            Some(name) => name,
            None => {
                let name = enrolment::nonce()?;
                memory.job = Some(name.clone());
                memory.phase = Phase::Fired;
                store.keep_memory(&memory)?;
                name
            }
        };
        let deadline = wait.remaining().as_secs();
        let again = publications > 0;
        let job = Job { name: &name, states: &apply.states, pillar: &apply.pillar, again, deadline };
        let jid = service.apply(&asking, &job, wait)?;
        publications += 1;
        info!("job {jid} runs {} on this minion", apply.argument());
        journal.name_job(&jid);
        // One that an earlier run had published is here, or its minion has forgotten it. What is published to a minion that is just
        // ending, or coming up, is lost.
        let span = match (resumed, attempts_left) {
            (true, _) => on_its_way(wait.remaining()),
            (false, 2) => published_again_after(publications, third).min(arrival.remaining()),
            (false, _) => after_a_restart(wait.remaining()),
        };
        resumed = false;
        if !jobs::arrives(&paths, &jid, &wait.slice(span))? {
            if (publications < FIRINGS || attempts_left < 2 || !arrival.over()) && !wait.over() {
                warn!("job {jid} has not arrived within {:.0} s: publishing it again", span.as_secs_f64());
                continue;
            }
            memory.phase = Phase::Failed;
            memory.job = None;
            store.keep_memory(&memory)?;
            let what = format!("job {jid} was published {publications} times, but never reached this minion");
            return Err(minion.explain(Failure::new(Kind::NoReaction, what).fact(Fact::Jid, jid.as_str())).hint(format!(
                "On the master `salt-run jobs.lookup_jid {jid}` shows it; see whether the minion is connected (`salt {} test.ping`).",
                settings.minion.id
            )));
        }
        let wanted =
            Wanted { bootstrap_id: bootstrap_id.clone(), argument: apply.argument(), pillar: apply.pillar.clone(), known_by_id: true };
        let watch = Watch::new(&paths, wanted, Vec::new());
        let outcome = match watch.end_of(&jid, wait)? {
            Ended::Finished(outcome) => outcome,
            Ended::NotYet => return Err(still_running(apply, &jid)),
            Ended::Vanished if attempts_left > 1 => {
                attempts_left -= 1;
                warn!("job {jid} is gone without a result: the minion was probably restarted; publishing it again");
                connection::wait(minion, master, wait)?;
                continue;
            }
            Ended::Vanished => return Err(minion.explain(killed_twice(apply, &jid))),
        };
        journal.note_job_to_clean(jid.clone());
        memory.job = None;
        let once_more = match &outcome {
            Outcome::Busy { lines, other } => {
                info!("another state run is in the way ({}): waiting for it", lines.join(" "));
                watch.out_of_the_way(other.as_ref(), wait)?
            }
            Outcome::Fell(line) => {
                fallen += 1;
                fallen_again(fallen, line)
            }
            _ => false,
        };
        if once_more && !wait.over() {
            wait.pause(REFUSED_AGAIN)?;
            publications = 0;
            continue;
        }
        memory.phase = if matches!(outcome, Outcome::Held(_)) { Phase::Held } else { Phase::Failed };
        store.keep_memory(&memory)?;
        let option = if watch.only_tests(&jid) { None } else { paths.tests_by.as_deref() };
        return result_of(context, apply, &jid, outcome, option);
    }
}

/// How long a job that was published so often may take to come here before it is published once more: at first a third of the time, but no
/// longer than a minute, and twice as long each time, for a master that is only slow.
fn published_again_after(publications: u32, third: Duration) -> Duration {
    third.min(AT_FIRST).saturating_mul(1 << publications.saturating_sub(1).min(8))
}

fn after_a_restart(left: Duration) -> Duration {
    AFTER_A_RESTART.min(left / 4).max(AT_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restart_may_have_lost_is_published_again_soon() {
        assert_eq!(after_a_restart(Duration::from_secs(3600)), AFTER_A_RESTART);
        assert_eq!(after_a_restart(AFTER_A_RESTART), AFTER_A_RESTART / 4);
        assert_eq!(after_a_restart(Duration::ZERO), AT_LEAST);
    }

    #[test]
    fn a_published_job_is_asked_for_again_soon_and_then_less_often() {
        let after = |publications, third| published_again_after(publications, Duration::from_secs(third)).as_secs();
        assert_eq!([1, 2, 3].map(|times| after(times, 600)), [60, 120, 240]);
        assert_eq!([1, 2].map(|times| after(times, 30)), [30, 60]);
    }
}

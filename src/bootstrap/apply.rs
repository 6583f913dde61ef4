//! The last step of the story: the states are triggered by the hook, and their real result is waited for.

use std::path::Path;
use std::time::Duration;

use ring::digest;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::context::Scene;
use super::state::{Memory, Phase, Store};
use crate::config::settings::Settings;
use crate::minion::connection::{self, Connected};
use crate::minion::daemon::Minion;
use crate::minion::job::{Outcome, Wanted};
use crate::minion::jobs::{self, Ended, Watch};
use crate::minion::keypair;
use crate::minion::paths::Place;
use crate::salt::claim::Job;
use crate::salt::enrolment::{self, Asking, Service};
use crate::salt::public_key::Fingerprint;
use crate::salt::session::Session;
use crate::salt::settings::Apply;
use crate::system::files;
use crate::system::retry::Patience;
use crate::types::failure::{Failure, Kind};
use crate::types::names::{Jid, MinionId};
use crate::types::report::States;

/// How long a job may still come of a hook of which nobody knows whether salt-api has taken it: the run that fired it is no more. One
/// that comes later meets the one that is fired then, and the states run twice: no more than that.
const ON_ITS_WAY: Duration = Duration::from_secs(4);
/// After this a job is published once more to a minion that was restarted; one that it has got meanwhile it ignores.
const AFTER_A_RESTART: Duration = Duration::from_secs(10);
/// A job that was published and is not here after this may be lost, as in a master that was restarted. Once more it bears the same id, so it
/// does no harm.
const AT_FIRST: Duration = Duration::from_secs(60);
/// Between two firings that Salt refuses, since another state run is in the way.
const REFUSED_AGAIN: Duration = Duration::from_secs(2);
/// So often salt-api takes the hook before nobody is thought to listen.
const FIRINGS: u32 = 2;

/// Did these very states hold after an earlier run on this instance? If so, with which result, as
/// far as its report is still there.
pub fn held_before(scene: &Scene, apply: &Apply) -> Option<Option<States>> {
    let Scene { settings, store, journal, .. } = *scene;
    let same = |memory: &Memory| {
        memory.phase == Phase::Held && store.is_here(memory.instance.as_deref()) && memory.asked == digest_of(settings, apply)
    };
    let memory = store.memory().filter(same)?;
    journal.name_bootstrap(&memory.bootstrap_id);
    let states =
        store.report().filter(|report| report.bootstrap_id.as_deref() == Some(&memory.bootstrap_id)).and_then(|report| report.states);
    if let Some(states) = &states {
        journal.note_states(states.clone());
    }
    Some(states)
}

/// Triggers the states, unless an earlier run has and their job can still be found, and waits for
/// what comes of it.
pub fn apply(
    scene: &Scene,
    apply: &Apply,
    minion: &mut Minion,
    master: Option<&Fingerprint>,
    session: &mut Session,
    mut connected: Connected,
    patience: &Patience,
) -> Result<States, Failure> {
    let place = minion.place.clone();
    let mut memory = remembered(scene, apply, &place);
    scene.journal.name_bootstrap(&memory.bootstrap_id);
    let bootstrap_id = memory.bootstrap_id.clone();
    let trigger = Trigger { apply, id: &scene.settings.minion.id, bootstrap_id: &bootstrap_id, store: scene.store };
    let wanted = Wanted {
        bootstrap_id: bootstrap_id.clone(),
        argument: apply.argument(),
        pillar: apply.pillar.clone(),
        told_by_id: memory.tells_id.as_deref() == Some(apply.hook.as_str()),
    };
    let mut watch = Watch::new(&place, wanted, memory.before.clone());
    // A job that an earlier run started needs no second trigger, and one that is on its way is no less started: fired once more
    // at once, both would run side by side, and Salt ends either because of the other.
    let mut found = on_its_way(&memory, &mut watch, patience)?;
    let (mut lives, mut refusals) = (2, 0);
    loop {
        let jid = match found.take() {
            Some(jid) => jid,
            None => trigger.fire(&mut memory, session, &connected, &mut watch, patience)?,
        };
        info!("job {jid} runs {} on this minion", apply.argument());
        scene.journal.name_job(&jid);
        let outcome = match watch.end_of(&jid, patience)? {
            Ended::So(outcome) => outcome,
            Ended::NotYet => {
                return Err(still_running(apply, &jid));
            }
            Ended::Vanished if lives > 1 && memory.firings < FIRINGS => {
                lives -= 1;
                warn!("job {jid} is gone without a result: the minion was probably restarted; triggering again");
                watch.pass_over(jid);
                connected = connection::wait(minion, master, patience)?;
                continue;
            }
            Ended::Vanished => {
                return Err(minion.explain(killed_twice(apply, &jid)));
            }
        };
        if let Some(ours) = watch.better_than(&jid) {
            info!("job {jid} was somebody else's: job {ours} bears our id");
            found = Some(ours);
            continue;
        }
        scene.journal.note_litter(jid.clone());
        let phase = if matches!(outcome, Outcome::Held(_)) { Phase::Held } else { Phase::Failed };
        match outcome {
            // Salt has refused it, so nothing was triggered yet.
            Outcome::Busy { lines, other } if !patience.over() => {
                info!("another state run is in the way ({}): waiting for it", lines.join(" "));
                watch.out_of_the_way(other.as_ref(), patience)?;
                watch.pass_over(jid);
                if refusals > 0 {
                    // Whatever it is comes again and again.
                    patience.pause(REFUSED_AGAIN)?;
                }
                refusals += 1;
                memory.firings = memory.firings.saturating_sub(1);
                continue;
            }
            outcome => {
                // Remembered before it is judged: the next run must not take this job for its own.
                memory.phase = phase;
                memory.before = jobs::known(&place);
                memory.firings = 0;
                if watch.told_by_id() {
                    memory.tells_id = Some(apply.hook.as_str().to_owned());
                }
                scene.store.keep_memory(&memory)?;
                let option = if watch.only_tests(&jid) { None } else { place.tests_by.as_deref() };
                return judged(scene, apply, &jid, outcome, option);
            }
        }
    }
}

/// The same by the enrolment service, which says which job it is: no other is looked at. It is asked for under a name that is
/// remembered before, so that whoever asks again, after a lost answer or a kill, gets the same one. Published once more it bears the
/// same id, and a minion that has it ignores that.
pub fn apply_by(
    scene: &Scene,
    service: &mut Service,
    apply: &Apply,
    minion: &mut Minion,
    master: Option<&Fingerprint>,
    _connected: Connected,
    patience: &Patience,
) -> Result<States, Failure> {
    let Scene { settings, store, journal, .. } = *scene;
    let place = minion.place.clone();
    let mut memory = remembered(scene, apply, &place);
    journal.name_bootstrap(&memory.bootstrap_id);
    let keys = keypair::own(&place)?;
    let bootstrap_id = memory.bootstrap_id.clone();
    let asking = Asking { keys: Some(&keys), id: &settings.minion.id, bootstrap_id: &bootstrap_id };
    let mut resumed = memory.job.is_some();
    let (mut lives, mut publications) = (2, 0);
    let (third, arrival) = (patience.remaining() / 3, patience.slice(patience.remaining() * 2 / 3));
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
        let deadline = patience.remaining().as_secs();
        let again = publications > 0;
        let job = Job { name: &name, states: &apply.states, pillar: &apply.pillar, again, deadline };
        let jid = service.apply(&asking, &job, patience)?;
        publications += 1;
        info!("job {jid} runs {} on this minion", apply.argument());
        journal.name_job(&jid);
        // One that an earlier run had published is here, or its minion has forgotten it. What is published to a minion that is just
        // ending, or coming up, is lost.
        let span = match (resumed, lives) {
            (true, _) => ON_ITS_WAY.min(patience.remaining() / 4),
            (false, 2) => published_again_after(publications, third).min(arrival.remaining()),
            (false, _) => AFTER_A_RESTART.min(patience.remaining() / 4).max(Duration::from_secs(1)),
        };
        resumed = false;
        if !jobs::arrives(&place, &jid, &patience.slice(span))? {
            if (publications < FIRINGS || lives < 2 || !arrival.over()) && !patience.over() {
                warn!("job {jid} has not come here within {:.0} s: having it published once more", span.as_secs_f64());
                continue;
            }
            memory.phase = Phase::Failed;
            memory.job = None;
            store.keep_memory(&memory)?;
            let what = format!("job {jid} was published {publications} times, and never came to this minion");
            return Err(minion.explain(Failure::new(Kind::NoReaction, what).fact("jid", jid.as_str())).hint(format!(
                "On the master `salt-run jobs.lookup_jid {jid}` shows it; see whether the minion is connected (`salt {} test.ping`).",
                settings.minion.id
            )));
        }
        let wanted =
            Wanted { bootstrap_id: bootstrap_id.clone(), argument: apply.argument(), pillar: apply.pillar.clone(), told_by_id: true };
        let watch = Watch::new(&place, wanted, Vec::new());
        let outcome = match watch.end_of(&jid, patience)? {
            Ended::So(outcome) => outcome,
            Ended::NotYet => return Err(still_running(apply, &jid)),
            Ended::Vanished if lives > 1 => {
                lives -= 1;
                warn!("job {jid} is gone without a result: the minion was probably restarted; having it published once more");
                connection::wait(minion, master, patience)?;
                continue;
            }
            Ended::Vanished => return Err(minion.explain(killed_twice(apply, &jid))),
        };
        journal.note_litter(jid.clone());
        memory.job = None;
        if let (Outcome::Busy { lines, other }, false) = (&outcome, patience.over()) {
            info!("another state run is in the way ({}): waiting for it", lines.join(" "));
            watch.out_of_the_way(other.as_ref(), patience)?;
            patience.pause(REFUSED_AGAIN)?;
            publications = 0;
            continue;
        }
        memory.phase = if matches!(outcome, Outcome::Held(_)) { Phase::Held } else { Phase::Failed };
        store.keep_memory(&memory)?;
        let option = if watch.only_tests(&jid) { None } else { place.tests_by.as_deref() };
        return judged(scene, apply, &jid, outcome, option);
    }
}

fn still_running(apply: &Apply, jid: &Jid) -> Failure {
    Failure::new(Kind::StateTimeout, format!("{} was still running as job {jid} when the time was up", apply.argument()))
        .fact("jid", jid.as_str())
}

fn killed_twice(apply: &Apply, jid: &Jid) -> Failure {
    let what = format!("job {jid} ended without a result, twice: something kills the minion while it runs {}", apply.argument());
    Failure::new(Kind::StateTimeout, what)
}

/// The job of a hook that an earlier run has fired, or was about to.
fn on_its_way(memory: &Memory, watch: &mut Watch, patience: &Patience) -> Result<Option<Jid>, Failure> {
    let span = match memory.phase {
        Phase::Held | Phase::Failed => return Ok(None),
        Phase::Firing => ON_ITS_WAY.min(patience.remaining() / 4),
        Phase::Fired => reaction_time(memory.firings, patience),
    };
    if let Some(jid) = watch.look() {
        return Ok(Some(jid));
    }
    info!("an earlier run has fired the hook, or was about to: waiting for its job");
    let found = watch.find(&patience.slice(span))?;
    if found.is_none() {
        warn!("no job came of the hook that an earlier run has fired, or was about to");
    }
    Ok(found)
}

/// How long a job may take to come of a hook that was fired so often: one third of the time for each of two firings, and the last one is
/// for the states.
fn reaction_time(firings: u32, patience: &Patience) -> Duration {
    patience.remaining() / if firings < FIRINGS { 3 } else { 2 }
}

/// How long a job that was published so often may take to come here before it is published once more: at first a third of the time, but no
/// longer than a minute, and twice as long each time, for a master that is only slow.
fn published_again_after(publications: u32, third: Duration) -> Duration {
    third.min(AT_FIRST).saturating_mul(1 << publications.saturating_sub(1).min(8))
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
        patience: &Patience,
    ) -> Result<Jid, Failure> {
        let Trigger { apply, id, bootstrap_id, store } = self;
        while memory.firings < FIRINGS {
            memory.before = watch.begin();
            // One that comes late of an earlier hook, and bears our id.
            if let Some(jid) = watch.look() {
                return Ok(jid);
            }
            memory.phase = Phase::Firing;
            store.keep_memory(memory)?;
            let fired = session.hook(&apply.hook, &hook_body(apply, id.as_str(), bootstrap_id), patience, || watch.look())?;
            memory.phase = Phase::Fired;
            memory.firings += 1;
            store.keep_memory(memory)?;
            if let Some(jid) = fired {
                warn!("salt-api did not answer {} well, but the job is here", apply.hook.as_str());
                return Ok(jid);
            }
            let span = reaction_time(memory.firings, patience);
            if let Some(jid) = watch.find(&patience.slice(span))? {
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
            Failure::new(Kind::NoReaction, format!("{what}; job {jid}, which runs them, came of something else: {why}"))
        } else {
            Failure::new(Kind::NoReaction, format!("{what}: nobody answers the tag {tag}"))
        };
        Err(failure.fact("tag", tag))
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

/// The id of this bootstrap of this instance, which goes with everything that the master is asked. It is remembered from now on: a run
/// that is killed goes on under the same.
pub fn bootstrap_id(scene: &Scene, place: &Place) -> Result<String, Failure> {
    let id = match &scene.settings.apply {
        Some(apply) => {
            let memory = remembered(scene, apply, place);
            scene.store.keep_memory(&memory)?;
            memory.bootstrap_id
        }
        None => scene.journal.bootstrap_id().unwrap_or_else(new_uuid),
    };
    scene.journal.name_bootstrap(&id);
    Ok(id)
}

/// The memory of this bootstrap of this instance, or a new one.
fn remembered(scene: &Scene, apply: &Apply, place: &Place) -> Memory {
    let (instance, asked) = (scene.store.instance(), digest_of(scene.settings, apply));
    let same = scene.store.memory().filter(|memory| scene.store.is_here(memory.instance.as_deref()) && memory.asked == asked);
    match same {
        // The states held, and are wanted again: that is another bootstrap.
        Some(memory) if memory.phase != Phase::Held || !scene.again => memory,
        _ => Memory {
            schema: 1,
            instance,
            asked,
            bootstrap_id: new_uuid(),
            before: jobs::known(place),
            phase: Phase::Failed,
            firings: 0,
            tells_id: scene.store.memory().and_then(|memory| memory.tells_id),
            job: None,
        },
    }
}

/// What was asked for, as a digest: the pillar may hold secrets.
fn digest_of(settings: &Settings, apply: &Apply) -> String {
    let asked =
        json!([settings.minion.id.as_str(), settings.minion.masters, apply.hook.as_str(), apply.argument(), apply.matcher, apply.pillar])
            .to_string();
    let digest = digest::digest(&digest::SHA256, asked.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_uuid() -> String {
    // random(4): the kernel makes version 4 UUIDs. The fallback is unique enough for one minion.
    files::read_text("/proc/sys/kernel/random/uuid".as_ref(), 64).map(|text| text.trim().to_owned()).unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        format!("{:032x}", now.as_nanos())
    })
}

/// What a state run's end means. `tests_by` is the file that makes this minion try states only, if it was not the job itself.
fn judged(scene: &Scene, apply: &Apply, jid: &Jid, outcome: Outcome, tests_by: Option<&Path>) -> Result<States, Failure> {
    let names = apply.argument();
    match outcome {
        Outcome::Held(states) => {
            scene.journal.note_states(states.clone());
            Ok(states)
        }
        Outcome::Failed(states) => {
            scene.journal.note_states(states.clone());
            let ids: Vec<&str> = states.failures.iter().map(|failed| failed.id.as_str()).collect();
            let which = match ids.len() {
                0 => "no state has failed, but Salt calls the run failed".to_owned(),
                1..=5 => format!("{} of {} failed: {}", ids.len(), states.total, ids.join(", ")),
                more => format!("{more} of {} failed: {}, ...", states.total, ids[..5].join(", ")),
            };
            Err(Failure::new(Kind::StateFailed, format!("{names} does not hold: {which}")).fact("jid", jid.as_str()))
        }
        Outcome::Pending(states) => {
            scene.journal.note_states(states.clone());
            let whose = match tests_by {
                Some(path) => format!("the minion's option `test` in {} is true", path.display()),
                None => "the job was given test=True, by the reactor or by the minion's options".to_owned(),
            };
            let message = format!("{names} was only tried: {} of {} states would change something, and nothing was applied: {whose}", states.pending, states.total);
            let failure = Failure::new(Kind::StatePending, message).fact("jid", jid.as_str());
            Err(match tests_by {
                Some(path) => failure.hint(format!("Take `test: True` out of {}, or set it to False in minion.config, and run again.", path.display())),
                None => failure,
            })
        }
        Outcome::NotRendered { lines, pillar } => {
            let what = if pillar { "the pillar of this minion has errors" } else { "Salt could not render the states" };
            let failure = Failure::new(Kind::StateNotRendered, format!("{names} did not run: {what}: {}", lines.join(" | "))).fact("jid", jid.as_str());
            Err(if pillar { failure.hint(format!("On the master try `salt '{}' pillar.items`; the errors stand under _errors.", scene.settings.minion.id)) } else { failure })
        }
        Outcome::Busy { lines, .. } => Err(Failure::new(Kind::StateNotRendered, format!("{names} did not run: another state run was in the way: {}", lines.join(" ")))
            .hint("See what runs states on this minion (a schedule, startup_states, another reactor); the reactor shipped with this program queues instead.")
            .fact("jid", jid.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::interrupt::Interrupt;
    use crate::types::deadline::Deadline;

    #[test]
    fn a_published_job_is_asked_for_again_soon_and_then_less_often() {
        let after = |publications, third| published_again_after(publications, Duration::from_secs(third)).as_secs();
        assert_eq!([1, 2, 3].map(|times| after(times, 600)), [60, 120, 240]);
        assert_eq!([1, 2].map(|times| after(times, 30)), [30, 60]);
    }

    #[test]
    fn a_longer_deadline_waits_longer_for_the_job() {
        let waits = |firings, minutes: u64| {
            let patience = Patience::until(Deadline::after(Duration::from_secs(60 * minutes)), Interrupt::default());
            reaction_time(firings, &patience).as_secs_f64().round()
        };
        assert_eq!((waits(1, 3), waits(1, 30)), (60.0, 600.0));
        // Of what is left by then; so the last third is never waited for.
        assert_eq!((waits(2, 2), waits(2, 20)), (60.0, 600.0));
    }
}

//! The last step of the story: the states are triggered by the hook, and their real result is waited for.

use std::time::Duration;

use ring::digest;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::scene::Scene;
use crate::decide::claim::Asked;
use crate::decide::fingerprint::Fingerprint;
use crate::decide::job::{Outcome, Wanted};
use crate::decide::settings::{Apply, Settings};
use crate::machine::files;
use crate::machine::patience::Patience;
use crate::service::minion::connection::{self, Connected};
use crate::service::minion::daemon::Minion;
use crate::service::minion::jobs::{self, Ended, Watch};
use crate::service::minion::keypair::KeyPair;
use crate::service::minion::place::Place;
use crate::service::salt::enroll::{self, Claimant};
use crate::service::salt::session::Session;
use crate::service::store::{Memory, Phase};
use crate::words::failure::{Failure, Kind};
use crate::words::names::{Jid, MinionId};
use crate::words::report::States;

/// From the hook to the job's file on the minion it takes 0.1 to 2 s on an idle master.
const REACTION_PATIENCE: Duration = Duration::from_secs(15);
/// How long a job may still come of a hook that was fired by a run that is no more.
const ON_ITS_WAY: Duration = Duration::from_secs(4);
/// So often the hook is fired before nobody is thought to listen.
const FIRINGS: u32 = 3;

/// Did these very states hold after an earlier run on this instance? If so, with which result, as
/// far as its report is still there.
pub fn held_before(scene: &Scene, apply: &Apply) -> Option<Option<States>> {
    let Scene { settings, store, journal, .. } = *scene;
    let same =
        |memory: &Memory| memory.phase == Phase::Held && memory.instance == store.instance() && memory.asked == digest_of(settings, apply);
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
    let keys = apply.is_guarded().then(|| enroll::own_keys(&place)).transpose()?;
    let bootstrap_id = memory.bootstrap_id.clone();
    let trigger = Trigger { apply, id: &scene.settings.minion.id, bootstrap_id: &bootstrap_id, keys };
    let wanted = Wanted { bootstrap_id: bootstrap_id.clone(), argument: apply.argument() };
    let mut watch = Watch::new(&place, wanted, memory.before.clone());
    // A job that an earlier run started needs no second trigger, and one that is on its way is no less started: fired once more
    // at once, both would run side by side, and Salt ends either because of the other.
    let mut found = if memory.phase == Phase::Fired { on_its_way(&mut watch, patience)? } else { None };
    let mut lives = 2;
    loop {
        let jid = match found.take() {
            Some(jid) => jid,
            None => {
                memory.phase = Phase::Fired;
                scene.store.keep_memory(&memory)?;
                trigger.fire(session, &connected, &mut watch, patience)?
            }
        };
        info!("job {jid} runs {} on this minion", apply.argument());
        let outcome = match watch.end_of(&jid, patience)? {
            Ended::So(outcome) => {
                scene.journal.note_litter(jid.clone());
                outcome
            }
            Ended::NotYet => {
                return Err(Failure::new(
                    Kind::StateTimeout,
                    format!("{} was still running as job {jid} when the time was up", apply.argument()),
                )
                .fact("jid", jid.as_str()));
            }
            Ended::Vanished if lives > 1 => {
                lives -= 1;
                warn!("job {jid} is gone without a result: the minion was probably restarted; triggering again");
                watch.pass_over(jid);
                connected = connection::wait(minion, master, patience)?;
                continue;
            }
            Ended::Vanished => {
                return Err(minion.explain(Failure::new(
                    Kind::StateTimeout,
                    format!("job {jid} ended without a result, twice: something kills the minion while it runs {}", apply.argument()),
                )));
            }
        };
        let phase = if matches!(outcome, Outcome::Held(_)) { Phase::Held } else { Phase::Failed };
        match outcome {
            Outcome::Busy { lines, other } if lives > 1 => {
                lives -= 1;
                info!("another state run is in the way ({}): waiting for it", lines.join(" "));
                watch.out_of_the_way(other.as_ref(), patience)?;
                watch.pass_over(jid);
                continue;
            }
            outcome => {
                // Remembered before it is judged: the next run must not take this job for its own.
                memory.phase = phase;
                memory.before = jobs::known(&place);
                scene.store.keep_memory(&memory)?;
                return judged(scene, apply, &jid, outcome);
            }
        }
    }
}

/// The job of a hook that an earlier run has fired, or was about to.
fn on_its_way(watch: &mut Watch, patience: &Patience) -> Result<Option<Jid>, Failure> {
    if let Some(jid) = watch.look() {
        return Ok(Some(jid));
    }
    info!("an earlier run has fired the hook, or was about to: waiting for its job");
    let found = watch.find(&patience.slice(ON_ITS_WAY.min(patience.remaining() / 4)))?;
    if found.is_none() {
        warn!("no job came of the hook that an earlier run has fired, or was about to: firing it again");
    }
    Ok(found)
}

/// What is fired, and in whose name.
struct Trigger<'a> {
    apply: &'a Apply,
    id: &'a MinionId,
    bootstrap_id: &'a str,
    /// Claims are signed; a hook of the classic kind is not.
    keys: Option<KeyPair>,
}

impl Trigger<'_> {
    /// Fires the hook until a job starts on this minion.
    fn fire(&self, session: &mut Session, _connected: &Connected, watch: &mut Watch, patience: &Patience) -> Result<Jid, Failure> {
        let Trigger { apply, id, bootstrap_id, keys } = self;
        for firing in 1..=FIRINGS {
            let fired = match keys {
                Some(keys) => {
                    let asked = Asked::Apply { states: &apply.states, pillar: &apply.pillar };
                    Claimant { keys, id, bootstrap_id }.claim_until(session, asked, patience, || watch.look())?
                }
                None => session.hook(&apply.hook, &hook_body(apply, id.as_str(), bootstrap_id), patience, || watch.look())?,
            };
            if let Some(jid) = fired {
                warn!("salt-api did not answer {} well, but the job is here", apply.hook.as_str());
                return Ok(jid);
            }
            // What is left is shared among the firings that are left.
            let share = REACTION_PATIENCE.min(patience.remaining() / (FIRINGS - firing + 1));
            if let Some(jid) = watch.find(&patience.slice(share))? {
                return Ok(jid);
            }
            if firing < FIRINGS {
                warn!("no job came of the hook within {:.0} s: firing it again", share.as_secs_f64());
            }
        }
        let tag = apply.hook.tag();
        let what = format!("the hook was fired {FIRINGS} times, but no job for {} started on this minion", apply.argument());
        Err(if keys.is_some() {
            enroll::ask_the_audit(Failure::new(Kind::NoReaction, format!("{what}: the claim was refused, or nobody decides claims")), id)
        } else {
            Failure::new(Kind::NoReaction, format!("{what}: nobody answers the tag {tag}"))
        }
        .fact("tag", tag))
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
    let same = scene.store.memory().filter(|memory| memory.instance == instance && memory.asked == asked);
    match same {
        // The states held, and are wanted again: that is another bootstrap.
        Some(memory) if memory.phase != Phase::Held || !scene.again => memory,
        _ => Memory { schema: 1, instance, asked, bootstrap_id: new_uuid(), before: jobs::known(place), phase: Phase::Failed },
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

fn judged(scene: &Scene, apply: &Apply, jid: &Jid, outcome: Outcome) -> Result<States, Failure> {
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
        Outcome::NotRendered { lines, pillar } => {
            let what = if pillar { "the pillar of this minion has errors" } else { "Salt could not render the states" };
            let failure = Failure::new(Kind::StateNotRendered, format!("{names} did not run: {what}: {}", lines.join(" | "))).fact("jid", jid.as_str());
            Err(if pillar { failure.hint(format!("On the master try `salt '{}' pillar.items`; the errors stand under _errors.", scene.settings.minion.id)) } else { failure })
        }
        Outcome::Busy { lines, .. } => Err(Failure::new(Kind::StateNotRendered, format!("{names} did not run: another state run was in the way twice: {}", lines.join(" ")))
            .hint("See what runs states on this minion (a schedule, startup_states, another reactor); the reactor shipped with this program queues instead.")
            .fact("jid", jid.as_str())),
    }
}

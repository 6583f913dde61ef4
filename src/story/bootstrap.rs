//! The story: what a bootstrap does, top to bottom. Each step looks first and changes only what
//! has to change, so a run after a run does nothing, and a run after a killed one goes on.

use std::time::Duration;

use ring::digest;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::journal::{Did, Journal};
use crate::decide::fingerprint::Fingerprint;
use crate::decide::job::{Outcome, Wanted};
use crate::decide::settings::{Accept, Apply, Settings, Trust};
use crate::machine::files::{self, Lock, Root};
use crate::machine::patience::Patience;
use crate::service::minion::connection::{self, Connected};
use crate::service::minion::daemon::{self, Minion};
use crate::service::minion::jobs::{self, Ended, Watch};
use crate::service::minion::place::Place;
use crate::service::packages;
use crate::service::salt::keys;
use crate::service::salt::session::Session;
use crate::service::store::{Memory, Phase, Store};
use crate::words::failure::{Failure, Kind};
use crate::words::names::Jid;
use crate::words::report::States;

/// Which links of the chain are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// Program, configuration, service.
    pub install: bool,
    /// Login, key, connection.
    pub accept: bool,
    /// Trigger and result.
    pub apply: bool,
}

/// What the story plays on.
pub struct Scene<'a> {
    /// What is wanted.
    pub settings: &'a Settings,
    /// The directory that stands for `/`.
    pub root: &'a Root,
    /// What is remembered between runs.
    pub store: &'a Store,
    /// Where the steps are recorded.
    pub journal: &'a Journal,
    /// How long all of it may take.
    pub patience: &'a Patience,
    /// Trigger the states even if they hold.
    pub again: bool,
}

/// A minion whose key is accepted connects within seconds, or not at all.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(120);
/// From the hook to the job's file on the minion it takes 0.1 to 2 s on an idle master.
const REACTION_PATIENCE: Duration = Duration::from_secs(15);
/// So often the hook is fired before nobody is thought to listen.
const FIRINGS: u32 = 3;

/// Plays the links that are wanted; returns a sentence that says what holds now.
pub fn bootstrap(scene: &Scene, links: Links) -> Result<String, Failure> {
    let Scene { settings, root, store, journal, patience, .. } = *scene;
    let id = &settings.minion.id;
    journal.name_minion(id.as_str());
    let _only_one = alone(scene)?;
    if links.install && links.apply && !scene.again {
        if let Some(states) = in_place(scene) {
            return Ok(format!("{id} is in place: nothing had to change{}", held(&states)));
        }
    }
    let mut session = settings.api.as_ref().map(Session::new).transpose()?;
    let master = master(scene, session.as_mut())?;
    let mut minion = if links.install {
        let program = journal.step("install", patience, |patience| packages::ensure(&settings.install, &settings.minion.program, patience).map(Did::nothing))?;
        journal.step("configure", patience, |patience| daemon::ensure(root, settings, &program, &master, store, patience).map(|(minion, changed)| Did::so(minion, changed)))?
    } else {
        Minion::found(Place::of(root, settings))
    };
    if !links.accept && !links.apply {
        journal.step("start", patience, |patience| started(&mut minion, patience).map(Did::nothing))?;
        store.restarted()?;
        return Ok(format!("salt-minion is configured as {id} and runs"));
    }
    if let (true, Accept::Wheel, Some(session)) = (links.accept, settings.accept, session.as_mut()) {
        log_in(scene, session)?;
        journal.step("accept", patience, |patience| keys::accept(session, &mut minion, id, patience).map(|changed| Did::so((), changed)))?;
    }
    let connected = journal.step("connect", patience, |patience| connection::wait(&mut minion, &master, &patience.slice(CONNECTION_PATIENCE)).map(Did::nothing))?;
    store.restarted()?;
    let (true, Some(apply), Some(session)) = (links.apply, settings.apply.as_ref(), session.as_mut()) else {
        return Ok(format!("{id} is accepted and connected"));
    };
    if let Some(states) = held_before(scene, apply).filter(|_| !scene.again) {
        return Ok(format!("{id} is connected, and {} was applied before{}; --again applies it again", apply.argument(), held(&states)));
    }
    log_in(scene, session)?;
    let states = journal.step("states", patience, |patience| states(scene, apply, &mut minion, &master, session, connected, patience).map(Did::change))?;
    Ok(format!("{id} runs {}{}", apply.argument(), held(&Some(states))))
}

/// Two runs at once would fight over the minion: the second waits for the first.
fn alone(scene: &Scene) -> Result<Lock, Failure> {
    scene.store.prepare()?;
    let mut holder = String::new();
    let lock = scene.patience.poll(Duration::from_millis(100), || {
        Ok(match scene.store.lock()? {
            Ok(lock) => Some(lock),
            Err(pid) => {
                if holder.is_empty() {
                    info!("another run is under way (pid {pid}): waiting for it");
                }
                holder = pid;
                None
            }
        })
    })?;
    lock.ok_or_else(|| Failure::new(Kind::OutOfTime, format!("another run (pid {holder}) was under way all the time")).hint("Look at what it does with `heat-salt-bootstrap status` and in its log."))
}

/// Is everything as an earlier run left it, and did the states hold? Looks at this machine only.
fn in_place(scene: &Scene) -> Option<Option<States>> {
    let Scene { settings, root, store, .. } = *scene;
    let place = Place::of(root, settings);
    let master = match &settings.minion.trust {
        Trust::Given(finger) => finger.clone(),
        Trust::AskApi => place.pinned_master()?,
    };
    let configured = daemon::is(&place.drop_in, &place.drop_in_text(root, settings, &master)) && place.check_master(&master).is_ok() && !store.owes_restart();
    let minion = Minion::found(place);
    if !configured || connection::look(&minion).is_none() {
        return None;
    }
    match &settings.apply {
        Some(apply) => held_before(scene, apply),
        None => Some(None),
    }
}

/// Did these very states hold after an earlier run on this instance? If so, with which result, as
/// far as its report is still there.
fn held_before(scene: &Scene, apply: &Apply) -> Option<Option<States>> {
    let Scene { settings, store, journal, .. } = *scene;
    let same = |memory: &Memory| memory.phase == Phase::Held && memory.instance == store.instance() && memory.asked == digest_of(settings, apply);
    let memory = store.memory().filter(same)?;
    journal.name_bootstrap(&memory.bootstrap_id);
    let states = store.report().filter(|report| report.bootstrap_id.as_deref() == Some(&memory.bootstrap_id)).and_then(|report| report.states);
    if let Some(states) = &states {
        journal.note_states(states.clone());
    }
    Some(states)
}

/// Which master the minion has to meet. If the configuration does not say, salt-api does, over
/// verified TLS and before the minion starts.
fn master(scene: &Scene, session: Option<&mut Session>) -> Result<Fingerprint, Failure> {
    match (&scene.settings.minion.trust, session) {
        (Trust::Given(finger), _) => Ok(finger.clone()),
        (Trust::AskApi, Some(session)) => {
            log_in(scene, session)?;
            scene.journal.step("master", scene.patience, |patience| keys::master_fingerprint(session, patience).map(Did::nothing))
        }
        // Settings::parse refuses this.
        (Trust::AskApi, None) => Err(Failure::new(Kind::Bug, "nobody says which master is the right one")),
    }
}

fn log_in(scene: &Scene, session: &mut Session) -> Result<(), Failure> {
    if session.is_open() {
        return Ok(());
    }
    scene.journal.step("login", scene.patience, |patience| session.log_in(patience).map(Did::nothing))
}

/// For `install` alone: the minion is there once it has a process.
fn started(minion: &mut Minion, patience: &Patience) -> Result<(), Failure> {
    let up = patience.slice(Duration::from_secs(60)).poll(Duration::from_millis(50), || {
        minion.check_start()?;
        Ok((!minion.pids().is_empty()).then_some(()))
    })?;
    up.ok_or_else(|| minion.explain(Failure::new(Kind::LocalSystem, "salt-minion was started, but does not run")))
}

/// Triggers the states, unless an earlier run has and their job can still be found, and waits for
/// what comes of it.
fn states(scene: &Scene, apply: &Apply, minion: &mut Minion, master: &Fingerprint, session: &mut Session, mut connected: Connected, patience: &Patience) -> Result<States, Failure> {
    let place = minion.place.clone();
    let mut memory = remembered(scene, apply, &place);
    scene.journal.name_bootstrap(&memory.bootstrap_id);
    let wanted = Wanted { bootstrap_id: memory.bootstrap_id.clone(), argument: apply.argument() };
    let mut watch = Watch::new(&place, wanted, memory.before.clone());
    // A job that an earlier run started needs no second trigger.
    let mut found = if memory.phase == Phase::Fired { watch.look() } else { None };
    let mut lives = 2;
    loop {
        let jid = match found.take() {
            Some(jid) => jid,
            None => {
                memory.phase = Phase::Fired;
                scene.store.keep_memory(&memory)?;
                trigger(apply, scene, &memory.bootstrap_id, session, &connected, &mut watch, patience)?
            }
        };
        info!("job {jid} runs {} on this minion", apply.argument());
        let outcome = match watch.end_of(&jid, patience)? {
            Ended::So(outcome) => {
                scene.journal.note_litter(jid.clone());
                outcome
            }
            Ended::NotYet => return Err(Failure::new(Kind::StateTimeout, format!("{} was still running as job {jid} when the time was up", apply.argument())).fact("jid", jid.as_str())),
            Ended::Vanished if lives > 1 => {
                lives -= 1;
                warn!("job {jid} is gone without a result: the minion was probably restarted; triggering again");
                watch.pass_over(jid);
                connected = connection::wait(minion, master, &patience.slice(CONNECTION_PATIENCE))?;
                continue;
            }
            Ended::Vanished => return Err(minion.explain(Failure::new(Kind::StateTimeout, format!("job {jid} ended without a result, twice: something kills the minion while it runs {}", apply.argument())))),
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

/// Fires the hook until a job starts on this minion.
fn trigger(apply: &Apply, scene: &Scene, bootstrap_id: &str, session: &mut Session, _connected: &Connected, watch: &mut Watch, patience: &Patience) -> Result<Jid, Failure> {
    let body = hook_body(apply, scene.settings.minion.id.as_str(), bootstrap_id);
    for firing in 1..=FIRINGS {
        session.hook(&apply.hook, &body, patience)?;
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
    Err(Failure::new(Kind::NoReaction, format!("the hook was fired {FIRINGS} times, but no job for {} started on this minion: nobody answers the tag {tag}", apply.argument())).fact("tag", tag))
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

/// The memory of this bootstrap of this instance, or a new one.
fn remembered(scene: &Scene, apply: &Apply, place: &Place) -> Memory {
    let (instance, asked) = (scene.store.instance(), digest_of(scene.settings, apply));
    let same = scene.store.memory().filter(|memory| memory.instance == instance && memory.asked == asked);
    match same {
        // The states held, and are wanted again: that is another bootstrap.
        Some(memory) if memory.phase != Phase::Held => memory,
        _ => Memory { schema: 1, instance, asked, bootstrap_id: new_uuid(), before: jobs::known(place), phase: Phase::Failed },
    }
}

/// What was asked for, as a digest: the pillar may hold secrets.
fn digest_of(settings: &Settings, apply: &Apply) -> String {
    let asked = json!([settings.minion.id.as_str(), settings.minion.masters, apply.hook.as_str(), apply.argument(), apply.matcher, apply.pillar]).to_string();
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

fn held(states: &Option<States>) -> String {
    match states {
        Some(states) => format!(": {} of {} states hold, {} with changes", states.total - states.failed, states.total, states.changed),
        None => String::new(),
    }
}

//! What a bootstrap does, top to bottom. Each step looks first and changes only what
//! has to change, so a run after a run does nothing, and a run after a killed one goes on.

use std::time::Duration;

use tracing::{info, warn};

use super::context::{Context, Steps};
use super::enroll;
use super::journal::Changed;
use super::unit;
use super::{accept, apply};
use crate::config::settings::{Leaving, Settings};
use crate::minion::connection;
use crate::minion::daemon::{self, Minion};
use crate::minion::keypair;
use crate::minion::paths::MinionPaths;
use crate::minion::settings::Trust;
use crate::packages;
use crate::packages::commands::Existing;
use crate::salt::enrolment::Service;
use crate::salt::key_state::Judgement;
use crate::salt::keys;
use crate::salt::public_key::Fingerprint;
use crate::salt::session::Session;
use crate::salt::settings::{Accept, Api};
use crate::system::files;
use crate::system::retry::Wait;
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::report::States;
use crate::types::step::StepName;

/// How long salt-api is asked whether it accepts a minion that is connected; what it does not say by then, a new connection shows.
const ASKING: Duration = Duration::from_secs(10);

/// Takes the steps that are wanted; returns a sentence that says what holds now.
pub fn bootstrap(context: &Context, steps: Steps) -> Result<String, Failure> {
    let Context { settings, root, store, journal, wait, .. } = *context;
    let id = &settings.minion.id;
    journal.name_minion(id.as_str());
    be_oneself(context, steps)?;
    let before = if steps.install && steps.apply && !context.again { in_place(context) } else { None };
    if !settings.splay.is_zero() {
        // Many machines that were started together would ask the master together.
        journal.step(StepName::Splay, wait, |wait| wait.splay(settings.splay).map(Changed::no))?;
    }
    let mut session = settings.api.as_ref().map(|api| session_with(settings, api)).transpose()?;
    let mut service = enroll::service(settings, store)?;
    if let Some(states) = before {
        if still_accepted(context, session.as_mut(), service.as_mut())? {
            return Ok(format!("{id} is in place: nothing had to change{}", held_then(&states)));
        }
        // The connection is older than whatever has happened to the key.
        store.pending_restart().mark()?;
    }
    // Also before `install` alone: only who has enrolled is told which master is the right one.
    let enrolls = settings.accept == Accept::Enroll && (steps.accept || steps.install);
    let mut accepted = false;
    let master = match service.as_mut().filter(|_| enrolls) {
        Some(service) => {
            let master;
            (master, accepted) = enroll::before_start(context, service)?;
            master
        }
        None => master(context, session.as_mut())?,
    };
    let master = master.as_ref();
    let mut minion = if steps.install {
        let program = journal.step(StepName::Install, wait, |wait| {
            let prepare = |existing| {
                if existing == Existing::Other {
                    store.pending_restart().mark()?;
                }
                daemon::prepare(root, &settings.minion, master, wait)
            };
            let ensured = packages::ensure(&settings.install, &settings.minion.program, root, prepare, wait);
            ensured.map(|(program, changed)| Changed::when(program, changed))
        })?;
        journal.step(StepName::Configure, wait, |wait| {
            daemon::ensure(root, &settings.minion, &program, master, &store.pending_restart(), wait)
                .map(|(minion, changed)| Changed::when(minion, changed))
        })?
    } else {
        Minion::found(MinionPaths::of(root, &settings.minion))
    };
    if steps.install && (settings.deregister != Leaving::Never || !unit::in_place(settings.deregister, root)) {
        journal.step(StepName::Unit, wait, |wait| {
            unit::ensure(settings.deregister, root, context.config, wait).map(|changed| Changed::when((), changed))
        })?;
    }
    if !steps.accept && !steps.apply {
        journal.step(StepName::Start, wait, |wait| started(&mut minion, wait).map(Changed::no))?;
        store.pending_restart().settle(minion.pids().first().copied())?;
        return Ok(format!("salt-minion is configured as {id} and runs"));
    }
    let connected = match (service.as_mut().filter(|_| steps.accept), session.as_mut()) {
        (Some(service), _) => enroll::connected(context, service, &mut minion, master, accepted)?,
        (None, session) => {
            if let (true, Accept::Wheel, Some(session)) = (steps.accept, settings.accept, session) {
                log_in(context, session)?;
                journal.step(StepName::Accept, wait, |wait| {
                    accept::by_wheel(session, &mut minion, id, wait).map(|changed| Changed::when((), changed))
                })?;
            }
            journal.step(StepName::Connect, wait, |wait| connection::wait(&mut minion, master, wait).map(Changed::no))?
        }
    };
    store.pending_restart().settle(minion.pids().first().copied())?;
    if let (true, Leaving::WhenGone, Some(service)) = (steps.accept, settings.deregister, service.as_mut()) {
        enroll::renew(context, service, &keypair::own(&minion.paths)?)?;
    }
    if settings.minion.trust == Trust::FirstUse && steps.accept {
        let met = minion.paths.known_master().map_or_else(|| "unknown".to_owned(), |finger| finger.as_str().to_owned());
        warn!("trust on first use: the first master that answered is trusted; its key has the fingerprint {met}");
        journal.note_fact(Fact::TrustedOnFirstUse, met);
    }
    if steps.apply && !steps.accept && settings.apply.is_none() {
        return Err(Failure::new(Kind::Config, "the configuration has no apply section: there is nothing to apply")
            .hint("Name the states in apply.states, or give --state."));
    }
    let (true, Some(wanted)) = (steps.apply, settings.apply.as_ref()) else {
        return Ok(format!("{id} is accepted and connected"));
    };
    if let Some(states) = apply::held_before(context, wanted).filter(|_| !context.again) {
        return Ok(format!(
            "{id} is connected, and {} was applied before{}; --again applies it again",
            wanted.argument(),
            held_then(&states)
        ));
    }
    let states = match (service.as_mut(), session.as_mut()) {
        (Some(service), _) => journal.step(StepName::States, wait, |wait| {
            apply::by_service(context, service, wanted, &mut minion, master, connected, wait).map(Changed::yes)
        })?,
        (None, Some(session)) => {
            log_in(context, session)?;
            journal.step(StepName::States, wait, |wait| {
                apply::by_hook(context, wanted, &mut minion, master, session, connected, wait).map(Changed::yes)
            })?
        }
        // Settings::parse refuses this.
        (None, None) => return Err(Failure::new(Kind::Bug, "nobody can be asked to run the states")),
    };
    Ok(format!("{id} applied {}: {}, {} with changes", wanted.argument(), hold(&states), states.changed))
}

/// Where each master has an API of its own the first one is spoken to, and must answer.
pub fn session_with<'a>(settings: &Settings, api: &'a Api) -> Result<Session<'a>, Failure> {
    if settings.one_api_for_each_master() { Session::at(api, 0) } else { Session::new(api) }
}

/// A copy of another machine's disk has that one's key pair and memories, and must not use them.
fn be_oneself(context: &Context, steps: Steps) -> Result<(), Failure> {
    let Context { settings, root, store, wait, journal, .. } = *context;
    let Some(original) = store.is_a_copy() else { return store.note_instance() };
    if !steps.install {
        return Err(Failure::new(
            Kind::LocalSystem,
            format!("this disk is a copy of {original}'s, and this machine has no key pair of its own yet"),
        )
        .hint("`heat-salt-bootstrap install` (or `run`) gives it one; set minion.keep_key if the image carries a key on purpose."));
    }
    if settings.minion.keep_key {
        info!("this disk is a copy of {original}'s: its key pair is kept, as minion.keep_key says");
    } else {
        journal.step(StepName::KeyPair, wait, |wait| {
            info!("this disk is a copy of {original}'s: this machine gets a key pair of its own");
            let paths = MinionPaths::of(root, &settings.minion);
            daemon::stop(settings.minion.start, root, &paths, wait)?;
            keypair::discard(&paths).map(Changed::yes)
        })?;
    }
    store.forget_original()?;
    store.note_instance()
}

/// Does the master still accept this minion? A connection that stands proves nothing: Salt keeps it when it deletes the key. salt-api
/// knows, where the user may ask; else a new connection shows it, which salt-call makes without disturbing the minion.
fn still_accepted(context: &Context, session: Option<&mut Session>, service: Option<&mut Service>) -> Result<bool, Failure> {
    let Context { settings, root, journal, wait, .. } = *context;
    let paths = MinionPaths::of(root, &settings.minion);
    let may_ask = settings.accept == Accept::Wheel && settings.api.as_ref().is_some_and(|api| api.password.is_some());
    journal.step(StepName::Look, wait, |wait| {
        if let (true, Some(session)) = (may_ask, session) {
            let soon = wait.slice(ASKING);
            let looked = session.log_in(&soon).and_then(|()| keys::inspect(session, &settings.minion.id, paths.public_key()?, &soon));
            match looked {
                Ok(Judgement::Accepted) => return Ok(Changed::no(true)),
                Ok(other) => {
                    warn!("the key of {} is {other:?} on the master: starting over", settings.minion.id);
                    return Ok(Changed::no(false));
                }
                Err(failure) if matches!(failure.kind, Kind::KeyRejected | Kind::KeyConflict | Kind::Interrupted) => return Err(failure),
                Err(failure) => warn!("salt-api cannot be asked whether the key is accepted: {failure}"),
            }
        }
        if service.is_some_and(|service| enroll::is_accepted(context, service, &paths, wait)) {
            return Ok(Changed::no(true));
        }
        connection::prove(&settings.minion.program, &paths, wait).map(Changed::no)
    })
}

/// Is everything as an earlier run left it, and did the states hold? Looks at this machine only.
fn in_place(context: &Context) -> Option<Option<States>> {
    let Context { settings, root, store, wait, .. } = *context;
    let paths = MinionPaths::of(root, &settings.minion);
    let master = match &settings.minion.trust {
        Trust::Given(finger) => Some(finger.clone()),
        Trust::AskApi | Trust::AskService => Some(paths.pinned_master()?),
        Trust::FirstUse => None,
    };
    let configured = files::holds(&paths.drop_in, paths.drop_in_text(root, &settings.minion, master.as_ref()).as_bytes())
        && paths.check_master(master.as_ref()).is_ok()
        && !store.pending_restart().is_due()
        && unit::in_place(settings.deregister, root);
    let minion = Minion::found(paths);
    if !configured || connection::probe(&minion).is_none() {
        return None;
    }
    // What cannot be found out here, the step finds out and tells.
    packages::present(&settings.install, &settings.minion.program, wait).ok().flatten()?;
    match &settings.apply {
        Some(wanted) => apply::held_before(context, wanted),
        None => Some(None),
    }
}

/// Which master the minion has to meet. If the configuration does not say, salt-api does, over
/// verified TLS and before the minion starts. `None` only where the configuration wants the first one that answers.
fn master(context: &Context, session: Option<&mut Session>) -> Result<Option<Fingerprint>, Failure> {
    match (&context.settings.minion.trust, session) {
        (Trust::Given(finger), _) => Ok(Some(finger.clone())),
        (Trust::FirstUse, _) => Ok(None),
        (Trust::AskApi, Some(session)) => {
            log_in(context, session)?;
            context.journal.step(StepName::Master, context.wait, |wait| {
                keys::master_fingerprint(session, wait).map(|finger| Changed::no(Some(finger)))
            })
        }
        // Whoever applies alone has enrolled before.
        (Trust::AskService, _) => Ok(MinionPaths::of(context.root, &context.settings.minion).pinned_master()),
        // Settings::parse refuses this.
        (Trust::AskApi, None) => Err(Failure::new(Kind::Bug, "nobody says which master is the right one")),
    }
}

/// Does something in this session and, where each master has a salt-api of its own, in one with each of the others.
pub fn at_each_api(
    settings: &Settings,
    api: &Api,
    session: &mut Session,
    wait: &Wait,
    mut work: impl FnMut(&mut Session) -> Result<(), Failure>,
) -> Result<(), Failure> {
    work(session)?;
    for url in 1..if settings.one_api_for_each_master() { api.urls.len() } else { 0 } {
        let mut session = Session::at(api, url)?;
        session.log_in(wait)?;
        work(&mut session)?;
    }
    Ok(())
}

/// Logs in, as a step of its own, unless that was done.
pub fn log_in(context: &Context, session: &mut Session) -> Result<(), Failure> {
    if session.is_open() {
        return Ok(());
    }
    context.journal.step(StepName::Login, context.wait, |wait| session.log_in(wait).map(Changed::no))
}

/// For `install` alone: the minion is there once it has a process. That takes as long as it takes: one that has ended is noticed.
fn started(minion: &mut Minion, wait: &Wait) -> Result<(), Failure> {
    let up = wait.poll(Duration::from_millis(50), || {
        minion.check()?;
        Ok((!minion.pids().is_empty()).then_some(()))
    })?;
    up.ok_or_else(|| minion.late(Failure::new(Kind::LocalSystem, "salt-minion was started, but does not run")))
}

fn hold(states: &States) -> String {
    format!("{} of {} states succeeded", states.total - states.failed, states.total)
}

/// What changed then has not changed now.
fn held_then(states: &Option<States>) -> String {
    states.as_ref().map_or_else(String::new, |states| format!(", {}", hold(states)))
}

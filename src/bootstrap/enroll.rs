//! The steps of `accept: enroll`: the key pair, the enrolment service that lets it in and says which master is the right one, and
//! the connection.

use std::time::Duration;

use tracing::info;

use super::apply;
use super::context::Context;
use super::journal::Changed;
use super::state::Store;
use crate::config::settings::Settings;
use crate::minion::connection::{self, Connected};
use crate::minion::daemon::Minion;
use crate::minion::first_start;
use crate::minion::keypair;
use crate::minion::paths::MinionPaths;
use crate::minion::settings::Trust;
use crate::salt::claim::{Asked, Token};
use crate::salt::enrolment::{Asking, Service};
use crate::salt::private_key::KeyPair;
use crate::salt::public_key::Fingerprint;
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};
use crate::types::step::StepName;

/// How long the service is asked whether a key is still accepted; what it does not say by then, a new connection shows.
const ASKING: Duration = Duration::from_secs(10);

/// The service, if the configuration names one. Where each master has one of its own the first is spoken to, and must answer.
pub fn service<'a>(settings: &'a Settings, store: &Store) -> Result<Option<Service<'a>>, Failure> {
    let Some(enroll) = &settings.enroll else { return Ok(None) };
    let prepared =
        if settings.one_service_for_each_master() { Service::at(enroll, store.pin(), 0) } else { Service::new(enroll, store.pin()) };
    prepared.map(Some)
}

/// Under which bootstrap the service is asked for something that belongs to none.
pub fn last_bootstrap(store: &Store) -> String {
    store.memory().map_or_else(|| "none".to_owned(), |memory| memory.bootstrap_id)
}

/// Does the service say that this minion's key is accepted? It can be asked as long as the token is there.
pub fn is_accepted(context: &Context, service: &mut Service, paths: &MinionPaths, wait: &Wait) -> bool {
    let Some(token) = context.settings.enroll.as_ref().and_then(|enroll| enroll.token.as_ref()) else { return false };
    let Ok(Some(keys)) = keypair::load(paths) else { return false };
    let bootstrap_id = last_bootstrap(context.store);
    let asking = Asking { keys: Some(&keys), id: &context.settings.minion.id, bootstrap_id: &bootstrap_id };
    match service.check(&asking, Asked::Check(token, &[]), &wait.slice(ASKING)) {
        Ok(good) => good.already,
        Err(failure) => {
            info!("the enrolment service does not say whether the key is accepted: {failure}");
            false
        }
    }
}

/// Makes the key pair and has it accepted, before the minion is started and, where its package would start it, before that is
/// installed. Says which master is the right one, and whether the key is accepted by now: without a way to make the pair here, the
/// minion has to make it first.
pub fn before_start(context: &Context, service: &mut Service) -> Result<(Option<Fingerprint>, bool), Failure> {
    let Context { settings, root, store, journal, wait, .. } = *context;
    let paths = MinionPaths::of(root, &settings.minion);
    let known = match &settings.minion.trust {
        Trust::Given(finger) => Some(finger.clone()),
        Trust::FirstUse => None,
        Trust::AskService | Trust::AskApi => paths.pinned_master(),
    };
    let knows = known.is_some() || settings.minion.trust == Trust::FirstUse;
    // It is accepted, or it would not be connected; unless something has happened to its key, for which a restart is due. Who let it
    // in may have been somebody else, though.
    let enrolled = paths.public_key()?.is_some_and(|key| store.is_enrolled(&key.fingerprint(), &settings.minion.id));
    if knows && enrolled && connection::probe(&Minion::found(paths.clone())).is_some() && !store.pending_restart().is_due() {
        return Ok((known, true));
    }
    let making = keypair::begin(&paths)?;
    let keys = journal.step(StepName::Keys, wait, |wait| {
        let begun = making.is_some();
        let why_not = making.map(|making| making.finish(&paths, wait)).transpose()?.flatten();
        match keypair::load(&paths)? {
            None if !knows => {
                let (why, mend) = match &why_not {
                    Some(why) => (format!(" ({why})"), "See what is wrong with openssl, which makes it"),
                    None => (String::new(), "Install openssl, which makes it"),
                };
                let message = format!("the minion's key pair cannot be made before its first start{why}, and without one the enrolment service does not say which master is the right one");
                let hint = format!("{mend}, or give minion.master_finger: then the minion makes its own.");
                Err(Failure::new(Kind::LocalSystem, message).hint(hint))
            }
            keys => Ok(Changed::when(keys, begun && why_not.is_none())),
        }
    })?;
    match keys {
        Some(keys) => Ok((enroll_step(context, service, &paths, &keys)?, true)),
        None => Ok((known, false)),
    }
}

/// Has accepted what is not accepted yet, and sees the minion connected.
pub fn connected(
    context: &Context,
    service: &mut Service,
    minion: &mut Minion,
    master: Option<&Fingerprint>,
    accepted: bool,
) -> Result<Connected, Failure> {
    let Context { journal, wait, .. } = *context;
    let paths = minion.paths.clone();
    if !accepted && connection::probe(minion).is_none() {
        let keys = journal.step(StepName::Keys, wait, |wait| first_start::key_pair(minion, wait).map(Changed::no))?;
        enroll_step(context, service, &paths, &keys)?;
    }
    journal.step(StepName::Connect, wait, |wait| connection::wait(minion, master, wait).map(Changed::no))
}

fn enroll_step(context: &Context, service: &mut Service, paths: &MinionPaths, keys: &KeyPair) -> Result<Option<Fingerprint>, Failure> {
    context.journal.step(StepName::Enroll, context.wait, |wait| {
        let (master, changed) = enroll(context, service, paths, keys, wait)?;
        Ok(Changed::when(master, changed))
    })
}

fn enroll(
    context: &Context,
    service: &mut Service,
    paths: &MinionPaths,
    keys: &KeyPair,
    wait: &Wait,
) -> Result<(Option<Fingerprint>, bool), Failure> {
    let settings = context.settings;
    let token = token(settings)?;
    let bootstrap_id = apply::bootstrap_id(context, paths)?;
    let asking = Asking { keys: Some(keys), id: &settings.minion.id, bootstrap_id: &bootstrap_id };
    let states = settings.apply.as_ref().map_or(&[][..], |apply| &apply.states);
    let (mut masters, mut changed) = (Vec::new(), false);
    at_each_master(context, service, |service| {
        let let_in = service.enroll(&asking, token, Asked::Enroll(token, states), wait)?;
        changed |= let_in.changed;
        masters.push((service.url().clone(), let_in.master.fingerprint()));
        Ok(())
    })?;
    context.store.note_enrolled(&keys.public.fingerprint(), &settings.minion.id, token.pin())?;
    let trusted = match &settings.minion.trust {
        Trust::FirstUse => return Ok((None, changed)),
        Trust::Given(finger) => finger.clone(),
        Trust::AskService | Trust::AskApi => masters[0].1.clone(),
    };
    if let Some((url, other)) = masters.iter().find(|(_, finger)| *finger != trusted) {
        let message =
            format!("the master behind {url} has a key with the fingerprint {}, expected is {}", other.as_str(), trusted.as_str());
        return Err(Failure::new(Kind::MasterUntrusted, message).hint(
            "Correct minion.master_finger (`salt-key -F master` on the master shows it). Several masters of one minion share one key pair.",
        ));
    }
    Ok((Some(trusted), changed))
}

fn token(settings: &Settings) -> Result<&Token, Failure> {
    settings.enroll.as_ref().and_then(|enroll| enroll.token.as_ref()).ok_or_else(|| {
        Failure::new(Kind::Config, "enroll.token is gone, but this minion still has to enrol")
            .hint("forget_secrets wiped it after use: create another one (`heat-bootstrap token create`) and give it in enroll.token.")
    })
}

/// Says that this machine lives: its key stays, or comes back. Says whether it had to.
pub fn renew(context: &Context, service: &mut Service, own: &KeyPair) -> Result<bool, Failure> {
    let Context { settings, store, journal, wait, .. } = *context;
    let bootstrap_id = last_bootstrap(store);
    let asking = Asking { keys: Some(own), id: &settings.minion.id, bootstrap_id: &bootstrap_id };
    journal.step(StepName::Lease, wait, |wait| {
        let mut returned = false;
        at_each_master(context, service, |service| {
            returned |= service.renew(&asking, wait)?;
            Ok(())
        })?;
        Ok(Changed::when(returned, returned))
    })
}

/// Does something with this service and, where each master has one of its own, with each of the others.
pub fn at_each_master(
    context: &Context,
    service: &mut Service,
    mut work: impl FnMut(&mut Service) -> Result<(), Failure>,
) -> Result<(), Failure> {
    work(service)?;
    let others = context.settings.enroll.as_ref().filter(|_| context.settings.one_service_for_each_master());
    for (enroll, url) in others.into_iter().flat_map(|enroll| (1..enroll.urls.len()).map(move |url| (enroll, url))) {
        work(&mut Service::at(enroll, context.store.pin(), url)?)?;
    }
    Ok(())
}

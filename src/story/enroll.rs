//! The steps of `accept: hook`: the key pair, the claim, the connection.

use super::apply;
use super::bootstrap::log_in;
use super::journal::Did;
use super::scene::Scene;
use crate::decide::claim::Asked;
use crate::decide::fingerprint::Fingerprint;
use crate::machine::patience::Patience;
use crate::service::minion::connection::{self, Connected};
use crate::service::minion::daemon::Minion;
use crate::service::minion::keypair::{self, KeyPair};
use crate::service::minion::place::Place;
use crate::service::salt::enroll::{self, Claimant};
use crate::service::salt::session::Session;
use crate::words::failure::{Failure, Kind};

/// Makes the key pair and claims its acceptance, before the minion is started and, where its package would start it, before that
/// is installed. Says whether it could: without a way to make the pair here, the minion has to make it first.
pub fn early(scene: &Scene, session: &mut Session) -> Result<bool, Failure> {
    let Scene { settings, root, journal, patience, .. } = *scene;
    let place = Place::of(root, settings);
    if connection::look(&Minion::found(place.clone())).is_some() {
        // It is accepted, or it would not be connected.
        return Ok(true);
    }
    let making = keypair::begin(&place)?;
    log_in(scene, session)?;
    let keys = journal.step("keys", patience, |patience| {
        let made = making.map(|making| making.finish(&place, patience)).transpose()?.unwrap_or(false);
        if made {
            place.note_made_keys()?;
        }
        keypair::load(&place).map(|keys| Did::so(keys, made))
    })?;
    let Some(keys) = keys else { return Ok(false) };
    journal.step("enroll", patience, |patience| claim(scene, session, &place, &keys, patience).map(Did::change))?;
    Ok(true)
}

/// Claims what was not claimed yet, and sees the minion connected.
pub fn connected(
    scene: &Scene,
    session: &mut Session,
    minion: &mut Minion,
    master: Option<&Fingerprint>,
    claimed: bool,
) -> Result<Connected, Failure> {
    let Scene { settings, journal, patience, .. } = *scene;
    let place = minion.place.clone();
    if !claimed && connection::look(minion).is_none() {
        let keys = journal.step("keys", patience, |patience| enroll::await_keys(minion, patience).map(Did::nothing))?;
        log_in(scene, session)?;
        journal.step("enroll", patience, |patience| claim(scene, session, &place, &keys, patience).map(Did::change))?;
    }
    journal.step("connect", patience, |patience| {
        let again = |patience: &Patience| claim(scene, session, &place, &enroll::own_keys(&place)?, patience);
        enroll::connect(minion, &settings.minion.id, master, patience, again).map(Did::nothing)
    })
}

fn claim(scene: &Scene, session: &mut Session, place: &Place, keys: &KeyPair, patience: &Patience) -> Result<(), Failure> {
    let token = scene.settings.token.as_ref().ok_or_else(|| {
        Failure::new(Kind::Config, "enroll.token is not there any more, and this minion has to be enrolled")
            .hint("forget_secrets has wiped it after use: have another minted, and give it in enroll.token.")
    })?;
    let bootstrap_id = apply::bootstrap_id(scene, place)?;
    let claimant = Claimant { keys, id: &scene.settings.minion.id, bootstrap_id: &bootstrap_id };
    at_each_master(scene, session, patience, |session| claimant.claim(session, Asked::Enroll(token), patience))
}

/// Does something in this session and, where each master has an API of its own, in one with each of the others.
pub fn at_each_master(
    scene: &Scene,
    session: &mut Session,
    patience: &Patience,
    mut work: impl FnMut(&mut Session) -> Result<(), Failure>,
) -> Result<(), Failure> {
    work(session)?;
    let others = scene.settings.api.as_ref().filter(|_| scene.settings.one_api_for_each_master());
    for (api, url) in others.into_iter().flat_map(|api| (1..api.urls.len()).map(move |url| (api, url))) {
        let mut session = Session::at(api, url)?;
        session.log_in(patience)?;
        work(&mut session)?;
    }
    Ok(())
}

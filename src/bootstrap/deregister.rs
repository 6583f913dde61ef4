//! Leaving: a machine that goes for good takes its own key off the master.

use super::context::Scene;
use super::enroll;
use super::journal::Did;
use super::pipeline::{log_in, session_with};
use crate::minion::daemon;
use crate::minion::keypair;
use crate::minion::paths::Place;
use crate::salt::enrolment::{Asking, Service};
use crate::salt::keys;
use crate::salt::private_key::KeyPair;
use crate::salt::session::Session;
use crate::salt::settings::{Accept, Api};
use crate::system::files;
use crate::types::failure::{Failure, Kind};

/// Stops the minion and gets its key removed; returns a sentence that says what holds now. The key pair stays here, so that an
/// operator may change his mind.
pub fn leave(scene: &Scene) -> Result<String, Failure> {
    let Scene { settings, root, store, journal, .. } = *scene;
    let id = &settings.minion.id;
    journal.name_minion(id.as_str());
    if let Some(original) = store.is_a_copy() {
        return Err(Failure::new(
            Kind::LocalSystem,
            format!("this disk is a copy of {original}'s, and so is its key: that one's stays on the master"),
        )
        .hint("Deregister the machine that the key was made for."));
    }
    let place = Place::of(root, &settings.minion);
    let removed = match (enroll::service(settings, store)?, settings.api.as_ref().filter(|_| settings.accept == Accept::Wheel)) {
        (Some(mut service), _) => by_service(scene, &mut service, &place, &keypair::own(&place)?)?,
        (None, Some(api)) => by_wheel(scene, api, &place, &keypair::own(&place)?)?,
        (None, None) => {
            return Err(Failure::new(Kind::Config, "the configuration does not say how the key could be removed")
                .hint("deregister needs an enroll section, or an api section and accept \"wheel\"."));
        }
    };
    // Its states do not hold any more, should it come back.
    files::remove(&store.memory_path())?;
    Ok(format!("{id} has left: {}", if removed { "its key is removed from the master" } else { "the master had no key of it" }))
}

/// A minion that still runs would show its key again at once.
fn stop(scene: &Scene, place: &Place) -> Result<(), Failure> {
    let Scene { settings, root, journal, patience, .. } = *scene;
    journal
        .step("stop", patience, |patience| daemon::stop(settings.minion.start, root, place, patience).map(|stopped| Did::so((), stopped)))
}

fn by_service(scene: &Scene, service: &mut Service, place: &Place, own: &KeyPair) -> Result<bool, Failure> {
    let Scene { settings, store, journal, patience, .. } = *scene;
    stop(scene, place)?;
    let bootstrap_id = enroll::last_bootstrap(store);
    let asking = Asking { keys: Some(own), id: &settings.minion.id, bootstrap_id: &bootstrap_id };
    journal.step("deregister", patience, |patience| {
        let mut removed = false;
        enroll::at_each_master(scene, service, |service| {
            removed |= service.deregister(&asking, patience)?;
            Ok(())
        })?;
        Ok(Did::so(removed, removed))
    })
}

fn by_wheel(scene: &Scene, api: &Api, place: &Place, own: &KeyPair) -> Result<bool, Failure> {
    let Scene { settings, journal, patience, .. } = *scene;
    let id = &settings.minion.id;
    let mut session = session_with(settings, api)?;
    log_in(scene, &mut session)?;
    stop(scene, place)?;
    journal.step("deregister", patience, |patience| {
        let mut removed = keys::remove(&mut session, id, own.public.clone(), patience)?;
        let others = if settings.one_api_for_each_master() { 1..api.urls.len() } else { 0..0 };
        for url in others {
            let mut session = Session::at(api, url)?;
            session.log_in(patience)?;
            removed |= keys::remove(&mut session, id, own.public.clone(), patience)?;
        }
        Ok(Did::so(removed, removed))
    })
}

//! Leaving: a machine that goes for good takes its own key off the master.

use super::bootstrap::{log_in, session_with};
use super::enroll::at_each_master;
use super::journal::Did;
use super::scene::Scene;
use crate::decide::claim::Asked;
use crate::decide::settings::Accept;
use crate::machine::files;
use crate::service::minion::daemon;
use crate::service::minion::place::Place;
use crate::service::salt::enroll::{self, Claimant};
use crate::service::salt::keys;
use crate::words::failure::{Failure, Kind};

/// Stops the minion and gets its key removed; returns a sentence that says what holds now. The key pair stays here, so that an
/// operator may change his mind.
pub fn leave(scene: &Scene) -> Result<String, Failure> {
    let Scene { settings, root, store, journal, patience, .. } = *scene;
    let id = &settings.minion.id;
    journal.name_minion(id.as_str());
    if let Some(original) = store.is_a_copy() {
        return Err(Failure::new(
            Kind::LocalSystem,
            format!("this disk is a copy of {original}'s, and so is its key: that one's stays on the master"),
        )
        .hint("Deregister the machine that the key was made for."));
    }
    let place = Place::of(root, settings);
    let api = settings.api.as_ref().filter(|_| settings.accept != Accept::Nobody).ok_or_else(|| {
        Failure::new(Kind::Config, "the configuration does not say how the key could be removed")
            .hint("deregister needs an api section, and accept \"hook\" or \"wheel\".")
    })?;
    let own = enroll::own_keys(&place)?;
    let mut session = session_with(settings, api)?;
    log_in(scene, &mut session)?;
    // A minion that still runs would show its key again at once.
    journal.step("stop", patience, |patience| {
        daemon::stop(settings.minion.start, root, &place, patience).map(|stopped| Did::so((), stopped))
    })?;
    let bootstrap_id = store.memory().map(|memory| memory.bootstrap_id).unwrap_or_default();
    let claimant = Claimant { keys: &own, id, bootstrap_id: &bootstrap_id };
    let removed = journal.step("deregister", patience, |patience| {
        let mut removed = false;
        at_each_master(scene, &mut session, patience, |session| {
            removed |= match settings.accept {
                Accept::Wheel => keys::remove(session, id, own.public.clone(), patience)?,
                Accept::Hook | Accept::Nobody => {
                    claimant.claim(session, Asked::Deregister, patience)?;
                    true
                }
            };
            Ok(())
        })?;
        Ok(Did::so(removed, removed))
    })?;
    // Its states do not hold any more, should it come back.
    files::remove(&store.memory_path())?;
    let said = match (settings.accept, removed) {
        (Accept::Wheel, true) => "its key is removed from the master",
        (Accept::Wheel, false) => "the master had no key of it",
        (Accept::Hook | Accept::Nobody, _) => "the master was asked to remove its key, which it does not answer",
    };
    Ok(format!("{id} has left: {said}"))
}

//! Leaving: a machine that goes for good takes its own key off the master.

use super::context::Context;
use super::enroll;
use super::journal::Changed;
use super::pipeline::{at_each_api, log_in, session_with};
use crate::minion::daemon;
use crate::minion::keypair;
use crate::minion::paths::MinionPaths;
use crate::salt::enrolment::{Asking, Service};
use crate::salt::keys;
use crate::salt::private_key::KeyPair;
use crate::salt::settings::{Accept, Api};
use crate::system::files;
use crate::types::failure::{Failure, Kind};
use crate::types::step::StepName;

/// Stops the minion and gets its key removed; returns a sentence that says what holds now. The key pair stays here, so that an
/// operator may change his mind.
pub fn deregister(context: &Context) -> Result<String, Failure> {
    let Context { settings, root, store, journal, .. } = *context;
    let id = &settings.minion.id;
    journal.name_minion(id.as_str());
    store.refuse_copy("Deregister the machine that the key was made for.")?;
    let paths = MinionPaths::of(root, &settings.minion);
    let removed = match (enroll::service(settings, store)?, settings.api.as_ref().filter(|_| settings.accept == Accept::Wheel)) {
        (Some(mut service), _) => by_service(context, &mut service, &paths, &keypair::own(&paths)?)?,
        (None, Some(api)) => by_wheel(context, api, &paths, &keypair::own(&paths)?)?,
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
fn stop(context: &Context, paths: &MinionPaths) -> Result<(), Failure> {
    let Context { settings, root, journal, wait, .. } = *context;
    journal
        .step(StepName::Stop, wait, |wait| daemon::stop(settings.minion.start, root, paths, wait).map(|stopped| Changed::when((), stopped)))
}

fn by_service(context: &Context, service: &mut Service, paths: &MinionPaths, own: &KeyPair) -> Result<bool, Failure> {
    let Context { settings, store, journal, wait, .. } = *context;
    stop(context, paths)?;
    let bootstrap_id = enroll::last_bootstrap(store);
    let asking = Asking { keys: Some(own), id: &settings.minion.id, bootstrap_id: &bootstrap_id };
    journal.step(StepName::Deregister, wait, |wait| {
        let mut removed = false;
        enroll::at_each_master(context, service, |service| {
            removed |= service.deregister(&asking, wait)?;
            Ok(())
        })?;
        Ok(Changed::when(removed, removed))
    })
}

fn by_wheel(context: &Context, api: &Api, paths: &MinionPaths, own: &KeyPair) -> Result<bool, Failure> {
    let Context { settings, journal, wait, .. } = *context;
    let id = &settings.minion.id;
    let mut session = session_with(settings, api)?;
    log_in(context, &mut session)?;
    stop(context, paths)?;
    journal.step(StepName::Deregister, wait, |wait| {
        let mut removed = false;
        at_each_api(settings, api, &mut session, wait, |session| {
            removed |= keys::remove(session, id, own.public.clone(), wait)?;
            Ok(())
        })?;
        Ok(Changed::when(removed, removed))
    })
}

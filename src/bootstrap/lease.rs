//! Saying that this machine lives. Who has it removed when it is gone (`deregister`) thereby keeps its key, or gets it back: it may
//! only have been switched off. Nova's stop, shelve, resize and soft reboot look like the end from within, and a server that is deleted
//! gets no time to say anything (nova/compute/manager.py, `_power_off_instance` and `_shutdown_instance`).

use super::context::Context;
use super::enroll;
use super::journal::Changed;
use super::pipeline::{at_each_api, log_in, session_with};
use crate::minion::daemon::Minion;
use crate::minion::keypair;
use crate::minion::paths::MinionPaths;
use crate::salt::keys;
use crate::salt::private_key::KeyPair;
use crate::salt::settings::{Accept, Api};
use crate::types::failure::{Failure, Kind};
use crate::types::step::StepName;

/// Renews the lease; by salt-api, which knows of none, the key is accepted again if it was removed. Returns a sentence that says what
/// holds now.
pub fn renew(context: &Context) -> Result<String, Failure> {
    let Context { settings, root, store, .. } = *context;
    let id = &settings.minion.id;
    store.refuse_copy("`heat-salt-bootstrap run` gives this machine a key of its own.")?;
    let own = keypair::own(&MinionPaths::of(root, &settings.minion))?;
    let returned = match (enroll::service(settings, store)?, settings.api.as_ref().filter(|_| settings.accept == Accept::Wheel)) {
        (Some(mut service), _) => enroll::renew(context, &mut service, &own)?,
        (None, Some(api)) => by_wheel(context, api, &own)?,
        (None, None) => {
            return Err(Failure::new(Kind::Config, "the configuration does not say who should hear that this machine lives")
                .hint("renew needs an enroll section, or an api section and accept \"wheel\"."));
        }
    };
    Ok(format!("{id} {}", if returned { "is back: its key is accepted again" } else { "lives, and its key is accepted" }))
}

fn by_wheel(context: &Context, api: &Api, own: &KeyPair) -> Result<bool, Failure> {
    let Context { settings, root, journal, wait, .. } = *context;
    // Only a minion that runs shows its key.
    let mut minion = Minion::found(MinionPaths::of(root, &settings.minion));
    let id = &settings.minion.id;
    let mut session = session_with(settings, api)?;
    log_in(context, &mut session)?;
    journal.step(StepName::Accept, wait, |wait| {
        let mut returned = false;
        at_each_api(settings, api, &mut session, wait, |session| {
            let lives = || match minion.stays_away(settings.minion.start, root, wait)? {
                false => Ok(()),
                true => Err(Failure::new(
                    Kind::KeyNotSeen,
                    format!("the master has no key of {id}, and salt-minion, which shows it, does not run"),
                )
                .hint("Start salt-minion, and see in its log why it does not run; then `heat-salt-bootstrap renew`.")),
            };
            returned |= keys::accept(session, id, own.public.clone(), lives, wait)?;
            Ok(())
        })?;
        Ok(Changed::when(returned, returned))
    })
}

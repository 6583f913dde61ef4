//! The step `accept` of the classic chain: the minion calls the master, and its key is accepted by wheel.

use crate::minion::daemon::Minion;
use crate::minion::first_start;
use crate::salt::keys;
use crate::salt::session::Session;
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};
use crate::types::names::MinionId;

/// Gets this minion's own key accepted. Says whether that changed anything.
pub fn by_wheel(session: &mut Session, minion: &mut Minion, id: &MinionId, wait: &Wait) -> Result<bool, Failure> {
    // Without a minion there will be no key: that is what the master would see.
    let unseen =
        |failure: Failure| if failure.kind == Kind::MinionNotConnected { Failure { kind: Kind::KeyNotSeen, ..failure } } else { failure };
    let ours = first_start::public_key(minion, wait).map_err(unseen)?;
    first_start::contact(minion, wait).map_err(unseen)?;
    let accepted = keys::accept(session, id, ours, || minion.check().map_err(unseen), wait);
    accepted.map_err(|failure| if failure.kind == Kind::KeyNotSeen { minion.late(failure) } else { failure })
}

//! Is the minion connected? Seen on this machine, where it is a fact, not asked of the master.

use std::time::Duration;

use tracing::debug;

use super::daemon::Minion;
use crate::decide::fingerprint::Fingerprint;
use crate::machine::patience::Patience;
use crate::machine::process;
use crate::words::failure::{Failure, Kind};

/// Proof that the minion was seen connected: a job published to it would have arrived. Only what
/// holds one can trigger states, since Salt loses jobs for minions that do not listen.
pub struct Connected(());

/// How often it is looked. A look costs some 0.4 ms of CPU.
const EVERY: Duration = Duration::from_millis(40);

/// Is it connected at this moment?
pub fn look(minion: &Minion) -> Option<Connected> {
    process::connected(&minion.pids(), &[minion.place.publish_port]).then_some(Connected(()))
}

/// A minion whose key is accepted connects within seconds, or not at all.
const MOST: Duration = Duration::from_secs(120);

/// Waits until the minion holds a connection to the publish port.
pub fn wait(minion: &mut Minion, master: &Fingerprint, patience: &Patience) -> Result<Connected, Failure> {
    let mut was_up = false;
    let mut since_gone = None;
    let seen = patience.slice(MOST).poll(EVERY, || {
        minion.check_start()?;
        minion.place.check_master(master).map_err(|failure| minion.explain(failure))?;
        let up = !minion.pids().is_empty();
        was_up |= up;
        if was_up && !up {
            // A restart under way looks the same for a moment; ten seconds are no moment.
            let since = *since_gone.get_or_insert_with(std::time::Instant::now);
            if since.elapsed() > Duration::from_secs(10) {
                return Err(ended(minion));
            }
        } else {
            since_gone = None;
        }
        Ok(look(minion))
    })?;
    if let Some(connected) = seen {
        debug!("salt-minion is connected to port {}", minion.place.publish_port);
        return Ok(connected);
    }
    let what = if was_up { "runs, but holds no connection to the master's publish port" } else { "does not run" };
    Err(minion.explain(Failure::new(Kind::MinionNotConnected, format!("salt-minion {what} {}", minion.place.publish_port))))
}

/// The minion ended by itself. Salt's own words tell why: it ends when the master refuses its key
/// (`salt/crypt.py`, `sign_in`) and when the master's key is not the one it knows.
fn ended(minion: &Minion) -> Failure {
    let words = minion.last_words().unwrap_or_default();
    let kind = if words.contains("rejected this minion's public key") {
        Kind::KeyRejected
    } else if words.contains("master key has changed") || words.contains("Invalid master key") || words.contains("finger") {
        Kind::MasterUntrusted
    } else {
        Kind::MinionNotConnected
    };
    minion.explain(Failure::new(kind, "salt-minion ended by itself before it was connected"))
}

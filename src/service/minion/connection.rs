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

/// Is it connected at this moment, to each of its masters?
pub fn look(minion: &Minion) -> Option<Connected> {
    (process::connections(&minion.pids(), &[minion.place.publish_port]) >= minion.place.masters).then_some(Connected(()))
}

/// Is it connected by now? Fails if it met the wrong master, or will not come up any more.
pub fn seen(minion: &mut Minion, master: Option<&Fingerprint>) -> Result<Option<Connected>, Failure> {
    minion.place.check_master(master).map_err(|failure| minion.explain(failure))?;
    minion.check()?;
    let seen = look(minion);
    if seen.is_some() {
        debug!("salt-minion is connected to port {}", minion.place.publish_port);
    }
    Ok(seen)
}

/// Waits until the minion holds a connection to the publish port, for as long as there is time: its key may be waiting for a person.
pub fn wait(minion: &mut Minion, master: Option<&Fingerprint>, patience: &Patience) -> Result<Connected, Failure> {
    let port = minion.place.publish_port;
    let missing = format!("salt-minion has no connection to the master's publish port {port} yet");
    if let Some(connected) = patience.poll_aloud(EVERY, &missing, || seen(minion, master))? {
        return Ok(connected);
    }
    Err(minion.explain(Failure::new(
        Kind::MinionNotConnected,
        format!("salt-minion runs, but holds no connection to the master's publish port {port}"),
    )))
}

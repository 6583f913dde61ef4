//! Is the minion connected? Seen on this machine, where it is a fact, not asked of the master.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::daemon::Minion;
use super::paths::MinionPaths;
use crate::salt::public_key::Fingerprint;
use crate::system::command;
use crate::system::process;
use crate::system::retry::Wait;
use crate::system::sockets::Lookout;
use crate::types::failure::{Failure, Kind};

/// Proof that the minion was seen connected: a job published to it would have arrived. Only what
/// holds one can trigger states, since Salt loses jobs for minions that do not listen.
pub struct Connected(());

/// How often it is looked, if a look is due.
pub const POLL_INTERVAL: Duration = Duration::from_millis(40);

/// Is it connected at this moment, to each of its masters?
pub fn probe(minion: &Minion) -> Option<Connected> {
    (process::connections(&minion.pids(), &[minion.paths.publish_port]) >= minion.paths.masters).then_some(Connected(()))
}

/// Is it connected by now? Fails if it met the wrong master, or will not come up any more.
fn check(minion: &mut Minion, master: Option<&Fingerprint>, lookout: &mut Lookout) -> Result<Option<Connected>, Failure> {
    minion.paths.check_master(master).map_err(|failure| minion.explain(failure))?;
    minion.check()?;
    let connected = if lookout.is_due() { probe(minion) } else { None };
    if connected.is_some() {
        debug!("salt-minion is connected to port {}", minion.paths.publish_port);
    }
    Ok(connected)
}

/// How long a new connection may take. One that takes longer is not seen, and then the minion is restarted, which makes one: no longer
/// deadline changes what comes of it.
const PROOF: Duration = Duration::from_secs(30);

/// Has the master let in a new connection with this minion's key? Made by salt-call, which lies beside the minion's program and shows the
/// same key (`salt/cli/caller.py`); one that is not accepted waits for ever.
pub fn prove(program: &str, paths: &MinionPaths, wait: &Wait) -> Result<bool, Failure> {
    let beside = command::find(program).map(|path| path.with_file_name("salt-call")).filter(|path| path.exists());
    let Some(salt_call) = beside else {
        info!("there is no salt-call beside {program}: restarting the minion shows whether the master still accepts it");
        return Ok(false);
    };
    let (salt_call, config_dir) = (salt_call.to_string_lossy(), paths.config_dir.to_string_lossy());
    let words = [&*salt_call, "--config-dir", &*config_dir, "--out=quiet", "test.ping"];
    match command::run(&words, &for_proof(wait)) {
        Ok(finished) if finished.success() => Ok(true),
        Ok(finished) => {
            warn!("{}: starting over", finished.failure(Kind::MinionNotConnected).message);
            Ok(false)
        }
        Err(failure) if failure.kind == Kind::LocalSystem => {
            warn!("the master has not let salt-call in: {}: starting over", failure.message);
            Ok(false)
        }
        Err(failure) => Err(failure),
    }
}

fn for_proof(wait: &Wait) -> Wait {
    wait.slice(PROOF)
}

/// Waits until the minion holds a connection to the publish port, for as long as there is time: its key may be waiting for a person.
pub fn wait(minion: &mut Minion, master: Option<&Fingerprint>, wait: &Wait) -> Result<Connected, Failure> {
    let port = minion.paths.publish_port;
    let missing = format!("salt-minion has no connection to the master's publish port {port} yet");
    let mut lookout = Lookout::default();
    if let Some(connected) = wait.poll_aloud(POLL_INTERVAL, &missing, || check(minion, master, &mut lookout))? {
        return Ok(connected);
    }
    Err(minion.late(Failure::new(
        Kind::MinionNotConnected,
        format!("salt-minion runs, but holds no connection to the master's publish port {port}"),
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::paths::tests::paths_below;
    use super::*;
    use crate::system::retry::tests::{hour, patience};

    #[test]
    fn who_is_not_let_in_within_a_part_of_the_time_starts_over() {
        assert!(for_proof(&hour()).remaining() <= PROOF);
        let root = tempfile::tempdir().unwrap();
        for name in ["salt-minion", "salt-call"] {
            fs::write(root.path().join(name), "#!/bin/sh\nexec sleep 4713\n").unwrap();
            fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let program = root.path().join("salt-minion").to_string_lossy().into_owned();
        let proved = |wait: &Wait| prove(&program, &paths_below(root.path()), wait);
        assert_eq!(proved(&hour().slice(Duration::from_millis(100))), Ok(false));
        let short = patience(Duration::from_millis(100));
        assert_eq!(proved(&short).unwrap_err().kind, Kind::OutOfTime);
    }
}

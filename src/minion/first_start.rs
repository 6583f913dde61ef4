//! What a minion does when it starts for the first time, and is waited for: it makes its key pair, if nobody has, and calls the master.

use std::time::Duration;

use tracing::debug;

use super::connection;
use super::daemon::Minion;
use super::keypair;
use crate::salt::private_key::KeyPair;
use crate::salt::public_key::PublicKey;
use crate::system::process;
use crate::system::retry::Wait;
use crate::system::sockets::Lookout;
use crate::types::failure::{Failure, Kind};

/// How often it is looked, on this machine, for a file.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// For seeing the minion talk to the master. What is not seen by then is no failure: the master is asked, to the deadline.
const CONTACT: Duration = Duration::from_secs(10);

fn soon(wait: &Wait) -> Wait {
    wait.slice(CONTACT)
}

/// Waits for the pair that the minion makes itself at its first start.
pub fn key_pair(minion: &mut Minion, wait: &Wait) -> Result<KeyPair, Failure> {
    let missing = format!("salt-minion has made no key pair in {} yet", minion.paths.pki_dir.display());
    let found = wait.poll_aloud(POLL_INTERVAL, &missing, || {
        minion.check()?;
        keypair::load(&minion.paths)
    })?;
    found.ok_or_else(|| {
        minion.late(Failure::new(Kind::KeyNotSeen, format!("salt-minion has made no key pair in {}", minion.paths.pki_dir.display())))
    })
}

/// Waits for the public half alone, which is enough where nothing is signed.
pub fn public_key(minion: &mut Minion, wait: &Wait) -> Result<PublicKey, Failure> {
    let key = wait.poll_aloud(POLL_INTERVAL, "salt-minion has not made its key yet", || {
        minion.check()?;
        minion.paths.public_key()
    })?;
    key.ok_or_else(|| {
        let path = minion.paths.pki_dir.join("minion.pub");
        minion.late(Failure::new(Kind::KeyNotSeen, format!("salt-minion has made no key: there is no {}", path.display())))
    })
}

/// Waits until the minion talks to the master's port for keys, as far as that can be seen: asking
/// the master before then would be in vain. If it cannot be seen, the master is asked anyhow.
pub fn contact(minion: &mut Minion, wait: &Wait) -> Result<(), Failure> {
    let mut lookout = Lookout::default();
    let found = soon(wait).poll(connection::POLL_INTERVAL, || {
        minion.check()?;
        let ports = [minion.paths.master_port, minion.paths.publish_port];
        Ok((lookout.is_due() && process::connected(&minion.pids(), &ports)).then_some(()))
    })?;
    debug!("the minion {} the master", if found.is_some() { "talks to" } else { "was not seen talking to" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::paths::tests::paths_below;
    use super::*;
    use crate::system::retry::tests::hour;

    #[test]
    fn a_minion_that_is_not_seen_talking_is_no_failure() {
        assert!(soon(&hour()).remaining() <= CONTACT);
        let root = tempfile::tempdir().unwrap();
        let mut minion = Minion::found(paths_below(root.path()));
        assert_eq!(contact(&mut minion, &hour().slice(Duration::from_millis(50))), Ok(()));
    }
}

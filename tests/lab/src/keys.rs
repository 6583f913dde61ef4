//! Minion keys as the master keeps them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ring::digest::{SHA256, digest};

use crate::process::run;
use crate::venv::Venv;

/// The four places a minion's key can lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Waits for someone to accept it.
    Pending,
    /// Accepted.
    Accepted,
    /// Rejected.
    Rejected,
    /// Came under an id that another key holds.
    Denied,
}

impl KeyState {
    /// All of them.
    pub const ALL: [KeyState; 4] = [KeyState::Pending, KeyState::Accepted, KeyState::Rejected, KeyState::Denied];

    /// The directory's name under the master's pki, the same in both lines.
    pub fn dir(self) -> PathBuf {
        match self {
            KeyState::Pending => "minions_pre",
            KeyState::Accepted => "minions",
            KeyState::Rejected => "minions_rejected",
            KeyState::Denied => "minions_denied",
        }
        .into()
    }
}

/// A key pair as a minion makes it.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// minion.pub
    pub public_pem: String,
    /// minion.pem
    pub private_pem: String,
}

/// Has Salt make a key pair.
pub fn new_key_pair(venv: &Venv) -> Result<KeyPair> {
    let dir = tempfile::tempdir()?;
    let made = run(
        Command::new(venv.program("salt-key"))
            .arg("--config-dir")
            .arg(dir.path())
            .arg("--gen-keys=pair")
            .arg("--gen-keys-dir")
            .arg(dir.path())
            .arg("--log-file=/dev/null"),
        Duration::from_secs(60),
    )?;
    if made.code != 0 {
        bail!("salt-key --gen-keys failed ({}): {}{}", made.code, made.stdout, made.stderr);
    }
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).with_context(|| format!("no {name}"));
    Ok(KeyPair { public_pem: read("pair.pub")?, private_pem: read("pair.pem")? })
}

/// The fingerprint of a public key as a minion computes it: over the lines between the PEM's frame.
pub fn finger(pem: &str) -> String {
    let body: String = pem.split_inclusive('\n').filter(|line| !line.starts_with('-') && !line.trim().is_empty()).collect();
    let bytes: Vec<String> = digest(&SHA256, body.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

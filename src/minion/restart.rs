//! A restart of the minion that is due: noted before its configuration changes, so that a run that is killed in between leaves the debt
//! behind, and done with only when a process runs that has begun since.

use std::path::{Path, PathBuf};

use tracing::info;

use crate::system::files;
use crate::system::process::{self, Moment};
use crate::types::failure::Failure;

/// The file that says so, in which stands since when.
#[derive(Debug, Clone)]
pub struct PendingRestart(PathBuf);

impl PendingRestart {
    /// The one that is kept in this file.
    pub fn kept_in(file: PathBuf) -> PendingRestart {
        PendingRestart(file)
    }

    /// The minion runs with an older configuration than the one that is about to be written.
    pub fn mark(&self) -> Result<(), Failure> {
        files::ensure_dir(self.0.parent().unwrap_or(Path::new("/")), 0o700)?;
        files::write(&self.0, Moment::now().to_string().as_bytes(), 0o600)
    }

    /// Is one due?
    pub fn is_due(&self) -> bool {
        self.0.exists()
    }

    /// Since when it is, if it is.
    pub fn since(&self) -> Option<Moment> {
        let noted = || files::read_text(&self.0, 1024).ok().as_deref().and_then(Moment::parse);
        self.is_due().then(|| noted().unwrap_or_else(Moment::now))
    }

    /// It is done, if this is the process of a minion that has begun since.
    pub fn settle(&self, minion: Option<i32>) -> Result<(), Failure> {
        let Some(since) = self.since() else { return Ok(()) };
        if minion.and_then(process::began).is_some_and(|began| began.is_since(&since)) {
            return files::remove(&self.0);
        }
        info!("salt-minion still runs with its older configuration: `heat-salt-bootstrap install` restarts it");
        Ok(())
    }
}

//! How far the run that is under way has come, for whoever looks, and for whoever has to report in its place.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::debug;

use super::state::Store;
use crate::system::files;
use crate::types::failure::Failure;
use crate::types::report::Circumstances;

const NAME: &str = "progress";
/// A page of memory: a process that is killed has written all of it or nothing.
const SIZE: usize = 4096;

/// What a run writes at each step, and takes away when everybody has been told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The process that works.
    pub pid: u32,
    /// What is known of the run.
    pub known: Circumstances,
    /// The step that is under way.
    pub step: Option<String>,
    /// The exit code, once everybody has been told.
    pub ended: Option<u8>,
    /// When the time is up, in seconds since 1970 by the clock of that moment.
    #[serde(default)]
    pub ends: Option<u64>,
    /// It was cut off by a reboot, and continues at the next boot.
    #[serde(default)]
    pub continues: bool,
    /// It keeps its report, or has done so: a report of this very second may be another run's otherwise.
    #[serde(default)]
    pub reports: bool,
}

impl Progress {
    /// What lies in the store, if there is something whole.
    pub fn of(store: &Store) -> Option<Progress> {
        let text = files::read_if_there(&path(store), SIZE as u64).unwrap_or_default()?;
        serde_json::from_slice(&text).inspect_err(|error| debug!("{NAME} is not used: {error}")).ok()
    }

    /// Writes it. It is not synced, since a boot is not the process that has come so far; and if it cannot be written, no run fails of
    /// that.
    pub fn keep(&self, store: &Store) {
        let mut text = json!(self).to_string().into_bytes();
        if text.len() >= SIZE {
            let known = Circumstances { steps: Vec::new(), states: None, ..self.known.clone() };
            text = json!(Progress { known, ..self.clone() }).to_string().into_bytes();
        }
        text.resize(SIZE - 1, b' ');
        text.push(b'\n');
        if let Err(error) = files::scribble(&path(store), &text, 0o600) {
            debug!("{}: {error}", path(store).display());
        }
    }

    /// How much is left of the time of a run of this instance that was cut off, `now` being in seconds since 1970. Heat's clock does not stop
    /// for a reboot either.
    pub fn left_of_unfinished(store: &Store, now: u64) -> Option<Duration> {
        let unfinished = Progress::of(store)
            .filter(|progress| (progress.ended.is_none() || progress.continues) && store.is_here(progress.known.instance_id.as_deref()))?;
        Some(Duration::from_secs(unfinished.ends?.saturating_sub(now)))
    }

    /// Takes it away.
    pub fn forget(store: &Store) -> Result<(), Failure> {
        files::remove(&path(store))
    }

    /// The step in words.
    pub fn during(&self) -> String {
        self.step.as_ref().map_or_else(|| "between two steps".to_owned(), |step| format!("during step {step}"))
    }
}

fn path(store: &Store) -> PathBuf {
    store.at(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::files::Root;
    use crate::types::report::Step;

    #[test]
    fn what_was_written_last_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(&Root::new(dir.path()).unwrap());
        store.prepare().unwrap();
        assert_eq!(Progress::of(&store), None);
        let step = Step { name: "install".into(), seconds: 1.5, changed: true, attempts: 1 };
        let known = Circumstances { verb: "run".into(), steps: vec![step], ..Circumstances::default() };
        let long = Progress { pid: 7, known, step: Some("configure".into()), ended: None, ends: Some(7), continues: false, reports: false };
        let short = Progress { step: None, ended: Some(0), ..long.clone() };
        for progress in [long.clone(), short] {
            progress.keep(&store);
            assert_eq!(Progress::of(&store), Some(progress));
        }
        // Of one that is too long the steps are left out.
        let steps = vec![long.known.steps[0].clone(); 100];
        let endless = Progress { known: Circumstances { steps, ..long.known.clone() }, ..long.clone() };
        endless.keep(&store);
        assert_eq!(Progress::of(&store).unwrap().known, Circumstances { steps: vec![], ..long.known });
        std::fs::write(path(&store), "half of").unwrap();
        assert_eq!(Progress::of(&store), None);
        Progress::forget(&store).unwrap();
        assert!(!path(&store).exists());
    }
}

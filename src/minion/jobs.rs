//! The minion's job files: which job came of our trigger, whether it still runs, how it ended.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tracing::debug;

use super::job::{self, Kinship, Outcome, Wanted};
use super::paths::MinionPaths;
use crate::system::files;
use crate::system::process;
use crate::system::retry::Wait;
use crate::types::failure::Failure;
use crate::types::names::Jid;

/// How often it is looked.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Between the end of a job and its cached return lies a moment (`salt/minion.py`, `_return_pub`
/// removes the one before it writes the other). A job that is gone for longer has died.
const GONE: Duration = Duration::from_secs(5);
/// Cached jobs older than this are removed.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// Watches for the job that came of a trigger.
pub struct Watch<'a> {
    paths: &'a MinionPaths,
    wanted: Wanted,
    /// They are not it, whatever they bear.
    others: HashSet<Jid>,
    /// They were there before the hook was fired the last time, so they are it only if they bear its id.
    older: HashSet<Jid>,
    /// The last one that runs the same states, and why it is not ours.
    refused: Option<(Jid, String)>,
}

/// How the wait for a job's end came out.
pub enum Ended {
    /// It ended.
    Finished(Outcome),
    /// It is gone and left no result: the minion was restarted, or somebody killed it.
    Vanished,
    /// It still runs.
    NotYet,
}

impl<'a> Watch<'a> {
    /// Watches among the jobs that are not in `before`.
    pub fn new(paths: &'a MinionPaths, wanted: Wanted, before: impl IntoIterator<Item = Jid>) -> Watch<'a> {
        Watch { paths, wanted, others: before.into_iter().collect(), older: HashSet::new(), refused: None }
    }

    /// The hook is about to be fired: what is here by now did not come of it. Returns what will never count.
    pub fn begin(&mut self) -> Vec<Jid> {
        self.older = known(self.paths).into_iter().collect();
        let mut others: Vec<Jid> = self.others.iter().filter(|jid| self.older.contains(jid)).cloned().collect();
        others.sort();
        others
    }

    /// A job that runs the same states and is not ours, and why.
    pub fn refused(&self) -> Option<&(Jid, String)> {
        self.refused.as_ref()
    }

    /// Does this reactor pass on our id? Known once a job with it was seen.
    pub fn known_by_id(&self) -> bool {
        self.wanted.known_by_id
    }

    /// Waits until the job is there, running or ended.
    pub fn find(&mut self, wait: &Wait) -> Result<Option<Jid>, Failure> {
        wait.poll(POLL_INTERVAL, || Ok(self.probe()))
    }

    /// Is it there? One that bears our id before one that only looks like it; the earliest of several: a hook that was fired twice
    /// starts two.
    pub fn probe(&mut self) -> Option<Jid> {
        let mut new: Vec<Jid> = known(self.paths).into_iter().filter(|jid| !self.others.contains(jid)).collect();
        new.sort();
        let mut alike = None;
        for jid in new {
            // A file that is not whole yet is looked at again the next time.
            let Some(job) = read(&return_file(self.paths, &jid)).or_else(|| read(&proc_file(self.paths, &jid))) else { continue };
            match self.wanted.judge(&job) {
                Kinship::Ours => {
                    self.wanted.known_by_id = true;
                    return Some(jid);
                }
                Kinship::Alike if self.older.contains(&jid) => self.refuse(jid, Some("it was there before the hook was fired".to_owned())),
                Kinship::Alike => alike = alike.or(Some(jid)),
                Kinship::Foreign(why) => self.refuse(jid, why),
            }
        }
        alike
    }

    /// Is there by now a job that bears our id, while this one, which bears none, was taken for it?
    pub fn better_than(&mut self, taken: &Jid) -> Option<Jid> {
        (!self.wanted.known_by_id).then(|| self.probe()).flatten().filter(|jid| jid != taken && self.wanted.known_by_id)
    }

    fn refuse(&mut self, jid: Jid, why: Option<String>) {
        debug!("job {jid} is not ours{}", why.as_ref().map_or_else(String::new, |why| format!(": {why}")));
        if let Some(why) = why {
            self.refused = Some((jid.clone(), why));
        }
        self.others.insert(jid);
    }

    /// Was this job told to try the states only?
    pub fn only_tests(&self, jid: &Jid) -> bool {
        read(&return_file(self.paths, jid)).is_some_and(|job| job.only_tests())
    }

    /// Takes a job out of the search.
    pub fn pass_over(&mut self, jid: Jid) {
        self.others.insert(jid);
    }

    /// Waits for a job's end.
    pub fn end_of(&self, jid: &Jid, wait: &Wait) -> Result<Ended, Failure> {
        let mut gone_since = None;
        let ended = wait.poll(POLL_INTERVAL, || {
            if let Some(outcome) = outcome(self.paths, jid) {
                return Ok(Some(Ended::Finished(outcome)));
            }
            if runs(self.paths, jid) {
                gone_since = None;
                return Ok(None);
            }
            let since = *gone_since.get_or_insert_with(Instant::now);
            Ok((since.elapsed() > GONE).then_some(Ended::Vanished))
        })?;
        Ok(ended.unwrap_or(Ended::NotYet))
    }

    /// Waits until another job has ended, however; says whether it has.
    pub fn out_of_the_way(&self, other: Option<&Jid>, wait: &Wait) -> Result<bool, Failure> {
        let still = |jid: &Jid| runs(self.paths, jid) && outcome(self.paths, jid).is_none();
        let ended = wait.poll(POLL_INTERVAL, || {
            Ok(match other {
                Some(jid) => (!still(jid)).then_some(()),
                None => (!known_running(self.paths).iter().any(still)).then_some(()),
            })
        })?;
        Ok(ended.is_some())
    }
}

/// All jobs that the minion knows, running and ended.
pub fn known(paths: &MinionPaths) -> Vec<Jid> {
    let mut jids = known_running(paths);
    jids.extend(listed(&paths.cachedir.join("minion_jobs")));
    jids.sort();
    jids.dedup();
    jids
}

/// Waits until this job is here: running, waiting for its turn, or ended.
pub fn arrives(paths: &MinionPaths, jid: &Jid, wait: &Wait) -> Result<bool, Failure> {
    let here = || known(paths).contains(jid) || queues(paths, jid);
    Ok(wait.poll(POLL_INTERVAL, || Ok(here().then_some(())))?.is_some())
}

/// Removes what a finished job of ours left in the cache: it holds the pillar it was given, and
/// everybody can read it.
pub fn forget(paths: &MinionPaths, jid: &Jid) {
    let dir = paths.cachedir.join("minion_jobs").join(jid.as_str());
    if let Err(error) = fs::remove_dir_all(&dir) {
        debug!("{} stays: {error}", dir.display());
    }
}

/// Removes cached jobs that are older than a week, for machines without systemd-tmpfiles.
pub fn forget_old(paths: &MinionPaths) {
    let dir = paths.cachedir.join("minion_jobs");
    let now = SystemTime::now();
    for jid in listed(&dir) {
        let age = fs::metadata(dir.join(jid.as_str())).and_then(|meta| meta.modified()).ok().and_then(|then| now.duration_since(then).ok());
        if age.is_some_and(|age| age > OLD) {
            forget(paths, &jid);
        }
    }
}

fn known_running(paths: &MinionPaths) -> Vec<Jid> {
    listed(&paths.cachedir.join("proc"))
}

fn listed(dir: &Path) -> Vec<Jid> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| Jid::parse(&entry.file_name().to_string_lossy())).collect()
}

fn proc_file(paths: &MinionPaths, jid: &Jid) -> PathBuf {
    paths.cachedir.join("proc").join(jid.as_str())
}

fn return_file(paths: &MinionPaths, jid: &Jid) -> PathBuf {
    paths.cachedir.join("minion_jobs").join(jid.as_str()).join("return.p")
}

fn read(path: &Path) -> Option<job::Job> {
    job::read_job(&files::read(path, job::MOST_BYTES).ok()?)
}

fn outcome(paths: &MinionPaths, jid: &Jid) -> Option<Outcome> {
    job::read_outcome(&files::read(&return_file(paths, jid), job::MOST_BYTES).ok()?)
}

/// Does the job run, or wait for its turn? Its file alone proves nothing: a minion that was killed
/// leaves it behind.
fn runs(paths: &MinionPaths, jid: &Jid) -> bool {
    let path = proc_file(paths, jid);
    match read(&path) {
        Some(job) => job.pid.is_none_or(process::runs),
        None => path.exists() || queues(paths, jid),
    }
}

/// With `queue: True` a job that finds another state run under way is put into
/// `queues/<master>/state_queue/queued_<microseconds>_<jid>.p`, and its proc file goes away until
/// it is its turn (3006.27 and 3008.5, measured).
fn queues(paths: &MinionPaths, jid: &Jid) -> bool {
    let masters = fs::read_dir(paths.cachedir.join("queues")).into_iter().flatten().flatten();
    let end = format!("_{jid}.p");
    masters
        .flat_map(|master| fs::read_dir(master.path().join("state_queue")).into_iter().flatten().flatten())
        .any(|entry| entry.file_name().to_string_lossy().ends_with(&end))
}

#[cfg(test)]
mod tests {
    use super::super::paths::tests::paths_below;
    use super::*;

    #[test]
    fn cached_jobs_of_more_than_a_week_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths_below(root.path());
        let dir = paths.cachedir.join("minion_jobs");
        for (jid, age) in [("20261129101112131415", OLD * 2), ("20261129101112131416", OLD / 2)] {
            fs::create_dir_all(dir.join(jid)).unwrap();
            fs::File::open(dir.join(jid)).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        forget_old(&paths);
        assert_eq!(listed(&dir).iter().map(Jid::as_str).collect::<Vec<_>>(), ["20261129101112131416"]);
    }
}

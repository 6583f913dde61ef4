//! The minion as a daemon: configured, enabled, started, restarted if its configuration changed.
//!
//! Long, since what is done to a minion has one order, whichever of three ways it is started by.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tracing::{info, warn};

use super::keypair;
use super::paths::{MAIN_FILE, MinionPaths};
use super::pidfile;
use super::restart::PendingRestart;
use super::settings::{MinionSettings, Start};
use crate::packages::Program;
use crate::salt::public_key::Fingerprint;
use crate::system::command::{self, Finished, Running};
use crate::system::files::{self, Root};
use crate::system::process::{self, Moment};
use crate::system::retry::Wait;
use crate::system::shutdown;
use crate::types::deadline::Deadline;
use crate::types::failure::{Fact, Failure, Kind};

/// The unit and the init script bear this name in every package of Salt's.
const SERVICE: &str = "salt-minion";

/// How the minion is run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartMethod {
    /// By `systemctl`.
    Systemd,
    /// By the script in `/etc/init.d`.
    Sysv,
    /// By `salt-minion -d`.
    Direct,
}

/// A minion that runs, or is on its way to: its start may still be under way.
pub struct Minion {
    /// Where its files lie.
    pub paths: MinionPaths,
    starting: Option<Running>,
    /// An older process is another minion, with another configuration.
    not_before: Option<Moment>,
    absent_since: Option<Instant>,
    log_began: u64,
}

/// A minion that has neither a pid file nor a process for longer than this has ended, or was never started. Nothing is gained by a
/// longer deadline: nobody is on the way.
const ABSENT: Duration = Duration::from_secs(20);

/// A minion takes some five seconds to stop (measured, both lines). One that takes this long is killed: a longer deadline would not change
/// that.
const STOPPING: Duration = Duration::from_secs(15);
/// One that has only begun to start has nothing to wait for.
const ASKED_KINDLY: Duration = Duration::from_secs(5);
/// What is killed is gone at once, unless the kernel waits for a disk, which no test can make it do. What comes then is the same whether it
/// is gone or not.
const DYING: Duration = Duration::from_secs(5);

/// Finds out how the minion is run, unless the configuration says so. A root that is not the
/// machine's own has no service manager of its own.
pub fn start_method(start: Start, root: &Root) -> StartMethod {
    let unit = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"]
        .iter()
        .any(|dir| Path::new(dir).join("salt-minion.service").exists());
    match start {
        Start::Systemd => StartMethod::Systemd,
        Start::Sysv => StartMethod::Sysv,
        Start::Direct => StartMethod::Direct,
        Start::Auto if !root.is_machine() => StartMethod::Direct,
        // sd_booted(3): this directory exists if and only if systemd is the init system.
        Start::Auto if Path::new("/run/systemd/system").is_dir() && unit => StartMethod::Systemd,
        Start::Auto if Path::new("/etc/init.d").join(SERVICE).exists() => StartMethod::Sysv,
        Start::Auto => StartMethod::Direct,
    }
}

/// The commands that start (or restart) the minion and make it start at every boot, as far as
/// they are the same on every machine.
pub fn commands(method: StartMethod, program: &Program, paths: &MinionPaths, restart: bool) -> Vec<Vec<String>> {
    let verb = if restart { "restart" } else { "start" };
    let words = |line: &[&str]| line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    match method {
        StartMethod::Systemd => {
            vec![words(&["systemctl", "enable", "salt-minion.service"]), words(&["systemctl", verb, "salt-minion.service"])]
        }
        StartMethod::Sysv => {
            let enable = if command::find("chkconfig").is_some() {
                words(&["chkconfig", SERVICE, "on"])
            } else {
                words(&["update-rc.d", SERVICE, "defaults"])
            };
            let start = if command::find("service").is_some() {
                words(&["service", SERVICE, verb])
            } else {
                words(&["/etc/init.d/salt-minion", verb])
            };
            vec![enable, start]
        }
        StartMethod::Direct => {
            vec![vec![program.path.display().to_string(), "-d".into(), "-c".into(), paths.config_dir.display().to_string()]]
        }
    }
}

/// Configures a minion whose package is about to be installed and may start it at once, so that it never runs under another name
/// or meets another master. Nothing has to be restarted for it: what runs by then is the caller's business.
pub fn prepare(root: &Root, settings: &MinionSettings, master: Option<&Fingerprint>, wait: &Wait) -> Result<(), Failure> {
    let paths = MinionPaths::of(root, settings);
    paths.check_master(master)?;
    files::ensure_dir(&paths.config_dir.join("minion.d"), 0o755)?;
    files::ensure(&paths.drop_in, paths.drop_in_text(root, settings, master).as_bytes(), 0o600)?;
    restore_contexts(root, &paths, wait)
}

/// Makes sure that the minion is configured and runs with this configuration. Says whether
/// anything had to change. Does not wait for the minion to come up.
pub fn ensure(
    root: &Root,
    settings: &MinionSettings,
    program: &Program,
    master: Option<&Fingerprint>,
    pending: &PendingRestart,
    wait: &Wait,
) -> Result<(Minion, bool), Failure> {
    let paths = MinionPaths::of(root, settings);
    paths.check_master(master)?;
    if paths.hides_grains {
        warn!("minion.grains replaces the grains that another file below {} gives: Salt does not merge them", paths.config_dir.display());
    }
    let mut changed = false;
    files::ensure_dir(&paths.config_dir.join("minion.d"), 0o755)?;
    if let Some(path) = paths.missing_main_file(settings) {
        pending.mark()?;
        changed |= files::ensure(&path, MAIN_FILE.as_bytes(), 0o644)?;
    }
    let text = paths.drop_in_text(root, settings, master);
    if !files::holds(&paths.drop_in, text.as_bytes()) {
        // Said before it is written: a run that is killed in between leaves the debt behind.
        pending.mark()?;
        changed |= files::ensure(&paths.drop_in, text.as_bytes(), 0o600)?;
    }
    if let Some(path) = paths.tmpfiles.as_deref() {
        files::ensure_dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        changed |= files::ensure(path, paths.tmpfiles_text().as_bytes(), 0o644)?;
    }
    if paths.as_root {
        // Each job is cached with the pillar that it was given, in files that everybody could read.
        files::ensure_dir(&paths.cachedir, 0o755)?;
        files::ensure_private_dir(&paths.cachedir.join("minion_jobs"))?;
    }
    if changed {
        restore_contexts(root, &paths, wait)?;
    }
    let running = pidfile::running(&paths);
    if running.is_some() && !pending.is_due() {
        return Ok((Minion::found(paths), changed));
    }
    let method = start_method(settings.start, root);
    if method == StartMethod::Direct {
        match running {
            Some(pid) => {
                info!("restarting salt-minion (pid {pid}): its configuration changed");
                end(pid, wait)?;
            }
            None => end_starting(&paths, ASKED_KINDLY, wait)?,
        }
        forget_dead(&paths)?;
    }
    if running.is_none() {
        keypair::repair(&paths, wait)?;
    }
    let restart = has_to_restart(method, running.is_some(), pending.is_due());
    let not_before = pending.since();
    let commands = commands(method, program, &paths, restart);
    let (last, first) = commands.split_last().ok_or_else(|| Failure::new(Kind::Bug, "no way to start the minion"))?;
    for argv in first {
        let finished = command::prompt(&command::borrowed(argv), wait)?;
        if !finished.success() {
            return Err(finished.failure(Kind::LocalSystem));
        }
    }
    // What an earlier minion said explains nothing about this one.
    let log_began = files::length(&paths.log_file);
    let starting = command::start(&command::borrowed(last))?;
    Ok((Minion { paths, starting: Some(starting), not_before, absent_since: None, log_began }, true))
}

/// A service that is just being started has no pid file yet, and may have read the older configuration.
fn has_to_restart(method: StartMethod, runs: bool, is_due: bool) -> bool {
    runs || (method == StartMethod::Systemd && is_due)
}

/// Removes what a dead minion has left. Salt takes whatever has its number by now, or what is left of it until somebody has asked how it
/// ended, for a minion that runs, and starts none (`salt/utils/parsers.py`, check_running; `salt/utils/process.py`,
/// claim_mantle_of_responsibility).
fn forget_dead(paths: &MinionPaths) -> Result<(), Failure> {
    files::remove(&paths.pidfile)?;
    let claim = paths.responsibility();
    let Ok(Some(text)) = files::read_if_there(&claim, 64 * 1024) else { return Ok(()) };
    let claimant = serde_json::from_slice::<Value>(&text).ok().and_then(|claim| claim["pid"].as_i64()?.try_into().ok());
    // One that is alive may have been started by a person, in another way.
    if claimant.is_some_and(process::runs) { Ok(()) } else { files::remove(&claim) }
}

/// The end of the command line of a minion that was started directly.
fn start_words(paths: &MinionPaths) -> String {
    format!("-d -c {}", paths.config_dir.display())
}

/// Ends a minion that a killed run has started and that has no pid file yet: nobody else keeps it from running beside the next one,
/// and then each job would be done by both.
fn end_starting(paths: &MinionPaths, kindly: Duration, wait: &Wait) -> Result<(), Failure> {
    let words = start_words(paths);
    let until = Deadline::after(kindly);
    let none = wait.slice(kindly + DYING).poll(Duration::from_millis(20), || {
        let starting = process::with_words(&words);
        for &pid in &starting {
            let signal = if until.passed() { Signal::SIGKILL } else { Signal::SIGTERM };
            info!("ending a salt-minion (pid {pid}) that an earlier run has begun to start");
            process::send(pid, signal).map_err(|errno| Failure::new(Kind::LocalSystem, format!("cannot stop pid {pid}: {errno}")))?;
        }
        Ok(starting.is_empty().then_some(()))
    })?;
    none.ok_or_else(|| Failure::new(Kind::LocalSystem, "a salt-minion that an earlier run has begun to start does not end"))
}

/// Under SELinux a file that is renamed into place keeps the label of where it was written; where there is none, this does nothing.
fn restore_contexts(root: &Root, paths: &MinionPaths, wait: &Wait) -> Result<(), Failure> {
    let Some(restorecon) = command::find("restorecon").filter(|_| root.is_machine()) else { return Ok(()) };
    let (restorecon, config_dir) = (restorecon.to_string_lossy(), paths.config_dir.to_string_lossy());
    let finished = command::prompt(&[&restorecon, "-R", &config_dir], wait)?;
    if !finished.success() {
        warn!("{}", finished.failure(Kind::LocalSystem).message);
    }
    Ok(())
}

impl Minion {
    /// The minion as it is, for verbs that expect it to run.
    pub fn found(paths: MinionPaths) -> Minion {
        Minion { paths, starting: None, not_before: None, absent_since: None, log_began: 0 }
    }

    /// The first of them, of which the others came.
    fn pid(&self) -> Option<i32> {
        let is_it =
            |pid: &i32| self.not_before.as_ref().is_none_or(|since| process::began(*pid).is_some_and(|began| began.is_since(since)));
        pidfile::running(&self.paths).filter(is_it)
    }

    /// The processes of the minion that was started last; none while it is not up yet.
    pub fn pids(&self) -> Vec<i32> {
        self.pid().map(process::tree).unwrap_or_default()
    }

    /// Fails if the minion will not come up (any more): the command that starts it has failed, or it is not there for long.
    pub fn check(&mut self) -> Result<(), Failure> {
        if let Some(starting) = self.starting.as_mut() {
            let Some(finished) = starting.poll()? else { return Ok(()) };
            self.starting = None;
            if !finished.success() {
                return Err(did_not_start(&finished, &self.paths));
            }
        }
        if self.pid().is_some() {
            self.absent_since = None;
            return Ok(());
        }
        let since = *self.absent_since.get_or_insert_with(Instant::now);
        if since.elapsed() <= ABSENT {
            return Ok(());
        }
        // On a machine that stalls its start takes as long as it takes.
        if self.is_on_its_way() {
            self.absent_since = None;
            return Ok(());
        }
        Err(self.ended())
    }

    fn is_on_its_way(&self) -> bool {
        self.starting.is_some() || !process::with_words(&start_words(&self.paths)).is_empty()
    }

    /// Does it not run, and nobody is about to start it? Of one that somebody else starts, at boot perhaps, systemd knows.
    pub fn stays_away(&mut self, start: Start, root: &Root, wait: &Wait) -> Result<bool, Failure> {
        if self.pid().is_some() || start_method(start, root) != StartMethod::Systemd {
            return Ok(self.check().is_err());
        }
        let shown = command::prompt(&["systemctl", "show", "--property=ActiveState,Job", "salt-minion.service"], wait)?;
        Ok(is_left_alone(&shown.stdout))
    }

    /// The minion is not there. Salt's own words tell why: it ends when the master refuses its key, and when the master's key is
    /// not the one it knows (`salt/crypt.py`, `sign_in` and `verify_master`).
    pub fn ended(&self) -> Failure {
        let words = self.last_words().unwrap_or_default();
        let says = |text: &str| words.contains(text);
        let kind = if says("rejected this minion's public key") {
            Kind::KeyRejected
        } else if says("master key has changed") || says("Invalid master key") || says("specified fingerprint") {
            Kind::MasterUntrusted
        } else {
            Kind::MinionNotConnected
        };
        if kind == Kind::KeyRejected {
            // The master says no more than no to either (`salt/channel/server.py`, `_auth`).
            let why = "the master refuses this minion's key: it was rejected there, or another key holds its id";
            return self.explain(Failure::new(kind, why).hint(
                "On the master look at `salt-key -l all`: the id stands there as rejected, or as denied beside another machine's key. If this machine is the right one, `salt-key -d ID` and run again.",
            ));
        }
        self.explain(Failure::new(kind, "salt-minion does not run: it ended by itself, or was never started"))
    }

    /// What the minion's log says last, of what is worth saying.
    pub fn last_words(&self) -> Option<String> {
        let log = files::tail(&self.paths.log_file, self.log_began, 32 * 1024).ok()?;
        log.lines().rfind(|line| ["[ERROR", "[CRITICAL"].iter().any(|level| line.contains(level))).map(|line| line.trim().to_owned())
    }

    /// The failure of a minion that was waited for to the end. If the command that starts it has not come back, and the minion is not up,
    /// that is what took the time: whatever was waited for had to come after it.
    pub fn late(&self, failure: Failure) -> Failure {
        if failure.kind == Kind::MinionNotConnected && self.pid().is_none() && !self.is_on_its_way() {
            return self.ended();
        }
        let failure = self.explain(failure);
        let Some(starting) = self.starting.as_ref().filter(|_| self.pid().is_none()) else { return failure };
        let message = format!("{}, so salt-minion is not up", starting.so_far());
        Failure { kind: Kind::LocalSystem, message, ..failure }.hint(where_to_read(&self.paths))
    }

    /// Adds what the minion's log says to a failure that is about the minion.
    pub fn explain(&self, failure: Failure) -> Failure {
        let failure = failure.fact(Fact::MinionLog, self.paths.log_file.display().to_string());
        match self.last_words() {
            Some(words) => failure.fact(Fact::MinionSays, words),
            None => failure,
        }
    }
}

/// Stops the minion, by the service manager if there is one. Says whether it ran.
pub fn stop(start: Start, root: &Root, paths: &MinionPaths, wait: &Wait) -> Result<bool, Failure> {
    let Some(pid) = pidfile::running(paths) else { return Ok(false) };
    let words: &[&str] = match start_method(start, root) {
        // While the machine goes down the service manager stops it anyway, and a job of ours would have to wait for that.
        StartMethod::Systemd if shutdown::under_way(wait) => &[],
        StartMethod::Systemd => &["systemctl", "stop", "salt-minion.service"],
        StartMethod::Sysv => &["/etc/init.d/salt-minion", "stop"],
        StartMethod::Direct => &[],
    };
    if !words.is_empty() {
        let finished = command::prompt(words, wait)?;
        if !finished.success() {
            warn!("{}", finished.failure(Kind::LocalSystem).message);
        }
    }
    end(pid, wait)?;
    Ok(true)
}

fn end(pid: i32, wait: &Wait) -> Result<(), Failure> {
    let cannot = |errno: nix::errno::Errno| Failure::new(Kind::LocalSystem, format!("cannot stop salt-minion (pid {pid}): {errno}"));
    process::send(pid, Signal::SIGTERM).map_err(cannot)?;
    let gone = |wait: Wait| wait.poll(Duration::from_millis(20), || Ok((!process::runs(pid)).then_some(())));
    if gone(stopping(wait))?.is_none() {
        warn!("salt-minion (pid {pid}) does not end by SIGTERM: killing it");
        for pid in process::tree(pid) {
            process::send(pid, Signal::SIGKILL).map_err(cannot)?;
        }
        gone(wait.slice(DYING))?;
    }
    Ok(())
}

/// Does a service not run, and nobody is about to start it? Whatever a boot starts has its job from the beginning (systemctl(1), "show").
fn is_left_alone(shown: &str) -> bool {
    let idle = ["ActiveState=inactive", "ActiveState=failed"];
    let has_job = shown.lines().any(|line| line.strip_prefix("Job=").is_some_and(|job| job != "0"));
    !has_job && shown.lines().any(|line| idle.contains(&line))
}

fn stopping(wait: &Wait) -> Wait {
    wait.slice(STOPPING)
}

fn did_not_start(finished: &Finished, paths: &MinionPaths) -> Failure {
    finished.failure(Kind::LocalSystem).hint(where_to_read(paths))
}

fn where_to_read(paths: &MinionPaths) -> String {
    format!("Read {} and, under systemd, `journalctl -u salt-minion`.", paths.log_file.display())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use super::super::paths::tests::paths_below;
    use super::*;
    use crate::system::retry::tests::hour;

    /// A process that goes with the test, whether that passes or not.
    struct Deaf(Child);

    impl Deaf {
        fn pid(&self) -> i32 {
            self.0.id() as i32
        }

        fn was_killed(mut self) -> bool {
            self.0.wait().unwrap().signal() == Some(9)
        }
    }

    impl Drop for Deaf {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// One with these words at its end, which does not listen to SIGTERM by the time it is here.
    fn deaf(words: &str) -> Deaf {
        let script = "trap '' TERM; echo; while :; do sleep 0.05; done";
        let mut child = Command::new("sh").args(["-c", script]).args(words.split(' ')).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Deaf(child)
    }

    #[test]
    fn who_is_not_there_for_long_is_not_on_the_way() {
        let root = tempfile::tempdir().unwrap();
        let mut minion = Minion::found(paths_below(root.path()));
        let absent = |span| Instant::now().checked_sub(span);
        minion.absent_since = absent(ABSENT / 2);
        assert_eq!(minion.check(), Ok(()));
        minion.absent_since = absent(ABSENT + Duration::from_secs(1));
        assert_eq!(minion.check().unwrap_err().kind, Kind::MinionNotConnected);
        // Its start is under way, and takes as long as it takes.
        let _starting = deaf(&start_words(&minion.paths));
        assert_eq!(minion.check(), Ok(()));
        assert_eq!(minion.absent_since, None);
    }

    #[test]
    fn a_service_is_left_alone_when_it_has_no_job() {
        // systemctl show --property=ActiveState,Job, systemd 252
        assert!(is_left_alone("ActiveState=inactive\n") && is_left_alone("ActiveState=failed\nJob=0\n"));
        assert!(!is_left_alone("Job=183\nActiveState=inactive\n") && !is_left_alone("ActiveState=activating\n"));
        assert!(!is_left_alone("ActiveState=active\n") && !is_left_alone(""));
    }

    #[test]
    fn a_service_that_is_just_starting_is_restarted_too() {
        assert!(has_to_restart(StartMethod::Systemd, false, true) && !has_to_restart(StartMethod::Systemd, false, false));
        // What was started directly was ended before.
        assert!(!has_to_restart(StartMethod::Direct, false, true) && has_to_restart(StartMethod::Direct, true, true));
    }

    #[test]
    fn who_does_not_end_is_killed_whatever_time_there_is() {
        assert!(stopping(&hour()).remaining() <= STOPPING);
        let child = deaf("x");
        // Nothing is left for seeing that it is gone, and nothing comes of that.
        assert_eq!(end(child.pid(), &hour().slice(Duration::from_millis(100))), Ok(()));
        assert!(child.was_killed());
    }

    #[test]
    fn a_start_that_does_not_end_is_killed_whatever_time_there_is() {
        let root = tempfile::tempdir().unwrap();
        let paths = paths_below(root.path());
        let child = deaf(&start_words(&paths));
        assert_eq!(end_starting(&paths, Duration::from_millis(100), &hour()), Ok(()));
        assert!(child.was_killed());
        let short = hour().slice(Duration::ZERO);
        let _child = deaf(&start_words(&paths));
        let failure = end_starting(&paths, ASKED_KINDLY, &short).unwrap_err();
        assert!(failure.message.ends_with("does not end"), "{}", failure.message);
    }
}

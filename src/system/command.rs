//! Commands of the system: a cleared environment, a process group of their own, a deadline, and the
//! ends of what they printed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use tracing::debug;

use super::process;
use super::retry::Wait;
use crate::types::failure::{Fact, Failure, Kind};

/// Where commands are looked for, and what they get as PATH.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// For a command that asks the system something, or orders something and does not wait for it. That takes milliseconds; what takes this
/// long hangs, and is named with the time it took. A longer deadline would not change that.
const PROMPT: Duration = Duration::from_secs(60);

/// This much of the end of each stream is kept.
const KEPT: u64 = 8 * 1024;

/// A command that fails after so long has waited for something.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Finds a program by its path or, if it has none, in [`PATH`].
pub fn find(program: &str) -> Option<PathBuf> {
    let executable = |path: &Path| path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok();
    if program.contains('/') {
        let path = PathBuf::from(program);
        return executable(&path).then_some(path);
    }
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| executable(path))
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// The command as a person would type it.
    pub command: String,
    /// Its status.
    pub status: ExitStatus,
    /// The end of what it printed.
    pub stdout: String,
    /// The end of its complaints.
    pub stderr: String,
    took: Duration,
}

impl Finished {
    /// Did it exit with 0?
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The failure to report if it did not.
    pub fn failure(&self, kind: Kind) -> Failure {
        let mut how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        if self.took >= WORTH_TELLING {
            how.push_str(&format!(" after {:.0} s", self.took.as_secs_f64()));
        }
        let printed = [&self.stderr, &self.stdout]
            .into_iter()
            .find(|text| !text.trim().is_empty())
            .map(|text| text.trim().to_owned())
            .unwrap_or_default();
        // systemctl(1) says what has happened, and then where to read more.
        let last = printed.lines().rfind(|line| !line.starts_with("See \"systemctl")).unwrap_or("no output").to_owned();
        let mut failure = Failure::new(kind, format!("`{}` {how}: {last}", self.command));
        if let Some(signal) = self.status.signal() {
            failure = failure.fact(Fact::KilledBySignal, signal.to_string());
        }
        if printed.lines().count() > 1 { failure.fact(Fact::Output, printed) } else { failure }
    }
}

/// A command that runs.
pub struct Running {
    command: String,
    begun: Instant,
    child: Child,
    stdout: File,
    stderr: File,
}

/// Starts a command and does not wait for it.
pub fn start(argv: &[&str]) -> Result<Running, Failure> {
    start_with(argv, &[])
}

/// The settings for proxies that this program was started with, for commands that talk to the world. They may hold a password,
/// and go from environment to environment.
pub fn proxies() -> Vec<(String, OsString)> {
    let known = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"];
    let names = known.into_iter().flat_map(|name| [name.to_owned(), name.to_uppercase()]);
    names.filter_map(|name| std::env::var_os(&name).filter(|value| !value.is_empty()).map(|value| (name, value))).collect()
}

/// Starts a command with more in its environment than others get.
pub fn start_with(argv: &[&str], environment: &[(String, OsString)]) -> Result<Running, Failure> {
    let command = argv.join(" ");
    let failed = |error: std::io::Error| Failure::new(Kind::LocalSystem, format!("cannot run `{command}`: {error}"));
    // Memory files, not pipes: a daemon that inherits a pipe keeps its reader waiting for ever.
    let output = || memfd_create(c"output", MFdFlags::MFD_CLOEXEC).map(File::from).map_err(|errno| failed(errno.into()));
    let (stdout, stderr) = (output()?, output()?);
    debug!("running `{command}`");
    let child = Command::new(argv[0])
        .args(&argv[1..])
        .env_clear()
        .envs([("PATH", PATH), ("LC_ALL", "C"), ("HOME", "/root")])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().map_err(failed)?)
        .stderr(stderr.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    Ok(Running { command, begun: Instant::now(), child, stdout, stderr })
}

/// Runs a command to its end.
pub fn run(argv: &[&str], wait: &Wait) -> Result<Finished, Failure> {
    start(argv)?.finish(wait)
}

/// Runs a command that is prompt, or hangs.
pub fn prompt(argv: &[&str], wait: &Wait) -> Result<Finished, Failure> {
    run(argv, &promptly(wait))
}

fn promptly(wait: &Wait) -> Wait {
    wait.slice(PROMPT)
}

/// A command as [`start`] and [`run`] take it.
pub fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

impl Running {
    /// Looks whether it has ended.
    pub fn poll(&mut self) -> Result<Option<Finished>, Failure> {
        let status = self
            .child
            .try_wait()
            .map_err(|error| Failure::new(Kind::LocalSystem, format!("cannot wait for `{}`: {error}", self.command)))?;
        Ok(status.map(|status| Finished {
            command: self.command.clone(),
            status,
            stdout: end_of(&mut self.stdout),
            stderr: end_of(&mut self.stderr),
            took: self.begun.elapsed(),
        }))
    }

    /// That it takes long, in a sentence's first words.
    pub fn so_far(&self) -> String {
        format!("`{}` had not ended after {:.0} s", self.command, self.begun.elapsed().as_secs_f64())
    }

    /// Waits for its end; when the time is up its whole process group is killed. Where that was only a part of the time, it is
    /// the command that took too long.
    pub fn finish(mut self, wait: &Wait) -> Result<Finished, Failure> {
        match wait.poll(Duration::from_millis(5), || self.poll()) {
            Ok(Some(finished)) => Ok(finished),
            Ok(None) => {
                self.kill();
                let so_far = self.so_far();
                let failure = if wait.all_over() {
                    Failure::new(Kind::OutOfTime, format!("{so_far}, when the time was up, and was killed"))
                } else {
                    Failure::new(Kind::LocalSystem, format!("{so_far} and was killed"))
                        .hint("Run the command by hand and see what it waits for.")
                };
                Err(failure.fact(Fact::Output, end_of(&mut self.stderr)))
            }
            Err(failure) => {
                self.kill();
                Err(failure)
            }
        }
    }

    /// Waits for its end; when the time is up, or when we are told to stop, it is left running: half a transaction of a package
    /// manager is worse than none. The failure names its pid.
    pub fn finish_or_leave(mut self, wait: &Wait) -> Result<Finished, Failure> {
        let pid = self.child.id();
        let left = |failure: Failure| {
            failure.hint(format!("It was not killed: see whether process {pid} has ended, and run again.")).fact(Fact::Pid, pid.to_string())
        };
        match wait.poll(Duration::from_millis(20), || self.poll()) {
            Ok(Some(finished)) => Ok(finished),
            Ok(None) => {
                Err(left(Failure::new(Kind::OutOfTime, format!("`{}` did not end in time and goes on as process {pid}", self.command)))
                    .fact(Fact::Output, end_of(&mut self.stdout)))
            }
            Err(failure) => Err(left(failure)),
        }
    }

    fn kill(&mut self) {
        // The group bears the pid of its first process.
        let group = -(self.child.id() as i32);
        let _ = process::send(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn end_of(file: &mut File) -> String {
    let length = file.metadata().map_or(0, |meta| meta.len());
    let mut bytes = Vec::new();
    // Output is for a person to read; if it cannot be had, there is none.
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(KEPT))).and_then(|_| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::retry::tests::{hour, patience};

    #[test]
    fn a_failure_carries_the_last_line_and_the_output() {
        let finished = run(&["sh", "-c", "echo first >&2; echo last >&2; exit 3"], &hour()).unwrap();
        let failure = finished.failure(Kind::LocalSystem);
        assert!(failure.message.ends_with("exited with 3: last"), "{}", failure.message);
        assert_eq!(failure.facts[&Fact::Output], "first\nlast");
    }

    #[test]
    fn where_to_read_more_is_not_what_has_happened() {
        let script = "echo 'Job for x.service failed because a timeout was exceeded.'; echo 'See \"systemctl status x.service\".'; exit 1";
        let failure = run(&["sh", "-c", script], &hour()).unwrap().failure(Kind::LocalSystem);
        assert!(
            failure.message.ends_with("exited with 1: Job for x.service failed because a timeout was exceeded."),
            "{}",
            failure.message
        );
    }

    #[test]
    fn the_environment_is_cleared() {
        let finished = run(&["sh", "-c", "env | cut -d= -f1 | sort | tr '\\n' ' '"], &hour()).unwrap();
        assert_eq!(finished.stdout.trim(), "HOME LC_ALL PATH PWD");
    }

    #[test]
    fn at_the_end_of_patience_the_grandchildren_die_too() {
        let failure = run(&["sh", "-c", "sleep 4711 & sleep 4711"], &patience(Duration::from_secs(1))).unwrap_err();
        assert_eq!(failure.kind, Kind::OutOfTime);
        // There was time, but no command of this kind takes so long.
        let failure = run(&["sleep", "4711"], &hour().slice(Duration::from_millis(100))).unwrap_err();
        assert_eq!(failure.kind, Kind::LocalSystem);
        assert!(failure.message.starts_with("`sleep 4711` had not ended after "), "{}", failure.message);
        let left = Command::new("pgrep").args(["-f", "^sleep 4711$"]).output().unwrap();
        assert!(left.stdout.is_empty(), "left running: {}", String::from_utf8_lossy(&left.stdout));
    }

    #[test]
    fn what_is_prompt_or_hangs_gets_no_more_of_a_long_time() {
        assert!(promptly(&hour()).remaining() <= PROMPT);
        let failure = prompt(&["sleep", "4712"], &hour().slice(Duration::from_millis(100))).unwrap_err();
        assert_eq!(failure.kind, Kind::LocalSystem);
        assert!(failure.message.starts_with("`sleep 4712` had not ended after "), "{}", failure.message);
        let short = patience(Duration::from_millis(100));
        assert_eq!(prompt(&["sleep", "4712"], &short).unwrap_err().kind, Kind::OutOfTime);
    }

    #[test]
    fn how_long_it_took_is_told_where_it_waited() {
        let failed = |took| {
            let (command, stdout, stderr) = ("x".to_owned(), String::new(), "no".to_owned());
            Finished { command, status: ExitStatus::from_raw(1 << 8), stdout, stderr, took }.failure(Kind::LocalSystem).message
        };
        assert_eq!(failed(WORTH_TELLING), "`x` exited with 1 after 2 s: no");
        assert_eq!(failed(WORTH_TELLING / 2), "`x` exited with 1: no");
    }

    #[test]
    fn a_daemon_that_keeps_our_output_open_does_not_keep_us() {
        let finished = run(&["sh", "-c", "sleep 5 & echo started"], &patience(Duration::from_secs(3))).unwrap();
        assert_eq!(finished.stdout.trim(), "started");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        assert!(find("no-such-program-here").is_none());
        assert!(find("/etc/passwd").is_none());
        assert!(find("sh").is_some());
        let failure = run(&["/no/such/program"], &hour()).unwrap_err();
        assert!(failure.message.contains("/no/such/program"), "{}", failure.message);
    }
}

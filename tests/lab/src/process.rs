//! Starting, waiting for and ending processes.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The exit code of a command that was killed because its time was up, as timeout(1) has it.
pub const TIMED_OUT: i32 = 124;

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code; 128 + n when signal n ended it; [`TIMED_OUT`].
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub seconds: f64,
}

/// Runs a command to its end, or kills its process group when the time is up.
pub fn run(command: &mut Command, timeout: Duration) -> Result<Finished> {
    Running::start(command)?.finish(timeout)
}

/// A command on its way, for tests that do something meanwhile.
pub struct Running {
    child: Child,
    started: Instant,
    stdout: Tap,
    stderr: Tap,
}

impl Running {
    /// Starts a command in a process group of its own, with no standard input.
    pub fn start(command: &mut Command) -> Result<Running> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let stdout = Tap::on(child.stdout.take());
        let stderr = Tap::on(child.stderr.take());
        Ok(Running { child, started: Instant::now(), stdout, stderr })
    }

    /// Its process id, which is that of its group as well.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it wrote to standard error up to now.
    pub fn stderr_so_far(&self) -> String {
        self.stderr.text()
    }

    /// What it wrote to standard output up to now.
    pub fn stdout_so_far(&self) -> String {
        self.stdout.text()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal).with_context(|| format!("cannot send {signal} to {}", self.pid()))
    }

    /// Waits for its end; kills the process group when the time is up.
    pub fn finish(mut self, timeout: Duration) -> Result<Finished> {
        let left = timeout.saturating_sub(self.started.elapsed());
        let status = until(left, || self.child.try_wait().ok().flatten()).ok();
        let code = match status {
            Some(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            None => {
                // The group may have ended by itself a moment ago.
                let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
                self.child.wait()?;
                TIMED_OUT
            }
        };
        let seconds = self.started.elapsed().as_secs_f64();
        Ok(Finished { code, stdout: self.stdout.end(), stderr: self.stderr.end(), seconds })
    }
}

/// Collects what comes through a pipe.
struct Tap {
    seen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Tap {
    fn on(pipe: Option<impl Read + Send + 'static>) -> Tap {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let reader = thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Tap { seen, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// The whole text. A daemon that inherited the pipe keeps it open for ever, so this does not wait for long.
    fn end(self) -> String {
        let _ = until(Duration::from_secs(1), || self.reader.is_finished().then_some(()));
        self.text()
    }
}

/// Looks every 10 ms until there is something, which is returned; an error when the time is up.
pub fn until<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if started.elapsed() >= timeout {
            bail!("still not so after {:.1} s", timeout.as_secs_f64());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The most memory that a process, and those that came of it and run the same program, have had at once while it ran, in kB.
pub fn most_memory(pid: i32) -> usize {
    let mut most = 0;
    let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else { return 0 };
    // One that has ended has no memory any more.
    while high_water(pid).is_some() {
        most = most.max(family(pid, &program).into_iter().filter_map(high_water).sum());
        // The kernel remembers the most that there was of each.
        thread::sleep(Duration::from_millis(50));
    }
    most
}

/// The most memory that a process has had so far, in kB.
pub fn high_water(pid: i32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
}

/// A process and those that came of it and run the same program, parents before children.
pub fn family(pid: i32, program: &Path) -> Vec<i32> {
    let program = std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    // tests/emulated.sh: what the kernel runs then is the emulator.
    let emulator = std::env::var_os("HSB_EMULATOR").map(PathBuf::from);
    let ours = |exe: PathBuf| exe == program || Some(exe) == emulator;
    tree(pid, |child| std::fs::read_link(format!("/proc/{child}/exe")).is_ok_and(ours))
}

/// The command line of a process; empty if it has ended.
pub fn command_line(pid: i32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()
}

/// A process and all that came of it.
pub fn descendants(pid: i32) -> Vec<i32> {
    tree(pid, |_| true)
}

fn tree(pid: i32, wanted: impl Fn(i32) -> bool) -> Vec<i32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()).filter(|&child| wanted(child)));
        }
    }
    all
}

/// The processes of a Salt daemon (`salt-minion` ...), children included, whose configuration lies under this directory.
///
/// The directory is private to one test, so this finds no one else's. Daemons leave the process tree and their groups,
/// but all keep `-c DIR/...` in their command line.
pub fn daemons(program: &str, dir: &Path) -> Vec<i32> {
    let program = format!("/bin/{program}");
    let dir = format!("{}/", dir.display());
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let line = String::from_utf8_lossy(&line);
                line.contains(&program) && line.contains(&dir)
            })
        })
        .collect()
}

/// Ends them: asks first, and after the patience kills.
pub fn end_daemons(program: &str, dir: &Path, patience: Duration) {
    let send = |signal| {
        for pid in daemons(program, dir) {
            // One that ended by itself meanwhile is as good.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    };
    let gone = || daemons(program, dir).is_empty().then_some(());
    if !patience.is_zero() {
        send(Signal::SIGTERM);
        if until(patience, gone).is_ok() {
            return;
        }
    }
    // More than once, because a daemon that is being killed may just have started another child.
    let _ = until(Duration::from_secs(5), || {
        send(Signal::SIGKILL);
        gone()
    });
}

/// Cleans up when it is dropped, and also when the process ends without dropping it.
///
/// Rust drops no statics, and nothing at all runs after Ctrl-C or a kill; a shell waiting at the other end of a pipe
/// notices all of these.
pub struct Guard {
    shell: Child,
    leash: Option<ChildStdin>,
}

impl Guard {
    /// Runs `script`, a piece of shell, at the end. `subject` is its `$SUBJECT`.
    pub fn new(script: &str, subject: &str) -> Result<Guard> {
        let mut shell = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("cat >/dev/null\n{script}"))
            .env("SUBJECT", subject)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the whole group of the terminal, and this must outlive it.
            .process_group(0)
            .spawn()
            .context("cannot start the shell that cleans up")?;
        let leash = shell.stdin.take();
        Ok(Guard { shell, leash })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.leash.take());
        // Nothing can be done here about a shell that fails.
        let _ = self.shell.wait();
    }
}

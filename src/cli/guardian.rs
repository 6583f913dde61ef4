//! A small process that watches the one that works. Whatever ends that one, a bug in it or the kernel that is out of memory, Heat is
//! told: by this one at once, or by `signal --killed` if this one was killed too.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use tracing::{info, warn};

use super::args::Common;
use super::conclude::conclude;
use super::logging;
use super::notify;
use super::notify::WITHOUT_SETTINGS;
use super::terminal::{complain, print};
use crate::bootstrap::progress::Progress;
use crate::bootstrap::resume;
use crate::bootstrap::state::Store;
use crate::config::load;
use crate::config::parse::LONGEST;
use crate::system::files::Root;
use crate::system::interrupt::Interrupt;
use crate::system::process;
use crate::system::retry::Wait;
use crate::system::shutdown;
use crate::types::deadline::Deadline;
use crate::types::failure::{Failure, Kind};
use crate::types::report::{Circumstances, Report};

/// By this a process knows that it is the one that works: it names the one that watches, which is its parent.
const MARK: &str = "HEAT_SALT_BOOTSTRAP_GUARDED";
/// Whoever was killed has let go of the lock; whoever else has it now is another run.
const LETTING_GO: Duration = Duration::from_secs(1);

/// What this process is.
pub enum Role {
    /// The one that works, and is watched.
    Watched,
    /// The one that works, and nobody watches.
    Alone,
    /// The one that has watched, with the exit code.
    Ended(u8),
}

/// How somebody who works has ended, as far as a process can see.
struct End {
    status: ExitStatus,
    /// Has the kernel ended some process meanwhile for want of memory?
    out_of_memory: bool,
}

/// Starts this program once more and watches it work, unless this is the second one already.
pub fn watch(verb: &str, json: bool, root: &Root, common: &Common) -> Role {
    let guardian = std::env::var(MARK).ok().and_then(|pid| pid.parse().ok());
    if guardian.is_some_and(process::dies_with) {
        process::call_myself(c"heat-salt-boots");
        return Role::Watched;
    }
    let begun = Instant::now();
    let child = Arc::new(AtomicI32::new(0));
    let pass_on = {
        let child = Arc::clone(&child);
        move |signal: &str| {
            if let (pid @ 1.., Ok(signal)) = (child.load(Ordering::SeqCst), Signal::from_str(signal)) {
                process::send(pid, signal).unwrap_or_else(|errno| warn!("{signal} cannot be passed on: {errno}"));
            }
        }
    };
    // Before there is somebody to pass it on to: nothing that comes in between may end this process.
    let Ok(interrupt) = Interrupt::on_signals(pass_on.clone()) else { return Role::Alone };
    let kills = process::out_of_memory_kills();
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(arguments.next().unwrap_or_default()).args(arguments).env(MARK, std::process::id().to_string());
    let mut worker = match command.spawn() {
        Ok(worker) => worker,
        Err(error) => {
            warn!("cannot start a second process ({error}): if this one is killed, nobody will report it");
            return Role::Alone;
        }
    };
    let pid = worker.id();
    child.store(pid as i32, Ordering::SeqCst);
    interrupt.raised().into_iter().for_each(pass_on);
    process::outlive_others();
    process::await_end(pid as i32);
    // Soon the pid may be somebody else's.
    child.store(0, Ordering::SeqCst);
    let status = match worker.wait() {
        Ok(status) => status,
        Err(error) => {
            let failure = Failure::new(Kind::Bug, format!("cannot wait for the worker process: {error}"));
            return Role::Ended(complain(&failure));
        }
    };
    // systemd stops the rest of a unit of which the kernel has ended one process for want of memory. Nobody else is left who could tell Heat of
    // that one: from now on no signal is a reason to give up.
    interrupt.raise("SIGTERM");
    let end = End { status, out_of_memory: process::out_of_memory_kills() > kills };
    Role::Ended(after(&end, pid, begun, (verb, json), root, common))
}

/// What is left to do after the end of the one that worked: nothing if it has ended by itself.
fn after(end: &End, pid: u32, begun: Instant, (verb, json): (&str, bool), root: &Root, common: &Common) -> u8 {
    let store = Store::below(root);
    let progress = Progress::of(&store).filter(|progress| progress.pid == pid);
    let failure = match judge(end, progress.as_ref()) {
        Ok(code) => {
            if progress.is_some_and(|progress| !progress.continues) {
                Progress::forget(&store).unwrap_or_else(|failure| warn!("{failure}"));
            }
            return code;
        }
        Err(failure) => failure,
    };
    logging::keep(root);
    warn!("{}", failure.message);
    let Ok(_only_one) = store.lock(&Wait::until(Deadline::after(LETTING_GO), Interrupt::default()), || ()) else {
        // That one tells Heat how it ends.
        return complain(&failure);
    };
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(begun.elapsed()).as_secs();
    // One that was killed while it waited for another, which has told Heat by now, never held the lock.
    if progress.is_none() && store.report().is_some_and(|other| other.started as f64 + other.seconds >= started as f64) {
        return complain(&failure);
    }
    let reports = progress.as_ref().is_some_and(|progress| progress.reports);
    let mut of = progress.as_ref().map(|progress| progress.known.clone()).unwrap_or_else(|| {
        let minion_id = load::find(root, common.config.as_deref(), &common.settings.overrides()).minion_id();
        Circumstances { verb: verb.to_owned(), minion_id, started, instance_id: store.instance(), ..Circumstances::default() }
    });
    of.seconds = (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    let report = speak_for(of, reports, progress.and_then(|progress| progress.step), failure, root, common, &store);
    if json {
        print(&(serde_json::json!(report).to_string() + "\n"));
    }
    report.code
}

/// The exit code of somebody who has told everybody of his end; else what there is to tell.
fn judge(end: &End, progress: Option<&Progress>) -> Result<u8, Failure> {
    if let Some(code) = progress.and_then(|progress| progress.ended) {
        return Ok(code);
    }
    let during = progress.map_or_else(|| "before it had begun".to_owned(), Progress::during);
    if let Some(code) = end.status.code() {
        return match progress {
            // It has not come so far that there was anything to tell, or it could write nothing.
            None => Ok(u8::try_from(code).unwrap_or(Kind::Bug.code())),
            Some(_) => Err(Failure::new(Kind::Bug, format!("the worker process exited with {code} {during} without a report"))),
        };
    }
    let signal = end.status.signal().and_then(|signal| Signal::try_from(signal).ok());
    let name = signal.map_or_else(|| "a signal".to_owned(), |signal| signal.to_string());
    Err(match signal {
        Some(Signal::SIGKILL) if end.out_of_memory => {
            Failure::new(Kind::Interrupted, format!("killed by the kernel {during}: out of memory")).hint(
                "See `dmesg` for what took the memory; give the machine more of it, or swap, and run again: it continues where it stopped.",
            )
        }
        Some(Signal::SIGKILL) => Failure::new(Kind::Interrupted, format!("killed by {name} {during}"))
            .hint("Somebody killed it; the kernel was not out of memory. Run it again: it continues where it stopped."),
        Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP) => {
            Failure::new(Kind::Interrupted, format!("told to stop by {name} {during}"))
        }
        _ => Failure::new(Kind::Bug, format!("the worker process was ended by {name} {during}")),
    })
}

/// Reports in the place of a run that cannot any more, as it would have: if it had kept its report already (`reports`), that is what Heat is
/// told.
fn speak_for(
    of: Circumstances,
    reports: bool,
    step: Option<String>,
    failure: Failure,
    root: &Root,
    common: &Common,
    store: &Store,
) -> Report {
    let signal = load::find(root, common.config.as_deref(), &common.settings.overrides()).signal();
    let deadline = Deadline::after(WITHOUT_SETTINGS);
    let report = match store.report().filter(|report| reports && report.is_of(&of)) {
        Some(mut report) => {
            if let Some(signal) = signal.filter(|_| !report.signal.as_ref().is_some_and(|signal| signal.delivered)) {
                notify::tell(&signal, &mut report, store, deadline);
                store.keep_report(&report).unwrap_or_else(|failure| warn!("{failure}"));
            }
            report
        }
        None => conclude(&|| of.clone(), step, Err(failure), &|_| (), signal.as_ref(), store, deadline),
    };
    Progress::forget(store).unwrap_or_else(|failure| warn!("{failure}"));
    resume::run_ended(root, store.keeps_signal()).unwrap_or_else(|failure| warn!("the units for the next boot stay: {failure}"));
    report
}

/// The verb `signal --killed`: tells Heat of a run that was cut off together with whoever watched it. One that goes on after a reboot
/// has nothing to tell yet. `waits`: not before the run that is under way has ended.
pub fn signal_killed(root: &Root, common: &Common, waits: bool) -> Result<(), Failure> {
    let store = Store::below(root);
    if waits {
        await_end_of_run(&store)?;
    }
    // Of two processes that were killed at once the one that worked may end a moment later.
    let soon = Wait::until(Deadline::after(LETTING_GO), Interrupt::default());
    if soon.poll(Duration::from_millis(50), || Ok(store.runner().is_none().then_some(())))?.is_none() {
        info!("a run is under way (pid {}): it tells Heat itself", store.runner().unwrap_or_default());
        return Ok(());
    }
    let Some(progress) = Progress::of(&store) else {
        info!("no run was cut off");
        return Ok(());
    };
    if progress.continues || (progress.ended.is_none() && root.is_machine() && shutdown::is_reboot()) {
        info!("this machine is being rebooted: the run continues at the next boot");
        return Ok(());
    }
    if progress.ended.is_some() {
        return Progress::forget(&store);
    }
    let _only_one = store.lock(&Wait::until(Deadline::after(LETTING_GO), Interrupt::default()), || ())?;
    let failure = Failure::new(Kind::Interrupted, format!("killed {}", progress.during()));
    let report = speak_for(progress.known, progress.reports, progress.step, failure, root, common, &store);
    match report.signal.and_then(|signal| signal.error) {
        Some(why) => Err(Failure::new(Kind::SignalUndelivered, why)),
        None => Ok(()),
    }
}

/// Until nobody holds the lock. If the one that worked was killed, its guardian takes it then, and knows more of that end.
fn await_end_of_run(store: &Store) -> Result<(), Failure> {
    let mut free = false;
    let wait = Wait::until(Deadline::after(LONGEST), Interrupt::default());
    wait.poll(LETTING_GO, || {
        let before = std::mem::replace(&mut free, store.runner().is_none());
        Ok((before && free).then_some(()))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(wait_status: i32, out_of_memory: bool, progress: Option<&Progress>) -> Result<u8, (Kind, String)> {
        let end = End { status: ExitStatus::from_raw(wait_status), out_of_memory };
        judge(&end, progress).map_err(|failure| (failure.kind, failure.message))
    }

    #[test]
    fn an_end_is_judged_by_how_it_looks_and_how_far_it_came() {
        let working = Progress {
            pid: 7,
            known: Circumstances::default(),
            step: Some("install".into()),
            ended: None,
            ends: None,
            continues: false,
            reports: false,
        };
        let ended = Progress { step: None, ended: Some(42), ..working.clone() };
        let err = |kind, text: &str| Err((kind, text.to_owned()));
        // waitpid(2): a signal is in the low bits, an exit code in the next eight.
        assert_eq!(verdict(0, false, None), Ok(0));
        assert_eq!(verdict(11 << 8, false, None), Ok(11));
        assert_eq!(verdict(42 << 8, false, Some(&ended)), Ok(42));
        assert_eq!(verdict(9, false, Some(&ended)), Ok(42));
        assert_eq!(verdict(9, false, Some(&working)), err(Kind::Interrupted, "killed by SIGKILL during step install"));
        assert_eq!(verdict(9, true, Some(&working)), err(Kind::Interrupted, "killed by the kernel during step install: out of memory"));
        assert_eq!(verdict(15, false, None), err(Kind::Interrupted, "told to stop by SIGTERM before it had begun"));
        assert_eq!(verdict(11, false, Some(&working)), err(Kind::Bug, "the worker process was ended by SIGSEGV during step install"));
        let silent = verdict(90 << 8, false, Some(&working));
        assert_eq!(silent, err(Kind::Bug, "the worker process exited with 90 during step install without a report"));
    }
}

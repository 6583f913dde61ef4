//! One thread works, this one watches: for the end, a panic, a signal, the deadline. Whatever
//! comes first, there is a result to report.

use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use tracing::warn;

use crate::bootstrap::journal::Journal;
use crate::system::interrupt::Interrupt;
use crate::system::retry::Wait;
use crate::types::deadline::Deadline;
use crate::types::failure::{Fact, Failure, Kind};

/// What the watcher hears.
enum Event {
    Ended(Result<String, Failure>),
    Panicked(String),
    Signal,
}

/// So long the worker may take to end by itself once it was told to: it logs out, and it knows best
/// what it was doing.
const GRACE: Duration = Duration::from_secs(2);

/// So long after one process of a group the others have heard a signal too.
const BOTH: Duration = Duration::from_millis(100);

type Work = Box<dyn FnOnce(&Wait) -> Result<String, Failure> + Send>;

/// Runs `work` until `deadline` and returns its result, or one in its place.
pub fn watch_over(
    journal: &Journal,
    deadline: Deadline,
    work: impl FnOnce(&Wait) -> Result<String, Failure> + Send + 'static,
) -> Result<String, Failure> {
    watch(journal, deadline, Box::new(work))
}

/// In the program once, and not for each kind of work.
fn watch(journal: &Journal, deadline: Deadline, work: Work) -> Result<String, Failure> {
    let (events, heard) = mpsc::channel();
    let signal = events.clone();
    let interrupt = Interrupt::on_signals(move |_| {
        // Nobody listens any more once the result is there.
        let _ = signal.send(Event::Signal);
    })
    .map_err(|error| Failure::new(Kind::LocalSystem, format!("cannot listen to signals: {error}")))?;
    let wait = Wait::until(deadline, interrupt.clone());
    tell_of_panics(events.clone());
    thread::Builder::new()
        .name("work".into())
        .spawn(move || {
            let result = work(&wait);
            let _ = events.send(Event::Ended(result));
        })
        .map_err(|error| Failure::new(Kind::LocalSystem, format!("cannot start a thread: {error}")))?;
    // Whoever presses Ctrl-C is heard twice: here, and by the guardian that passes it on.
    let mut warned = false;
    let mut until = Deadline::after(deadline.remaining() + GRACE);
    loop {
        match heard.recv_timeout(until.remaining()) {
            Ok(Event::Ended(result)) => return result.map_err(|failure| told_apart(failure, journal, &interrupt)),
            Ok(Event::Panicked(message)) => return Err(Failure::new(Kind::Bug, format!("panicked {message}"))),
            Ok(Event::Signal) => {
                if !warned {
                    warn!("told to stop: ending");
                }
                warned = true;
                until = until.slice(GRACE);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(overdue(journal, &interrupt)),
        }
    }
}

/// A signal for the whole process group may end a command as well, in the moment in which that is started, and its end may be seen
/// first. Then nothing is wrong with the command.
fn told_apart(failure: Failure, journal: &Journal, interrupt: &Interrupt) -> Failure {
    if failure.facts.contains_key(&Fact::KilledBySignal) && interrupt.sleep(BOTH).is_some() { overdue(journal, interrupt) } else { failure }
}

fn overdue(journal: &Journal, interrupt: &Interrupt) -> Failure {
    let step = journal.current_step().unwrap_or_else(|| "the work".into());
    match interrupt.raised() {
        Some(signal) => Failure::new(Kind::Interrupted, format!("told to stop by {signal} during {step}")),
        None => Failure::new(Kind::OutOfTime, format!("the deadline passed during {step}")),
    }
}

/// A panic ends the process (panic = abort), so the thread in which it happens stops here and lets
/// the watcher report it first.
fn tell_of_panics(events: Sender<Event>) {
    panic::set_hook(Box::new(move |panicked| {
        let payload = panicked.payload();
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let at = panicked.location().map(|at| format!("at {}:{}", at.file(), at.line())).unwrap_or_default();
        let main = thread::current().name() == Some("main");
        if events.send(Event::Panicked(format!("{at}: {message}"))).is_err() || main {
            eprintln!("heat-salt-bootstrap panicked {at}: {message}");
            std::process::exit(i32::from(Kind::Bug.code()));
        }
        loop {
            thread::park();
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    // Signals and the hook for panics belong to the whole process, so all of it is one test with a process of its own. In the tests' own,
    // the hook would stay: the next test that fails would end all of them with 90, and nobody learnt which. Panics themselves are for
    // tests/panic.rs: the thread that panicked never leaves the hook, which libtest wants back.
    #[test]
    fn whatever_happens_there_is_a_result() {
        const ALONE: &str = "HSB_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return alone();
        }
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "cli::supervisor::tests::whatever_happens_there_is_a_result", "--nocapture"]).env(ALONE, "1");
        let output = again.output().unwrap();
        let message = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && message.contains("1 passed"), "{message}");
    }

    fn alone() {
        let journal = Journal::begin("run", "web-1");
        let soon = || Deadline::after(Duration::from_secs(30));
        assert_eq!(watch_over(&journal, soon(), |_| Ok("fine".into())), Ok("fine".into()));

        // A worker that hears nothing any more, as one stuck in a system call.
        let stuck = watch_over(&journal, Deadline::after(Duration::ZERO), |_| {
            loop {
                thread::park();
            }
        });
        assert_eq!(stuck.unwrap_err().kind, Kind::OutOfTime);

        let killed = || Failure::new(Kind::LocalSystem, "`x` was killed by signal 15").fact(Fact::KilledBySignal, "15");
        assert_eq!(watch_over(&journal, soon(), move |_| Err(killed())), Err(killed()));
        let both = watch_over(&journal, soon(), move |_| {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
            Err(killed())
        });
        assert_eq!(both.unwrap_err().kind, Kind::Interrupted);

        let result = watch_over(&journal, soon(), |wait| {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
            wait.pause(Duration::from_secs(60)).map(|()| String::new())
        });
        assert_eq!(result.unwrap_err().kind, Kind::Interrupted);
    }
}

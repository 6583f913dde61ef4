//! Running a package manager: it is waited for when another one works, tried again when its source did not answer, understood
//! when it fails, and never killed.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::commands::{self, Words};
use super::os::{Format, Manager};
use super::output::{self, Reason};
use crate::system::command::{self, Finished};
use crate::system::locks::{self, Holder};
use crate::system::retry::{RetryError, Wait};
use crate::types::failure::{Fact, Failure, Kind};

/// So often a lock is looked at that somebody else holds.
const LOOK: Duration = Duration::from_millis(300);

/// What talks to one package manager.
pub struct Transaction<'a> {
    /// Which one.
    pub manager: Manager,
    /// How long all of it may take.
    pub wait: &'a Wait,
    environment: Vec<(String, OsString)>,
}

impl<'a> Transaction<'a> {
    /// Prepares to talk to this one.
    pub fn by(manager: Manager, wait: &'a Wait) -> Transaction<'a> {
        let mut environment = command::proxies();
        if manager.format() == Format::Deb {
            // Maintainer scripts may ask questions otherwise.
            environment.push(("DEBIAN_FRONTEND".into(), "noninteractive".into()));
        }
        Transaction { manager, wait, environment }
    }

    /// Runs a command of it until it succeeds or fails for good. `judge` may find fault with one that exited with 0.
    pub fn run(&self, words: &Words, judge: impl Fn(&Finished) -> Option<String>) -> Result<Finished, Failure> {
        let mut repaired = false;
        let mut last: Option<Failure> = None;
        self.wait.retry(self.manager.program(), |_| {
            loop {
                // Why it failed before says more than that time ran out while it was tried again.
                let finished =
                    self.once(words).map_err(|failure| RetryError::Permanent(in_vain(last.take(), self.of_the_source(words, failure))))?;
                let fault = judge(&finished);
                if finished.success() && fault.is_none() {
                    return Ok(finished);
                }
                let printed = fault.clone().unwrap_or_else(|| format!("{}\n{}", finished.stdout, finished.stderr));
                let reason = Reason::read(&printed);
                if reason == Reason::CutOff && !repaired {
                    repaired = true;
                    self.repair().map_err(RetryError::Permanent)?;
                    continue;
                }
                let failure = explained(&finished, reason, fault);
                if reason == Reason::Garbled {
                    last = Some(failure.clone());
                    return Err(RetryError::Suspicious(failure));
                }
                if !reason.may_pass() {
                    return Err(RetryError::Permanent(failure));
                }
                last = Some(failure.clone());
                return Err(RetryError::Transient(failure, None));
            }
        })
    }

    /// Time that ran out while the manager was still at its source is the source's fault: it says so, or was to do nothing else.
    fn of_the_source(&self, words: &Words, failure: Failure) -> Failure {
        if failure.kind != Kind::OutOfTime {
            return failure;
        }
        let source_error = failure.facts.get(&Fact::Output).and_then(|printed| output::source_error(printed));
        match source_error {
            Some(source_error) => {
                Failure { kind: Kind::RepositoryUnreachable, message: format!("{}: {source_error}", failure.message), ..failure }
            }
            None if commands::refresh(self.manager).as_ref() == Some(words) => Failure { kind: Kind::RepositoryUnreachable, ..failure },
            None => failure,
        }
    }

    /// Runs a command that only looks; `None` if it did not succeed.
    pub fn query(&self, words: &Words) -> Result<Option<String>, Failure> {
        let finished = self.once(words)?;
        Ok(finished.success().then_some(finished.stdout))
    }

    fn once(&self, words: &Words) -> Result<Finished, Failure> {
        self.await_locks()?;
        info!("running `{}`", words.join(" "));
        command::start_with(&command::borrowed(words), &self.environment)?.finish_or_leave(self.wait)
    }

    /// Waits until nobody else holds a lock that is going to be wanted. Somebody may take one afterwards: then the manager says so.
    fn await_locks(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut last_holder: Option<Holder> = None;
        let free = self.wait.poll(LOOK, || {
            let holder = locks::holder(self.manager.locks(), &Manager::BY_PID);
            if let Some(holder) = holder.as_ref().filter(|holder| last_holder.as_ref() != Some(holder)) {
                info!("waiting for another package manager: {holder}");
            }
            let free = holder.is_none().then_some(());
            last_holder = holder.or(last_holder.take());
            Ok(free)
        })?;
        let waited = begun.elapsed().as_secs();
        match (free, last_holder) {
            (Some(()), None) => Ok(()),
            (Some(()), Some(_)) => {
                info!("the lock is free after {waited} s");
                Ok(())
            }
            (None, last_holder) => {
                let holder = last_holder.map_or_else(|| "somebody holds it".to_owned(), |holder| holder.to_string());
                Err(Failure::new(Kind::PackageLocked, format!("another package manager was not done after {waited} s: {holder}"))
                    .fact(Fact::Holder, holder))
            }
        }
    }

    fn repair(&self) -> Result<(), Failure> {
        warn!("an earlier dpkg was cut off: finishing what it began");
        let finished = self.once(&commands::repair())?;
        if finished.success() { Ok(()) } else { Err(finished.failure(Kind::PackageFailed)) }
    }
}

fn in_vain(before: Option<Failure>, failure: Failure) -> Failure {
    match before {
        Some(before) if matches!(failure.kind, Kind::OutOfTime | Kind::RepositoryUnreachable) => before.fact(Fact::Then, failure.message),
        _ => failure,
    }
}

fn explained(finished: &Finished, reason: Reason, fault: Option<String>) -> Failure {
    let failure = match fault {
        Some(fault) => Failure::new(reason.kind(), format!("`{}`: {fault}", finished.command)),
        None => finished.failure(reason.kind()),
    };
    match reason.advice() {
        Some(advice) => failure.hint(advice),
        None => failure,
    }
}

//! Telling Heat, and keeping what it could not be told.

use std::time::Duration;

use tracing::{error, warn};

use crate::bootstrap::state::Store;
use crate::heat::client;
use crate::heat::settings::Signal;
use crate::heat::signal::Message;
use crate::system::interrupt::Interrupt;
use crate::system::retry::Wait;
use crate::types::deadline::Deadline;
use crate::types::failure::{Failure, Kind};
use crate::types::report::{self, Report, Verdict};

/// How long it is tried to tell Heat of a configuration that cannot even say how long.
pub const WITHOUT_SETTINGS: Duration = Duration::from_secs(60);

/// Tells Heat and notes in the report how that went. Work that is done stays done if Heat was not
/// told, but the exit code says so, and the signal is kept.
pub fn tell(signal: &Signal, report: &mut Report, store: &Store, deadline: Deadline) {
    let id = signal.id.clone().unwrap_or_else(|| report.minion_id.clone());
    report.signal = None;
    let message = Message::of(report, id);
    // What interrupted the work does not interrupt the report of it. What comes while Heat is told ends that after the try under way: whoever
    // switches a machine off does not wait for a Heat that does not answer.
    let stop = Interrupt::of_this_process();
    let stop = if stop.raised().is_some() { Interrupt::default() } else { stop };
    let result = deliver(signal, &message, store, &Wait::until(deadline, stop)).map_err(|failure| match failure.kind {
        Kind::Interrupted => Failure::new(Kind::SignalUndelivered, format!("{} before Heat had answered", failure.message)),
        _ => failure,
    });
    report.signal = Some(report::Signal {
        transport: signal.handle.transport().to_owned(),
        delivered: result.is_ok(),
        error: result.as_ref().err().map(|failure| failure.message.clone()),
    });
    if let Err(failure) = result {
        error!("{failure}");
        if report.verdict == Verdict::Done {
            report.code = failure.kind.code();
            report.reason = failure.kind.reason().to_owned();
            report.hint = Some(failure.hint.unwrap_or_else(|| failure.kind.advice().to_owned()));
        }
    }
}

/// Delivers a message, or keeps it for the next run or the next boot. It is kept before it is sent, in case this is killed now.
pub fn deliver(signal: &Signal, message: &Message, store: &Store, wait: &Wait) -> Result<(), Failure> {
    // A disk that takes nothing is no reason not to tell.
    store.keep_signal(signal.handle.recipient(), message).unwrap_or_else(|failure| warn!("{failure}"));
    client::tell(signal, message, wait)?;
    store.signal_delivered().unwrap_or_else(|failure| warn!("{failure}"));
    Ok(())
}

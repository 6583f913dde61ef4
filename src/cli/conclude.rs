//! The end of every run: its report is made, kept, and told to everybody who has to know.

use tracing::{error, info};

use super::notify;
use crate::bootstrap::state::Store;
use crate::heat::settings::Signal;
use crate::types::deadline::Deadline;
use crate::types::failure::Failure;
use crate::types::report::{Circumstances, Report, Verdict};

/// Makes the report of a run, keeps it, hands it to `note`, tells Heat, keeps how that went.
pub fn conclude(
    of: &dyn Fn() -> Circumstances,
    step: Option<String>,
    result: Result<String, Failure>,
    note: &dyn Fn(&Report),
    signal: Option<&Signal>,
    store: &Store,
    deadline: Deadline,
) -> Report {
    let mut report = match result {
        Ok(message) => Report::done(of(), message),
        Err(failure) => Report::failed(of(), step, failure),
    };
    // Kept before Heat is told: what Heat hears can be read here, even if this is killed now.
    if let Err(failure) = store.keep_report(&report) {
        error!("{failure}");
        if report.verdict == Verdict::Done {
            report = Report::failed(of(), None, failure);
        }
    }
    note(&report);
    if let Some(signal) = signal {
        notify::tell(signal, &mut report, store, deadline);
        if let Err(failure) = store.keep_report(&report) {
            error!("{failure}");
        }
    }
    match report.verdict {
        Verdict::Done if report.code == 0 => info!("{}", report.message),
        _ => {
            error!("{}", report.line());
            if let Some(hint) = &report.hint {
                error!("what to do: {hint}");
            }
        }
    }
    report
}

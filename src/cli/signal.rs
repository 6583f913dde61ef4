//! The verb `signal`: tells Heat by hand, or what it has not been told yet.

use serde_json::json;
use tracing::info;

use super::args::{Common, SignalArgs, SignalStatus};
use super::guardian;
use super::logging;
use super::notify::{WITHOUT_SETTINGS, deliver, tell};
use crate::bootstrap::resume;
use crate::bootstrap::state::Store;
use crate::config::load;
use crate::heat::settings::Signal;
use crate::heat::signal::{Message, Status};
use crate::system::files::Root;
use crate::system::interrupt::Interrupt;
use crate::system::retry::Wait;
use crate::types::deadline::Deadline;
use crate::types::failure::{Failure, Kind};
use crate::types::report::{self, Report, Verdict};

/// The verb: sends a status that somebody else decided on; else what Heat has not taken yet; else the last report again.
pub fn signal(args: &SignalArgs, root: &Root, common: &Common) -> Result<(), Failure> {
    logging::keep(root);
    if args.killed {
        return guardian::signal_killed(root, common, args.wait);
    }
    let found = load::find(root, common.config.as_deref(), &common.settings.overrides());
    let Some(signal) = found.signal() else {
        found.settings()?;
        if args.kept {
            info!("there is no Heat to tell");
            return Ok(());
        }
        return Err(Failure::new(Kind::Config, "the configuration has no signal: there is no Heat to tell")
            .hint("Give the wait condition handle's attributes in `signal`."));
    };
    let deadline = Deadline::after(WITHOUT_SETTINGS);
    let store = Store::below(root);
    let wait = Wait::until(deadline, Interrupt::default());
    if let Some(status) = args.status {
        let status = match status {
            SignalStatus::Success => Status::Success,
            SignalStatus::Failure => Status::Failure,
        };
        let id = signal.id.clone().unwrap_or_else(|| found.minion_id());
        let message = Message::by_hand(status, args.reason.as_deref().unwrap_or("signalled by hand"), id);
        return deliver(&signal, &message, &store, &wait);
    }
    let _only_one = store.lock(&wait, || ())?;
    let owed = store.pending_signal(&signal.handle.recipient());
    let reported = store.report().is_some_and(|report| owed.as_ref().is_none_or(|message| is_about(message, &report)));
    match owed {
        Some(message) if !reported => deliver(&signal, &message, &store, &wait)?,
        None if args.kept => info!("Heat has been told everything"),
        _ => tell_again(&signal, &store, deadline)?,
    }
    // The next boot has nothing to send any more.
    resume::signal_taken(root)
}

/// Is it about this very run? Then the report is to say afterwards that Heat was told.
fn is_about(message: &Message, report: &Report) -> bool {
    message.data["started"] == json!(report.started) && message.data["verb"] == json!(report.verb)
}

/// Why Heat is not told of the last report.
fn why_untold(report: &Report, store: &Store) -> Option<String> {
    if !store.is_here(report.instance_id.as_deref()) {
        let whose = report.instance_id.as_deref().unwrap_or("nobody knows which");
        return Some(format!("the last report is of another instance ({whose}), of which this one is a copy"));
    }
    (!report.is_told()).then(|| format!("the last report is of `{}`, which is only a part of the work", report.verb))
}

fn tell_again(signal: &Signal, store: &Store, deadline: Deadline) -> Result<(), Failure> {
    let mut report = store.last_report()?;
    if let Some(why) = why_untold(&report, store) {
        return Err(Failure::new(Kind::LocalSystem, format!("there is nothing to signal to Heat: {why}"))
            .hint("`heat-salt-bootstrap run` does the work and signals Heat; `signal --status` sends a status of your choice."));
    }
    if report.verdict == Verdict::Done {
        // What was wrong with it is that Heat had not been told.
        report.code = Kind::Done.code();
        report.reason = Kind::Done.reason().to_owned();
        report.hint = None;
    }
    tell(signal, &mut report, store, deadline);
    store.keep_report(&report)?;
    match report.signal {
        Some(report::Signal { error: Some(why), .. }) => Err(Failure::new(Kind::SignalUndelivered, why)),
        _ => Ok(()),
    }
}

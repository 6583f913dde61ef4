//! The verbs that work: `run`, its parts `install`, `accept` and `apply`, `renew`, and `deregister`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::{debug, info, warn};

use super::args::{Common, Work};
use super::conclude::conclude;
use super::guardian::{self, Role};
use super::logging;
use super::notify::WITHOUT_SETTINGS;
use super::supervisor;
use super::terminal::{complain, print};
use crate::bootstrap::chain;
use crate::bootstrap::context::{Context, Steps};
use crate::bootstrap::deregister;
use crate::bootstrap::enroll;
use crate::bootstrap::journal::Journal;
use crate::bootstrap::lease;
use crate::bootstrap::pipeline::bootstrap;
use crate::bootstrap::progress::Progress;
use crate::bootstrap::resume::{self, AtBoot};
use crate::bootstrap::state::Store;
use crate::config::load;
use crate::config::settings::Settings;
use crate::minion::jobs;
use crate::minion::keypair;
use crate::minion::paths::MinionPaths;
use crate::salt::enrolment::Asking;
use crate::system::clock;
use crate::system::files::{Lock, Root};
use crate::system::interrupt::Interrupt;
use crate::system::retry::Wait;
use crate::system::shutdown;
use crate::types::deadline::Deadline;
use crate::types::failure::{Failure, Kind};
use crate::types::report::Report;
use crate::types::step::StepName;

/// After a signal the service manager waits 90 s by default; Heat gets a part of that.
const AFTER_INTERRUPT: Duration = Duration::from_secs(20);
/// How long the enrolment service is told how it ended: nobody waits for that.
const MOST_NOTING: Duration = Duration::from_secs(10);
/// How long `renew` tries; its unit (heat-salt-bootstrap-renew.service) waits a little longer, and starts it again later.
const MOST_RENEWING: Duration = Duration::from_secs(600);
/// What to do about a run that a reboot has stopped.
const RESUMES: &str = "Nothing: this machine is being rebooted, and the run continues at the next boot. Heat was not signalled.";
/// Where the deadline passed before this began.
const OVER_AT_BOOT: &str = "the deadline passed while this machine was rebooted";
const OVER_IN_CHAIN: &str = "the deadline passed before this part of the bootstrap began: it counts from the beginning of fetch.sh";
/// The part of the deadline that is kept for the report: a tenth, within these bounds.
const LEAST_RESERVE: Duration = Duration::from_secs(2);
const MOST_RESERVE: Duration = Duration::from_secs(30);

/// What is to be done, and how.
struct Task {
    verb: &'static str,
    action: Action,
    again: bool,
    json: bool,
    at_boot: bool,
}

impl Task {
    /// Can the next boot do the rest? Of a part of the work nobody knows what comes after it.
    fn continues(&self) -> bool {
        matches!(self.action, Action::Steps(Steps { install: true, accept: true, apply: true }))
    }
}

/// What is done.
#[derive(Clone, Copy)]
enum Action {
    /// Parts of a bootstrap.
    Steps(Steps),
    /// The end of it.
    Deregister,
}

impl Action {
    /// Is Heat told of this end? A link of the chain that did its part has nothing to tell yet, and whoever leaves never has.
    fn tells(self, result: &Result<String, Failure>) -> bool {
        match self {
            Action::Steps(steps) => steps.apply || result.is_err(),
            Action::Deregister => false,
        }
    }

    /// Is this the last thing for which secrets are needed?
    fn is_last(self) -> bool {
        matches!(self, Action::Steps(Steps { apply: true, .. }))
    }
}

/// The verb `run`, or the part of it that `steps` says. `at_boot`: by the unit that runs it at each boot.
pub fn run(verb: &'static str, steps: Steps, work: &Work, at_boot: bool, root: &Root, common: &Common) -> u8 {
    watched(&Task { verb, action: Action::Steps(steps), again: work.again, json: work.json, at_boot }, root, common)
}

/// The verb `deregister`.
pub fn deregister(at_shutdown: bool, json: bool, root: &Root, common: &Common) -> u8 {
    let wait = Wait::until(Deadline::after(WITHOUT_SETTINGS), Interrupt::default());
    if at_shutdown && !shutdown::for_good(&wait) {
        info!("this machine is not being switched off: its key stays");
        return Kind::Done.code();
    }
    // Heat is not told of it, so nobody has to watch.
    perform(&Task { verb: "deregister", action: Action::Deregister, again: false, json, at_boot: false }, root, common, false)
}

/// The verb `renew`. It has no report: what `status` shows and Heat knows is how the bootstrap went.
pub fn renew(root: &Root, common: &Common) -> u8 {
    logging::keep(root);
    match renewed(root, common) {
        Ok(message) => {
            print(&(message + "\n"));
            Kind::Done.code()
        }
        Err(failure) => complain(&failure),
    }
}

fn renewed(root: &Root, common: &Common) -> Result<String, Failure> {
    allowed(root)?;
    let found = load::find(root, common.config.as_deref(), &common.settings.overrides());
    let settings = Arc::new(found.settings()?);
    let store = Store::below(root);
    let (mut others, at_once) = (false, Wait::until(Deadline::after(Duration::ZERO), Interrupt::default()));
    let lock = store.lock(&at_once, || others = true);
    if others {
        return Ok("another run is under way, and says more than that this machine lives".to_owned());
    }
    let lock = lock?;
    let (journal, root) = (Journal::begin("renew", &found.minion_id()), root.clone());
    let entries = journal.clone();
    supervisor::watch_over(&journal, Deadline::after(renewing(settings.deadline)), move |wait| {
        let _held = lock;
        let context = Context { settings: &settings, root: &root, store: &store, journal: &entries, wait, config: None, again: false };
        lease::renew(&context)
    })
}

/// Works, and somebody is there who reports if this is killed.
fn watched(task: &Task, root: &Root, common: &Common) -> u8 {
    match guardian::watch(task.verb, task.json, root, common) {
        Role::Ended(code) => code,
        Role::Watched => perform(task, root, common, true),
        Role::Alone => perform(task, root, common, false),
    }
}

/// Works, and reports whatever comes of it: on disk, to Heat, to the person who waits.
fn perform(task: &Task, root: &Root, common: &Common, watched: bool) -> u8 {
    let begun = Instant::now();
    logging::keep(root);
    let found = load::find(root, common.config.as_deref(), &common.settings.overrides());
    found.warn_of_open_files();
    let journal = Journal::begin(task.verb, &found.minion_id());
    let store = Store::below(root);
    journal.name_instance(store.instance());
    // Held here, and not by the thread that takes it: until the report is kept and told.
    let turn = Arc::new(Mutex::new(Turn::Open));
    let mut forgets = false;
    let mut wanted = None;
    let (signal, deadline, result) = match allowed(root).and_then(|()| found.settings()) {
        Err(failure) => {
            // A run that is under way is not waited for: what is wrong here is known already.
            let at_once = Wait::until(Deadline::after(Duration::ZERO), Interrupt::default());
            if let Ok(lock) = store.lock(&at_once, || take(&turn, Turn::Others)) {
                take(&turn, Turn::Ours(lock));
                journal.show_in(&store);
            }
            (found.signal(), Deadline::after(WITHOUT_SETTINGS), Err(failure))
        }
        Ok(mut settings) => {
            let signal = settings.signal.take();
            let settings = Arc::new(settings);
            wanted = Some(Arc::clone(&settings));
            // What it took to find out counts, and so does what was before: fetching this program, other parts of the chain, a reboot.
            let whole = settings.deadline.saturating_sub(begun.elapsed());
            let chained = || Some(settings.deadline.saturating_sub(chain::spent(root)?));
            let left = if task.at_boot { Progress::left_of_unfinished(&store, clock::seconds()) } else { chained() };
            let reserve = reserve(settings.deadline);
            let over = left.filter(|left| *left <= reserve).map(|_| if task.at_boot { OVER_AT_BOOT } else { OVER_IN_CHAIN });
            let deadline = Deadline::after(if over.is_some() { reserve } else { left.map_or(whole, |left| left.min(whole)) });
            logging::until(deadline);
            journal.note_deadline(deadline);
            let (next_boot, at_boot) = (next_boot(task, common, &found), task.at_boot);
            let (action, again, config) = (task.action, task.again, common.config.clone());
            forgets = settings.forget_secrets && action.is_last();
            let (root, store, entries, turn) = (root.clone(), store.clone(), journal.clone(), Arc::clone(&turn));
            let result = supervisor::watch_over(&journal, deadline.earlier_by(reserve), move |wait| {
                let lock = store.lock(wait, || take(&turn, Turn::Others))?;
                take(&turn, Turn::Ours(lock));
                entries.show_in(&store);
                if let Some(message) = over {
                    return Err(Failure::new(Kind::OutOfTime, message));
                }
                if let (Action::Steps(_), Err(failure)) = (action, resume::arrange(&root, &next_boot, at_boot, wait)) {
                    warn!("a reboot would end this run: {failure}");
                }
                // A unit that has started this run tells Heat itself.
                if let (Action::Steps(_), false) = (action, at_boot)
                    && let Err(failure) = resume::watch(&root, config.as_deref(), wait)
                {
                    warn!("nobody would tell Heat if this run and its guardian were killed: {failure}");
                }
                let config = config.as_deref();
                let context = Context { settings: &settings, root: &root, store: &store, journal: &entries, wait, config, again };
                match action {
                    Action::Steps(steps) => bootstrap(&context, steps),
                    Action::Deregister => deregister::deregister(&context),
                }
            });
            (signal, deadline, result)
        }
    };
    logging::quiet();
    // Whoever never had the lock has done nothing. The run that had it keeps the report and tells Heat.
    if let (true, Err(failure)) = (is_others(&turn), &result) {
        if task.json {
            print(&(json!(Report::failed(journal.circumstances(), None, failure.clone())).to_string() + "\n"));
        }
        return complain(failure);
    }
    // What standard input gave is gone at the next boot.
    let can_continue = task.continues() && !found.took_stdin();
    let resumes = result.as_ref().is_err_and(|failure| may_be_cut_off(failure.kind))
        && can_continue
        && (task.at_boot || resume::is_arranged(root))
        && root.is_machine()
        && shutdown::is_reboot();
    let result = result.map_err(|failure| if resumes { cut_off(failure) } else { failure });
    let interrupted =
        result.as_ref().is_err_and(|failure| failure.kind == Kind::Interrupted) || Interrupt::of_this_process().raised().is_some();
    let says = task.action.tells(&result) && !resumes;
    let deadline = if interrupted { after_interrupt(deadline) } else { deadline };
    let of = || journal.circumstances();
    let note = |report: &Report| {
        if let (Action::Steps(_), Some(settings)) = (task.action, &wanted) {
            note_with_service(report, settings, root, &store, deadline);
        }
    };
    journal.note_report();
    let report = conclude(&of, journal.current_step(), result, &note, signal.as_ref().filter(|_| says), &store, deadline);
    if let Some(settings) = &wanted {
        // Looked for now: a package that was installed meanwhile may have brought a configuration.
        let paths = MinionPaths::of(root, &settings.minion);
        journal.jobs_to_clean().iter().for_each(|jid| jobs::forget(&paths, jid));
        jobs::forget_old(&paths);
    }
    // This was the last part of the chain, or it failed. After `install` or `accept` the next part follows, after a reboot this one once more.
    if matches!(task.action, Action::Steps(_))
        && says
        && let Err(failure) = chain::ended(root)
    {
        warn!("{failure}");
    }
    if !resumes && let Err(failure) = resume::run_ended(root, store.keeps_signal()) {
        warn!("the units for the next boot stay: {failure}");
    }
    // Not before Heat knows: what could not be told has to be told again, with the same credentials.
    if forgets
        && report.code == Kind::Done.code()
        && let Err(failure) = load::forget_secrets(root, common.config.as_deref())
    {
        warn!("the secrets stay in the configuration: {failure}");
    }
    if task.json {
        print(&(json!(report).to_string() + "\n"));
    }
    // Whoever watches takes it away, when there is nobody any more who could be killed.
    if resumes {
        journal.note_cut(report.code)
    } else if watched {
        journal.note_end(report.code)
    } else {
        journal.leave_no_trace()
    }
    report.code
}

/// What the next boot has to do if this run is cut off by a reboot.
fn next_boot(task: &Task, common: &Common, found: &load::Found) -> AtBoot {
    if task.continues() && !found.took_stdin() {
        AtBoot::Continue(std::env::args_os().skip(1).collect())
    } else {
        AtBoot::Tell(common.config.clone())
    }
}

/// Whose turn it is: one run works at a time.
enum Turn {
    /// Nobody has asked yet, or it cannot be found out.
    Open,
    /// Another run is under way.
    Others,
    /// It is ours for as long as this is held.
    Ours(#[expect(dead_code, reason = "held, and never looked at")] Lock),
}

fn take(slot: &Mutex<Turn>, turn: Turn) {
    // The slot is whole whoever panics.
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = turn;
}

fn is_others(slot: &Mutex<Turn>) -> bool {
    matches!(*slot.lock().unwrap_or_else(PoisonError::into_inner), Turn::Others)
}

/// Tells the enrolment service how a run ended that it has let in or has published a job for. Heat is told whatever comes of this.
fn note_with_service(report: &Report, settings: &Settings, root: &Root, store: &Store, deadline: Deadline) {
    let came_to = |step: StepName| report.steps.iter().any(|taken| taken.name == step.as_str());
    let has_enrolled = came_to(StepName::Enroll) && report.step.as_deref() != Some(StepName::Enroll.as_str());
    let concerns = has_enrolled || came_to(StepName::States);
    let (Some(bootstrap_id), true) = (&report.bootstrap_id, concerns) else { return };
    let wait = Wait::until(Deadline::after(noting(deadline.remaining())), Interrupt::default());
    let noted = enroll::service(settings, store).and_then(|service| {
        let (Some(mut service), Some(keys)) = (service, keypair::load(&MinionPaths::of(root, &settings.minion))?) else { return Ok(()) };
        let asking = Asking { keys: Some(&keys), id: &settings.minion.id, bootstrap_id };
        service.report(&asking, report, &wait)
    });
    match noted {
        Ok(()) => debug!("the outcome was reported to the enrolment service"),
        Err(failure) => warn!("the outcome could not be reported to the enrolment service: {}", failure.message),
    }
}

/// Can a machine that goes down be the cause? It ends the minion, and what systemd or a package manager were asked for, and tells this
/// process to stop in no order with that. What the master or the states say has another cause.
fn may_be_cut_off(kind: Kind) -> bool {
    matches!(kind, Kind::Interrupted | Kind::LocalSystem | Kind::PackageFailed | Kind::KeyNotSeen | Kind::MinionNotConnected)
}

/// The same, of a run that continues at the next boot.
fn cut_off(failure: Failure) -> Failure {
    let of_itself = failure.kind == Kind::Interrupted;
    let failure =
        if of_itself { failure } else { Failure::new(Kind::Interrupted, format!("the machine is being rebooted: {}", failure.message)) };
    failure.hint(RESUMES)
}

/// How much of the deadline is kept for the report.
fn reserve(deadline: Duration) -> Duration {
    (deadline / 10).clamp(LEAST_RESERVE, MOST_RESERVE)
}

fn after_interrupt(deadline: Deadline) -> Deadline {
    deadline.slice(AFTER_INTERRUPT)
}

fn noting(left: Duration) -> Duration {
    MOST_NOTING.min(left / 3)
}

fn renewing(deadline: Duration) -> Duration {
    MOST_RENEWING.min(deadline)
}

/// Only root may do it on a machine; below another root anybody who can.
pub fn allowed(root: &Root) -> Result<(), Failure> {
    if root.is_machine() && !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Kind::NotRoot, "this changes the machine's configuration and services, which only root may do"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_a_reboot_ends_is_no_failure() {
        let canceled = Failure::new(Kind::LocalSystem, "`systemctl start x` exited with 1: Job for x canceled.").hint("Look.");
        assert!(may_be_cut_off(canceled.kind) && !may_be_cut_off(Kind::StateFailed) && !may_be_cut_off(Kind::KeyConflict));
        let of_the_reboot = cut_off(canceled);
        assert_eq!((of_the_reboot.kind, of_the_reboot.hint.as_deref()), (Kind::Interrupted, Some(RESUMES)));
        assert_eq!(of_the_reboot.message, "the machine is being rebooted: `systemctl start x` exited with 1: Job for x canceled.");
        let failure = Failure::new(Kind::Interrupted, "told to stop by SIGTERM");
        assert_eq!(cut_off(failure.clone()).message, failure.message);
    }

    #[test]
    fn a_tenth_is_kept_for_the_report_within_bounds() {
        assert_eq!(reserve(Duration::from_secs(5)), LEAST_RESERVE);
        assert_eq!(reserve(Duration::from_secs(100)), Duration::from_secs(10));
        assert_eq!(reserve(HOUR), MOST_RESERVE);
    }

    #[test]
    fn what_nobody_waits_for_takes_no_more_of_a_long_time() {
        // Heat has the rest.
        assert_eq!([HOUR, MOST_NOTING].map(noting), [MOST_NOTING, MOST_NOTING / 3]);
        // The timer comes again.
        assert_eq!([HOUR, MOST_RENEWING / 2].map(renewing), [MOST_RENEWING, MOST_RENEWING / 2]);
        // Whoever has sent the signal kills what takes long.
        assert!(after_interrupt(Deadline::after(HOUR)).remaining() <= AFTER_INTERRUPT);
        let soon = Deadline::after(AFTER_INTERRUPT / 2);
        assert_eq!(after_interrupt(soon), soon);
    }
}

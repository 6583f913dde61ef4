//! The verbs. This is the one place that reports and that picks the exit code.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tracing::{debug, error, info, warn};

use super::args::{Cli, Common, Verb, Work};
use super::check;
use super::guardian::{self, Role};
use super::logging;
use super::notify;
use super::output;
use super::plan;
use super::supervisor;
use super::templates;
use crate::bootstrap::context::{Links, Scene};
use crate::bootstrap::deregister::leave;
use crate::bootstrap::enroll;
use crate::bootstrap::journal::Journal;
use crate::bootstrap::pipeline::bootstrap;
use crate::bootstrap::progress::Progress;
use crate::bootstrap::state::Store;
use crate::config::load;
use crate::config::settings::Settings;
use crate::heat::settings::Signal;
use crate::minion::jobs;
use crate::minion::keypair;
use crate::minion::paths::Place;
use crate::salt::enrolment::Asking;
use crate::system::files::{self, Lock, Root};
use crate::system::interrupt::Interrupt;
use crate::system::process;
use crate::system::retry::Patience;
use crate::system::shutdown;
use crate::types::deadline::Deadline;
use crate::types::excerpt::without_credentials;
use crate::types::failure::{Failure, Kind};
use crate::types::report::{Circumstances, Report, Verdict};

/// An os-release is some hundred bytes.
const MOST_OS_RELEASE: u64 = 64 * 1024;
/// How long it is tried to tell Heat of a configuration that cannot even say how long.
pub const WITHOUT_SETTINGS: Duration = Duration::from_secs(60);
/// After a signal the service manager waits 90 s by default; Heat gets a part of that.
const AFTER_INTERRUPT: Duration = Duration::from_secs(20);
/// How long the enrolment service is told how it ended: nobody waits for that.
const MOST_NOTING: Duration = Duration::from_secs(10);
/// What to do about a run that a reboot has stopped.
const RESUMES: &str = "Nothing: this machine is being rebooted, and the run goes on at the next boot. Heat was told nothing.";
/// The part of the deadline that is kept for the report: a tenth, within these bounds.
const LEAST_RESERVE: Duration = Duration::from_secs(2);
const MOST_RESERVE: Duration = Duration::from_secs(30);

/// Does what the command line says; returns the exit code.
pub fn main(cli: &Cli) -> u8 {
    logging::start(cli.common.log_format, cli.common.verbose);
    process::never_dump_core();
    let root = match Root::new(&cli.common.root) {
        Ok(root) => root,
        Err(error) => {
            return complain(
                &Failure::new(Kind::Usage, format!("--root {}: {error}", cli.common.root.display()))
                    .hint("Give a directory that is there."),
            );
        }
    };
    let all = Links { install: true, accept: true, apply: true };
    let none = Links { install: false, accept: false, apply: false };
    let task = |verb, links, work: &Work| Task { verb, play: Play::Links(links), again: work.again, json: work.json, at_boot: false };
    match &cli.verb {
        Verb::Run { work, at_boot } => watched(&Task { at_boot: *at_boot, ..task("run", all, work) }, &root, &cli.common),
        Verb::Install(work) => watched(&task("install", Links { install: true, ..none }, work), &root, &cli.common),
        Verb::Accept(work) => watched(&task("accept", Links { accept: true, ..none }, work), &root, &cli.common),
        Verb::Apply(work) => watched(&task("apply", Links { apply: true, ..none }, work), &root, &cli.common),
        Verb::Deregister { at_shutdown, json } => deregister(*at_shutdown, *json, &root, &cli.common),
        Verb::Signal(wish) => ended(notify::signal(wish, &root, &cli.common)),
        Verb::Check { json } => check::check(*json, &root, &cli.common),
        Verb::Template { name } => ended(template(name.as_deref())),
        Verb::Plan { json, os_release } => ended(show_plan(*json, os_release.as_deref(), &root, &cli.common)),
        Verb::Status { json, previous } => ended(status(*json, *previous, &root)),
        Verb::Explain { code } => ended(explain(code.as_deref())),
    }
}

/// What is to be done, and how.
struct Task {
    verb: &'static str,
    play: Play,
    again: bool,
    json: bool,
    at_boot: bool,
}

/// What is played.
#[derive(Clone, Copy)]
enum Play {
    /// The links of the chain.
    Links(Links),
    /// The end of it.
    Leave,
}

impl Play {
    /// Is Heat told of this end? A link of the chain that did its part has nothing to tell yet, and whoever leaves never has.
    fn tells(self, result: &Result<String, Failure>) -> bool {
        match self {
            Play::Links(links) => links.apply || result.is_err(),
            Play::Leave => false,
        }
    }

    /// Is this the last thing for which secrets are needed?
    fn is_last(self) -> bool {
        matches!(self, Play::Links(Links { apply: true, .. }))
    }
}

fn deregister(at_shutdown: bool, json: bool, root: &Root, common: &Common) -> u8 {
    let patience = Patience::until(Deadline::after(WITHOUT_SETTINGS), Interrupt::default());
    if at_shutdown && !shutdown::for_good(&patience) {
        info!("this machine is not being switched off: its key stays");
        return Kind::Done.code();
    }
    // Heat is not told of it, so nobody has to watch.
    perform(&Task { verb: "deregister", play: Play::Leave, again: false, json, at_boot: false }, root, common, false)
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
            let at_once = Patience::until(Deadline::after(Duration::ZERO), Interrupt::default());
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
            // What it took to find out counts.
            let deadline = Deadline::after(settings.deadline.saturating_sub(begun.elapsed()));
            logging::until(deadline);
            let reserve = (settings.deadline / 10).clamp(LEAST_RESERVE, MOST_RESERVE);
            let (play, again, config) = (task.play, task.again, common.config.clone());
            forgets = settings.forget_secrets && play.is_last();
            let (root, store, entries, turn) = (root.clone(), store.clone(), journal.clone(), Arc::clone(&turn));
            let result = supervisor::watch_over(&journal, deadline.earlier_by(reserve), move |patience| {
                let lock = store.lock(patience, || take(&turn, Turn::Others))?;
                take(&turn, Turn::Ours(lock));
                entries.show_in(&store);
                let config = config.as_deref();
                let scene = Scene { settings: &settings, root: &root, store: &store, journal: &entries, patience, config, again };
                match play {
                    Play::Links(links) => bootstrap(&scene, links),
                    Play::Leave => leave(&scene),
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
    let interrupted = result.as_ref().is_err_and(|failure| failure.kind == Kind::Interrupted);
    let resumes = interrupted && task.at_boot && root.is_machine() && shutdown::is_reboot();
    let result = result.map_err(|failure| if resumes { failure.hint(RESUMES) } else { failure });
    let says = task.play.tells(&result) && !resumes;
    let deadline = if interrupted { deadline.slice(AFTER_INTERRUPT) } else { deadline };
    let of = || journal.circumstances();
    let note = |report: &Report| {
        if let (Play::Links(_), Some(settings)) = (task.play, &wanted) {
            note_with_service(report, settings, root, &store, deadline);
        }
    };
    let report = conclude(&of, journal.current_step(), result, &note, signal.as_ref().filter(|_| says), &store, deadline);
    if let Some(settings) = &wanted {
        // Looked for now: a package that was installed meanwhile may have brought a configuration.
        let place = Place::of(root, &settings.minion);
        journal.litter().iter().for_each(|jid| jobs::forget(&place, jid));
        jobs::forget_old(&place);
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
    if watched {
        journal.note_end(report.code)
    } else {
        journal.leave_no_trace()
    }
    report.code
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
    let came_to = |name: &str| report.steps.iter().any(|step| step.name == name) && report.step.as_deref() != Some(name);
    let concerns = came_to("enroll") || report.steps.iter().any(|step| step.name == "states");
    let (Some(bootstrap_id), true) = (&report.bootstrap_id, concerns) else { return };
    let span = MOST_NOTING.min(deadline.remaining() / 3);
    let patience = Patience::until(Deadline::after(span), Interrupt::default());
    let noted = enroll::service(settings, store).and_then(|service| {
        let (Some(mut service), Some(keys)) = (service, keypair::load(&Place::of(root, &settings.minion))?) else { return Ok(()) };
        let asking = Asking { keys: Some(&keys), id: &settings.minion.id, bootstrap_id };
        service.report(&asking, report, &patience)
    });
    match noted {
        Ok(()) => debug!("the enrolment service knows how it ended"),
        Err(failure) => warn!("the enrolment service was not told how it ended: {}", failure.message),
    }
}

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

fn show_plan(as_json: bool, os_release: Option<&Path>, root: &Root, common: &Common) -> Result<(), Failure> {
    let settings = load::find(root, common.config.as_deref(), &common.settings.overrides()).settings()?;
    let os_release = os_release.map(|path| {
        files::read_text(path, MOST_OS_RELEASE)
            .map_err(|error| Failure::new(Kind::Usage, format!("--os-release {}: {error}", path.display())))
    });
    let (plan, failure) = plan::plan(root, &settings, &Store::below(root), os_release.transpose()?.as_deref());
    print(&without_credentials(&if as_json { format!("{plan:#}\n") } else { plan::shown(&plan) }));
    failure.map_or(Ok(()), Err)
}

fn status(as_json: bool, previous: Option<usize>, root: &Root) -> Result<(), Failure> {
    let store = Store::below(root);
    if let Some(before) = previous {
        let report = store.earlier_report(before).ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                format!("--previous {before}: of runs before the last one there are {} reports", store.earlier_reports()),
            )
        })?;
        print(&if as_json { format!("{:#}\n", json!(report)) } else { output::report(&report) });
        return Ok(());
    }
    let under_way = Progress::of(&store).filter(|progress| progress.ended.is_none());
    if as_json || under_way.is_none() {
        let report = last_report(&store)?;
        print(&if as_json { format!("{:#}\n", json!(report)) } else { output::report(&report) });
    } else if let Some(progress) = under_way {
        print(&output::under_way(&progress, store.runner().as_deref()));
        print(&store.report().map_or_else(String::new, |report| format!("\nThe run before it:\n{}", output::report(&report))));
    }
    if let (false, many @ 1..) = (as_json, store.earlier_reports()) {
        print(&format!("Earlier runs: {many}, see `heat-salt-bootstrap status --previous 1`\n"));
    }
    Ok(())
}

/// The last report; an error where there is none.
pub fn last_report(store: &Store) -> Result<Report, Failure> {
    let path = store.report_path();
    store.report().ok_or_else(|| {
        Failure::new(
            Kind::LocalSystem,
            format!("there is no report at {} that can be read: nothing has run to its end here", path.display()),
        )
        .hint("Run `heat-salt-bootstrap run`; under another root give the same --root; the report can be read by root only.")
    })
}

fn explain(code: Option<&str>) -> Result<(), Failure> {
    let kinds: Vec<Kind> = match code {
        None => Kind::ALL.to_vec(),
        Some(text) => vec![Kind::named(text).ok_or_else(|| {
            Failure::new(Kind::Usage, format!("{text:?} is neither an exit code nor a reason of this program"))
                .hint("`heat-salt-bootstrap explain` lists them all.")
        })?],
    };
    print(&kinds.into_iter().map(output::explanation).collect::<Vec<_>>().join("\n"));
    Ok(())
}

fn template(name: Option<&str>) -> Result<(), Failure> {
    let text = match name {
        None => templates::list(),
        Some(name) => templates::named(name)
            .ok_or_else(|| {
                Failure::new(Kind::Usage, format!("there is no template {name:?}")).hint("`heat-salt-bootstrap template` lists them all.")
            })?
            .to_owned(),
    };
    print(&text);
    Ok(())
}

fn allowed(root: &Root) -> Result<(), Failure> {
    if root.is_machine() && !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Kind::NotRoot, "this changes the machine's configuration and services, which only root may"));
    }
    Ok(())
}

fn ended(result: Result<(), Failure>) -> u8 {
    match result {
        Ok(()) => Kind::Done.code(),
        Err(failure) => complain(&failure),
    }
}

/// Says on standard error what is wrong and what to do; returns the exit code.
pub fn complain(failure: &Failure) -> u8 {
    error!("{failure}");
    error!("what to do: {}", failure.hint.as_deref().unwrap_or(failure.kind.advice()));
    failure.kind.code()
}

/// Results go to standard output. A reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) {
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        warn!("standard output: {error}");
    }
}

//! From the command line to what it asks for, and the verbs that only show something.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;
use tracing::info;

use super::args::{Cli, Common, Verb};
use super::output;
use super::terminal::{complain, print};
use super::{check, follow, logging, plan, run, signal, support, templates};
use crate::bootstrap::context::Steps;
use crate::bootstrap::progress::Progress;
use crate::bootstrap::state::Store;
use crate::config::load;
use crate::system::files::{self, Root};
use crate::system::process;
use crate::types::excerpt::without_credentials;
use crate::types::failure::{Failure, Kind};
use crate::types::version::{PROGRAM, VERSION};

/// An os-release is some hundred bytes.
const MOST_OS_RELEASE: u64 = 64 * 1024;

/// The program: what the command line says is done, and the exit code tells how that went.
pub fn main() -> ExitCode {
    // What scripts ask only to see whether it is there is not worth putting the whole command line together.
    if std::env::args_os().skip(1).eq(["--version"]) {
        print(&format!("{PROGRAM} {VERSION}\n"));
        return ExitCode::SUCCESS;
    }
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(perform(&cli)),
        Err(error) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { Kind::Usage.code() } else { 0 })
        }
    }
}

/// Does what the command line says; returns the exit code.
fn perform(cli: &Cli) -> u8 {
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
    let all = Steps { install: true, accept: true, apply: true };
    let none = Steps { install: false, accept: false, apply: false };
    let common = &cli.common;
    match &cli.verb {
        Verb::Run { work, at_boot } => run::run("run", all, work, *at_boot, &root, common),
        Verb::Install(work) => run::run("install", Steps { install: true, ..none }, work, false, &root, common),
        Verb::Accept(work) => run::run("accept", Steps { accept: true, ..none }, work, false, &root, common),
        Verb::Apply(work) => run::run("apply", Steps { apply: true, ..none }, work, false, &root, common),
        Verb::Deregister { at_shutdown, json } => run::deregister(*at_shutdown, *json, &root, common),
        Verb::Renew => run::renew(&root, common),
        Verb::Signal(args) => ended(signal::signal(args, &root, common)),
        Verb::Check { json } => check::check(*json, &root, common),
        Verb::Template { name } => ended(template(name.as_deref())),
        Verb::Plan { json, os_release } => ended(show_plan(*json, os_release.as_deref(), &root, common)),
        Verb::Status { json, follow, previous } => ended(status(*json, *follow, *previous, &root)),
        Verb::Support { file } => ended(support::support(file.as_deref(), &root, common)),
        Verb::Explain { code } => ended(explain(code.as_deref())),
    }
}

fn ended(result: Result<(), Failure>) -> u8 {
    match result {
        Ok(()) => Kind::Done.code(),
        Err(failure) => complain(&failure),
    }
}

fn show_plan(as_json: bool, os_release: Option<&Path>, root: &Root, common: &Common) -> Result<(), Failure> {
    let settings = load::find(root, common.config.as_deref(), &common.settings.overrides()).settings()?;
    let os_release = os_release.map(|path| {
        files::read_text(path, MOST_OS_RELEASE)
            .map_err(|error| Failure::new(Kind::Usage, format!("--os-release {}: {error}", path.display())))
    });
    let (plan, failure) = plan::plan(root, &settings, &Store::below(root), os_release.transpose()?.as_deref());
    print(&without_credentials(&if as_json { format!("{:#}\n", json!(plan)) } else { plan.to_string() }));
    failure.map_or(Ok(()), Err)
}

fn status(as_json: bool, follow: bool, previous: Option<usize>, root: &Root) -> Result<(), Failure> {
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
    if follow && !follow::follow(as_json, root, &store) {
        info!("no run is under way");
    }
    let under_way = Progress::of(&store).filter(|progress| progress.ended.is_none());
    if as_json || under_way.is_none() {
        let report = store.last_report()?;
        print(&match (as_json, follow) {
            (true, false) => format!("{:#}\n", json!(report)),
            // Of what is followed each line is an object.
            (true, true) => format!("{}\n", json!(report)),
            (false, _) => output::report(&report),
        });
    } else if let Some(progress) = under_way {
        print(&output::under_way(&progress, store.runner().as_deref()));
        print(&store.report().map_or_else(String::new, |report| format!("\nThe run before it:\n{}", output::report(&report))));
    }
    if let (false, many @ 1..) = (as_json, store.earlier_reports()) {
        print(&format!("Earlier runs: {many}, see `heat-salt-bootstrap status --previous 1`\n"));
    }
    Ok(())
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

//! Makes what a package holds besides the program: `pages DIR` writes manual pages, completions and the licences of what is linked.
//!
//! What it writes is not kept in the source, where it would have to be made anew with each change of a word: each build makes it, and
//! tests/pages.rs holds it to the definitions. It is a crate of its own, so that nothing of it gets into the program that ships.

mod completions;
mod config_page;
mod licences;
mod program_page;
mod roff;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;
use heat_salt_bootstrap::parts::cli::Cli;
use heat_salt_bootstrap::parts::types::time;

/// The day that the pages bear.
struct Day(String);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir] = &arguments[..] else { bail!("usage: pages DIR") };
    let dir = Path::new(dir);
    fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    let day = Day::of_the_source()?;
    let mut files = vec![
        ("heat-salt-bootstrap.1".to_owned(), program_page::page(&command(), &day)),
        ("heat-salt-bootstrap-config.5".to_owned(), config_page::page(&day)?),
    ];
    files.extend(program_page::of_verbs(&command(), &day));
    files.extend(licences::files()?.map(|(name, text)| (name.to_owned(), text)));
    files.extend(completions::all(&mut command()));
    for (name, text) in files {
        fs::write(dir.join(&name), text).with_context(|| name.clone())?;
    }
    Ok(())
}

/// What the program itself reads its command line by.
fn command() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

impl Day {
    /// SOURCE_DATE_EPOCH names it, so that the same source gives the same bytes (https://reproducible-builds.org/specs/source-date-epoch/).
    fn of_the_source() -> anyhow::Result<Day> {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").context("SOURCE_DATE_EPOCH has to name the time of the source")?;
        let written = time::written(epoch.parse().with_context(|| format!("SOURCE_DATE_EPOCH={epoch}"))?);
        Ok(Day(written.split(' ').next().unwrap_or_default().to_owned()))
    }
}

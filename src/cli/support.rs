//! `support`: one archive with what somebody needs who is to help, without secrets.

use std::path::{Path, PathBuf};

use super::args::Common;
use super::mask::masked;
use super::notify::WITHOUT_SETTINGS;
use super::terminal::print;
use super::{check, logging, output, plan, run};
use crate::bootstrap::state::Store;
use crate::config::load;
use crate::minion::paths::MinionPaths;
use crate::system::command;
use crate::system::files::{self, Root};
use crate::system::interrupt::Interrupt;
use crate::system::retry::Wait;
use crate::types::deadline::Deadline;
use crate::types::failure::{Failure, Kind};
use crate::types::secret::Secret;
use crate::types::version::{PROGRAM, VERSION};

/// So much of the end of a file. The agent's own log is never longer.
const MOST: u64 = 1024 * 1024;

/// What is collected: each file is written without secrets, and in no other way.
struct Collection {
    dir: PathBuf,
    secrets: Vec<Secret>,
    listed: String,
}

/// The verb: writes the archive, and says where it lies and what is in it.
pub fn support(file: Option<&Path>, root: &Root, common: &Common) -> Result<(), Failure> {
    run::allowed(root)?;
    let store = Store::below(root);
    store.prepare()?;
    let archive = match file {
        // tar(1) runs elsewhere.
        Some(file) => std::env::current_dir().unwrap_or_default().join(file),
        None => store.support().with_extension("tar.gz"),
    };
    // What lies in its own place is an earlier one. What a person names may be anything.
    if file.is_none() {
        files::remove(&archive)?;
    }
    files::create_private(&archive)?;
    let packed = pack(&archive, root, &store, common);
    files::remove_dir(&store.support())?;
    let listed = packed.inspect_err(|_| files::remove(&archive).unwrap_or_default())?;
    print(&format!(
        "{} ({} bytes, for root only). In it, with secrets masked:\n{listed}Look through it before you give it away: nobody knows all that is secret here.\n",
        archive.display(),
        files::length(&archive),
    ));
    Ok(())
}

fn pack(archive: &Path, root: &Root, store: &Store, common: &Common) -> Result<String, Failure> {
    let found = load::find(root, common.config.as_deref(), &common.settings.overrides());
    let dir = store.support();
    files::remove_dir(&store.support())?;
    files::ensure_private_dir(&dir)?;
    let mut all = Collection { dir, secrets: found.secrets(), listed: String::new() };
    all.put("version", &format!("{PROGRAM} {VERSION}\n"))?;
    if let Some(report) = store.report() {
        all.put("status", &output::report(&report))?;
    }
    for name in store.names() {
        all.copy(&name.replace('/', "-"), &store.at(&name))?;
    }
    let settings = found.settings();
    let planned = settings.as_ref().map(|settings| plan::plan(root, settings, store, None));
    all.put(
        "plan",
        &match &planned {
            Ok((plan, failure)) => format!("{plan}{}", failure.as_ref().map_or_else(String::new, |failure| format!("{failure}\n"))),
            Err(failure) => format!("{failure}\n"),
        },
    )?;
    all.put("check", &output::findings(&check::findings(root, common)))?;
    let minion_log =
        settings.as_ref().map_or_else(|_| root.at("/var/log/salt/minion"), |settings| MinionPaths::of(root, &settings.minion).log_file);
    all.copy("minion.log", &minion_log)?;
    let log = root.at(logging::FILE);
    all.copy("log", &log)?;
    all.copy("log.1", &log.with_extension("log.1"))?;
    for (name, path) in
        [("os-release", "/etc/os-release"), ("kernel", "/proc/version"), ("uptime", "/proc/uptime"), ("meminfo", "/proc/meminfo")]
    {
        all.copy(name, &root.at(path))?;
    }
    let wait = Wait::until(Deadline::after(WITHOUT_SETTINGS), Interrupt::default());
    if root.is_machine() {
        for command in [
            "systemctl --no-pager --full status salt-minion heat-salt-bootstrap",
            "journalctl --no-pager --unit salt-minion",
            "journalctl --no-pager --unit heat-salt-bootstrap",
            "salt-minion --version",
        ] {
            all.run(command, &wait)?;
        }
    }
    let (archive, parent) = (archive.to_string_lossy(), store.at("."));
    let packed =
        command::prompt(&["tar", "--create", "--gzip", "--file", &archive, "--directory", &parent.to_string_lossy(), "support"], &wait)?;
    if packed.success() { Ok(all.listed) } else { Err(packed.failure(Kind::LocalSystem)) }
}

impl Collection {
    fn put(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let text = masked(text, &self.secrets);
        self.listed.push_str(&format!("  {name:24} {:9} bytes\n", text.len()));
        files::write(&self.dir.join(name), text.as_bytes(), 0o600)
    }

    /// The end of a file, if it is there.
    fn copy(&mut self, name: &str, path: &Path) -> Result<(), Failure> {
        files::tail(path, 0, MOST).map_or(Ok(()), |text| self.put(name, &text))
    }

    /// What a command says, or why it says nothing.
    fn run(&mut self, line: &str, wait: &Wait) -> Result<(), Failure> {
        let words: Vec<&str> = line.split(' ').collect();
        let said = match command::prompt(&words, wait) {
            Ok(ended) => format!("{}{}", ended.stdout, ended.stderr),
            Err(failure) => format!("{failure}\n"),
        };
        let last = words.last().filter(|last| !last.starts_with('-')).map_or_else(String::new, |last| format!("-{last}"));
        self.put(&format!("{}{last}", words[0]), &said)
    }
}

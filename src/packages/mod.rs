//! The package that holds the minion's program: is it there, is it the wanted version, and if not, how it gets there.

pub mod commands;
pub mod os;
pub mod output;
pub mod plan;
pub mod probe;
pub mod repository;
pub mod settings;
mod source;
mod transaction;
pub mod version;

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use self::commands::Existing;
use self::os::{Format, Manager, OsRelease, System};
use self::repository::Repository;
use self::transaction::Transaction;
use crate::packages::settings::{Install, Source};
use crate::system::command;
use crate::system::files::{self, Root};
use crate::system::retry::Wait;
use crate::types::failure::{Fact, Failure, Kind};

/// os-release(5): the first that is there counts.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
const MOST_BYTES: u64 = 64 * 1024;
/// Where packages put programs.
const PACKAGED: &str = "/usr/bin";

/// The minion's program, found.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
}

/// Looks whether the program is there in the wanted version, and changes nothing. One whose package should have brought it counts
/// only if the package is whole: a package manager that was killed leaves files behind.
pub fn present(install: &Install, program: &str, wait: &Wait) -> Result<Option<Program>, Failure> {
    let Some(path) = command::find(program) else { return Ok(None) };
    if install.source != Source::Preinstalled && path.starts_with(PACKAGED) && package_version(wait)?.is_none() {
        return Ok(None);
    }
    let Some(wanted_version) = &install.version else { return Ok(Some(Program { path })) };
    let found = version(&path, wait)?;
    Ok(wanted_version.is_met_by(&found).then_some(Program { path }))
}

/// Makes sure that the program is there in the wanted version; says whether it had to be installed. `prepare` is called before a
/// package is, since many start the minion at once: by then it has to be configured.
pub fn ensure(
    install: &Install,
    program: &str,
    root: &Root,
    prepare: impl FnOnce(Existing) -> Result<(), Failure>,
    wait: &Wait,
) -> Result<(Program, bool), Failure> {
    if let Some(program) = present(install, program, wait)? {
        return Ok((program, false));
    }
    let there = command::find(program);
    if install.source == Source::Preinstalled {
        return Err(not_as_wanted(install, program, there.as_deref(), wait));
    }
    if !root.is_machine() {
        return Err(only_into_machine(root));
    }
    let system = system().map_err(unsupported)?;
    let existing = match (&there, package_version(wait)?) {
        (_, Some(found)) => {
            if goes_back(install, &found) {
                warn!(
                    "salt-minion {found} is there, {} is wanted, which is older: going back to that, as install.version says",
                    wanted(install)
                );
            } else {
                info!("salt-minion {found} is there, {} is wanted: installing that", wanted(install));
            }
            Existing::Other
        }
        (Some(path), None) => {
            info!("{} is there, but no package has brought it: installing {}", path.display(), wanted(install));
            Existing::Other
        }
        (None, None) => {
            info!("installing salt-minion ({}) by {}", wanted(install), system.manager.program());
            Existing::Nothing
        }
    };
    let transaction = Transaction::by(system.manager, wait);
    match &install.source {
        Source::Repository { url, key, login } => {
            let repository = Repository::at(url.as_ref(), login.as_ref(), install.version.as_ref(), &system);
            source::from_repository(&transaction, repository, &system, key, existing, prepare)?;
        }
        Source::Package { url, format, sha256 } => source::from_file(&transaction, &system, url, *format, sha256, root, existing, prepare)?,
        Source::Preinstalled => {}
    }
    let installed = present(install, program, wait)?;
    installed.map(|program| (program, true)).ok_or_else(|| not_as_wanted(install, program, command::find(program).as_deref(), wait))
}

/// The system that this machine is; the error says what was seen instead.
fn system() -> Result<System, String> {
    let text = OS_RELEASE.iter().find_map(|path| files::read_text(Path::new(path), MOST_BYTES).ok()).unwrap_or_default();
    System::of(OsRelease::parse(&text), |program| command::find(program).is_some())
}

fn only_into_machine(root: &Root) -> Failure {
    Failure::new(Kind::UnsupportedSystem, format!("packages can be installed into / only, not below {}", root.dir().display()))
        .hint("With --root set install.source to \"preinstalled\".")
}

fn unsupported(description: String) -> Failure {
    Failure::new(Kind::UnsupportedSystem, format!("salt-minion cannot be installed here: {description}"))
}

/// Is the version that is wanted older than the one that is there?
fn goes_back(install: &Install, found: &str) -> bool {
    install.version.as_ref().is_some_and(|wanted_version| wanted_version.is_older_than(found))
}

fn wanted(install: &Install) -> String {
    install.version.as_ref().map_or_else(|| "any version".to_owned(), ToString::to_string)
}

/// The version of the program, by the package database, or by the program itself where no package brought it. That one starts a
/// second process to keep alive and waits 5 s for it, unless it is told not to.
fn version(path: &Path, wait: &Wait) -> Result<String, Failure> {
    if path.starts_with(PACKAGED)
        && let Some(version) = package_version(wait)?
    {
        return Ok(version);
    }
    let finished = command::prompt(&[&path.to_string_lossy(), "--version", "--disable-keepalive"], wait)?;
    if !finished.success() {
        return Err(finished.failure(Kind::PackageFailed));
    }
    // "salt-minion 3006.27 (Sulfur)"
    Ok(finished.stdout.split_whitespace().nth(1).unwrap_or("unknown").to_owned())
}

/// The version of the package that is installed, by the databases that are there.
fn package_version(wait: &Wait) -> Result<Option<String>, Failure> {
    for (format, tool) in [(Format::Deb, "dpkg-query"), (Format::Rpm, Manager::Rpm.program())] {
        if command::find(tool).is_none() {
            continue;
        }
        let asked = commands::installed(format);
        let finished = command::prompt(&command::borrowed(&asked), wait)?;
        let known = finished.success().then(|| output::installed_version(format, &finished.stdout)).flatten();
        if known.is_some() {
            return Ok(known.map(str::to_owned));
        }
    }
    Ok(None)
}

fn not_as_wanted(install: &Install, program: &str, there: Option<&Path>, wait: &Wait) -> Failure {
    let preinstalled = install.source == Source::Preinstalled;
    let Some(path) = there else { return not_there(program, preinstalled) };
    match version(path, wait) {
        Ok(found) => Failure::new(Kind::PackageFailed, format!("{} is version {found}, wanted is {}", path.display(), wanted(install)))
            .hint("Correct install.version, or put the version that is wanted into the image or the repository.")
            .fact(Fact::Found, found),
        Err(failure) => failure,
    }
}

fn not_there(program: &str, preinstalled: bool) -> Failure {
    let how = if preinstalled { "although install.source says preinstalled" } else { "although its package was" };
    Failure::new(Kind::PackageFailed, format!("{program:?} is not installed, {how}"))
        .hint(format!("Install salt-minion into the image, or give its path in minion.program; it was looked for in {}.", command::PATH))
}

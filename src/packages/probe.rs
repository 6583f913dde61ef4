//! What an installation depends on, looked at without installing anything.

use std::time::Duration;

use super::os::{Manager, System};
use super::repository::Repository;
use super::source;
use super::{goes_back, not_as_wanted, package_version, present, system, unsupported, wanted};
use crate::packages::settings::{Install, SigningKey, Source};
use crate::system::command;
use crate::system::files::Root;
use crate::system::locks;
use crate::system::retry::Wait;
use crate::types::failure::Failure;
use crate::types::finding::State;

/// For each address that is asked.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Whether something has to be installed, and what for that.
pub enum Need {
    /// Nothing; the text says what is there.
    Nothing(String),
    /// The program, by this system's package manager; the text says which.
    Program(Box<System>, String),
}

/// Looks whether the program is there or can be installed here.
pub fn program(install: &Install, program: &str, root: &Root, wait: &Wait) -> Result<Need, Failure> {
    if let Some(found) = present(install, program, wait)? {
        let version = install.version.as_ref().map_or_else(String::new, |wanted_version| format!(", version {wanted_version}"));
        return Ok(Need::Nothing(format!("{} is there{version}", found.path.display())));
    }
    if install.source == Source::Preinstalled {
        return Err(not_as_wanted(install, program, command::find(program).as_deref(), wait));
    }
    if !root.is_machine() {
        return Err(super::only_into_machine(root));
    }
    let system = system().map_err(unsupported)?;
    let back = package_version(wait)?.filter(|found| goes_back(install, found));
    let back = back.map_or_else(String::new, |found| format!(", and so goes back from {found}"));
    let summary = format!("run installs {program} ({}) by {}{back}", wanted(install), system.manager.program());
    Ok(Need::Program(Box::new(system), summary))
}

/// Looks whether what the package manager is going to be told to use is there. What it makes of it, signatures above all, only the
/// package manager can say; that there are none where there have to be some, `run` sees before it, and so does this.
pub fn source(install: &Install, system: &System) -> State {
    State::of(match &install.source {
        Source::Preinstalled => Ok("none is needed".to_owned()),
        Source::Package { url, format, .. } if *format == system.manager.format() => {
            source::answers(url, None, TIMEOUT, None).map(|()| format!("{url} is there; its checksum is looked at when it is fetched"))
        }
        Source::Package { url, .. } => Err(source::wrong_format(url, system)),
        Source::Repository { .. } if matches!(system.manager, Manager::Rpm | Manager::Dpkg) => Err(source::no_repositories(system)),
        Source::Repository { url, key, login } => {
            let repository = Repository::at(url.as_ref(), login.as_ref(), install.version.as_ref(), system);
            if repository.url.expose().contains('$') {
                return State::Unknown(format!("{} holds variables, which only {} knows", repository.url, system.manager.program()));
            }
            let probe = repository.probe_url(system.manager);
            let answers = source::answers(&probe, repository.authorization(&probe), TIMEOUT, None);
            let key = match key {
                SigningKey::Given(_) => Ok(()),
                SigningKey::At(url) => {
                    source::answers(url, repository.authorization(url), TIMEOUT, Some("-----BEGIN PGP PUBLIC KEY BLOCK-----"))
                }
            };
            let signed = || source::has_signed_metadata(&repository, system.manager);
            answers.and(key).and_then(|()| signed()).map(|_| format!("{} answers, and its key is there", repository.url))
        }
    })
}

/// Looks whether another package manager works at this moment.
pub fn locks(system: &System) -> State {
    match locks::holder(system.manager.locks(), &Manager::BY_PID) {
        None => State::Fine("nobody holds one".to_owned()),
        // Most holders are done within a minute; only time tells about this one.
        Some(holder) => State::Unknown(format!("{holder}: run waits for it, up to its deadline")),
    }
}

//! What an installation would do, for this machine or for another one.

use serde::Serialize;

use super::commands::{self, Existing};
use super::os::{Format, OsRelease, System};
use super::repository::{Login, Repository, Written};
use super::system;
use crate::packages::settings::{Install, SigningKey, Source};
use crate::system::command;
use crate::system::files::Root;
use crate::types::failure::Failure;
use crate::types::secret::Secret;

/// What an installation would do.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum InstallPlan {
    /// Nothing, unless the version is another.
    Present {
        /// What is found.
        program: &'static str,
        /// What is wanted.
        version: Option<String>,
        /// What that means.
        note: &'static str,
    },
    /// Nothing: it would fail.
    Problem {
        /// For which system, if that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        system: Option<String>,
        /// Why.
        problem: String,
    },
    /// This.
    Steps {
        /// For which system.
        system: String,
        /// By which package manager.
        manager: &'static str,
        /// What is written or fetched before.
        files: Vec<InstallFile>,
        /// What is run then.
        commands: Vec<String>,
    },
}

/// A file that an installation needs.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum InstallFile {
    /// The package itself, from this URL.
    Fetched {
        /// From where.
        fetched: String,
    },
    /// One that makes a package manager know where packages are.
    Written {
        /// Where.
        path: String,
        /// In octal.
        mode: String,
        /// What, with secrets masked.
        content: String,
    },
}

/// The system, the files, the commands; and what the installation would fail of, if that is known already.
/// `os_release` is the text of another machine's.
pub fn plan(install: &Install, program: &str, root: &Root, os_release: Option<&str>) -> (InstallPlan, Option<Failure>) {
    let here = os_release.is_none();
    if here && command::find(program).is_some() {
        let version = install.version.as_ref().map(ToString::to_string);
        return (InstallPlan::Present { program: "is there", version, note: "installs only if the version is another" }, None);
    }
    // Another root is looked at for a machine that is not there yet.
    let failure = (here && root.is_machine() && install.source == Source::Preinstalled).then(|| super::not_there(program, true));
    match os_release.map_or_else(system, |text| System::usual(OsRelease::parse(text))) {
        Ok(system) => (steps(install, &system), failure),
        Err(description) => {
            let problem = format!("salt-minion cannot be installed there: {description}");
            (InstallPlan::Problem { system: None, problem }, Some(failure.unwrap_or_else(|| super::unsupported(description))))
        }
    }
}

fn steps(install: &Install, system: &System) -> InstallPlan {
    let (name, manager) = (system.release.to_string(), system.manager);
    let (files, commands) = match &install.source {
        Source::Preinstalled => {
            let problem = "salt-minion is not there, and install.source says preinstalled".to_owned();
            return InstallPlan::Problem { system: Some(name), problem };
        }
        Source::Package { url, format, .. } => {
            let file = match format {
                Format::Rpm => "FILE.rpm",
                Format::Deb => "FILE.deb",
            };
            let mut files = vec![InstallFile::Fetched { fetched: url.to_string() }];
            if let Some((path, text)) = commands::file_repository(manager, "DIRECTORY-OF-FILE") {
                files.push(InstallFile::Written { path, mode: "0644".to_owned(), content: text });
            }
            (files, vec![commands::install_file(manager, file)])
        }
        Source::Repository { url, key, login } => {
            let login = login.as_ref().map(|login| Login { password: Secret::new("***"), ..login.clone() });
            let repository = Repository::at(url.as_ref(), login.as_ref(), install.version.as_ref(), system);
            let armoured = match key {
                SigningKey::Given(armoured) => armoured.clone(),
                SigningKey::At(url) => format!("(the key that {url} gives)"),
            };
            let files = repository.files(manager, &armoured);
            let files = files
                .into_iter()
                .map(|Written { path, text, mode }| InstallFile::Written {
                    path,
                    mode: format!("{mode:04o}"),
                    content: text.expose().to_owned(),
                })
                .collect();
            let whole = commands::wants_whole_version(manager);
            let version = whole.then(|| {
                repository
                    .wanted_version
                    .as_ref()
                    .map_or_else(|| "NEWEST".to_owned(), |wanted_version| format!("NEWEST-OF-{wanted_version}"))
            });
            let commands = [
                commands::refresh(manager),
                whole.then(|| commands::list(manager)).flatten(),
                commands::install(manager, repository.wanted_version.as_ref(), version.as_deref(), Existing::Nothing),
            ];
            (files, commands.into_iter().flatten().collect())
        }
    };
    let commands = commands.iter().map(|words| words.join(" ")).collect();
    InstallPlan::Steps { system: name, manager: manager.program(), files, commands }
}

//! What an installation would do, for this machine or for another one.

use serde_json::{Value, json};

use super::commands::{self, Existing};
use super::os::{Format, OsRelease, System};
use super::repository::{Login, Repository};
use super::system;
use crate::packages::settings::{Install, SigningKey, Source};
use crate::system::command;
use crate::system::files::Root;
use crate::types::failure::Failure;
use crate::types::secret::Secret;

/// The plan as JSON: the system, the files, the commands; and what the installation would fail of, if that is known already.
/// `os_release` is the text of another machine's.
pub fn plan(install: &Install, program: &str, root: &Root, os_release: Option<&str>) -> (Value, Option<Failure>) {
    let here = os_release.is_none();
    if here && command::find(program).is_some() {
        let version = install.version.as_ref().map(ToString::to_string);
        return (json!({"program": "is there", "version": version, "note": "installs only if the version is another"}), None);
    }
    // Another root is looked at for a machine that is not there yet.
    let failure = (here && root.is_machine() && install.source == Source::Preinstalled).then(|| super::not_there(program, true));
    match os_release.map_or_else(system, |text| System::usual(OsRelease::parse(text))) {
        Ok(system) => (steps(install, &system), failure),
        Err(seen) => {
            let problem = json!({"problem": format!("salt-minion cannot be installed there: {seen}")});
            (problem, Some(failure.unwrap_or_else(|| super::unsupported(seen))))
        }
    }
}

fn steps(install: &Install, system: &System) -> Value {
    let manager = system.manager;
    let (files, commands) = match &install.source {
        Source::Preinstalled => {
            return json!({"system": system.release.to_string(), "problem": "salt-minion is not there, and install.source says preinstalled"});
        }
        Source::Package { url, format, .. } => {
            let name = match format {
                Format::Rpm => "FILE.rpm",
                Format::Deb => "FILE.deb",
            };
            let mut files = vec![json!({"fetched": url.to_string()})];
            if let Some((path, text)) = commands::file_repository(manager, "DIRECTORY-OF-FILE") {
                files.push(json!({"path": path, "mode": "0644", "content": text}));
            }
            (files, vec![commands::install_file(manager, name)])
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
                .map(|file| json!({"path": file.path, "mode": format!("{:04o}", file.mode), "content": file.text.expose()}))
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
    let commands: Vec<String> = commands.iter().map(|words| words.join(" ")).collect();
    json!({"system": system.release.to_string(), "manager": manager.program(), "files": files, "commands": commands})
}

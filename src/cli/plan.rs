//! What `run` would do: decided from the settings and from a look at this machine, nothing more.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::bootstrap::resume;
use crate::bootstrap::state::Store;
use crate::bootstrap::unit;
use crate::config::settings::{Leaving, Settings};
use crate::minion::config::DropIn;
use crate::minion::daemon;
use crate::minion::paths::{MAIN_FILE, MinionPaths};
use crate::minion::pidfile;
use crate::minion::settings::Trust;
use crate::packages::plan::{InstallFile, InstallPlan};
use crate::packages::{self, Program};
use crate::salt::claim::Token;
use crate::salt::public_key::Fingerprint;
use crate::salt::settings::{Accept, Apply, Enroll};
use crate::system::command;
use crate::system::files::{self, Root};
use crate::types::failure::Failure;
use crate::types::pin::Pinned;

/// The plan: files, commands, requests, in the order in which they would come. `--json` shows it as it is.
#[derive(Serialize)]
pub struct Plan {
    minion_id: String,
    masters: Vec<String>,
    master_finger: String,
    program: PlannedProgram,
    install: InstallPlan,
    files: Vec<PlannedFile>,
    start: String,
    running: Option<i32>,
    commands: Vec<String>,
    units: Vec<String>,
    requests: Vec<String>,
    report: String,
    signal: Option<PlannedSignal>,
    deadline_seconds: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PlannedProgram {
    Found(String),
    Missing { missing: String },
}

#[derive(Serialize)]
struct PlannedFile {
    path: String,
    mode: &'static str,
    changes: bool,
    content: String,
}

#[derive(Serialize)]
struct PlannedSignal {
    transport: &'static str,
    url: String,
    id: String,
}

/// What `run` would do; and what it would end with, if that is known already.
pub fn plan(root: &Root, settings: &Settings, store: &Store, os_release: Option<&str>) -> (Plan, Option<Failure>) {
    let minion = &settings.minion;
    let paths = MinionPaths::of(root, minion);
    let pinned = match &minion.trust {
        Trust::Given(finger) => Some(finger.clone()),
        Trust::AskApi | Trust::AskService => paths.pinned_master(),
        Trust::FirstUse => None,
    };
    let unknown = match minion.trust {
        Trust::FirstUse => "of whoever answers first",
        Trust::AskService => "to be told by the enrolment service, proved by the token",
        Trust::Given(_) | Trust::AskApi => "to be asked of salt-api over verified TLS",
    };
    let found = command::find(&minion.program);
    let method = daemon::start_method(minion.start, root);
    let program = Program { path: found.clone().unwrap_or_else(|| minion.program.clone().into()) };
    let running = pidfile::running(&paths);
    let (install, failure) = packages::plan::plan(&settings.install, &minion.program, root, os_release);
    let signal = settings.signal.as_ref().map(|signal| PlannedSignal {
        transport: signal.handle.transport(),
        url: signal.handle.address().to_string(),
        id: signal.id.as_deref().unwrap_or(minion.id.as_str()).to_owned(),
    });
    let plan = Plan {
        minion_id: minion.id.to_string(),
        masters: minion.masters.clone(),
        master_finger: pinned.as_ref().map_or(unknown, Fingerprint::as_str).to_owned(),
        program: found
            .map_or_else(|| PlannedProgram::Missing { missing: minion.program.clone() }, |path| PlannedProgram::Found(shown(&path))),
        install,
        files: planned_files(root, settings, &paths, pinned.as_ref()),
        start: format!("{method:?}").to_lowercase(),
        running,
        commands: daemon::commands(method, &program, &paths, running.is_some()).iter().map(|words| words.join(" ")).collect(),
        units: resume::planned(root).into_iter().chain(unit::planned(settings.deregister, root)).collect(),
        requests: requests(settings),
        report: shown(&store.report_path()),
        signal,
        deadline_seconds: settings.deadline.as_secs(),
    };
    (plan, failure)
}

fn planned_files(root: &Root, settings: &Settings, paths: &MinionPaths, master: Option<&Fingerprint>) -> Vec<PlannedFile> {
    let minion = &settings.minion;
    let masked = |options: &Map<String, Value>| masked(&Value::Object(options.clone())).as_object().cloned().unwrap_or_default();
    let (config, grains) = (masked(&minion.config), masked(&minion.grains));
    let content =
        DropIn { id: &minion.id, masters: &minion.masters, master_finger: master, root: root.dir(), config: &config, grains: &grains }
            .render();
    let known = master.is_some() || settings.minion.trust == Trust::FirstUse;
    let changes = !known || !files::holds(&paths.drop_in, paths.drop_in_text(root, &settings.minion, master).as_bytes());
    let mut files = vec![PlannedFile { path: shown(&paths.drop_in), mode: "0600", changes, content }];
    if let Some(path) = paths.missing_main_file(&settings.minion) {
        files.push(PlannedFile { path: shown(&path), mode: "0644", changes: true, content: MAIN_FILE.to_owned() });
    }
    if let Some(path) = &paths.tmpfiles {
        let content = paths.tmpfiles_text();
        files.push(PlannedFile { path: shown(path), mode: "0644", changes: !files::holds(path, content.as_bytes()), content });
    }
    files
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn requests(settings: &Settings) -> Vec<String> {
    if let Some(enroll) = &settings.enroll {
        return requests_to_service(settings, enroll);
    }
    let Some(api) = &settings.api else { return Vec::new() };
    let base = &api.urls[0];
    let id = &settings.minion.id;
    let mut requests = vec![format!("POST {base}/login as {} ({}), password ***", api.username, api.eauth)];
    if settings.minion.trust == Trust::AskApi {
        requests.push(format!("POST {base}/ wheel key.finger_master"));
    }
    if settings.accept == Accept::Wheel {
        requests.push(format!("POST {base}/ wheel key.print match={id} (key.finger without the permission)"));
        requests.push(format!("POST {base}/ wheel key.accept match={id}, if the pending key is this minion's own"));
        requests.push(format!("POST {base}/ wheel key.print match={id}, to make sure"));
    }
    if let Some(apply) = &settings.apply {
        let pillar = shown_pillar(apply);
        requests.push(format!(
            "POST {base}/hook/{} tgt={id} matcher={} args={}{pillar}",
            apply.hook.as_str(),
            apply.matcher,
            apply.argument()
        ));
    }
    requests.push(format!("POST {base}/logout"));
    requests
}

fn requests_to_service(settings: &Settings, enroll: &Enroll) -> Vec<String> {
    let (base, id) = (&enroll.urls[0], &settings.minion.id);
    let known = match enroll.token.as_ref().and_then(Token::pin).map(|pin| pin.of) {
        Some(Pinned::Server) => "the public key that the token pins",
        Some(Pinned::Authority) => "the CA that the token pins",
        None if enroll.ca.is_some() => "enroll.ca",
        None => "the system's CAs",
    };
    let mut requests = vec![format!(
        "POST {base}/v1/enroll for {id}, signed by its key and proved by the token ***, before the minion starts; known by {known}"
    )];
    if settings.deregister == Leaving::WhenGone {
        requests.push(format!("POST {base}/v1/renew for {id}, signed by its key: it lives"));
    }
    if let Some(apply) = &settings.apply {
        requests.push(format!("POST {base}/v1/apply for {id}, signed by its key: {}{}", apply.argument(), shown_pillar(apply)));
    }
    requests.push(format!("POST {base}/v1/report: how it ended"));
    requests
}

fn shown_pillar(apply: &Apply) -> String {
    if apply.pillar.is_empty() {
        return String::new();
    }
    format!(", pillar {} ***", apply.pillar.keys().cloned().collect::<Vec<_>>().join(", "))
}

/// The value with everything hidden that its key says to be a secret.
fn masked(value: &Value) -> Value {
    const WORDS: [&str; 5] = ["pass", "secret", "token", "key", "credential"];
    match value {
        Value::Object(keys) => Value::Object(
            keys.iter()
                .map(|(key, value)| {
                    let hidden = WORDS.iter().any(|word| key.to_lowercase().contains(word));
                    (key.clone(), if hidden { json!("***") } else { masked(value) })
                })
                .collect(),
        ),
        Value::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

/// The plan as a person reads it.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Minion {} of master {}", self.minion_id, self.masters.join(", "))?;
        writeln!(f, "Master's fingerprint: {}", self.master_finger)?;
        match &self.program {
            PlannedProgram::Found(path) => writeln!(f, "Program: {path}")?,
            PlannedProgram::Missing { missing } => writeln!(f, "Program: {missing} is NOT installed")?,
        }
        installation(f, &self.install)?;
        for PlannedFile { path, mode, changes, content } in &self.files {
            let change = if *changes { "would be written" } else { "is as it should be" };
            writeln!(f, "\nFile {path} (mode {mode}) {change}:")?;
            indented(f, content.lines())?;
        }
        let needed =
            if self.running.is_none() { "salt-minion does not run" } else { "salt-minion runs; only if its configuration changes" };
        writeln!(f, "\nCommands ({}; {needed}):", self.start)?;
        indented(f, &self.commands)?;
        if !self.units.is_empty() {
            writeln!(f, "\nUnits:")?;
            indented(f, &self.units)?;
        }
        writeln!(f, "\nRequests to the master:")?;
        indented(f, &self.requests)?;
        match &self.signal {
            None => writeln!(f, "\nHeat: not configured")?,
            Some(PlannedSignal { transport, url, id }) => writeln!(f, "\nHeat: {transport} to {url} as {id}")?,
        }
        writeln!(f, "Report: {}; deadline {} s", self.report, self.deadline_seconds)
    }
}

fn installation(f: &mut fmt::Formatter<'_>, install: &InstallPlan) -> fmt::Result {
    let (system, manager, files, commands) = match install {
        InstallPlan::Present { .. } => return Ok(()),
        InstallPlan::Problem { problem, .. } => return writeln!(f, "Installation: {problem}"),
        InstallPlan::Steps { system, manager, files, commands } => (system, manager, files, commands),
    };
    writeln!(f, "\nInstallation on {system} by {manager}:")?;
    for file in files {
        match file {
            InstallFile::Fetched { fetched } => writeln!(f, "  FILE is fetched from {fetched}, and its SHA-256 compared")?,
            InstallFile::Written { path, mode, content } => {
                writeln!(f, "  File {path} (mode {mode}):")?;
                indented(f, content.lines().map(|line| format!("  {line}")))?;
            }
        }
    }
    indented(f, commands)
}

fn indented(f: &mut fmt::Formatter<'_>, lines: impl IntoIterator<Item = impl fmt::Display>) -> fmt::Result {
    lines.into_iter().try_for_each(|line| writeln!(f, "    {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_a_secret_is_hidden_at_any_depth() {
        let hidden = masked(&json!({"log_level": "info", "mysql.pass": "a", "s3": [{"secret_key": "b", "region": "x"}]}));
        assert_eq!(hidden, json!({"log_level": "info", "mysql.pass": "***", "s3": [{"secret_key": "***", "region": "x"}]}));
    }
}

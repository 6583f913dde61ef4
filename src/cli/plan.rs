//! What `run` would do: decided from the settings and from a look at this machine, nothing more.

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
use crate::packages::{self, Program};
use crate::salt::claim::Token;
use crate::salt::public_key::Fingerprint;
use crate::salt::settings::{Accept, Apply, Enroll};
use crate::system::command;
use crate::system::files::{self, Root};
use crate::types::failure::Failure;
use crate::types::pin::Pinned;

/// The plan as JSON: files, commands, requests, in the order in which they would come; and what `run` would end with, if that is known
/// already.
pub fn plan(root: &Root, settings: &Settings, store: &Store, os_release: Option<&str>) -> (Value, Option<Failure>) {
    let paths = MinionPaths::of(root, &settings.minion);
    let pinned = match &settings.minion.trust {
        Trust::Given(finger) => Some(finger.clone()),
        Trust::AskApi | Trust::AskService => paths.pinned_master(),
        Trust::FirstUse => None,
    };
    let unknown = match settings.minion.trust {
        Trust::FirstUse => "of whoever answers first",
        Trust::AskService => "to be told by the enrolment service, proved by the token",
        Trust::Given(_) | Trust::AskApi => "to be asked of salt-api over verified TLS",
    };
    let found = command::find(&settings.minion.program);
    let method = daemon::manner(settings.minion.start, root);
    let program = Program { path: found.clone().unwrap_or_else(|| settings.minion.program.clone().into()) };
    let running = pidfile::running(&paths);
    let (install, failure) = packages::plan::plan(&settings.install, &settings.minion.program, root, os_release);
    let plan = json!({
        "minion_id": settings.minion.id.as_str(),
        "masters": settings.minion.masters,
        "master_finger": pinned.as_ref().map_or(unknown, Fingerprint::as_str),
        "program": found.as_ref().map_or_else(|| json!({"missing": settings.minion.program}), |path| json!(path)),
        "install": install,
        "files": planned_files(root, settings, &paths, pinned.as_ref()),
        "start": format!("{method:?}").to_lowercase(),
        "running": running,
        "commands": daemon::commands(method, &program, &paths, running.is_some()).iter().map(|words| words.join(" ")).collect::<Vec<_>>(),
        "units": resume::planned(root).into_iter().chain(unit::planned(settings.deregister, root)).collect::<Vec<_>>(),
        "requests": requests(settings),
        "report": store.report_path(),
        "signal": settings.signal.as_ref().map(|signal| json!({"transport": signal.handle.transport(), "url": signal.handle.address().to_string(), "id": signal.id.as_deref().unwrap_or(settings.minion.id.as_str())})),
        "deadline_seconds": settings.deadline.as_secs(),
    });
    (plan, failure)
}

fn planned_files(root: &Root, settings: &Settings, paths: &MinionPaths, master: Option<&Fingerprint>) -> Value {
    let minion = &settings.minion;
    let masked = |options: &Map<String, Value>| masked(&Value::Object(options.clone())).as_object().cloned().unwrap_or_default();
    let (config, grains) = (masked(&minion.config), masked(&minion.grains));
    let shown =
        DropIn { id: &minion.id, masters: &minion.masters, master_finger: master, root: root.dir(), config: &config, grains: &grains }
            .render();
    let known = master.is_some() || settings.minion.trust == Trust::FirstUse;
    let changes = !known || !files::holds(&paths.drop_in, paths.drop_in_text(root, &settings.minion, master).as_bytes());
    let mut files = vec![json!({"path": paths.drop_in, "mode": "0600", "changes": changes, "content": shown})];
    if let Some(path) = paths.missing_main_file(&settings.minion) {
        files.push(json!({"path": path, "mode": "0644", "changes": true, "content": MAIN_FILE}));
    }
    if let Some(path) = &paths.tmpfiles {
        let text = paths.tmpfiles_text();
        files.push(json!({"path": path, "mode": "0644", "changes": !files::holds(path, text.as_bytes()), "content": text}));
    }
    Value::Array(files)
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
pub fn render(plan: &Value) -> String {
    let text = |key: &str| plan[key].as_str().map_or_else(|| plan[key].to_string(), str::to_owned);
    let mut out = vec![
        format!(
            "Minion {} of master {}",
            text("minion_id"),
            plan["masters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        ),
        format!("Master's fingerprint: {}", text("master_finger")),
        match &plan["program"] {
            Value::String(path) => format!("Program: {path}"),
            missing => format!("Program: {} is NOT installed", missing["missing"].as_str().unwrap_or_default()),
        },
    ];
    out.extend(installation(&plan["install"]));
    for file in plan["files"].as_array().into_iter().flatten() {
        let change = if file["changes"].as_bool() == Some(true) { "would be written" } else { "is as it should be" };
        out.push(format!(
            "\nFile {} (mode {}) {change}:",
            file["path"].as_str().unwrap_or_default(),
            file["mode"].as_str().unwrap_or_default()
        ));
        out.extend(file["content"].as_str().unwrap_or_default().lines().map(|line| format!("    {line}")));
    }
    let needed = if plan["running"].is_null() { "salt-minion does not run" } else { "salt-minion runs; only if its configuration changes" };
    out.push(format!("\nCommands ({}; {needed}):", text("start")));
    out.extend(lines(&plan["commands"]));
    if plan["units"].as_array().is_some_and(|units| !units.is_empty()) {
        out.push("\nUnits:".into());
        out.extend(lines(&plan["units"]));
    }
    out.push("\nRequests to the master:".into());
    out.extend(lines(&plan["requests"]));
    out.push(match &plan["signal"] {
        Value::Null => "\nHeat: not configured".to_owned(),
        signal => format!(
            "\nHeat: {} to {} as {}",
            signal["transport"].as_str().unwrap_or_default(),
            signal["url"].as_str().unwrap_or_default(),
            signal["id"].as_str().unwrap_or_default()
        ),
    });
    out.push(format!("Report: {}; deadline {} s", text("report"), text("deadline_seconds")));
    out.join("\n") + "\n"
}

fn installation(install: &Value) -> Vec<String> {
    if let Some(problem) = install["problem"].as_str() {
        return vec![format!("Installation: {problem}")];
    }
    let Some(manager) = install["manager"].as_str() else { return Vec::new() };
    let mut out = vec![format!("\nInstallation on {} by {manager}:", install["system"].as_str().unwrap_or_default())];
    for file in install["files"].as_array().into_iter().flatten() {
        if let Some(url) = file["fetched"].as_str() {
            out.push(format!("  FILE is fetched from {url}, and its SHA-256 compared"));
            continue;
        }
        out.push(format!("  File {} (mode {}):", file["path"].as_str().unwrap_or_default(), file["mode"].as_str().unwrap_or_default()));
        out.extend(file["content"].as_str().unwrap_or_default().lines().map(|line| format!("      {line}")));
    }
    out.extend(lines(&install["commands"]));
    out
}

fn lines(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(|line| format!("    {line}"))
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

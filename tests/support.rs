//! `support`: what somebody gets who is to help, and that no secret is in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use lab::sandbox::Sandbox;
use serde_json::{Value, json};

const AGENT: &str = env!("CARGO_BIN_EXE_heat-salt-bootstrap");

const PASSWORD: &str = "Planted\"in-api-1f";
const IN_A_FILE: &str = "Planted-in-a-File-2e";
const PILLAR: &str = "Planted-in-Pillar-3d";
const OPTION: &str = "Planted-in-minion.config-4c";
const HEAT: &str = "Planted-for-Heat-5b";
const CREDENTIAL: &str = "Planted-as-Credential-6a";
/// These no configuration knows.
const ELSEWHERE: &str = "Planted-elsewhere-79";
const KEY: &str = "UGxhbnRlZCBwcml2YXRlIGtleQ";
const ALL: [&str; 8] = [PASSWORD, IN_A_FILE, PILLAR, OPTION, HEAT, CREDENTIAL, ELSEWHERE, KEY];

fn config() -> Value {
    json!({
        // No such program is anywhere, and nobody listens there.
        "minion": {"id": "web-1", "master": "127.0.0.1", "program": "salt-minion-of-this-test", "start": "direct",
            "config": {"mysql.pass": OPTION, "master_port": 1, "publish_port": 1}, "master_finger": vec!["00"; 32].join(":")},
        "install": {"repository": {"url": "https://127.0.0.1:1/", "username": "u", "password_file": "/etc/pw"}},
        "api": {"url": "https://127.0.0.1:1", "username": "boot", "password": PASSWORD},
        "apply": {"states": ["web"], "pillar": {"db": [{"key": PILLAR}]}},
        "signal": {"endpoint": format!("http://u:{ELSEWHERE}@127.0.0.1:1/v1/signal?sig={ELSEWHERE}"), "token": HEAT},
    })
}

/// A machine whose logs and reports tell everything.
fn indiscreet(config: &str) -> Sandbox {
    let machine = Sandbox::new(AGENT);
    machine.write("etc/heat-salt-bootstrap/config.json", config);
    machine.write("etc/pw", &format!("{IN_A_FILE}\n"));
    machine.write("etc/os-release", "ID=rocky\nVERSION_ID=9.5\n");
    machine.write("proc/version", "Linux of this test\n");
    machine.write("credentials/enroll.token", CREDENTIAL);
    let quoted = json!({"x": PASSWORD, "password": ELSEWHERE}).to_string();
    let said = format!(
        "2026-11-30T08:00:00.000Z info  [7] {quoted} {IN_A_FILE} {HEAT} {PASSWORD} {OPTION}\n    {PILLAR} {CREDENTIAL} a word that stays\n\
        curl -H 'X-Auth-Token: {ELSEWHERE}' -H 'Authorization: Basic {ELSEWHERE}' https://u:{ELSEWHERE}@h/?sig={ELSEWHERE}\n\
        password: {ELSEWHERE}\n-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n-----END RSA PRIVATE KEY-----\n"
    );
    for log in ["var/log/heat-salt-bootstrap.log", "var/log/heat-salt-bootstrap.log.1", "var/log/salt/minion"] {
        machine.write(log, &said);
    }
    machine
}

#[track_caller]
fn collected(machine: &Sandbox, arguments: &[&str]) -> String {
    let mut command = machine.command(&[&["support"], arguments].concat());
    command.env("CREDENTIALS_DIRECTORY", machine.path("credentials"));
    let ended = command.output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

/// The files of an archive, by name.
fn unpacked(archive: &Path) -> BTreeMap<String, String> {
    let into = tempfile::tempdir().unwrap();
    assert!(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into.path()).status().unwrap().success());
    let dir = into.path().join("support");
    let all = fs::read_dir(dir).unwrap().map(Result::unwrap);
    all.map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())).collect()
}

fn is_clean(files: &BTreeMap<String, String>) {
    for (name, text) in files {
        for secret in ALL {
            let quoted = json!(secret).to_string();
            assert!(!text.contains(secret) && !text.contains(&quoted[1..quoted.len() - 1]), "{secret} is in {name}: {text}");
        }
    }
}

#[test]
fn an_archive_has_all_that_helps_and_no_secret() {
    let machine = indiscreet(&config().to_string());
    assert_eq!(machine.run(&["run", "--deadline", "5s"]).code, 23, "it cannot install into another root");
    let shown = collected(&machine, &[]);
    let archive = machine.state("support.tar.gz");
    assert!(shown.starts_with(&format!("{} (", archive.canonicalize().unwrap().display())), "{shown}");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!machine.state("support").exists(), "nothing is left beside it");
    let files = unpacked(&archive);
    is_clean(&files);
    for (name, part) in [
        ("version", "heat-salt-bootstrap "),
        ("status", "FAILED  web-1"),
        ("report.json", "\"minion_id\": \"web-1\""),
        ("plan", "Minion web-1 of master 127.0.0.1"),
        ("check", "ok      configuration"),
        ("log", "a word that stays"),
        ("log.1", "a word that stays"),
        ("minion.log", "a word that stays"),
        ("os-release", "ID=rocky"),
        ("kernel", "Linux of this test"),
    ] {
        assert!(files.get(name).is_some_and(|text| text.contains(part)), "{name}: {:?}", files.get(name));
        assert!(shown.contains(&format!("\n  {name} ")), "{name} is not in {shown}");
    }
    // The one before makes room, and is not packed into it.
    collected(&machine, &[]);
    assert!(unpacked(&archive).keys().eq(files.keys()));
}

/// One that cannot be used has secrets all the same.
#[test]
fn a_configuration_that_is_wrong_gives_nothing_away_either() {
    let mut wrong = config();
    (wrong["unknown"], wrong["deadline"]) = (json!(1), json!("soon"));
    let machine = indiscreet(&wrong.to_string());
    let archive = machine.path("mine.tar.gz");
    collected(&machine, &[archive.to_str().unwrap()]);
    let files = unpacked(&archive);
    is_clean(&files);
    assert!(files["plan"].contains("the configuration has 2 problems") && files["check"].contains("WRONG   configuration"), "{files:?}");
    assert!(!machine.state("support.tar.gz").exists());
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let machine = indiscreet(&config().to_string());
    let mine = machine.write("mine", "mine");
    let link = machine.path("link");
    symlink(machine.path("nowhere"), &link).unwrap();
    for taken in [&mine, &link] {
        let refused = machine.run(&["support", taken.to_str().unwrap()]);
        assert!(refused.code == 24 && refused.stderr.contains("File exists"), "{}", refused.stderr);
    }
    assert!(fs::read_to_string(mine).unwrap() == "mine" && !machine.path("nowhere").exists());
}

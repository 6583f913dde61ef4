//! `plan` through the binary, without any Salt: where secrets may come from, and that nothing is changed or shown that should not be.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use lab::sandbox::Sandbox;
use serde_json::{Value, json};

const AGENT: &str = env!("CARGO_BIN_EXE_heat-salt-bootstrap");
const SECRET: &str = "s3cr3t-word";

fn root(config: &Value) -> Sandbox {
    Sandbox::configured(AGENT, config)
}

fn config() -> Value {
    json!({"minion": {"id": "web-1", "master": "salt", "config": {"mysql.pass": SECRET, "log_level": "info"}},
        "api": {"url": "https://salt:8000", "username": "boot"}, "apply": {"states": ["web"], "pillar": {"key": SECRET}}})
}

/// Plans for this machine, with something on standard input.
fn plan(machine: &Sandbox, more: &[&str], credentials: Option<&Path>, stdin: &str) -> Output {
    let mut command = machine.command(&[&["plan"], more].concat());
    if let Some(dir) = credentials {
        command.env("CREDENTIALS_DIRECTORY", dir);
    }
    planned(&mut command, stdin)
}

fn planned(command: &mut Command, stdin: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_password_comes_from_a_file_a_credential_or_standard_input() {
    let root = root(&config());
    let nowhere = plan(&root, &[], None, "");
    assert_eq!(nowhere.status.code(), Some(10));
    assert!(text(&nowhere).contains("api.password: is missing"), "{}", text(&nowhere));

    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("api.password"), SECRET).unwrap();
    assert_eq!(plan(&root, &[], Some(credentials.path()), "").status.code(), Some(0));
    assert_eq!(plan(&root, &["--password-file", "-"], None, SECRET).status.code(), Some(0));
    let empty = plan(&root, &["--password-file", "-"], None, "\n");
    assert!(text(&empty).contains("is empty"), "{}", text(&empty));

    root.write("etc/password", SECRET);
    assert_eq!(plan(&root, &["--password-file", "/etc/password"], None, "").status.code(), Some(0));
}

#[test]
fn an_os_release_that_is_not_there_is_named() {
    let root = root(&config());
    let missing = plan(&root, &["--password-file", "-", "--os-release", "/no/such/file"], None, SECRET);
    assert!(missing.status.code() == Some(11) && text(&missing).contains("/no/such/file"), "{}", text(&missing));
}

/// A library may take what stands there for the usual port, and ask somebody else.
#[test]
fn a_url_that_leads_nowhere_is_refused_before_anybody_is_asked() {
    for (url, why) in [
        ("https://salt:80000", "has no port behind its last colon"),
        ("https://salt:", "has no port behind its last colon"),
        ("https://:8000", "names no host"),
        ("https://[salt]:8000", "no IPv6 address"),
        ("https://boot:s3cr3t-word@salt:8000", "holds a user name"),
    ] {
        let mut config = config();
        config["api"]["password"] = json!(SECRET);
        config["api"]["url"] = json!(url);
        let root = root(&config);
        let refused = plan(&root, &[], None, "");
        assert_eq!(refused.status.code(), Some(10), "{url}: {}", text(&refused));
        assert!(text(&refused).contains("api.url: ") && text(&refused).contains(why), "{url}: {}", text(&refused));
        assert!(!text(&refused).contains(SECRET), "{}", text(&refused));
    }
}

#[test]
fn it_shows_no_secret_and_changes_nothing() {
    let root = root(&config());
    let before = root.files();
    for more in [&["--password-file", "-"][..], &["--password-file", "-", "--json"]] {
        let output = plan(&root, more, None, SECRET);
        let shown = text(&output);
        assert_eq!(output.status.code(), Some(0), "{shown}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
    assert_eq!(root.files(), before);
}

/// The path goes into the minion's configuration, and that is UTF-8.
#[test]
fn a_root_whose_name_no_configuration_can_hold_is_refused() {
    let around = root(&config());
    let within = around.root().join(OsStr::from_bytes(b"\xff"));
    fs::create_dir(&within).unwrap();
    fs::rename(around.path("etc"), within.join("etc")).unwrap();
    let refused = planned(Command::new(AGENT).args(["plan", "--password-file", "-", "--root"]).arg(&within), SECRET);
    assert_eq!(refused.status.code(), Some(11), "{}", text(&refused));
    assert!(text(&refused).contains("UTF-8"), "{}", text(&refused));
}

#[test]
fn flags_beat_files_and_are_named_when_they_are_wrong() {
    let root = root(&config());
    let output = plan(&root, &["--password-file", "-", "--minion-id", "web-*", "--api-url", "http://salt"], None, SECRET);
    assert_eq!(output.status.code(), Some(10));
    let said = text(&output);
    assert!(said.contains("--minion-id: minion.id:") && said.contains("--api-url: api.url:") && said.contains("2 problems"), "{said}");
}

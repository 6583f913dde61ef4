//! `check` of this machine's own root, which it only reads: where a package would come from. The rest is in `tests/salt/check.rs`.

use std::fs;
use std::process::Command;

use lab::http::Answer;
use lab::peer::{Certificate, Scripted};
use lab::tls::Authority;
use serde_json::{Value, json};

/// The lines of the table, for a minion that has to come from this repository, and the exit code.
fn checked(repository: &Value) -> (Vec<Value>, i32) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    let finger = vec!["ab"; 32].join(":");
    let settings = json!({
        // No such program is anywhere, so that it has to be installed.
        "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": finger, "program": "salt-minion-of-this-test",
            "config": {"pki_dir": dir.path(), "log_file": dir.path().join("log"), "pidfile": dir.path().join("pid")}},
        "install": {"source": "repository", "repository": repository},
        "accept": "none",
    });
    fs::write(&config, settings.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_heat-salt-bootstrap"));
    let output = command.args(["check", "--json", "--config"]).arg(&config).output().unwrap();
    let lines = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (lines, output.status.code().unwrap())
}

fn line<'a>(lines: &'a [Value], what: &str) -> &'a Value {
    lines.iter().find(|line| line["what"] == what).unwrap_or_else(|| panic!("no {what}: {lines:?}"))
}

#[test]
fn a_package_source_answers_or_does_not() {
    let peer = Scripted::start(&Authority::new().unwrap(), Certificate::Plain, |request| match request.path.as_str() {
        // Over http:// the metadata of RPMs have to be signed.
        "/good/repodata/repomd.xml" | "/good/repodata/repomd.xml.asc" | "/good/dists/stable/Release" => {
            Answer::text(200, "text/plain", "metadata")
        }
        _ => Answer::text(404, "text/plain", "nothing here"),
    })
    .unwrap();
    let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n";
    let at = |path: &str| json!({"url": format!("http://{}/{path}", peer.address()), "gpg_key": key});

    let (lines, _) = checked(&at("good"));
    let program = line(&lines, "program");
    if program["code"] == 23 {
        eprintln!("not tested: {program}");
        return;
    }
    assert_eq!(program["state"], "ok", "{program}");
    assert!(program["said"].as_str().unwrap().starts_with("run installs"), "{program}");
    assert_eq!(line(&lines, "package source")["state"], "ok", "{lines:?}");
    assert_ne!(line(&lines, "package locks")["state"], "wrong", "{lines:?}");
    assert!(peer.requests().iter().all(|request| request.method == "GET"));

    let (lines, code) = checked(&at("nothing"));
    let source = line(&lines, "package source");
    assert_eq!((&source["state"], &source["code"], code), (&json!("wrong"), &json!(21), 21), "{source}");
    assert!(source["said"].as_str().unwrap().contains("HTTP 404") && source["hint"].is_string(), "{source}");

    peer.set_down(true);
    let (lines, code) = checked(&at("good"));
    assert_eq!((&line(&lines, "package source")["code"], code), (&json!(21), 21), "{lines:?}");
}

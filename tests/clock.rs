//! Clocks that nobody has set yet. The server is scripted: a real one would need a machine with another time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::http::Answer;
use lab::peer::{Certificate, Scripted};
use lab::process::{Finished, run};
use lab::tls::Authority;
use serde_json::json;

/// A login at a server whose clock says so.
fn login(certificate: Certificate, date: &'static str, deadline: u64) -> (Finished, Scripted) {
    let authority = Authority::new().unwrap();
    let peer = Scripted::start(&authority, certificate, move |request| match request.method.as_str() {
        "GET" => Answer::Reply { status: 200, headers: vec![("Date".into(), date.into())], body: Vec::new() },
        _ => Answer::cherrypy_error(401, "Could not authenticate using provided credentials"),
    })
    .unwrap();
    let root = tempfile::tempdir().unwrap();
    let config = json!({
        "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["ab"; 32].join(":")},
        "api": {"url": format!("https://{}", peer.address()), "ca": authority.ca_pem(), "username": "u", "password": "geheim"},
        "deadline": deadline,
    });
    let file = root.path().join("etc/heat-salt-bootstrap/config.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, config.to_string()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_heat-salt-bootstrap"));
    let finished = run(command.args(["accept", "--root"]).arg(root.path()), Duration::from_secs(60)).unwrap();
    (finished, peer)
}

fn in_seconds(more: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + more
}

#[test]
fn a_clock_that_is_behind_is_said_and_waited_for() {
    let (ended, peer) = login(Certificate::ValidFrom(in_seconds(4)), "Thu, 31 Dec 2099 00:00:00 GMT", 40);
    // That it is refused shows that it was heard in the end.
    assert_eq!(ended.code, 32, "{}", ended.stderr);
    let said = ended.stderr.lines().find(|line| line.contains("not valid yet")).unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(said.contains("this machine's clock says 20") && said.contains(" days behind the server's"), "{said}");
    // Whom nobody vouches for is told nothing.
    let asked: Vec<_> = peer.requests().into_iter().filter(|request| request.method == "GET").collect();
    assert!(!asked.is_empty());
    for request in asked {
        assert!(request.path == "/" && request.body.is_empty() && request.header("X-Auth-Token").is_none(), "{request:?}");
    }
}

#[test]
fn a_clock_that_is_ahead_is_waited_for_and_a_dead_certificate_is_not() {
    let (ended, _) = login(Certificate::Expired, "Wed, 01 Jul 2020 00:00:00 GMT", 12);
    assert_eq!(ended.code, 31, "{}", ended.stderr);
    assert!(ended.stderr.contains(" days ahead of the server's") && ended.stderr.contains("Set this machine's clock"), "{}", ended.stderr);
    assert!(ended.seconds > 7.0, "it waited {} s", ended.seconds);
    // This one's clock is as ours, give or take the length of this test.
    let here = Box::leak(http_date(in_seconds(0)).into_boxed_str());
    let (ended, _) = login(Certificate::Expired, here, 40);
    assert_eq!(ended.code, 31, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("Renew salt-api's certificate") && !ended.stderr.contains("this machine's clock says"),
        "{}",
        ended.stderr
    );
    assert!(ended.seconds < 20.0, "it is believed after a few tries, not after {} s", ended.seconds);
}

/// date(1) knows how to write it.
fn http_date(unix: u64) -> String {
    let mut command = Command::new("date");
    let ended = run(
        command.args(["--utc", "+%a, %d %b %Y %H:%M:%S GMT", "--date"]).arg(format!("@{unix}")).env("LC_ALL", "C"),
        Duration::from_secs(5),
    );
    ended.unwrap().stdout.trim().to_owned()
}

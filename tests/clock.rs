//! Clocks that nobody has set yet. The server is scripted: a real one would need a machine with another time.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lab::http::{Answer, Front, Request, Server};
use lab::peer::Certificate;
use lab::process::{Finished, run, until};
use lab::sandbox::Sandbox;
use lab::tls::Authority;
use serde_json::json;

/// So often in a row something doubtful is seen before it is believed (`system::retry`).
const DOUBTS: usize = 5;

/// A login at a server whose clock says so, and what that was asked. If the certificate is to be `mended`, that is done once the agent waits
/// for it.
fn login(certificate: Certificate, mended: bool, date: &str, deadline: u64) -> (Finished, Vec<Request>) {
    let authority = Authority::new().unwrap();
    let [bad, good] = [certificate, Certificate::Good].map(|certificate| certificate.shown(&authority).unwrap().unwrap());
    let (is_good, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (shown, seen, date) = (Arc::clone(&is_good), Arc::clone(&requests), date.to_owned());
    let peer = Server::behind(
        move || Front::Tls(Arc::clone(if shown.load(Ordering::Relaxed) { &good } else { &bad })),
        move |request: &Request| {
            seen.lock().unwrap().push(request.clone());
            match request.method.as_str() {
                "GET" => Answer::Reply { status: 200, headers: vec![("Date".into(), date.clone())], body: Vec::new() },
                _ => Answer::cherrypy_error(401, "Could not authenticate using provided credentials"),
            }
        },
    )
    .unwrap();
    let config = json!({
        "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["ab"; 32].join(":")},
        "api": {"url": format!("https://{}", peer.address()), "ca": authority.ca_pem(), "username": "u", "password": "geheim"},
        "deadline": deadline,
    });
    let machine = Sandbox::configured(env!("CARGO_BIN_EXE_heat-salt-bootstrap"), &config);
    let running = machine.start(&["accept"]);
    if mended {
        until(Duration::from_secs(deadline), || running.stderr_so_far().contains("trying again").then_some(())).unwrap();
        is_good.store(true, Ordering::Relaxed);
    }
    let finished = running.finish(Duration::from_secs(deadline + 120)).unwrap();
    let requests = requests.lock().unwrap().clone();
    (finished, requests)
}

#[test]
fn a_clock_that_is_behind_is_said_and_waited_for() {
    let (ended, requests) = login(Certificate::Future, true, "Thu, 31 Dec 2099 00:00:00 GMT", 90);
    // That it is refused shows that it was heard in the end.
    assert_eq!(ended.code, 32, "{}", ended.stderr);
    let said = ended.stderr.lines().find(|line| line.contains("not valid yet")).unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(said.contains("this machine's clock says 20") && said.contains(" days behind the server's"), "{said}");
    // Whom nobody vouches for is told nothing.
    let asked: Vec<_> = requests.into_iter().filter(|request| request.method == "GET").collect();
    assert!(!asked.is_empty());
    for request in asked {
        assert!(request.path == "/" && request.body.is_empty() && request.header("X-Auth-Token").is_none(), "{request:?}");
    }
}

#[test]
fn a_clock_that_is_ahead_is_waited_for_and_a_dead_certificate_is_not() {
    let (ended, _) = login(Certificate::Expired, false, "Wed, 01 Jul 2020 00:00:00 GMT", 12);
    assert_eq!(ended.code, 31, "{}", ended.stderr);
    assert!(ended.stderr.contains(" days ahead of the server's") && ended.stderr.contains("Set this machine's clock"), "{}", ended.stderr);
    assert!(ended.seconds > 7.0, "it waited {} s", ended.seconds);
    // This one's clock is as ours, give or take the length of this test.
    let (ended, requests) = login(Certificate::Expired, false, &http_date_now(), 90);
    assert_eq!(ended.code, 31, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("Renew salt-api's certificate") && !ended.stderr.contains("this machine's clock says"),
        "{}",
        ended.stderr
    );
    assert_eq!(requests.len(), DOUBTS, "it is believed after a few tries, each of which asks for the time");
}

/// date(1) knows how to write it.
fn http_date_now() -> String {
    let mut command = Command::new("date");
    let ended = run(command.args(["--utc", "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C"), Duration::from_secs(5));
    ended.unwrap().stdout.trim().to_owned()
}

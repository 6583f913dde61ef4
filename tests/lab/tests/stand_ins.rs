//! That the stand-ins keep the rules they claim.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::api::Api;
use lab::heat::StandIn;
use lab::http::Answer;
use lab::peer::{Certificate, Scripted};
use lab::process::{Guard, Running, TIMED_OUT, run, until};
use lab::proxy::Proxy;
use lab::tls::Authority;
use serde_json::json;

const JSON: &str = "application/json";

/// The status of a request to the endpoint, by a client that shares no code with the server.
fn status(heat: &StandIn, method: &str, token: &str, content_type: &str, body: &str) -> String {
    let done = run(
        Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-H", "Expect:", "--data-binary", body])
            .args(["-H", &format!("X-Auth-Token: {token}"), "-H", &format!("Content-Type: {content_type}")])
            .arg(heat.endpoint()),
        Duration::from_secs(10),
    );
    done.unwrap().stdout
}

fn post(heat: &StandIn, body: &str) -> String {
    status(heat, "POST", heat.token(), JSON, body)
}

#[test]
fn heat_says_200_to_what_it_loses() {
    let heat = StandIn::start().unwrap();
    for lost in [r#"{"status":"success"}"#, r#"{"status":"SUCCESS","extra":1}"#, r#"{"Status":"SUCCESS"}"#] {
        assert_eq!(post(&heat, lost), "200", "{lost}");
    }
    assert_eq!(heat.signals(), []);
    assert_eq!(heat.stack_status(1).0, "CREATE_IN_PROGRESS");
    assert_eq!(heat.requests().len(), 3);
}

#[test]
fn heat_takes_what_is_no_object_for_success() {
    let failure = r#"{"status":"FAILURE"}"#;
    for (content_type, body) in [
        (JSON, ""),
        (JSON, "{}"),
        (JSON, "[1]"),
        (JSON, "\"x\""),
        (JSON, " {\"status\":\"FAILURE\"}"),
        ("application/x-www-form-urlencoded", failure),
    ] {
        let heat = StandIn::start().unwrap();
        assert_eq!(status(&heat, "POST", heat.token(), content_type, body), "200");
        assert_eq!(heat.stack_status(1).0, "CREATE_COMPLETE", "{content_type} {body}");
    }
    for content_type in ["", "text/plain", "application/json; charset=utf-8"] {
        let heat = StandIn::start().unwrap();
        assert_eq!(status(&heat, "POST", heat.token(), content_type, failure), "200");
        assert_eq!(heat.stack_status(1).0, "CREATE_FAILED", "{content_type}");
    }
}

#[test]
fn heat_refuses_by_status() {
    let heat = StandIn::start().unwrap();
    assert_eq!(post(&heat, "{\"status\":"), "400");
    assert_eq!(status(&heat, "POST", "wrong", JSON, "{}"), "401");
    assert_eq!(status(&heat, "GET", heat.token(), JSON, ""), "405");
    assert_eq!(status(&heat, "PUT", heat.token(), JSON, "{}"), "405");
    assert_eq!(status(&heat, "GET", "wrong", JSON, ""), "401");
    let big = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(big.path(), format!("{{\"data\":\"{}\"}}", "x".repeat(1_048_576))).unwrap();
    assert_eq!(post(&heat, &format!("@{}", big.path().display())), "400");
    assert_eq!(heat.signals(), []);
}

#[test]
fn heat_counts_ids_and_never_forgives_a_failure() {
    let heat = StandIn::start().unwrap();
    post(&heat, r#"{"status":"SUCCESS","id":"a"}"#);
    post(&heat, r#"{"status":"SUCCESS","id":"a"}"#);
    assert_eq!(heat.stack_status(2).0, "CREATE_IN_PROGRESS");
    post(&heat, r#"{"status":"FAILURE","id":"b","reason":"no disk","data":{"x":1}}"#);
    post(&heat, r#"{"status":"SUCCESS","id":"b"}"#);
    let failed = "Resource CREATE failed: WaitConditionFailure: resources.w: no disk";
    assert_eq!(heat.stack_status(2), ("CREATE_FAILED".to_owned(), failed.to_owned()));
    assert_eq!(heat.stack_status(1).0, "CREATE_COMPLETE");
    assert_eq!(heat.signals()[2].data, json!({"x": 1}));
}

#[test]
fn heat_fails_hangs_and_goes_down_on_demand() {
    let heat = StandIn::start().unwrap();
    heat.fail_next(2, 503);
    heat.hang_next(1);
    let hung = run(Command::new("curl").args(["-sm", "1", "-d", "{}", &heat.endpoint()]), Duration::from_secs(5));
    assert_eq!(hung.unwrap().code, 28);
    assert_eq!((post(&heat, "{}"), post(&heat, "{}"), post(&heat, "{}")), ("503".into(), "503".into(), "200".into()));
    for _ in 0..20 {
        heat.set_down(true);
        assert_eq!(post(&heat, "{}"), "000");
        heat.set_down(false);
        assert_eq!(post(&heat, "{}"), "200");
    }
}

#[test]
fn a_peer_shows_the_certificate_it_was_told_to() {
    let authority = Authority::new().unwrap();
    let answer = json!({"return": [{"token": "t"}]});
    for (certificate, trusted) in [
        (Certificate::Good, true),
        (Certificate::Expired, false),
        (Certificate::Future, false),
        (Certificate::OtherAuthority, false),
        (Certificate::WrongName, false),
    ] {
        let peer = Scripted::in_turn(&authority, certificate, vec![Answer::json(200, &answer)]).unwrap();
        let login = Api::new(&peer.url(), &authority.ca_pem()).unwrap().login("u", "p", "pam");
        assert_eq!(login.is_ok(), trusted, "{certificate:?}");
        assert_eq!(peer.requests().len(), usize::from(trusted), "{certificate:?}");
    }
}

#[test]
fn a_peer_answers_in_turn() {
    let authority = Authority::new().unwrap();
    let answers = vec![
        Answer::cherrypy_error(503, "Salt Master is not available."),
        Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"ret".to_vec()),
        Answer::After(Duration::from_millis(50), Box::new(Answer::json(200, &json!({"return": [{"token": "t"}]})))),
    ];
    let peer = Scripted::in_turn(&authority, Certificate::Good, answers).unwrap();
    let api = Api::new(&peer.url(), &authority.ca_pem()).unwrap();
    let error = api.login("u", "p", "pam").err().unwrap().to_string();
    assert!(error.contains("<p>Salt Master is not available.</p>"), "{error}");
    assert!(api.login("u", "p", "pam").is_err());
    assert_eq!(api.login("u", "p", "pam").unwrap().token(), "t");
    assert_eq!(peer.requests()[0].json()["username"], "u");
}

#[test]
fn a_proxy_passes_stalls_cuts_and_refuses() {
    let authority = Authority::new().unwrap();
    let peer = Scripted::in_turn(&authority, Certificate::Plain, vec![Answer::text(200, "text/plain", "hello")]).unwrap();
    let proxy = Proxy::start(peer.address()).unwrap();
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(proxy.address())?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    assert!(ask().unwrap().ends_with("hello"));

    proxy.stall(true);
    assert!(ask().is_err());
    proxy.stall(false);
    assert!(ask().unwrap().ends_with("hello"));

    let mut open = TcpStream::connect(proxy.address()).unwrap();
    until(Duration::from_secs(5), || {
        proxy.drop_connections();
        open.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        matches!(open.read(&mut [0; 1]), Ok(0)).then_some(())
    })
    .unwrap();

    proxy.refuse(true);
    assert!(TcpStream::connect(proxy.address()).is_err());
    proxy.refuse(false);
    assert!(ask().unwrap().ends_with("hello"));
}

#[test]
fn a_command_is_killed_with_its_children_when_its_time_is_up() {
    let started = Instant::now();
    let done = run(Command::new("sh").args(["-c", "echo out; echo err >&2; sleep 60 & wait"]), Duration::from_millis(300));
    let done = done.unwrap();
    assert_eq!((done.code, done.stdout.trim(), done.stderr.trim()), (TIMED_OUT, "out", "err"));
    assert!(started.elapsed() < Duration::from_secs(60), "its child was waited for");
    let running = Running::start(Command::new("sh").args(["-c", "echo here >&2; exec sleep 60"])).unwrap();
    until(Duration::from_secs(5), || running.stderr_so_far().contains("here").then_some(())).unwrap();
    running.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(running.finish(Duration::from_secs(5)).unwrap().code, 128 + 15);
}

#[test]
fn a_guard_acts_when_it_is_dropped() {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    drop(Guard::new(r#"rm "$SUBJECT""#, file.to_str().unwrap()).unwrap());
    assert!(!file.exists());
}

//! How the program finds its peers by name: it asks a name server, which fails at first, and speaks TLS to the address that it
//! gets. That takes a network of its own, and so root; `make test-aarch64` runs it with the static program, whose C library asks
//! by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lab::http::Answer;
use lab::island::{Island, Says};
use lab::peer::{Certificate, Scripted};
use lab::process::run;
use lab::sandbox::Sandbox;
use lab::tls::Authority;
use serde_json::{Value, json};

/// More questions than a C library asks for one name.
const FAILING: usize = 20;

#[test]
fn a_name_server_is_asked_and_asked_again() {
    let authority = Authority::new().unwrap();
    let peer = Scripted::start(&authority, Certificate::Good, |_| Answer::json(200, &Value::Null)).unwrap();
    let url = format!("https://salt.test:{}/v1/waitcondition/arn%3A1?Signature=x", peer.address().port());
    let config = json!({"signal": {"alarm_url": url, "ca": authority.ca_pem(), "id": "web-1"}});
    let machine = Sandbox::configured(env!("CARGO_BIN_EXE_heat-salt-bootstrap"), &config);
    let resolv_conf = machine.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");

    let island = Island::new().unwrap();
    island.sh(&format!("mount --bind '{}' /etc/resolv.conf", resolv_conf.display())).unwrap();
    island.let_through(peer.address(), peer.address()).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    island
        .name_server([127, 0, 0, 1], move |_| if count.fetch_add(1, Ordering::SeqCst) >= FAILING { Says::Known } else { Says::Failed })
        .unwrap();
    let mut command = machine.command_by(&island.prefix(), &["signal", "--status", "failure", "--reason", "x", "-v"]);
    let ended = run(&mut command, Duration::from_secs(120)).unwrap();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("the name salt.test does not resolve"), "{}", ended.stderr);
    let requests = peer.requests();
    assert_eq!((requests.len(), requests[0].method.as_str()), (1, "PUT"), "{}", ended.stderr);
    assert!(asked.load(Ordering::SeqCst) > FAILING);
}

//! How the program finds its peers by name: it asks a name server, which fails at first, and speaks TLS to the address that it
//! gets. That takes a network of its own, and so root; `make test-aarch64` runs it with the static program, whose C library asks
//! by itself.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lab::heat::StandIn;
use lab::http::Answer;
use lab::island::{Island, Says};
use lab::peer::{Certificate, Scripted};
use lab::process::{Running, run, until};
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

/// The name of a Heat that only IPv6 leads to: there is no other network, and no other address.
#[test]
fn a_network_of_ipv6_alone_is_one() {
    let heat = StandIn::start().unwrap();
    let to: SocketAddr = heat.endpoint().split('/').nth(2).unwrap().parse().unwrap();
    let root = tempfile::tempdir().unwrap();
    let island = alone(root.path(), "::1");
    island.sh("ip address delete 127.0.0.1/8 dev lo").unwrap();
    island.let_through((Ipv6Addr::LOCALHOST, to.port()).into(), to).unwrap();
    island.name_server(Ipv6Addr::LOCALHOST, |_| Says::Known).unwrap();
    for (number, host) in ["heat.test", "[::1]"].into_iter().enumerate() {
        configure(root.path(), &heat, host, "60s");
        let ended = run(&mut agent(&island, "run", root.path()), Duration::from_secs(90)).unwrap();
        assert_eq!((ended.code, heat.signals().len()), (20, number + 1), "{host}: {}", ended.stderr);
    }
}

/// A network, and so the server of names, that comes when the run has waited for it a while: nothing but the deadline ends that.
#[test]
fn a_network_that_comes_late_is_waited_for() {
    let authority = Authority::new().unwrap();
    let peer = Scripted::start(&authority, Certificate::Good, |_| {
        Answer::cherrypy_error(401, "Could not authenticate using provided credentials")
    })
    .unwrap();
    let root = tempfile::tempdir().unwrap();
    let island = alone(root.path(), "127.0.0.1");
    island.let_through(peer.address(), peer.address()).unwrap();
    island.name_server([127, 0, 0, 1], |_| Says::Known).unwrap();
    island.sh("ip link set lo down").unwrap();
    let config = json!({
        "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["ab"; 32].join(":")},
        "api": {"url": format!("https://salt.test:{}", peer.address().port()), "ca": authority.ca_pem(), "username": "u", "password": "p"},
        "deadline": "10m",
    });
    write(root.path(), &config);
    let mut command = agent(&island, "accept", root.path());
    command.arg("-v");
    let running = Running::start(&mut command).unwrap();
    // More than one try has failed.
    let tries = || running.stderr_so_far().matches("trying again").count();
    until(Duration::from_secs(120), || (tries() >= 4).then_some(())).unwrap_or_else(|error| panic!("{error}: {}", running.stderr_so_far()));
    island.sh("ip link set lo up").unwrap();
    let ended = running.finish(Duration::from_secs(300)).unwrap();
    // That it is refused shows that it was heard in the end.
    assert_eq!(ended.code, 32, "{}", ended.stderr);
}

/// A network of its own whose names this address knows.
fn alone(root: &Path, name_server: &str) -> Island {
    let resolv = root.join("resolv.conf");
    fs::write(&resolv, format!("nameserver {name_server}\noptions timeout:1 attempts:1\n")).unwrap();
    let island = Island::new().unwrap();
    island.sh(&format!("mount --bind '{}' /etc/resolv.conf", resolv.display())).unwrap();
    island
}

/// Nothing is installed, so the run fails at once; what counts is that Heat hears of it.
fn configure(root: &Path, heat: &StandIn, host: &str, deadline: &str) {
    let endpoint = heat.endpoint().replace("127.0.0.1", host);
    write(
        root,
        &json!({
            "minion": {"id": "web-1", "master": "127.0.0.1", "trust_on_first_use": true, "program": "no-such-program"},
            "install": {"source": "preinstalled"},
            "accept": "none",
            "signal": {"endpoint": endpoint, "token": heat.token()},
            "deadline": deadline,
        }),
    );
}

fn write(root: &Path, config: &Value) {
    let file = root.join("etc/heat-salt-bootstrap/config.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, config.to_string()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The program there.
fn agent(island: &Island, verb: &str, root: &Path) -> Command {
    let prefix = island.prefix();
    let mut command = Command::new(&prefix[0]);
    command.args(&prefix[1..]).arg(env!("CARGO_BIN_EXE_heat-salt-bootstrap")).args([verb, "--root"]).arg(root);
    command
}

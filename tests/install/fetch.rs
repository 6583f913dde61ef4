//! fetch.sh as user_data would run it, on a machine that has what images of clouds have, or less.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lab::harness::Case;
use lab::heat::StandIn;
use lab::http::{Answer, Request, Server};
use lab::process::Finished;
use lab::tls::{Authority, Validity};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::case_of;
use lab::vm::{Vm, agent};

/// What it takes to be left with one of the tools.
const TOOLS: [(&str, &str); 3] =
    [("curl", NO_OTHER_THAN_CURL), ("python", "rm -f /usr/bin/curl /usr/bin/wget"), ("wget", NO_OTHER_THAN_WGET)];
const NO_OTHER_THAN_CURL: &str = "rm -f /usr/bin/wget /usr/bin/python3*";
const NO_OTHER_THAN_WGET: &str = "rm -f /usr/bin/curl /usr/bin/python3*";
const BUSYBOX: &str = "rm -f /usr/bin/curl /usr/bin/python3* /usr/bin/wget; ln -s busybox /usr/bin/wget";

/// Of `mirror`, whose password is `secret@1`.
const LOGIN: &str = "Basic bWlycm9yOnNlY3JldEAx";

const BEGAN: &str = "run/heat-salt-bootstrap/began";
const PLACE: &str = "usr/local/bin/heat-salt-bootstrap";

pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (tool, without) in TOOLS {
        cases.push(case_of(format!("fetch::in_place_by_{tool}"), move || in_place(without, "dash")));
        cases.push(case_of(format!("fetch::not_found_by_{tool}"), move || not_found(without)));
        cases.push(case_of(format!("fetch::with_a_password_by_{tool}"), move || with_a_password(without)));
        cases.push(case_of(format!("fetch::another_checksum_by_{tool}"), move || another_checksum(without)));
        cases.push(case_of(format!("fetch::handles_by_{tool}"), move || handles(without)));
        cases.push(case_of(format!("fetch::half_of_it_once_by_{tool}"), move || half_of_it_once(without)));
        cases.push(case_of(format!("fetch::told_to_come_back_by_{tool}"), move || told_to_come_back(without)));
    }
    for shell in ["bash", "busybox sh"] {
        cases.push(case_of(format!("fetch::in_place_by_{}", shell.replace(' ', "_")), move || in_place("true", shell)));
    }
    let others: [(&str, fn()); 16] = [
        ("in_place_by_busybox_alone", in_place_by_busybox_alone),
        ("nothing_to_fetch_with", nothing_to_fetch_with),
        ("down", down),
        ("down_for_a_while", down_for_a_while),
        ("little_time", little_time),
        ("no_usual_place", no_usual_place),
        ("no_place_at_all", no_place_at_all),
        ("unknown_authority", unknown_authority),
        ("read_only_usr", read_only_usr),
        ("no_space_to_fetch", no_space_to_fetch),
        ("no_space_anywhere", no_space_anywhere),
        ("run_twice", run_twice),
        ("the_program_takes_over", the_program_takes_over),
        ("the_program_is_killed", the_program_is_killed),
        ("the_program_is_killed_at_work", the_program_is_killed_at_work),
        ("heat_is_away_for_a_while", heat_is_away_for_a_while),
    ];
    cases.extend(others.map(|(name, case)| case_of(format!("fetch::{name}"), case)));
    cases
}

/// A machine, a Heat that waits for it, and a server of the program.
struct Scene {
    vm: Vm,
    heat: StandIn,
    server: Server,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
    shell: &'static str,
    /// What stands between the @.
    given: Vec<(&'static str, String)>,
}

impl Scene {
    /// One that serves this as the program.
    fn serving(program: Vec<u8>) -> Scene {
        let authority = Authority::new().unwrap();
        let tls = authority.issue(&["127.0.0.1"], Validity::Current).unwrap().server_config().unwrap();
        Scene::new(program, &authority, Some(tls))
    }

    fn new(program: Vec<u8>, authority: &Authority, tls: Option<Arc<rustls::ServerConfig>>) -> Scene {
        let heat = StandIn::start_tls(authority).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let sha256: String = digest(&SHA256, &program).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let server = Server::start(tls, {
            let asked = Arc::clone(&asked);
            move |request| {
                let mut asked = asked.lock().unwrap();
                asked.push((request.path.clone(), Instant::now()));
                match request.path.as_str() {
                    "/private" if request.header("authorization") != Some(LOGIN) => Answer::Reply {
                        status: 401,
                        headers: vec![("WWW-Authenticate".into(), "Basic realm=\"x\"".into())],
                        body: Vec::new(),
                    },
                    "/program" | "/private" => Answer::Reply { status: 200, headers: Vec::new(), body: program.clone() },
                    // The first time it breaks off.
                    "/half" if asked.len() == 1 => {
                        let mut raw = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", program.len()).into_bytes();
                        raw.extend_from_slice(&program[..program.len() / 2]);
                        Answer::Raw(raw)
                    }
                    "/busy" if asked.len() == 1 => {
                        Answer::Reply { status: 503, headers: vec![("Retry-After".into(), "4".into())], body: Vec::new() }
                    }
                    "/busy" => Answer::Reply { status: 200, headers: Vec::new(), body: program.clone() },
                    "/half" => Answer::Reply { status: 200, headers: Vec::new(), body: program.clone() },
                    "/moved" => Answer::Reply { status: 302, headers: vec![("Location".into(), "/program".into())], body: Vec::new() },
                    _ => Answer::text(404, "text/plain", "not here"),
                }
            }
        })
        .unwrap();
        let vm = Vm::new("cloud", &json!({}));
        fs::remove_file(vm.path("usr/bin/heat-salt-bootstrap")).unwrap();
        fs::remove_dir_all(vm.path("etc/heat-salt-bootstrap")).unwrap();
        let given = vec![
            ("AGENT_URL", format!("{}/program", server.url())),
            ("AGENT_SHA256", sha256),
            ("VERB", "none".to_owned()),
            ("MINION_ID", "web-1".to_owned()),
            ("CONFIG", json!({"minion": {"id": "web-1"}, "api": {"password": "it's a \"$secret\" `x` \\"}}).to_string()),
            ("SIGNAL", heat.handle().to_string()),
            ("CA", authority.ca_pem()),
        ];
        Scene { vm, heat, server, asked, shell: "dash", given }
    }

    /// One that serves what ships.
    fn good() -> Scene {
        Scene::serving(fs::read(agent()).unwrap())
    }

    fn give(&mut self, name: &'static str, value: &str) -> &mut Scene {
        self.given.retain(|(given, _)| *given != name);
        self.given.push((name, value.to_owned()));
        self
    }

    fn serve_from(&mut self, path: &str) -> &mut Scene {
        let url = format!("{}{path}", self.server.url());
        self.give("AGENT_URL", &url)
    }

    /// Runs it, after this piece of shell.
    fn run(&self, before: &str) -> Finished {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cloud-init/fetch.sh");
        let mut text = fs::read_to_string(file).unwrap();
        for (name, value) in &self.given {
            text = text.replace(&format!("@{name}@"), value);
        }
        fs::write(self.vm.path("opt/user_data"), text).unwrap();
        let finished = self.vm.sh(&format!("{before}\n{} /opt/user_data", self.shell));
        assert!(!finished.stdout.contains("secret") && !finished.stderr.contains("secret"), "{}", finished.stderr);
        let left = self.vm.sh("ls -d /run/fetch.* /tmp/* 2>/dev/null").stdout;
        assert_eq!(left, "", "nothing is left behind");
        finished
    }

    /// Expects this exit code, and that Heat counts it as a failure with this beginning.
    #[track_caller]
    fn fails(&self, before: &str, code: i32, reason: &str, says: &str) -> Finished {
        let finished = self.run(before);
        assert_eq!(finished.code, code, "{}", finished.stderr);
        let signals = self.heat.signals();
        assert_eq!(signals.len(), 1, "{}", finished.stderr);
        let signal = &signals[0];
        assert_eq!((signal.status.as_str(), signal.id.as_str()), ("FAILURE", "web-1"));
        assert!(signal.reason.starts_with(&format!("{reason}: ")), "{}", signal.reason);
        assert!(signal.reason.contains(says), "{says:?} in {}", signal.reason);
        assert!(signal.reason.ends_with(&format!("(step fetch, code {code})")), "{}", signal.reason);
        assert_eq!(signal.data["code"], code);
        assert!(!self.vm.path(PLACE).exists());
        finished
    }

    fn downloads(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// It is there, whole, and everybody can run it; the configuration can be read by root only.
    #[track_caller]
    fn holds(&self, place: &str) {
        let mode =
            |path: &str| fs::metadata(self.vm.path(path)).unwrap_or_else(|error| panic!("{path}: {error}")).permissions().mode() & 0o777;
        assert_eq!(mode(place), 0o755);
        let version = self.vm.sh(&format!("/{place} --version"));
        assert!(version.stdout.starts_with("heat-salt-bootstrap "), "{}", version.stderr);
        let text = |path: &str| serde_json::from_str::<Value>(&self.vm.text(path)).unwrap();
        let given = |name: &str| serde_json::from_str::<Value>(&self.given.iter().find(|(given, _)| *given == name).unwrap().1).unwrap();
        assert_eq!(text("etc/heat-salt-bootstrap/config.json"), given("CONFIG"));
        assert_eq!(text("etc/heat-salt-bootstrap/config.d/90-signal.json"), json!({"signal": given("SIGNAL")}));
        assert_eq!(mode("etc/heat-salt-bootstrap/config.json"), 0o600);
        assert_eq!(mode("etc/heat-salt-bootstrap/config.d/90-signal.json"), 0o600);
    }
}

fn in_place(without: &str, shell: &'static str) {
    let mut scene = Scene::good();
    scene.shell = shell;
    let finished = scene.serve_from("/moved").run(without);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    scene.holds(PLACE);
    assert!(scene.heat.signals().is_empty(), "nothing to tell Heat yet");
    let began = scene.vm.text(BEGAN);
    assert!(began.ends_with('\n') && began.trim().parse::<u64>().is_ok(), "{began:?}");
}

/// Its wget verifies no certificate; what it brings is verified by the checksum.
fn in_place_by_busybox_alone() {
    let mut scene = Scene::new(fs::read(agent()).unwrap(), &Authority::new().unwrap(), None);
    scene.shell = "busybox sh";
    let finished = scene.run(BUSYBOX);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    scene.holds(PLACE);
}

/// Who logs in to fetch it, and by which signature, nobody is told.
fn not_found(without: &str) {
    let mut scene = Scene::good();
    let url = scene.server.url().replace("://", "://mirror:secret@") + "/gone?Signature=secret";
    scene.give("AGENT_URL", &url).fails(without, 21, "repository-unreachable", "404");
    let reason = &scene.heat.signals()[0].reason;
    assert!(reason.contains("://***@") && reason.contains("/gone?***") && !reason.contains("secret"), "{reason}");
    assert_eq!(scene.downloads(), 1);
}

fn with_a_password(without: &str) {
    let mut scene = Scene::good();
    let url = scene.server.url().replace("://", "://mirror:secret%401@") + "/private";
    let finished = scene.give("AGENT_URL", &url).run(without);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    scene.holds(PLACE);
}

fn another_checksum(without: &str) {
    let mut scene = Scene::good();
    scene.give("AGENT_SHA256", &"ab".repeat(32)).fails(without, 22, "package-untrusted", "has the sha256");
    assert_eq!(scene.downloads(), 3);
}

fn half_of_it_once(without: &str) {
    let mut scene = Scene::good();
    let finished = scene.serve_from("/half").run(without);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    scene.holds(PLACE);
    assert_eq!(scene.downloads(), 2);
}

/// By itself it would come back after two seconds at most.
fn told_to_come_back(without: &str) {
    let mut scene = Scene::good();
    let finished = scene.serve_from("/busy").run(without);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    scene.holds(PLACE);
    let asked = scene.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].1 - asked[0].1 >= Duration::from_secs(4), "{}", finished.stderr);
}

/// A deadline of the configuration is one for everything: when fetching has to end, there is time to tell.
fn little_time() {
    let mut scene = Scene::good();
    scene.server.set_down(true);
    let config = json!({"minion": {"id": "web-1"}, "deadline": "8s"}).to_string();
    scene.give("CONFIG", &config).fails("true", 21, "repository-unreachable", "within 4 s");
    assert!(!scene.vm.path(BEGAN).exists(), "nothing comes after it");
}

/// Neither /run nor the disk can be written to, as far as it is about temporary files.
fn no_usual_place() {
    let mut scene = Scene::good();
    let full = "for place in /run /tmp /var/tmp; do mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs $place; done";
    scene.serve_from("/gone").fails(full, 21, "repository-unreachable", "404");
}

/// Nothing takes a temporary file. By each of the tools Heat hears of it.
fn no_place_at_all() {
    for (_, without) in TOOLS {
        let full =
            "mkdir -p /dev/shm; for place in /run /tmp /var/tmp /dev/shm; do mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs $place; done";
        let ended = Scene::good().fails(&format!("{without}; {full}"), 24, "local-system", "a temporary directory cannot be made");
        assert!(ended.stderr.contains("Heat was told"), "{}", ended.stderr);
    }
}

/// Every kind of handle that it can tell. A scripted peer looks at what it is sent, since here it is about the wire only; that
/// Heat counts it is shown by the suite with a real Heat. Nothing secret may stand among the arguments of a process.
fn handles(without: &str) {
    let seen = Arc::new(Mutex::new(Vec::<Request>::new()));
    let peer = {
        let seen = Arc::clone(&seen);
        Server::start(None, move |request| {
            seen.lock().unwrap().push(request.clone());
            match request.path.as_str() {
                "/v3/auth/tokens" => {
                    let headers = vec![("X-Subject-Token".to_owned(), "gAAA-secret".to_owned())];
                    Answer::Reply { status: 201, headers, body: b"{}".to_vec() }
                }
                _ => Answer::text(200, "application/json", "null"),
            }
        })
        .unwrap()
    };
    let url = peer.url();
    let alarm = format!("{url}/v1/alarm?Signature=secret%2B");
    let login = json!({"auth_url": format!("{url}/v3"), "username": "handle", "user_id": "u1", "password": "secret^#@%&*",
        "project_id": "p1", "domain_id": "d1", "region_name": "RegionOne", "alarm_url": alarm});
    // Each argument list is kept.
    let spied = "for tool in curl wget python3; do
            [ ! -e /usr/bin/$tool ] || { mv /usr/bin/$tool /usr/bin/$tool.real
            printf '#!/bin/sh\\ntr \"\\\\0\" \" \" </proc/$$/cmdline >>/opt/arguments\\nexec /usr/bin/'$tool'.real \"$@\"\\n' >/usr/bin/$tool
            chmod 755 /usr/bin/$tool; }
        done";
    let condition = ["status", "reason", "id", "data"].as_slice();
    let cases = [
        (json!({"endpoint": alarm, "token": "secret"}), "POST", condition),
        (login, "POST", condition),
        (json!({"alarm_url": alarm}), "PUT", condition),
        (json!({"url": alarm}), "PUT", ["Status", "Reason", "UniqueId", "Data"].as_slice()),
    ];
    for (handle, method, keys) in cases {
        seen.lock().unwrap().clear();
        let mut scene = Scene::good();
        let finished = scene.serve_from("/gone").give("SIGNAL", &handle.to_string()).run(&format!("{without}; {spied}"));
        assert_eq!(finished.code, 21, "{}", finished.stderr);
        let seen = seen.lock().unwrap();
        let last = seen.last().unwrap_or_else(|| panic!("{handle}: nobody was told: {}", finished.stderr));
        assert_eq!((last.method.as_str(), last.path.as_str()), (method, "/v1/alarm?Signature=secret%2B"), "{handle}");
        assert_eq!(last.json().as_object().unwrap().keys().collect::<Vec<_>>(), keys);
        assert_eq!(last.json()[keys[0]], "FAILURE");
        if handle.get("auth_url").is_some() {
            let login = seen[0].json();
            assert_eq!(login["auth"]["identity"]["password"]["user"], json!({"id": "u1", "password": "secret^#@%&*"}));
            assert_eq!(login["auth"]["scope"], json!({"project": {"id": "p1"}}));
            assert_eq!(last.header("x-auth-token"), Some("gAAA-secret"));
        } else if handle.get("token").is_some() {
            assert_eq!(last.header("x-auth-token"), Some("secret"));
        }
        // Anything else is ignored by Heat, and the condition is met.
        assert_eq!(last.header("content-type"), Some("application/json"));
        let arguments = scene.vm.text("opt/arguments");
        assert!(!arguments.is_empty() && !arguments.contains("secret"), "{arguments}");
    }
}

fn nothing_to_fetch_with() {
    let scene = Scene::good();
    let finished = scene.run("rm -f /usr/bin/curl /usr/bin/wget /usr/bin/python3*");
    assert_eq!(finished.code, 23, "{}", finished.stderr);
    assert!(finished.stderr.contains("none of curl, wget and python3"), "{}", finished.stderr);
    assert!(finished.stderr.contains("Heat cannot be told"), "{}", finished.stderr);
}

fn down() {
    let mut scene = Scene::good();
    scene.server.set_down(true);
    scene.give("FETCH_SECONDS", "4").fails("true", 21, "repository-unreachable", "within 4 s");
}

fn down_for_a_while() {
    let scene = Scene::good();
    scene.server.set_down(true);
    let finished = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            scene.server.set_down(false);
        });
        scene.run("true")
    });
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    scene.holds(PLACE);
}

fn unknown_authority() {
    let mut scene = Scene::good();
    let finished = scene.give("CA", "@CA@").give("FETCH_SECONDS", "2").give("SIGNAL", "null").run("true");
    assert_eq!(finished.code, 21, "{}", finished.stderr);
    assert!(finished.stderr.contains("certificate"), "{}", finished.stderr);
    assert_eq!(scene.downloads(), 0);
}

fn read_only_usr() {
    let scene = Scene::good();
    let finished = scene.run("mount --bind /usr /usr && mount -o remount,bind,ro /usr");
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    scene.holds("opt/heat-salt-bootstrap/bin/heat-salt-bootstrap");
}

fn no_space_to_fetch() {
    for (_, without) in TOOLS {
        let scene = Scene::good();
        scene.fails(&format!("{without}; mount -t tmpfs -o size=1m tmpfs /run"), 24, "local-system", "cannot be written");
        assert_eq!(scene.downloads(), 1);
    }
}

fn no_space_anywhere() {
    let small = "for place in /usr/local/bin /opt/heat-salt-bootstrap /var/lib/heat-salt-bootstrap; do
        mkdir -p $place && mount -t tmpfs -o size=1m tmpfs $place
    done";
    Scene::good().fails(small, 24, "local-system", "No space left");
}

fn run_twice() {
    let scene = Scene::good();
    for before in ["mkdir -p /usr/local/bin && chmod 750 /usr/local/bin", "true"] {
        let finished = scene.run(before);
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        scene.holds(PLACE);
        let mode = fs::metadata(scene.vm.path("usr/local/bin")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o750, "a directory that is there is somebody else's");
    }
    assert_eq!(scene.downloads(), 1, "what is there and right is not fetched again");
}

/// This configuration is refused, and it is the program that says so.
fn the_program_takes_over() {
    let mut scene = Scene::good();
    scene.heat = StandIn::start().unwrap();
    let handle = scene.heat.handle().to_string();
    let finished = scene.give("SIGNAL", &handle).give("VERB", "@VERB@").run("true");
    assert_eq!(finished.code, 10, "{}", finished.stderr);
    let signals = scene.heat.signals();
    assert_eq!(signals.len(), 1);
    assert_eq!((&signals[0].data["verb"], &signals[0].data["code"]), (&json!("run"), &json!(10)));
}

fn the_program_is_killed() {
    let mut scene = Scene::serving(b"#!/bin/sh\n[ \"$1\" = --version ] || kill -9 $$\n".to_vec());
    let finished = scene.give("VERB", "run").run("true");
    assert_eq!(finished.code, 137, "{}", finished.stderr);
    let signals = scene.heat.signals();
    assert!(signals[0].status == "FAILURE" && signals[0].reason.contains("ended by signal 9"), "{signals:?}");
}

/// With its guardian, while it waits for somebody: it has left word of the step.
fn the_program_is_killed_at_work() {
    let mut scene = Scene::good();
    scene.heat = StandIn::start().unwrap();
    let silent = Server::start(None, |_| Answer::Hang).unwrap();
    let signal = scene.heat.handle().to_string();
    let config = json!({
        "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["ab"; 32].join(":")},
        "api": {"url": silent.url().replace("http://", "https://"), "username": "u", "password": "secret"},
        "deadline": "60s",
    });
    let kills = "{ until grep -q '\"step\":\"login\"' /var/lib/heat-salt-bootstrap/progress 2>/dev/null; do sleep 0.1; done
        pkill -KILL -x heat-salt-boots; } &";
    let finished = scene.give("SIGNAL", &signal).give("CONFIG", &config.to_string()).give("VERB", "accept").run(kills);
    assert_eq!(finished.code, 137, "{}", finished.stderr);
    let signals = scene.heat.signals();
    assert!(signals.len() == 1 && signals[0].status == "FAILURE", "{signals:?} {}", finished.stderr);
    assert!(signals[0].reason.contains("killed during step login"), "{signals:?}");
}

fn heat_is_away_for_a_while() {
    let mut scene = Scene::good();
    scene.heat.fail_next(2, 503);
    scene.serve_from("/gone").fails("true", 21, "repository-unreachable", "404");
    assert_eq!(scene.heat.requests().len(), 3);
}

//! What Heat could not be told is kept and told later; `check` asks without telling; `template` prints what lies in cloud-init/.
//! Heat is the stand-in with the measured rules.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lab::heat::StandIn;
use lab::http::Answer;
use lab::listen::ClosedPort;
use lab::peer::{Certificate, Scripted};
use lab::sandbox::Sandbox;
use lab::tls::Authority;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal::SIGKILL;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

const AGENT: &str = env!("CARGO_BIN_EXE_heat-salt-bootstrap");

/// A machine whose configuration names whom to signal and nothing else: `run` refuses it, and says so.
fn telling(signal: &Value) -> Sandbox {
    Sandbox::configured(AGENT, &naming(signal))
}

fn naming(signal: &Value) -> Value {
    json!({"minion": {"id": "web-1"}, "signal": signal})
}

/// Where what Heat was not told is kept.
fn kept(vm: &Sandbox) -> PathBuf {
    vm.state("signal.json")
}

/// Runs into its refusal while Heat says nothing, and is killed like that.
fn killed_while_telling(vm: &Sandbox, heat: &StandIn) {
    heat.hang_next(1);
    let asked = heat.requests().len();
    let run = vm.start(&["run"]);
    while heat.requests().len() == asked {
        std::thread::sleep(Duration::from_millis(5));
    }
    run.signal(SIGKILL).unwrap();
    assert_eq!(run.finish(Duration::from_secs(10)).unwrap().code, 128 + 9);
    assert_eq!(fs::metadata(kept(vm)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_signal_that_was_cut_off_is_told_at_the_next_boot() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&heat.handle());
    vm.agent(&["signal", "--kept"], 0);
    killed_while_telling(&vm, &heat);
    assert!(heat.signals().is_empty());
    vm.agent(&["signal", "--kept"], 0);
    let signals = heat.signals();
    assert_eq!((signals.len(), signals[0].status.as_str(), signals[0].id.as_str()), (1, "FAILURE", "web-1"));
    assert!(signals[0].reason.starts_with("config: "), "{}", signals[0].reason);
    assert!(!kept(&vm).exists());
    assert_eq!(vm.report()["signal"]["delivered"], true);
    vm.agent(&["signal", "--kept"], 0);
    assert_eq!(heat.signals().len(), 1, "once is enough");
    // Without --kept it is the report that is told, as often as somebody wants.
    vm.agent(&["signal"], 0);
    assert_eq!(heat.signals().len(), 2);
}

/// Nobody listens there; who would have logged in is nobody's business.
#[test]
fn who_logs_in_at_heat_is_not_told_to_whoever_reads_why_it_failed() {
    let port = ClosedPort::pick().unwrap();
    let nobody = port.address();
    let vm = telling(&json!({"endpoint": format!("http://boot:s3cr3t-word@{nobody}/v1/signal"), "token": "t"}));
    let checked = vm.run(&["check", "--accept", "none"]);
    let shown = format!("{}{}", checked.stdout, checked.stderr);
    assert!(shown.contains(&nobody.to_string()) && !shown.contains("s3cr3t-word"), "{shown}");
}

/// What a run has to tell takes the place of what an earlier one could not.
#[test]
fn the_next_run_tells_its_own() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&heat.handle());
    killed_while_telling(&vm, &heat);
    vm.agent(&["run"], 10);
    assert_eq!(heat.signals().len(), 1);
    assert!(!kept(&vm).exists());
}

/// What fetch.sh took counts, and so does what other parts of a multipart took: Heat waits for all of them together.
#[test]
fn the_deadline_counts_from_the_beginning_of_fetch_sh() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&heat.handle());
    let file = vm.path("etc/heat-salt-bootstrap/config.json");
    // On a system that nothing can be installed on.
    let config = json!({"minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["00"; 32].join(":")}, "accept": "none", "deadline": "60s", "signal": heat.handle()});
    fs::write(&file, config.to_string()).unwrap();
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let began = vm.path("run/heat-salt-bootstrap/began");
    fs::create_dir_all(began.parent().unwrap()).unwrap();
    fs::write(&began, format!("{}\n", uptime as u64 - 58)).unwrap();
    vm.agent(&["run"], 60);
    let signals = heat.signals();
    assert!(signals[0].reason.starts_with("out-of-time: ") && signals[0].reason.contains("fetch.sh"), "{signals:?}");
    // Heat knows: whoever tries again by hand has all the time.
    assert!(!began.exists());
    vm.agent(&["run"], 23);
    // And so has who comes when there is time.
    fs::write(&began, format!("{}\n", uptime as u64)).unwrap();
    vm.agent(&["run"], 23);
}

#[test]
fn another_stack_is_not_told_what_was_meant_for_this_one() {
    let (heat, next) = (StandIn::start().unwrap(), StandIn::start().unwrap());
    let vm = telling(&heat.handle());
    killed_while_telling(&vm, &heat);
    vm.configure(&naming(&next.handle()));
    vm.agent(&["signal", "--kept"], 0);
    // So is another instance that was cloned from this one's disk.
    vm.configure(&naming(&heat.handle()));
    fs::write(vm.path("etc/machine-id"), "0123456789abcdef0123456789abcdef").unwrap();
    vm.agent(&["signal", "--kept"], 0);
    assert!(heat.signals().is_empty() && next.signals().is_empty());
}

/// With HEAT_SIGNAL both stacks' handles name the same Keystone first.
#[test]
fn two_stacks_at_one_keystone_are_two() {
    let peer = Scripted::start(&Authority::new().unwrap(), Certificate::Plain, |request| match request.path.as_str() {
        "/v3/auth/tokens" => {
            let headers = vec![("X-Subject-Token".to_owned(), "fresh".to_owned())];
            Answer::Reply { status: 201, headers, body: json!({"token": {"catalog": []}}).to_string().into_bytes() }
        }
        "/v1/p/stacks/one/1/resources/h/signal" => Answer::text(503, "text/plain", "not now"),
        _ => Answer::json(200, &Value::Null),
    })
    .unwrap();
    let url = format!("http://{}", peer.address());
    let handle = |stack: &str| {
        let alarm_url = format!("{url}/v1/p/stacks/{stack}/resources/h/signal");
        json!({"auth_url": url, "user_id": "u", "password": "p", "project_id": "p", "alarm_url": alarm_url})
    };
    let vm = telling(&handle("one/1"));
    let run = vm.start(&["run"]);
    until(|| peer.requests().iter().any(|request| request.path.contains("/one/1/")));
    run.signal(SIGKILL).unwrap();
    run.finish(Duration::from_secs(10)).unwrap();
    assert!(kept(&vm).exists());
    vm.configure(&naming(&handle("two/2")));
    vm.agent(&["signal", "--kept"], 0);
    assert!(!peer.requests().iter().any(|request| request.path.contains("/two/2/")));
    assert!(kept(&vm).exists());
}

/// One 401, 403 or 404 may be a Heat that is being moved, so it is tried again, and kept.
#[test]
fn what_is_refused_is_kept() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&json!({"endpoint": heat.endpoint(), "token": "an-old-one"}));
    vm.agent(&["run"], 10);
    assert_eq!(heat.requests().len(), 5);
    let output = vm.agent(&["signal", "--kept"], 70);
    assert_eq!(heat.requests().len(), 10);
    assert!(output.stderr.contains("Heat answered 401"));
    // The same resource, by a token that is good.
    vm.configure(&naming(&heat.handle()));
    vm.agent(&["signal", "--kept"], 0);
    assert_eq!((heat.signals().len(), kept(&vm).exists()), (1, false));
}

/// What a run that is under way will tell is its own; whoever comes meanwhile has nothing to tell, whatever is wrong with it.
#[test]
fn who_never_had_the_lock_tells_nobody() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&heat.handle());
    let store = vm.path("var/lib/heat-salt-bootstrap");
    fs::create_dir_all(&store).unwrap();
    let lock = Flock::lock(File::create(store.join("lock")).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
    let output = vm.agent(&["run", "--json"], 10);
    assert!(output.stderr.contains("minion.master"), "it says what is wrong");
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&printed["code"], &printed["signal"]), (&json!(10), &Value::Null));
    assert!(heat.requests().is_empty() && !store.join("report.json").exists());
    drop(lock);
    vm.agent(&["run"], 10);
    assert_eq!(heat.signals().len(), 1);
}

/// A report that says nothing about this instance, or nothing that Heat waits for.
#[test]
fn a_report_that_is_none_of_heats_business_is_not_told() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&heat.handle());
    let machine_id = vm.path("etc/machine-id");
    fs::write(&machine_id, "0123456789abcdef0123456789abcdef").unwrap();
    vm.agent(&["run"], 10);
    assert_eq!(heat.signals().len(), 1);
    let file = vm.path("var/lib/heat-salt-bootstrap/report.json");
    let report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(report["instance_id"], "0123456789abcdef0123456789abcdef");
    let said = |verb: &str, verdict: &str| {
        let mut report = report.clone();
        (report["verb"], report["verdict"]) = (verb.into(), verdict.into());
        fs::write(&file, report.to_string()).unwrap();
    };
    for (verb, verdict) in [("install", "done"), ("accept", "done"), ("deregister", "done"), ("deregister", "failed")] {
        said(verb, verdict);
        let output = vm.agent(&["signal"], 24);
        assert!(output.stderr.contains(&format!("`{verb}`, which is only a part")), "{verb}");
    }
    // A clone has it of its original.
    said("run", "done");
    fs::write(&machine_id, "ffffffffffffffffffffffffffffffff").unwrap();
    let output = vm.agent(&["signal"], 24);
    assert!(output.stderr.contains("another instance (0123456789abcdef0123456789abcdef)"));
    assert_eq!(heat.signals().len(), 1);
    // The original has something to tell.
    fs::write(&machine_id, "0123456789abcdef0123456789abcdef").unwrap();
    vm.agent(&["signal"], 0);
    said("install", "failed");
    vm.agent(&["signal"], 0);
    assert_eq!(heat.signals().len(), 3);
}

/// A pipe that nobody closes, and a standard input that nobody does: Heat hears of it while it still listens.
#[test]
fn a_configuration_that_never_ends_is_told() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&heat.handle());
    let parts = vm.path("etc/heat-salt-bootstrap/config.d");
    fs::create_dir(&parts).unwrap();
    mkfifo(&parts.join("50.json"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut piped = vm.command(&["run", "--api-url", "https://h:8000", "--username", "u", "--password-file", "-"]);
    // It stays open for as long as this test has it.
    let child = piped.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until(|| !heat.signals().is_empty());
    let told = &heat.signals()[0];
    assert_eq!((told.status.as_str(), told.id.as_str()), ("FAILURE", "web-1"));
    for what in ["50.json: cannot be read: it was not read completely", "standard input: it was not read completely"] {
        assert!(told.reason.contains(what), "{}", told.reason);
    }
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(10), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// Waits for what happens, if it ever does.
fn until(so: impl Fn() -> bool) {
    lab::process::until(Duration::from_secs(60), || so().then_some(())).unwrap();
}

#[test]
fn check_asks_and_tells_nothing() {
    let heat = StandIn::start().unwrap();
    let vm = telling(&heat.handle());
    let output = vm.agent(&["check"], 10);
    let text = output.stdout;
    assert!(text.starts_with("WRONG   configuration  config: ") && text.contains("\n          what to do: "), "{text}");
    assert!(text.contains("\nok      heat           TOKEN_SIGNAL at http://127.0.0.1:") && text.contains("would take a signal"), "{text}");
    vm.configure(&naming(&json!({"endpoint": heat.endpoint(), "token": "an-old-one"})));
    let text = vm.agent(&["check"], 10).stdout;
    assert!(text.contains("\nWRONG   heat           signal-undelivered: ") && text.contains("expired"), "{text}");
    assert!(heat.signals().is_empty());
    assert!(heat.requests().iter().all(|received| received.request.method == "GET"));
    assert!(!vm.path("var").exists(), "it changes nothing");
}

/// Keystone's tokens say when they were made.
#[test]
fn check_tells_the_age_of_a_token() {
    let peer = Scripted::start(&Authority::new().unwrap(), Certificate::Plain, |_| Answer::text(405, "text/plain", "")).unwrap();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (age, says) in [(10, None), (600, Some("10 min ago\n")), (7_200, Some("2 h ago; a token of that age is older"))] {
        let made = now() - age;
        let token = URL_SAFE_NO_PAD.encode([&[0x80][..], &made.to_be_bytes(), b"encrypted"].concat());
        let vm = telling(&json!({"endpoint": format!("http://{}/signal", peer.address()), "token": token}));
        let text = vm.agent(&["check"], 10).stdout;
        // Seconds pass meanwhile.
        let mut older = (age..=now() - made).map(|seconds| format!("{seconds} s ago\n"));
        let told = says.map_or_else(|| older.any(|says| text.contains(&says)), |says| text.contains(says));
        assert!(text.contains("would take a signal; its token was made ") && told, "{text}");
        assert!(!text.contains(&token), "{text}");
    }
}

/// No method that would be a signal, whatever the transport. A scripted peer answers as OpenStack would.
#[test]
fn check_never_signals() {
    let authority = Authority::new().unwrap();
    let peer = Scripted::start(&authority, Certificate::Good, |request| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/v3/auth/tokens") => {
            let headers = vec![("X-Subject-Token".to_owned(), "fresh".to_owned())];
            let catalog = json!([{"type": "messaging", "endpoints": [{"interface": "public", "region": "R", "url": "https://h/"}]}]);
            Answer::Reply { status: 201, headers, body: json!({"token": {"catalog": catalog}}).to_string().into_bytes() }
        }
        ("GET", path) if path.ends_with("/resources/h/signal") => Answer::text(405, "text/plain", ""),
        ("GET", "/") => Answer::text(300, "application/json", "{}"),
        ("HEAD", path) if path.contains("temp_url_sig=") => Answer::text(404, "text/html", ""),
        _ => Answer::text(500, "text/plain", "this would be a signal"),
    })
    .unwrap();
    let url = format!("https://{}", peer.address());
    let user = json!({"auth_url": format!("{url}/v3"), "user_id": "u", "password": "p", "project_id": "p", "region_name": "R"});
    let with = |key: &str, value: &str| {
        let mut handle = user.clone();
        handle[key] = value.into();
        handle
    };
    let handles = [
        json!({"endpoint": format!("{url}/v1/p/stacks/s/1/resources/h/signal"), "token": "t"}),
        with("alarm_url", &format!("{url}/v1/p/stacks/s/1/resources/h/signal")),
        with("queue_id", "q"),
        json!({"alarm_url": format!("{url}/v1/waitcondition/arn?Signature=s")}),
        json!({"url": format!("{url}/v1/waitcondition/arn?Signature=s")}),
        json!({"alarm_url": format!("{url}/v1/AUTH_p/c/o?temp_url_sig=s&temp_url_expires=9")}),
    ];
    for mut handle in handles {
        handle["ca"] = json!(authority.ca_pem());
        let text = telling(&handle).agent(&["check"], 10).stdout;
        assert!(text.contains("\nok      heat           "), "{handle}: {text}");
    }
    let signals = peer
        .requests()
        .into_iter()
        .filter(|request| request.path != "/v3/auth/tokens" && !["GET", "HEAD"].contains(&request.method.as_str()));
    assert_eq!(signals.count(), 0);
}

/// Everything in cloud-init/ can be printed, as it is there, and nothing else.
#[test]
fn templates_are_the_files() {
    let print = |arguments: &[&str]| Command::new(AGENT).arg("template").args(arguments).output().unwrap();
    let list = String::from_utf8(print(&[]).stdout).unwrap();
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cloud-init")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() { dirs.push(entry.path()) } else { files.push(fs::read(entry.path()).unwrap()) }
        }
    }
    assert_eq!(names.len(), files.len(), "{list}");
    for name in names {
        let text = print(&[name]).stdout;
        assert!(files.contains(&text), "{name} is another text than the file");
        // Heat garbles anything else in a part of a MultipartMime.
        assert!(text.is_ascii(), "{name}");
    }
    assert_eq!(print(&["nothing"]).status.code(), Some(11));
}

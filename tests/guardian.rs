//! Whatever ends a run, Heat is told, and whoever looks later finds what happened: the process that watches the one that works, what
//! is told of both if both are killed, the log file, the earlier reports, the line on a terminal.
//!
//! The run hangs at a login that nobody answers: a scripted salt-api, since a real one would.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lab::cgroup::Starved;
use lab::heat::StandIn;
use lab::http::{Answer, Request};
use lab::peer::{Certificate, Scripted};
use lab::process::{Finished, Running, descendants, family, until};
use lab::sandbox::Sandbox;
use lab::schema;
use lab::tls::Authority;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const AGENT: &str = env!("CARGO_BIN_EXE_heat-salt-bootstrap");
const LONG: Duration = Duration::from_secs(20);

struct Vm {
    machine: Sandbox,
    heat: StandIn,
    api: Scripted,
}

/// A run that hangs in its login.
struct Hanging {
    running: Running,
    worker: i32,
}

impl Vm {
    fn new() -> Vm {
        Vm::whose_api(|_| Answer::Hang)
    }

    fn whose_api(answers: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Vm {
        let authority = Authority::new().unwrap();
        let api = Scripted::start(&authority, Certificate::Good, answers).unwrap();
        let heat = StandIn::start().unwrap();
        let config = json!({
            "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["ab"; 32].join(":")},
            "api": {"url": format!("https://{}", api.address()), "ca": authority.ca_pem(), "username": "u", "password": "p"},
            "signal": heat.handle(),
            "deadline": "60s",
        });
        Vm { machine: Sandbox::configured(AGENT, &config), heat, api }
    }

    fn hanging(&self, arguments: &[&str]) -> Hanging {
        let asked = self.api.requests().len();
        let running = self.machine.start(arguments);
        until(LONG, || (self.api.requests().len() > asked).then_some(())).expect("it logs in");
        let all = family(running.pid(), Path::new(AGENT));
        assert_eq!(all.len(), 2, "one that watches and one that works");
        Hanging { running, worker: all[1] }
    }

    fn told(&self) -> Vec<(String, String)> {
        self.heat.signals().into_iter().map(|told| (told.status, told.reason)).collect()
    }
}

impl Hanging {
    fn strike(&self, signal: Signal) {
        kill(Pid::from_raw(self.worker), signal).unwrap();
    }

    fn end(self) -> Finished {
        self.running.finish(LONG).unwrap()
    }
}

#[test]
fn whoever_watches_reports_that_the_worker_was_killed() {
    let vm = Vm::new();
    let run = vm.hanging(&["accept", "--json"]);
    let status = vm.machine.agent(&["status"], 0).stdout;
    let expected = format!("(pid {}): during step login", run.worker);
    assert!(status.starts_with("UNDER WAY  `accept` for web-1") && status.contains(&expected), "{status}");
    run.strike(Signal::SIGKILL);
    let ended = run.end();
    assert_eq!(ended.code, 61, "{}", ended.stderr);
    let told = vm.told();
    assert!(told.len() == 1 && told[0].0 == "FAILURE", "{told:?}");
    assert!(told[0].1.starts_with("interrupted: killed by SIGKILL during step login"), "{told:?}");
    let report = vm.machine.report();
    assert_eq!((&report["code"], &report["step"], &report["verb"]), (&json!(61), &json!("login"), &json!("accept")), "{report:#}");
    assert_eq!(report["signal"]["delivered"], true);
    assert_eq!(serde_json::from_str::<Value>(&ended.stdout).unwrap(), report);
    assert!(!vm.machine.state("progress").exists());
    vm.machine.agent(&["signal", "--killed"], 0);
    assert_eq!(vm.told().len(), 1, "there is nothing more to tell");
}

/// By the kernel itself: what salt-api says at last finds no memory left.
#[test]
fn a_worker_that_finds_no_memory_is_spoken_for() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let vm = Vm::whose_api({
        let gate = Arc::clone(&gate);
        move |_| {
            let closed = gate.0.lock().unwrap();
            drop(gate.1.wait_timeout_while(closed, LONG, |open| !*open).unwrap());
            Answer::Flood(1 << 20)
        }
    });
    let run = vm.hanging(&["accept"]);
    let _starved = Starved::of(run.worker).unwrap();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let ended = run.end();
    assert_eq!(ended.code, 61, "{}", ended.stderr);
    let told = vm.told();
    assert!(told.len() == 1 && told[0].0 == "FAILURE", "{told:?}");
    assert!(told[0].1.starts_with("interrupted: killed by the kernel during step login: out of memory"), "{told:?}");
    assert!(vm.machine.report()["hint"].as_str().unwrap().contains("dmesg"), "{:#}", vm.machine.report());
}

#[test]
fn any_other_end_is_a_bug_and_told_as_one() {
    let vm = Vm::new();
    let run = vm.hanging(&["accept"]);
    run.strike(Signal::SIGABRT);
    let ended = run.end();
    assert_eq!(ended.code, 90, "{}", ended.stderr);
    assert!(vm.told()[0].1.contains("ended by SIGABRT during step login"), "{:?}", vm.told());
}

#[test]
fn a_request_to_stop_reaches_the_worker() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let vm = Vm::new();
        let run = vm.hanging(&["accept"]);
        run.running.signal(signal).unwrap();
        let ended = run.end();
        assert_eq!(ended.code, 61, "{}", ended.stderr);
        let told = vm.told();
        assert!(told.len() == 1 && told[0].1.starts_with(&format!("interrupted: told to stop by {signal}")), "{told:?}");
    }
}

#[test]
fn if_both_are_killed_somebody_else_can_tell() {
    let vm = Vm::new();
    vm.machine.agent(&["signal", "--killed"], 0);
    let run = vm.hanging(&["accept"]);
    let said = vm.machine.agent(&["signal", "--killed"], 0).stderr;
    assert!(said.contains("a run is under way") && vm.told().is_empty(), "{said}");
    run.running.signal(Signal::SIGKILL).unwrap();
    let worker = run.worker;
    assert_eq!(run.end().code, 128 + 9);
    until(LONG, || kill(Pid::from_raw(worker), None).is_err().then_some(())).expect("nobody works unwatched");
    assert!(vm.told().is_empty());
    let status = vm.machine.agent(&["status"], 0).stdout;
    assert!(status.starts_with("CUT OFF  `accept` for web-1") && status.contains("killed during step login"), "{status}");
    vm.machine.agent(&["signal", "--killed"], 0);
    let told = vm.told();
    assert!(told.len() == 1 && told[0].0 == "FAILURE" && told[0].1.contains("killed during step login"), "{told:?}");
    assert_eq!(vm.machine.report()["step"], "login");
    vm.machine.agent(&["signal", "--killed"], 0);
    assert_eq!(vm.told().len(), 1);
}

/// Whoever waits for the end of a run leaves the word to its guardian, who knows more, and has it where that was killed too.
#[test]
fn who_waits_for_the_end_of_a_run_tells_what_nobody_else_can() {
    for both in [false, true] {
        let vm = Vm::new();
        let run = vm.hanging(&["accept"]);
        let waiting = vm.machine.start(&["signal", "--killed", "--wait"]);
        // Nobody works unwatched.
        if both {
            run.running.signal(Signal::SIGKILL).unwrap()
        } else {
            run.strike(Signal::SIGKILL)
        }
        run.end();
        let ended = waiting.finish(LONG).unwrap();
        let told = vm.told();
        assert_eq!((ended.code, told.len()), (0, 1), "{told:?} {}", ended.stderr);
        let by = if both { "killed during step login" } else { "killed by SIGKILL during step login" };
        assert!(told[0].1.starts_with(&format!("interrupted: {by}")), "{told:?}");
        assert!(!vm.machine.state("progress").exists());
    }
}

/// A run that is started again at once may begin in the second in which the one before began, whose report Heat has.
#[test]
fn two_runs_of_one_second_are_both_told() {
    let vm = Vm::new();
    for times in 1..=2 {
        let run = vm.hanging(&["accept"]);
        let progress: Value = serde_json::from_slice(&fs::read(vm.machine.state("progress")).unwrap()).unwrap();
        run.running.signal(Signal::SIGKILL).unwrap();
        let worker = run.worker;
        assert_eq!(run.end().code, 128 + 9);
        until(LONG, || kill(Pid::from_raw(worker), None).is_err().then_some(())).expect("nobody works unwatched");
        if times == 2 {
            let mut report = vm.machine.report();
            report["started"] = progress["known"]["started"].clone();
            fs::write(vm.machine.state("report.json"), report.to_string()).unwrap();
        }
        vm.machine.agent(&["signal", "--killed"], 0);
        assert_eq!(vm.told().len(), times);
    }
}

/// The work was done and the report kept: what Heat is told in the worker's place is what that one wanted to tell.
#[test]
fn a_worker_that_is_killed_while_it_tells_is_spoken_for() {
    let vm = Vm::new();
    let mut command = vm.machine.command(&["run"]);
    // A mistake in the configuration is the shortest way to something to tell.
    command.arg("--accept").arg("maybe");
    vm.heat.hang_next(1);
    let running = Running::start(&mut command).unwrap();
    until(LONG, || (!vm.heat.requests().is_empty()).then_some(())).expect("it tells Heat");
    kill(Pid::from_raw(family(running.pid(), Path::new(AGENT))[1]), Signal::SIGKILL).unwrap();
    let ended = running.finish(LONG).unwrap();
    assert_eq!(ended.code, 10, "{}", ended.stderr);
    let told = vm.told();
    assert!(told.len() == 1 && told[0].1.starts_with("config: "), "{told:?}");
    let kept = vm.machine.path("var/lib/heat-salt-bootstrap/signal.json");
    assert!(!kept.exists() && !vm.machine.state("progress").exists() && vm.machine.report()["signal"]["delivered"] == true);
}

/// Heat does not answer, perhaps for as long as there is time, and whoever has said stop does not wait for that.
#[test]
fn who_is_told_to_stop_while_it_tells_keeps_the_message() {
    let vm = Vm::new();
    vm.heat.set_down(true);
    // It cannot install into another root, which is known at once.
    let running = vm.machine.start(&["install", "--deadline", "5m"]);
    until(LONG, || running.stderr_so_far().contains("signal: ").then_some(())).expect("it tells Heat");
    kill(Pid::from_raw(family(running.pid(), Path::new(AGENT))[1]), Signal::SIGTERM).unwrap();
    let ended = running.finish(LONG).unwrap();
    let report = vm.machine.report();
    assert_eq!((ended.code, &report["code"]), (23, &json!(23)), "{}", ended.stderr);
    assert_eq!(report["signal"]["error"], "told to stop by SIGTERM before Heat had answered", "{report:#}");
    assert!(vm.machine.state("signal.json").exists());
    vm.heat.set_down(false);
    vm.machine.agent(&["signal", "--kept"], 0);
    let told = vm.told();
    assert!(told.len() == 1 && told[0].0 == "FAILURE" && told[0].1.contains("code 23"), "{told:?}");
}

/// As systemd does with the rest of a unit of which the kernel has ended one process: but nobody else is left who could tell Heat, which does
/// not answer just now.
#[test]
fn who_speaks_for_a_dead_worker_is_not_told_to_stop() {
    let vm = Vm::new();
    vm.heat.set_down(true);
    let run = vm.hanging(&["accept"]);
    run.strike(Signal::SIGKILL);
    let tries = || run.running.stderr_so_far().matches("trying again").count();
    until(LONG, || (tries() > 0).then_some(())).expect("it tells Heat");
    let before = tries();
    run.running.signal(Signal::SIGTERM).unwrap();
    // It may have been about to log the one before.
    until(LONG, || (tries() > before + 1).then_some(())).unwrap_or_else(|_| panic!("{}", run.running.stderr_so_far()));
    vm.heat.set_down(false);
    let ended = run.end();
    let told = vm.told();
    assert!(told.len() == 1 && told[0].1.contains("killed by SIGKILL during step login"), "{told:?} {}", ended.stderr);
    assert_eq!((ended.code, vm.machine.state("signal.json").exists()), (61, false), "{}", ended.stderr);
}

#[test]
fn a_run_that_waits_for_another_is_no_reason_to_fail_that_ones_stack() {
    let vm = Vm::new();
    let first = vm.hanging(&["accept"]);
    let second = Running::start(&mut vm.machine.command(&["accept"])).unwrap();
    until(LONG, || second.stderr_so_far().contains("another run is under way").then_some(())).expect("it waits");
    kill(Pid::from_raw(family(second.pid(), Path::new(AGENT))[1]), Signal::SIGKILL).unwrap();
    assert_eq!(second.finish(LONG).unwrap().code, 61);
    assert!(vm.told().is_empty() && vm.machine.state("progress").exists());
    first.strike(Signal::SIGTERM);
    assert_eq!(first.end().code, 61);
    assert_eq!(vm.told().len(), 1);
}

/// Everybody inherits JOURNAL_STREAM, cloud-init's children too, whose standard error goes to a file: only who writes to that very stream
/// writes for the journal (systemd.exec(5)).
#[test]
fn levels_are_marked_for_the_journal_alone() {
    let vm = Vm::new();
    let stream = fs::File::create(vm.machine.path("stream")).unwrap();
    let meta = stream.metadata().unwrap();
    let said = |journal: String| {
        let mut command = vm.machine.command(&["run", "--minion-id", "a b"]);
        command.env("JOURNAL_STREAM", journal).stderr(stream.try_clone().unwrap());
        stream.set_len(0).unwrap();
        assert_eq!(command.status().unwrap().code(), Some(10));
        let text = fs::read_to_string(vm.machine.path("stream")).unwrap();
        let lines: Vec<String> = text.trim_start_matches('\0').lines().map(str::to_owned).collect();
        assert!(lines.len() > 1, "{text}");
        lines
    };
    let marked = |lines: Vec<String>| lines.iter().filter(|line| line.starts_with('<') && &line[2..3] == ">").count();
    let to_the_journal = said(format!("{}:{}", meta.dev(), meta.ino()));
    assert!(marked(to_the_journal.clone()) > 0, "{to_the_journal:?}");
    for other in [format!("{}:{}", meta.dev(), meta.ino() + 1), format!("{}:{}", meta.dev() + 1, meta.ino()), String::new()] {
        assert_eq!(marked(said(other.clone())), 0, "{other}");
    }
}

#[test]
fn the_log_is_kept_in_a_file_too() {
    let vm = Vm::new();
    let run = vm.hanging(&["accept"]);
    run.strike(Signal::SIGTERM);
    let ended = run.end();
    assert!(!ended.stderr.contains("POST http"), "requests are shown with -v only: {}", ended.stderr);
    let file = vm.machine.path("var/log/heat-salt-bootstrap.log");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let line = |with: &str| text.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("{with} is not in {text}"));
    let request = line(" POST http://");
    assert!(request.contains(" debug [") && request.contains("] [5"), "{request}");
    assert!(line("told to stop: ending").contains("] [login, 5"), "{text}");
    assert!(line("told to stop by SIGTERM").contains(" error "), "{text}");
    // 2026-11-23T22:46:39.123Z
    assert!(text.lines().all(|line| line.starts_with("    ") || (&line[10..11], &line[23..25]) == ("T", "Z ")), "{text}");
    assert!(ended.stderr.lines().any(|line| line.contains(" warn  [login, 5") && line.contains(" s left] ")), "{}", ended.stderr);
    let json = vm.hanging(&["accept", "--log-format", "json"]);
    json.strike(Signal::SIGTERM);
    let said = json.end().stderr;
    let lines = schema::log(&said);
    assert!(lines.iter().any(|line| line["step"] == "login" && line["left"].as_u64().is_some_and(|left| left > 40)), "{said}");
}

#[test]
fn five_earlier_reports_are_kept() {
    let vm = Vm::new();
    let report = vm.machine.state("report.json");
    for run in 0..7 {
        vm.machine.agent(&["run", "--accept", "maybe"], 10);
        // Runs are told apart by the second in which they begin.
        let mut begun = vm.machine.report();
        begun["started"] = json!(1_000_000 + run);
        fs::write(&report, begun.to_string()).unwrap();
    }
    vm.machine.agent(&["run", "--accept", "maybe"], 10);
    let earlier = vm.machine.path("var/lib/heat-salt-bootstrap/reports");
    assert_eq!(fs::metadata(&earlier).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&earlier).unwrap().count(), 5);
    for (before, started) in [("1", 1_000_006), ("5", 1_000_002)] {
        let shown: Value = serde_json::from_str(&vm.machine.agent(&["status", "--json", "--previous", before], 0).stdout).unwrap();
        assert_eq!(shown["started"], started);
    }
    vm.machine.agent(&["status", "--previous", "6"], 11);
    assert!(vm.machine.agent(&["status"], 0).stdout.contains("Earlier runs: 5"));
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// What somebody who follows has been shown so far, of which this is a part.
fn is_shown(following: &Running, part: &str) {
    let shown = until(LONG, || following.stdout_so_far().contains(part).then_some(()));
    shown.unwrap_or_else(|_| panic!("{part} is not in {}, and said is {}", following.stdout_so_far(), following.stderr_so_far()));
}

#[test]
fn a_run_is_followed_to_its_end() {
    let vm = Vm::whose_api(|_| Answer::Raw(Vec::new()));
    let run = vm.hanging(&["accept"]);
    let lines = Running::start(&mut vm.machine.command(&["status", "--follow"])).unwrap();
    let json = Running::start(&mut vm.machine.command(&["status", "--follow", "--json"])).unwrap();
    // A try that failed, and which one is next.
    is_shown(&lines, "(try ");
    is_shown(&json, "(try ");
    run.strike(Signal::SIGTERM);
    assert_eq!(run.end().code, 61);
    let report = vm.machine.report();
    let (lines, json) = (lines.finish(LONG).unwrap(), json.finish(LONG).unwrap());
    assert_eq!((lines.code, json.code), (0, 0), "{}{}", lines.stderr, json.stderr);
    let status = vm.machine.agent(&["status"], 0).stdout;
    assert!(lines.stdout.ends_with(&status) && status.starts_with("FAILED  web-1 (interrupted"), "{}", lines.stdout);
    let login: Vec<&str> = lines.stdout.lines().filter(|line| line.starts_with("login, ") && line.contains(" s left: ")).collect();
    assert!(
        login.iter().any(|line| line.contains("; trying again in ") && line.ends_with(')'))
            && login.iter().any(|line| line.contains("told to stop")),
        "{login:?}"
    );
    assert!(!lines.stdout.contains('\x1b') && !lines.stdout.contains("POST http"), "{}", lines.stdout);
    let objects = objects(&json.stdout);
    let (last, rest) = objects.split_last().unwrap();
    assert_eq!(last, &report);
    let tried = rest.iter().find(|moment| moment["attempt"].as_u64().is_some_and(|attempt| attempt > 1)).unwrap();
    let left = tried["left"].as_u64().unwrap();
    assert!((1..60).contains(&left), "{tried:#}");
    for (key, value) in [("state", "under-way"), ("step", "login"), ("verb", "accept"), ("minion_id", "web-1"), ("level", "info")] {
        assert_eq!(tried[key], value, "{tried:#}");
    }
}

/// Its guardian takes a moment to report in its place.
#[test]
fn a_run_that_is_followed_and_killed_shows_what_its_guardian_reports() {
    let vm = Vm::new();
    let run = vm.hanging(&["accept"]);
    let following = Running::start(&mut vm.machine.command(&["status", "--follow"])).unwrap();
    is_shown(&following, "login, ");
    run.running.signal(Signal::SIGSTOP).unwrap();
    run.strike(Signal::SIGKILL);
    is_shown(&following, "waiting for whoever reports in its place");
    run.running.signal(Signal::SIGCONT).unwrap();
    assert_eq!(run.end().code, 61);
    let followed = following.finish(LONG).unwrap();
    assert_eq!(followed.code, 0, "{}", followed.stderr);
    assert!(
        followed.stdout.contains("\nFAILED  web-1 (interrupted, exit code 61)\n  killed by SIGKILL during step login"),
        "{}",
        followed.stdout
    );
}

#[test]
fn whoever_follows_is_told_that_a_run_was_cut_off() {
    let vm = Vm::new();
    let nothing = vm.machine.agent(&["status", "--follow"], 24);
    assert!(nothing.stderr.contains("no run is under way") && nothing.stdout.is_empty(), "{}", nothing.stderr);
    let run = vm.hanging(&["accept"]);
    let following = Running::start(&mut vm.machine.command(&["status", "--follow"])).unwrap();
    is_shown(&following, "login, ");
    run.running.signal(Signal::SIGKILL).unwrap();
    assert_eq!(run.end().code, 128 + 9);
    let followed = following.finish(LONG).unwrap();
    assert!(followed.code == 0 && followed.stdout.contains("\nCUT OFF  `accept` for web-1"), "{}", followed.stdout);
    // Whoever comes later does not wait for a guardian.
    let later = vm.machine.agent(&["status", "--follow"], 0);
    assert!(later.stdout.starts_with("CUT OFF  `accept` for web-1") && later.stderr.contains("no run is under way"), "{}", later.stdout);
    let json = vm.machine.agent(&["status", "--follow", "--json"], 24);
    let cut_off = &objects(&json.stdout)[0];
    assert_eq!((&cut_off["state"], &cut_off["step"]), (&json!("cut-off"), &json!("login")), "{cut_off:#}");
    vm.machine.agent(&["status", "--follow", "--previous", "1"], 11);
}

/// script(1) gives it a terminal.
#[test]
fn who_follows_on_a_terminal_sees_one_line_that_moves() {
    let session = json!({"return": [{"token": "t", "user": "u", "eauth": "pam", "start": 0.0, "expire": 9e9, "perms": [".*", "@wheel"]}]});
    let vm = Vm::whose_api(move |asked| if asked.path == "/login" { Answer::json(200, &session) } else { Answer::Hang });
    let run = vm.hanging(&["accept"]);
    let line = format!("'{AGENT}' status --follow --root '{}'", vm.machine.root().display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    let following = Running::start(&mut command).unwrap();
    // It is drawn anew again and again.
    for turn in ["|", "/", "-", "\\"] {
        is_shown(&following, &format!("{turn} accept: "));
    }
    run.strike(Signal::SIGTERM);
    assert_eq!(run.end().code, 61);
    let followed = following.finish(LONG).unwrap();
    assert_eq!(followed.code, 0, "{}", followed.stderr);
    let drawn: Vec<&str> = followed.stdout.split("\r\x1b[2K").collect();
    assert!(drawn.len() > 3, "{drawn:?}");
    let (last, moving) = drawn.split_last().unwrap();
    assert!(last.starts_with("FAILED  web-1 (interrupted"), "{last}");
    let steps: Vec<&&str> = moving.iter().filter(|line| line.contains('\n')).collect();
    assert!(steps.len() == 1 && steps[0].starts_with("  login ") && steps[0].contains(" s  as it was\r\n"), "{steps:?}");
    assert!(moving.iter().all(|line| line.trim_end().chars().count() <= 78), "{moving:?}");
}

/// script(1) gives it a terminal.
#[test]
fn a_terminal_shows_what_is_under_way() {
    let on_a_terminal = |kind: &str| {
        let vm = Vm::new();
        let line = format!("'{AGENT}' accept --root '{}'", vm.machine.root().display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", kind);
        let running = Running::start(&mut command).unwrap();
        until(LONG, || (!vm.api.requests().is_empty()).then_some(())).expect("it logs in");
        std::thread::sleep(Duration::from_millis(700));
        for pid in descendants(running.pid()).into_iter().skip(1) {
            // Those that have ended are not there any more.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        running.finish(LONG).unwrap().stdout
    };
    let shown = on_a_terminal("xterm");
    let drawn = shown.matches(" login: 0 s, ").count();
    assert!((2..10).contains(&drawn) && shown.contains("\r\x1b[2K"), "drawn {drawn} times: {shown:?}");
    let last = shown.rsplit("\x1b[2K").next().unwrap();
    assert!(last.contains("what to do: ") && !last.contains(" s left\r"), "nothing is left of it: {shown:?}");
    let plain = on_a_terminal("dumb");
    assert!(!plain.contains('\x1b'), "{plain:?}");
}

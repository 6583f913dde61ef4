//! What a person sees who waits at a terminal: a last line that is drawn anew in place, on terminals of several widths, and none where
//! there is no terminal that can. The terminal is tmux's.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lab::heat::StandIn;
use lab::http::Answer;
use lab::peer::{Certificate, Scripted};
use lab::process::{run, until};
use lab::sandbox::Sandbox;
use lab::tls::Authority;
use serde_json::json;

const AGENT: &str = env!("CARGO_BIN_EXE_heat-salt-bootstrap");
/// Only a hang comes to it.
const LONG: Duration = Duration::from_secs(60);
/// What the last line begins with, one after the other.
const MARKS: [char; 4] = ['|', '/', '-', '\\'];

/// A machine whose login is refused once for the moment, and then not answered.
struct Vm {
    machine: Sandbox,
    _heat: StandIn,
    _api: Scripted,
}

impl Vm {
    fn new() -> Vm {
        let authority = Authority::new().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move |_: &_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::cherrypy_error(503, "not yet"),
            _ => Answer::Hang,
        };
        let api = Scripted::start(&authority, Certificate::Good, answer).unwrap();
        let heat = StandIn::start().unwrap();
        let config = json!({
            "minion": {"id": "web-1", "master": "127.0.0.1", "master_finger": vec!["ab"; 32].join(":")},
            "api": {"url": format!("https://{}", api.address()), "ca": authority.ca_pem(), "username": "u", "password": "p"},
            "signal": heat.handle(),
            "deadline": "10m",
        });
        Vm { machine: Sandbox::configured(AGENT, &config), _heat: heat, _api: api }
    }
}

/// A terminal, in which one command runs; it stays when that has ended.
struct Terminal<'a> {
    vm: &'a Vm,
}

impl<'a> Terminal<'a> {
    fn new(vm: &'a Vm, columns: u16, environment: &str, arguments: &str) -> Terminal<'a> {
        let terminal = Terminal { vm };
        let root = vm.machine.root().display();
        let config = vm.machine.write("tmux.conf", "set -g remain-on-exit on\nset -g status off\n");
        let (config, columns) = (config.display().to_string(), columns.to_string());
        let command = format!("exec env {environment} '{AGENT}' {arguments} --root '{root}'");
        terminal.tmux(&["-f", &config, "new-session", "-d", "-x", &columns, "-y", "24", &command]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.vm.machine.path("tmux")).args(arguments).env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        let ended = run(&mut tmux, LONG).unwrap();
        assert_eq!(ended.code, 0, "tmux {arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    /// What is there, with what has left it at the top: tmux says at the bottom that a command has ended.
    fn lines(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p", "-S", "-"]).lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    }

    /// Looks until all of what is shown is as it should be.
    fn shows(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let looked = until(LONG, || Some(self.lines()).filter(|lines| is_so(lines)));
        looked.unwrap_or_else(|error| panic!("{what}: {error}:\n{}", self.lines().join("\n")))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Those that are drawn anew.
fn drawn(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with(MARKS) && line.chars().nth(1) == Some(' ')).collect()
}

#[test]
fn a_last_line_is_drawn_in_place() {
    for columns in [200, 80, 40] {
        let vm = Vm::new();
        let terminal = Terminal::new(&vm, columns, "TERM=screen", "accept");
        let second_try = |lines: &[String]| drawn(lines).iter().any(|line| line.contains(" login: ") && line.contains(" s left, try 2"));
        let first = terminal.shows("the step, its time and the try", second_try);
        let moved = terminal.shows("it moves", |lines| second_try(lines) && drawn(lines) != drawn(&first));
        for lines in [&first, &moved] {
            assert_eq!(drawn(lines).len(), 1, "{columns} columns:\n{}", lines.join("\n"));
            assert!(lines.last().unwrap().starts_with(MARKS), "it is the last:\n{}", lines.join("\n"));
        }
        // What is waited for, as far as there is room for it.
        assert_eq!(drawn(&moved)[0].contains("trying again"), columns == 200, "{}", moved.join("\n"));
        // No colours, with NO_COLOR or without: what is to be seen is in words.
        assert_eq!(terminal.tmux(&["capture-pane", "-p", "-e"]).matches('\u{1b}').count(), 0);
        terminal.tmux(&["send-keys", "C-c"]);
        let ended = terminal.shows("the end", |lines| lines.concat().contains("interrupted"));
        assert!(drawn(&ended).is_empty(), "nothing is left of it:\n{}", ended.join("\n"));
    }
}

#[test]
fn a_terminal_that_cannot_go_back_gets_lines() {
    let vm = Vm::new();
    let terminal = Terminal::new(&vm, 80, "TERM=dumb", "accept");
    let lines = terminal.shows("it tries again", |lines| lines.concat().contains("trying again"));
    assert!(drawn(&lines).is_empty(), "{}", lines.join("\n"));
}

/// In another terminal than the run's own, or where that has none.
#[test]
fn whoever_follows_a_run_sees_the_same() {
    let vm = Vm::new();
    let running = vm.machine.start(&["accept"]);
    until(LONG, || running.stderr_so_far().contains("trying again").then_some(())).unwrap();
    let terminal = Terminal::new(&vm, 80, "TERM=screen", "status --follow");
    let shown = terminal
        .shows("the step and its try", |lines| drawn(lines).iter().any(|line| line.contains(" login: ") && line.contains(", try 2")));
    assert_eq!(drawn(&shown).len(), 1, "{}", shown.join("\n"));
    running.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(running.finish(LONG).unwrap().code, 61);
    let ended = terminal.shows("how it ended", |lines| lines.concat().contains("FAILED"));
    assert!(drawn(&ended).is_empty(), "{}", ended.join("\n"));
}

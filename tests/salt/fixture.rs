//! What the cases share: masters, a VM with its Heat, the agent, and what holds after every run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use lab::heat::{Signal, StandIn};
use lab::keys::KeyState;
use lab::master::{Master, MasterOptions};
use lab::minion::{Root, enrolling};
use lab::pam::SystemUser;
use lab::process::{Finished, Running, until};
use lab::schema;
use lab::stall::Stalls;
use lab::venv::Line;
use memchr::memmem::Finder;
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::matrix;

/// After its deadline the agent gives a logout a second; the rest is for two processes to start and end.
const LAST_WORDS: f64 = 3.0;
/// Longer than anything takes that happens at all.
pub const LONG: Duration = Duration::from_secs(120);

/// One a line, for all cases that leave it as it is.
static SHARED: [Slot; 2] = [const { Mutex::new(None) }; 2];
/// One a line, for cases that need it for themselves, one after the other.
static PRIVATE: [Mutex<Option<Private>>; 2] = [const { Mutex::new(None) }; 2];

type Slot = Mutex<Option<Arc<Master>>>;

/// A master, and a system user who may log in to it through PAM.
pub struct Private {
    pub master: Arc<Master>,
    pub user: SystemUser,
}

fn slot<T>(slots: &'static [Mutex<T>; 2], line: Line) -> MutexGuard<'static, T> {
    let number = match line {
        Line::Lts3006 => 0,
        Line::Lts3008 => 1,
    };
    // A case that failed says nothing about the next one.
    slots[number].lock().unwrap_or_else(PoisonError::into_inner)
}

/// The master that most cases share.
pub fn shared(line: Line) -> Arc<Master> {
    let mut slot = slot(&SHARED, line);
    let started = || {
        let master = Arc::new(Master::start(line).unwrap());
        wake(&master);
        master
    };
    let master = Arc::clone(slot.get_or_insert_with(started));
    master.end_broken_workers();
    master
}

/// What salt-api loads with the first request of each kind takes seconds on a busy machine: no case's clock is to run meanwhile. And to one
/// whose master was away the next hook may be lost.
fn wake(master: &Master) {
    let session = until(LONG, || master.session("admin").ok()).unwrap();
    for (fun, arguments) in [("key.finger_master", json!({})), ("key.print", json!({"match": "nobody"}))] {
        session.wheel(fun, arguments).unwrap();
    }
    until(LONG, || session.hook("lab/awake", &json!({})).ok()).unwrap();
    session.log_out().unwrap();
}

/// Does something with the master that no other case uses meanwhile: it may be stopped, its API too.
pub fn alone(line: Line, case: impl FnOnce(&Private)) {
    // Who waits here has a slot in which another case could run.
    let own = thread::current().name().is_some_and(|name| matrix::has_the_master_for_itself(matrix::without_line(name)));
    assert!(own, "matrix.rs does not say that this case has the master for itself");
    let mut slot = slot(&PRIVATE, line);
    let private = slot.get_or_insert_with(|| {
        let user = SystemUser::create().unwrap();
        let mut options = MasterOptions::new(line);
        options.pam_user = Some(user.name().to_owned());
        let master = Arc::new(Master::start_with(options).unwrap());
        Private { master, user }
    });
    // A case before may have failed with one of them stopped.
    private.master.start_master().unwrap();
    private.master.end_broken_workers();
    if private.master.api_pid().is_none() {
        private.master.restart_api().unwrap();
    }
    wake(&private.master);
    case(private);
}

/// Stops every master. Statics are never dropped.
pub fn stop_masters() {
    for line in Line::ALL {
        drop(slot(&SHARED, line).take());
        drop(slot(&PRIVATE, line).take());
    }
}

/// A VM that is to be bootstrapped, and the Heat that waits for it.
pub struct Vm {
    // Fields are dropped in this order: the minion before its master.
    pub root: Root,
    pub config: Value,
    pub gate: Gate,
    pub heat: StandIn,
    pub master: Arc<Master>,
    /// What may be found nowhere, beside what every case has: passwords and tokens.
    pub secrets: Vec<String>,
    /// Words before the agent's command line: programs that change its surroundings and then become it.
    pub prefix: Vec<String>,
    /// What is put into the agent's environment.
    pub environment: Vec<(String, String)>,
    deadline: u64,
}

impl Vm {
    /// One on the shared master. It reaches salt-api through its own gate.
    pub fn new(line: Line, id: &str) -> Vm {
        Vm::on(&shared(line), id)
    }

    /// One on this master, where nobody of this id has been before. Whose key shall be there already is placed afterwards.
    pub fn on(master: &Arc<Master>, id: &str) -> Vm {
        master.forget(id).unwrap();
        let root = Root::new(master, id).unwrap();
        let heat = StandIn::start().unwrap();
        let gate = Gate::open(master);
        let mut config = root.base_config(Some(&heat));
        config["api"]["url"] = gate.url().into();
        let mut vm = Vm {
            root,
            config,
            gate,
            heat,
            master: Arc::clone(master),
            secrets: Vec::new(),
            prefix: Vec::new(),
            environment: Vec::new(),
            deadline: 0,
        };
        vm.deadline(90);
        vm
    }

    /// Sets a key of the configuration, `api/username`; null takes it away.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Vm {
        let (last, parents) = key.rsplit_once('/').map_or((key, ""), |(p, l)| (l, p));
        let mut place = &mut self.config;
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            place = &mut place[part];
        }
        match value.into() {
            Value::Null => drop(place.as_object_mut().unwrap().remove(last)),
            value => place[last] = value,
        }
        self
    }

    /// Sets the deadline, in seconds.
    pub fn deadline(&mut self, seconds: u64) -> &mut Vm {
        self.deadline = seconds;
        self.set("deadline", format!("{seconds}s"))
    }

    /// Asks for these states, by way of the classic reactor.
    pub fn states(&mut self, states: &[&str]) -> &mut Vm {
        self.set("apply/states", json!(states))
    }

    /// Takes the reactor that the project ships.
    pub fn shipped(&mut self) -> &mut Vm {
        self.set("apply/hook", "states/shipped")
    }

    /// Logs in as this account of eauth `file`.
    pub fn account(&mut self, user: &str) -> &mut Vm {
        let (user, password) = self.master.credentials(user);
        self.set("api/username", user).set("api/password", password)
    }

    /// Joins by the enrolment service with this token, through the gate.
    pub fn enrolling(&mut self, token: &str) -> &mut Vm {
        // Its name is no secret.
        self.secrets.extend(token.split('.').nth(2).map(str::to_owned));
        let url = self.gate.url();
        enrolling(&mut self.config, &self.master, &url, token);
        self
    }

    /// Names the right master, so that nobody needs to be asked for it.
    pub fn trusting(&mut self) -> &mut Vm {
        let finger = self.master.public_key_finger().unwrap();
        self.set("minion/master_finger", finger)
    }

    /// Makes the state `append` take so many seconds.
    pub fn lingering(&mut self, seconds: u64) -> &mut Vm {
        self.set("minion/config/lab_sleep", seconds)
    }

    /// Moves this VM's key on the master, by hand.
    pub fn move_key(&self, to: KeyState) {
        for (_, pem) in self.master.key_states(self.root.id()) {
            self.master.place_key(self.root.id(), to, &pem).unwrap();
        }
        for state in KeyState::ALL.into_iter().filter(|state| *state != to) {
            // It lies in one of them only.
            let _ = fs::remove_file(self.master.pki_dir().join(state.dir()).join(self.root.id()));
        }
    }

    /// Forgets every run, the report included; what runs stays.
    pub fn forget_runs(&self) {
        for file in ["bootstrap.json", "report.json", "signal.json"] {
            // Not each of them is there.
            let _ = fs::remove_file(self.path("var/lib/heat-salt-bootstrap").join(file));
        }
    }

    /// Another stack waits for this VM from now on.
    pub fn next_stack(&mut self) -> &mut Vm {
        self.heat = StandIn::start().unwrap();
        self.set("signal", self.heat.handle())
    }

    /// Does the first two links of the chain, of which Heat hears nothing.
    #[track_caller]
    pub fn joined(&mut self) -> &mut Vm {
        for verb in ["install", "accept"] {
            let ended = self.agent(&[verb]);
            ended.expect(ended.code == 0, "exit code 0");
            ended.expect(ended.report["verb"] == verb, "the verb in the report");
            ended.expect(ended.signals.is_empty(), "nothing to tell Heat yet");
        }
        self
    }

    /// A program in the minion's place: this piece of shell, whose `$MINION` is the real one.
    pub fn program(&mut self, script: &str) -> &mut Vm {
        let path = self.path("minion-program");
        let real = self.master.venv().program("salt-minion");
        let text = format!("#!/bin/sh\nMINION='{}'\n{script}\n", real.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.set("minion/program", path.to_str().unwrap())
    }

    /// A path below the root.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// The text of a file below the root; empty if there is none.
    pub fn text(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_default()
    }

    /// How often the state `append` ran.
    pub fn runs(&self) -> usize {
        self.text("runs.out").lines().count()
    }

    /// Makes a file below the root, for which somebody waits.
    pub fn make(&self, below: &str) {
        fs::write(self.path(below), "").unwrap();
    }

    /// Waits until a file below the root is there.
    #[track_caller]
    pub fn await_file(&self, below: &str) {
        let path = self.path(below);
        until(LONG, || path.exists().then_some(())).unwrap_or_else(|error| panic!("no {below}: {error}\n{}", self.root.minion_log()));
    }

    /// Waits until something was asked of salt-api.
    #[track_caller]
    pub fn await_request(&self, request: &str) {
        self.await_nth_request(request, 1);
    }

    /// Waits until it was asked so often, by whomever.
    #[track_caller]
    pub fn await_nth_request(&self, request: &str, number: usize) {
        let asked = || self.gate.requests().iter().filter(|one| *one == request).count() >= number;
        until(LONG, || asked().then_some(())).unwrap_or_else(|error| panic!("no {request}: {error}"));
    }

    /// The state in which the minion's own key lies on the master, and how many keys have its id.
    pub fn own_key(&self) -> (Option<KeyState>, usize) {
        let keys = self.master.key_states(self.root.id());
        let own = self.text("etc/salt/pki/minion/minion.pub");
        let state = keys.iter().find(|(_, pem)| pem.trim() == own.trim());
        (state.map(|(state, _)| *state), keys.len())
    }

    /// `run` to its end.
    pub fn run(&self) -> Ended {
        self.agent(&["run"])
    }

    /// The agent with these arguments, to its end.
    pub fn agent(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end(self)
    }

    /// Starts the agent with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Started {
        self.root.write_config(&self.config).unwrap();
        self.start_as_is(arguments)
    }

    /// Starts the agent with whatever configuration lies there.
    pub fn start_as_is(&self, arguments: &[&str]) -> Started {
        let mut command = self.command(arguments);
        if arguments[0] != "explain" {
            command.arg("--root").arg(self.root.path());
        }
        self.started(&mut command)
    }

    /// The agent without a root of its own, to its end; for verbs that only look.
    pub fn on_the_machine(&self, arguments: &[&str]) -> Ended {
        self.started(&mut self.command(arguments)).finish(self)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let agent = env!("CARGO_BIN_EXE_heat-salt-bootstrap").to_owned();
        let words: Vec<String> = self.prefix.iter().cloned().chain([agent]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments).envs(self.environment.iter().cloned());
        command
    }

    fn started(&self, command: &mut Command) -> Started {
        Started {
            told: self.heat.signals().len(),
            asked: self.gate.requests().len(),
            opened: self.gate.tokens().len(),
            stalls: Stalls::begin(),
            running: Running::start(command).unwrap(),
        }
    }

    /// The report that lies there.
    pub fn report(&self) -> Value {
        schema::report(&self.text("var/lib/heat-salt-bootstrap/report.json"))
    }

    /// Is a session closed? The agent gives salt-api a second for that, and does not wait for longer; salt-api itself may.
    pub fn is_closed(&self, token: &str) -> bool {
        until(LONG, || (!self.gate.is_alive(token)).then_some(())).is_ok()
    }

    /// Every file below the root with its content, and every directory.
    pub fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut tree = BTreeMap::new();
        walk(self.root.path(), &mut tree);
        tree
    }

    /// No secret stands where it can be read by whoever should not.
    fn audit(&self, finished: &Finished) {
        let mut secrets = self.gate.tokens();
        secrets.extend(self.secrets.iter().cloned());
        secrets.push(self.heat.token().to_owned());
        secrets.extend(self.config["api"]["password"].as_str().map(str::to_owned));
        let mut places = self.tree();
        let own = self.path("etc/heat-salt-bootstrap");
        // Salt keeps the jobs that wait or run, and their pillar with them: root's own, and gone when they are.
        let jobs = ["proc", "queues"].map(|dir| self.path("var/cache/salt/minion").join(dir));
        places.retain(|path, _| !path.starts_with(&own) && !jobs.iter().any(|dir| path.starts_with(dir)));
        places.insert("stdout".into(), finished.stdout.clone().into_bytes());
        places.insert("stderr".into(), finished.stderr.clone().into_bytes());
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            let finder = Finder::new(secret);
            for (path, content) in &places {
                assert!(finder.find(content).is_none(), "{} holds the secret {secret}", path.display());
            }
        }
    }
}

fn walk(dir: &Path, tree: &mut BTreeMap<PathBuf, Vec<u8>>) {
    // A running minion makes and removes files all the time.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let Ok(kind) = kind else { continue };
        if kind.is_dir() {
            walk(&path, tree);
            tree.insert(path, Vec::new());
        } else if kind.is_file() {
            tree.insert(path.clone(), fs::read(path).unwrap_or_default());
        }
    }
}

/// The agent on its way.
pub struct Started {
    pub running: Running,
    stalls: Stalls,
    told: usize,
    asked: usize,
    opened: usize,
}

impl Started {
    /// Waits for its end, which comes within its deadline, leaves no session and no secret behind.
    #[track_caller]
    pub fn end(self, vm: &Vm) -> Ended {
        let ended = self.finish(vm);
        ended.in_time();
        let came = ended.requests.last().is_some_and(|last| last == "POST /logout");
        if ended.tokens.is_empty() || (!came && ended.could_not_log_out()) {
            return ended;
        }
        ended.asked_last("POST /logout");
        for token in &ended.tokens {
            ended.expect(vm.is_closed(token), "its session is closed");
        }
        ended
    }

    /// Waits until its log says this.
    #[track_caller]
    pub fn await_word(&self, word: &str) {
        let said = || self.running.stderr_so_far().contains(word).then_some(());
        until(LONG, said).unwrap_or_else(|error| panic!("it never said {word:?}: {error}\n{}", self.running.stderr_so_far()));
    }

    /// Kills it with SIGKILL, as a power cut does.
    pub fn kill(self, vm: &Vm) {
        self.running.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        let ended = self.finish(vm);
        ended.expect(ended.code == 128 + 9, "it was still running");
        ended.expect(ended.signals.is_empty(), "Heat was told nothing yet");
    }

    /// Waits for its end, however that comes.
    #[track_caller]
    pub fn finish(self, vm: &Vm) -> Ended {
        let finished = self.running.finish(Duration::from_secs(vm.deadline) + LONG).unwrap();
        let stalled = self.stalls.so_far().as_secs_f64();
        vm.audit(&finished);
        Ended {
            id: vm.config["minion"]["id"].as_str().unwrap_or(vm.root.id()).to_owned(),
            code: finished.code,
            seconds: finished.seconds,
            stalled,
            limit: vm.deadline as f64 + LAST_WORDS + 2.0 * stalled,
            report: vm.report(),
            signals: vm.heat.signals().split_off(self.told),
            stack: vm.heat.stack_status(1),
            requests: vm.gate.requests().split_off(self.asked),
            tokens: vm.gate.tokens().split_off(self.opened),
            stdout: finished.stdout,
            stderr: finished.stderr,
        }
    }
}

/// What the agent left behind.
pub struct Ended {
    id: String,
    pub code: i32,
    pub seconds: f64,
    /// For how long this machine stalled meanwhile, in seconds.
    stalled: f64,
    /// By when it had to end, in seconds.
    limit: f64,
    pub stdout: String,
    pub stderr: String,
    /// report.json as it lies there now.
    pub report: Value,
    /// What Heat recorded meanwhile.
    pub signals: Vec<Signal>,
    stack: (String, String),
    /// What was asked at the gate meanwhile.
    pub requests: Vec<String>,
    /// The tokens of the sessions that were opened meanwhile.
    pub tokens: Vec<String>,
}

impl Ended {
    /// It ended within its deadline. What this machine stalled meanwhile counts twice: the agent has another process to watch it.
    #[track_caller]
    pub fn in_time(&self) {
        self.expect(self.seconds <= self.limit, &format!("it ends within {:.1} s", self.limit));
    }

    /// It ended well, and Heat knows.
    #[track_caller]
    pub fn done(&self) -> &Ended {
        self.expect(self.code == 0, "exit code 0");
        self.expect((&self.report["verdict"], &self.report["code"]) == (&"done".into(), &0.into()), "a report of verdict done and code 0");
        self.expect(self.report["reason"] == "done", "the reason done");
        self.expect(self.report["step"].is_null(), "no failing step");
        self.told("SUCCESS");
        self.expect(self.report["signal"]["delivered"] == true, "Heat was told");
        self
    }

    /// It failed with this code and reason in this step, and Heat knows all of it.
    #[track_caller]
    pub fn failed(&self, code: u8, reason: &str, step: &str) -> &Ended {
        self.failed_with(code, reason, Some(step))
    }

    /// It failed before there was a step.
    #[track_caller]
    pub fn refused(&self, code: u8, reason: &str) -> &Ended {
        self.failed_with(code, reason, None)
    }

    #[track_caller]
    fn failed_with(&self, code: u8, reason: &str, step: Option<&str>) -> &Ended {
        self.expect(self.code == i32::from(code), &format!("exit code {code}"));
        for (key, value) in [("verdict", json!("failed")), ("code", json!(code)), ("reason", json!(reason)), ("step", json!(step))] {
            self.expect(self.report[key] == value, &format!("{key} {value} in the report"));
        }
        let hinted = self.report["hint"].as_str().is_some_and(|hint| !hint.is_empty());
        self.expect(hinted, "a hint in the report");
        self.told("FAILURE");
        let message = self.report["message"].as_str().unwrap_or_default();
        let line = match step {
            Some(step) => format!("{reason}: {message} (step {step}, code {code})"),
            None => format!("{reason}: {message} (code {code})"),
        };
        self.expect(self.signals[0].reason.starts_with(&line), "Heat knows the reason");
        let (status, why) = &self.stack;
        self.expect(status == "CREATE_FAILED" && why.contains(&self.signals[0].reason), "the stack fails for this reason");
        self
    }

    #[track_caller]
    fn told(&self, status: &str) {
        self.expect(self.signals.len() == 1, "Heat was told once");
        let signal = &self.signals[0];
        self.expect(signal.status == status, &format!("Heat was told {status}"));
        self.expect(signal.id == self.id, "Heat was told by the minion's id");
        let mut data = self.report.clone();
        data["signal"] = Value::Null;
        self.expect(signal.data == data, "Heat got the report");
        if status == "SUCCESS" {
            self.expect(self.stack.0 == "CREATE_COMPLETE", "the stack is complete");
        }
    }

    /// The failure's sentence holds this.
    #[track_caller]
    pub fn says(&self, what: &str) -> &Ended {
        let message = self.report["message"].as_str().unwrap_or_default();
        self.expect(message.contains(what), &format!("{what:?} in the message"));
        self
    }

    /// The hint holds this.
    #[track_caller]
    pub fn hints(&self, what: &str) -> &Ended {
        let hint = self.report["hint"].as_str().unwrap_or_default();
        self.expect(hint.contains(what), &format!("{what:?} in the hint"));
        self
    }

    /// So many states ran, and so many failed.
    #[track_caller]
    pub fn states(&self, total: usize, failed: usize) -> &Ended {
        let states = &self.report["states"];
        self.expect(states["total"] == total && states["failed"] == failed, &format!("{total} states, {failed} failed"));
        self
    }

    /// The steps that changed something.
    pub fn changed(&self) -> Vec<&str> {
        let steps = self.report["steps"].as_array();
        let changed = steps.into_iter().flatten().filter(|step| step["changed"] == true);
        changed.filter_map(|step| step["name"].as_str()).collect()
    }

    /// How often this was asked at the gate.
    pub fn asked(&self, request: &str) -> usize {
        self.requests.iter().filter(|one| *one == request).count()
    }

    /// How often the agent meant to trigger the states. On a busy machine Salt loses a job that is published to a minion
    /// which has only just connected; the agent then fires its hook again, and says so. It says so too when it asks again because
    /// salt-api has not answered well, unless it sees the job before it does.
    pub fn triggered(&self, hook: &str) -> usize {
        let (asking, found) = (format!("hook/{hook}: "), format!("answered {hook} with an error, but the job has started"));
        let lines = || self.stderr.lines();
        let repeated = lines().filter(|line| line.contains(&asking) && line.contains("; trying again in")).count();
        let seen = lines().filter(|line| line.contains(&found)).count();
        let fired_again = lines().filter(|line| line.contains("no job came of the hook")).count();
        self.asked(&format!("POST /hook/{hook}")) + seen - repeated - fired_again
    }

    /// Did its logout not come through because this machine stalled? The agent gives salt-api a second for that.
    fn could_not_log_out(&self) -> bool {
        self.stderr.contains("could not log out") && self.stalled >= 0.5
    }

    /// The last thing that was asked at the gate.
    #[track_caller]
    pub fn asked_last(&self, request: &str) {
        let last = self.requests.last().map(String::as_str);
        self.expect(last == Some(request), &format!("{request} as the last request"));
    }

    /// Panics with all there is to see unless it is so.
    #[track_caller]
    pub fn expect(&self, so: bool, what: &str) {
        let Ended { code, seconds, report, requests, stdout, stderr, .. } = self;
        let told = self.signals.iter().map(|one| format!("\n  {} {}: {}", one.status, one.id, one.reason)).collect::<String>();
        assert!(
            so,
            "expected: {what}\nexit code {code} after {seconds:.2} s\nreport {report:#}\nHeat was told{told}\nrequests {requests:?}\nstdout:\n{stdout}\nstderr:\n{stderr}",
        );
    }
}

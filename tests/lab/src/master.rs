//! A real Salt master with its API, from a private directory on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use ring::digest::{SHA512, digest};
use serde_json::{Map, Value, json};

use crate::api::{Api, Session};
use crate::keys::{KeyState, finger};
use crate::listen::ClosedPort;
use crate::process::{Guard, end_daemons, run, until};
use crate::tls::{Authority, Validity};
use crate::venv::{Line, Venv, extension, salt};

/// What a master may take to be ready, on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Runs when the master's owner is gone: nothing may outlive the test, and nothing else may be hit.
const CLEAN_UP: &str = r#"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    pids=$(grep -lsF "$SUBJECT/" /proc/[0-9]*/cmdline | xargs -r grep -lsF /bin/salt- | tr -dc '0-9\n')
    [ -n "$pids" ] || break
    kill -KILL $pids 2>/dev/null
    sleep 0.1
done
[ "$HSB_KEEP" = 1 ] || rm -rf "$SUBJECT"
"#;

const STATES: [(&str, &str); 12] = [
    ("ok.sls", include_str!("../states/ok.sls")),
    ("second.sls", include_str!("../states/second.sls")),
    ("fail.sls", include_str!("../states/fail.sls")),
    ("slow.sls", include_str!("../states/slow.sls")),
    ("occupied.sls", include_str!("../states/occupied.sls")),
    ("held.sls", include_str!("../states/held.sls")),
    ("reboots.sls", include_str!("../states/reboots.sls")),
    ("append.sls", include_str!("../states/append.sls")),
    ("nothing.sls", include_str!("../states/nothing.sls")),
    ("needs_pillar.sls", include_str!("../states/needs_pillar.sls")),
    ("render.sls", include_str!("../states/render.sls")),
    ("badyaml.sls", include_str!("../states/badyaml.sls")),
];

const PILLAR: [(&str, &str); 2] = [("top.sls", include_str!("../pillar/top.sls")), ("common.sls", include_str!("../pillar/common.sls"))];

/// The accounts of eauth `file` and what each may do.
fn permissions() -> [(&'static str, Value); 6] {
    let wheel = |functions: &[&str]| json!([{"@wheel": functions}]);
    [
        ("boot", wheel(&["key.accept", "key.print", "key.finger", "key.finger_master"])),
        ("bootfinger", wheel(&["key.accept", "key.finger", "key.finger_master"])),
        ("nofinger", wheel(&["key.accept", "key.print"])),
        ("onlyaccept", wheel(&["key.accept"])),
        ("noperm", json!([])),
        ("admin", json!([".*", "@wheel", "@runner", "@jobs"])),
    ]
}

/// How a master is set up.
pub struct MasterOptions {
    /// Which Salt.
    pub line: Line,
    /// `netapi_enable_clients`.
    pub netapi_clients: Vec<String>,
    /// The reactor behind `states/shipped`; left out if there is no such file.
    pub shipped_reactor: PathBuf,
    /// Further hooks, path to SLS file.
    pub hooks: BTreeMap<String, PathBuf>,
    /// A system user who may log in through PAM and do what `boot` may.
    pub pam_user: Option<String>,
    /// The master to which this one is another of the same: with the same key pair and ports, on 127.0.0.2.
    pub twin: Option<Arc<Master>>,
    /// Further options of the master, which win over the lab's own.
    pub config: Map<String, Value>,
}

impl MasterOptions {
    /// The usual ones.
    pub fn new(line: Line) -> MasterOptions {
        let clients = ["local", "local_async", "runner", "runner_async", "wheel", "wheel_async"];
        MasterOptions {
            line,
            netapi_clients: clients.map(str::to_owned).to_vec(),
            shipped_reactor: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud-init/salt-master/reactor/states.sls"),
            hooks: BTreeMap::new(),
            pam_user: None,
            twin: None,
            config: Map::new(),
        }
    }
}

/// A running master. Hook `states/state` goes to the classic reactor, `states/shipped` to the one the project ships.
pub struct Master {
    dir: PathBuf,
    venv: Venv,
    extension: PathBuf,
    authority: Authority,
    ports: Ports,
    _kept: Vec<ClosedPort>,
    daemons: Mutex<Daemons>,
    roots: AtomicUsize,
    /// How many decisions about an id belong to a machine of before.
    forgotten: Mutex<BTreeMap<String, usize>>,
    _guard: Guard,
}

#[derive(Clone, Copy)]
struct Ports {
    publish: u16,
    ret: u16,
    api: u16,
    service: u16,
}

#[derive(Default)]
struct Daemons {
    master: Option<Child>,
    api: Option<Child>,
}

impl Master {
    /// Starts a master of this line with the usual options.
    pub fn start(line: Line) -> Result<Master> {
        Master::start_with(MasterOptions::new(line))
    }

    /// Starts a master and returns when a login through its API succeeds.
    pub fn start_with(options: MasterOptions) -> Result<Master> {
        let (venv, extension) = (salt(options.line)?, extension(options.line)?);
        // Short, because the path of a Unix socket, which lies deep below, may have 107 characters.
        let dir = tempfile::Builder::new().prefix("hsb-").tempdir()?.keep();
        let (ports, kept) = Ports::pick()?;
        let guard = Guard::new(CLEAN_UP, dir.to_str().context("the temporary directory's name is not UTF-8")?)?;
        let master = Master {
            dir,
            venv,
            extension,
            authority: Authority::new()?,
            ports: ports.as_of(options.twin.as_deref()),
            _kept: kept,
            daemons: Mutex::default(),
            roots: AtomicUsize::new(0),
            forgotten: Mutex::default(),
            _guard: guard,
        };
        master.write_files(options)?;
        master.start_master()?;
        master.await_directories()?;
        master.restart_api()?;
        Ok(master)
    }

    fn write_files(&self, options: MasterOptions) -> Result<()> {
        let root = self.root();
        for dir in ["etc/salt", "srv/salt", "srv/pillar", "srv/reactor", "var/log/salt"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for (name, text) in STATES {
            fs::write(root.join("srv/salt").join(name), text)?;
        }
        for (name, text) in PILLAR {
            fs::write(root.join("srv/pillar").join(name), text)?;
        }
        let classic = root.join("srv/reactor/classic.sls");
        fs::write(&classic, include_str!("../reactor/classic.sls"))?;
        let issued = self.authority.issue(&["127.0.0.1", "localhost"], Validity::Current)?;
        fs::write(self.tls("server.crt"), &issued.chain_pem)?;
        fs::write(self.tls("server.key"), &issued.key_pem)?;
        fs::write(self.tls("ca.crt"), self.authority.ca_pem())?;
        fs::write(self.users_file(), users_file())?;
        // Salt follows symbolic links, which an environment's python is, to the interpreter behind it, and that one
        // has no Salt. On 3008 every login through PAM fails then.
        let python = format!("#!/bin/sh\nexec '{}' \"$@\"\n", self.venv.program("python").display());
        fs::write(self.pam_python(), python)?;
        fs::set_permissions(self.pam_python(), fs::Permissions::from_mode(0o755))?;

        let mut reactor = vec![json!({"salt/netapi/hook/states/state": [classic]})];
        let shipped = BTreeMap::from([("states/shipped".to_owned(), options.shipped_reactor)]);
        for (hook, sls) in shipped.iter().filter(|(_, sls)| sls.exists()).chain(&options.hooks) {
            reactor.push(json!({format!("salt/netapi/hook/{hook}"): [sls]}));
        }
        let mut config = self.config(&options.netapi_clients, reactor);
        if let Some(twin) = &options.twin {
            config["interface"] = json!("127.0.0.2");
            let database = twin.pki_dir().join("heat-bootstrap/heat-bootstrap.sqlite");
            config["heat_bootstrap"]["database"] = json!(format!("sqlite:///{}", database.display()));
            fs::create_dir_all(self.pki_dir())?;
            for name in ["master.pem", "master.pub"] {
                fs::copy(twin.pki_dir().join(name), self.pki_dir().join(name))?;
            }
        }
        if let Some(user) = options.pam_user {
            let [(_, boot), ..] = permissions();
            config["external_auth"]["pam"] = json!({user: boot});
        }
        let mut config = config.as_object().cloned().context("the configuration is an object")?;
        config.extend(options.config);
        // JSON is YAML.
        fs::write(root.join("etc/salt/master"), serde_json::to_string_pretty(&config)?)?;
        Ok(())
    }

    fn config(&self, netapi_clients: &[String], reactor: Vec<Value>) -> Value {
        let root = self.root();
        let mut file_eauth = json!({
            "^filename": self.users_file(),
            "^filetype": "text",
            "^hashtype": "sha512",
            "^username_field": 1,
            "^password_field": 2,
            "^field_separator": ":",
        });
        for (user, perms) in permissions() {
            file_eauth[user] = perms;
        }
        json!({
            "root_dir": root,
            "user": "root",
            "interface": "127.0.0.1",
            "publish_port": self.ports.publish,
            "ret_port": self.ports.ret,
            "log_level_logfile": "info",
            // Each worker is a process that has to start first; the default of five serves no test better.
            "worker_threads": 3,
            "file_roots": {"base": [root.join("srv/salt")]},
            "pillar_roots": {"base": [root.join("srv/pillar")]},
            // How long a call waits for a minion that is not there.
            "timeout": 3,
            "gather_job_timeout": 2,
            "netapi_enable_clients": netapi_clients,
            "external_auth": {"file": file_eauth},
            "auth.pam.python": self.pam_python(),
            "rest_cherrypy": {
                "host": "127.0.0.1",
                "port": self.ports.api,
                "ssl_crt": self.tls("server.crt"),
                "ssl_key": self.tls("server.key"),
                "ssl_chain": self.tls("ca.crt"),
                "log_access_file": self.log("api_access"),
                "log_error_file": self.log("api_error"),
            },
            "reactor": reactor,
            "heat_bootstrap": {
                "host": "127.0.0.1",
                "port": self.ports.service,
                "ssl_crt": self.tls("server.crt"),
                "ssl_key": self.tls("server.key"),
                "ssl_chain": self.tls("ca.crt"),
            },
        })
    }

    /// Starts salt-master if it does not run. With an API there, returns when a login succeeds.
    pub fn start_master(&self) -> Result<()> {
        let mut daemons = self.daemons.lock().unwrap();
        if daemons.master.is_none() {
            daemons.master = Some(self.spawn("salt-master")?);
        }
        let has_api = daemons.api.is_some();
        drop(daemons);
        if has_api { self.wait_until_ready() } else { Ok(()) }
    }

    /// A worker of Salt 3008 that is asked for something while it still loads its modules may fail at that, says that it "will be
    /// non-functional", and is one for as long as it lives: every third login is refused then, and every third event lost (3008.5,
    /// `salt/master.py`, `_load_modules`). The master starts another in its place.
    pub fn end_broken_workers(&self) {
        let log = fs::read_to_string(self.log("master")).unwrap_or_default();
        for line in log.lines().filter(|line| line.contains("worker will be non-functional")) {
            let pid = line.split_once("] MWorker").and_then(|(before, _)| before.rsplit_once('[')?.1.parse().ok());
            let alive =
                pid.filter(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.contains("salt-master")));
            if let Some(pid) = alive {
                eprintln!("salt-master: a worker ({pid}) could not load its modules, and is ended");
                // It may have ended by itself.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// salt-master and salt-api make the same directories, and one that loses the race for them ends with an error: the
    /// first has made them all when it writes its pid file.
    fn await_directories(&self) -> Result<()> {
        let made = || self.root().join("var/run/salt-master.pid").exists().then_some(());
        until(READY_WITHIN, made).with_context(|| format!("salt-master does not come up\n{}", self.log_tail()))
    }

    /// Stops salt-master; salt-api stays.
    pub fn stop_master(&self) {
        let child = self.daemons.lock().unwrap().master.take();
        self.end("salt-master", child);
    }

    /// Stops salt-api, with which all its sessions end; salt-master stays.
    pub fn stop_api(&self) {
        let child = self.daemons.lock().unwrap().api.take();
        self.end("salt-api", child);
    }

    /// Stops salt-api if it runs, starts it anew and returns when a login succeeds.
    pub fn restart_api(&self) -> Result<()> {
        self.stop_api();
        self.daemons.lock().unwrap().api = Some(self.spawn("salt-api")?);
        self.wait_until_ready()
    }

    fn end(&self, program: &str, child: Option<Child>) {
        let Some(mut child) = child else { return };
        end_daemons(program, &self.root(), Duration::from_secs(10));
        reap(&mut child);
    }

    fn spawn(&self, program: &str) -> Result<Child> {
        let out = fs::OpenOptions::new().create(true).append(true).open(self.log(&format!("{program}.out")))?;
        Command::new(self.venv.program(program))
            .env("PYTHONPATH", &self.extension)
            .arg("-c")
            .arg(self.root().join("etc/salt"))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))
    }

    fn wait_until_ready(&self) -> Result<()> {
        let ready = until(READY_WITHIN, || {
            let mut daemons = self.daemons.lock().unwrap();
            let Daemons { master, api } = &mut *daemons;
            for child in [master, api].into_iter().flatten() {
                if let Ok(Some(status)) = child.try_wait() {
                    return Some(Err(anyhow::anyhow!("a daemon ended with {status}")));
                }
            }
            drop(daemons);
            self.session("admin").ok().filter(|_| self.service_answers()).map(|_| Ok(()))
        });
        ready.and_then(|ready| ready).with_context(|| format!("the master is not ready\n{}", self.log_tail()))
    }

    /// An API client, for tests that need their own sessions.
    pub fn api(&self) -> Result<Api> {
        Api::new(&self.api_url(), &self.authority.ca_pem())
    }

    /// Logs in as this user of eauth `file`.
    pub fn session(&self, user: &str) -> Result<Session> {
        let (user, password) = self.credentials(user);
        self.api()?.login(&user, &password, "file")
    }

    /// The name and password of an account of eauth `file`: boot, bootfinger, nofinger, onlyaccept, noperm or admin.
    pub fn credentials(&self, user: &str) -> (String, String) {
        (user.to_owned(), password(user))
    }

    /// Runs a function on a minion, as admin.
    pub fn local(&self, id: &str, fun: &str, arg: &[&str]) -> Result<Value> {
        self.session("admin")?.local(id, fun, arg)
    }

    /// salt-master's process id, if it was started.
    pub fn master_pid(&self) -> Option<u32> {
        self.daemons.lock().unwrap().master.as_ref().map(Child::id)
    }

    /// salt-api's process id, if it was started.
    pub fn api_pid(&self) -> Option<u32> {
        self.daemons.lock().unwrap().api.as_ref().map(Child::id)
    }

    /// Runs a runner as an operator does, by salt-run; the value is what it returned.
    pub fn salt_run(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(self.venv.program("salt-run"));
        command.arg("-c").arg(self.root().join("etc/salt")).args(["--out", "json", "--log-level", "quiet"]).args(arguments);
        let ended = run(&mut command, Duration::from_secs(60))?;
        if ended.code != 0 {
            bail!("salt-run {arguments:?} failed ({}): {}{}", ended.code, ended.stdout, ended.stderr);
        }
        serde_json::from_str(&ended.stdout).with_context(|| format!("salt-run {arguments:?} printed {}", ended.stdout))
    }

    /// The operator's command of the extension; what it printed.
    pub fn heat_bootstrap(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.heat_bootstrap_command();
        let ended = run(command.args(arguments), Duration::from_secs(60))?;
        if ended.code != 0 {
            bail!("heat-bootstrap {arguments:?} failed ({}): {}{}", ended.code, ended.stdout, ended.stderr);
        }
        Ok(ended.stdout)
    }

    /// The same, before it is given its arguments.
    pub fn heat_bootstrap_command(&self) -> Command {
        let mut command = Command::new(self.venv.program("python"));
        command
            .env("PYTHONPATH", &self.extension)
            .arg(self.extension.join("bin/heat-bootstrap"))
            .arg("-c")
            .arg(self.root().join("etc/salt"));
        command
    }

    /// Has an operator make a token for this id or pattern, by default for the state `ok`, once, and without a pin: a gate shows another
    /// key than the service.
    pub fn token(&self, id: &str, more: &[&str]) -> Result<String> {
        let mut arguments = vec!["token", "create", id];
        if !more.contains(&"--states") {
            arguments.extend(["--states", "ok"]);
        }
        if !more.contains(&"--pin") {
            arguments.extend(["--pin", "none"]);
        }
        arguments.extend(more);
        let token = self.heat_bootstrap(&arguments)?.trim().to_owned();
        if !token.starts_with("hsb2.") {
            bail!("no token: {token}");
        }
        Ok(token)
    }

    /// What the service has decided about this id, since it was last forgotten, the oldest first.
    pub fn decisions(&self, id: &str) -> Vec<Value> {
        let before = self.forgotten.lock().unwrap().get(id).copied().unwrap_or_default();
        self.all_decisions(id).split_off(before)
    }

    fn all_decisions(&self, id: &str) -> Vec<Value> {
        let said = self.heat_bootstrap(&["audit", id, "--json", "--count", "10000"]).unwrap_or_default();
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// Nobody of this id has been here: a case that is tried once more must not meet what is left of its first try.
    pub fn forget(&self, id: &str) -> Result<()> {
        if !self.key_states(id).is_empty() {
            self.remove_key(id)?;
        }
        let tried_before = self.forgotten.lock().unwrap().contains_key(id);
        let decided = if tried_before { self.all_decisions(id).len() } else { 0 };
        self.forgotten.lock().unwrap().insert(id.to_owned(), decided);
        Ok(())
    }

    /// The enrolment service's URL.
    pub fn service_url(&self) -> String {
        format!("https://{}", self.service_address())
    }

    /// The enrolment service's address.
    pub fn service_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.service))
    }

    fn service_answers(&self) -> bool {
        self.api().and_then(|api| api.get(&format!("{}/v1/status", self.service_url()))).is_ok_and(|said| said["protocol"] == 1)
    }

    /// Where the reactors lie.
    pub fn reactor_dir(&self) -> PathBuf {
        self.root().join("srv/reactor")
    }

    /// Where the master's keys lie.
    pub fn pki_dir(&self) -> PathBuf {
        self.root().join("etc/salt/pki/master")
    }

    /// Where the keys of a minion id lie, with their text.
    pub fn key_states(&self, id: &str) -> Vec<(KeyState, String)> {
        let read = |state| Some((state, fs::read_to_string(self.key_file(id, state)).ok()?));
        KeyState::ALL.into_iter().filter_map(read).collect()
    }

    /// Puts a public key in place, as if it had come over the wire and been decided on.
    pub fn place_key(&self, id: &str, state: KeyState, pem: &str) -> Result<()> {
        let file = self.key_file(id, state);
        if fs::read_to_string(&file).is_ok_and(|there| there == pem) {
            return Ok(());
        }
        fs::create_dir_all(file.parent().context("a key lies in a directory")?)?;
        // A worker of Salt 3006 that meets half a key never answers anybody again (`salt/channel/server.py`, validate_token).
        let unnamed = self.pki_dir().join(format!(".{}", self.roots.fetch_add(1, Ordering::Relaxed)));
        fs::write(&unnamed, pem).and_then(|()| fs::rename(&unnamed, &file)).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Removes whatever keys there are under this id, through the API so that a running master forgets them too.
    pub fn remove_key(&self, id: &str) -> Result<()> {
        self.session("admin")?.wheel("key.delete", json!({"match": id}))?;
        Ok(())
    }

    /// The fingerprint of the master's own key, as a minion computes it.
    pub fn public_key_finger(&self) -> Result<String> {
        Ok(finger(&self.public_key()?))
    }

    /// The master's public key.
    pub fn public_key(&self) -> Result<String> {
        let file = self.root().join("etc/salt/pki/master/master.pub");
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The requests that salt-api has served, as `METHOD PATH`, the lab's own included.
    pub fn api_requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log("api_access")).unwrap_or_default();
        let request = |line: &str| Some(line.split('"').nth(1)?.rsplit_once(' ')?.0.to_owned());
        log.lines().filter_map(request).collect()
    }

    /// How many requests there were up to now.
    pub fn mark(&self) -> usize {
        self.api_requests().len()
    }

    /// The requests since a mark.
    pub fn api_requests_since(&self, mark: usize) -> Vec<String> {
        self.api_requests().split_off(mark)
    }

    /// The end of every log, for a failure's message.
    pub fn log_tail(&self) -> String {
        let mut tail = String::new();
        for name in ["salt-master.out", "master", "salt-api.out", "api", "api_error"] {
            let log = fs::read_to_string(self.log(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            tail.push_str(&format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(25)..].join("\n")));
        }
        tail
    }

    /// The Salt it runs.
    pub fn venv(&self) -> &Venv {
        &self.venv
    }

    /// The CA behind its API.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The API's URL.
    pub fn api_url(&self) -> String {
        format!("https://{}", self.api_address())
    }

    /// The API's address.
    pub fn api_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.api))
    }

    /// The ports that minions use, as options of a minion.
    pub fn minion_ports(&self) -> Value {
        json!({"master_port": self.ports.ret, "publish_port": self.ports.publish})
    }

    /// The master's `file_roots`, where a test may add states.
    pub fn states_dir(&self) -> PathBuf {
        self.root().join("srv/salt")
    }

    /// A new empty directory that goes with the master.
    pub fn new_dir(&self) -> Result<PathBuf> {
        let number = self.roots.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("n{number}"));
        fs::create_dir(&dir)?;
        Ok(dir)
    }

    fn root(&self) -> PathBuf {
        self.dir.join("m")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.root().join("var/log/salt").join(name)
    }

    fn tls(&self, name: &str) -> PathBuf {
        self.root().join("etc/salt").join(name)
    }

    fn users_file(&self) -> PathBuf {
        self.root().join("etc/salt/users")
    }

    fn pam_python(&self) -> PathBuf {
        self.root().join("etc/salt/pam-python")
    }

    fn key_file(&self, id: &str, state: KeyState) -> PathBuf {
        self.pki_dir().join(state.dir()).join(id)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        end_daemons("salt-", &self.dir, Duration::ZERO);
        let Daemons { master, api } = std::mem::take(&mut *self.daemons.lock().unwrap());
        for mut child in [master, api].into_iter().flatten() {
            reap(&mut child);
        }
        // The guard, dropped next, removes the directory.
    }
}

/// Takes a daemon that has ended off the process table, and ends what it left behind: Salt 3008's EventPublisher outlives its
/// master now and then, under a command line that says nothing of whose it is.
fn reap(child: &mut Child) {
    let group = Pid::from_raw(child.id().cast_signed());
    // As a rule there is nothing left.
    let _ = killpg(group, Signal::SIGKILL);
    let _ = child.wait();
}

impl Ports {
    /// Minions know one pair of ports for all their masters.
    fn as_of(self, twin: Option<&Master>) -> Ports {
        twin.map_or(self, |twin| Ports { api: self.api, service: self.service, ..twin.ports })
    }

    /// Below the range from which the kernel serves outgoing connections. They are kept as long as the master lives, so that nobody
    /// takes one before its daemon listens, nor while that is being restarted.
    fn pick() -> Result<(Ports, Vec<ClosedPort>)> {
        let mut kept = Vec::new();
        for _ in 0..200 {
            let port = 20_000 + u16::try_from(RandomState::new().hash_one(0) % 12_000)?;
            kept.extend(ClosedPort::take(port));
            if let [publish, ret, api, service] = kept.as_slice() {
                let port = |kept: &ClosedPort| kept.address().port();
                return Ok((Ports { publish: port(publish), ret: port(ret), api: port(api), service: port(service) }, kept));
            }
        }
        bail!("no free ports on loopback");
    }
}

fn password(user: &str) -> String {
    format!("Lab-{user}-Secret")
}

fn users_file() -> String {
    permissions()
        .iter()
        .map(|(user, _)| {
            let hash: String = digest(&SHA512, password(user).as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{user}:{hash}\n")
        })
        .collect()
}

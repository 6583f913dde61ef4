//! Machines to install on, and the servers that they install from.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Answer, Request, Server};
use crate::process::{self, Finished, Guard};
use crate::schema;
use crate::tls::{Authority, Validity};
use crate::venv::{Line, Venv, salt};

/// What is enabled with the bootstrap of a package.
pub const UNITS: [&str; 2] = ["heat-salt-bootstrap.service", "heat-salt-bootstrap-signal.service"];

/// No story takes longer, on a slow machine, with a cold cache.
const LONGEST: Duration = Duration::from_secs(300);

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../install").join(name)
}

/// What ships, so that it runs in roots with an older libc than this machine's; `make test-install` names it.
pub fn agent() -> PathBuf {
    std::env::var_os("HSB_AGENT").expect("HSB_AGENT names the static program: run `make test-install`").into()
}

/// What a script prints: the path of what it has built, or found. A mirror of packages may be away for a moment.
fn built(name: &str, arguments: &[&Path]) -> PathBuf {
    for _ in 0..3 {
        let output = Command::new(script(name)).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        if output.status.success() {
            return String::from_utf8(output.stdout).unwrap().trim_end().into();
        }
    }
    panic!("{name} {arguments:?} failed three times");
}

static SALTS: LazyLock<[Venv; 2]> = LazyLock::new(|| [salt(Line::Lts3006).unwrap(), salt(Line::Lts3008).unwrap()]);
static REPOSITORIES: LazyLock<PathBuf> = LazyLock::new(|| built("repositories.sh", &[SALTS[0].dir(), SALTS[1].dir()]));

/// Builds what cases of installing need, or finds it: the roots of machines, and the repositories. A case that built it would take minutes,
/// and fail every later one if it could not.
pub fn prepare() {
    for root in ["bookworm", "el", "cloud", "bullseye", "trixie"] {
        built("roots.sh", &[Path::new(root)]);
    }
    LazyLock::force(&REPOSITORIES);
}

/// A file of the repositories, by its path below them.
pub fn file(path: &str) -> Vec<u8> {
    fs::read(REPOSITORIES.join(path)).unwrap()
}

/// What a server does with its next requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It serves.
    Good,
    /// It sends the first half of this many packages and breaks off.
    Halves(u32),
    /// It takes its time for each answer.
    Slow(Duration),
    /// It serves only who comes by way of a proxy: with a whole URL in the request, as proxies are asked.
    ProxyOnly,
    /// It serves only who shows this as the request's `Authorization`.
    Private(&'static str),
}

/// A server of the repositories.
pub struct Mirror {
    server: Server,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    /// Serves them by http, or by https with a certificate of this authority.
    pub fn start(authority: Option<&Authority>) -> Mirror {
        let tls = authority.map(|authority| authority.issue(&["127.0.0.1"], Validity::Current).unwrap().server_config().unwrap());
        let (mood, asked) = (Arc::new(Mutex::new(Mood::Good)), Arc::new(Mutex::new(Vec::new())));
        let answer = {
            let (mood, asked) = (Arc::clone(&mood), Arc::clone(&asked));
            move |request: &Request| {
                asked.lock().unwrap().push(request.path.clone());
                if let Mood::Private(wanted) = *mood.lock().unwrap()
                    && request.header("authorization") != Some(wanted)
                {
                    let headers = vec![("WWW-Authenticate".to_owned(), "Basic realm=\"mirror\"".to_owned())];
                    return Answer::Reply { status: 401, headers, body: Vec::new() };
                }
                serve(&request.path, &mut mood.lock().unwrap())
            }
        };
        Mirror { server: Server::start(tls, answer).unwrap(), mood, asked }
    }

    /// The URL of something on it.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.server.url())
    }

    /// Changes how it serves.
    pub fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Closes its port, or opens it again.
    pub fn set_down(&self, down: bool) {
        self.server.set_down(down);
    }

    /// What it was asked for up to now.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The answer of a server that serves.
pub fn served(path: &str) -> Answer {
    serve(path, &mut Mood::Good)
}

fn serve(asked: &str, mood: &mut Mood) -> Answer {
    let through_proxy = asked.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
    if *mood == Mood::ProxyOnly && through_proxy.is_none() {
        return Answer::text(403, "text/plain", "ask the proxy");
    }
    let path = through_proxy.map_or(asked.trim_start_matches('/'), |(_, path)| path);
    let Ok(content) = fs::read(REPOSITORIES.join(path)) else { return Answer::text(404, "text/plain", "not here") };
    let is_package = [".rpm", ".deb"].iter().any(|end| path.ends_with(end));
    if let (Mood::Halves(left @ 1..), true) = (&mut *mood, is_package) {
        *left -= 1;
        let mut raw = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
        raw.extend_from_slice(&content[..content.len() / 2]);
        return Answer::Raw(raw);
    }
    let reply = Answer::Reply { status: 200, headers: Vec::new(), body: content };
    match *mood {
        Mood::Slow(pause) => Answer::After(pause, Box::new(reply)),
        _ => reply,
    }
}

/// A machine.
pub struct Vm {
    dir: PathBuf,
    _guard: Guard,
}

/// How the agent ended.
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// What it wrote to standard error.
    pub stderr: String,
    /// Its report; null if there is none.
    pub report: Value,
}

impl Vm {
    /// A fresh one of this kind, with the agent and this `install` section in its configuration.
    pub fn new(root: &str, install: &Value) -> Vm {
        let dir = tempfile::Builder::new().prefix("hsb-vm-").tempdir().unwrap().keep();
        let clean_up = format!("'{}' down \"$SUBJECT\"", script("vm.sh").display());
        let guard = Guard::new(&clean_up, dir.to_str().unwrap()).unwrap();
        let up = Command::new(script("vm.sh")).arg("up").arg(built("roots.sh", &[Path::new(root)])).arg(&dir).status().unwrap();
        assert!(up.success(), "no machine of {root}");
        let vm = Vm { dir, _guard: guard };
        fs::copy(agent(), vm.path("usr/bin/heat-salt-bootstrap")).unwrap();
        vm.configure(install);
        vm
    }

    /// One of an image that carries a package that was built of this tree, in this version, and nothing that is configured.
    pub fn carrying(root: &str, format: &str, version: &str) -> Vm {
        let dir = std::env::var_os("HSB_PACKAGES")
            .expect("HSB_PACKAGES names the directory of the packages: run `make test-install` or `make test-heat`");
        let name = match format {
            "rpm" => format!("heat-salt-bootstrap-{version}-1.{}.rpm", std::env::consts::ARCH),
            _ => format!("heat-salt-bootstrap_{version}-1_{}.deb", if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }),
        };
        let vm = Vm::new(root, &json!({}));
        fs::remove_file(vm.path("usr/bin/heat-salt-bootstrap")).unwrap();
        fs::remove_dir_all(vm.path("etc/heat-salt-bootstrap")).unwrap();
        fs::copy(Path::new(&dir).join(name), vm.path("opt/package")).unwrap();
        // In the root for RPM no package owns the shell; tests/packages installs by dnf and apt.
        let install = if format == "rpm" { "rpm --install --nodeps --nosignature" } else { "dpkg --install" };
        let installed = vm.sh(&format!("{install} /opt/package && systemctl enable heat-salt-bootstrap"));
        assert_eq!(installed.code, 0, "{}", installed.stderr);
        for unit in UNITS {
            assert!(vm.path("etc/systemd/system/multi-user.target.wants").join(unit).is_symlink(), "{unit} is not enabled");
        }
        vm
    }

    /// What is booted without a cloud is not multi-user.target but a smaller one: it wants this too from now on.
    pub fn story_wants(&self, unit: &str) {
        let wants = self.path("etc/systemd/system/story.target.wants");
        fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink(format!("../{unit}"), wants.join(unit)).unwrap();
    }

    /// Its processes that call themselves so, by what this machine calls them: those that came first are first.
    pub fn processes(&self, name: &str) -> Vec<i32> {
        let its = fs::metadata(self.path("")).unwrap();
        let found = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_its = |pid: &i32| {
            let root = fs::metadata(format!("/proc/{pid}/root/"));
            root.is_ok_and(|root| (root.dev(), root.ino()) == (its.dev(), its.ino()))
                && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let mut all: Vec<i32> = found.filter(is_its).collect();
        all.sort_unstable();
        all
    }

    /// Where a file of it lies on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join("tree").join(path)
    }

    /// The text of one of its files; empty if it is not there.
    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Writes its configuration: a master that is never met, and this `install` section.
    pub fn configure(&self, install: &Value) {
        let finger = vec!["ab"; 32].join(":");
        let minion = json!({"id": "web-1", "master": "127.0.0.1", "master_finger": finger});
        self.write_config(&json!({"minion": minion, "accept": "none", "install": install, "deadline": "60s"}));
    }

    /// Writes its configuration.
    pub fn write_config(&self, config: &Value) {
        let file = self.path("etc/heat-salt-bootstrap/config.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, config.to_string()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Changes one key of its configuration.
    pub fn set(&self, pointer: &str, value: Value) {
        let mut config: Value = serde_json::from_str(&self.text("etc/heat-salt-bootstrap/config.json")).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        self.write_config(&config);
    }

    /// Trusts this CA.
    pub fn trust(&self, authority: &Authority) {
        let bundle = self.path("etc/ssl/certs/ca-certificates.crt");
        let all = format!("{}\n{}", fs::read_to_string(&bundle).unwrap_or_default(), authority.ca_pem());
        fs::write(bundle, all).unwrap();
    }

    /// Runs a piece of shell.
    pub fn sh(&self, story: &str) -> Finished {
        let mut command = Command::new(script("vm.sh"));
        command.arg("run").arg(&self.dir).arg(story).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        process::run(&mut command, LONGEST).unwrap()
    }

    /// Runs `install` after this piece of shell, which may start what is in its way.
    pub fn install_after(&self, before: &str) -> Ended {
        let finished = self.sh(&format!("{before}\nheat-salt-bootstrap install"));
        let report = schema::report(&self.text("var/lib/heat-salt-bootstrap/report.json"));
        Ended { code: finished.code, stderr: finished.stderr, report }
    }

    /// Runs `install`.
    pub fn install(&self) -> Ended {
        self.install_after("")
    }

    /// Boots it; `story` is a piece of shell that runs in it, with both Salts in their places.
    pub fn boot(&self, story: &str) -> String {
        self.start("boot", story, LONGEST)
    }

    fn start(&self, how: &str, story: &str, within: Duration) -> String {
        fs::write(self.path("opt/story"), story).unwrap();
        let mut command = Command::new(script("vm.sh"));
        command.arg(how).arg(&self.dir).args(environments());
        let finished = process::run(&mut command, within).unwrap();
        // What took so long is worth knowing, also where the case passes.
        if finished.stderr.contains("vm.sh: ") {
            eprintln!("{}", finished.stderr);
        }
        fs::read_to_string(self.dir.join("console")).unwrap_or_default()
    }

    /// Boots it as a cloud would, with this user_data on a config drive; `story` runs in it when cloud-init has ended.
    pub fn boot_with(&self, name: &str, user_data: &str, story: &str) -> String {
        self.write_drive(&self.path("var/lib/cloud/seed/config_drive/openstack/latest"), name, user_data);
        self.start("cloud", story, LONGEST)
    }

    /// Boots that once more: it is the same instance.
    pub fn boot_again(&self, story: &str) -> String {
        self.start("cloud", story, LONGEST)
    }

    /// The same in an emulated computer, which takes minutes. Returns what its console showed.
    pub fn emulate(&self, name: &str, user_data: &str, story: &str) -> String {
        let drive = self.dir.join("config-drive/openstack/latest");
        self.write_drive(&drive, name, user_data);
        self.start("qemu", story, LONGEST * 5)
    }

    fn write_drive(&self, drive: &Path, name: &str, user_data: &str) {
        fs::create_dir_all(drive).unwrap();
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        fs::write(drive.join("meta_data.json"), json!({"uuid": uuid.trim(), "name": name, "hostname": name}).to_string()).unwrap();
        fs::write(drive.join("user_data"), user_data).unwrap();
    }

    /// The version that its package database has.
    pub fn version(&self) -> String {
        let asked = "rpm --query --queryformat '%{VERSION}' salt-minion \
            || dpkg-query --show --showformat '${db:Status-Status} ${Version}' salt-minion";
        let printed = self.sh(&format!("{{ {asked}; }} 2>/dev/null")).stdout;
        let version = printed.trim().strip_prefix("installed ").unwrap_or(printed.trim());
        let last = version.lines().last().unwrap_or_default().trim_start_matches("installed ");
        if last.contains(' ') { String::new() } else { last.to_owned() }
    }
}

/// The Salts, and the interpreter that they run on, unless every root has it.
fn environments() -> BTreeSet<PathBuf> {
    let interpreter = |venv: &Venv| {
        let python = fs::canonicalize(venv.program("python")).unwrap();
        python.parent().and_then(Path::parent).unwrap().to_owned()
    };
    let all = SALTS.iter().flat_map(|venv| [venv.dir().to_owned(), interpreter(venv)]);
    all.filter(|dir| dir != Path::new("/usr")).collect()
}

impl Ended {
    /// It failed with this code and reason, and says all of this.
    #[track_caller]
    pub fn failed(&self, code: i32, reason: &str, says: &[&str]) -> &Ended {
        self.expect(self.code == code && self.report["reason"] == reason, &format!("code {code}, {reason}"));
        for word in says {
            self.expect(self.stderr.contains(word), word);
        }
        self
    }

    /// It did what was to be done.
    #[track_caller]
    pub fn done(&self, changed: bool) -> &Ended {
        self.expect(self.code == 0, "success");
        let step = self.report["steps"].as_array().and_then(|steps| steps.iter().find(|step| step["name"] == "install"));
        self.expect(step.is_some_and(|step| step["changed"] == changed), &format!("install: changed {changed}"));
        self
    }

    /// Panics with all there is to see unless it is so.
    #[track_caller]
    pub fn expect(&self, so: bool, what: &str) {
        assert!(so, "expected: {what}\nexit code {}\nreport {:#}\n{}", self.code, self.report, self.stderr);
    }
}

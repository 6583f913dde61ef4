//! How long a bootstrap takes: the agent beside a careful script and beside what Salt itself needs, in one run and on
//! the same real Salt, since seconds from two machines, or two hours, compare nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::api::Session;
use lab::chart;
use lab::keys::{KeyPair, KeyState, new_key_pair};
use lab::master::Master;
use lab::minion::{Root, enrolling};
use lab::process::{family, high_water, until};
use lab::venv::Line;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::ClockId;
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The reactor that the project ships stands behind this hook.
const HOOK: &str = "states/shipped";
const STATE: &str = "ok";
/// Everything that runs here gets this and nothing else of the environment, as the minion does from the agent.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// For any one wait.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often `--version` is run.
const STARTS: usize = 200;

/// Options of the minion that the agent sets, and that have a part in the time: Salt's default is 10 s of sleep between two
/// questions whether the key has been accepted.
type Tuning = &'static [(&'static str, u64)];
const TUNED: Tuning = &[("acceptance_wait_time", 1), ("cache_jobs", 1)];
const DEFAULTS: Tuning = &[];

/// The ways to bootstrap a minion that are compared, in the order in which they take turns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Agent,
    AgentAsking,
    Careful,
    CarefulDefaults,
    Floor,
    AgentEnrolling,
    AgentKeyed,
    FloorPlaced,
}

/// Where a page shows the ways, best first: the word for its colour, and what it is called there.
const SHOWN: [(Way, &str, &str); 7] = [
    (Way::FloorPlaced, "floor", "the floor: Salt alone, with a key placed beforehand"),
    (Way::AgentKeyed, "agent", "this program, by token, its key pair made beforehand"),
    (Way::AgentEnrolling, "agent", "this program, by token (`accept: enroll`)"),
    (Way::Floor, "floor", "the floor of the classic chain"),
    (Way::Agent, "agent", "this program, by the classic chain (`accept: wheel`)"),
    (Way::Careful, "script", "a careful script, its minion tuned"),
    (Way::CarefulDefaults, "script", "a careful script, Salt's defaults"),
];

impl Way {
    const ALL: [Way; 8] = [
        Way::Agent,
        Way::AgentAsking,
        Way::Careful,
        Way::CarefulDefaults,
        Way::Floor,
        Way::AgentEnrolling,
        Way::AgentKeyed,
        Way::FloorPlaced,
    ];

    fn name(self) -> &'static str {
        match self {
            Way::Agent => "a   the agent, given the master's fingerprint",
            Way::AgentAsking => "a2  the agent, asking the API for it first",
            Way::Careful => "b   a careful script, minion tuned as the agent's",
            Way::CarefulDefaults => "b0  the script, minion with Salt's defaults",
            Way::Floor => "c   the floor: each part the moment it can be",
            Way::AgentEnrolling => "e   the agent by accept: enroll",
            Way::AgentKeyed => "k   the same with its key pair made beforehand",
            Way::FloorPlaced => "p   the floor with a key placed beforehand",
        }
    }
}

/// What the rounds brought.
#[derive(Default)]
struct Readings {
    seconds: BTreeMap<Way, Vec<f64>>,
    /// When each part was over, in seconds since the start.
    parts: BTreeMap<Way, Vec<(String, Vec<f64>)>>,
    /// Of (a): the agent's own CPU time in milliseconds, its peak memory in MB, and its requests.
    cpu: Vec<f64>,
    memory: Vec<f64>,
    requests: Vec<f64>,
    second_run: Vec<f64>,
    firings: u32,
}

/// Compares, and prints a table. It measures and asserts nothing about time.
///
/// With a directory of pages what was measured is written there: bench.json, its drawing, and its table in the README above.
pub fn bench(agent: &Path, line: Line, rounds: usize, pages: Option<&Path>) -> Result<()> {
    let agent = found(agent)?;
    let load = load_average();
    eprintln!("Starting a real salt-master and salt-api {line}.");
    let master = Master::start(line)?;
    let mut readings = Readings::default();
    // The first call of each kind makes salt-api load its modules: nobody's time.
    eprintln!("Warming up.");
    careful(&master, "warm", TUNED)?;
    for round in 1..=rounds {
        for way in Way::ALL {
            let id = format!("bench-{round}-{}", way as u8);
            let seconds = match way {
                Way::Agent | Way::AgentAsking | Way::AgentEnrolling | Way::AgentKeyed => readings.agent(way, &agent, &master, &id)?,
                Way::Careful => careful(&master, &id, TUNED)?,
                Way::CarefulDefaults => careful(&master, &id, DEFAULTS)?,
                Way::Floor => readings.floor(&master, &id)?,
                Way::FloorPlaced => readings.floor_placed(&master, &id)?,
            };
            eprintln!("round {round} of {rounds}: {seconds:6.2} s  {}", way.name());
            readings.seconds.entry(way).or_default().push(seconds);
            // The minion is gone; the master may still be writing down what it returned.
            thread::sleep(Duration::from_secs(1));
        }
    }
    drop(master);
    println!("Salt {line}, {rounds} rounds taking turns, medians. Load average before {load}, after {}.", load_average());
    readings.print(&agent)?;
    if let Some(pages) = pages {
        readings.write(pages, line, rounds)?;
    }
    Ok(())
}

/// Two programs beside each other, such as what a change was made of and what it made: `ratio` is what `agent` takes of what `other`
/// takes, the median of all rounds. What stands beside it tells what that is worth: half of the rounds lie between these two.
/// One that knows no `accept: enroll` yet is compared by the classic way only.
pub fn beside(agent: &Path, other: &Path, classic_only: bool, line: Line, rounds: usize) -> Result<()> {
    let (agent, other) = (found(agent)?, found(other)?);
    let programs = [&*agent, &*other];
    let ways: &[Way] = if classic_only { &[Way::Agent] } else { &[Way::Agent, Way::AgentEnrolling] };
    let load = load_average();
    eprintln!("Starting a real salt-master and salt-api {line}.");
    let master = Master::start(line)?;
    eprintln!("Warming up.");
    careful(&master, "warm", TUNED)?;
    let mut taken: BTreeMap<(Way, &str), [Vec<f64>; 2]> = BTreeMap::new();
    for round in 1..=rounds {
        for way in ways.iter().copied() {
            let mut now = [Vec::new(), Vec::new()];
            // Who comes first takes turns, too.
            for which in [round % 2, (round + 1) % 2] {
                let root = configured(way, &master, &format!("beside-{round}-{}-{which}", way as u8))?;
                let first = run(programs[which], &root)?;
                check_result(&root)?;
                let second = run(programs[which], &root)?;
                now[which] = vec![
                    ("bootstrap, s", first.seconds),
                    ("bootstrap, CPU in ms", first.cpu.as_secs_f64() * 1e3),
                    ("second run, s", second.seconds),
                    ("second run, CPU in ms", second.cpu.as_secs_f64() * 1e3),
                ];
                drop(root);
                thread::sleep(Duration::from_secs(1));
            }
            for (which, now) in now.into_iter().enumerate() {
                eprintln!("round {round} of {rounds}: {} {now:.2?}  {}", ["this ", "other"][which], way.name());
                now.into_iter().for_each(|(what, value)| taken.entry((way, what)).or_default()[which].push(value));
            }
        }
    }
    drop(master);
    println!("Salt {line}, {rounds} rounds taking turns, medians. Load average before {load}, after {}.", load_average());
    println!("this  {}\nother {}\n", agent.display(), other.display());
    println!("{:60}{:>9}{:>9}{:>9}{:>16}", "", "this", "other", "ratio", "half between");
    for ((way, what), [this, other]) in &taken {
        let mut ratios: Vec<f64> = this.iter().zip(other).map(|(this, other)| this / other).collect();
        ratios.sort_by(f64::total_cmp);
        let [from, to] = [ratios.len() / 4, ratios.len() - 1 - ratios.len() / 4].map(|at| ratios[at]);
        let what = format!("{what}: {}", way.name());
        println!("{what:60}{:>9.2}{:>9.2}{:>9.3}{from:>10.3}-{to:.3}", median(this), median(other), median(&ratios));
    }
    Ok(())
}

/// A root in which the agent bootstraps in this way.
fn configured(way: Way, master: &Master, id: &str) -> Result<Root> {
    let root = Root::new(master, id)?;
    let mut config = root.base_config(None);
    config["apply"] = json!({"hook": HOOK, "states": [STATE]});
    if way != Way::AgentAsking {
        config["minion"]["master_finger"] = master.public_key_finger()?.into();
    }
    if way == Way::AgentKeyed {
        place_pair(&root.path().join("etc/salt"), &new_key_pair(master.venv())?)?;
    }
    if matches!(way, Way::AgentEnrolling | Way::AgentKeyed) {
        enrolling(&mut config, master, &master.service_url(), &master.token(id, &["--states", STATE, "--pin", "key"])?);
        config["minion"]["master_finger"].take();
        config["apply"] = json!({"states": [STATE]});
    }
    root.write_config(&config)?;
    Ok(root)
}

/// Puts a minion's key pair where it looks for it.
fn place_pair(etc: &Path, pair: &KeyPair) -> Result<()> {
    fs::create_dir_all(etc.join("pki/minion"))?;
    fs::write(etc.join("pki/minion/minion.pem"), &pair.private_pem)?;
    fs::set_permissions(etc.join("pki/minion/minion.pem"), fs::Permissions::from_mode(0o400))?;
    Ok(fs::write(etc.join("pki/minion/minion.pub"), &pair.public_pem)?)
}

fn run(agent: &Path, root: &Root) -> Result<Spent> {
    let log = root.path().join("agent.log");
    let mut command = bare(agent);
    command.arg("run").arg("--root").arg(root.path()).stderr(fs::File::create(&log)?);
    let spent = Spent::on(&mut command)?;
    if !spent.status.success() {
        bail!("{} ended with {}\n{}", agent.display(), spent.status, fs::read_to_string(&log).unwrap_or_default());
    }
    Ok(spent)
}

impl Readings {
    fn agent(&mut self, way: Way, agent: &Path, master: &Master, id: &str) -> Result<f64> {
        let root = configured(way, master, id)?;
        let mark = master.mark();
        let spent = run(agent, &root)?;
        check_result(&root)?;
        let report = fs::read_to_string(root.path().join("var/lib/heat-salt-bootstrap/report.json"))?;
        let report: Value = serde_json::from_str(&report)?;
        let mut so_far = 0.0;
        for step in report["steps"].as_array().into_iter().flatten() {
            so_far += step["seconds"].as_f64().unwrap_or_default();
            self.note(way, step["name"].as_str().unwrap_or_default(), so_far);
        }
        if way == Way::Agent {
            self.requests.push(master.api_requests_since(mark).len() as f64);
            self.cpu.push(spent.cpu.as_secs_f64() * 1e3);
            self.memory.push(spent.memory);
            self.second_run.push(run(agent, &root)?.seconds);
        }
        Ok(spent.seconds)
    }

    /// The floor. It may know what no agent on another machine can: it looks into the master's directory of keys.
    fn floor(&mut self, master: &Master, id: &str) -> Result<f64> {
        let root = Root::new(master, id)?;
        let etc = configure_minion(master, &root, TUNED)?;
        let session = master.session("admin")?;
        let port = master.minion_ports()["publish_port"].as_u64().context("a port is a number")?;
        let before = connections_to(port);
        let started = Instant::now();
        let seconds = || started.elapsed().as_secs_f64();
        let mut minion = bare(&master.venv().program("salt-minion")).arg("-d").arg("-c").arg(etc).spawn()?;
        let pending = |(state, pem): (KeyState, String)| state == KeyState::Pending && pem.contains("-----END");
        until(PATIENCE, || master.key_states(id).into_iter().any(pending).then_some(()))?;
        self.note(Way::Floor, "key pending", seconds());
        session.wheel("key.accept", json!({"match": id}))?;
        self.note(Way::Floor, "accepted", seconds());
        until(PATIENCE, || (connections_to(port) > before).then_some(()))?;
        self.note(Way::Floor, "connected", seconds());
        self.fire_until_result(&session, &root)?;
        let seconds = seconds();
        self.note(Way::Floor, "result", seconds);
        minion.wait()?;
        check_result(&root)?;
        Ok(seconds)
    }

    /// The floor of `accept: enroll`: the key is there before the clock runs, on both sides.
    fn floor_placed(&mut self, master: &Master, id: &str) -> Result<f64> {
        let root = Root::new(master, id)?;
        let etc = configure_minion(master, &root, TUNED)?;
        let pair = new_key_pair(master.venv())?;
        place_pair(&etc, &pair)?;
        master.place_key(id, KeyState::Accepted, &pair.public_pem)?;
        let session = master.session("admin")?;
        let port = master.minion_ports()["publish_port"].as_u64().context("a port is a number")?;
        let before = connections_to(port);
        let started = Instant::now();
        let mut minion = bare(&master.venv().program("salt-minion")).arg("-d").arg("-c").arg(etc).spawn()?;
        until(PATIENCE, || (connections_to(port) > before).then_some(()))?;
        self.note(Way::FloorPlaced, "connected", started.elapsed().as_secs_f64());
        self.fire_until_result(&session, &root)?;
        let seconds = started.elapsed().as_secs_f64();
        self.note(Way::FloorPlaced, "result", seconds);
        minion.wait()?;
        check_result(&root)?;
        Ok(seconds)
    }

    fn fire_until_result(&mut self, session: &Session, root: &Root) -> Result<()> {
        let body = json!({"tgt": root.id(), "tgt_type": "list", "matcher": "list", "args": STATE, "bootstrap_id": root.id()});
        for _ in 0..10 {
            self.firings += 1;
            session.hook(HOOK, &body)?;
            // A job that is published while the connection is only half made is lost.
            if until(Duration::from_secs(3), || has_result(root).then_some(())).is_ok() {
                return Ok(());
            }
        }
        bail!("no result came of ten hooks");
    }

    fn note(&mut self, way: Way, part: &str, seconds: f64) {
        let parts = self.parts.entry(way).or_default();
        match parts.iter_mut().find(|(name, _)| name == part) {
            Some((_, all)) => all.push(seconds),
            None => parts.push((part.to_owned(), vec![seconds])),
        }
    }

    fn write(&self, pages: &Path, line: Line, rounds: usize) -> Result<()> {
        let of = |way: Way| self.seconds.get(&way).map_or(f64::NAN, |all| median(all));
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let way = |(way, kind, name): (Way, &str, &str)| {
            let all = self.seconds.get(&way).cloned().unwrap_or_default();
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let most = all.iter().copied().fold(0.0, f64::max);
            json!({"name": name, "kind": kind, "median": rounded(median(&all)), "least": rounded(least), "most": rounded(most)})
        };
        let today = String::from_utf8(Command::new("date").args(["--utc", "+%F"]).output()?.stdout)?;
        let cores = thread::available_parallelism()?;
        let measured = json!({
            "how": format!("Salt {line}, medians of {rounds} rounds that took turns, {cores} cores, {}", today.trim()),
            "ways": SHOWN.map(way),
            "keyed_by_floor": rounded(of(Way::AgentKeyed) / of(Way::FloorPlaced)),
            "enroll_by_floor": rounded(of(Way::AgentEnrolling) / of(Way::FloorPlaced)),
            "classic_by_floor": rounded(of(Way::Agent) / of(Way::Floor)),
            "cpu_ms": rounded(median(&self.cpu)),
            "memory_mb": rounded(median(&self.memory)),
        });
        fs::write(pages.join("bench.json"), format!("{measured:#}\n"))?;
        fs::write(pages.join("bench.svg"), chart::drawing(&measured))?;
        let readme = pages.join("../README.md");
        let page = chart::placed(&fs::read_to_string(&readme)?, &measured).context("README.md has no place for the table")?;
        fs::write(readme, page)?;
        println!("Written: {}/bench.json, bench.svg, and the table of README.md.", pages.display());
        Ok(())
    }

    fn print(&self, agent: &Path) -> Result<()> {
        let of = |way: Way| self.seconds.get(&way).map_or(f64::NAN, |all| median(all));
        println!("\n{:48}{:>9}{:>9}{:>9}", "seconds from start to known result", "median", "least", "most");
        for (way, all) in &self.seconds {
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            let most = all.iter().copied().fold(0.0, f64::max);
            println!("{:48}{:>9.2}{least:>9.2}{most:>9.2}", way.name(), median(all));
        }
        println!("\n{:48}{:>9}{:>11}", "", "measured", "budget");
        let [a, a2, b, b0, c, e, k, p] = Way::ALL.map(of);
        line("a / c", a / c, 2, Some(1.15));
        line("a2 / c", a2 / c, 2, None);
        line("e / p", e / p, 2, Some(1.10));
        // What is left without the time to make an RSA key pair, 0.1 to 0.4 s by chance, which p has beforehand.
        line("k / p", k / p, 2, Some(1.10));
        line("e / a", e / a, 2, None);
        line("a / b", a / b, 2, Some(0.35));
        line("a / b0", a / b0, 2, Some(0.35));
        line("requests to salt-api, logout included", median(&self.requests), 0, Some(8.0));
        line("CPU time of the agent's two processes, ms", median(&self.cpu), 1, Some(50.0));
        line("peak memory (VmHWM) of both, MB", median(&self.memory), 1, Some(8.0));
        line("a second run, s", median(&self.second_run), 3, Some(1.0));
        line(&format!("start: one of {STARTS} runs of --version, ms"), start_of(agent)?, 2, None);
        line("size of the agent, bytes", fs::metadata(agent)?.len() as f64, 0, Some(2_200_000.0));
        println!("\nWhere the time goes, in seconds since the start:");
        for (way, parts) in &self.parts {
            let parts: Vec<String> = parts.iter().map(|(name, all)| format!("{name} {:.2}", median(all))).collect();
            println!("{:4}{}", &way.name()[..2], parts.join(", "));
        }
        println!("c and p fired their hooks {} times in {} rounds each", self.firings, self.seconds.get(&Way::Floor).map_or(0, Vec::len));
        Ok(())
    }
}

fn line(what: &str, value: f64, decimals: usize, budget: Option<f64>) {
    let verdict = match budget {
        Some(budget) if value <= budget => format!("{:>11}  ok", format!("<= {budget}")),
        Some(budget) => format!("{:>11}  over", format!("<= {budget}")),
        None => String::new(),
    };
    println!("{what:48}{value:>9.decimals$}{verdict}");
}

/// The careful script; returns its seconds.
fn careful(master: &Master, id: &str, tuning: Tuning) -> Result<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/careful.sh");
    let root = Root::new(master, id)?;
    let etc = configure_minion(master, &root, tuning)?;
    let ca = root.path().join("ca.pem");
    fs::write(&ca, master.authority().ca_pem())?;
    let (user, password) = master.credentials("admin");
    let log = root.path().join("careful.log");
    let mut command = bare(&script);
    command
        .env("API_URL", master.api_url())
        .env("API_CA", ca)
        .envs([("API_USER", user), ("API_PASSWORD", password)])
        .envs([("API_EAUTH", "file"), ("HOOK", HOOK), ("STATES", STATE), ("MINION_ID", id)])
        .env("MINION_PROGRAM", master.venv().program("salt-minion"))
        .env("MINION_ETC", etc)
        .stderr(fs::File::create(&log)?);
    let spent = Spent::on(&mut command)?;
    if !spent.status.success() {
        bail!("{} ended with {}\n{}", script.display(), spent.status, fs::read_to_string(&log).unwrap_or_default());
    }
    check_result(&root)?;
    Ok(spent.seconds)
}

/// Writes the configuration that the agent would have written, but for the tuning; returns its directory.
fn configure_minion(master: &Master, root: &Root, tuning: Tuning) -> Result<PathBuf> {
    let mut options = json!({
        "id": root.id(),
        "master": "127.0.0.1",
        "master_finger": master.public_key_finger()?,
        "root_dir": root.path(),
    });
    for (key, value) in tuning {
        options[key] = json!(value);
    }
    for (key, value) in master.minion_ports().as_object().into_iter().flatten() {
        options[key] = value.clone();
    }
    let etc = root.path().join("etc/salt");
    fs::create_dir_all(etc.join("minion.d"))?;
    // JSON is YAML.
    fs::write(etc.join("minion.d/bench.conf"), options.to_string())?;
    Ok(etc)
}

/// It is run in another directory.
fn found(agent: &Path) -> Result<PathBuf> {
    agent.canonicalize().with_context(|| format!("no agent at {}", agent.display()))
}

fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs([("PATH", PATH), ("LC_ALL", "C"), ("HOME", "/root")]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Is there a whole result on the minion? In a fresh root there is no other job.
fn has_result(root: &Root) -> bool {
    let jobs = fs::read_dir(root.path().join("var/cache/salt/minion/minion_jobs"));
    let whole = |bytes: Vec<u8>| bytes.windows(7).any(|part| part == b"retcode");
    jobs.into_iter().flatten().flatten().any(|job| fs::read(job.path().join("return.p")).is_ok_and(whole))
}

/// The state has really been applied.
fn check_result(root: &Root) -> Result<()> {
    let file = root.path().join("ok.out");
    file.exists().then_some(()).with_context(|| format!("state {STATE} left no {}", file.display()))
}

/// How many connections to this port of loopback the kernel's table shows as established.
fn connections_to(port: u64) -> usize {
    let end = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let there = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&end)) && fields.next() == Some("01")
    };
    table.lines().filter(there).count()
}

/// What the agent took: the one that watches and the one that works, without what they started.
struct Spent {
    status: ExitStatus,
    seconds: f64,
    cpu: Duration,
    /// In MB. It is looked at every 5 ms, so what came in the last of them is not in it.
    memory: f64,
}

impl Spent {
    fn on(command: &mut Command) -> Result<Spent> {
        let program = PathBuf::from(command.get_program());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut memory = 0.0_f64;
        let mut clocks: BTreeMap<i32, Duration> = BTreeMap::new();
        // WNOWAIT leaves the process in the table when it has ended: its clock can still be read then, and unlike
        // rusage's that one is without the processes that it started and waited for.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid), flags)? == WaitStatus::StillAlive {
            let family = family(pid.as_raw(), &program);
            let kib: usize = family.iter().filter_map(|&pid| high_water(pid)).sum();
            memory = memory.max(kib as f64 * 1024.0 / 1e6);
            clocks.extend(family.iter().filter_map(|&pid| Some((pid, clock(Pid::from_raw(pid)).ok()?))));
            if started.elapsed() > PATIENCE * 2 {
                child.kill()?;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let seconds = started.elapsed().as_secs_f64();
        clocks.insert(pid.as_raw(), clock(pid)?);
        Ok(Spent { status: child.wait()?, seconds, cpu: clocks.into_values().sum(), memory })
    }
}

fn clock(pid: Pid) -> Result<Duration> {
    Ok(ClockId::pid_cpu_clock_id(pid)?.now()?.into())
}

/// The median time from exec to exit of `--version`, in milliseconds.
fn start_of(agent: &Path) -> Result<f64> {
    let mut all = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let started = Instant::now();
        bare(agent).arg("--version").status()?;
        all.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&all))
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

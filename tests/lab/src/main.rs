//! The laboratory by hand.

mod bench;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::heat::{Signal, StandIn};
use lab::master::Master;
use lab::minion::{Root, enrolling};
use lab::venv::{Line, salt};
use serde_json::{Value, json};

const USAGE: &str = "\
usage: lab demo AGENT [--failing]   two bootstraps against a real Salt 3008, start to end: the classic chain, then by a token
       lab up [--line 3006|3008]    a master and a stand-in for Heat to play with, until Ctrl-C
       lab bench AGENT [--rounds N] [--line 3006|3008] [--pages DIRECTORY]
                                    the agent's time beside a careful script's and Salt's own
       lab bench AGENT --beside OTHER [--classic] [--rounds N] [--line 3006|3008]
                                    the time and CPU of two agents; --classic for one that knows no accept: enroll
       lab venv 3006|3008           builds the Salt of this line if need be and prints where it is";

/// What the agent exits with when a state failed.
const STATE_FAILED: i32 = 51;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["demo", agent] => demo(Path::new(agent), Outcome::Done),
        ["demo", agent, "--failing"] => demo(Path::new(agent), Outcome::StateFailed),
        ["up"] => up(Line::Lts3008),
        ["up", "--line", line] => line.parse().and_then(up),
        ["bench", agent, options @ ..] => bench(Path::new(agent), options),
        ["venv", line] => line.parse().and_then(salt).map(|venv| println!("{}", venv.dir().display())),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a demonstration is meant to end with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    StateFailed,
}

fn demo(agent: &Path, expected: Outcome) -> Result<()> {
    let agent = agent.canonicalize().with_context(|| format!("no agent at {}", agent.display()))?;
    let (state, code, stack) = match expected {
        Outcome::Done => ("ok", 0, "CREATE_COMPLETE"),
        Outcome::StateFailed => ("fail", STATE_FAILED, "CREATE_FAILED"),
    };

    let mut bench = Bench::start(Line::Lts3008, "web-1")?;
    println!(
        "\n=== The classic chain: login, key.accept, hook, reactor. All files of the VM web-1 lie in {}.",
        bench.root.path().display()
    );
    bench.classic(json!([state]))?;
    let first = bench.shown(&agent)?;

    bench.next("web-2")?;
    println!("\n=== By a token: enrol, apply, report. All files of the VM web-2 lie in {}.", bench.root.path().display());
    bench.configure(json!([state]))?;
    let second = bench.shown(&agent)?;
    bench.agent(&agent, &["status"])?;
    if expected == Outcome::StateFailed {
        bench.agent(&agent, &["explain", &STATE_FAILED.to_string()])?;
    }
    println!("\nmaster# heat-bootstrap fleet\n{}", bench.master.heat_bootstrap(&["fleet"])?);
    println!("Stopping everything.");
    drop(bench);
    for (ended, status) in [first, second] {
        if (ended, status.as_str()) != (code, stack) {
            bail!("expected code {code} and a stack in {stack}, and saw {ended} and {status}");
        }
    }
    Ok(())
}

fn bench(agent: &Path, options: &[&str]) -> Result<()> {
    let (mut line, mut rounds, mut beside, mut classic, mut pages) = (Line::Lts3008, 5, None, false, None);
    let mut rest = options;
    loop {
        rest = match rest {
            [] => break,
            ["--line", value, rest @ ..] => {
                line = value.parse()?;
                rest
            }
            ["--rounds", value, rest @ ..] => {
                rounds = value.parse().context("--rounds wants a number")?;
                rest
            }
            ["--beside", other, rest @ ..] => {
                beside = Some(Path::new(other));
                rest
            }
            ["--pages", directory, rest @ ..] => {
                pages = Some(Path::new(directory));
                rest
            }
            ["--classic", rest @ ..] => {
                classic = true;
                rest
            }
            other => bail!("no such option: {}", other.join(" ")),
        }
    }
    match beside {
        Some(other) => bench::beside(agent, other, classic, line, rounds),
        None => bench::bench(agent, line, rounds, pages),
    }
}

fn up(line: Line) -> Result<()> {
    let bench = Bench::start(line, "web-1")?;
    let config = bench.configure(json!(["ok"]))?;
    let (user, password) = bench.master.credentials("admin");
    println!("\nsalt-api   {}, user {user}, password {password}, eauth file", bench.master.api_url());
    println!("states     {}", bench.master.states_dir().display());
    println!("config     {}", config.display());
    println!("run        heat-salt-bootstrap run --root {}", bench.root.path().display());
    println!("\nSignals to Heat show here. Ctrl-C stops everything.");
    let mut told = 0;
    loop {
        let signals = bench.heat.signals();
        signals[told..].iter().for_each(tell);
        told = signals.len();
        thread::sleep(Duration::from_millis(200));
    }
}

/// A master, Heat and one VM.
struct Bench {
    // Fields are dropped in this order: the minion before its master.
    root: Root,
    heat: StandIn,
    master: Master,
}

impl Bench {
    fn start(line: Line, id: &str) -> Result<Bench> {
        println!("Looking for Salt {line}; it is built if there is none yet, which takes some minutes.");
        salt(line)?;
        println!("Starting a real salt-master and salt-api {line}, and a stand-in for Heat.");
        let master = Master::start(line)?;
        let heat = StandIn::start()?;
        let root = Root::new(&master, id)?;
        Ok(Bench { root, heat, master })
    }

    /// Another VM, and another stack that waits for it.
    fn next(&mut self, id: &str) -> Result<()> {
        self.root = Root::new(&self.master, id)?;
        self.heat = StandIn::start()?;
        Ok(())
    }

    /// Runs the agent, and shows what Heat makes of it.
    fn shown(&self, agent: &Path) -> Result<(i32, String)> {
        let ended = self.agent(agent, &["run"])?;
        println!("\nThe agent ended with code {ended}. What Heat received:");
        self.heat.signals().iter().for_each(tell);
        let (status, reason) = self.heat.stack_status(1);
        println!("The stack is {status}: {reason}");
        Ok((ended, status))
    }

    /// A user of salt-api who may accept keys, and the reactor that masters have.
    fn classic(&self, states: Value) -> Result<PathBuf> {
        let mut config = self.root.base_config(Some(&self.heat));
        config["apply"]["states"] = states;
        self.root.write_config(&config)
    }

    /// By a token that an operator has just made.
    fn configure(&self, states: Value) -> Result<PathBuf> {
        let mut config = self.root.base_config(Some(&self.heat));
        let named: Vec<&str> = states.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let token = self.master.token(self.root.id(), &["--states", &named.join(","), "--pin", "key"])?;
        enrolling(&mut config, &self.master, &self.master.service_url(), &token);
        config["apply"]["states"] = states;
        self.root.write_config(&config)
    }

    /// Runs the agent on this terminal, so that it shows what it would show a person there.
    fn agent(&self, agent: &Path, arguments: &[&str]) -> Result<i32> {
        let mut command = Command::new(agent);
        command.args(arguments);
        if arguments[0] != "explain" {
            command.arg("--root").arg(self.root.path());
        }
        let shown: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        println!("\n$ heat-salt-bootstrap {}", shown.join(" "));
        let status = command.status().with_context(|| format!("cannot run {}", agent.display()))?;
        status.code().context("the agent was killed")
    }
}

fn tell(signal: &Signal) {
    println!("  {} from {}: {}", signal.status, signal.id, signal.reason);
}

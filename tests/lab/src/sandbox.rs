//! A machine that is only a directory: what the agent is given as `--root`, with its configuration, and the agent itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Finished, Running, run};
use crate::schema;

/// Longer than any deadline of a test's own: only a hang comes to it.
const LONGEST: Duration = Duration::from_secs(180);

/// The machine. It is gone when this is dropped.
pub struct Sandbox {
    program: PathBuf,
    root: tempfile::TempDir,
}

impl Sandbox {
    /// A machine on which nothing is, and the program that is going to be its agent.
    pub fn new(program: impl Into<PathBuf>) -> Sandbox {
        Sandbox { program: program.into(), root: tempfile::tempdir().unwrap() }
    }

    /// One with this configuration.
    pub fn configured(program: impl Into<PathBuf>, config: &Value) -> Sandbox {
        let sandbox = Sandbox::new(program);
        sandbox.configure(config);
        sandbox
    }

    /// Gives it another configuration, which only its owner reads.
    pub fn configure(&self, config: &Value) {
        let file = self.write("etc/heat-salt-bootstrap/config.json", &config.to_string());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where something lies.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Where the agent keeps something.
    pub fn state(&self, name: &str) -> PathBuf {
        self.path("var/lib/heat-salt-bootstrap").join(name)
    }

    /// Writes a file, and the directories that lead there.
    pub fn write(&self, below: &str, text: &str) -> PathBuf {
        let file = self.path(below);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    /// The agent with these arguments, for this machine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_by(&[], arguments)
    }

    /// The same by another program, which leads it to where it runs: the words of its command line.
    pub fn command_by(&self, prefix: &[String], arguments: &[&str]) -> Command {
        let mut words = prefix.iter().map(PathBuf::from).chain([self.program.clone()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(arguments).arg("--root").arg(self.root());
        command.env_remove("CREDENTIALS_DIRECTORY");
        command
    }

    /// Starts it.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments)).unwrap()
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        run(&mut self.command(arguments), LONGEST).unwrap()
    }

    /// Runs it to its end, which has to be this exit code.
    #[track_caller]
    pub fn agent(&self, arguments: &[&str], code: i32) -> Finished {
        let finished = self.run(arguments);
        assert_eq!(finished.code, code, "{arguments:?}: {}{}", finished.stdout, finished.stderr);
        finished
    }

    /// The report that lies there.
    #[track_caller]
    pub fn report(&self) -> Value {
        schema::report(&fs::read_to_string(self.state("report.json")).unwrap())
    }

    /// Every file with its content.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap_or_default());
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.root(), &mut found);
        found
    }
}

//! The private root directory of one minion.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::harness::show_on_failure;
use crate::heat::StandIn;
use crate::master::Master;
use crate::process::{daemons, end_daemons, run};

/// Seconds after which a minion that got no answer asks its master once more. Salt's own 60 are more than most cases have in all, and now
/// and then a master on a busy machine loses a request.
const ASKS_AGAIN: u64 = 10;

/// A directory to be given to the agent as `--root`, and what runs from it.
pub struct Root {
    path: PathBuf,
    id: String,
    program: PathBuf,
    base: Value,
}

impl Root {
    /// An empty root for a minion of this id. Two roots may have the same id: they are two machines then.
    pub fn new(master: &Master, id: &str) -> Result<Root> {
        let path = master.new_dir()?;
        show_on_failure(&path.join("var/log/salt/minion"));
        let program = master.venv().program("salt-minion");
        let (username, password) = master.credentials("boot");
        let mut options = master.minion_ports();
        options["request_channel_timeout"] = ASKS_AGAIN.into();
        let base = json!({
            "minion": {
                "id": id,
                "master": "127.0.0.1",
                "program": program,
                "config": options,
                "start": "direct",
            },
            "install": {"source": "preinstalled"},
            "api": {
                "url": master.api_url(),
                "username": username,
                "password": password,
                "eauth": "file",
                "ca": master.authority().ca_pem(),
            },
            "apply": {"states": ["ok"]},
            "deadline": "90s",
        });
        Ok(Root { path, id: id.to_owned(), program, base })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The minion's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A configuration of the agent that works: state `ok`, the account `boot`, and this Heat if there is one.
    pub fn base_config(&self, heat: Option<&StandIn>) -> Value {
        let mut config = self.base.clone();
        if let Some(heat) = heat {
            config["signal"] = heat.handle();
        }
        config
    }

    /// Writes the agent's configuration and returns its path.
    pub fn write_config(&self, config: &Value) -> Result<PathBuf> {
        let path = self.path.join("etc/heat-salt-bootstrap/config.json");
        let dir = path.parent().context("a file has a directory")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        serde_json::to_writer_pretty(file, config)?;
        Ok(path)
    }

    /// Starts the minion without the agent, as an image that has one already would, with these options added.
    pub fn start_minion(&self, options: &Value) -> Result<()> {
        let mut config = json!({"root_dir": self.path, "id": self.id, "master": "127.0.0.1"});
        let more = [&self.base["minion"]["config"], options];
        let config_map = config.as_object_mut().context("the drop-in is an object")?;
        for (key, value) in more.into_iter().filter_map(Value::as_object).flatten() {
            config_map.insert(key.clone(), value.clone());
        }
        let etc = self.path.join("etc/salt");
        fs::create_dir_all(etc.join("minion.d"))?;
        fs::write(etc.join("minion.d/lab.conf"), config.to_string())?;
        let started = run(Command::new(&self.program).arg("-d").arg("-c").arg(&etc), Duration::from_secs(60))?;
        if started.code != 0 {
            bail!("salt-minion -d failed ({}): {}{}", started.code, started.stdout, started.stderr);
        }
        Ok(())
    }

    /// The minion's processes, its running jobs included.
    pub fn running_pids(&self) -> Vec<i32> {
        daemons("salt-minion", &self.path)
    }

    /// What the pid file says, if there is one. A minion that ends by itself leaves it behind.
    pub fn pid_file(&self) -> Option<i32> {
        fs::read_to_string(self.path.join("var/run/salt-minion.pid")).ok()?.trim().parse().ok()
    }

    /// Stops the minion as a service manager would.
    pub fn stop_minion(&self) {
        end_daemons("salt-minion", &self.path, Duration::from_secs(10));
    }

    /// The minion's log.
    pub fn minion_log(&self) -> String {
        fs::read_to_string(self.path.join("var/log/salt/minion")).unwrap_or_default()
    }
}

/// Makes of a configuration one that joins by the enrolment service with this token: no user, no password, no fingerprint. `url` is the
/// service's own, or that of something in front of it.
pub fn enrolling(config: &mut Value, master: &Master, url: &str, token: &str) {
    if let Some(config) = config.as_object_mut() {
        config.remove("api");
    }
    config["enroll"] = json!({"url": url, "token": token, "ca": master.authority().ca_pem()});
}

impl Drop for Root {
    fn drop(&mut self) {
        // Nothing here is needed again, so there is no point in asking politely: a minion takes 5 s to stop.
        end_daemons("salt-minion", &self.path, Duration::ZERO);
    }
}

//! A control group of the kernel's, in which a process finds no memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A process that may have no more memory: the kernel ends it at the next page that it wants.
pub struct Starved {
    group: PathBuf,
}

impl Starved {
    /// Puts a process into a group of its own. Wants root, and a controller of memory of either version of control groups.
    pub fn of(pid: i32) -> Result<Starved> {
        let (above, limit) = controller()?;
        let group = above.join(format!("heat-salt-bootstrap-test-{pid}"));
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        let starved = Starved { group };
        starved.write("cgroup.procs", &pid.to_string())?;
        // What it had before is charged to where it was: whatever comes now is too much.
        starved.write(limit, "0")?;
        Ok(starved)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.group.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // A process that has been killed may take a moment to be gone.
        for _ in 0..50 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        eprintln!("{} stays behind", self.group.display());
    }
}

/// Below which directory a group is made, and which of its files is the limit.
fn controller() -> Result<(PathBuf, &'static str)> {
    let first = Path::new("/sys/fs/cgroup/memory");
    if first.join("cgroup.procs").exists() {
        return Ok((first.to_owned(), "memory.limit_in_bytes"));
    }
    let second = Path::new("/sys/fs/cgroup");
    let lists_memory =
        |file: &str| fs::read_to_string(second.join(file)).is_ok_and(|text| text.split_whitespace().any(|one| one == "memory"));
    if !lists_memory("cgroup.controllers") {
        bail!("there is no controller of memory below {}", second.display());
    }
    if !lists_memory("cgroup.subtree_control") {
        fs::write(second.join("cgroup.subtree_control"), "+memory").context("the controller of memory cannot be handed on")?;
    }
    Ok((second.to_owned(), "memory.max"))
}

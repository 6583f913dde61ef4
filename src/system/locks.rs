//! Who holds a lock file of another program: by fcntl(2), as dpkg, apt and rpm lock, or by a pid in the file, as dnf, yum and
//! zypper do.

use std::fs::File;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::files;
use super::process;

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The lock's file.
    pub file: String,
    /// Its pid; 0 if it is in a pid namespace that cannot be seen from here.
    pub pid: i32,
    /// Its command line, as far as it may be read.
    pub command: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.pid, self.command.is_empty()) {
            (0, _) => write!(f, "a process that cannot be seen from here holds {}", self.file),
            (pid, true) => write!(f, "process {pid} holds {}", self.file),
            (pid, false) => write!(f, "process {pid} ({}) holds {}", self.command, self.file),
        }
    }
}

/// Finds somebody who holds one of these files. What cannot be looked at is held by nobody. A pid that a killed program left in its
/// file may belong to another one since, after a boot above all: it counts only if that is one of `programs`.
pub fn holder(files: &[&str], programs: &[&str]) -> Option<Holder> {
    files.iter().find_map(|file| {
        let path = Path::new(file);
        let by_pid = file.ends_with(".pid");
        let pid = if by_pid { alive(path) } else { locked(path) }?;
        let command = process::command_line(pid);
        let plausible = !by_pid || programs.iter().any(|program| command.contains(program));
        plausible.then(|| Holder { file: (*file).to_owned(), pid, command })
    })
}

fn locked(path: &Path) -> Option<i32> {
    let file = File::open(path).ok()?;
    // A lock for reading is what somebody who writes keeps us from, and what an open file for reading may ask about.
    let mut asked = libc::flock { l_type: libc::F_RDLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_GETLK(&mut asked)).ok()?;
    (i32::from(asked.l_type) != libc::F_UNLCK).then_some(asked.l_pid.max(0))
}

fn alive(path: &Path) -> Option<i32> {
    let pid = files::read_text(path, 64).ok()?.trim().parse().ok()?;
    (pid > 0 && process::runs(pid)).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use std::os::fd::AsFd;
    use std::process::Command;

    #[test]
    fn a_pid_file_of_a_dead_process_locks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metadata_lock.pid");
        let name = path.to_str().unwrap();
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        std::fs::write(&path, dead.id().to_string()).unwrap();
        let own = std::env::args().next().unwrap();
        assert_eq!(holder(&[name], &[&own]), None);
        std::fs::write(&path, std::process::id().to_string()).unwrap();
        assert_eq!(holder(&[name], &["yum"]), None, "another program has that pid");
        let found = holder(&["/no/such/file", name], &["yum", &own]).unwrap();
        assert_eq!((found.pid, found.file.as_str()), (std::process::id() as i32, name));
        assert!(found.to_string().contains("holds"), "{found}");
    }

    #[test]
    fn a_free_file_is_held_by_nobody() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(holder(&[file.path().to_str().unwrap()], &[]), None);
    }

    /// An open file description's lock has no process: it is a holder all the same.
    #[test]
    fn a_lock_is_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = nix::fcntl::open(file.path(), OFlag::O_RDWR, nix::sys::stat::Mode::empty()).unwrap();
        let lock = libc::flock { l_type: libc::F_WRLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        fcntl(other.as_fd(), FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        let found = holder(&[file.path().to_str().unwrap()], &[]).unwrap();
        assert_eq!(found.pid, 0);
    }
}

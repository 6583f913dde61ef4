//! A log file of bounded size, for root only: when it is full it becomes the old one, and a new one is begun.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::files;

/// The new one and the old one have at most this many bytes each.
const MOST: u64 = 1024 * 1024;
/// No line is longer.
pub const LONGEST_LINE: usize = 16 * 1024;

/// A log file that is open.
pub struct LogFile {
    path: PathBuf,
    file: File,
    inode: u64,
}

impl LogFile {
    /// Opens it, and makes it and its directory if need be. It is neither followed if it is a link nor waited for if it is a pipe.
    pub fn open(path: &Path) -> io::Result<LogFile> {
        files::ensure_dir(path.parent().unwrap_or(Path::new("/")), 0o755).map_err(|failure| io::Error::other(failure.message))?;
        let careful = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(careful).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        Ok(LogFile { path: path.to_owned(), file, inode: meta.ino() })
    }

    /// Adds a line, which ends in a line feed.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        // Another process, or logrotate(8), may have given the file another name.
        let there = fs::metadata(&self.path).ok().filter(|meta| meta.ino() == self.inode);
        match there {
            Some(meta) if meta.len() + line.len() as u64 <= MOST => (),
            Some(_) => {
                let mut old = self.path.clone().into_os_string();
                old.push(".1");
                fs::rename(&self.path, old)?;
                *self = LogFile::open(&self.path)?;
            }
            None => *self = LogFile::open(&self.path)?,
        }
        self.file.write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn two_files_of_bounded_size_are_all_there_ever_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("var/log/agent.log");
        let (mut one, mut other) = (LogFile::open(&path).unwrap(), LogFile::open(&path).unwrap());
        let line = "x".repeat(LONGEST_LINE - 1) + "\n";
        for _ in 0..200 {
            one.append(&line).unwrap();
            other.append(&line).unwrap();
        }
        let old = path.with_extension("log.1");
        for path in [&path, &old] {
            let meta = fs::metadata(path).unwrap();
            assert!((1..=MOST).contains(&meta.len()), "{} has {} bytes", path.display(), meta.len());
            assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(files::names(path.parent().unwrap()), ["agent.log", "agent.log.1"]);
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("agent.log"), dir.path().join("shadow"));
        fs::write(&target, "root").unwrap();
        symlink(&target, &path).unwrap();
        assert!(LogFile::open(&path).is_err());
        assert!(LogFile::open(dir.path()).is_err());
        assert_eq!(fs::read_to_string(target).unwrap(), "root");
    }
}

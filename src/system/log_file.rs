//! A log file of bounded size, for root only: when it is full it becomes the old one, and a new one is begun.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::files;

/// The new one and the old one have at most this many bytes each.
const MOST: u64 = 1024 * 1024;
/// No line is longer.
pub const LONGEST_LINE: usize = 16 * 1024;

/// With so much of its end whoever begins to read knows where things stand.
const LAST: u64 = 64 * 1024;

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

/// Somebody who reads a log while another process writes it.
pub struct LogReader {
    path: PathBuf,
    /// The file that was read last, and how far.
    inode: u64,
    at: u64,
}

impl LogReader {
    /// Whoever reads this log. It need not be there yet.
    pub fn of(path: &Path) -> LogReader {
        LogReader { path: path.to_owned(), inode: 0, at: 0 }
    }

    /// The whole lines that have come since the last time; the first time, those at the end of it.
    pub fn lines(&mut self) -> Vec<String> {
        // Where there is no log, and none that can be read, nothing is said in it.
        self.read().map_or_else(|_| Vec::new(), |text| text.lines().map(str::to_owned).collect())
    }

    fn read(&mut self) -> io::Result<String> {
        let careful = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut file = OpenOptions::new().read(true).custom_flags(careful).open(&self.path)?;
        let meta = file.metadata()?;
        if meta.ino() != self.inode || meta.len() < self.at {
            // Of a new one nothing was read, and of the first one the end is enough.
            let begin = if self.inode == 0 { meta.len().saturating_sub(LAST) } else { 0 };
            (self.inode, self.at) = (meta.ino(), begin);
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        // A line that is being written comes whole the next time.
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        self.at += bytes.len() as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
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
    fn whoever_reads_meanwhile_gets_each_line_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let mut reader = LogReader::of(&path);
        assert!(reader.lines().is_empty());
        fs::write(&path, "one\ntwo\nthr").unwrap();
        assert_eq!(reader.lines(), ["one", "two"]);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"ee\n").unwrap();
        assert_eq!(reader.lines(), ["three"]);
        assert!(reader.lines().is_empty());
        fs::rename(&path, path.with_extension("log.1")).unwrap();
        assert!(reader.lines().is_empty());
        fs::write(&path, "four\n").unwrap();
        assert_eq!(reader.lines(), ["four"]);
        fs::write(&path, "5\n").unwrap();
        assert_eq!(reader.lines(), ["5"]);
        let long = format!("{}\nlast\n", "x".repeat(LAST as usize));
        fs::write(&path, long).unwrap();
        assert_eq!(LogReader::of(&path).lines().last().unwrap(), "last");
        assert_eq!(LogReader::of(&path).lines()[0].len() as u64, LAST - 6);
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

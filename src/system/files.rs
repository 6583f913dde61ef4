//! Files: read with a limit, written whole or not at all, below a root that may not be `/`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::types::failure::{Failure, Kind};

/// The directory that stands for `/`: everything the program reads or writes lies below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// Takes the directory as the person named it and makes it absolute. Configurations name it, and they are UTF-8.
    pub fn new(dir: &Path) -> io::Result<Root> {
        let whole = fs::canonicalize(dir)?;
        if whole.to_str().is_none() { Err(io::Error::other("its path is not UTF-8")) } else { Ok(Root(whole)) }
    }

    /// Is it the machine's own root?
    pub fn is_machine(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The place of an absolute path below the root. A path that already lies there stays.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if !self.is_machine() && path.starts_with(&self.0) {
            return path.to_owned();
        }
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The place of a file that a person named: below the root, or, if it is not there, as named.
    pub fn named(&self, path: &Path) -> PathBuf {
        let below = self.at(path);
        if below.exists() { below } else { path.to_owned() }
    }
}

/// Reads a file of at most `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if read as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Reads what may never answer: a pipe that nobody closes, a file of a mount that is dead. Who reads it is left behind then.
pub fn read_within(path: &Path, most: u64, span: Duration) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    within(span, Box::new(move || read(&path, most)))
}

/// After so long it is looked whether it was read.
const SOON: Duration = Duration::from_micros(100);
/// What somebody reads and does not wait for.
type Reading = Box<dyn FnOnce() -> io::Result<Vec<u8>> + Send>;

/// Reads what may never end, for so long.
pub fn within(span: Duration, work: Reading) -> io::Result<Vec<u8>> {
    let reader = thread::Builder::new().name("read".into()).spawn(work)?;
    let begun = Instant::now();
    while !reader.is_finished() {
        if begun.elapsed() >= span {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it was not read completely within {} s", span.as_secs())));
        }
        // As a rule it takes less than the first of these.
        thread::sleep((begun.elapsed() / 4).clamp(SOON, SOON * 100));
    }
    // A panic is told by the thread in which it happens.
    reader.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// Reads a text of at most `most` bytes; bytes that are no UTF-8 are replaced.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    read(path, most).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a file that need not be there.
pub fn read_if_there(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    match read(path, most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The length of a file; one that is not there has none.
pub fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// The end of a file, at most `most` bytes of it, without the line that the cut went through and without what was there when the
/// file had the length `after`.
pub fn tail(path: &Path, after: u64, most: u64) -> io::Result<String> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // A file that is shorter now was begun anew.
    let after = if after > length { 0 } else { after };
    file.seek(SeekFrom::Start(length.saturating_sub(most).max(after)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(if length - after > most { text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or(text) } else { text })
}

/// Writes a file so that at any moment, a power cut included, either the old or the new content is
/// there: written beside it, synced, renamed over it, the directory synced.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    try_write(path, content, mode).map_err(|error| cannot("write", path, &error))
}

fn try_write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A fixed name: what a killed run leaves behind is overwritten by the next one.
    let beside = dir.join(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    // An old leftover keeps its mode otherwise.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

/// Overwrites the beginning of a file in one piece, without syncing: for what is worth nothing once the power was gone.
pub fn scribble(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let no_link = OFlag::O_NOFOLLOW.bits();
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(mode).custom_flags(no_link).open(path)?;
    file.write_all_at(content, 0)
}

/// Makes an empty file for its owner only, where there is none.
pub fn create_private(path: &Path) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|error| cannot("make", path, &error))
}

/// Removes a directory that need not be there, with the files in it.
pub fn remove_dir(dir: &Path) -> Result<(), Failure> {
    names(dir).into_iter().try_for_each(|name| remove(&dir.join(name)))?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", dir, &error)),
        _ => Ok(()),
    }
}

/// Gives a file a second name, unless there is a file of that name.
pub fn link(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(cannot("link", to, &error)),
        _ => Ok(()),
    }
}

/// The names of the files in a directory that need not be there, in order.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Is this the content of the file?
pub fn holds(path: &Path, content: &[u8]) -> bool {
    read(path, content.len() as u64).is_ok_and(|there| there == content)
}

/// Makes sure that a file has this content and mode; says whether it had to be changed.
pub fn ensure(path: &Path, content: &[u8], mode: u32) -> Result<bool, Failure> {
    let there = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o7777 == mode);
    if there && holds(path, content) {
        return Ok(false);
    }
    write(path, content, mode)?;
    Ok(true)
}

/// Makes sure that a directory is there, with its parents; ones it makes get this mode.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path).and_then(|()| {
        // What is written there lasts no longer than the directory's own name.
        missing.iter().filter_map(|dir| dir.parent()).try_for_each(|parent| File::open(parent)?.sync_all())
    });
    made.map_err(|error| cannot("make the directory", path, &error))
}

/// Makes a directory that is root's alone of one that may be there already.
pub fn ensure_private_dir(path: &Path) -> Result<(), Failure> {
    ensure_dir(path, 0o700)?;
    let closed = fs::metadata(path).and_then(|meta| match meta.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, fs::Permissions::from_mode(0o700)),
    });
    closed.map_err(|error| cannot("close", path, &error))
}

/// Gives a file that is written another name, for good.
pub fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    let renamed = fs::rename(from, to).and_then(|()| File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all());
    renamed.map_err(|error| cannot("rename", from, &error))
}

/// Removes a file that need not be there.
pub fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", path, &error)),
        _ => Ok(()),
    }
}

/// The failure for a file operation that did not work.
pub fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Kind::LocalSystem, format!("cannot {what} {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint(format!("Make room on the file system of {} and run again.", path.display()))
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            failure.hint(format!("The file system of {} is mounted read-only: see `dmesg` and /etc/fstab.", path.display()))
        }
        _ => failure,
    }
}

/// A lock that lasts as long as this value and dies with the process, however it dies.
pub struct Lock {
    _held: Flock<File>,
}

impl Lock {
    /// The pid of the process that holds the lock, if one does.
    pub fn holder(path: &Path) -> Option<String> {
        let file = File::open(path).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => read_text(path, 32).ok(),
            _ => None,
        }
    }

    /// Tries to take the lock; `None` if another process holds it. The file then holds that one's pid.
    pub fn try_take(path: &Path) -> Result<Option<Lock>, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| cannot("open", path, &error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut held) => {
                // For the person who wonders who holds it; the lock itself does not depend on it.
                let _ = held.set_len(0).and_then(|()| held.write_all(std::process::id().to_string().as_bytes()));
                Ok(Some(Lock { _held: held }))
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(cannot("lock", path, &errno.into())),
        }
    }
}

/// What a directory is known by on this machine, whatever it is called; `None` if it is not there.
pub fn identity(dir: &Path) -> Option<String> {
    let meta = fs::metadata(dir).ok()?;
    Some(format!("directory {}:{}", meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        assert_eq!(root.at("/etc/x"), root.dir().join("etc/x"));
        assert_eq!(root.at(root.dir().join("etc/x")), root.dir().join("etc/x"));
        assert_eq!(Root::new(Path::new("/")).unwrap().at("/etc/x"), Path::new("/etc/x"));
    }

    #[test]
    fn ensuring_twice_changes_once_and_mends_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(ensure(&path, b"one", 0o600), Ok(true));
        assert_eq!(ensure(&path, b"one", 0o600), Ok(false));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(ensure(&path, b"one", 0o600), Ok(true));
        assert_eq!(ensure(&path, b"longer than one", 0o600), Ok(true));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap().len(), 10);
        assert!(read(&path, 9).is_err());
        fs::write(&path, b"first\nsecond\nthird\n").unwrap();
        assert_eq!(tail(&path, 0, 10).unwrap(), "third\n");
        assert_eq!(tail(&path, 6, 100).unwrap(), "second\nthird\n");
        assert_eq!(tail(&path, 600, 100).unwrap(), "first\nsecond\nthird\n");
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::try_take(&path).unwrap();
        assert!(first.is_some());
        assert!(Lock::try_take(&path).unwrap().is_none());
        assert_eq!(Lock::holder(&path), Some(std::process::id().to_string()));
        drop(first);
        assert_eq!(Lock::holder(&path), None);
        assert!(Lock::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn a_failure_names_the_file() {
        let failure = write(Path::new("/nowhere/at/all"), b"", 0o600).unwrap_err();
        assert_eq!(failure.kind, Kind::LocalSystem);
        assert!(failure.message.contains("/nowhere/at/all"), "{}", failure.message);
    }
}

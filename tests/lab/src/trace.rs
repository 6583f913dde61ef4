//! What a command does to files, as strace(1) sees it, and what of it would still be there had the power gone away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Everything that changes files, and what makes changes last.
const CALLS: &str = "trace=open,openat,creat,write,pwrite64,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat";

/// The words before a command that is to be traced into this file.
pub fn tracing(into: &Path) -> Vec<String> {
    ["strace", "-f", "-qq", "-y", "-s", "1000000", "-e", CALLS, "-e", "signal=none", "-o", &into.display().to_string()]
        .map(str::to_owned)
        .to_vec()
}

/// The words before a command that is to be killed when one of its threads enters this system call on this path for the n-th time:
/// strace counts for each thread.
pub fn killing(call: &str, path: &Path, nth: usize) -> Vec<String> {
    injecting("signal=KILL", call, path, nth)
}

/// The same for one to which this system call is refused then, as by a security module or a filter of system calls.
pub fn refusing(call: &str, path: &Path, nth: usize) -> Vec<String> {
    injecting("error=EPERM", call, path, nth)
}

fn injecting(what: &str, call: &str, path: &Path, nth: usize) -> Vec<String> {
    let (traced, injected) = (format!("trace={call}"), format!("inject={call}:{what}:when={nth}"));
    ["strace", "-f", "-qq", "-o", "/dev/null", "-P", &path.display().to_string(), "-e", &traced, "-e", &injected]
        .map(str::to_owned)
        .to_vec()
}

/// A system call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The thread that made it.
    pub thread: String,
    /// Its name.
    pub name: String,
    /// The paths it is about.
    pub paths: Vec<PathBuf>,
    /// What was written.
    pub bytes: Vec<u8>,
    /// It may have made a file.
    pub creates: bool,
    /// It has emptied the file, or cut it.
    pub empties: bool,
}

/// Reads what strace wrote, about paths below this directory.
pub fn calls(trace: &str, below: &Path) -> Vec<Call> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(first) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(pid, first.to_owned());
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let whole = begun.remove(pid).unwrap_or_default() + resumed.split_once("resumed>").map_or("", |(_, end)| end);
            calls.extend(call(pid, &whole));
        } else {
            calls.extend(call(pid, rest));
        }
    }
    calls.retain(|call| call.paths.first().is_some_and(|path| path.starts_with(below)));
    calls
}

fn call(thread: &str, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") = ")?;
    if result.starts_with(['-', '?']) {
        return None;
    }
    let texts = quoted(arguments);
    let path = |bytes: &Vec<u8>| PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
    let of_descriptor = || {
        let (_, inside) = arguments.split_once('<')?;
        Some(PathBuf::from(inside.split_once('>')?.0))
    };
    let is_of_descriptor = matches!(name, "write" | "pwrite64" | "ftruncate" | "fsync" | "fdatasync");
    let paths = if is_of_descriptor { vec![of_descriptor()?] } else { texts.iter().map(path).collect() };
    Some(Call {
        thread: thread.to_owned(),
        name: name.to_owned(),
        paths,
        bytes: if is_of_descriptor { texts.into_iter().next().unwrap_or_default() } else { Vec::new() },
        creates: arguments.contains("O_CREAT") || name == "creat",
        empties: arguments.contains("O_TRUNC") || matches!(name, "creat" | "ftruncate"),
    })
}

/// The texts in quotation marks, as C writes them.
fn quoted(arguments: &str) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    let mut bytes = arguments.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'"' {
            continue;
        }
        let mut text = Vec::new();
        while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
            if byte != b'\\' {
                text.push(byte);
                continue;
            }
            let escaped = bytes.next().unwrap_or_default();
            text.push(match escaped {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'v' => 11,
                b'f' => 12,
                b'0'..=b'7' => {
                    let mut value = u32::from(escaped - b'0');
                    for _ in 0..2 {
                        let Some(digit) = bytes.next_if(|next| (b'0'..=b'7').contains(next)) else { break };
                        value = value * 8 + u32::from(digit - b'0');
                    }
                    value as u8
                }
                other => other,
            });
        }
        texts.push(text);
    }
    texts
}

/// Files and directories with what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// The files.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The directories.
    pub dirs: BTreeSet<PathBuf>,
}

impl Image {
    /// Makes all of it, with the modes that this function names.
    pub fn restore(&self, mode: impl Fn(&Path) -> u32) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for dir in &self.dirs {
            fs::create_dir_all(dir)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(mode(dir)))?;
        }
        for (path, content) in &self.files {
            fs::write(path, content)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode(path)))?;
        }
        Ok(())
    }
}

/// A disk that promises no more than POSIX does: the content of a file lasts once the file is synced, a name once its directory is.
#[derive(Default)]
pub struct Disk {
    nodes: Vec<Node>,
    now: BTreeMap<PathBuf, usize>,
    lasting: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
    lasting_dirs: BTreeSet<PathBuf>,
    pending: Vec<(PathBuf, Change)>,
}

#[derive(Default)]
struct Node {
    written: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone)]
enum Change {
    Add(PathBuf, usize),
    Move(PathBuf, PathBuf, usize),
    Remove(PathBuf),
    Dir(PathBuf),
}

impl Disk {
    /// Does what the call did.
    pub fn take(&mut self, call: &Call) {
        let path = &call.paths[0];
        let parent = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        match call.name.as_str() {
            "open" | "openat" | "creat" => {
                if call.creates && !self.now.contains_key(path) {
                    self.nodes.push(Node::default());
                    let node = self.nodes.len() - 1;
                    self.now.insert(path.clone(), node);
                    self.pending.push((parent(path), Change::Add(path.clone(), node)));
                }
                if let (true, Some(&node)) = (call.empties, self.now.get(path)) {
                    self.nodes[node].written.clear();
                }
            }
            "write" | "pwrite64" => {
                if let Some(&node) = self.now.get(path) {
                    self.nodes[node].written.extend(&call.bytes);
                }
            }
            "ftruncate" => {
                if let Some(&node) = self.now.get(path) {
                    self.nodes[node].written.clear();
                }
            }
            "fsync" | "fdatasync" => match self.now.get(path) {
                Some(&node) => self.nodes[node].synced = self.nodes[node].written.clone(),
                None => self.sync_dir(path),
            },
            "rename" | "renameat" | "renameat2" => {
                let to = call.paths[1].clone();
                if let Some(node) = self.now.remove(path) {
                    self.now.insert(to.clone(), node);
                    self.pending.push((parent(&to), Change::Move(path.clone(), to, node)));
                }
            }
            "unlink" | "unlinkat" => {
                self.now.remove(path);
                self.pending.push((parent(path), Change::Remove(path.clone())));
            }
            "mkdir" | "mkdirat" => {
                self.dirs.insert(path.clone());
                self.pending.push((parent(path), Change::Dir(path.clone())));
            }
            other => panic!("{other} of {} is not thought of", path.display()),
        }
    }

    fn sync_dir(&mut self, dir: &Path) {
        let (now, later) = std::mem::take(&mut self.pending).into_iter().partition(|(of, _)| of == dir);
        self.pending = later;
        let changes: Vec<(PathBuf, Change)> = now;
        for (_, change) in changes {
            match change {
                Change::Add(path, node) => drop(self.lasting.insert(path, node)),
                Change::Move(from, to, node) => {
                    self.lasting.remove(&from);
                    self.lasting.insert(to, node);
                }
                Change::Remove(path) => drop(self.lasting.remove(&path)),
                Change::Dir(path) => drop(self.lasting_dirs.insert(path)),
            }
        }
    }

    /// What every program sees.
    pub fn seen(&self) -> Image {
        let files = self.now.iter().map(|(path, node)| (path.clone(), self.nodes[*node].written.clone())).collect();
        Image { files, dirs: self.dirs.clone() }
    }

    /// What is left if the power goes away and nothing lasts but what has to. `known` directories were there before.
    pub fn at_worst(&self, known: impl Fn(&Path) -> bool) -> Image {
        let lasts = |path: &Path| path.ancestors().skip(1).take_while(|dir| !known(dir)).all(|dir| self.lasting_dirs.contains(dir));
        let files = self.lasting.iter().filter(|(path, _)| lasts(path));
        let files = files.map(|(path, node)| (path.clone(), self.nodes[*node].synced.clone())).collect();
        Image { files, dirs: self.lasting_dirs.iter().filter(|dir| lasts(dir)).cloned().collect() }
    }

    /// What is left if names last and contents do not, unless they have to.
    pub fn torn(&self) -> Image {
        let files = self.now.iter().map(|(path, node)| (path.clone(), self.nodes[*node].synced.clone())).collect();
        Image { files, dirs: self.dirs.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"7 mkdir("/r/d", 0700) = 0
7 openat(AT_FDCWD</>, "/r/d/.x.new", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0600) = 3</r/d/.x.new>
7 write(3</r/d/.x.new>, "a\n\303\274\"", 5 <unfinished ...>
8 mkdir("/r/d", 0700) = -1 EEXIST (File exists)
7 <... write resumed>) = 5
7 fsync(3</r/d/.x.new>) = 0
7 rename("/r/d/.x.new", "/r/d/x") = 0
8 write(2</elsewhere>, "x", 1) = 1
7 fsync(4</r/d>) = 0
7 fsync(5</r>) = 0
"#;

    #[test]
    fn only_what_was_synced_lasts() {
        let calls = calls(TRACE, Path::new("/r"));
        assert_eq!(calls.len(), 7);
        assert_eq!(calls[2].bytes, "a\nü\"".as_bytes());
        let mut disk = Disk::default();
        let mut left = Vec::new();
        for call in &calls {
            disk.take(call);
            left.push((disk.at_worst(|dir| dir == Path::new("/r")).files.len(), disk.torn().files.values().map(Vec::len).sum::<usize>()));
        }
        assert_eq!(left, [(0, 0), (0, 0), (0, 0), (0, 5), (0, 5), (0, 5), (1, 5)]);
        assert_eq!(disk.at_worst(|dir| dir == Path::new("/r")), disk.seen());
    }
}

//! Finding and reading the configuration: a file, the fragments beside it, flags, secret files,
//! standard input and systemd credentials.

use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::fragments::{Fragment, Merged, secrets_in, without_secrets};
use super::settings::Settings;
use crate::heat::settings::Signal;
use crate::system::files::{self, Root};
use crate::types::deadline::Deadline;
use crate::types::failure::{Failure, Kind};
use crate::types::references::References;
use crate::types::secret::Secret;

/// Where the configuration is looked for unless a flag says otherwise.
pub const DEFAULT: &str = "/etc/heat-salt-bootstrap/config.json";

/// No configuration is larger; what is larger is a wrong file.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// How long all of it may take to be read. A file takes milliseconds; what takes longer is a pipe that nobody closes, or a mount that is
/// dead, and Heat has to hear of that before it gives the machine up.
const READING: Duration = Duration::from_secs(30);
/// What is left for a file that comes after one that took all of it.
const AT_LEAST: Duration = Duration::from_secs(1);

/// A flag that sets a key: its name, the key's dotted path, the value.
#[derive(Debug, Clone)]
pub struct Override {
    /// As the person typed it.
    pub flag: &'static str,
    /// The key.
    pub path: &'static str,
    /// The value.
    pub value: Value,
}

/// What was found, before anybody judged it.
pub struct Found {
    merged: Merged,
    unreadable: Vec<String>,
    sources: Vec<PathBuf>,
    looked_up: Lookup,
}

/// Reads everything there is; what cannot be read is remembered and told with the other problems.
pub fn find(root: &Root, file: Option<&Path>, overrides: &[Override]) -> Found {
    // Only what a person names may lie elsewhere: another root does not inherit this machine's defaults.
    let main = file.map_or_else(|| root.at(DEFAULT), |file| root.named(file));
    let reading = Deadline::after(READING);
    let mut unreadable = Vec::new();
    // The packages bring an empty one, in which nothing is configured. On a mount that is dead nothing is known of it, and reading it says so.
    let (dir, beside) = (main.clone(), Arc::new(Mutex::new(Vec::new())));
    let found = Arc::clone(&beside);
    let look = move || {
        *found.lock().unwrap_or_else(PoisonError::into_inner) = fragments_beside(&dir);
        let is_there = std::fs::metadata(&dir).is_ok_and(|meta| !meta.is_file() || meta.len() > 0);
        Ok(if is_there { vec![1] } else { Vec::new() })
    };
    let is_there = files::within(left(reading), Box::new(look)).map_or(true, |said| !said.is_empty());
    let beside = std::mem::take(&mut *beside.lock().unwrap_or_else(PoisonError::into_inner));
    if !is_there && (file.is_some() || (beside.is_empty() && overrides.is_empty())) {
        unreadable.push(format!("{}: there is no such file, or it is empty", main.display()));
    }
    let mut sources = Vec::new();
    let mut fragments = Vec::new();
    for path in is_there.then(|| main.clone()).into_iter().chain(beside) {
        match read_fragment(&path, left(reading)) {
            Ok(keys) => fragments.push(Fragment { source: path.display().to_string(), keys }),
            Err(why) => unreadable.push(format!("{}: {why}", path.display())),
        }
        sources.push(path);
    }
    fragments.extend(overrides.iter().map(|set| Fragment { source: set.flag.to_owned(), keys: nested(set.path, &set.value) }));
    let mut merged = Merged::of(fragments);
    merged.incomplete = !unreadable.is_empty();
    Found { merged, unreadable, sources, looked_up: Lookup { root: root.clone(), reading, stdin: RefCell::default() } }
}

impl Found {
    /// Makes settings of it, or one failure that lists everything that is wrong.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let problems = match Settings::parse(&self.merged, &self.looked_up) {
            Ok(settings) if self.unreadable.is_empty() => return Ok(settings),
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        };
        let all: Vec<String> = self.unreadable.iter().cloned().chain(problems).collect();
        let count = if all.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", all.len()) };
        Err(Failure::new(Kind::Config, format!("the configuration has {count}: {}", all.join("; "))))
    }

    /// Was standard input read for it? It cannot be read again.
    pub fn took_stdin(&self) -> bool {
        self.looked_up.stdin.borrow().is_some()
    }

    /// The signal part alone, as far as it can be read.
    pub fn signal(&self) -> Option<Signal> {
        Settings::parse_signal(&self.merged, &self.looked_up)
    }

    /// All secrets that it holds or names, whether it can be used or not.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut given = secrets_in(&self.merged.keys);
        let files = given.files.iter().filter(|path| *path != "-").filter_map(|path| self.looked_up.file(path).ok());
        let credentials = ["api.password", "enroll.token", "install.repository.password", "signal"];
        let more: Vec<Secret> = files.chain(credentials.iter().filter_map(|name| self.looked_up.credential(name))).collect();
        given.secrets.extend(more);
        given.secrets.extend(self.signal().into_iter().filter_map(|signal| signal.handle.secret().cloned()));
        given.secrets
    }

    /// The minion's id as the configuration has it, right or wrong, for a report about a bad one.
    pub fn minion_id(&self) -> String {
        self.merged
            .keys
            .get("minion")
            .and_then(|minion| minion.get("id"))
            .and_then(Value::as_str)
            .map_or_else(|| self.looked_up.host_name(), str::to_owned)
    }

    /// Says which files everybody on the machine can read although they hold a secret.
    pub fn warn_of_open_files(&self) {
        use std::os::unix::fs::PermissionsExt;
        for path in &self.sources {
            let open = std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0);
            if open
                && files::read_within(path, MOST_BYTES, AT_LEAST)
                    .map(|text| String::from_utf8_lossy(&text).into_owned())
                    .is_ok_and(|text| text.contains("\"password\"") || text.contains("\"token\""))
            {
                warn!("{} holds a secret and can be read by everybody: chmod 600 it", path.display());
            }
        }
    }
}

/// Wipes the secrets off the files of the configuration, and the files that hold nothing else. What came by flags, by standard
/// input or as a credential is not ours to remove.
pub fn forget_secrets(root: &Root, file: Option<&Path>) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let main = file.map_or_else(|| root.at(DEFAULT), |file| root.named(file));
    for path in std::iter::once(main.clone()).chain(fragments_beside(&main)) {
        let Some((left, secret_files)) = read_fragment(&path, READING).ok().as_ref().and_then(without_secrets) else { continue };
        let text = format!("{:#}\n", Value::Object(left));
        let mode = std::fs::metadata(&path).map_or(0o600, |meta| meta.permissions().mode() & 0o7777);
        files::write(&path, text.as_bytes(), mode)?;
        for secret in secret_files.iter().filter(|path| *path != "-") {
            let file = root.named(Path::new(secret));
            if is_below(root, &file) {
                files::remove(&file)?;
            } else {
                warn!("{} is not below {} and stays", file.display(), root.dir().display());
            }
        }
        info!("wiped the secrets off {}", path.display());
    }
    Ok(())
}

/// Does it really lie there? A link on the way, or `..`, may lead elsewhere.
fn is_below(root: &Root, file: &Path) -> bool {
    file.parent().and_then(|dir| dir.canonicalize().ok()).is_some_and(|dir| dir.starts_with(root.dir()))
}

fn fragments_beside(main: &Path) -> Vec<PathBuf> {
    let dir = main.parent().unwrap_or(Path::new("/")).join("config.d");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    paths.sort();
    paths
}

fn left(reading: Deadline) -> Duration {
    reading.remaining().max(AT_LEAST)
}

fn read_fragment(path: &Path, within: Duration) -> Result<Map<String, Value>, String> {
    let bytes = Zeroizing::new(files::read_within(path, MOST_BYTES, within).map_err(|error| format!("cannot be read: {error}"))?);
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(_) => Err("has to hold a mapping: { ... }".into()),
        Err(error) => Err(format!("is no JSON: {error}")),
    }
}

fn nested(path: &str, value: &Value) -> Map<String, Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let inner = if rest.is_empty() { value.clone() } else { Value::Object(nested(rest, value)) };
    Map::from_iter([(first.to_owned(), inner)])
}

struct Lookup {
    root: Root,
    reading: Deadline,
    // Standard input can be read once, and the settings may be parsed twice.
    stdin: RefCell<Option<Result<Secret, String>>>,
}

impl References for Lookup {
    fn file(&self, path: &str) -> Result<Secret, String> {
        if path == "-" {
            return self.stdin.borrow_mut().get_or_insert_with(|| stdin(left(self.reading))).clone();
        }
        files::read_within(&self.root.named(Path::new(path)), MOST_BYTES, left(self.reading))
            .map_err(|error| error.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map(Secret::new).map_err(|_| "it is no UTF-8 text".into()))
    }

    fn credential(&self, name: &str) -> Option<Secret> {
        // systemd.exec(5), "CREDENTIALS": the directory holds one file a credential.
        let dir = std::env::var_os("CREDENTIALS_DIRECTORY")?;
        files::read_text(&Path::new(&dir).join(name), MOST_BYTES).ok().map(Secret::new)
    }

    fn host_name(&self) -> String {
        let name = if self.root.is_machine() {
            hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        } else {
            files::read_text(&self.root.at("/etc/hostname"), 1024).unwrap_or_default()
        };
        name.trim().split('.').next().unwrap_or_default().to_owned()
    }
}

fn stdin(within: Duration) -> Result<Secret, String> {
    let read = || {
        let mut bytes = Vec::new();
        std::io::stdin().take(MOST_BYTES).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = files::within(within, Box::new(read)).map_err(|error| format!("standard input: {error}"))?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| "standard input is no UTF-8 text".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::new(dir.path()).unwrap();
        (dir, root)
    }

    const MAIN: &str = "etc/heat-salt-bootstrap/config.json";

    #[test]
    fn fragments_in_name_order_then_flags() {
        let (_dir, root) = tree(&[
            (MAIN, r#"{"minion": {"id": "main", "master": "a"}, "api": {"url": "https://a:8000", "username": "u", "password": "p"}}"#),
            ("etc/heat-salt-bootstrap/config.d/20.json", r#"{"minion": {"id": "twenty", "master": "c"}}"#),
            ("etc/heat-salt-bootstrap/config.d/10.json", r#"{"minion": {"id": "ten", "master": "b"}}"#),
            ("etc/heat-salt-bootstrap/config.d/30.yaml", "no: json"),
        ]);
        let settings = find(&root, None, &[Override { flag: "--minion-id", path: "minion.id", value: json!("flag") }]).settings().unwrap();
        assert_eq!((settings.minion.id.as_str(), settings.minion.masters[0].as_str()), ("flag", "c"));
    }

    #[test]
    fn a_broken_file_is_named_with_its_line_and_does_not_hide_the_signal() {
        let (_dir, root) = tree(&[
            (MAIN, "{\n  \"minion\": {,}\n}"),
            ("etc/heat-salt-bootstrap/config.d/signal.json", r#"{"signal": {"endpoint": "http://h/", "token": "t"}}"#),
        ]);
        let found = find(&root, None, &[]);
        let message = found.settings().unwrap_err().message;
        assert!(message.contains("config.json: is no JSON") && message.contains("line 2"), "{message}");
        assert!(found.signal().is_some());
    }

    /// What such a file may have given is not missed; what another one gives wrongly is told all the same.
    #[test]
    fn what_follows_from_a_broken_file_is_not_told() {
        for (broken, wrong, count) in [("{\n", "{}", "1 problem:"), ("[1]", r#"{"apply": {"states": 5}}"#, "2 problems:")] {
            let (_dir, root) = tree(&[(MAIN, broken), ("etc/heat-salt-bootstrap/config.d/10.json", wrong)]);
            let message = find(&root, None, &[]).settings().unwrap_err().message;
            assert!(message.contains(count) && !message.contains("missing"), "{message}");
            assert_eq!(message.contains("10.json: apply.states: "), wrong.contains("apply"), "{message}");
        }
    }

    #[test]
    fn secrets_are_wiped_below_the_root_alone() {
        let (outside, _) = tree(&[("given/password", "p"), ("linked/password", "p"), ("up/password", "p")]);
        let (dir, root) = tree(&[("var/secrets/password", "p")]);
        std::os::unix::fs::symlink(outside.path().join("linked"), dir.path().join("link")).unwrap();
        let up = format!("/../{}/up/password", outside.path().file_name().unwrap().to_str().unwrap());
        let given = outside.path().join("given/password");
        for named in [given.to_str().unwrap(), "/link/password", &up, "/var/secrets/password"] {
            let text = json!({"minion": {"master": "a"}, "api": {"url": "https://a:8000", "password_file": named}}).to_string();
            std::fs::create_dir_all(dir.path().join(MAIN).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(MAIN), text).unwrap();
            assert!(root.named(Path::new(named)).exists(), "{named} is read from there");
            forget_secrets(&root, None).unwrap();
            assert!(!std::fs::read_to_string(dir.path().join(MAIN)).unwrap().contains("password_file"), "{named}");
        }
        for file in ["given/password", "linked/password", "up/password"] {
            assert!(outside.path().join(file).exists(), "{file} is not below the root");
        }
        assert!(!dir.path().join("var/secrets/password").exists());
    }

    #[test]
    fn a_missing_file_is_a_problem_unless_something_else_is_there() {
        // An empty one counts as missing.
        for files in [&[][..], &[(MAIN, "")]] {
            let (_dir, root) = tree(files);
            let message = find(&root, None, &[]).settings().unwrap_err().message;
            assert!(message.contains("there is no such file"), "{message}");
            let flag = Override { flag: "--master", path: "minion.master", value: json!("m") };
            let message = find(&root, None, &[flag]).settings().unwrap_err().message;
            assert!(!message.contains("there is no such file"), "{message}");
        }
    }

    #[test]
    fn the_host_name_is_the_roots_own() {
        let (_dir, root) = tree(&[("etc/hostname", "web-7.example.net\n")]);
        assert_eq!(find(&root, None, &[]).minion_id(), "web-7");
    }
}

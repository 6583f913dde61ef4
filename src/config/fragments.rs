//! Configuration comes in fragments: files in order, then flags. They are merged into one value,
//! and for every key it stays known which fragment gave it, so that a complaint can name the file.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::types::secret::{Secret, wipe};
use crate::types::section::Origins;

/// One fragment: where it came from, in a person's words (a path, or `--minion-id`), and its keys.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// A file's path or a flag's name.
    pub source: String,
    /// The top-level mapping.
    pub keys: Map<String, Value>,
}

/// All fragments laid over each other. Wiped when dropped: there are passwords in it.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    /// The configuration as one mapping.
    pub keys: Map<String, Value>,
    origins: BTreeMap<String, String>,
    /// Is there a file that belongs to it and could not be read?
    pub incomplete: bool,
}

impl Merged {
    /// Lays the fragments over each other: later ones win, mappings are merged key by key, and
    /// `null` in a later fragment takes the key away.
    pub fn of(fragments: impl IntoIterator<Item = Fragment>) -> Merged {
        let mut merged = Merged::default();
        for Fragment { source, keys } in fragments {
            lay(&mut merged.keys, keys, "", &source, &mut merged.origins);
        }
        merged
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(wipe);
    }
}

impl Origins for Merged {
    fn origin(&self, path: &str) -> Option<&str> {
        let mut path = path;
        loop {
            if let Some(source) = self.origins.get(path) {
                return Some(source);
            }
            path = &path[..path.rfind('.')?];
        }
    }

    fn may_be_unread(&self, path: &str) -> bool {
        self.incomplete && !self.origins.contains_key(path)
    }
}

/// Keys that hold secrets, with those that name files of them.
const SECRETS: [(&[&str], &str); 6] = [
    (&["api"], "password"),
    (&["api"], "password_file"),
    (&["enroll"], "token"),
    (&["enroll"], "token_file"),
    (&["install", "repository"], "password"),
    (&["install", "repository"], "password_file"),
];

/// A fragment without its secrets, and the files in which it says that others lie; `None` if it has none. What Heat is told with
/// is a secret as a whole.
pub fn without_secrets(keys: &Map<String, Value>) -> Option<(Map<String, Value>, Vec<String>)> {
    let mut left = keys.clone();
    let mut found = left.shift_remove("signal").is_some_and(|signal| !signal.is_null());
    let mut files = Vec::new();
    for (sections, key) in SECRETS {
        let mut section = Some(&mut left);
        for name in sections {
            section = section.and_then(|section| section.get_mut(*name)?.as_object_mut());
        }
        let taken = section.and_then(|section| section.shift_remove(key));
        found |= taken.is_some();
        if let Some(Value::String(path)) = taken.filter(|_| key.ends_with("_file")) {
            files.push(path);
        }
    }
    found.then_some((left, files))
}

/// Secrets, and the files that hold others.
#[derive(Default)]
pub struct Given {
    /// The texts.
    pub secrets: Vec<Secret>,
    /// The paths.
    pub files: Vec<String>,
}

/// All that a configuration gives away: what stands under a name that says so, and the whole pillar.
pub fn secrets_in(keys: &Map<String, Value>) -> Given {
    let mut given = Given::default();
    for (key, value) in keys {
        collect(key, value, false, &mut given);
    }
    given
}

fn collect(key: &str, value: &Value, hidden: bool, given: &mut Given) {
    let is = |words: &[&str]| words.iter().any(|word| key.to_ascii_lowercase().contains(word));
    let named = is(&["pass", "secret", "token", "credential", "private", "api_key", "pillar"]);
    match value {
        Value::String(path) if !hidden && key.ends_with("_file") => given.files.extend(named.then(|| path.clone())),
        Value::String(text) if hidden || named => given.secrets.push(Secret::new(text.as_str())),
        Value::Object(keys) => keys.iter().for_each(|(key, value)| collect(key, value, hidden || named, given)),
        Value::Array(items) => items.iter().for_each(|value| collect(key, value, hidden || named, given)),
        _ => (),
    }
}

fn lay(below: &mut Map<String, Value>, above: Map<String, Value>, at: &str, source: &str, origins: &mut BTreeMap<String, String>) {
    for (key, value) in above {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match (below.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => lay(old, new, &path, source, origins),
            (Some(_), Value::Null) => {
                below.remove(&key);
            }
            (_, Value::Object(new)) => {
                origins.insert(path.clone(), source.to_owned());
                let mut fresh = Map::new();
                lay(&mut fresh, new, &path, source, origins);
                below.insert(key, Value::Object(fresh));
            }
            (_, value) => {
                origins.insert(path, source.to_owned());
                below.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fragment(source: &str, value: Value) -> Fragment {
        let Value::Object(keys) = value else { panic!("a fragment is a mapping") };
        Fragment { source: source.into(), keys }
    }

    #[test]
    fn later_wins_and_the_origin_is_remembered() {
        let merged = Merged::of([
            fragment("a.json", json!({"minion": {"id": "one", "master": "m"}, "apply": {"states": ["x"]}})),
            fragment("b.json", json!({"minion": {"id": "two"}, "apply": {"states": ["y", "z"]}})),
            fragment("--master", json!({"minion": {"master": "n"}})),
        ]);
        assert_eq!(Value::Object(merged.keys.clone()), json!({"minion": {"id": "two", "master": "n"}, "apply": {"states": ["y", "z"]}}));
        assert_eq!(merged.origin("minion.id"), Some("b.json"));
        assert_eq!(merged.origin("minion.master"), Some("--master"));
        assert_eq!(merged.origin("apply.states.0"), Some("b.json"));
        assert_eq!(merged.origin("minion"), Some("a.json"));
        assert_eq!(merged.origin("nothing"), None);
    }

    #[test]
    fn secrets_are_taken_out_and_nothing_else() {
        let Value::Object(keys) = json!({
            "api": {"url": "https://salt:8000", "password_file": "/pw", "username": "boot"},
            "install": {"repository": {"username": "u", "password": "p"}}, "enroll": {"token": "hsb1.a.b"}, "apply": {"states": ["x"]}, "signal": {"endpoint": "http://h/", "token": "t"},
        }) else {
            unreachable!()
        };
        let (left, files) = without_secrets(&keys).unwrap();
        let expected = json!({"api": {"url": "https://salt:8000", "username": "boot"},
            "install": {"repository": {"username": "u"}}, "enroll": {}, "apply": {"states": ["x"]}});
        assert_eq!(Value::Object(left.clone()), expected);
        assert_eq!(files, ["/pw"]);
        assert!(without_secrets(&left).is_none());
    }

    #[test]
    fn null_takes_a_key_away() {
        let merged = Merged::of([fragment("a", json!({"signal": {"url": "x"}, "deadline": null})), fragment("b", json!({"signal": null}))]);
        assert_eq!(Value::Object(merged.keys.clone()), json!({"deadline": null}));
    }
}

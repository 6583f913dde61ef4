//! Names that, once made, cannot be wrong.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::excerpt::quoted;

/// A minion id that names exactly one minion in every place Salt takes it.
///
/// Salt matches the argument of `key.accept` as a glob and splits it at commas (`salt/key.py`,
/// `name_match`), and uses ids as file names below the key directory: an id with any of those
/// characters would accept other minions' keys or leave the directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MinionId(String);

impl MinionId {
    /// Characters that would make an id a pattern, a list or a path.
    const FORBIDDEN: &str = "*?[],/\\";

    /// Checks the text; the error is a sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<MinionId, String> {
        if text.is_empty() {
            return Err("is empty: a minion needs an id".into());
        }
        if text.len() > 255 {
            return Err(format!("is {} bytes long: at most 255 fit a key's file name", text.len()));
        }
        if text.starts_with('.') {
            return Err(format!("{text:?} starts with a dot: Salt hides such keys"));
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || Self::FORBIDDEN.contains(c);
        if let Some(c) = text.chars().find(|&c| bad(c)) {
            return Err(format!(
                "{text:?} holds {c:?}: an id may hold none of * ? [ ] , / \\ nor white space, it would name other minions too"
            ));
        }
        Ok(MinionId(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MinionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A job id as Salt's master makes it: twenty digits of local time, and nothing else, since it is
/// also a file name below the minion's cache (`salt/utils/jid.py`; `_suffix` with `unique_jid`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Jid(String);

impl<'de> Deserialize<'de> for Jid {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Jid, D::Error> {
        let text = String::deserialize(from)?;
        Jid::parse(&text).ok_or_else(|| de::Error::custom("no job id"))
    }
}

impl Jid {
    /// `None` for a file name that is no job id.
    pub fn parse(text: &str) -> Option<Jid> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let suffix = match text[digits..].strip_prefix('_') {
            Some(number) => !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()),
            None => digits == text.len(),
        };
        (digits == 20 && suffix).then(|| Jid(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path behind `/hook/`, which is also the end of the event's tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookPath(String);

impl HookPath {
    /// Checks the text; the error is a sentence.
    pub fn parse(text: &str) -> Result<HookPath, String> {
        let path = text.trim_matches('/');
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if path.is_empty() || !path.chars().all(fine) || path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(format!("{} is no hook path: letters, digits, - _ . in parts joined by /, such as states/state", quoted(text)));
        }
        Ok(HookPath(path.to_owned()))
    }

    /// A hook of ours below a directory of ours.
    pub fn below(dir: &'static str, name: &'static str) -> HookPath {
        HookPath(format!("{dir}/{name}"))
    }

    /// The path, without a slash at either end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag under which the event reaches the reactor (`salt/netapi/rest_cherrypy/app.py`, `Webhook`).
    pub fn tag(&self) -> String {
        format!("salt/netapi/hook/{}", self.0)
    }
}

/// The name of a state file (an SLS), as in `memcached_v14` or `web.nginx`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateName(String);

impl StateName {
    /// Checks the text; the error is a sentence. A comma would join two names into one argument's
    /// list, and the classic reactor pastes the text into YAML unquoted.
    pub fn parse(text: &str) -> Result<StateName, String> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
        if text.is_empty() || !text.chars().all(fine) {
            return Err(format!("{} is no state name: letters, digits and - _ . / + only", quoted(text)));
        }
        Ok(StateName(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_name_other_minions_are_refused() {
        for bad in ["", "*", "web-?", "web[12]", "a,b", "../x", "a b", "a\tb", "a\nb", ".hidden", "x/y", "a\\b"] {
            assert!(MinionId::parse(bad).is_err(), "{bad:?} passed");
        }
        for good in ["web-1", "web-1.example.net", "WEB_1", "vm:7", "höst"] {
            assert_eq!(MinionId::parse(good).map(|id| id.to_string()), Ok(good.to_owned()));
        }
        assert!(MinionId::parse(&"x".repeat(256)).is_err());
    }

    #[test]
    fn only_job_ids_are_job_ids() {
        assert!(Jid::parse("20261122214431123456").is_some());
        assert!(Jid::parse("20261122214431123456_4711").is_some());
        for bad in ["", "..", "return.p", "2026112221443112345", "202611222144311234567", "20261122214431123456_", "20261122214431123456x1"]
        {
            assert_eq!(Jid::parse(bad), None, "{bad:?} passed");
        }
    }

    #[test]
    fn hook_paths_stay_below_the_hook() {
        assert_eq!(HookPath::parse("/states/state/").map(|h| h.tag()), Ok("salt/netapi/hook/states/state".to_owned()));
        for bad in ["", "/", "a//b", "../login", "a b", "a?b"] {
            assert!(HookPath::parse(bad).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn state_names_are_no_yaml() {
        for bad in ["", "a,b", "a: b", "{{ x }}", "a\nb"] {
            assert!(StateName::parse(bad).is_err(), "{bad:?} passed");
        }
        assert!(StateName::parse("memcached_v14").is_ok());
    }
}

//! Reading a mapping key by key, and collecting every complaint instead of stopping at the first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::excerpt::cut;

/// More complaints nobody reads: something else than a configuration was given.
const MOST_COMPLAINTS: usize = 50;
/// More of one nobody reads, in bytes.
const MOST_COMPLAINT: usize = 1_000;

/// Knows which file or flag gave a key.
pub trait Origins {
    /// The one that gave the key at this dotted path, or the nearest mapping around it.
    fn origin(&self, path: &str) -> Option<&str>;

    /// May a file that could not be read have given what nothing else gives at this path?
    fn may_be_unread(&self, path: &str) -> bool;
}

/// Where complaints go, with the file that each key came from.
pub struct Complaints<'a> {
    origins: &'a dyn Origins,
    found: RefCell<Vec<String>>,
    left_out: Cell<usize>,
}

impl<'a> Complaints<'a> {
    /// None so far.
    pub fn about(origins: &'a dyn Origins) -> Complaints<'a> {
        Complaints { origins, found: RefCell::default(), left_out: Cell::default() }
    }

    /// Notes that the key at `path` is wrong; `text` goes on after the key's name.
    pub fn add(&self, path: &str, text: impl AsRef<str>) {
        // The file itself is complained about.
        if self.origins.may_be_unread(path) {
            return;
        }
        let mut found = self.found.borrow_mut();
        if found.len() == MOST_COMPLAINTS {
            return self.left_out.set(self.left_out.get() + 1);
        }
        let line = match self.origins.origin(path) {
            Some(source) => format!("{source}: {path}: {}", text.as_ref()),
            None => format!("{path}: {}", text.as_ref()),
        };
        // Keys and texts of the configuration are in it as they are.
        found.push(cut(&line.replace(char::is_control, " "), MOST_COMPLAINT));
    }

    /// All of them, in the order in which they were found; of very many the first, and how many more there are.
    pub fn into_lines(self) -> Vec<String> {
        let mut lines = self.found.into_inner();
        match self.left_out.get() {
            0 => {}
            count => lines.push(format!("and {count} more")),
        }
        lines
    }
}

/// A mapping somewhere in the configuration. Whoever has read all the keys that it knows calls
/// [`Section::finish`], which complains about the others.
pub struct Section<'a> {
    path: String,
    keys: Option<&'a Map<String, Value>>,
    complaints: &'a Complaints<'a>,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub fn top(keys: &'a Map<String, Value>, complaints: &'a Complaints<'a>) -> Section<'a> {
        Section { path: String::new(), keys: Some(keys), complaints, known: RefCell::default() }
    }

    /// Is the section there at all?
    pub fn is_present(&self) -> bool {
        self.keys.is_some()
    }

    /// The dotted path of a key in this section.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The raw value of a key; `null` counts as absent.
    pub fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().insert(key);
        self.keys?.get(key).filter(|value| !value.is_null())
    }

    /// A mapping below this one; an absent one reads as empty.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        let keys = self.value(key).and_then(|value| self.typed(key, value.as_object(), "a mapping"));
        Section { path: self.path_of(key), keys, complaints: self.complaints, known: RefCell::default() }
    }

    /// A text that is not empty.
    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        let text = self.typed(key, self.value(key)?.as_str(), "a text")?;
        if text.trim().is_empty() {
            self.complain(key, "is empty");
            return None;
        }
        Some(text)
    }

    /// A text, or a list of texts.
    pub fn texts(&self, key: &'static str) -> Option<Vec<&'a str>> {
        match self.value(key)? {
            Value::Array(items) => {
                let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                let texts = self.typed(key, texts, "a text or a list of texts")?;
                if texts.is_empty() {
                    self.complain(key, "is an empty list");
                    return None;
                }
                Some(texts)
            }
            Value::String(_) => self.text(key).map(|text| vec![text]),
            _ => self.typed(key, None, "a text or a list of texts"),
        }
    }

    /// A truth value.
    pub fn truth(&self, key: &'static str) -> Option<bool> {
        self.typed(key, self.value(key)?.as_bool(), "true or false")
    }

    /// A mapping taken over as it is.
    pub fn mapping(&self, key: &'static str) -> Option<Map<String, Value>> {
        self.typed(key, self.value(key)?.as_object(), "a mapping").cloned()
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.complain(key, format!("{text:?} is none of {}", words.join(", ")));
        }
        found
    }

    /// A text that a parser turns into something better; its complaint is passed on.
    pub fn parsed<T>(&self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key)?;
        parse(text).map_err(|why| self.complain(key, why)).ok()
    }

    /// Complains about a key of this section.
    pub fn complain(&self, key: &str, text: impl AsRef<str>) {
        self.complaints.add(&self.path_of(key), text);
    }

    /// Complains about every key that nobody asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for key in self.keys.into_iter().flat_map(Map::keys).filter(|key| !known.contains(key.as_str())) {
            let list: Vec<&str> = known.iter().copied().collect();
            self.complain(key, format!("unknown key; known here are {}", list.join(", ")));
        }
    }

    fn typed<T>(&self, key: &str, read: Option<T>, wanted: &str) -> Option<T> {
        if read.is_none() {
            self.complain(key, format!("has to be {wanted}"));
        }
        read
    }
}

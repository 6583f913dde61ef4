//! Secrets are a type: they print as `***`, cannot be serialised, and are wiped when dropped.
//!
//! That is a promise about this program's own copies: those in a [`Secret`], and what [`wipe`] is called for. What a library or the
//! kernel copies on its way (TLS buffers, a pipe) is theirs.

use std::fmt;

use serde_json::Value;
use zeroize::{Zeroize as _, Zeroizing};

/// A password, a token, or a text that holds one.
///
/// There is no `Display` and no `Serialize`; `Debug` hides the content. Whoever needs the text
/// says so with [`Secret::expose`], which is easy to search for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Overwrites every text in a JSON value, at any depth.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(keys) => keys.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_wiped_at_any_depth() {
        let mut value = serde_json::json!({"api": {"password": "x", "tries": 3}, "signal": ["y", {"token": "z"}]});
        wipe(&mut value);
        assert_eq!(value, serde_json::json!({"api": {"password": "", "tries": 3}, "signal": ["", {"token": ""}]}));
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        let shown = format!("{:?}", Some(Secret::new("s3cr3t-word")));
        assert_eq!(shown, "Some(***)");
    }
}

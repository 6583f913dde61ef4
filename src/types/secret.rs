//! Secrets are a type: they print as `***`, cannot be serialised, and are wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_it() {
        let shown = format!("{:?}", Some(Secret::new("s3cr3t-word")));
        assert_eq!(shown, "Some(***)");
    }
}

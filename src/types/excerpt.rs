//! Other people's words in our sentences: no more of them than somebody reads, on one line, and nothing in them that a
//! terminal obeys.

use std::borrow::Cow;

/// What stands where the rest was left out.
pub const CUT: &str = " [...]";

/// The text, or its first `most` bytes and the mark [`CUT`]; no character is cut in two.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}{CUT}", &text[..end])
}

/// The words of the text joined by single spaces, at most `most` bytes of them and the mark. Control characters count as white space.
pub fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > most {
            break;
        }
    }
    cut(&line, most)
}

/// The beginning of the text between quotation marks, with escapes for what cannot be seen.
pub fn quoted(text: &str) -> String {
    format!("{:?}", cut(text, 120))
}

/// What stands in place of a secret.
const MASK: &str = "***";
/// Names in a query whose values are as good as a password: of Swift's, heat-api-cfn's and S3's signed URLs, and what people call tokens.
const SIGNED: [&str; 6] = ["sig", "token", "key", "password", "secret", "credential"];

/// The text with the credentials in its URLs masked: who logs in, and what a query is signed with.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        masked.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || c.is_control() || "\"'`<>\\".contains(c)).unwrap_or(after.len());
        let (url, beyond) = after.split_at(end);
        let path = url.find(['/', '?', '#']).unwrap_or(url.len());
        let (authority, tail) = url.split_at(path);
        match authority.rsplit_once('@') {
            Some((_, host)) => masked.extend([MASK, "@", host]),
            None => masked.push_str(authority),
        }
        match tail.split_once('?') {
            Some((path, query)) => {
                masked.extend([path, "?"]);
                for (number, pair) in query.split('&').enumerate() {
                    let name = pair.split_once('=').map(|(name, _)| name).filter(|name| is_signed(name));
                    masked.push_str(if number > 0 { "&" } else { "" });
                    match name {
                        Some(name) => masked.extend([name, "=", MASK]),
                        None => masked.push_str(pair),
                    }
                }
            }
            None => masked.push_str(tail),
        }
        rest = beyond;
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

fn is_signed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SIGNED.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_credentials_and_nothing_else() {
        for (text, masked) in [
            ("no URL: a@b?token=1", "no URL: a@b?token=1"),
            ("`curl https://bob:s3cret@mirror.example:8443/x y` failed", "`curl https://***@mirror.example:8443/x y` failed"),
            ("http://h/a@b?x=1#f", "http://h/a@b?x=1#f"),
            (
                "https://h/o?temp_url_sig=abc&temp_url_expires=9, and https://u@h",
                "https://h/o?temp_url_sig=***&temp_url_expires=9, and https://***@h",
            ),
            ("(\"https://h/?X-Amz-Signature=a&AWSAccessKeyId=b&v=1\")", "(\"https://h/?X-Amz-Signature=***&AWSAccessKeyId=***&v=1\")"),
            ("https://p@ss@h/", "https://***@h/"),
            ("://", "://"),
        ] {
            assert_eq!(without_credentials(text), masked);
        }
    }

    #[test]
    fn what_is_cut_is_marked_and_what_fits_is_not() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("a word more", 6), "a word [...]");
        assert_eq!(cut("\u{fc}\u{fc}", 3), "\u{fc} [...]");
        assert_eq!(cut("x", 0), " [...]");
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line(" a\r\n\t b\u{1b}[31m\u{0}c ", 80), "a b [31m c");
        assert_eq!(one_line("aa bb cc", 5), "aa bb [...]");
        assert_eq!(one_line("\n", 5), "");
    }

    #[test]
    fn quotes_show_what_cannot_be_seen() {
        assert_eq!(quoted("a\n"), "\"a\\n\"");
        assert!(quoted(&"\u{1}".repeat(10_000)).len() < 1_300);
    }
}

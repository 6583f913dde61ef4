//! Other people's words in our sentences: no more of them than somebody reads, on one line, and nothing in them that a
//! terminal obeys.

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

#[cfg(test)]
mod tests {
    use super::*;

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

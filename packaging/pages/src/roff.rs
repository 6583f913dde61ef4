//! Manual pages in the macros of man(7), as mandoc and groff read them.

use crate::Day;

/// mandoc's idea of a line that is easy to read.
const LONGEST_LINE: usize = 80;

/// A page that is being written.
pub struct Page {
    text: String,
}

impl Page {
    /// The head of a page: its name, its section of the manual, and what it is in one line.
    pub fn new(name: &str, section: u8, what: &str, day: &Day) -> Page {
        let version = crate::command().get_version().unwrap_or_default().to_owned();
        let mut page = Page { text: String::new() };
        page.line(&format!(".TH {} {section} {} \"heat-salt-bootstrap {version}\"", name.to_uppercase(), day.0));
        page.heading("NAME");
        page.line(&format!("{} \\- {}", escaped(name), escaped(what)));
        page
    }

    /// All of it.
    pub fn done(self) -> String {
        self.text
    }

    /// A heading.
    pub fn heading(&mut self, title: &str) {
        self.line(&format!(".SH {}", escaped(&title.to_uppercase())));
    }

    /// A smaller one.
    pub fn subheading(&mut self, title: &str) {
        self.line(&format!(".SS {}", escaped(title)));
    }

    /// A paragraph in Markdown.
    pub fn paragraph(&mut self, markdown: &str) {
        // Below a heading none is wanted, and mandoc says so.
        if !self.text.lines().last().is_some_and(|line| line.starts_with(".SH") || line.starts_with(".SS")) {
            self.line(".PP");
        }
        self.prose(markdown);
    }

    /// Something with its explanation, both in Markdown.
    pub fn item(&mut self, term: &str, markdown: &str) {
        self.line(".TP");
        self.line(&inline(term));
        self.prose(markdown);
    }

    /// A point of a list.
    pub fn point(&mut self, markdown: &str) {
        self.line(".IP \\(bu 2");
        self.prose(markdown);
    }

    /// Lines as they are.
    pub fn verbatim(&mut self, lines: &str) {
        self.line(".PP");
        self.line(".nf");
        self.line(".RS 4");
        lines.lines().for_each(|line| self.line(&escaped(line)));
        self.line(".RE");
        self.line(".fi");
    }

    /// Running text, in lines that are not too long for whoever reads the source.
    fn prose(&mut self, markdown: &str) {
        let mut line = String::new();
        for word in inline(markdown).split(' ') {
            if !line.is_empty() && line.len() + 1 + word.len() > LONGEST_LINE {
                self.line(&std::mem::take(&mut line));
            }
            match line.is_empty() {
                true if word.starts_with(['.', '\'']) => line.push_str("\\&"),
                true => {}
                false => line.push(' '),
            }
            line.push_str(word);
        }
        self.line(&line);
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// What roff would take for commands of its own, it prints.
pub fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('^', "\\(ha").replace('~', "\\(ti").replace('`', "\\(ga");
    // At the start of a line these begin a request.
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// Markdown within a line: code is bold, stress is italic, of a link its text is left.
pub fn inline(markdown: &str) -> String {
    let mut made = String::new();
    for (number, piece) in markdown.split('`').enumerate() {
        if number % 2 == 1 {
            made.push_str(&format!("\\fB{}\\fR", escaped(piece)));
            continue;
        }
        for (number, piece) in without_links(piece).split("**").enumerate() {
            let piece = escaped(piece).trim_start_matches("\\&").to_owned();
            if number % 2 == 1 { made.push_str(&format!("\\fI{piece}\\fR")) } else { made.push_str(&piece) }
        }
    }
    if made.starts_with(['.', '\'']) { format!("\\&{made}") } else { made }
}

fn without_links(text: &str) -> String {
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        made.push_str(before);
        match after.split_once("](").and_then(|(name, target)| Some((name, target.split_once(')')?.1))) {
            Some((name, behind)) if !name.contains('[') => {
                made.push_str(name);
                rest = behind;
            }
            _ => {
                made.push('[');
                rest = after;
            }
        }
    }
    made + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_roff() {
        assert_eq!(inline("`--a` of [the page](x.md#y), **all** [2]"), "\\fB\\-\\-a\\fR of the page, \\fIall\\fR [2]");
        assert_eq!(inline("./x"), "\\&./x");
        assert_eq!(inline("'a' b\\c"), "\\&'a' b\\ec");
        assert_eq!(escaped(".so"), "\\&.so");
    }
}

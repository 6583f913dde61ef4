//! The `curl_cli` attribute of a handle: a shell command, as Heat writes it. It is read, never run.

use crate::types::url::Url;

/// Finds the URL and the token in the command; the error is a sentence.
pub fn parse(command: &str) -> Result<(Url, String), String> {
    let words = shell_words(command)?;
    let mut token = None;
    let mut url = None;
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-H" | "--header" => {
                let header = words.next().unwrap_or_default();
                let (name, value) = header.split_once(':').unwrap_or_default();
                if name.trim().eq_ignore_ascii_case("X-Auth-Token") {
                    token = Some(value.trim().to_owned());
                }
            }
            text => url = Url::parse(text).ok().or(url),
        }
    }
    url.zip(token)
        .ok_or_else(|| "is a curl command without an X-Auth-Token header or without a URL: pass curl_cli as the handle gives it".into())
}

/// Splits a command into words as a shell would, for the quoting that Heat uses.
fn shell_words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("is a curl command with an open quote".into()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_as_heat_writes_it() {
        // As heat-api 27 gives it.
        let command = "curl -i -X POST -H 'X-Auth-Token: gAAAA-tok_en' -H 'Content-Type: application/json' -H 'Accept: application/json' http://heat:8004/v1/p/stacks/s/1/resources/h/signal";
        let found = (Url::parse("http://heat:8004/v1/p/stacks/s/1/resources/h/signal").unwrap(), "gAAAA-tok_en".to_owned());
        assert_eq!(parse(command), Ok(found));
    }

    #[test]
    fn what_lacks_something_is_refused() {
        for (command, word) in [
            ("curl -X POST http://x", "X-Auth-Token"),
            ("curl -H 'X-Auth-Token: t'", "URL"),
            ("curl 'http://x", "open quote"),
            ("", "curl"),
        ] {
            assert!(parse(command).unwrap_err().contains(word), "{command:?}");
        }
    }
}

//! Takes secrets out of a text that goes to other people: those that the configuration holds, and what looks like one.

use crate::types::excerpt::without_credentials;
use crate::types::secret::Secret;

const MASK: &str = "***";
/// What is shorter stands in every text.
const SHORTEST: usize = 4;
/// A name that ends in one of these has a secret for its value.
const NAMES: [&str; 8] = ["password", "passwd", "passphrase", "secret", "token", "secret_key", "api_key", "authorization"];
/// Tokens begin so: of the enrolment service, of Keystone, signed JSON.
const BEGINNINGS: [&str; 4] = ["hsb1.", "hsb2.", "gAAAA", "eyJ"];

/// The text without secrets.
pub fn masked(text: &str, secrets: &[Secret]) -> String {
    let mut text = without_credentials(text).into_owned();
    let mut forms: Vec<String> = secrets.iter().flat_map(forms).collect();
    // The longest first: one that is a part of another would leave the rest of that.
    while let Some(at) = (0..forms.len()).max_by_key(|at| forms[*at].len()) {
        text = text.replace(&forms.swap_remove(at), MASK);
    }
    let mut in_a_key = false;
    let mut lines = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let begins = line.contains("-----BEGIN ") && line.contains("PRIVATE KEY");
        let hidden = in_a_key && !begins;
        in_a_key = (in_a_key || begins) && !line.contains("-----END ");
        lines.push_str(&if hidden { format!("{MASK}\n") } else { without_tokens(&without_values(line)) });
    }
    lines
}

/// As it is and as it stands in JSON; of a longer text each line, since a log indents them.
fn forms(secret: &Secret) -> Vec<String> {
    let quoted = serde_json::Value::from(secret.expose()).to_string();
    let whole = quoted[1..quoted.len() - 1].to_owned();
    let lines = secret.expose().lines().map(|line| line.trim().to_owned());
    lines.chain([whole]).filter(|form| form.len() >= SHORTEST).collect()
}

/// `NAME: VALUE`, `NAME=VALUE` and `"NAME": "VALUE"` without the value, where the name is that of a secret.
fn without_values(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let (mut shown, mut from) = (String::new(), 0);
    while let Some(at) = lower[from..].find([':', '=']).map(|at| from + at) {
        let name = lower[..at].trim_end_matches([' ', '"', '\'', '\\']);
        let rest = &line[at + 1..];
        let value = rest.trim_start_matches([' ', '"', '\'', '\\']);
        let begin = line.len() - value.len();
        let quote = rest[..rest.len() - value.len()].chars().next_back().filter(|last| *last != ' ');
        let end = match quote {
            // What is escaped belongs to it.
            Some(quote) => closing(value, quote),
            None if name.ends_with("authorization") => value.find(['\'', '"', '\n']).unwrap_or(value.len()),
            None => value.find(|c: char| c.is_whitespace() || ",;&)}]'\"".contains(c)).unwrap_or(value.len()),
        };
        // "api.password: is missing" is what this program says.
        let hidden = end > 0 && &value[..end] != "is" && NAMES.iter().any(|ending| name.ends_with(ending));
        shown.push_str(&line[from..begin]);
        shown.push_str(if hidden { MASK } else { "" });
        from = if hidden { begin + end } else { begin };
    }
    shown + &line[from..]
}

fn closing(value: &str, quote: char) -> usize {
    let mut escaped = false;
    let is_end = |(_, c): &(usize, char)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    };
    value.char_indices().find(is_end).map_or(value.len(), |(at, _)| at)
}

fn without_tokens(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-=".contains(c);
    let mut shown = String::with_capacity(line.len());
    for word in line.split_inclusive(|c| !is_part(c)) {
        let token = word.trim_end_matches(|c| !is_part(c));
        let hidden = token.len() > 16 && BEGINNINGS.iter().any(|begin| token.starts_with(begin));
        shown.push_str(if hidden { MASK } else { token });
        shown.push_str(&word[token.len()..]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_holds_is_nowhere() {
        let secrets = ["pass\"word", "pass", "abc", "-----BEGIN X-----\nline one\n-----END X-----\n"].map(Secret::new);
        let shown = masked("a pass\"word, {\"x\": \"pass\\\"word\"} passes abc\n    line one\n", &secrets);
        assert_eq!(shown, "a ***, {\"x\": \"***\"} ***es abc\n    ***\n");
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_and_nothing_else() {
        for (text, shown) in [
            ("password: geheim\n", "password: ***\n"),
            ("mysql.password = 'ge heim' # x", "mysql.password = '***' # x"),
            ("{\"api\":{\"token\": \"ge\\\"heim\", \"user\": \"u\"}}", "{\"api\":{\"token\": \"***\", \"user\": \"u\"}}"),
            ("curl -H 'X-Auth-Token: abc' -H 'Authorization: Basic abc='", "curl -H 'X-Auth-Token: ***' -H 'Authorization: ***'"),
            ("with hsb2.0123456789abcdef.x-y.sz, and gAAAAABmZmZmZmZmZm==", "with ***, and ***"),
            ("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\nx", "-----BEGIN PRIVATE KEY-----\n***\n***\nx"),
            ("https://u:p@h/?sig=x", "https://***@h/?sig=***"),
            (
                "password_file: /pw, \"transport\": \"TOKEN_SIGNAL\", key: \u{fc}",
                "password_file: /pw, \"transport\": \"TOKEN_SIGNAL\", key: \u{fc}",
            ),
            ("api.password: is missing", "api.password: is missing"),
            ("token:\npassword=", "token:\npassword="),
            ("12:00:01 the token does not allow web: ask", "12:00:01 the token does not allow web: ask"),
        ] {
            assert_eq!(masked(text, &[]), shown);
        }
    }
}

//! A wait condition handle as a template passes it on, in whatever form Heat gave it.
//!
//! Only the forms of TOKEN_SIGNAL are understood so far; every other form is recognised and named
//! in the complaint. A further transport is a further variant of [`Handle`]: the matches on it
//! show what else it needs.

use serde_json::{Map, Value};

use crate::words::secret::Secret;

/// Where and how Heat wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handle {
    /// `signal_transport: TOKEN_SIGNAL`, Heat's default: a URL of heat-api and a Keystone token
    /// (`heat/engine/resources/openstack/heat/wait_condition_handle.py`).
    Token {
        /// The URL to POST to.
        endpoint: String,
        /// The content of X-Auth-Token.
        token: Secret,
    },
}

impl Handle {
    /// Heat's word for the transport.
    pub fn transport(&self) -> &'static str {
        match self {
            Handle::Token { .. } => "TOKEN_SIGNAL",
        }
    }

    /// The address to talk to.
    pub fn url(&self) -> &str {
        match self {
            Handle::Token { endpoint, .. } => endpoint,
        }
    }
}

/// The keys of a handle, apart from `ca`, `ca_file` and `id`, which say how to reach it.
const HANDLE_KEYS: [&str; 4] = ["endpoint", "token", "curl_cli", "signal"];

/// Reads a handle; `Ok(None)` is a handle that wants no signal (NO_SIGNAL). The error is a sentence.
pub fn parse(value: &Value) -> Result<Option<Handle>, String> {
    match value {
        Value::String(text) => parse_text(text),
        Value::Object(keys) => parse_keys(keys),
        _ => Err("has to be a handle's attributes as a mapping or a text".into()),
    }
}

fn parse_text(text: &str) -> Result<Option<Handle>, String> {
    let text = text.trim();
    if text.starts_with("curl ") {
        return curl_cli(text).map(Some);
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(keys)) if keys.is_empty() => Ok(None),
        Ok(Value::Object(keys)) => parse_keys(&keys),
        Ok(Value::Null) => {
            Err("is the text \"null\": the `signal` attribute of a TOKEN_SIGNAL handle is empty; pass {endpoint, token} or curl_cli".into())
        }
        _ => Err("is a text, but neither JSON nor a curl command".into()),
    }
}

fn parse_keys(keys: &Map<String, Value>) -> Result<Option<Handle>, String> {
    let text = |key: &str| keys.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    if let Some(inner) = keys.get("signal") {
        return parse(inner);
    }
    if let Some(command) = text("curl_cli") {
        return curl_cli(command).map(Some);
    }
    if let (Some(endpoint), Some(token)) = (text("endpoint"), text("token")) {
        if let Some(key) = keys.keys().find(|key| !HANDLE_KEYS.contains(&key.as_str()) && !["ca", "ca_file", "id"].contains(&key.as_str()))
        {
            return Err(format!("unknown key {key:?} beside endpoint and token; known here are ca, ca_file, id"));
        }
        return token_signal(endpoint, token).map(Some);
    }
    let other = if keys.contains_key("auth_url") && keys.contains_key("queue_id") {
        "a ZAQAR_SIGNAL handle"
    } else if keys.contains_key("auth_url") {
        "a HEAT_SIGNAL handle"
    } else if keys.contains_key("alarm_url") {
        "a CFN_SIGNAL or TEMP_URL_SIGNAL handle"
    } else if keys.contains_key("url") {
        "an AWS::CloudFormation::WaitConditionHandle"
    } else if keys.contains_key("deployment") {
        "a software deployment"
    } else {
        return Err("holds no handle: a TOKEN_SIGNAL handle has endpoint and token, or curl_cli".into());
    };
    Err(format!("looks like {other}, which this version cannot use: take signal_transport TOKEN_SIGNAL and pass its endpoint and token"))
}

/// Reads `curl_cli` as Heat writes it. It is read, never run.
fn curl_cli(command: &str) -> Result<Handle, String> {
    let words = shell_words(command)?;
    let mut token = None;
    let mut url = None;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-H" | "--header" => {
                let header = words.next().unwrap_or_default();
                let (name, value) = header.split_once(':').unwrap_or_default();
                if name.trim().eq_ignore_ascii_case("X-Auth-Token") {
                    token = Some(value.trim());
                }
            }
            _ if word.starts_with("http://") || word.starts_with("https://") => url = Some(word),
            _ => {}
        }
    }
    match (url, token) {
        (Some(url), Some(token)) => token_signal(url, token),
        _ => Err("is a curl command without an X-Auth-Token header or without a URL: pass curl_cli as the handle gives it".into()),
    }
}

fn token_signal(endpoint: &str, token: &str) -> Result<Handle, String> {
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        return Err(format!("endpoint {endpoint:?} is no http(s) URL"));
    }
    if token.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii()) {
        return Err("the token holds characters that no header can carry".into());
    }
    Ok(Handle::Token { endpoint: endpoint.to_owned(), token: Secret::new(token) })
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
    use serde_json::json;

    fn token(endpoint: &str, token: &str) -> Handle {
        Handle::Token { endpoint: endpoint.into(), token: Secret::new(token) }
    }

    #[test]
    fn the_forms_of_a_token_signal() {
        let expected = token("http://heat:8004/v1/p/stacks/s/1/resources/h/signal", "gAAAA-tok_en");
        // As heat-api 27 gives it (project's facts on Heat).
        let curl = "curl -i -X POST -H 'X-Auth-Token: gAAAA-tok_en' -H 'Content-Type: application/json' -H 'Accept: application/json' http://heat:8004/v1/p/stacks/s/1/resources/h/signal";
        let endpoint = expected.url();
        let keys = json!({"endpoint": endpoint, "token": "gAAAA-tok_en", "id": "web-1"});
        for form in [keys.clone(), json!(keys.to_string()), json!(curl), json!({"curl_cli": curl}), json!({"signal": curl})] {
            assert_eq!(parse(&form), Ok(Some(expected.clone())), "{form}");
        }
    }

    #[test]
    fn no_signal_is_no_handle() {
        assert_eq!(parse(&json!("{}")), Ok(None));
    }

    #[test]
    fn other_handles_are_named() {
        for (form, word) in [
            (json!({"auth_url": "http://k/v3", "user_id": "u"}), "HEAT_SIGNAL"),
            (json!({"auth_url": "http://k/v3", "queue_id": "q"}), "ZAQAR"),
            (json!({"alarm_url": "http://c/"}), "CFN_SIGNAL"),
            (json!({"url": "http://c/"}), "AWS::"),
            (json!({"endpoint": "http://c/"}), "no handle"),
            (json!("null"), "null"),
            (json!(3), "mapping"),
            (json!("curl -X POST http://x"), "X-Auth-Token"),
            (json!("curl 'http://x"), "open quote"),
            (json!({"endpoint": "ftp://x", "token": "t"}), "http"),
            (json!({"endpoint": "http://x", "token": "t\nEvil: 1"}), "header"),
            (json!({"endpoint": "http://x", "token": "t", "tocken": "t"}), "tocken"),
        ] {
            let complaint = parse(&form).unwrap_err();
            assert!(complaint.contains(word), "{form}: {complaint}");
        }
    }
}

//! salt-api (rest_cherrypy) on the wire: what its answers mean. All of this was measured against
//! Salt 3006 and 3008; the code behind it is `salt/netapi/rest_cherrypy/app.py`.

use serde::Serialize;
use serde_json::{Value, json};

use super::error_page;
use crate::types::excerpt::{CUT, one_line};
use crate::types::secret::Secret;

/// Why salt-api did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// User, password or eauth are wrong; the answer is the same for all three.
    Credentials,
    /// There is no session behind the token, or not any more: log in again.
    Session,
    /// The session lives, but the Salt token behind it has expired: log in again.
    TokenExpired,
    /// The user may not do this.
    Permission(String),
    /// `netapi_enable_clients` does not name the client.
    ClientDisabled(String),
    /// The master behind salt-api is away or slow, or something on the way is overloaded.
    Unavailable {
        /// The HTTP status that says so.
        status: u16,
        /// With what was said.
        detail: String,
    },
    /// The call itself failed on the master; this is the last line of its traceback.
    Exception(String),
    /// Nothing that salt-api would say.
    InvalidResponse(String),
}

impl Refusal {
    /// The same, where this is not said, nor its beginning where what was said is cut.
    pub fn without(self, secret: &Secret) -> Refusal {
        let quoted = json!(secret.expose()).to_string();
        // As it is, and as it stands in a JSON text; both also as they are on one line.
        let plain = [secret.expose(), &quoted[1..quoted.len() - 1]];
        let forms: Vec<String> = plain.into_iter().flat_map(|form| [form.to_owned(), one_line(form, usize::MAX)]).collect();
        let masked = |detail: String| forms.iter().filter(|form| !form.is_empty()).fold(detail, |detail, form| mask(detail, form));
        match self {
            Refusal::Credentials | Refusal::Session | Refusal::TokenExpired => self,
            Refusal::Permission(detail) => Refusal::Permission(masked(detail)),
            Refusal::ClientDisabled(detail) => Refusal::ClientDisabled(masked(detail)),
            Refusal::Unavailable { status, detail } => Refusal::Unavailable { status, detail: masked(detail) },
            Refusal::Exception(detail) => Refusal::Exception(masked(detail)),
            Refusal::InvalidResponse(detail) => Refusal::InvalidResponse(masked(detail)),
        }
    }
}

fn mask(detail: String, secret: &str) -> String {
    let mut detail = detail.replace(secret, "***");
    let Some(end) = detail.find(CUT) else { return detail };
    // Fewer bytes than this give nothing away, and are in every text.
    let begun = |&length: &usize| secret.is_char_boundary(length) && detail[..end].ends_with(&secret[..length]);
    if let Some(length) = (4..secret.len()).rev().find(begun) {
        detail.replace_range(end - length..end, "***");
    }
    detail
}

/// The body of `POST /login`.
pub fn login_body(username: &str, password: &Secret, eauth: &str) -> Secret {
    #[derive(Serialize)]
    struct Login<'a> {
        username: &'a str,
        password: &'a str,
        eauth: &'a str,
    }
    // Without a `Value` in between, which nobody would wipe. Texts cannot fail to be JSON.
    Secret::new(serde_json::to_string(&Login { username, password: password.expose(), eauth }).unwrap_or_default())
}

/// The body of `POST /` for one wheel call; `arguments` are its keyword arguments.
pub fn wheel_body(fun: &str, arguments: &Value) -> String {
    let mut call = json!({"client": "wheel", "fun": fun});
    if let (Some(call), Some(arguments)) = (call.as_object_mut(), arguments.as_object()) {
        call.extend(arguments.clone());
    }
    Value::Array(vec![call]).to_string()
}

/// What a login brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The session's token.
    pub token: Secret,
    /// What the user may do, by the master's configuration.
    pub permissions: Value,
}

/// Reads the answer to a login.
pub fn login_answer(status: u16, body: &[u8]) -> Result<Opened, Refusal> {
    let mut answer = success(status, body)?;
    let permissions = answer.pointer_mut("/return/0/perms").map(Value::take).unwrap_or_default();
    match answer["return"][0]["token"].as_str() {
        Some(token) if !token.is_empty() => Ok(Opened { token: Secret::new(token), permissions }),
        _ => Err(nonsense(status, body)),
    }
}

/// Reads the answer to a wheel call: what the function returned. `success: true` only says that it
/// raised nothing.
pub fn wheel_answer(status: u16, body: &[u8]) -> Result<Value, Refusal> {
    let mut answer = success(status, body)?;
    let Some(data) = answer.pointer_mut("/return/0/data") else { return Err(nonsense(status, body)) };
    match data["success"].as_bool() {
        Some(true) => Ok(data.get_mut("return").map(Value::take).unwrap_or_default()),
        Some(false) => Err(Refusal::Exception(last_line(data["return"].as_str().unwrap_or("no traceback")))),
        None => Err(nonsense(status, body)),
    }
}

/// Reads the answer to a hook. It says that the event was fired, and nothing about what came of it.
pub fn hook_answer(status: u16, body: &[u8]) -> Result<(), Refusal> {
    match success(status, body)?["success"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(nonsense(status, body)),
    }
}

fn success(status: u16, body: &[u8]) -> Result<Value, Refusal> {
    if status == 200 {
        return serde_json::from_slice(body).map_err(|_| nonsense(status, body));
    }
    let text = String::from_utf8_lossy(body);
    let message = error_page::message(&text).unwrap_or_default();
    Err(match status {
        401 if message.starts_with("Could not authenticate") => Refusal::Credentials,
        401 if message.starts_with("No permission") => Refusal::Session,
        401 if message.starts_with("Authentication failure of type") => {
            // With the user's name it is the user who may not; without, the token is gone.
            if message.contains("for user") { Refusal::Permission(message) } else { Refusal::TokenExpired }
        }
        401 if message.starts_with("Authorization error") => Refusal::Permission(message),
        400 if message.contains("Client disabled") => Refusal::ClientDisabled(message),
        429 | 500 | 502..=504 => {
            let detail = if message.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {message}") };
            Refusal::Unavailable { status, detail }
        }
        _ => nonsense(status, body),
    })
}

fn nonsense(status: u16, body: &[u8]) -> Refusal {
    let text = String::from_utf8_lossy(body);
    let detail = match text.trim_start().bytes().next() {
        None => "an empty body".to_owned(),
        // What begins as salt-api's own answers do may hold a session's token, as half an answer to a login does.
        Some(b'{' | b'[') => format!("JSON that is not all there or says something else ({} bytes)", body.len()),
        Some(_) => match error_page::message(&text) {
            Some(message) => format!("\"{message}\""),
            // So may what only does not begin like that.
            None if text.contains('{') => format!("something else ({} bytes)", body.len()),
            None => format!("\"{}\"", one_line(&error_page::unescape(&text), 120)),
        },
    };
    Refusal::InvalidResponse(format!("HTTP {status} with {detail}"))
}

fn last_line(traceback: &str) -> String {
    traceback
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .map_or("no traceback".to_owned(), |line| one_line(line, error_page::MOST_MESSAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(message: &str) -> Vec<u8> {
        format!("<!DOCTYPE html><html><body><h2>x</h2><p>{message}</p></body></html>").into_bytes()
    }

    #[test]
    fn the_four_meanings_of_401() {
        for (message, meaning) in [
            ("Could not authenticate using provided credentials", Refusal::Credentials),
            ("No permission -- see authorization schemes", Refusal::Session),
            ("Authentication failure of type &quot;token&quot; occurred.", Refusal::TokenExpired),
        ] {
            assert_eq!(wheel_answer(401, &page(message)), Err(meaning), "{message}");
        }
        for message in ["Authentication failure of type &quot;token&quot; occurred for user noperm.", "Authorization error occurred."] {
            assert!(matches!(wheel_answer(401, &page(message)), Err(Refusal::Permission(_))), "{message}");
        }
        assert!(matches!(wheel_answer(401, &page("something new")), Err(Refusal::InvalidResponse(_))));
    }

    #[test]
    fn a_disabled_client_is_told_from_other_bad_requests() {
        let disabled = page("Client disabled: &#x27;wheel&#x27;. Add to &#x27;netapi_enable_clients&#x27; to enable.");
        assert!(matches!(wheel_answer(400, &disabled), Err(Refusal::ClientDisabled(text)) if text.contains("'wheel'")));
        assert!(matches!(wheel_answer(400, &page("Invalid JSON document")), Err(Refusal::InvalidResponse(_))));
    }

    #[test]
    fn success_true_is_unpacked_and_success_false_is_an_exception() {
        let fine =
            br#"{"return":[{"tag":"salt/wheel/1","data":{"fun":"wheel.key.accept","jid":"1","return":{"minions":["a"]},"success":true}}]}"#;
        assert_eq!(wheel_answer(200, fine), Ok(json!({"minions": ["a"]})));
        let raised = br#"{"return":[{"data":{"return":"Traceback:\n  x\nTypeError: no\n","success":false}}]}"#;
        assert_eq!(wheel_answer(200, raised), Err(Refusal::Exception("TypeError: no".into())));
    }

    #[test]
    fn what_is_not_salt_api_is_nonsense() {
        for (status, body) in
            [(200, &b"<html>hello</html>"[..]), (200, b""), (200, b"{}"), (302, b""), (404, b"not here"), (200, b"[]"), (200, b"\xff\xfe")]
        {
            assert!(matches!(wheel_answer(status, body), Err(Refusal::InvalidResponse(_))), "{status} {body:?}");
            assert!(matches!(login_answer(status, body), Err(Refusal::InvalidResponse(_))), "{status} {body:?}");
            assert!(matches!(hook_answer(status, body), Err(Refusal::InvalidResponse(_))), "{status} {body:?}");
        }
    }

    #[test]
    fn half_an_answer_to_a_login_gives_no_token_away() {
        for body in [
            &br#"{"return": [{"token": "5e55101"#[..],
            br#" {"return": [{"token": ["5e55101"]}]}"#,
            b"\xef\xbb\xbf{\"token\": \"5e55101\"}",
        ] {
            let Err(Refusal::InvalidResponse(detail)) = login_answer(200, body) else { panic!("taken for an answer") };
            assert!(!detail.contains("5e55101") && detail.contains("bytes)"), "{detail}");
        }
        assert_eq!(login_answer(200, b"It works!\n"), Err(Refusal::InvalidResponse("HTTP 200 with \"It works!\"".into())));
    }

    #[test]
    fn what_is_said_back_is_masked() {
        let secret = Secret::new("pass\"word");
        let echo = page(&login_body("boot", &secret, "pam").expose().replace('"', "&quot;"));
        let Err(refusal) = login_answer(502, &echo) else { panic!("taken for an answer") };
        assert_eq!(
            refusal.without(&secret),
            Refusal::Unavailable { status: 502, detail: "HTTP 502: {\"username\":\"boot\",\"password\":\"***\",\"eauth\":\"pam\"}".into() }
        );
        assert_eq!(Refusal::InvalidResponse("x".into()).without(&Secret::new("")), Refusal::InvalidResponse("x".into()));
        // As a page that is neither salt-api's nor anybody's says it, and with white space that does not stay as it was.
        for (status, body) in [(404, page("{\"a\": \"pass\\\"word\"}")), (404, b"you said pass&quot;word".to_vec())] {
            let Err(refusal) = login_answer(status, &body) else { panic!("taken for an answer") };
            let Refusal::InvalidResponse(detail) = refusal.without(&secret) else { panic!("something else") };
            assert!(detail.contains("***") && !detail.contains("word"), "{detail}");
        }
        let detail = login_answer(502, &page("wrong: a  b\nc!")).unwrap_err().without(&Secret::new("a  b\nc"));
        assert_eq!(detail, Refusal::Unavailable { status: 502, detail: "HTTP 502: wrong: ***!".into() });
    }

    #[test]
    fn what_is_said_back_is_bounded_and_a_cut_secret_is_masked() {
        let secret = Secret::new("correct-horse-battery");
        for before in 370..400 {
            let Err(refusal) = login_answer(502, &page(&format!("{} {}", "x".repeat(before), secret.expose().repeat(2)))) else {
                panic!("taken for an answer")
            };
            let Refusal::Unavailable { detail, .. } = refusal.without(&secret) else { panic!("something else") };
            assert!(detail.len() < 450 && !detail.contains("corr"), "{detail}");
        }
        let long = json!({"return": [{"data": {"success": false, "return": "x".repeat(1 << 20)}}]}).to_string();
        let Err(Refusal::Exception(line)) = wheel_answer(200, long.as_bytes()) else { panic!("no exception") };
        assert!(line.len() < 450);
    }

    #[test]
    fn what_may_pass_is_unavailable() {
        assert_eq!(
            login_answer(503, &page("Salt Master is not available.")),
            Err(Refusal::Unavailable { status: 503, detail: "HTTP 503: Salt Master is not available.".into() })
        );
        assert!(matches!(
            hook_answer(500, br#"{"status":500,"return":"An unexpected error occurred"}"#),
            Err(Refusal::Unavailable { status: 500, .. })
        ));
    }

    #[test]
    fn a_wheel_call_is_one_lowstate() {
        let body: Value = serde_json::from_str(&wheel_body("key.accept", &json!({"match": "a"}))).unwrap();
        assert_eq!(body, json!([{"client": "wheel", "fun": "key.accept", "match": "a"}]));
    }
}

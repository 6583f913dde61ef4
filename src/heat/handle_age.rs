//! How old the credential in a handle is, as far as it says so itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::handle::Transport;
use crate::types::time;

/// Keystone's default life of a token (`[token] expiration`).
const TOKEN_LIVES: u64 = 3_600;
/// Keystone's default life of a signed URL (`[credential] auth_ttl`).
const SIGNATURE_LIVES: u64 = 900;

/// A sentence about the credential's age at `now`; `None` where it does not say, and where it does not age. `needed` is how long it
/// may have to serve from now on, in seconds.
pub fn warning(transport: &Transport, now: i64, needed: u64) -> Option<String> {
    let aged = |what: &str, made: i64, lifetime: u64, default: &str| {
        let age = u64::try_from(now - made).ok()?;
        let soon = if age > lifetime {
            format!("; {default} is older than it lives by default")
        } else if age + needed > lifetime {
            format!("; {default} would die by default before the deadline is over: HEAT_SIGNAL lasts")
        } else {
            String::new()
        };
        Some(format!("{what} {} ago{soon}", time::length(age)))
    };
    match transport {
        Transport::Token { token, .. } => aged("its token was made", token_made(token.expose())?, TOKEN_LIVES, "a token of that age"),
        Transport::Cfn { url, .. } | Transport::Aws(url) => {
            let made = time::timestamp(&url.parameter("Timestamp")?.replace("%3A", ":").replace("%3a", ":"))?;
            aged("its URL was signed", made, SIGNATURE_LIVES, "a signature of that age")
        }
        Transport::TempUrl(url) => {
            let until = url.parameter("temp_url_expires")?.parse::<i64>().ok()?;
            let span = time::length(until.abs_diff(now));
            Some(if until < now { format!("its URL died {span} ago") } else { format!("its URL lives for {span} more") })
        }
        // A fresh token for every signal.
        Transport::Heat { .. } | Transport::Zaqar { .. } => None,
    }
}

/// Keystone's tokens are Fernet tokens (<https://github.com/fernet/spec>): a version and eight bytes of time stand before what is
/// encrypted.
fn token_made(token: &str) -> Option<i64> {
    let head = URL_SAFE_NO_PAD.decode(token.get(..12)?).ok()?;
    let (version, time) = head.split_first()?;
    (*version == 0x80).then_some(i64::try_from(u64::from_be_bytes(time.try_into().ok()?)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::secret::Secret;
    use crate::types::url::Url;

    const NOW: i64 = 1_795_473_999;

    fn token(made: i64) -> Transport {
        let mut bytes = vec![0x80];
        bytes.extend(made.to_be_bytes());
        let text = format!("{}the-rest_is-encrypted", URL_SAFE_NO_PAD.encode(bytes));
        assert!(text.starts_with("gAAAAA"), "{text}");
        Transport::Token { endpoint: Url::parse("http://h/").unwrap(), token: Secret::new(text) }
    }

    #[test]
    fn a_token_tells_its_age_and_whether_it_lasts() {
        assert_eq!(warning(&token(NOW - 300), NOW, 1_500).unwrap(), "its token was made 5 min ago");
        assert!(warning(&token(NOW - 3_000), NOW, 1_500).unwrap().contains("before the deadline"));
        assert!(warning(&token(NOW - 4_000), NOW, 0).unwrap().contains("older than it lives"));
        let other =
            |text: &str| warning(&Transport::Token { endpoint: Url::parse("http://h/").unwrap(), token: Secret::new(text) }, NOW, 0);
        for text in ["", "short", "0123456789abcdef0123456789abcdef", "gAAAAABwrong-token"] {
            assert_eq!(other(text), None, "{text}");
        }
        assert_eq!(warning(&token(NOW + 60), NOW, 0), None, "from the future: nobody knows whose clock is right");
    }

    #[test]
    fn signed_urls_tell_theirs() {
        let url = |text: &str| Url::parse(text).unwrap();
        let cfn = Transport::Cfn { url: url("http://h/v1/signal/a?Timestamp=2026-11-23T22%3A41%3A39Z&Signature=s"), method: "POST" };
        assert_eq!(warning(&cfn, NOW, 0).unwrap(), "its URL was signed 5 min ago");
        assert!(warning(&cfn, NOW + 900, 0).unwrap().contains("older than it lives"));
        let temporary = Transport::TempUrl(url("http://h/o?temp_url_sig=s&temp_url_expires=1795474059"));
        assert_eq!(warning(&temporary, NOW, 0).unwrap(), "its URL lives for 60 s more");
        assert_eq!(warning(&temporary, NOW + 90, 0).unwrap(), "its URL died 30 s ago");
        assert_eq!(warning(&Transport::Aws(url("http://h/")), NOW, 0), None);
    }
}

//! What a VM and the enrolment service say to each other, version 1: `salt-extension/PROTOCOL.md` is its description, and the
//! service in `salt-extension/` the other side.
//!
//! A claim is signed by the minion's own key and, to be let in, proved by a token. Neither ever leaves this machine.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use serde_json::{Map, Value, json};

use super::public_key::PublicKey;
use crate::types::excerpt::one_line;
use crate::types::failure::Kind;
use crate::types::hexadecimal::hexadecimal;
use crate::types::names::{Jid, MinionId, StateName};
use crate::types::pin::Pin;
use crate::types::report::{Report, States};
use crate::types::secret::Secret;

/// More than a sentence has.
const MOST_SENTENCE: usize = 600;
/// Of so many states that failed the service is told.
const MOST_FAILURES: usize = 20;
/// More of a comment is for the report on this machine.
const MOST_COMMENT: usize = 1000;

/// What proves that this machine may be let in, and what the service is known by: `hsb2.NAME.SECRET[.PIN]`.
#[derive(Debug, Clone)]
pub struct Token {
    name: String,
    secret: Secret,
    pin: Option<Pin>,
}

impl Token {
    /// Reads a token; the error is a sentence that does not show it. A block of YAML ends with a newline, which is no part of it.
    pub fn parse(text: &str) -> Result<Token, String> {
        let wrong = || {
            "is no token, or not all of one: `heat-bootstrap token create` on the master prints hsb2, a name of 16 characters, a secret of 43, and perhaps a pin, joined by dots".to_owned()
        };
        let parts: Vec<&str> = text.trim().split('.').collect();
        let (name, secret, pin) = match parts.as_slice() {
            ["hsb2", name, secret] => (*name, *secret, None),
            ["hsb2", name, secret, pin] => (*name, *secret, Some(Pin::parse(pin).ok_or_else(wrong)?)),
            _ => return Err(wrong()),
        };
        let named = name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let successful = secret.len() == 43 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if named && successful { Ok(Token { name: name.to_owned(), secret: Secret::new(secret), pin }) } else { Err(wrong()) }
    }

    /// Its name, which is no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the service is known by, if the token says so.
    pub fn pin(&self) -> Option<&Pin> {
        self.pin.as_ref()
    }

    /// Both sides know its SHA-256; the service keeps no more than that.
    fn key(&self) -> hmac::Key {
        let whole = Secret::new(format!("hsb2.{}.{}", self.name, self.secret.expose()));
        hmac::Key::new(hmac::HMAC_SHA256, digest::digest(&digest::SHA256, whole.expose().as_bytes()).as_ref())
    }

    fn proof(&self, document: &[u8]) -> String {
        hexadecimal(hmac::sign(&self.key(), document).as_ref())
    }

    fn has_proved(&self, document: &[u8], proof: &str) -> bool {
        let bytes = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let tag: Option<Vec<u8>> = proof.as_bytes().chunks(2).map(bytes).collect();
        tag.is_some_and(|tag| hmac::verify(&self.key(), document, &tag).is_ok())
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// That the key be accepted.
    Enroll(&'a Token, &'a [StateName]),
    /// Whether it would be. Nothing is changed, and no use counted.
    Check(&'a Token, &'a [StateName]),
    /// That a job be published that runs states on this minion.
    Apply(&'a Job<'a>),
    /// Nothing: how the bootstrap ended is told.
    Report(&'a Report),
    /// That the key stay, or come back: the machine lives.
    Renew,
    /// That the key be removed.
    Deregister,
}

/// A job that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// This machine's name for it: asked for twice under one name, it is one job.
    pub name: &'a str,
    /// Which states it runs.
    pub states: &'a [StateName],
    /// With this pillar.
    pub pillar: &'a Map<String, Value>,
    /// It was published, and never came here or did not end: it is wanted once more.
    pub again: bool,
    /// In so many seconds nobody waits for it any more.
    pub deadline: u64,
}

impl Asked<'_> {
    /// The end of the path.
    pub const fn verb(&self) -> &'static str {
        match self {
            Asked::Enroll(..) => "enroll",
            Asked::Check(..) => "check",
            Asked::Apply(_) => "apply",
            Asked::Report(_) => "report",
            Asked::Renew => "renew",
            Asked::Deregister => "deregister",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The minion.
    pub id: &'a MinionId,
    /// Its public key. Only `check` does without: there may be none yet.
    pub key: Option<&'a PublicKey>,
    /// In the course of which bootstrap.
    pub bootstrap_id: &'a str,
}

/// What has to be signed. `nonce` is random and in hexadecimal, `time` in seconds since 1970.
pub fn document(claimant: &Claimant, asked: &Asked, nonce: &str, time: u64) -> String {
    let mut document = vec![
        ("verb", asked.verb().into()),
        ("id", claimant.id.as_str().into()),
        ("key", claimant.key.map(PublicKey::text).into()),
        ("bootstrap_id", claimant.bootstrap_id.into()),
        ("nonce", nonce.into()),
        ("time", time.into()),
    ];
    let names = |states: &[StateName]| states.iter().map(StateName::as_str).collect::<Value>();
    match asked {
        Asked::Enroll(token, states) | Asked::Check(token, states) => {
            document.extend([("token", token.name().into()), ("states", names(states))]);
        }
        Asked::Apply(job) => document.extend([
            ("job", job.name.into()),
            ("states", names(job.states)),
            ("pillar", Value::Object(job.pillar.clone())),
            ("again", job.again.into()),
            ("deadline", job.deadline.into()),
        ]),
        Asked::Report(report) => document.extend(report_fields(report)),
        Asked::Renew | Asked::Deregister => {}
    }
    object(document).to_string()
}

/// As `json!` does it, with less code for each key.
fn object(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What of a report is for the service.
fn report_fields(report: &Report) -> [(&'static str, Value); 9] {
    let failures = |states: &States| {
        let one = |one: &crate::types::report::FailedState| json!({"id": one.id, "sls": one.sls, "comment": one_line(&one.comment, MOST_COMMENT)});
        states.failures.iter().take(MOST_FAILURES).map(one).collect::<Value>()
    };
    [
        ("verdict", json!(report.verdict)),
        ("code", report.code.into()),
        ("reason", report.reason.as_str().into()),
        ("message", one_line(&report.message, 2 * MOST_COMMENT).into()),
        ("step", report.step.clone().into()),
        ("jid", report.jid.clone().into()),
        ("seconds", report.seconds.into()),
        ("steps", report.steps.iter().map(|step| json!([step.name, step.seconds])).collect()),
        ("failures", report.states.as_ref().map_or_else(|| json!([]), failures)),
    ]
}

/// What is posted, with the signature of the document (RSASSA-PKCS1-v1_5 with SHA-256) where there is a key.
pub fn body(asked: &Asked, document: &str, signature: Option<&[u8]>) -> String {
    let mut body = json!({"claim": STANDARD.encode(document), "signature": signature.map(|signature| STANDARD.encode(signature))});
    if let Asked::Enroll(token, _) | Asked::Check(token, _) = asked {
        body["proof"] = token.proof(document.as_bytes()).into();
    }
    body.to_string()
}

/// Why the service does not do what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It will not, for the reason that it gives.
    Refused {
        /// What the run ends with.
        kind: Kind,
        /// The service's word for the reason.
        word: String,
        /// Its sentence.
        message: String,
        /// Its advice.
        hint: Option<String>,
    },
    /// The clocks are too far apart.
    Skewed {
        /// By how many seconds this machine's is ahead.
        ahead: i64,
    },
    /// It cannot now.
    Unavailable(String),
    /// Nothing that the service would say.
    InvalidResponse(String),
}

/// The service's word for a reason, and what a run ends with because of it.
const WORDS: [(&str, Kind); 15] = [
    ("malformed", Kind::ApiProtocol),
    ("not-found", Kind::ApiProtocol),
    ("too-large", Kind::ApiProtocol),
    ("token-unknown", Kind::PermissionRefused),
    ("token-wrong", Kind::PermissionRefused),
    ("signature-wrong", Kind::PermissionRefused),
    ("token-expired", Kind::PermissionRefused),
    ("token-used-up", Kind::PermissionRefused),
    ("token-revoked", Kind::PermissionRefused),
    ("id-not-allowed", Kind::PermissionRefused),
    ("state-not-allowed", Kind::PermissionRefused),
    ("deregister-not-allowed", Kind::PermissionRefused),
    ("not-enrolled", Kind::PermissionRefused),
    ("key-conflict", Kind::KeyConflict),
    ("key-rejected", Kind::KeyRejected),
];

impl Refusal {
    /// What an answer with another status than 200 means.
    fn read(status: u16, body: &[u8]) -> Refusal {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key: &str| answer[key].as_str().map(|text| one_line(text, MOST_SENTENCE)).filter(|text| !text.is_empty());
        let (Some(word), Some(message)) = (text("error"), text("message")) else {
            let shown = format!("HTTP {status}: {}", one_line(&String::from_utf8_lossy(body), 200));
            return if status >= 500 || status == 429 { Refusal::Unavailable(shown) } else { Refusal::InvalidResponse(shown) };
        };
        if status >= 500 || status == 429 {
            return Refusal::Unavailable(message);
        }
        if word == "clock-skew" {
            return Refusal::Skewed { ahead: answer["skew"].as_i64().unwrap_or_default() };
        }
        // A later service may have further reasons; what it says counts, and what it refuses is refused.
        let kind = WORDS.iter().find(|(known, _)| *known == word).map_or(Kind::PermissionRefused, |(_, kind)| *kind);
        Refusal::Refused { kind, word, message, hint: text("hint") }
    }
}

/// What the service says of a key that it has let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetIn {
    /// Did that change anything on the master?
    pub changed: bool,
    /// The master's own key.
    pub master: PublicKey,
}

/// Reads the answer to `enroll`: only who knows the token can have said it, and only to this nonce.
pub fn enroll_answer(status: u16, body: &[u8], token: &Token, nonce: &str) -> Result<LetIn, Refusal> {
    let invalid = |why: &str| Refusal::InvalidResponse(why.to_owned());
    let envelope = successful(status, body)?;
    let document =
        envelope["answer"].as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| invalid("there is no answer in it"))?;
    if !token.has_proved(&document, envelope["proof"].as_str().unwrap_or_default()) {
        return Err(invalid("the answer is not proved by the token: somebody else has given it"));
    }
    let answer: Value = serde_json::from_slice(&document).map_err(|_| invalid("its answer is no JSON"))?;
    if answer["nonce"] != nonce {
        return Err(invalid("it is the answer to another claim"));
    }
    let status = answer["status"].as_str().unwrap_or_default();
    if !["accepted", "already", "replaced"].contains(&status) {
        return Err(invalid("it does not say whether the key is accepted"));
    }
    let master = answer["master_public_key"].as_str().unwrap_or_default();
    let master = PublicKey::parse(master).map_err(|why| invalid(&format!("the master's key {why}")))?;
    Ok(LetIn { changed: status != "already", master })
}

/// What a token would be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// Is the key accepted already?
    pub already: bool,
    /// How many more keys it lets in.
    pub uses_left: u64,
    /// Until when, in seconds since 1970.
    pub expires: i64,
}

/// Reads the answer to `check`.
pub fn check_answer(status: u16, body: &[u8]) -> Result<Good, Refusal> {
    let answer = successful(status, body)?;
    if answer["status"] != "good" {
        return Err(Refusal::InvalidResponse("it does not say whether the token is good".to_owned()));
    }
    Ok(Good {
        already: answer["would"] == "already",
        uses_left: answer["uses_left"].as_u64().unwrap_or_default(),
        expires: answer["expires"].as_i64().unwrap_or_default(),
    })
}

/// Reads the answer to `apply`.
pub fn apply_answer(status: u16, body: &[u8]) -> Result<Jid, Refusal> {
    let answer = successful(status, body)?;
    answer["jid"].as_str().and_then(Jid::parse).ok_or_else(|| Refusal::InvalidResponse("there is no job id in the answer".to_owned()))
}

/// Reads the answer to `renew`: had the key been removed, and is accepted again?
pub fn renew_answer(status: u16, body: &[u8]) -> Result<bool, Refusal> {
    match successful(status, body)?["status"].as_str() {
        Some("returned") => Ok(true),
        Some("renewed") => Ok(false),
        _ => Err(Refusal::InvalidResponse("it does not say whether the key is accepted".to_owned())),
    }
}

/// Reads the answer to `deregister`: was there a key that is gone now?
pub fn deregister_answer(status: u16, body: &[u8]) -> Result<bool, Refusal> {
    match successful(status, body)?["status"].as_str() {
        Some("removed") => Ok(true),
        Some("absent") => Ok(false),
        _ => Err(Refusal::InvalidResponse("it does not say whether the key is removed".to_owned())),
    }
}

/// Reads the answer to `status`: what its clock says, in seconds since 1970.
pub fn status_answer(status: u16, body: &[u8]) -> Result<Option<i64>, Refusal> {
    let answer = successful(status, body)?;
    if answer["service"] != "heat-salt-bootstrap" || answer["protocol"] != 1 {
        return Err(Refusal::InvalidResponse("it is another service, or another version of it".to_owned()));
    }
    Ok(answer["time"].as_i64())
}

/// Reads the answer to `report`.
pub fn report_answer(status: u16, body: &[u8]) -> Result<(), Refusal> {
    successful(status, body).map(|_| ())
}

fn successful(status: u16, body: &[u8]) -> Result<Value, Refusal> {
    if status != 200 {
        return Err(Refusal::read(status, body));
    }
    serde_json::from_slice(body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| Refusal::InvalidResponse(format!("HTTP 200: {}", one_line(&String::from_utf8_lossy(body), 200))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::pin::Pinned;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgeh_";
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nYWJj\n-----END PUBLIC KEY-----\n";

    fn token() -> Token {
        Token::parse(&format!("hsb2.0123456789abcdef.{SECRET}")).unwrap()
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        let hash = URL_SAFE_NO_PAD.encode([7; 32]);
        let good = format!("hsb2.0123456789abcdef.{SECRET}");
        for bad in [
            "",
            "hsb2",
            &good.replace("hsb2", "hsb1"),
            &good.replace("abcdef", "ABCDEF"),
            &good[..good.len() - 1],
            &format!("{good}!"),
            &format!("{good}.x{hash}"),
            &format!("{good}.s{}", &hash[1..]),
            &format!("{good}.s{hash}.s{hash}"),
            &format!("{good}."),
        ] {
            let why = Token::parse(bad).map(|_| ()).unwrap_err();
            assert!(!why.contains("geh"), "{bad}: {why}");
        }
        let pinned = |letter: &str| Token::parse(&format!("{good}.{letter}{hash}")).unwrap().pin().cloned().unwrap();
        assert_eq!(Pin::parse(&pinned("c").to_string()), Some(pinned("c")));
        assert_eq!(pinned("s"), Pin { of: Pinned::Server, hash: [7; 32] });
        assert_eq!(pinned("c"), Pin { of: Pinned::Authority, hash: [7; 32] });
        assert_eq!((token().name(), token().pin()), ("0123456789abcdef", None));
        assert_eq!(Token::parse(&format!("{good}.s{hash}\n")).unwrap().pin(), Some(&pinned("s")));
        assert!(!format!("{:?}", token()).contains("geh"));
    }

    #[test]
    fn a_proof_is_the_hmac_under_the_tokens_hash() {
        // python3 -c "import hmac,hashlib; t=b'hsb2.0123456789abcdef.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgeh_'; print(hmac.new(hashlib.sha256(t).digest(), b'doc', 'sha256').hexdigest())"
        let proof = token().proof(b"doc");
        assert_eq!(proof, "ac05749edba9bc6325439c087d4478ed2f5475ecb98c3744662d3101bc31be29");
        assert!(token().has_proved(b"doc", &proof));
        for wrong in ["", &proof[1..], &proof.replace('1', "2"), "zz", "\u{e9}\u{e9}"] {
            assert!(!token().has_proved(b"doc", wrong), "{wrong}");
        }
        assert!(!token().has_proved(b"dox", &proof));
    }

    #[test]
    fn a_claim_holds_neither_token_nor_secret() {
        let (token, key, id) = (token(), PublicKey::parse(KEY).unwrap(), MinionId::parse("web-1").unwrap());
        let states = [StateName::parse("memcached_v14").unwrap()];
        let asked = Asked::Enroll(&token, &states);
        let document = document(&Claimant { id: &id, key: Some(&key), bootstrap_id: "b" }, &asked, "00ff", 5);
        let body = body(&asked, &document, Some(b"signature"));
        assert!(!format!("{document}{body}").contains("geh"));
        let read: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(
            read,
            json!({"verb": "enroll", "id": "web-1", "key": KEY.trim(), "bootstrap_id": "b", "nonce": "00ff", "time": 5,
                "token": "0123456789abcdef", "states": ["memcached_v14"]})
        );
    }

    fn answer(document: Value, by: &Token) -> Vec<u8> {
        let document = document.to_string();
        json!({"answer": STANDARD.encode(&document), "proof": by.proof(document.as_bytes())}).to_string().into_bytes()
    }

    #[test]
    fn only_who_knows_the_token_says_who_the_master_is() {
        let successful = json!({"status": "accepted", "id": "web-1", "nonce": "00ff", "master_public_key": KEY, "time": 5});
        let read = |document: &Value, by: &Token| enroll_answer(200, &answer(document.clone(), by), &token(), "00ff");
        assert_eq!(read(&successful, &token()), Ok(LetIn { changed: true, master: PublicKey::parse(KEY).unwrap() }));
        let other = Token::parse(&format!("hsb2.0123456789abcdef.{}", SECRET.replace('A', "B"))).unwrap();
        assert!(matches!(read(&successful, &other), Err(Refusal::InvalidResponse(why)) if why.contains("not proved")));
        for (key, wrong) in [("nonce", json!("00fe")), ("status", json!("perhaps")), ("master_public_key", json!("x"))] {
            let mut document = successful.clone();
            document[key] = wrong;
            assert!(matches!(read(&document, &token()), Err(Refusal::InvalidResponse(_))), "{key}");
        }
        for body in ["", "{}", r#"{"answer": "!"}"#, "[]"] {
            assert!(matches!(enroll_answer(200, body.as_bytes(), &token(), "00ff"), Err(Refusal::InvalidResponse(_))), "{body}");
        }
    }

    #[test]
    fn what_the_service_refuses_is_told_with_its_own_sentence() {
        let answer = |status, word: &str| {
            let body =
                json!({"error": word, "message": "the token\nis used up", "hint": "make another", "skew": -400, "time": 1}).to_string();
            Refusal::read(status, body.as_bytes())
        };
        for (word, kind) in WORDS {
            let Refusal::Refused { kind: found, message, hint, .. } = answer(403, word) else { panic!("{word}") };
            assert_eq!((found, message.as_str(), hint.as_deref()), (kind, "the token is used up", Some("make another")));
        }
        assert!(matches!(answer(403, "something-new"), Refusal::Refused { kind: Kind::PermissionRefused, .. }));
        assert_eq!(answer(403, "clock-skew"), Refusal::Skewed { ahead: -400 });
        assert!(matches!(answer(503, "busy"), Refusal::Unavailable(_)));
        assert!(matches!(Refusal::read(502, b"<html>"), Refusal::Unavailable(_)));
        assert!(matches!(Refusal::read(404, b"<html>"), Refusal::InvalidResponse(_)));
    }

    #[test]
    fn a_job_has_an_id() {
        assert_eq!(apply_answer(200, br#"{"jid": "20261128131415926535", "published": true}"#).unwrap().as_str(), "20261128131415926535");
        assert!(matches!(apply_answer(200, br#"{"jid": "../../x"}"#), Err(Refusal::InvalidResponse(_))));
        assert_eq!(
            (deregister_answer(200, br#"{"status": "removed"}"#), deregister_answer(200, br#"{"status": "absent"}"#)),
            (Ok(true), Ok(false))
        );
        assert!(deregister_answer(200, b"{}").is_err());
        let renewed = |status: &str| renew_answer(200, json!({"status": status}).to_string().as_bytes());
        assert_eq!((renewed("returned"), renewed("renewed")), (Ok(true), Ok(false)));
        assert!(renewed("removed").is_err());
        let good = check_answer(200, br#"{"status": "good", "would": "already", "uses_left": 3, "expires": 9}"#).unwrap();
        assert_eq!(good, Good { already: true, uses_left: 3, expires: 9 });
    }
}

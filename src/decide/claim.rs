//! What a VM posts to the hooks of `accept: hook`: a claim that is signed by the minion's own key and, to be enrolled, proved
//! by a token. Everybody who can log in to salt-api may read the event bus, so neither the private key nor the token is ever in it.
//!
//! The other side is `cloud-init/salt-master/runners/heat_salt_bootstrap.py`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use serde_json::{Map, Value, json};

use super::fingerprint::PublicKey;
use crate::words::names::{HookPath, MinionId, StateName};
use crate::words::secret::Secret;

/// Where claims go, below `/hook/`.
pub const HOOKS: &str = "heat-salt-bootstrap";

/// Does this hook take claims?
pub fn takes_claims(hook: &HookPath) -> bool {
    hook.as_str().split('/').next() == Some(HOOKS)
}

/// A one-time token, as `salt-run heat_salt_bootstrap.mint` prints it.
#[derive(Debug, Clone)]
pub struct Token {
    name: String,
    whole: Secret,
}

impl Token {
    /// Reads a token; the error is a sentence that does not show it.
    pub fn parse(text: &str) -> Result<Token, String> {
        let fine = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        match text.split('.').collect::<Vec<_>>().as_slice() {
            ["hsb1", name, secret] if fine(name) && fine(secret) => Ok(Token { name: (*name).to_owned(), whole: Secret::new(text) }),
            _ => {
                Err("is no token: three parts joined by dots, of which the first is hsb1, as `salt-run heat_salt_bootstrap.mint` prints it"
                    .into())
            }
        }
    }

    /// Its name, which is no secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// HMAC-SHA256 of a document, in hexadecimal, under the SHA-256 of the token: the master keeps no more than that.
    fn proof(&self, document: &[u8]) -> String {
        let key = digest::digest(&digest::SHA256, self.whole.expose().as_bytes());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), document);
        tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What is claimed.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// That the key be accepted.
    Enroll(&'a Token),
    /// That states be run on this minion.
    Apply {
        /// Which.
        states: &'a [StateName],
        /// With this pillar.
        pillar: &'a Map<String, Value>,
    },
    /// That the key be removed.
    Deregister,
}

impl Asked<'_> {
    /// The end of the hook's path.
    const fn verb(&self) -> &'static str {
        match self {
            Asked::Enroll(_) => "enroll",
            Asked::Apply { .. } => "apply",
            Asked::Deregister => "deregister",
        }
    }

    /// The hook that takes it.
    pub fn hook(&self) -> HookPath {
        HookPath::below(HOOKS, self.verb())
    }
}

/// A claim, before it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// What is claimed.
    pub asked: Asked<'a>,
    /// By which minion.
    pub id: &'a MinionId,
    /// Its key.
    pub key: &'a PublicKey,
    /// In the course of which bootstrap.
    pub bootstrap_id: &'a str,
    /// Random, in hexadecimal: the master grants a claim once.
    pub nonce: &'a str,
}

impl Claim<'_> {
    /// What has to be signed.
    pub fn document(&self) -> String {
        let mut document = json!({
            "verb": self.asked.verb(),
            "id": self.id.as_str(),
            "key": self.key.text(),
            "bootstrap_id": self.bootstrap_id,
            "nonce": self.nonce,
        });
        match self.asked {
            Asked::Enroll(token) => document["token"] = token.name().into(),
            Asked::Apply { states, pillar } => {
                document["states"] = states.iter().map(StateName::as_str).collect();
                document["pillar"] = Value::Object(pillar.clone());
            }
            Asked::Deregister => {}
        }
        document.to_string()
    }

    /// What is posted, with the signature of the document (RSASSA-PKCS1-v1_5 with SHA-256).
    pub fn body(&self, document: &str, signature: &[u8]) -> Value {
        let mut body = json!({"claim": STANDARD.encode(document), "signature": STANDARD.encode(signature)});
        if let Asked::Enroll(token) = self.asked {
            body["proof"] = token.proof(document.as_bytes()).into();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_refused_and_not_shown() {
        for bad in ["", "hsb1", "hsb1.a", "hsb1..b", "hsb2.a.b", "hsb1.a.b.c", "hsb1.a.geheim!"] {
            let why = Token::parse(bad).map(|_| ()).unwrap_err();
            assert!(bad.is_empty() || !why.contains("geheim"), "{why}");
        }
        let token = Token::parse("hsb1.0123456789abcdef.geheim_-7").unwrap();
        assert_eq!(token.name(), "0123456789abcdef");
        assert!(!format!("{token:?}").contains("geheim"));
    }

    #[test]
    fn a_proof_is_the_hmac_under_the_tokens_hash() {
        // python3 -c "import hmac,hashlib; print(hmac.new(hashlib.sha256(b'hsb1.a.b').digest(), b'doc', 'sha256').hexdigest())"
        let proof = Token::parse("hsb1.a.b").unwrap().proof(b"doc");
        assert_eq!(proof, "02ce5bac4afea2cb49e0564ff3b13daef8989c2e26764028680bfae1389f4aee");
    }

    #[test]
    fn a_claim_holds_neither_token_nor_secret() {
        let token = Token::parse("hsb1.name.geheim").unwrap();
        let key = PublicKey::parse("-----BEGIN PUBLIC KEY-----\nYWJj\n-----END PUBLIC KEY-----\n").unwrap();
        let id = MinionId::parse("web-1").unwrap();
        let claim = Claim { asked: Asked::Enroll(&token), id: &id, key: &key, bootstrap_id: "b", nonce: "00ff" };
        let document = claim.document();
        let body = claim.body(&document, b"signature");
        assert!(!format!("{document}{body}").contains("geheim"));
        assert_eq!(claim.asked.hook().tag(), "salt/netapi/hook/heat-salt-bootstrap/enroll");
        let read: Value = serde_json::from_str(&document).unwrap();
        assert_eq!((read["verb"].as_str(), read["token"].as_str(), read["nonce"].as_str()), (Some("enroll"), Some("name"), Some("00ff")));
    }
}

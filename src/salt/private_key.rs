//! The private half of a minion's key pair, and what is signed with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use zeroize::Zeroizing;

use super::public_key::PublicKey;
use crate::types::failure::{Failure, Kind};

/// Both halves.
pub struct KeyPair {
    /// The half that the master gets.
    pub public: PublicKey,
    private: RsaKeyPair,
}

/// Reads a private key in PEM form, as openssl and both lines of Salt write it: PKCS #1 or PKCS #8. `None` for half a text.
pub fn read_private(pem: &str) -> Option<Result<RsaKeyPair, String>> {
    let lines: Vec<&str> = pem.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let [first, body @ .., last] = lines.as_slice() else { return None };
    if !last.starts_with("-----END ") {
        return None;
    }
    let der = match STANDARD.decode(Zeroizing::new(body.concat()).as_bytes()) {
        Ok(der) => Zeroizing::new(der),
        Err(_) => return Some(Err("its body is not Base64; it may be protected by a passphrase".into())),
    };
    let read = match *first {
        "-----BEGIN RSA PRIVATE KEY-----" => RsaKeyPair::from_der(&der),
        "-----BEGIN PRIVATE KEY-----" => RsaKeyPair::from_pkcs8(&der),
        other => return Some(Err(format!("it begins with {other:?}"))),
    };
    Some(read.map_err(|rejected| rejected.to_string()))
}

impl KeyPair {
    /// The two, if they belong together.
    pub fn of(public: PublicKey, private: RsaKeyPair) -> Option<KeyPair> {
        public.holds(private.public().as_ref()).then_some(KeyPair { public, private })
    }

    /// Signs by RSASSA-PKCS1-v1_5 with SHA-256.
    pub fn sign(&self, document: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut signature = vec![0; self.private.public().modulus_len()];
        self.private
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), document, &mut signature)
            .map_err(|_| Failure::new(Kind::LocalSystem, "the minion's private key does not sign"))?;
        Ok(signature)
    }
}

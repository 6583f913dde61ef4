//! Public keys as PEM text, and the fingerprints that Salt makes of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

use ring::digest;

use crate::types::excerpt::quoted;

/// A public key in PEM form, compared by its body: Salt's parts differ in the white space and the
/// line ends around it, never in the body itself.
#[derive(Debug, Clone)]
pub struct PublicKey {
    text: String,
    body: Vec<String>,
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.body.concat() == other.body.concat()
    }
}

impl Eq for PublicKey {}

impl PublicKey {
    /// Reads a PEM text; the error is a sentence.
    pub fn parse(text: &str) -> Result<PublicKey, String> {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match lines.as_slice() {
            [first, body @ .., last]
                if first.starts_with("-----BEGIN") && first.contains("PUBLIC KEY") && last.starts_with("-----END") && !body.is_empty() =>
            {
                let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
                if !body.iter().all(|line| line.chars().all(base64)) {
                    return Err("is no public key: its body is not base64".into());
                }
                Ok(PublicKey { text: lines.join("\n"), body: body.iter().map(|&line| line.to_owned()).collect() })
            }
            _ => Err("is no public key in PEM form (-----BEGIN PUBLIC KEY----- ...)".into()),
        }
    }

    /// Is this the key, as PKCS #1 has it? That is what the PEM text ends with in either form (RFC 8017, A.1.1; RFC 5280, 4.1).
    pub fn holds(&self, pkcs1: &[u8]) -> bool {
        STANDARD.decode(self.body.concat()).is_ok_and(|der| !pkcs1.is_empty() && der.ends_with(pkcs1))
    }

    /// The PEM text, without white space around it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fingerprint that the minion, `salt-key -f` and `key.finger_master` show: SHA-256 over the
    /// lines between the first and the last, with their line ends (`salt/utils/crypt.py`, `pem_finger`
    /// with a path).
    pub fn fingerprint(&self) -> Fingerprint {
        let mut body = self.body.join("\n");
        body.push('\n');
        Fingerprint::of(body.as_bytes())
    }

    /// Every form in which some Salt may state the fingerprint of this same key. 3008 stores keys in
    /// its cache and hashes the whole text in `key.finger` (`salt/key.py`, `finger`, which calls
    /// `pem_finger` with the key instead of a path), with or without the last line end.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        let whole = format!("{}\n", self.text);
        vec![self.fingerprint(), Fingerprint::of(self.text.as_bytes()), Fingerprint::of(whole.as_bytes())]
    }
}

/// A SHA-256 fingerprint in Salt's writing: lower-case pairs joined by colons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Reads a fingerprint; the error is a sentence.
    pub fn parse(text: &str) -> Result<Fingerprint, String> {
        let text = text.trim().to_ascii_lowercase();
        let pairs: Vec<&str> = text.split(':').collect();
        let fine = |pair: &&str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        if pairs.len() != 32 || !pairs.iter().all(fine) {
            return Err(format!(
                "{} is no SHA-256 fingerprint: 32 pairs of hexadecimal digits joined by colons, as `salt-key -F master` shows it",
                quoted(&text)
            ));
        }
        Ok(Fingerprint(text))
    }

    /// The text as Salt's minion compares it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(bytes: &[u8]) -> Fingerprint {
        let hash = digest::digest(&digest::SHA256, bytes);
        let mut text = String::with_capacity(95);
        for byte in hash.as_ref() {
            if !text.is_empty() {
                text.push(':');
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Fingerprint(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nYWJj\nZGVm\n-----END PUBLIC KEY-----";

    #[test]
    fn keys_are_compared_by_their_body() {
        let key = PublicKey::parse(KEY).unwrap();
        assert_eq!(PublicKey::parse(&format!("\n{}\r\n", KEY.replace('\n', "\r\n"))).unwrap(), key);
        assert_ne!(PublicKey::parse(&KEY.replace("YWJj", "YWJk")).unwrap(), key);
    }

    #[test]
    fn the_fingerprint_is_the_one_of_the_body_lines() {
        // printf 'YWJj\nZGVm\n' | sha256sum
        let key = PublicKey::parse(KEY).unwrap();
        let expected = Fingerprint::of(b"YWJj\nZGVm\n");
        assert_eq!(key.fingerprint(), expected);
        assert_eq!(expected.as_str().len(), 95);
        assert!(key.fingerprints().contains(&Fingerprint::of(KEY.as_bytes())));
        assert_eq!(
            Fingerprint::of(b"abc").as_str(),
            "ba:78:16:bf:8f:01:cf:ea:41:41:40:de:5d:ae:22:23:b0:03:61:a3:96:17:7a:9c:b4:10:ff:61:f2:00:15:ad"
        );
    }

    #[test]
    fn what_is_no_key_or_fingerprint_is_refused() {
        for text in [
            "",
            "abc",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----\nYWJj\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PUBLIC KEY-----\n{{x}}\n-----END PUBLIC KEY-----",
        ] {
            assert!(PublicKey::parse(text).is_err(), "{text:?} passed");
        }
        assert!(Fingerprint::parse("ab:cd").is_err());
        let full = Fingerprint::of(b"x");
        assert_eq!(Fingerprint::parse(&format!(" {} ", full.as_str().to_uppercase())), Ok(full));
    }
}

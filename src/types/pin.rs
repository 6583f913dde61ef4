//! What a TLS peer is known by where no CA and no name says it: its public key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The public key that the service, or the CA behind it, has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Whose it is.
    pub of: Pinned,
    /// SHA-256 of the SubjectPublicKeyInfo in DER.
    pub hash: [u8; 32],
}

/// Whose key a pin names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// The service's own.
    Server,
    /// That of a CA in the chain that the service shows.
    Authority,
}

impl Pin {
    /// Reads what stands at the end of a token.
    pub fn parse(text: &str) -> Option<Pin> {
        let of = match text.as_bytes().first()? {
            b's' => Pinned::Server,
            b'c' => Pinned::Authority,
            _ => return None,
        };
        let hash = URL_SAFE_NO_PAD.decode(&text[1..]).ok()?.try_into().ok()?;
        Some(Pin { of, hash })
    }
}

/// As it stands at the end of a token.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.of {
            Pinned::Server => 's',
            Pinned::Authority => 'c',
        };
        write!(f, "{letter}{}", URL_SAFE_NO_PAD.encode(self.hash))
    }
}

//! What TLS is spoken with: of what ring can do, what a client of today's servers needs. rustls's own choice brings ChaCha20 (for clients
//! without AES in hardware) and the reading of private keys (for clients that have certificates): 90 kB of code that nobody here uses.

use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::crypto::ring::{cipher_suite as suite, kx_group};
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm};
use rustls::sign::SigningKey;
use rustls::{Error, SignatureScheme};
use webpki::ring as algorithm;

/// The parts of the handshake.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: IN_CERTIFICATES, mapping: IN_HANDSHAKES },
        secure_random: &OfTheKernel,
        key_provider: &OfTheKernel,
    })
}

type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// Certificates may be signed by these.
const IN_CERTIFICATES: Algorithms = &[
    algorithm::ECDSA_P256_SHA256,
    algorithm::ECDSA_P256_SHA384,
    algorithm::ECDSA_P384_SHA256,
    algorithm::ECDSA_P384_SHA384,
    algorithm::ED25519,
    algorithm::RSA_PKCS1_2048_8192_SHA256,
    algorithm::RSA_PKCS1_2048_8192_SHA384,
    algorithm::RSA_PKCS1_2048_8192_SHA512,
    algorithm::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    algorithm::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    algorithm::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// And a handshake by these. TLS 1.3 takes the first one of a scheme; in 1.2 a scheme leaves the curve open (RFC 8446, 4.2.3).
const IN_HANDSHAKES: &[(SignatureScheme, Algorithms)] = &[
    (SignatureScheme::ECDSA_NISTP384_SHA384, &[algorithm::ECDSA_P384_SHA384, algorithm::ECDSA_P256_SHA384]),
    (SignatureScheme::ECDSA_NISTP256_SHA256, &[algorithm::ECDSA_P256_SHA256, algorithm::ECDSA_P384_SHA256]),
    (SignatureScheme::ED25519, &[algorithm::ED25519]),
    (SignatureScheme::RSA_PSS_SHA512, &[algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
    (SignatureScheme::RSA_PSS_SHA384, &[algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
    (SignatureScheme::RSA_PSS_SHA256, &[algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
    (SignatureScheme::RSA_PKCS1_SHA512, &[algorithm::RSA_PKCS1_2048_8192_SHA512]),
    (SignatureScheme::RSA_PKCS1_SHA384, &[algorithm::RSA_PKCS1_2048_8192_SHA384]),
    (SignatureScheme::RSA_PKCS1_SHA256, &[algorithm::RSA_PKCS1_2048_8192_SHA256]),
];

#[derive(Debug)]
struct OfTheKernel;

impl SecureRandom for OfTheKernel {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for OfTheKernel {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("this client has no certificate".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// But for what is left out, this is what rustls would choose: a newer one that has more shows here.
    #[test]
    fn nothing_is_missing_that_rustls_has() {
        let (ours, theirs) = (provider(), rustls::crypto::ring::default_provider());
        let schemes = |provider: &CryptoProvider| {
            let mut all = provider.signature_verification_algorithms.supported_schemes();
            all.sort_by_key(|scheme| u16::from(*scheme));
            all
        };
        assert_eq!(schemes(&ours), schemes(&theirs));
        assert_eq!(ours.signature_verification_algorithms.all.len(), theirs.signature_verification_algorithms.all.len());
        let groups = |provider: &CryptoProvider| provider.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>();
        assert_eq!(groups(&ours), groups(&theirs));
        let suites =
            |provider: &CryptoProvider| provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect::<Vec<_>>();
        let theirs: Vec<String> = suites(&theirs).into_iter().filter(|name| !name.contains("CHACHA20")).collect();
        assert_eq!(suites(&ours), theirs);
    }
}

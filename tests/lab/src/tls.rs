//! Certificates made for one test: a CA, and what it issues, good and bad.

use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Current,
    /// No more.
    Expired,
    /// Not yet, which is how a good certificate looks to a machine whose clock is behind.
    Future,
}

/// A certificate with its chain, and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate, as PEM.
    pub chain_pem: String,
    /// The private key, as PEM.
    pub key_pem: String,
}

impl Issued {
    /// What a server needs in order to show this certificate.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

/// A certificate authority that only the test trusts.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one; no two are alike.
    pub fn new() -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "heat-salt-bootstrap test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("cannot make a CA")?;
        Ok(Authority { issuer })
    }

    /// A server certificate for these DNS names and IP addresses.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Result<Issued> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "heat-salt-bootstrap test server");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = match validity {
            Validity::Current => (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1)),
            Validity::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            Validity::Future => (date_time_ymd(2100, 1, 1), date_time_ymd(2101, 1, 1)),
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { chain_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Its own certificate, shown by a server, as `openssl req -x509` makes one by default.
    pub fn itself(&self) -> Issued {
        Issued { chain_pem: self.issuer.pem(), key_pem: self.issuer.key().serialize_pem() }
    }

    /// What a client must trust.
    pub fn ca_pem(&self) -> String {
        self.issuer.pem()
    }
}

//! TLS with a peer that is known by a public key, in place of a CA and a name: what a token pins.
//!
//! ureq verifies by CAs only, so this takes the place of the link in its chain of connectors that speaks TLS
//! (`ureq::unversioned::transport`). The handshake, signatures and chains stay with rustls.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport, TransportAdapter};

use super::tls::provider;
use crate::types::pin::{Pin, Pinned};

/// The link that speaks TLS with whoever has the key.
pub struct PinnedTls(Arc<ClientConfig>);

impl PinnedTls {
    /// For this pin; the error is a sentence.
    pub fn new(pin: Pin) -> Result<PinnedTls, String> {
        let provider = provider();
        let verifier = Arc::new(ByPin { pin, provider: Arc::clone(&provider) });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| error.to_string())?;
        Ok(PinnedTls(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())))
    }
}

impl<In: Transport> Connector<In> for PinnedTls {
    type Out = Stream;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Stream>, Error> {
        let (Some(transport), true) = (chained, details.needs_tls()) else {
            return Err(Error::Tls("a pin needs an https:// URL"));
        };
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host).map_err(|_| Error::Tls("the URL's host is no name"))?.to_owned();
        let mut conn = ClientConnection::new(Arc::clone(&self.0), name)?;
        let mut sock = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Stream { buffers, tls: StreamOwned { conn, sock } }))
    }
}

/// A connection that was made so.
pub struct Stream {
    buffers: LazyBuffers,
    tls: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for Stream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.tls.sock.set_timeout(timeout);
        self.tls.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.tls.sock.set_timeout(timeout);
        let amount = self.tls.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.tls.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// Believes who holds the key. Of the service's own key neither the certificate's name nor its dates matter: whoever can use it is the
/// service. Of a CA's key they do, as always.
#[derive(Debug)]
struct ByPin {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ByPin {
    fn fits(&self, certificate: &CertificateDer) -> bool {
        // Any certificate can be read so, not only a server's.
        webpki::EndEntityCert::try_from(certificate)
            .is_ok_and(|read| digest(&SHA256, &read.subject_public_key_info()).as_ref() == self.pin.hash)
    }
}

impl ServerCertVerifier for ByPin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let other = || rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        match self.pin.of {
            Pinned::Server => self.fits(end_entity).then(ServerCertVerified::assertion).ok_or_else(other),
            Pinned::Authority => {
                let authority = intermediates.iter().find(|one| self.fits(one)).ok_or_else(other)?;
                let mut roots = RootCertStore::empty();
                roots.add(authority.clone().into_owned())?;
                let cert = ParsedCertificate::try_from(end_entity)?;
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&cert, &roots, intermediates, now, algorithms)?;
                verify_server_name(&cert, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for PinnedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedTls")
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

//! TLS of the uplink: this device proves itself with its certificate; the cloud is trusted by the board's
//! signed descriptor and not by X.509 dates, so that a box with a wrong clock still reaches it.

use std::sync::Arc;

use ed25519_dalek::pkcs8::EncodePrivateKey;
use rustls::CertificateError;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sonae_proto::descriptor::CloudDescriptor;
use sonae_proto::ids::Hash32;
use sonae_proto::wire::ALPN;
use sonae_store::identity::ReplicaKeys;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The device's certificate or key has no meaning.
    #[error("the TLS {what} of this replica is damaged; enrol it again with a new bundle")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// rustls refuses the configuration.
    #[error("TLS cannot be set up")]
    Config(#[from] rustls::Error),
    /// quinn refuses the configuration.
    #[error("TLS 1.3 for QUIC cannot be set up")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// The part of a verifier that is the same for every certificate: who shows it must have its key. For types with a
/// `provider`.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &::rustls_pki_types::CertificateDer<'_>,
            dss: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            ::rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &::rustls_pki_types::CertificateDer<'_>,
            dss: &::rustls::DigitallySignedStruct,
        ) -> Result<::rustls::client::danger::HandshakeSignatureValid, ::rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            ::rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<::rustls::SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(crate) use signatures;

/// Accepts exactly the certificates that the descriptor names.
#[derive(Debug)]
struct Pinned {
    certificates: Vec<Hash32>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let hash = Hash32(*blake3::hash(end_entity).as_bytes());
        if self.certificates.contains(&hash) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    signatures!();
}

/// Makes the TLS configuration of the uplink, the same for QUIC and TCP.
///
/// # Errors
/// [`TlsError`].
pub fn client(
    keys: &ReplicaKeys,
    certificate_pem: &str,
    cloud: &CloudDescriptor,
) -> Result<rustls::ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|_| TlsError::Damaged { what: "certificate" })?;
    let key = keys.device.to_pkcs8_der().map_err(|_| TlsError::Damaged { what: "key" })?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()));
    let pinned = Pinned { certificates: cloud.tls_certificates.clone(), provider: Arc::clone(&provider) };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

//! TLS between neighbours, the same on both sides: whoever is there must be a device that the board's authority has
//! certified for this school. Dates decide nothing: boxes that meet in the dark may have begun in 1970.
//!
//! **Invariant**: TLS 1.3 only, no tickets, no early data: each connection shows both certificates in its own handshake.

use std::sync::Arc;

use ed25519_dalek::pkcs8::EncodePrivateKey;
use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, ClientConfig, DistinguishedName, OtherError, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sonae_proto::ids::{ReplicaId, SchoolCode};
use sonae_proto::wire::ALPN_NEIGHBOURS;
use sonae_trust::device_chain::{self, Device};

use crate::tls::{TlsError, signatures};

/// What this device shows of itself, and whose word it believes.
pub struct Own {
    /// The device's key.
    pub key: ed25519_dalek::SigningKey,
    /// PEM of its certificate.
    pub certificate_pem: String,
    /// PEM of the board's authority.
    pub authority_pem: String,
}

/// The configurations of both sides.
#[derive(Debug, Clone)]
pub(super) struct Both {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
    pub authority: CertificateDer<'static>,
}

/// Why a certificate is refused, for the log.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error(transparent)]
    Chain(#[from] device_chain::DeviceChainError),
    #[error("the device is of school {found}, and this box is of {own}")]
    School { found: String, own: SchoolCode },
    #[error("the certificate's name is not that of its key")]
    Name,
}

/// Accepts devices of one school.
#[derive(Debug)]
struct OfSchool {
    authority: CertificateDer<'static>,
    school: SchoolCode,
    provider: Arc<CryptoProvider>,
}

impl OfSchool {
    fn device(&self, certificate: &CertificateDer<'_>) -> Result<Device, Stranger> {
        let device = device_chain::verify(certificate, &self.authority)?;
        if device.name.school_code() != self.school.to_string() {
            return Err(Stranger::School { found: device.name.school_code().to_owned(), own: self.school });
        }
        if device.name.replica_id() != ReplicaId::of_key(&device.key).to_string() {
            return Err(Stranger::Name);
        }
        Ok(device)
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let refused = |stranger| CertificateError::Other(OtherError(Arc::new(stranger)));
        self.device(certificate).map(drop).map_err(|stranger| refused(stranger).into())
    }
}

impl ServerCertVerifier for OfSchool {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for OfSchool {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

impl Both {
    pub fn new(own: &Own, school: SchoolCode) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pem = |pem: &str, what| {
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| TlsError::Damaged { what })
        };
        let (certificate, authority) =
            (pem(&own.certificate_pem, "certificate")?, pem(&own.authority_pem, "authority")?);
        let key = || -> Result<PrivateKeyDer<'static>, TlsError> {
            let der = own.key.to_pkcs8_der().map_err(|_| TlsError::Damaged { what: "key" })?;
            Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_bytes().to_vec())))
        };
        let verifier =
            Arc::new(OfSchool { authority: authority.clone(), school, provider: Arc::clone(&provider) });
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<OfSchool>::clone(&verifier))
            .with_client_auth_cert(vec![certificate.clone()], key()?)?;
        client.alpn_protocols = vec![ALPN_NEIGHBOURS.to_vec()];
        client.resumption = Resumption::disabled();
        // The name means nothing, and is not sent.
        client.enable_sni = false;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key()?)?;
        server.alpn_protocols = vec![ALPN_NEIGHBOURS.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), authority })
    }
}

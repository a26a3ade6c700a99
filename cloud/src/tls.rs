//! TLS of the intake: mutual, TLS 1.3 only, client certificates of the board's authority, no resumption.
//!
//! **Invariant**: every connection shows its certificate in its own handshake. Without tickets there are neither
//! resumed sessions nor early data, so nothing is read before the certificate was verified.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sonae_line::Connection;
use sonae_proto::wire::ALPN;

use crate::limits::{CONNECTION_WINDOW_BYTES, FIRST_FLIGHT_BYTES, IDLE_TIMEOUT, MTU_STEP, STREAMS_MAX};

/// DER of an Ed25519 SubjectPublicKeyInfo before its 32 key bytes, without the outer header, as webpki returns
/// or strips it. RFC 8410, section 4.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What the two doors of the intake are opened with: the same certificates, the same checks.
#[derive(Debug, Clone)]
pub struct Tls {
    /// For QUIC.
    pub quic: quinn::ServerConfig,
    /// For TCP.
    pub tcp: Arc<rustls::ServerConfig>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or a key in the bundle cannot be read.
    #[error("the bundle's {what} cannot be read; have the board make the bundle again")]
    Pem {
        /// Which.
        what: &'static str,
    },
    /// They do not work together.
    #[error("the bundle's certificate and key cannot be used; have the board make the bundle again")]
    Unusable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads the certificates of a PEM text.
///
/// # Errors
/// [`TlsError::Pem`] when there is none.
pub fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or(TlsError::Pem { what })
}

/// Makes the configurations of the intake.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(ca_pem: &str, certificate_pem: &str, key_pem: &str) -> Result<Tls, TlsError> {
    fn unusable<E: std::error::Error + Send + Sync + 'static>(error: E) -> TlsError {
        TlsError::Unusable(Box::new(error))
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem, "authority")? {
        roots.add(certificate).map_err(unusable)?;
    }
    let chain = certificates(certificate_pem, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| TlsError::Pem { what: "key" })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(unusable)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    let tcp = Arc::new(tls);
    let crypto = QuicServerConfig::try_from(Arc::clone(&tcp)).map_err(unusable)?;
    let mut quic = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quic.transport_config(Arc::new(transport(IDLE_TIMEOUT)));
    Ok(Tls { quic, tcp })
}

/// Cubic, quinn's default, on purpose: its BBR sent 18.5 MB for 5 MB on a lossy satellite link.
fn transport(idle: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.max_idle_timeout(idle.try_into().ok());
    transport.keep_alive_interval(None);
    transport.receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    transport.send_window(u64::from(CONNECTION_WINDOW_BYTES));
    transport.datagram_receive_buffer_size(None);
    let mut probes = MtuDiscoveryConfig::default();
    probes.minimum_change(MTU_STEP);
    transport.mtu_discovery_config(Some(probes));
    let mut cubic = CubicConfig::default();
    cubic.initial_window(FIRST_FLIGHT_BYTES);
    transport.congestion_controller_factory(Arc::new(cubic));
    transport
}

/// Returns the Ed25519 key of the certificate that a client has shown; `None` for another kind of key.
#[must_use]
pub fn client_key(connection: &Connection) -> Option<[u8; 32]> {
    ed25519_key(&connection.peer_certificate()?)
}

fn ed25519_key(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let info = parsed.subject_public_key_info();
    info.as_ref().strip_prefix(&ED25519_SPKI)?.try_into().ok()
}

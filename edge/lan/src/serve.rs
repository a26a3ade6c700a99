//! HTTPS on the LAN: the listener, TLS 1.2 and 1.3 by ring, HTTP/1.1 and HTTP/2, an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use rustls::ServerConfig;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sonae_store::status::StatusSource;
use sonae_trust::password::{Cost, PasswordError};
use zeroize::Zeroizing;

use crate::clock::Monotonic;
use crate::connections::Bounded;
use crate::router::router;

/// How long a client may take over the head of a request; slow ones hold no connection for ever.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// How long requests may go on after the end was asked for: longer than one device flush.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// Streams of one HTTP/2 connection: a page and its parts, with room.
const STREAMS_MAX: u32 = 32;

/// How often a silent HTTP/2 client is asked whether it is still there: laptops close their lids without a word,
/// and places are bounded. Seldom, since each question wakes both sides.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// What the service needs.
pub struct LanConfig {
    /// Certificate chain, PEM: ECDSA P-256, which browsers take.
    pub certificate_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// The store and what is known of the replica.
    pub status: StatusSource,
    /// How much work one password hash is.
    pub argon2: Cost,
}

/// Why the LAN is not served.
#[derive(Debug, thiserror::Error)]
pub enum LanError {
    /// The certificate or its key is no PEM.
    #[error("the LAN certificate or its key cannot be read; enrol this replica again with a new bundle")]
    Pem(#[from] pem::Error),
    /// The certificate and the key do not fit.
    #[error("the LAN certificate cannot be used; enrol this replica again with a new bundle")]
    Tls(#[from] rustls::Error),
    /// No password can be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The listener failed.
    #[error("the LAN address {listen} cannot be served")]
    Listen {
        /// Which address.
        listen: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// Serves a bound listener until `shutdown` ends, then lets running requests finish for some seconds.
///
/// # Errors
/// [`LanError`].
pub async fn serve(
    listener: std::net::TcpListener,
    config: LanConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), LanError> {
    let tls = tls_config(&config.certificate_pem, &config.key_pem)?;
    let app = router(config.status, config.argon2, Monotonic::system())?;
    let listen = listener.local_addr().map_or_else(|_| "(unknown)".to_owned(), |address| address.to_string());
    let failed = |source| LanError::Listen { listen: listen.clone(), source };
    listener.set_nonblocking(true).map_err(failed)?;
    let handle: Handle<SocketAddr> = Handle::new();
    let mut server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(tls)))
        .map_err(failed)?
        .map(|tls| tls.acceptor(Bounded::default()))
        .handle(handle.clone());
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Some(SILENCE_MAX));
    let serving = server.serve(app.into_make_service_with_connect_info::<SocketAddr>());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        outcome = &mut serving => outcome.map_err(failed),
        () = shutdown => {
            handle.graceful_shutdown(Some(END_TIME_MAX));
            serving.await.map_err(failed)
        }
    }
}

fn tls_config(certificate_pem: &str, key_pem: &str) -> Result<ServerConfig, LanError> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

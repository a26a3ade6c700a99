//! `sonae-edge run`: the daemon.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;
use sonae_edge::exit::Exit;
use sonae_edge::replica::Replica;
use sonae_edge::{control, uplink};
use sonae_lan::LanConfig;
use sonae_store::data_dir::REBUILDING;
use sonae_store::keyring::Keyring;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Failure;
use super::print::print_line;

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The data directory
    #[arg(long)]
    pub data: PathBuf,
    /// Address of the LAN service; port 0 chooses one
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Dials this HOST:PORT instead of the cloud's hosts in the board's description
    #[arg(long)]
    cloud: Option<String>,
    /// Writes the trust root for clients of the LAN service to this file
    #[arg(long)]
    ca_out: Option<PathBuf>,
}

pub(super) fn run(arguments: &RunArguments) -> Result<Exit, Failure> {
    if arguments.data.join(REBUILDING).exists() {
        let text = format!(
            "the rebuild of {} has not ended; run `sonae-edge rebuild` on it again, it resumes",
            arguments.data.display()
        );
        return Err(Failure::new(Exit::DataDir, text));
    }
    let replica = Replica::open(&arguments.data)?;
    if let Some(path) = &arguments.ca_out {
        std::fs::write(path, &replica.bundle.ca_pem).map_err(|error| {
            Failure::new(Exit::Store, format!("cannot write the trust root to {}: {error}", path.display()))
        })?;
    }
    let bind = |error: std::io::Error| {
        Failure::new(
            Exit::Network,
            format!("cannot listen on {}: {error}; choose another address with --listen", arguments.listen),
        )
    };
    let listener = TcpListener::bind(arguments.listen).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(serve(replica, listener, arguments.cloud.clone()));
    // Whatever still sleeps must not hold up a shutdown on battery.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

async fn serve(replica: Replica, listener: TcpListener, cloud: Option<String>) -> Result<Exit, Failure> {
    let internal = |error: std::io::Error| Failure::new(Exit::Internal, error.to_string());
    let (stop, stopped) = watch::channel(false);
    let address = listener.local_addr().map_err(internal)?;
    let (uplink, rest) = start_uplink(replica, cloud)?;
    let mut uplink = tokio::spawn(uplink::run(uplink, stopped.clone()));
    let socket = control::bind(rest.dir.path())?;
    let mut control = tokio::spawn(control::serve(socket, rest.status.clone(), stopped.clone()));
    let config = LanConfig {
        certificate_pem: rest.bundle.lan_certificate_pem.clone(),
        key_pem: Zeroizing::new(rest.bundle.lan_key_pem.clone()),
        status: rest.status.clone(),
        argon2: sonae_trust::password::Cost::STANDARD,
    };
    let mut lan_stop = stopped.clone();
    let lan = sonae_lan::serve(listener, config, async move {
        let _ = lan_stop.changed().await;
    });
    let mut lan = tokio::spawn(lan);
    print_line(
        &serde_json::json!({
            "ready": true,
            "listen": address.to_string(),
            "url": format!("https://localhost:{}/", address.port()),
            "school": rest.bundle.school,
            "replica": rest.status.replica,
            "incarnation": rest.status.incarnation,
        })
        .to_string(),
    );
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let outcome: Result<(), Failure> = tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
        ended = &mut lan => flatten(ended),
        ended = &mut uplink => flatten(ended),
        ended = &mut control => flatten(ended),
    };
    log::info!("stopping");
    let _ = stop.send(true);
    tokio::join!(wait(lan), wait(uplink), wait(control));
    tokio::task::spawn_blocking(move || rest.opened.close())
        .await
        .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    outcome.map(|()| Exit::Ok)
}

/// Takes what the uplink needs out of an open replica.
pub(super) fn start_uplink(
    mut replica: Replica,
    cloud_override: Option<String>,
) -> Result<(uplink::Config, Replica), Failure> {
    let keys = replica.keys()?;
    // The store goes on without a listener for sealed headers when the uplink ends.
    let sealed = replica.opened.take_sealed();
    let config = uplink::Config {
        keys,
        tls_certificate_pem: replica.bundle.tls_certificate_pem.clone(),
        bundled_documents: Keyring::documents_of(&replica.bundle),
        cloud: replica.cloud.clone(),
        cloud_override,
        store: replica.opened.store.clone(),
        evidence: replica.opened.evidence.clone(),
        sealed,
        shared: replica.status.uplink.clone(),
        clock: replica.clock.clone(),
    };
    Ok((config, replica))
}

fn flatten<E: Into<Failure>>(ended: Result<Result<(), E>, tokio::task::JoinError>) -> Result<(), Failure> {
    match ended {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(error) => Err(Failure::new(Exit::Internal, error.to_string())),
    }
}

async fn wait<T>(task: tokio::task::JoinHandle<T>) {
    if !task.is_finished() {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), task).await;
    }
}

//! `sonae-edge run`: the daemon.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use sonae_edge::courier;
use sonae_edge::exit::Exit;
use sonae_edge::proof::Prover;
use sonae_edge::renewal::{RenewalError, Source};
use sonae_edge::repair::{self, Repaired};
use sonae_edge::replica::{Replica, ReplicaError};
use sonae_edge::{control, neighbours, renewal, uplink};
use sonae_lan::LanConfig;
use sonae_store::data_dir::DataDir;
use sonae_store::enrolment;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::Failure;
use super::neighbours::{NeighbourArguments, NeighbourDoor};
use super::print::print_line;
use super::room::RoomArguments;

/// Wait before a renewal that failed is tried again.
const RENEWAL_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The data directory
    #[arg(long)]
    pub data: PathBuf,
    /// Dials this HOST:PORT instead of the cloud's hosts in the board's description
    #[arg(long)]
    pub cloud: Option<String>,
    #[command(flatten)]
    pub service: ServiceArguments,
}

/// How the school is served.
#[derive(Debug, Clone, Args)]
pub(super) struct ServiceArguments {
    /// Address of the LAN service; port 0 chooses one
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Writes the trust root for clients of the LAN service to this file
    #[arg(long)]
    ca_out: Option<PathBuf>,
    #[command(flatten)]
    room: RoomArguments,
    #[command(flatten)]
    neighbours: NeighbourArguments,
}

pub(super) fn run(arguments: &RunArguments) -> Result<Exit, Failure> {
    let service = &arguments.service;
    let opened = Replica::open(&arguments.data);
    if let Some(path) = &service.ca_out {
        std::fs::write(path, &enrolment::load(&arguments.data)?.ca_pem).map_err(|error| {
            Failure::new(Exit::Store, format!("cannot write the trust root to {}: {error}", path.display()))
        })?;
    }
    let bind = |error: std::io::Error| {
        Failure::new(
            Exit::Network,
            format!("cannot listen on {}: {error}; choose another address with --listen", service.listen),
        )
    };
    let listener = TcpListener::bind(service.listen).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let doors = Doors { lan: listener, neighbours: service.neighbours.open()? };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let (replica, note) = match opened {
            Err(error) if error.is_damage() => {
                match repaired(&arguments.data, arguments.cloud.as_deref(), &error).await? {
                    Some(repaired) => repaired,
                    None => return Ok(Exit::Ok),
                }
            }
            opened => (opened?, None),
        };
        serve_lives(replica, note, &doors, arguments).await
    });
    // Whatever still sleeps must not hold up a shutdown on battery.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// What is said to people once a new life has begun: a stable name and a text.
type Note = Option<(&'static str, String)>;

/// Repairs a damaged store, however long the cloud has to be waited for. `None` when somebody asks to stop.
async fn repaired(
    data: &Path,
    cloud: Option<&str>,
    damage: &ReplicaError,
) -> Result<Option<(Replica, Note)>, Failure> {
    let dir = DataDir::open(data)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    log::error!(damage = damage.to_string(); "the store is damaged; it is made again from the cloud");
    let repaired = async {
        loop {
            match repair::repair(&dir, cloud.map(str::to_owned)).await {
                Ok(repaired) => return Ok(repaired),
                // The next start finishes what was begun.
                Err(error @ RenewalError::Exchange(_)) => {
                    return Err(Failure::new(Exit::Store, format!("{error}; start again")));
                }
                Err(error) => {
                    log::error!(error = error.to_string(); "the store cannot be repaired yet; it is tried again");
                }
            }
            tokio::time::sleep(RENEWAL_RETRY).await;
        }
    };
    let repaired = tokio::select! {
        _ = tokio::signal::ctrl_c() => return Ok(None),
        _ = terminate.recv() => return Ok(None),
        repaired = repaired => repaired?,
    };
    let Repaired { carried, unreadable } = repaired;
    log::warn!(carried, unreadable; "the store was made again from the cloud");
    let text = format!(
        "the disk of this box had damaged its data; they were made again from the cloud, with {carried} \
         change(s) that only this box had; {unreadable} change(s) that had no receipt cannot be read any more. \
         Replace the disk"
    );
    Ok(Some((reopen(dir)?, Some(("repaired", text)))))
}

/// Serves one incarnation after the other: a renewal ends one life and begins the next.
async fn serve_lives(
    mut replica: Replica,
    mut note: Note,
    doors: &Doors,
    arguments: &RunArguments,
) -> Result<Exit, Failure> {
    let cloud = arguments.cloud.as_deref();
    let (mut not_before, mut failures) = (Instant::now(), 0_u32);
    for life in 0_u64.. {
        let (clock, status) = (replica.clock.clone(), replica.status.uplink.clone());
        replica.opened.store.set_quota(arguments.service.room.quota());
        if let Some((code, text)) = note.take() {
            status.note_error(&clock, code, text);
        }
        let doors = doors.again().map_err(internal)?;
        let Some((old, next)) = serve(replica, doors, cloud, life == 0, not_before).await? else { break };
        let (dir, exchanged) = renewal::exchange(old, *next).await;
        note = Some(match exchanged {
            Ok(carried) => {
                log::warn!(carried; "this box goes on under a new incarnation");
                let text = format!(
                    "this box went on under a new incarnation, because its data had been restored from a copy or \
                     a copy runs elsewhere; {carried} change(s) that only it had were carried over. Find out which"
                );
                ("renewed", text)
            }
            Err(error) => {
                // Each try ends everybody's session.
                not_before = Instant::now() + RENEWAL_RETRY * 2_u32.pow(failures.min(7));
                failures += 1;
                log::error!(error = error.to_string(); "a new incarnation could not be begun");
                ("not_renewed", format!("a new incarnation could not be begun: {error}; it is tried again"))
            }
        });
        replica = reopen(dir)?;
    }
    Ok(Exit::Ok)
}

/// Opens what an exchange left, whichever store it is. One that was begun is finished first: what was written to the
/// old store after its word was given would be put aside with it.
fn reopen(dir: DataDir) -> Result<Replica, Failure> {
    Ok(Replica::reopen(dir)?)
}

fn internal(error: std::io::Error) -> Failure {
    Failure::new(Exit::Internal, error.to_string())
}

/// Where people and neighbours knock, in every life.
struct Doors {
    lan: TcpListener,
    neighbours: NeighbourDoor,
}

impl Doors {
    fn again(&self) -> std::io::Result<Self> {
        let listener = self.neighbours.listener.as_ref().map(TcpListener::try_clone).transpose()?;
        let neighbours = NeighbourDoor { listener, addresses: self.neighbours.addresses.clone() };
        Ok(Self { lan: self.lan.try_clone()?, neighbours })
    }
}

/// Serves until somebody asks it to stop, or until a second store is ready to go on with; returns both then.
async fn serve(
    mut replica: Replica,
    doors: Doors,
    cloud: Option<&str>,
    announce: bool,
    renew_not_before: Instant,
) -> Result<Option<(Replica, Box<Replica>)>, Failure> {
    let (stop, stopped) = watch::channel(false);
    let address = doors.lan.local_addr().map_err(internal)?;
    let (config, desk) = replica.uplink(cloud.map(str::to_owned))?;
    let renew = config.renew.subscribe();
    let NeighbourDoor { listener, addresses } = doors.neighbours;
    let neighbour_address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let near = replica.neighbours(desk.clone(), config.known.subscribe(), listener, addresses)?;
    let near = neighbours::run(near, stopped.clone());
    let near = tokio::spawn(async move {
        if let Err(error) = near.await {
            log::error!(error = error.to_string(); "neighbours cannot be served");
        }
    });
    let mut uplink = tokio::spawn(uplink::run(config, stopped.clone()));
    let socket = control::bind(replica.dir.path())?;
    let mut control = tokio::spawn(control::serve(socket, replica.status.clone(), stopped.clone()));
    let couriers = courier::bind(replica.dir.path()).map_err(internal)?;
    let couriers = courier::serve(couriers, desk, replica.dir.path().to_owned(), stopped.clone());
    let couriers = tokio::spawn(couriers);
    let prover = Prover::new(replica.dir.path(), replica.status.clone(), cloud.map(str::to_owned));
    let prover = tokio::spawn(prover.run(stopped.clone()));
    let config = LanConfig {
        certificate_pem: replica.bundle.lan_certificate_pem.clone(),
        key_pem: Zeroizing::new(replica.bundle.lan_key_pem.clone()),
        status: replica.status.clone(),
        argon2: sonae_trust::password::Cost::STANDARD,
    };
    let mut lan_stop = stopped.clone();
    let lan = sonae_lan::serve(doors.lan, config, async move {
        let _ = lan_stop.changed().await;
    });
    let mut lan = tokio::spawn(lan);
    if announce {
        print_ready(&replica, address, neighbour_address);
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let outcome: Result<Option<Box<Replica>>, Failure> = tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(None),
        _ = terminate.recv() => Ok(None),
        ended = &mut lan => flatten(ended),
        ended = &mut uplink => flatten(ended),
        ended = &mut control => flatten(ended),
        next = next_life(&replica, cloud, renew, renew_not_before) => Ok(Some(Box::new(next))),
    };
    log::info!("stopping");
    let _ = stop.send(true);
    tokio::join!(wait(lan), wait(uplink), wait(control), wait(couriers), wait(prover), wait(near));
    if let Ok(Some(next)) = outcome {
        return Ok(Some((replica, next)));
    }
    tokio::task::spawn_blocking(move || replica.opened.close())
        .await
        .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    outcome.map(|_| None)
}

/// Waits until a new incarnation is needed, then prepares it beside the service that goes on.
async fn next_life(
    replica: &Replica,
    cloud: Option<&str>,
    mut renew: watch::Receiver<bool>,
    not_before: Instant,
) -> Replica {
    if renew.wait_for(|needed| *needed).await.is_err() {
        // The uplink has ended, and with it this service.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep_until(not_before.into()).await;
    loop {
        let source = Source::of(&replica.opened.store.destroyed());
        match renewal::prepare(replica.dir.path(), cloud.map(str::to_owned), source).await {
            Ok(next) => return next,
            Err(error) => {
                log::error!(error = error.to_string(); "a new incarnation cannot be prepared yet");
                let text = format!("a new incarnation cannot be prepared yet: {error}; it is tried again");
                replica.status.uplink.note_error(&replica.clock, "not_renewed", text);
            }
        }
        tokio::time::sleep(RENEWAL_RETRY).await;
    }
}

fn print_ready(replica: &Replica, address: SocketAddr, neighbours: Option<SocketAddr>) {
    let mut ready = serde_json::json!({
            "ready": true,
            "listen": address.to_string(),
            "url": format!("https://localhost:{}/", address.port()),
            "school": replica.bundle.school,
            "replica": replica.status.replica,
            "incarnation": replica.status.incarnation,
    });
    if let Some(neighbours) = neighbours {
        ready["neighbour_listen"] = neighbours.to_string().into();
    }
    print_line(&ready.to_string());
}

fn flatten<T, E: Into<Failure>>(
    ended: Result<Result<(), E>, tokio::task::JoinError>,
) -> Result<Option<T>, Failure> {
    match ended {
        Ok(outcome) => outcome.map(|()| None).map_err(Into::into),
        Err(error) => Err(Failure::new(Exit::Internal, error.to_string())),
    }
}

async fn wait<T>(task: tokio::task::JoinHandle<T>) {
    if !task.is_finished() {
        let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
    }
}

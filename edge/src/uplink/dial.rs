//! A dial: handshakes to all hosts and addresses, over QUIC and TCP, overlapping as the plan says; the first
//! that comes to its end is the connection, the others are dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::ConnectionError;
use rustls_pki_types::ServerName;
use sonae_line::{Connection, Transport};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::Ways;
use super::route::Plan;

/// How long a name is asked for before its last known addresses are used: resolvers of a dead line are slow.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where nodes listen on TCP as well for schools whose network lets nothing pass but the web.
const HTTPS: u16 = 443;

/// First QUIC error code of a TLS alert, and the last. RFC 9000, section 20.1.
const TLS_ALERTS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// What dials need; clones share what is known of names.
#[derive(Clone)]
pub(super) struct Dialler {
    pub ways: Ways,
    pub tls: Arc<rustls::ClientConfig>,
    pub hosts: Arc<[String]>,
    /// Last known addresses; bounded by the number of hosts.
    known: Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>,
}

/// What a dial has led to.
pub(super) struct Dialled {
    pub connection: Connection,
    /// Which host, by its place in the list.
    pub host: usize,
}

/// Why a handshake failed.
#[derive(Debug)]
enum Failure {
    /// Nothing answered, or nobody is there: another way may do.
    Silent(String),
    /// The cloud was reached and does not want this connection: knocking on is of no use.
    Refused(String),
}

impl Dialler {
    pub fn new(ways: Ways, tls: Arc<rustls::ClientConfig>, hosts: Vec<String>) -> Self {
        Self { ways, tls, hosts: hosts.into(), known: Arc::default() }
    }

    /// Dials, beginning with a host.
    ///
    /// # Errors
    /// The reason, for people, when the plan's time is over or the cloud refuses.
    pub async fn dial(self, first_host: usize, plan: Plan) -> Result<Dialled, String> {
        let start = Instant::now();
        let tcp_after = plan.tcp_after.filter(|_| self.ways.tcp);
        let mut due = [(Transport::Quic, plan.quic_after), (Transport::Tcp, tcp_after)]
            .map(|(over, after)| (over, after.map(|after| start + after)));
        let mut made = [0_usize; 2];
        let give_up = start + plan.give_up;
        let mut last = "no way to the cloud is left".to_owned();
        let mut handshakes = JoinSet::new();
        loop {
            let next = due.iter().filter_map(|(_, at)| *at).filter(|at| *at < give_up).min();
            tokio::select! {
                () = sleep_until(next.unwrap_or(give_up)), if next.is_some() => {
                    let now = Instant::now();
                    for ((over, at), made) in due.iter_mut().zip(&mut made) {
                        if at.is_some_and(|at| at <= now) {
                            handshakes.spawn(self.clone().handshake(*over, first_host, *made, plan.handshake()));
                            *made += 1;
                            *at = Some(now + plan.renew);
                        }
                    }
                }
                Some(ended) = handshakes.join_next() => match ended {
                    Ok(Ok(dialled)) => return Ok(dialled),
                    Ok(Err(Failure::Refused(reason))) => return Err(reason),
                    Ok(Err(Failure::Silent(reason))) => last = reason,
                    // A defect; the other handshakes go on.
                    Err(error) => last = error.to_string(),
                },
                () = sleep_until(give_up) => return Err(last),
            }
        }
    }

    async fn handshake(
        self,
        over: Transport,
        first_host: usize,
        turn: usize,
        at_most: Duration,
    ) -> Result<Dialled, Failure> {
        let hosts = self.hosts.len().max(1);
        let place = first_host.wrapping_add(turn) % hosts;
        let Some(host) = self.hosts.get(place) else {
            return Err(Failure::Silent("no host of the cloud is known".to_owned()));
        };
        let shaken = timeout(at_most, async {
            let addresses = self.addresses(host).await.map_err(Failure::Silent)?;
            let address = addresses.get(turn / hosts % addresses.len().max(1));
            let address = *address.ok_or_else(|| Failure::Silent(format!("{host} has no address")))?;
            match over {
                Transport::Quic => self.quic(host, address).await,
                Transport::Tcp => self.tcp(host, address).await,
            }
        });
        let silent = || Failure::Silent(format!("{host} does not answer"));
        let connection = shaken.await.unwrap_or_else(|_| Err(silent()))?;
        Ok(Dialled { connection, host: place })
    }

    /// Asks for the addresses of a host, or remembers them.
    async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, String> {
        let failure = match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(host)).await {
            Ok(Ok(addresses)) => {
                let addresses: Vec<_> = addresses.collect();
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(host.to_owned(), addresses.clone());
                return Ok(addresses);
            }
            Ok(Err(error)) => format!("{host} cannot be resolved: {error}"),
            Err(_) => format!("{host} cannot be resolved in time"),
        };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(host).cloned().ok_or(failure)
    }

    async fn quic(&self, host: &str, address: SocketAddr) -> Result<Connection, Failure> {
        // A v6 socket reaches v4 addresses in their mapped form.
        let is_v6 = self.ways.endpoint.local_addr().is_ok_and(|local| local.is_ipv6());
        let address = match address.ip() {
            IpAddr::V4(v4) if is_v6 => (v4.to_ipv6_mapped(), address.port()).into(),
            IpAddr::V4(_) | IpAddr::V6(_) => address,
        };
        let connecting = self
            .ways
            .endpoint
            .connect(address, name(host))
            .map_err(|error| Failure::Silent(format!("{host}: {error}")))?;
        let connection = connecting.await.map_err(|error| {
            let reason = format!("{host}: {error}");
            let refused = match error {
                ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => true,
                ConnectionError::TransportError(error) => TLS_ALERTS.contains(&u64::from(error.code)),
                ConnectionError::VersionMismatch
                | ConnectionError::Reset
                | ConnectionError::TimedOut
                | ConnectionError::LocallyClosed
                | ConnectionError::CidsExhausted => false,
            };
            if refused { Failure::Refused(reason) } else { Failure::Silent(reason) }
        })?;
        Ok(Connection::Quic(connection))
    }

    /// Knocks at the host's own port and at [`HTTPS`]; the first that opens counts.
    async fn tcp(&self, host: &str, address: SocketAddr) -> Result<Connection, Failure> {
        let name = ServerName::try_from(name(host).to_owned())
            .map_err(|_| Failure::Silent(format!("{host} is no name of a server")))?;
        let mut knocks = JoinSet::new();
        for port in BTreeSet::from([address.port(), HTTPS]) {
            let address = SocketAddr::new(address.ip(), port);
            knocks.spawn(sonae_line::connect(address, name.clone(), Arc::clone(&self.tls)));
        }
        let mut last = String::new();
        while let Some(ended) = knocks.join_next().await {
            match ended {
                Ok(Ok(connection)) => return Ok(Connection::Tcp(connection)),
                Ok(Err(error)) => last = error.to_string(),
                // A defect; the other may do.
                Err(error) => last = error.to_string(),
            }
        }
        // Whatever the error, something else may listen there or stand between: QUIC still has its chance.
        Err(Failure::Silent(format!("{host} over TCP: {last}")))
    }
}

/// The name in `name:port`.
fn name(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']'])
}

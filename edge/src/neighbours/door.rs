//! The door: waits for neighbours where it is told to, and dials those whose addresses it was given.
//!
//! **Invariant**: at most [`HANDSHAKES_MAX`] strangers are listened to at a time, each for [`HANDSHAKE_TIMEOUT`].
//! **Invariant**: nobody is dialled who is there already; while a neighbour is there, nothing wakes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{DnsName, ServerName};
use sonae_line::Connection;
use sonae_trust::entropy::{Entropy, SystemEntropy};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::{self, Event, Side};
use super::tls::Both;
use super::{Common, NEIGHBOURS_MAX, Present, Who};

/// Handshakes at a time: what strangers on the LAN can take of this box.
const HANDSHAKES_MAX: usize = 8;

/// The time for one, dialling included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait before a neighbour is dialled again; doubles up to a minute: a packet a minute wakes nobody's radio, and people
/// who have just carried a box in wait no longer than that.
const REDIAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Wait after the system has refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct Door {
    pub common: Common,
    pub tls: Both,
    pub present: watch::Receiver<Present>,
}

impl Door {
    pub async fn listen(self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                log::error!(error = error.to_string(); "neighbours cannot be waited for");
                return std::future::pending().await;
            }
        };
        let (handshakes, places) =
            (Arc::new(Semaphore::new(HANDSHAKES_MAX)), Arc::new(Semaphore::new(NEIGHBOURS_MAX)));
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = open.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        let permits =
                            (Arc::clone(&handshakes).try_acquire_owned(), Arc::clone(&places).try_acquire_owned());
                        // Without a place it is closed.
                        if let (Ok(handshake), Ok(place)) = permits {
                            open.spawn(self.clone().admit(stream, from, handshake, place));
                        }
                    }
                    Err(error) => {
                        log::warn!(error = error.to_string(); "a neighbour was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    async fn admit(
        self,
        stream: TcpStream,
        from: SocketAddr,
        handshake: OwnedSemaphorePermit,
        _place: OwnedSemaphorePermit,
    ) {
        match timeout(HANDSHAKE_TIMEOUT, sonae_line::accept(stream, Arc::clone(&self.tls.server))).await {
            Ok(Ok(line)) => {
                let line = Connection::Tcp(line);
                drop(connection::serve(line, Side::Accepted(from), &self.common, Some(handshake)).await);
            }
            Ok(Err(error)) => {
                log::warn!(from:% = from, reason = error.to_string(); "a neighbour was refused")
            }
            Err(_) => log::debug!(from:% = from; "a handshake took too long"),
        }
    }

    /// Dials an address again and again, unless whoever was met there is there already.
    pub async fn dial(mut self, address: String) {
        let mut wait = REDIAL.0;
        let mut met: Option<Who> = None;
        loop {
            let is_away = |present: &Present| met.as_ref().is_none_or(|who| !present.contains_key(who));
            if self.present.wait_for(is_away).await.is_err() {
                return;
            }
            match timeout(HANDSHAKE_TIMEOUT, self.connect(&address)).await.unwrap_or(Err("no answer".into()))
            {
                Ok(line) => {
                    let side = Side::Dialled(address.clone());
                    match connection::serve(line, side, &self.common, None).await {
                        Ok(who) => {
                            met = Some(who);
                            wait = REDIAL.0;
                        }
                        Err(connection::Unserved::Own) => {
                            log::info!(address; "an address of a neighbour is this box's own, and is not dialled again");
                            return;
                        }
                        Err(connection::Unserved::Refused(reason)) => self.unreached(&address, reason).await,
                    }
                }
                Err(reason) => self.unreached(&address, reason).await,
            }
            sleep(wait / 2 + jitter(wait / 2)).await;
            wait = (wait * 2).min(REDIAL.1);
        }
    }

    async fn unreached(&self, address: &str, reason: String) {
        log::debug!(address, reason; "a neighbour is not there");
        drop(self.common.events.send(Event::Unreached { address: address.to_owned(), reason }).await);
    }

    async fn connect(&self, address: &str) -> Result<Connection, String> {
        let name = DnsName::try_from("neighbour").map_err(|error| error.to_string())?;
        let mut last = format!("{address} has no address");
        for to in lookup_host(address).await.map_err(|error| error.to_string())? {
            let name = ServerName::DnsName(name.clone());
            match sonae_line::connect(to, name, Arc::clone(&self.tls.client)).await {
                Ok(line) => return Ok(Connection::Tcp(line)),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}

/// A part of a wait, so that two boxes do not dial each other in step.
fn jitter(at_most: Duration) -> Duration {
    let mut byte = [0];
    // Without entropy they may; nothing else depends on it.
    drop(SystemEntropy.fill(&mut byte));
    at_most * u32::from(byte[0]) / 256
}

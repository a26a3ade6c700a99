//! The part of the command line that says where other replicas of the school are on the same LAN.

use std::net::{SocketAddr, TcpListener};

use clap::Args;
use sonae_edge::exit::Exit;
use sonae_edge::neighbours::ADDRESSES_MAX;

use super::Failure;

#[derive(Debug, Clone, Args)]
pub(super) struct NeighbourArguments {
    /// Waits here for other replicas of the school on the same LAN; without it nobody is waited for
    #[arg(long, value_name = "ADDRESS:PORT")]
    neighbour_listen: Option<SocketAddr>,
    /// Exchanges sealed batches with the replica of the school there; may be given for several
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    neighbour: Vec<String>,
}

/// What they come to: it outlives each incarnation.
#[derive(Debug)]
pub(super) struct NeighbourDoor {
    pub listener: Option<TcpListener>,
    pub addresses: Vec<String>,
}

impl NeighbourArguments {
    pub(super) fn open(&self) -> Result<NeighbourDoor, Failure> {
        if self.neighbour.len() > ADDRESSES_MAX {
            let text = format!("at most {ADDRESSES_MAX} neighbours are dialled; give fewer --neighbour");
            return Err(Failure::new(Exit::Usage, text));
        }
        let listener = self.neighbour_listen.map(|address| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true).map(|()| listener)
        });
        let listener = listener.transpose().map_err(|error| {
            let at = self.neighbour_listen.map(|address| address.to_string()).unwrap_or_default();
            let text =
                format!("cannot wait for neighbours on {at}: {error}; choose another --neighbour-listen");
            Failure::new(Exit::Network, text)
        })?;
        Ok(NeighbourDoor { listener, addresses: self.neighbour.clone() })
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && is_port(port) => Ok(text.to_owned()),
        _ => Err("write it as HOST:PORT, such as 192.168.1.20:8444".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an address without host or port is refused before anything is dialled. Method: rows.
    #[test]
    fn addresses() {
        for good in ["192.168.1.20:8444", "standby.local:1", "[fe80::1]:8444"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in ["", "host", ":8444", "host:", "host:0", "host:99999", "host:x"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}

//! The line between school and cloud: a UDP relay that counts, can be cut, and keeps what passed for the
//! search after canaries.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Bytes of packets that are kept; a demo sends about 2 MB.
const CAPTURE_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Debug)]
struct Shared {
    is_cut: AtomicBool,
    /// Bytes from cloud to school after which the line is cut.
    down_bytes_max: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    up_packets: AtomicU64,
    down_packets: AtomicU64,
    capture: Mutex<Vec<u8>>,
}

impl Shared {
    fn pass(&self, packet: &[u8], up: bool) -> bool {
        let used_up = self.down_bytes.load(Ordering::Relaxed) >= self.down_bytes_max.load(Ordering::Relaxed);
        if used_up || self.is_cut.load(Ordering::Relaxed) {
            return false;
        }
        let length = u64::try_from(packet.len()).unwrap_or(0);
        let (bytes, packets) =
            if up { (&self.up_bytes, &self.up_packets) } else { (&self.down_bytes, &self.down_packets) };
        bytes.fetch_add(length, Ordering::Relaxed);
        packets.fetch_add(1, Ordering::Relaxed);
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        if capture.len() + packet.len() <= CAPTURE_BYTES_MAX {
            capture.extend_from_slice(packet);
        }
        true
    }
}

/// A relay in this process, stopped when dropped.
#[derive(Debug)]
pub struct Line {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// What has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// UDP payload bytes from school to cloud.
    pub up_bytes: u64,
    /// UDP payload bytes from cloud to school.
    pub down_bytes: u64,
    /// Packets from school to cloud.
    pub up_packets: u64,
    /// Packets from cloud to school.
    pub down_packets: u64,
}

impl Line {
    /// Opens a line to the cloud.
    ///
    /// # Errors
    /// When there is no socket.
    pub async fn open(cloud: SocketAddr) -> Result<Self> {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let address = near.local_addr()?;
        let shared = Arc::new(Shared {
            is_cut: AtomicBool::new(false),
            down_bytes_max: AtomicU64::new(u64::MAX),
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
            up_packets: AtomicU64::new(0),
            down_packets: AtomicU64::new(0),
            capture: Mutex::default(),
        });
        let task = tokio::spawn(relay(near, cloud, Arc::clone(&shared)));
        Ok(Self { shared, address, task })
    }

    /// Returns the address that the school dials.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts or mends the line.
    pub fn set_cut(&self, cut: bool) {
        self.shared.is_cut.store(cut, Ordering::Relaxed);
    }

    /// Cuts the line once so many more bytes have come from the cloud; `None` takes that back.
    pub fn set_cut_after(&self, down_bytes: Option<u64>) {
        let passed = self.shared.down_bytes.load(Ordering::Relaxed);
        let max = down_bytes.map_or(u64::MAX, |bytes| passed.saturating_add(bytes));
        self.shared.down_bytes_max.store(max, Ordering::Relaxed);
    }

    /// Returns whether the line lets nothing through.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.shared.is_cut.load(Ordering::Relaxed)
            || self.shared.down_bytes.load(Ordering::Relaxed)
                >= self.shared.down_bytes_max.load(Ordering::Relaxed)
    }

    /// Returns what has passed.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            up_bytes: self.shared.up_bytes.load(Ordering::Relaxed),
            down_bytes: self.shared.down_bytes.load(Ordering::Relaxed),
            up_packets: self.shared.up_packets.load(Ordering::Relaxed),
            down_packets: self.shared.down_packets.load(Ordering::Relaxed),
        }
    }

    /// Returns the payloads of all packets that passed, end to end.
    #[must_use]
    pub fn capture(&self) -> Vec<u8> {
        self.shared.capture.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(near: Arc<UdpSocket>, cloud: SocketAddr, shared: Arc<Shared>) {
    let mut far: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = near.recv_from(&mut buffer).await else { continue };
        let Some(packet) = buffer.get(..length) else { continue };
        let socket = match far.get(&from) {
            Some(socket) => Arc::clone(socket),
            None => {
                let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await else { return };
                let socket = Arc::new(socket);
                tokio::spawn(back(Arc::clone(&socket), Arc::clone(&near), from, Arc::clone(&shared)));
                far.insert(from, Arc::clone(&socket));
                socket
            }
        };
        if shared.pass(packet, true) {
            // A cloud that is down refuses; that is what the line is like then.
            let _ = socket.send_to(packet, cloud).await;
        }
    }
}

async fn back(far: Arc<UdpSocket>, near: Arc<UdpSocket>, to: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    // Ends with the runtime; a refused packet shows as an error and is no reason to stop.
    loop {
        if let Ok((length, _)) = far.recv_from(&mut buffer).await
            && let Some(packet) = buffer.get(..length)
            && shared.pass(packet, false)
        {
            let _ = near.send_to(packet, to).await;
        }
    }
}

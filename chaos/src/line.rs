//! The line between school and cloud: a relay for UDP and TCP that counts, can be cut, can block UDP alone, can
//! move to another address, and keeps what passed for the search after canaries.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Ports that are tried, since one has to be free for both protocols.
const PORTS_TRIED: usize = 16;

/// What waits in front of a slow line is dropped beyond this: the queue of a router. For TCP it is a window.
const QUEUE: Duration = Duration::from_secs(1);

/// What the relay takes from a TCP connection in advance on a slow line.
const SLOW_WINDOW_BYTES: usize = 32 * 1024;

/// How slow a line is.
#[derive(Debug, Clone, Copy)]
pub struct Slowness {
    /// One way.
    pub delay: Duration,
    /// Each way.
    pub bytes_per_second: u32,
    /// UDP packets of a thousand that are lost, each way.
    pub lost_per_thousand: u64,
}

/// Bytes of packets that are kept; a demo sends about 2 MB.
const CAPTURE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A packet with its time, and where it goes out.
type Delayed = (Instant, Arc<UdpSocket>, SocketAddr, Vec<u8>);

#[derive(Debug)]
struct Shared {
    is_cut: AtomicBool,
    /// Bytes from cloud to school after which the line is cut.
    down_bytes_max: AtomicU64,
    is_udp_blocked: AtomicBool,
    /// Counts the moves to another address.
    moves: AtomicU64,
    slowness: Mutex<Option<Slowness>>,
    /// Draws which packets are lost.
    random: AtomicU64,
    /// When the last packet will have left, up and down.
    leaves: [Mutex<Option<Instant>>; 2],
    /// Packets under way on a slow line, up and down, in order.
    under_way: [mpsc::UnboundedSender<Delayed>; 2],
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    up_packets: AtomicU64,
    down_packets: AtomicU64,
    capture: Mutex<Vec<u8>>,
}

impl Shared {
    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
            || self.down_bytes.load(Ordering::Relaxed) >= self.down_bytes_max.load(Ordering::Relaxed)
    }

    /// Returns when a packet arrives, and whether the queue had room for it.
    fn arrival(&self, length: usize, up: bool) -> (Instant, bool) {
        let now = Instant::now();
        let slowness = *self.slowness.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Slowness { delay, bytes_per_second, lost_per_thousand }) = slowness else {
            return (now, true);
        };
        let [leaves_up, leaves_down] = &self.leaves;
        let mut leaves =
            if up { leaves_up } else { leaves_down }.lock().unwrap_or_else(PoisonError::into_inner);
        let starts = leaves.map_or(now, |last| last.max(now));
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let has_room = starts.saturating_duration_since(now) <= QUEUE;
        let gone = starts + Duration::from_secs(1) * length / bytes_per_second;
        if has_room {
            *leaves = Some(gone);
        }
        (gone + delay, has_room && self.draw() % 1_000 >= lost_per_thousand)
    }

    fn draw(&self) -> u64 {
        // splitmix64: evenly spread, and two draws at once get two numbers.
        let state = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn pass(&self, packet: &[u8], up: bool) -> bool {
        if self.is_cut() {
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
    tasks: [JoinHandle<()>; 4],
}

/// What has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// UDP payload bytes and bytes over TCP from school to cloud.
    pub up_bytes: u64,
    /// The same from cloud to school.
    pub down_bytes: u64,
    /// Packets, or pieces of a TCP stream, from school to cloud.
    pub up_packets: u64,
    /// The same from cloud to school.
    pub down_packets: u64,
}

impl Line {
    /// Opens a line to the cloud.
    ///
    /// # Errors
    /// When there is no socket.
    pub async fn open(cloud: SocketAddr) -> Result<Self> {
        Self::open_at(Ipv4Addr::LOCALHOST.into(), cloud).await
    }

    /// Opens a line to the cloud that the school dials at an address of this machine.
    ///
    /// # Errors
    /// When there is no socket.
    pub async fn open_at(address: IpAddr, cloud: SocketAddr) -> Result<Self> {
        let mut tries = PORTS_TRIED;
        let (near, listener) = loop {
            let near = UdpSocket::bind((address, 0)).await?;
            match TcpListener::bind(near.local_addr()?).await {
                Ok(listener) => break (Arc::new(near), listener),
                Err(error) if tries == 0 => return Err(error.into()),
                Err(_) => tries -= 1,
            }
        };
        let address = near.local_addr()?;
        let (up, up_queue) = mpsc::unbounded_channel();
        let (down, down_queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            under_way: [up, down],
            is_cut: AtomicBool::new(false),
            down_bytes_max: AtomicU64::new(u64::MAX),
            is_udp_blocked: AtomicBool::new(false),
            moves: AtomicU64::new(0),
            slowness: Mutex::default(),
            random: AtomicU64::new(1),
            leaves: [Mutex::default(), Mutex::default()],
            up_bytes: AtomicU64::new(0),
            down_bytes: AtomicU64::new(0),
            up_packets: AtomicU64::new(0),
            down_packets: AtomicU64::new(0),
            capture: Mutex::default(),
        });
        let tasks = [
            tokio::spawn(relay(near, cloud, Arc::clone(&shared))),
            tokio::spawn(relay_tcp(listener, cloud, Arc::clone(&shared))),
            tokio::spawn(arrive(up_queue)),
            tokio::spawn(arrive(down_queue)),
        ];
        Ok(Self { shared, address, tasks })
    }

    /// Returns the address that the school dials.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Blocks UDP, as some networks do, or lets it pass.
    pub fn set_udp_blocked(&self, blocked: bool) {
        self.shared.is_udp_blocked.store(blocked, Ordering::Relaxed);
    }

    /// Makes the line slow. Connections over TCP that begin later have small windows, as on a real one.
    pub fn set_slow(&self, slowness: Slowness) {
        *self.shared.slowness.lock().unwrap_or_else(PoisonError::into_inner) = Some(slowness);
    }

    /// Lets the cloud see the school under another address from now on, as after a switch from fibre to mobile.
    /// UDP only: a TCP connection does not survive that.
    pub fn move_source(&self) {
        self.shared.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Cuts or mends the line. A TCP connection on which something was lost stays dead, as it would for most of
    /// the kernel's next pause.
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
        self.shared.is_cut()
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
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn relay(near: Arc<UdpSocket>, cloud: SocketAddr, shared: Arc<Shared>) {
    let mut far: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut moves = 0;
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = near.recv_from(&mut buffer).await else { continue };
        let Some(packet) = buffer.get(..length) else { continue };
        if moves != shared.moves.load(Ordering::Relaxed) {
            moves = shared.moves.load(Ordering::Relaxed);
            far.clear();
        }
        let socket = match far.get(&from) {
            Some(socket) => Arc::clone(socket),
            None => {
                let Ok(address) = near.local_addr() else { return };
                let Ok(socket) = UdpSocket::bind((address.ip(), 0)).await else { return };
                let socket = Arc::new(socket);
                let back = back(Arc::clone(&socket), Arc::clone(&near), from, moves, Arc::clone(&shared));
                tokio::spawn(back);
                far.insert(from, Arc::clone(&socket));
                socket
            }
        };
        if !shared.is_udp_blocked.load(Ordering::Relaxed) && shared.pass(packet, true) {
            // A cloud that is down refuses; that is what the line is like then.
            deliver(&socket, packet, cloud, true, &shared).await;
        }
    }
}

async fn back(far: Arc<UdpSocket>, near: Arc<UdpSocket>, to: SocketAddr, moves: u64, shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    // Ends with a move or the runtime; a refused packet shows as an error and is no reason to stop.
    loop {
        let received = far.recv_from(&mut buffer).await;
        if moves != shared.moves.load(Ordering::Relaxed) {
            return;
        }
        if let Ok((length, _)) = received
            && let Some(packet) = buffer.get(..length)
            && !shared.is_udp_blocked.load(Ordering::Relaxed)
            && shared.pass(packet, false)
        {
            deliver(&near, packet, to, false, &shared).await;
        }
    }
}

/// Sends a packet at its time, or drops it.
async fn deliver(socket: &Arc<UdpSocket>, packet: &[u8], to: SocketAddr, up: bool, shared: &Shared) {
    let (at, has_room) = shared.arrival(packet.len(), up);
    if !has_room {
        return;
    }
    if at <= Instant::now() {
        let _ = socket.send_to(packet, to).await;
        return;
    }
    let [queue_up, queue_down] = &shared.under_way;
    // The queue ends with the line.
    let _ = if up { queue_up } else { queue_down }.send((at, Arc::clone(socket), to, packet.to_vec()));
}

async fn arrive(mut queue: mpsc::UnboundedReceiver<Delayed>) {
    while let Some((at, socket, to, packet)) = queue.recv().await {
        sleep_until(at).await;
        let _ = socket.send_to(&packet, to).await;
    }
}

async fn relay_tcp(listener: TcpListener, cloud: SocketAddr, shared: Arc<Shared>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let is_slow = shared.slowness.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_slow {
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&near, SLOW_WINDOW_BYTES);
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A cloud that is down refuses, and so does this.
            let Ok(far) = TcpStream::connect(cloud).await else { return };
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            let dead = Arc::new(AtomicBool::new(false));
            tokio::join!(
                pipe(near_read, far_write, true, &dead, &shared),
                pipe(far_read, near_write, false, &dead, &shared),
            );
        });
    }
}

/// Passes bytes on until their end. On a dead connection nothing arrives any more, no end either.
async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, up: bool, dead: &AtomicBool, shared: &Shared) {
    let mut buffer = vec![0; 16_384];
    while let Ok(length) = from.read(&mut buffer).await {
        let piece = buffer.get(..length).unwrap_or_default();
        if dead.load(Ordering::Relaxed) || shared.is_cut() {
            dead.store(true, Ordering::Relaxed);
            if piece.is_empty() {
                return std::future::pending().await;
            }
        } else {
            let (arrives, _) = shared.arrival(piece.len(), up);
            sleep_until(arrives).await;
            if piece.is_empty() || !shared.pass(piece, up) || to.write_all(piece).await.is_err() {
                break;
            }
        }
    }
    let _ = to.shutdown().await;
}

//! The simulated network: sockets, the routers before boxes, the lines between, and the record of every datagram.
//!
//! **Invariant**: datagrams are delivered in the order of their time, and of their sending where times are equal.
//! **Invariant**: every datagram enters the digest, with its time, its ends, its bytes and its fate.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::link::{Fate, Link};
use super::options::{Conditions, Way};
use crate::random::Random;
use crate::sim::trace::Trace;

/// Datagrams that one run may send: more are a storm, which is a violation.
const DATAGRAMS_MAX: u64 = 2_000_000;

/// How long a router remembers an address through which nothing goes: common ones 30 s.
const NAT_TIMEOUT: Duration = Duration::from_secs(30);

/// A datagram that has arrived: where it comes from, and its bytes.
pub(crate) type Arrived = (SocketAddr, Vec<u8>);

/// The way into a socket.
struct Inbox {
    /// The socket that is open there now. One of an earlier life may still be polled; nothing reaches it.
    owner: u64,
    arrived: VecDeque<Arrived>,
    waker: Option<Waker>,
}

/// A box's line, and the router that stands before it.
struct Line {
    up: Link,
    down: Link,
    /// How the cloud sees the box.
    outside: SocketAddr,
    used_at: Instant,
}

struct State {
    begin: Instant,
    /// By the box's own address.
    lines: BTreeMap<SocketAddr, Line>,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    flights: BTreeMap<(Instant, u64), (SocketAddr, Arrived)>,
    sent: u64,
    /// Sockets that were ever opened.
    sockets: u64,
    next_port: u16,
    trace: Trace,
}

/// The network. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Net {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net(..)")
    }
}

impl Net {
    /// An empty network; its time begins now.
    pub fn new(keep_trace: bool) -> Self {
        let state = State {
            begin: Instant::now(),
            lines: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            flights: BTreeMap::new(),
            sent: 0,
            sockets: 0,
            next_port: 20_000,
            trace: Trace::new(keep_trace),
        };
        Self { state: Arc::new(Mutex::new(state)), wake: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a line before an address.
    pub fn add_line(&self, inside: SocketAddr, conditions: &Conditions, random: impl Fn(&str) -> Random) {
        let mut state = self.state();
        let outside = state.next_outside();
        let link = |way| Link::new(conditions.clone(), random(way));
        let line = Line { up: link("up"), down: link("down"), outside, used_at: Instant::now() };
        state.lines.insert(inside, line);
    }

    /// Cuts a line in one direction, or mends it.
    pub fn set_cut(&self, inside: SocketAddr, way: Way, is_cut: bool) {
        if let Some(line) = self.state().lines.get_mut(&inside) {
            let link = if way == Way::Up { &mut line.up } else { &mut line.down };
            link.is_cut = is_cut;
        }
    }

    /// The router before a box takes another address for it and forgets the one before.
    pub fn rebind(&self, inside: SocketAddr) {
        let mut state = self.state();
        let outside = state.next_outside();
        if let Some(line) = state.lines.get_mut(&inside) {
            line.outside = outside;
        }
    }

    /// Opens the way into a socket and returns its number; what is on the way to an earlier one there is gone.
    pub fn attach(&self, address: SocketAddr) -> u64 {
        let mut state = self.state();
        state.sockets += 1;
        let owner = state.sockets;
        state.inboxes.insert(address, Inbox { owner, arrived: VecDeque::new(), waker: None });
        state.flights.retain(|_, (to, _)| *to != address);
        owner
    }

    /// A socket is gone: nothing leaves it or reaches it any more.
    pub fn detach(&self, address: SocketAddr) {
        self.state().inboxes.remove(&address);
    }

    /// Notes something that happened.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        let mut state = self.state();
        let now_ms = state.since_ms(Instant::now());
        state.trace.note(now_ms, what);
    }

    /// How many datagrams have been sent, unless that is a storm.
    pub fn sent(&self) -> Result<u64, String> {
        let sent = self.state().sent;
        if sent < DATAGRAMS_MAX { Ok(sent) } else { Err(format!("{sent} datagrams were sent")) }
    }

    /// Ends the record: its digest, and its lines if they were kept.
    pub fn finish(&self) -> (String, Vec<String>) {
        std::mem::replace(&mut self.state().trace, Trace::new(false)).finish()
    }

    /// A socket sends. Nobody is told what becomes of it.
    pub fn send(&self, (from, owner): (SocketAddr, u64), to: SocketAddr, bytes: &[u8]) {
        let mut state = self.state();
        let is_open = state.inboxes.get(&from).is_some_and(|inbox| inbox.owner == owner);
        if state.sent >= DATAGRAMS_MAX || !is_open {
            return;
        }
        state.sent += 1;
        state.carry(from, to, bytes);
        drop(state);
        self.wake.notify_one();
    }

    /// Takes what has arrived; remembers who waits if nothing has.
    pub fn receive(&self, (address, owner): (SocketAddr, u64), waker: &Waker) -> Option<Arrived> {
        let mut state = self.state();
        let inbox = state.inboxes.get_mut(&address).filter(|inbox| inbox.owner == owner)?;
        let arrived = inbox.arrived.pop_front();
        if arrived.is_none() {
            inbox.waker = Some(waker.clone());
        }
        arrived
    }

    /// Delivers datagrams when their time comes, for as long as it runs.
    pub async fn run(self) {
        loop {
            let next = self.state().flights.first_key_value().map(|((at, _), _)| *at);
            match next {
                None => self.wake.notified().await,
                Some(at) if at <= Instant::now() => self.deliver(),
                // Something earlier may be sent meanwhile.
                Some(at) => drop(tokio::time::timeout_at(at, self.wake.notified()).await),
            }
        }
    }

    fn deliver(&self) {
        let mut state = self.state();
        let now = Instant::now();
        while let Some(entry) = state.flights.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let (to, arrived) = entry.remove();
            if let Some(inbox) = state.inboxes.get_mut(&to) {
                inbox.arrived.push_back(arrived);
                if let Some(waker) = inbox.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

impl State {
    fn since_ms(&self, at: Instant) -> u64 {
        u64::try_from((at - self.begin).as_millis()).unwrap_or(u64::MAX)
    }

    fn next_outside(&mut self) -> SocketAddr {
        self.next_port = self.next_port.wrapping_add(1);
        SocketAddr::from(([203, 0, 113, 1], self.next_port))
    }

    /// Sends a datagram through the line of the box that is one of its ends.
    fn carry(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        let (fate, source, target) = if let Some(line) = self.lines.get_mut(&from) {
            if now - line.used_at > NAT_TIMEOUT {
                self.next_port = self.next_port.wrapping_add(1);
                line.outside.set_port(self.next_port);
            }
            line.used_at = now;
            (line.up.take(bytes.len(), now), line.outside, Some(to))
        } else {
            let mut lines = self.lines.iter_mut();
            match lines.find(|(_, line)| line.outside == to && now - line.used_at <= NAT_TIMEOUT) {
                Some((inside, line)) => {
                    line.used_at = now;
                    (line.down.take(bytes.len(), now), from, Some(*inside))
                }
                None => (Fate::Dropped("nobody there"), from, None),
            }
        };
        let now_ms = self.since_ms(now);
        let length = bytes.len();
        match &fate {
            Fate::Dropped(why) => self.trace.note(now_ms, format_args!("{from} > {to} {length} {why}")),
            Fate::Arrives(times) => {
                let first_ms = times.first().map_or(0, |(at, _)| self.since_ms(*at));
                let count = times.len();
                self.trace
                    .note(now_ms, format_args!("{from} > {to} {length} at {first_ms}, {count} time(s)"));
            }
        }
        self.trace.bytes(bytes);
        let (Fate::Arrives(times), Some(target)) = (fate, target) else { return };
        for (copy, (at, flip)) in (0_u64..).zip(times) {
            let mut bytes = bytes.to_vec();
            if let Some(bit) = flip {
                let place = usize::try_from(bit / 8).unwrap_or(0) % bytes.len().max(1);
                bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            self.flights.insert((at, self.sent * 2 + copy), (target, (source, bytes)));
        }
    }
}

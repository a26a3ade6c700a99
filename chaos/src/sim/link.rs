//! One connection between two boxes: frames that arrive in order, stalls, and ends that notice at different moments that it
//! is gone. Models `edge/src/neighbours/connection.rs` over TCP, with its streams in one order for each direction.
//!
//! **Invariant**: what came whole before a connection went is taken.

use super::event::Event;
use super::lan::{Asked, Asking, End, SILENCE_MS};
use super::later;
use super::line::CONTROL;
use super::world::World;
use sonae_proto::neighbours::NeighbourId;
use sonae_proto::wire::Frame;

/// Milliseconds after which an end may notice that its connection is gone, at most.
const NOTICE_MS: u64 = 10_000;

impl World {
    /// An end that is open, if its box still runs.
    pub fn end(&mut self, link: u64, end: usize) -> Option<&mut End> {
        let lives = self.lan.links.get(&link).map(|link| self.slots[link.ends[end].slot].lives)?;
        let end = &mut self.lan.links.get_mut(&link)?.ends[end];
        (end.is_open && end.life == lives).then_some(end)
    }

    /// Asks something on a stream of its own.
    pub fn ask_neighbour(&mut self, link: u64, end: usize, what: Asking, frame: &Frame) {
        let heard_at = self.now;
        let Some(here) = self.end(link, end) else { return };
        let stream = here.next_stream;
        here.next_stream += 2;
        here.asked.insert(stream, Asked { what, heard_at });
        self.at(heard_at + SILENCE_MS, Event::LookAtLink { link, end });
        self.send_to_neighbour(link, end, stream, frame);
    }

    pub fn send_to_neighbour(&mut self, number: u64, end: usize, stream: u64, frame: &Frame) {
        let bytes = match frame.to_bytes() {
            Ok(bytes) => bytes,
            Err(error) => return self.violate(format!("a frame has no bytes: {error}")),
        };
        let Some(slot) = self.end(number, end).map(|here| here.slot) else { return };
        let is_later = later::is_later(&self.slots[slot].life) && self.options.later;
        let bytes = if is_later { later::frame(bytes) } else { bytes };
        self.trace.bytes(&bytes);
        let mut at = self.now + self.delay();
        let is_lost = self.random.one_in(self.options.loss_one_in);
        let breaks = is_lost && self.random.one_in(2);
        if is_lost {
            // Sent again by the transport, some round trips later.
            at += 3 * self.options.delay_ms_max;
        }
        let Some(link) = self.lan.links.get_mut(&number).filter(|link| !link.is_broken) else { return };
        if breaks || link.breaks_in == Some(0) {
            return self.break_link(number);
        }
        link.breaks_in = link.breaks_in.map(|frames| frames - 1);
        let direction = (link.ends[end].slot, link.ends[1 - end].slot);
        if self.lan.stalls.contains(&direction) {
            return link.stalled[end].push((stream, bytes));
        }
        self.arrive_at_neighbour(number, end, stream, bytes, at);
    }

    fn arrive_at_neighbour(&mut self, number: u64, from: usize, stream: u64, frame: Vec<u8>, at: u64) {
        let Some(link) = self.lan.links.get_mut(&number) else { return };
        let at = at.max(link.last_arrival[from]);
        link.last_arrival[from] = at;
        self.at(at, Event::ToNeighbour { link: number, end: 1 - from, stream, frame });
    }

    /// What was kept in a direction gets through.
    pub fn flow(&mut self, (from, to): (usize, usize)) {
        self.lan.stalls.remove(&(from, to));
        for number in self.links_of((from, to)) {
            for end in 0..2 {
                let Some(link) = self.lan.links.get_mut(&number) else { continue };
                if link.ends[end].slot == from && !link.is_broken {
                    for (stream, bytes) in std::mem::take(&mut link.stalled[end]) {
                        let at = self.now + self.delay();
                        self.arrive_at_neighbour(number, end, stream, bytes, at);
                    }
                }
            }
        }
    }

    /// A direction that still stalls: the kernel gives its connections up.
    pub fn look_at_stall(&mut self, from: usize, to: usize) {
        if self.lan.stalls.contains(&(from, to)) {
            for number in self.links_of((from, to)) {
                self.break_link(number);
            }
        }
    }

    pub fn break_link(&mut self, number: u64) {
        let Some(link) = self.lan.links.get_mut(&number).filter(|link| !link.is_broken) else { return };
        link.is_broken = true;
        for end in 0..2 {
            let at = self.now + 1 + self.random.below(NOTICE_MS);
            self.at(at, Event::LoseLink { link: number, end });
        }
    }

    /// A greeting that does not come, or silence while something is asked, ends a connection.
    pub fn look_at_link(&mut self, link: u64, end: usize) {
        let now = self.now;
        let Some(here) = self.end(link, end) else { return };
        let oldest = here.asked.values().map(|asked| asked.heard_at + SILENCE_MS).min();
        match oldest {
            _ if !here.is_greeted => self.lose_link(link, end),
            Some(due) if due <= now => self.lose_link(link, end),
            Some(due) => self.at(due, Event::LookAtLink { link, end }),
            None => {}
        }
    }

    /// An end is gone. What came whole of what it asked for is taken; the other end notices later.
    pub fn lose_link(&mut self, number: u64, end: usize) {
        let other = self.lan.links.get(&number).map(|link| link.ends[1 - end].slot);
        let Some(here) = self.end(number, end) else { return };
        let (slot, other) = (here.slot, other.unwrap_or(here.slot));
        let asked = std::mem::take(&mut here.asked);
        self.note(format_args!("box {slot} loses link {number}"));
        self.close_end(number, end);
        let id = NeighbourId(number);
        for Asked { what, .. } in asked.into_values() {
            if let Asking::Log { log, group } = what {
                self.take_carried(slot, other, group).ok();
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.neighbours.handle_fetch_end(id, log);
                }
            }
        }
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.neighbours.handle_gone(id);
        }
        self.tell_neighbours(slot);
    }

    /// A box stops, and with it all its connections.
    pub fn lose_links(&mut self, slot: usize) {
        let all: Vec<u64> = self.lan.links.keys().copied().collect();
        for number in all {
            for end in 0..2 {
                if self.end(number, end).is_some_and(|end| end.slot == slot) {
                    self.close_end(number, end);
                }
            }
        }
    }

    fn close_end(&mut self, number: u64, end: usize) {
        let Some(link) = self.lan.links.get_mut(&number) else { return };
        link.ends[end].is_open = false;
        link.ends[end].asked.clear();
        let (slot, other) = (link.ends[end].slot, link.ends[1 - end].slot);
        if link.ends[1 - end].is_open {
            let at = self.now + self.delay() * 3;
            self.at(at, Event::LoseLink { link: number, end: 1 - end });
        } else {
            self.lan.links.remove(&number);
        }
        self.dial_later(slot, other);
    }

    /// A frame arrives at an end.
    pub fn neighbour_reads(&mut self, link: u64, end: usize, stream: u64, bytes: &[u8]) {
        if self.lan.links.get(&link).is_none_or(|link| link.is_broken) || self.end(link, end).is_none() {
            return;
        }
        let Some(frame) = self.decode(bytes) else { return };
        let now = self.now;
        let Some(here) = self.end(link, end) else { return };
        if let Some(asked) = here.asked.get_mut(&stream) {
            asked.heard_at = now;
        }
        match (stream, frame) {
            (CONTROL, frame) => self.neighbour_says(link, end, frame),
            (_, Frame::Fetch(fetch)) => self.serve_neighbour(link, end, stream, &fetch),
            (_, frame) => self.neighbour_answers(link, end, stream, frame),
        }
    }
}

//! The LAN between the boxes of one school: who reaches whom, and connections that stall, die at any frame and are dialled
//! again: the door of `edge/src/neighbours`. What happens on a connection is in [`super::link`], what boxes say to one another
//! in [`super::lan_side`].
//!
//! **Invariant**: a pair of boxes that can reach each other is dialled again and again, unless they are connected.

use std::collections::{BTreeMap, BTreeSet};

use sonae_proto::batch::Batch;
use sonae_proto::ids::{Incarnation, LogName, ReplicaId};
use sonae_proto::vector::LogHead;

use super::event::Event;
use super::script::LanAction;
use super::world::World;

/// Milliseconds for a greeting.
const GREETING_MS: u64 = 10_000;

/// Milliseconds for which a neighbour may be silent while something is asked of it, and after which a connection on which
/// nothing gets through is given up by the kernel.
pub(crate) const SILENCE_MS: u64 = 60_000;

/// Shortest and longest wait before a neighbour is dialled again, in milliseconds.
const REDIAL_MS: (u64, u64) = (1_000, 60_000);

/// What a box waits for on a stream.
#[derive(Debug)]
pub(crate) struct Asked {
    pub what: Asking,
    /// When something was last heard on it.
    pub heard_at: u64,
}

#[derive(Debug)]
pub(crate) enum Asking {
    /// The batches of a log; those that came are taken together.
    Log { log: LogName, group: Vec<Batch> },
    /// The batch that ends an own log here.
    Proof { log: LogName, head: LogHead },
}

/// One end of a link.
#[derive(Debug)]
pub(crate) struct End {
    pub slot: usize,
    /// The life of the box for which it was opened.
    pub life: u64,
    pub is_open: bool,
    pub is_greeted: bool,
    /// Of the manifest that the other side holds, or was sent.
    pub manifest_version: u64,
    /// Of the own manifest when it was last looked whether the other side is revoked or needs it.
    pub known: u64,
    /// Incarnations whose identities the other side was told.
    pub told: BTreeSet<Incarnation>,
    pub asked: BTreeMap<u64, Asked>,
    pub next_stream: u64,
}

/// One connection. The first end has dialled.
#[derive(Debug)]
pub(crate) struct Link {
    pub ends: [End; 2],
    /// Nothing gets through any more, whether the ends know it or not.
    pub is_broken: bool,
    /// It breaks at a frame so many ahead.
    pub breaks_in: Option<u64>,
    /// What an end has sent and a stall keeps.
    pub stalled: [Vec<(u64, Vec<u8>)>; 2],
    pub last_arrival: [u64; 2],
}

/// The LAN.
#[derive(Debug, Default)]
pub(crate) struct Lan {
    /// Boxes that can reach each other: who dials whom.
    pub joined: BTreeSet<(usize, usize)>,
    /// Directions in which nothing gets through for a while.
    pub stalls: BTreeSet<(usize, usize)>,
    /// Dials that are due.
    dials: BTreeSet<(usize, usize)>,
    /// How long each waits until it dials again; doubles until a greeting succeeds.
    waits: BTreeMap<(usize, usize), u64>,
    pub links: BTreeMap<u64, Link>,
    /// Boxes that name heads which do not exist, until everything heals.
    pub liars: BTreeSet<usize>,
}

impl World {
    pub fn act_on_lan(&mut self, what: LanAction) {
        let boxes = self.slots.len();
        let pair = |a: usize, b: usize| (a % boxes, b % boxes);
        match what {
            LanAction::Join(a, b) => self.join(pair(a, b)),
            LanAction::Part(a, b) => self.part(pair(a, b)),
            LanAction::Stall(a, b) => {
                self.lan.stalls.insert(pair(a, b));
                let (from, to) = pair(a, b);
                self.at(self.now + SILENCE_MS, Event::LookAtStall { from, to });
            }
            LanAction::Flow(a, b) => self.flow(pair(a, b)),
            LanAction::Break(a, b, frames) => {
                for number in self.links_of(pair(a, b)) {
                    if let Some(link) = self.lan.links.get_mut(&number) {
                        link.breaks_in = Some(frames);
                    }
                }
            }
            LanAction::Lie(number) => drop(self.lan.liars.insert(number % boxes)),
        }
    }

    pub fn links_of(&self, (a, b): (usize, usize)) -> Vec<u64> {
        let is_of = |(_, link): &(&u64, &Link)| {
            let [one, other] = link.ends.each_ref().map(|end| end.slot);
            (one, other) == (a, b) || (other, one) == (a, b)
        };
        self.lan.links.iter().filter(is_of).map(|(number, _)| *number).collect()
    }

    /// From now on a box can reach another, and dials it.
    fn join(&mut self, (from, to): (usize, usize)) {
        if from != to && self.lan.joined.insert((from, to)) {
            self.dial_later(from, to);
        }
    }

    /// Two boxes do not reach each other any more.
    fn part(&mut self, (a, b): (usize, usize)) {
        self.lan.joined.remove(&(a, b));
        self.lan.joined.remove(&(b, a));
        for number in self.links_of((a, b)) {
            self.break_link(number);
        }
    }

    /// All that kept boxes apart is gone; or they are parted for good.
    pub fn heal_lan(&mut self, is_joined: bool) {
        for (from, to) in self.lan.stalls.clone() {
            self.flow((from, to));
        }
        let liars = &self.lan.liars;
        let lies = |(_, link): &(&u64, &Link)| link.ends.iter().any(|end| liars.contains(&end.slot));
        for number in self.lan.links.iter().filter(lies).map(|(number, _)| *number).collect::<Vec<_>>() {
            // What was made up is not named any more.
            self.break_link(number);
        }
        for from in 0..self.slots.len() {
            for to in from + 1..self.slots.len() {
                if is_joined {
                    self.join((from, to));
                } else {
                    self.part((from, to));
                }
            }
        }
    }

    /// Whether a box serves neighbours: not one that is being rebuilt, and not the second store of a renewal before it has
    /// taken the place of the first.
    pub fn is_on_lan(&self, slot: usize) -> bool {
        let place = &self.slots[slot];
        place.replica.is_some() && place.ended.is_empty() && !self.is_rebuilding(slot)
    }

    pub fn dial_later(&mut self, from: usize, to: usize) {
        if self.lan.joined.contains(&(from, to)) && self.lan.dials.insert((from, to)) {
            let wait = self.lan.waits.entry((from, to)).or_insert(REDIAL_MS.0);
            let half = *wait / 2;
            *wait = (*wait * 2).min(REDIAL_MS.1);
            let at = self.now + half + self.random.below(half);
            self.at(at, Event::DialNeighbour { from, to });
        }
    }

    /// A box was met where another one dialled it.
    pub fn met(&mut self, from: usize, to: usize) {
        self.lan.waits.remove(&(from, to));
    }

    /// Whether two boxes reach each other.
    pub fn are_joined(&self, a: usize, b: usize) -> bool {
        self.lan.joined.contains(&(a, b)) || self.lan.joined.contains(&(b, a))
    }

    pub fn dial_neighbour(&mut self, from: usize, to: usize) {
        self.lan.dials.remove(&(from, to));
        if !self.lan.joined.contains(&(from, to)) {
            return;
        }
        let is_there = self.links_of((from, to)).into_iter().any(|number| {
            let ends = self.lan.links.get(&number).map(|link| &link.ends);
            let is_ours = |end: &End| end.slot == from && end.is_open;
            // The one that it has dialled itself, or any that is greeted.
            ends.is_some_and(|ends| {
                is_ours(&ends[0]) || ends.iter().any(|end| is_ours(end) && end.is_greeted)
            })
        });
        if is_there {
            // It is dialled again when that is gone.
            return;
        }
        if self.is_on_lan(from) && self.is_on_lan(to) && self.let_in(from, to) && self.let_in(to, from) {
            self.open_link(from, to);
        } else {
            self.dial_later(from, to);
        }
    }

    /// Whether a box, as far as it knows, may have another one as its neighbour.
    pub fn let_in(&self, slot: usize, other: usize) -> bool {
        let device = ReplicaId::of_key(&self.slots[other].life.tls_key);
        let replica = self.slots[slot].replica.as_ref();
        replica.is_some_and(|replica| !replica.engine.revoked_devices().any(|revoked| revoked == device))
    }

    fn open_link(&mut self, from: usize, to: usize) {
        let number = self.number();
        let end = |slot: usize, first: u64| End {
            slot,
            life: self.slots[slot].lives,
            is_open: true,
            is_greeted: false,
            manifest_version: 0,
            known: 0,
            told: BTreeSet::new(),
            asked: BTreeMap::new(),
            next_stream: first,
        };
        let ends = [end(from, 1), end(to, 2)];
        let link = Link {
            ends,
            is_broken: false,
            breaks_in: None,
            stalled: [Vec::new(), Vec::new()],
            last_arrival: [0; 2],
        };
        self.note(format_args!("box {from} has dialled box {to}: link {number}"));
        self.lan.links.insert(number, link);
        self.tally.counts.links += 1;
        for end in 0..2 {
            self.greet_neighbour(number, end);
            self.at(self.now + GREETING_MS, Event::LookAtLink { link: number, end });
        }
    }
}

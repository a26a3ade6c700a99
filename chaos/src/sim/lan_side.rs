//! What boxes say to neighbours and do with what they hear. Models the driver of `edge/src/neighbours`; the engines are the
//! real ones.
//!
//! **Invariants** that it checks: nothing is stored, and no own log is given up, by a neighbour's word alone; honest
//! neighbours bring nothing that is refused; nothing becomes safe by a neighbour (the ledger knows no neighbours).

use sonae_proto::batch::{Batch, Place};
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::neighbours::{Effect, NeighbourId};
use sonae_proto::vector::{Heads, LogHead};
use sonae_proto::wire::{Fetch, FetchEnd, Frame, Hello, News, PROTOCOL};

use super::board::EPOCH;
use super::item::Item;
use super::lan::{Asked, Asking};
use super::line::CONTROL;
use super::line_side::kind;
use super::planted::Planted;
use super::replica::Replica;
use super::seal;
use super::world::World;

/// Batches that are taken together: few, so that short logs come in several groups.
const GROUP_BATCHES: usize = 3;

impl World {
    /// What is said first.
    pub fn greet_neighbour(&mut self, link: u64, end: usize) {
        let Some(here) = self.end(link, end) else { return };
        let (slot, life) = (here.slot, here.life);
        let Some(replica) = &self.slots[slot].replica else { return };
        let hello = Hello {
            protocol: PROTOCOL,
            school: self.board.school,
            identity: self.slots[slot].life.identity.clone(),
            loss_counter: 0,
            receipted: Heads::new(),
            have: std::collections::BTreeMap::default(),
            manifest_version: replica.engine.manifest_version(),
            nonce: format!("{slot:016x}{life:016x}"),
            software: "sim".into(),
            ended: sonae_proto::ended::EndedHashes::new(),
        };
        self.send_to_neighbour(link, end, CONTROL, &Frame::Hello(Box::new(hello)));
    }

    /// A neighbour says something on the control stream.
    pub fn neighbour_says(&mut self, link: u64, end: usize, frame: Frame) {
        let Some(here) = self.end(link, end) else { return };
        let (slot, is_greeted) = (here.slot, here.is_greeted);
        self.note(format_args!("box {slot} reads {} on link {link}", kind(&frame)));
        match (frame, is_greeted) {
            (Frame::Hello(hello), false) => self.greeted(link, end, &hello),
            (Frame::News(news), true) => self.neighbour_news(link, end, &news),
            (Frame::Keys(keys), true) => {
                self.box_reads_keys(slot, &keys);
                self.drain_box(slot);
            }
            (frame, _) => self.violate(format!("a neighbour says {} out of turn", kind(&frame))),
        }
    }

    fn greeted(&mut self, link: u64, end: usize, hello: &Hello) {
        let Some(other) = self.lan.links.get(&link).map(|link| link.ends[1 - end].slot) else { return };
        let Some(here) = self.end(link, end) else { return };
        here.manifest_version = hello.manifest_version;
        let slot = here.slot;
        if self.board.identity(&hello.identity).is_err() {
            return self.violate(format!("box {slot} cannot verify the identity of box {other}"));
        }
        let before =
            self.lan.links.iter().filter(|(number, _)| **number != link).find_map(|(number, old)| {
                let at = (0..2).find(|at| old.ends[*at].slot == slot && old.ends[1 - *at].slot == other)?;
                (old.ends[at].is_open && old.ends[at].is_greeted).then_some((*number, at))
            });
        // Of two connections both ends keep that of which the lesser end is the dialler, or the newer one of two that the
        // same end has dialled.
        let is_preferred = |at: usize| at == end || (end == 0) == (slot < other);
        if !self.let_in(slot, other) || before.is_some_and(|(_, at)| !is_preferred(at)) {
            return self.lose_link(link, end);
        }
        if let Some((old, at)) = before {
            self.lose_link(old, at);
        }
        let Some(here) = self.end(link, end) else { return };
        here.is_greeted = true;
        if end == 0 {
            self.met(slot, other);
        }
        let Some(replica) = &mut self.slots[slot].replica else { return };
        replica.neighbours.handle_greeted(NeighbourId(link));
        self.tell_neighbours(slot);
    }

    fn neighbour_news(&mut self, link: u64, end: usize, news: &News) {
        let Some(slot) = self.end(link, end).map(|here| here.slot) else { return };
        let Some(replica) = &mut self.slots[slot].replica else { return };
        replica.engine.handle_carried_identities(&news.identities);
        self.drain_box(slot);
        if self.planted == Some(Planted::NeighbourMakesSafe) {
            self.believe_safe(slot, &news.heads);
        }
        self.look_at_room(slot);
        if self.end(link, end).is_some()
            && let Some(replica) = &mut self.slots[slot].replica
        {
            replica.neighbours.handle_news(NeighbourId(link), &news.heads);
            self.tell_neighbours(slot);
        }
    }

    /// Takes what a neighbour has of own logs for receipted: a planted defect.
    fn believe_safe(&mut self, slot: usize, heads: &Heads) {
        let name = self.slots[slot].life.name;
        for (log, head) in heads.iter().filter(|(log, _)| log.incarnation == name) {
            let held = self.slots[slot].replica.as_ref().map(|replica| &replica.store.held);
            if held.is_some_and(|held| *head != LogHead::EMPTY && held.has_point(*log, *head)) {
                self.keep_or_later(slot, Item::Receipt { log: *log, head: *head }, true);
            }
        }
    }

    /// From which tier on a full disk takes nothing.
    pub fn look_at_room(&mut self, slot: usize) {
        let (refused_from, told) = (self.slots[slot].full_from, self.told(slot));
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.neighbours.handle_room(refused_from, told);
        }
    }

    /// A box that could not store what came asks again, if it is time.
    pub fn look_at_neighbours_again(&mut self, slot: usize) {
        let told = self.told(slot);
        let is_waiting = |replica: &Replica| replica.neighbours.poll_timeout().is_some();
        if self.slots[slot].replica.as_ref().is_some_and(is_waiting) {
            self.look_at_room(slot);
            if let Some(replica) = &mut self.slots[slot].replica {
                replica.neighbours.handle_timeout(told);
            }
            self.tell_neighbours(slot);
            self.set_wake(slot);
        }
    }

    /// Something is durable here, or is known of the board, that was not before.
    pub fn tell_neighbours(&mut self, slot: usize) {
        let Some(replica) = &mut self.slots[slot].replica else { return };
        replica.neighbours.handle_held(&replica.store.held.heads());
        let (version, is_renewing) = (replica.engine.manifest_version(), replica.engine.is_renewing());
        if is_renewing {
            replica.neighbours.handle_renewing();
        }
        for (link, end) in self.ends_of(slot) {
            let other = self.lan.links.get(&link).map(|link| link.ends[1 - end].slot);
            let Some(here) = self.end(link, end).filter(|here| here.is_greeted) else { continue };
            if std::mem::replace(&mut here.known, version) == version {
                continue;
            }
            let is_older = std::mem::replace(&mut here.manifest_version, version) < version;
            if other.is_some_and(|other| !self.let_in(slot, other)) {
                self.lose_link(link, end);
            } else if is_older {
                let keys = self.board.documents_at(version);
                self.send_to_neighbour(link, end, CONTROL, &Frame::Keys(Box::new(keys)));
            }
        }
        self.drain_neighbours(slot);
    }

    fn ends_of(&self, slot: usize) -> Vec<(u64, usize)> {
        let numbers = self.lan.links.iter();
        let ends = numbers.flat_map(|(number, link)| (0..2).map(move |end| (*number, end, &link.ends[end])));
        ends.filter(|(_, _, end)| end.slot == slot).map(|(number, end, _)| (number, end)).collect()
    }

    fn drain_neighbours(&mut self, slot: usize) {
        while self.goes_on()
            && let Some(effect) = self.slots[slot].replica.as_mut().and_then(|r| r.neighbours.poll_effect())
        {
            let name = name_of(&effect);
            self.do_effect(slot, name, |world| world.perform_for_neighbour(slot, effect));
        }
    }

    fn perform_for_neighbour(&mut self, slot: usize, effect: Effect) {
        let of_box = |id: NeighbourId, world: &Self| {
            world.ends_of(slot).into_iter().find(|(link, _)| *link == id.0).unwrap_or((id.0, 0))
        };
        match effect {
            Effect::Tell { to, heads } => {
                let (link, end) = of_box(to, self);
                self.tell_heads(slot, link, end, heads);
            }
            Effect::Fetch { from, fetch } => {
                let (link, end) = of_box(from, self);
                let what = Asking::Log { log: fetch.log, group: Vec::new() };
                self.ask_neighbour(link, end, what, &Frame::Fetch(fetch));
            }
            Effect::Question { from, log, head } => {
                let (link, end) = of_box(from, self);
                self.question(slot, link, end, log, head);
            }
            Effect::Differs { log, .. } => {
                if !self.contested.contains(&log.incarnation) {
                    self.violate(format!("box {slot} says that a neighbour has another history of {log}"));
                }
            }
            Effect::Disconnect(id) => {
                let (link, end) = of_box(id, self);
                self.violate(format!("box {slot} sends a neighbour away"));
                self.lose_link(link, end);
            }
        }
    }

    /// Tells heads, with all identities as soon as it names an incarnation for the first time. A box that lies adds a head
    /// of the other's own log that does not exist.
    fn tell_heads(&mut self, slot: usize, link: u64, end: usize, mut heads: Heads) {
        let lies = self.lan.liars.contains(&slot) && self.healed_at.is_none();
        let made_up = (Hash32([self.random.bits().to_le_bytes()[0]; 32]), 1 + self.random.below(4));
        let other = self.lan.links.get(&link).map(|link| link.ends[1 - end].slot);
        if let Some(other) =
            other.filter(|other| lies && self.slots[*other].life.name != self.slots[slot].life.name)
        {
            let log = self.slots[other].life.log(self.random.pick(&Tier::ALL));
            let sequence = heads.get(&log).map_or(0, |head| head.sequence) + made_up.1;
            heads.insert(log, LogHead { sequence, hash: made_up.0 });
        }
        let Some(here) = self.end(link, end) else { return };
        let mut is_new = false;
        for log in heads.keys() {
            is_new |= here.told.insert(log.incarnation);
        }
        let Some(replica) = &self.slots[slot].replica else { return };
        let mut identities = Vec::new();
        if is_new {
            identities = replica.engine.peer_identities();
            identities.push(self.slots[slot].life.identity.clone());
        }
        self.send_to_neighbour(link, end, CONTROL, &Frame::News(Box::new(News { heads, identities })));
    }

    /// A neighbour names a head of an own log that is not the present one.
    fn question(&mut self, slot: usize, link: u64, end: usize, log: LogName, head: LogHead) {
        let Some(replica) = &mut self.slots[slot].replica else { return };
        if replica.store.held.has_point(log, head) {
            return;
        }
        if self.planted == Some(Planted::NeighbourBelieved) {
            let before = LogHead { sequence: head.sequence - 1, hash: head.hash };
            if let Ok(batch) = self.forge(slot, log, before)
                && let Some(replica) = &mut self.slots[slot].replica
            {
                replica.engine.handle_elsewhere(batch.header());
                self.drain_box(slot);
            }
            return;
        }
        let fetch = Fetch { log, after: head.sequence.saturating_sub(1) };
        self.ask_neighbour(link, end, Asking::Proof { log, head }, &Frame::Fetch(fetch));
    }

    /// A batch of somebody else's log, signed by whoever makes it up.
    fn forge(&mut self, slot: usize, log: LogName, after: LogHead) -> Result<Batch, ()> {
        let salt = self.random.bits();
        let after = if after.sequence == 0 { LogHead::EMPTY } else { after };
        let place = Place {
            school: self.board.school,
            log,
            after,
            last: after.sequence + 1,
            epoch: EPOCH,
            manifest: self.board.manifest(),
        };
        let key = &self.slots[slot].life.key;
        Batch::sign(&place, &seal::seal(&[b"{}".to_vec()], salt), key).map_err(drop)
    }

    /// Answers a fetch with what is durable here.
    pub fn serve_neighbour(&mut self, link: u64, end: usize, stream: u64, fetch: &Fetch) {
        let Some(slot) = self.end(link, end).map(|here| here.slot) else { return };
        let Some(replica) = &self.slots[slot].replica else { return };
        let is_ending = fetch.log.incarnation == self.slots[slot].life.name && replica.engine.is_renewing();
        let held = replica.store.held.batches_after(fetch.log, fetch.after);
        let mut batches: Vec<Batch> = held.filter(|_| !is_ending).cloned().collect();
        let lies = self.lan.liars.contains(&slot) && self.healed_at.is_none();
        // Of its own log it could, and would be a writer that runs twice.
        let is_own = fetch.log.incarnation == self.slots[slot].life.name;
        if batches.is_empty() && lies && !is_own && self.random.one_in(2) {
            let after = LogHead { sequence: fetch.after, hash: Hash32([7; 32]) };
            batches.extend(self.forge(slot, fetch.log, after));
        }
        let sequence = batches.last().map_or(fetch.after, |batch| batch.header().last);
        for batch in batches {
            self.send_to_neighbour(link, end, stream, &Frame::Batch(batch.bytes().to_vec()));
        }
        self.send_to_neighbour(link, end, stream, &Frame::FetchEnd(FetchEnd { sequence }));
    }

    /// A neighbour answers what it was asked. What follows on a stream that is of no use any more is dropped.
    pub fn neighbour_answers(&mut self, link: u64, end: usize, stream: u64, frame: Frame) {
        let other = self.lan.links.get(&link).map(|link| link.ends[1 - end].slot);
        let Some(here) = self.end(link, end) else { return };
        let (slot, other) = (here.slot, other.unwrap_or(here.slot));
        let Some(asked) = here.asked.get_mut(&stream) else { return };
        if !matches!(frame, Frame::Batch(_) | Frame::FetchEnd(_)) {
            return self.violate(format!("a neighbour answers with {}", kind(&frame)));
        }
        let batch = if let Frame::Batch(bytes) = frame { Batch::from_bytes(bytes).ok() } else { None };
        let is_end = batch.is_none();
        match &mut asked.what {
            Asking::Log { log, group } => {
                let log = *log;
                group.extend(batch);
                let whole = is_end || group.len() >= GROUP_BATCHES;
                let group = if whole { std::mem::take(group) } else { Vec::new() };
                let taken = self.take_carried(slot, other, group);
                if is_end || taken.is_err() {
                    self.neighbour_done(link, end, stream, log);
                }
            }
            Asking::Proof { log, head } => {
                let (log, head) = (*log, *head);
                here.asked.remove(&stream);
                if let Some(batch) = batch {
                    self.neighbour_proves(link, end, log, head, &batch);
                }
            }
        }
    }

    fn neighbour_done(&mut self, link: u64, end: usize, stream: u64, log: LogName) {
        let Some(here) = self.end(link, end) else { return };
        let slot = here.slot;
        if !matches!(here.asked.remove(&stream), Some(Asked { .. })) {
            return;
        }
        self.look_at_room(slot);
        let Some(replica) = &mut self.slots[slot].replica else { return };
        // First what came of it, so that the engine knows whether it was in vain.
        replica.neighbours.handle_held(&replica.store.held.heads());
        replica.neighbours.handle_fetch_end(NeighbourId(link), log);
        self.tell_neighbours(slot);
    }

    /// A batch of an own log has come that ends where none is held. Unless the own key has signed it, the neighbour lies.
    fn neighbour_proves(&mut self, link: u64, end: usize, log: LogName, head: LogHead, batch: &Batch) {
        let Some(slot) = self.end(link, end).map(|here| here.slot) else { return };
        let key = self.slots[slot].life.key.verifying_key();
        if batch.header().log != log || batch.verify(&key).is_err() {
            self.note(format_args!("box {slot} cannot believe {log} {}", head.sequence));
            return self.lose_link(link, end);
        }
        let Some(replica) = &mut self.slots[slot].replica else { return };
        if !replica.store.held.has_point(log, batch.header().head()) {
            replica.engine.handle_elsewhere(batch.header());
            self.drain_box(slot);
        }
    }
}

const fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::Tell { .. } => "tells a neighbour",
        Effect::Fetch { .. } => "asks a neighbour",
        Effect::Question { .. } => "questions a neighbour",
        Effect::Differs { .. } => "finds a neighbour different",
        Effect::Disconnect(_) => "leaves a neighbour",
    }
}

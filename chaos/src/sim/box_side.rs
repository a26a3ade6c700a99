//! What a box does for its engine: it sends, stores, tells people; and it may stop at any of these effects.

use sonae_proto::batch::Batch;
use sonae_proto::ended::EndedHashes;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::uplink::{Alarm, Effect, STALL_MS};
use sonae_proto::wire::{Frame, Hello, PROTOCOL, RefusalCode};

use super::event::Event;
use super::item::Item;
use super::line::{CONTROL, Waiting};
use super::options::Trouble;
use super::planted::Planted;
use super::replica::Replica;
use super::world::World;

impl World {
    /// Does all that the engine of a box asks for.
    pub fn drain_box(&mut self, slot: usize) {
        let told = self.told(slot);
        self.slots[slot].book.told_ms_max = self.slots[slot].book.told_ms_max.max(told);
        while self.goes_on()
            && let Some(effect) = self.slots[slot].replica.as_mut().and_then(|r| r.engine.poll_effect())
        {
            let name = name_of(&effect);
            self.do_effect(slot, name, |world| world.perform(slot, effect));
        }
        self.set_wake(slot);
        self.look(slot);
        self.look_at_rebuild(slot);
        self.tell_neighbours(slot);
    }

    /// Does what an engine asks for. The box may be to stop right before it, or after it.
    pub fn do_effect(&mut self, slot: usize, name: &str, perform: impl FnOnce(&mut Self)) {
        let stop = self.slots[slot].stop_at;
        self.slots[slot].stop_at = stop.and_then(|(left, after)| Some((u64::checked_sub(left, 1)?, after)));
        if stop != Some((0, false)) {
            perform(self);
        }
        if let Some((0, after)) = stop
            && self.slots[slot].replica.is_some()
        {
            self.crashed_at(format!("box {} {name}", if after { "after" } else { "before" }));
            let cut = self.slots[slot].cut;
            self.stop_box(slot, Some(cut));
            self.start_later(slot);
        }
    }

    fn perform(&mut self, slot: usize, effect: Effect) {
        self.note(format_args!("box {slot} {}", name_of(&effect)));
        match effect {
            Effect::Dial => {
                let (at, life) = (self.now + self.delay(), self.slots[slot].lives);
                self.at(at, Event::Connect { slot, life });
            }
            Effect::SendHello => {
                if let Some(mut hello) = self.hello(slot) {
                    if let Some(replica) = &mut self.slots[slot].replica {
                        replica.engine.say_ended(&mut hello);
                    }
                    self.send_up(slot, CONTROL, &Frame::Hello(Box::new(hello)));
                }
            }
            Effect::SendKeys => {
                // The first ones, under which all batches are sealed, and the newest that are kept.
                let mut versions = vec![1, self.slots[slot].words];
                versions.dedup();
                for version in versions {
                    let keys = Frame::Keys(Box::new(self.board.documents_at(version)));
                    self.send_up(slot, CONTROL, &keys);
                }
            }
            Effect::SendBatch { log, first } => self.send_batch(slot, log, first),
            Effect::Fetch(fetch) => {
                if let Some(stream) = self.open_stream(slot, Waiting::Fetch) {
                    self.send_up(slot, stream, &Frame::Fetch(fetch));
                }
            }
            Effect::StoreBatch(batch) => match &mut self.slots[slot].carried {
                // They share flushes.
                Some(carried) => carried.push(*batch),
                None => self.store_batch(slot, &batch),
            },
            Effect::KeepIdentity(text) => {
                self.keep_or_later(slot, Item::Identity(*text), true);
            }
            Effect::KeepKeys(keys) => self.slots[slot].words = self.board.version_of(&keys),
            Effect::Quarantine(_) => {}
            Effect::KeepReceipt { log, head, .. } => {
                self.ledger.promise(log, head);
                self.keep_or_later(slot, Item::Receipt { log, head }, true);
            }
            Effect::KeepShown(shown) => {
                self.keep_or_later(slot, Item::Shown(*shown), true);
            }
            Effect::KeepLoss { loss_counter, receipted } => {
                let lazily = self.planted == Some(Planted::LossKeptLazily);
                let item = Item::Loss { counter: loss_counter, receipted };
                if self.keep_or_later(slot, item, lazily) {
                    let (at, life) = (self.now + self.delay(), self.slots[slot].lives);
                    self.at(at, Event::LossKept { slot, life });
                } else if self.slots[slot].replica.is_some() {
                    self.stop_box(slot, None);
                    self.start_when_there_is_room(slot);
                }
            }
            Effect::Renew => self.renew(slot),
            Effect::Alarm(alarm) => self.alarm(slot, &alarm),
            Effect::Disconnect => self.lose_line(slot),
            Effect::FetchSnapshot(name) => self.fetch_snapshot(slot, name),
            // What is not kept is missing when it is to be loaded.
            Effect::KeepSnapshot(snapshot) => {
                self.keep(slot, Item::Root(snapshot.text().to_owned()));
            }
            Effect::KeepSnapshotPart(part) => self.keep_part(slot, part.sealed),
            Effect::LoadSnapshot(snapshot) => self.load_snapshot(slot, &snapshot),
            Effect::SendSnapshot(snapshot) => self.send_root(slot, &snapshot),
            Effect::SendSnapshotPart { root, number } => self.send_part(slot, root, number),
            Effect::SnapshotSafe { tier, root } => self.snapshot_safe(slot, tier, root),
        }
    }

    fn store_batch(&mut self, slot: usize, batch: &Batch) {
        let header = *batch.header();
        self.check_stored(slot, &header);
        let Some(replica) = &self.slots[slot].replica else { return };
        if !header.continues(&replica.store.held.peer_head(header.log)) {
            let (log, first) = (header.log, header.first);
            self.violate(format!("box {slot} stores batch {first} of {log}, which continues nothing"));
        }
        if self.keep(slot, Item::Peer(batch.clone())) {
            let told = self.told(slot);
            let applied = self.slots[slot].replica.as_mut().map(|replica| replica.apply_batch(batch, told));
            if let Some(Err(error)) = applied {
                self.violate(format!("box {slot}: {error:#}"));
            }
        } else if self.slots[slot].replica.is_some() {
            // No room. The engine counts on it, so the process starts again and asks again.
            self.stop_box(slot, None);
            self.start_when_there_is_room(slot);
        }
    }

    fn hello(&self, slot: usize) -> Option<Hello> {
        let replica = self.slots[slot].replica.as_ref()?;
        Some(Hello {
            protocol: PROTOCOL,
            school: self.board.school,
            identity: self.slots[slot].life.identity.clone(),
            loss_counter: replica.engine.loss_counter(),
            receipted: replica.engine.receipted(),
            have: replica.fold.sequences.clone(),
            manifest_version: replica.engine.manifest_version(),
            nonce: "00".repeat(16),
            software: "sim".into(),
            ended: EndedHashes::new(),
        })
    }

    fn send_batch(&mut self, slot: usize, log: LogName, first: u64) {
        let is_own = log.incarnation == self.slots[slot].life.name;
        let Some(replica) = &mut self.slots[slot].replica else { return };
        let batch = replica.store.held.batches_after(log, first.saturating_sub(1)).next();
        let Some(batch) = batch.filter(|batch| batch.header().first <= first).cloned() else {
            if !is_own {
                let told = self.told(slot);
                if let Some(replica) = &mut self.slots[slot].replica {
                    replica.engine.handle_batch_missing(log, told);
                }
                return;
            }
            return self.violate(format!("box {slot} is to send a batch that it does not hold"));
        };
        let (stopped, cannot_store) = (replica.stopped.contains(&log), replica.cannot_store);
        replica.sent.insert((log, first));
        // Of a revoked device the cloud has refused it, and it is not sent any more. A cloud that could not store is asked
        // with one batch of another log whether it can again.
        let waits = log.tier != Tier::Safety && !cannot_store && has_unsent_safety(replica);
        let starved = waits && !self.is_revoked(slot);
        if stopped {
            self.violate(format!("box {slot} sends {log}, of which the cloud has another history"));
        }
        if starved {
            self.violate(format!("box {slot} sends {log} while something of tier 0 waits"));
        }
        if is_own {
            let left = self.slots[slot].book.leave(batch.header());
            self.hold(left);
        } else {
            self.tally.counts.relayed += 1;
        }
        let frame = Frame::Batch(batch.bytes().to_vec());
        let twice = self.random.one_in(self.options.duplicate_one_in);
        let copies = if twice { &[Waiting::Reply(log), Waiting::Nobody][..] } else { &[Waiting::Reply(log)] };
        for waiting in copies {
            if let Some(stream) = self.open_stream(slot, *waiting) {
                self.send_up(slot, stream, &frame);
            }
        }
    }

    fn alarm(&mut self, slot: usize, alarm: &Alarm) {
        self.note(format_args!("box {slot} alarm {alarm:?}"));
        self.note_told(slot, alarm);
        match alarm {
            Alarm::CloudLost { log, .. } => {
                if !self.may_have_lost(*log) {
                    self.violate(format!("box {slot} says that the cloud lost {log}; it did not"));
                }
            }
            Alarm::CloudLostPeer { log, .. } => {
                // A batch that lies on a site which is down counts as shown, and lacks until that site is back.
                if !self.may_have_lost(*log) && !self.options.has(Trouble::Sites) {
                    self.violate(format!("box {slot} says that the cloud lost a peer's {log}; it did not"));
                }
            }
            Alarm::Unfillable { log, .. } => {
                if !self.may_have_lost(*log) {
                    self.violate(format!("box {slot} says that the cloud lost what it has pruned of {log}"));
                }
                self.tally.counts.unfillable += 1;
                self.stop_log(slot, *log);
            }
            Alarm::OwnLogElsewhere { log, .. } => self.own_log_elsewhere(slot, *log),
            Alarm::BadPeerBatch { log, reason } => {
                let lies = self.options.has(Trouble::Lies);
                if !lies && !self.contested.contains(&log.incarnation) {
                    self.violate(format!("box {slot} finds a batch of {log} wrong: {reason}"));
                }
            }
            Alarm::BadSnapshot { tier, reason } => self.bad_snapshot(slot, *tier, reason),
            Alarm::Refused(refusal) => {
                let passes = matches!(
                    refusal.code,
                    RefusalCode::Manifest
                        | RefusalCode::Storage
                        | RefusalCode::Fork
                        | RefusalCode::Chain
                        | RefusalCode::Unexpected
                );
                // On a line that stood when the board's word came, its batches are refused before the line is closed.
                let is_sent_away = refusal.code == RefusalCode::Identity && self.is_revoked(slot);
                if !passes && !is_sent_away {
                    self.violate(format!("box {slot} was refused {:?}: {}", refusal.code, refusal.text));
                }
            }
            Alarm::Stalled { .. } => {
                if self.healed_at.is_some_and(|healed| self.now >= healed + STALL_MS) {
                    self.violate(format!("box {slot} gets no receipt although everything is healed"));
                }
            }
            Alarm::NotServed { log, .. } => {
                if self.healed_at.is_some_and(|healed| self.now >= healed + STALL_MS) {
                    self.violate(format!("box {slot} does not get {log} although everything is healed"));
                }
            }
            Alarm::RevocationTakenBack { version } => {
                self.violate(format!(
                    "box {slot} says that manifest {version} takes back a revocation; none does"
                ));
            }
            Alarm::AppliedBeforeRevocation { log, held, .. } => {
                if *held <= self.counted_at(self.slots[slot].words, *log, *held) {
                    self.violate(format!("box {slot} says that {log} was applied too far; it was not"));
                }
            }
            Alarm::Incomplete => {}
        }
    }

    /// Whether the cloud may have shown less of a log than before.
    fn may_have_lost(&self, log: LogName) -> bool {
        self.ledger.losses > 0 || self.may_contradict() || self.contested.contains(&log.incarnation)
    }

    /// The cloud has another history of an own log, or more of it: nothing of it may be sent any more.
    pub fn own_log_elsewhere(&mut self, slot: usize, log: LogName) {
        if !self.contested.contains(&log.incarnation) {
            self.violate(format!("box {slot} finds its own {log} elsewhere; nobody else writes it"));
        }
        self.stop_log(slot, log);
    }

    fn stop_log(&mut self, slot: usize, log: LogName) {
        if let Some(replica) = &mut self.slots[slot].replica {
            replica.stopped.insert(log);
            replica.told.insert(log);
        }
    }
}

/// Whether a batch of tier 0 is sealed, has no receipt, and was not sent on the present connection.
fn has_unsent_safety(replica: &Replica) -> bool {
    let receipted = replica.engine.receipted();
    let batches = replica.store.held.sealed.iter().filter(|(log, _)| log.tier == Tier::Safety);
    batches.filter(|(log, _)| !replica.stopped.contains(log)).any(|(log, batches)| {
        let safe = receipted.get(log).map_or(0, |head| head.sequence);
        let mut headers = batches.iter().map(Batch::header);
        headers.any(|header| header.last > safe && !replica.sent.contains(&(*log, header.first)))
    })
}

const fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::Dial => "dials",
        Effect::SendHello => "sends hello",
        Effect::SendKeys => "sends keys",
        Effect::SendBatch { .. } => "sends a batch",
        Effect::Fetch(_) => "asks for a log",
        Effect::StoreBatch(_) => "stores a peer's batch",
        Effect::KeepIdentity(_) => "keeps an identity",
        Effect::KeepKeys(_) => "keeps key documents",
        Effect::Quarantine(_) => "puts a batch into quarantine",
        Effect::KeepReceipt { .. } => "keeps a receipt",
        Effect::KeepShown(_) => "keeps what the cloud says",
        Effect::KeepLoss { .. } => "keeps a loss",
        Effect::Renew => "begins a new incarnation",
        Effect::Alarm(_) => "tells people",
        Effect::Disconnect => "hangs up",
        Effect::FetchSnapshot(_) => "asks for a snapshot",
        Effect::KeepSnapshot(_) | Effect::KeepSnapshotPart(_) => "keeps a part of a snapshot",
        Effect::LoadSnapshot(_) => "begins with a snapshot",
        Effect::SendSnapshot(_) | Effect::SendSnapshotPart { .. } => "sends a part of a snapshot",
        Effect::SnapshotSafe { .. } => "notes a safe snapshot",
    }
}

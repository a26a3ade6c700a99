//! Replicas of one school on one LAN, sans-IO: who has told what it holds, what is asked of whom. What comes passes the
//! [uplink engine](crate::uplink) as if a courier had brought it; this engine only decides whom to ask and what to tell.
//!
//! Contract: after each `handle_*`, drain [`Neighbours::poll_effect`] until `None`. Heads are told only of what is
//! durable. There is a timer only while something that came could not be stored: nothing is done for nothing.
//!
//! **Invariant**: a log is asked of one neighbour at a time, and a tier waits while a more urgent one comes from it.
//! **Invariant**: what was asked for in vain is asked for again only when either side has moved, or storing had failed here.
//! **Invariant**: that a neighbour has something makes nothing safe (P2), and its word alone ends no incarnation.
//! Spec: `docs/spec/neighbours.md`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::ids::{Incarnation, LogName, Tier};
use crate::limits::VECTOR_LOGS_MAX;
use crate::planted::{Defect, is_planted};
use crate::vector::{Heads, LogHead};
use crate::wire::Fetch;

/// Wait until what could not be stored is asked for again, in milliseconds.
pub const STORE_AGAIN_MS: u64 = 60_000;

/// Names one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourId(pub u64);

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send news of these heads, with the identities of their writers that this neighbour has not been told.
    Tell {
        /// To whom.
        to: NeighbourId,
        /// What is durable here.
        heads: Heads,
    },
    /// Ask for the batches of a log, have them taken, then call [`Neighbours::handle_fetch_end`].
    Fetch {
        /// Whom.
        from: NeighbourId,
        /// What.
        fetch: Fetch,
    },
    /// A neighbour names a head of an own log that is not the present one. Unless a batch with it is held, ask for that
    /// batch: signed by the own key, it proves that this data was restored from a copy, or that a copy runs elsewhere.
    Question {
        /// Who.
        from: NeighbourId,
        /// Which log.
        log: LogName,
        /// What it names.
        head: LogHead,
    },
    /// A neighbour has another history of a peer's log: people must know. Said once.
    Differs {
        /// Who.
        from: NeighbourId,
        /// Which log.
        log: LogName,
    },
    /// It breaks the rules: close the connection.
    Disconnect(NeighbourId),
}

/// How a neighbour stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Changes that it holds and this replica lacks.
    pub lacking_here: u64,
    /// Changes of sealed batches that this replica holds and it lacks.
    pub lacking_there: u64,
    /// Own logs, up to where it holds them.
    pub own: BTreeMap<Tier, u64>,
}

#[derive(Debug, Default)]
struct Neighbour {
    /// What it has said it holds.
    said: Heads,
    /// What it was told.
    told: Heads,
    /// What is being asked of it, and from where on.
    asked: BTreeMap<LogName, u64>,
    /// What was asked for in vain: what it had said, and what was held.
    in_vain: BTreeMap<LogName, (LogHead, u64)>,
    questioned: BTreeMap<LogName, LogHead>,
    differs: BTreeSet<LogName>,
}

/// The engine.
#[derive(Debug)]
pub struct Neighbours {
    own: Incarnation,
    held: Heads,
    neighbours: BTreeMap<NeighbourId, Neighbour>,
    /// From this tier on the store takes nothing.
    refused_from: Option<Tier>,
    /// When what was asked for in vain is asked for again, although nobody has moved.
    again_at_ms: Option<u64>,
    /// The own logs are about to be written again under another name: nobody is told of them.
    is_renewing: bool,
    effects: VecDeque<Effect>,
}

fn sequence(heads: &Heads, log: LogName) -> u64 {
    heads.get(&log).map_or(0, |head| head.sequence)
}

impl Neighbours {
    /// Starts alone, with what is durable here.
    #[must_use]
    pub fn new(own: Incarnation, held: Heads) -> Self {
        let neighbours = BTreeMap::new();
        let effects = VecDeque::new();
        Self { own, held, neighbours, refused_from: None, again_at_ms: None, is_renewing: false, effects }
    }

    /// Returns the next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A neighbour has been greeted. It is told everything that is held.
    pub fn handle_greeted(&mut self, id: NeighbourId) {
        self.neighbours.insert(id, Neighbour::default());
        self.tell();
    }

    /// A connection is gone. What was asked of it is asked of others.
    pub fn handle_gone(&mut self, id: NeighbourId) {
        self.neighbours.remove(&id);
        self.effects.retain(|effect| effect.concerns() != id);
        self.ask();
    }

    /// A neighbour says what it holds.
    pub fn handle_news(&mut self, id: NeighbourId, heads: &Heads) {
        let Some(neighbour) = self.neighbours.get_mut(&id) else { return };
        neighbour.said.extend(heads);
        if neighbour.said.len() > VECTOR_LOGS_MAX {
            self.effects.push_back(Effect::Disconnect(id));
            return;
        }
        for (log, there) in heads {
            let here = self.held.get(log).copied().unwrap_or(LogHead::EMPTY);
            if log.incarnation == self.own {
                let is_new = neighbour.questioned.insert(*log, *there) != Some(*there);
                if is_new && *there != here && *there != LogHead::EMPTY {
                    self.effects.push_back(Effect::Question { from: id, log: *log, head: *there });
                }
            } else if there.sequence == here.sequence && there.hash != here.hash {
                let is_new = neighbour.differs.insert(*log);
                self.effects.extend(is_new.then_some(Effect::Differs { from: id, log: *log }));
            }
        }
        self.ask();
    }

    /// This is durable here now.
    pub fn handle_held(&mut self, held: &Heads) {
        if self.held != *held {
            self.held.clone_from(held);
            self.tell();
            self.ask();
        }
    }

    /// What was asked of a neighbour has come to its end, whole or not. What came of it has been told by
    /// [`Self::handle_held`] before.
    pub fn handle_fetch_end(&mut self, id: NeighbourId, log: LogName) {
        let here = sequence(&self.held, log);
        if let Some(neighbour) = self.neighbours.get_mut(&id)
            && neighbour.asked.remove(&log).is_some_and(|after| here <= after)
        {
            let said = neighbour.said.get(&log).copied().unwrap_or(LogHead::EMPTY);
            neighbour.in_vain.insert(log, (said, here));
        }
        self.ask();
    }

    /// From this tier on the store has no room; `None` when it takes all. While it has none, it is looked at again when
    /// [`Self::poll_timeout`] says.
    pub fn handle_room(&mut self, refused_from: Option<Tier>, now_ms: u64) {
        if refused_from.is_some() {
            self.look_again(now_ms);
        }
        if self.refused_from != refused_from {
            self.refused_from = refused_from;
            self.ask_in_vain();
        }
    }

    /// What came could not be stored, by no fault of the neighbour; before [`Self::handle_fetch_end`].
    pub fn handle_store_failed(&mut self, now_ms: u64) {
        self.look_again(now_ms);
    }

    fn look_again(&mut self, now_ms: u64) {
        self.again_at_ms.get_or_insert(now_ms.saturating_add(STORE_AGAIN_MS));
    }

    /// Returns when [`Self::handle_timeout`] is due, if ever. The room is looked at before.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<u64> {
        self.again_at_ms
    }

    /// The time has come that [`Self::poll_timeout`] named.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        // No wait is longer than the maximum: if it seems to be, the told time has jumped back.
        let is_due = |at_ms: &mut u64| *at_ms <= now_ms || *at_ms > now_ms.saturating_add(STORE_AGAIN_MS);
        if self.again_at_ms.take_if(is_due).is_some() {
            if self.refused_from.is_some() {
                self.look_again(now_ms);
            }
            self.ask_in_vain();
        }
    }

    fn ask_in_vain(&mut self) {
        self.neighbours.values_mut().for_each(|neighbour| neighbour.in_vain.clear());
        self.ask();
    }

    /// This incarnation ends: what only it has will be written again under another, and must not stand twice.
    pub fn handle_renewing(&mut self) {
        self.is_renewing = true;
    }

    /// Returns how a neighbour stands.
    #[must_use]
    pub fn standing(&self, id: NeighbourId) -> Option<Standing> {
        let said = &self.neighbours.get(&id)?.said;
        let lacking = |of: &Heads, in_: &Heads| -> u64 {
            of.iter().map(|(log, head)| head.sequence.saturating_sub(sequence(in_, *log))).sum()
        };
        let own = said.iter().filter(|(log, _)| log.incarnation == self.own);
        Some(Standing {
            lacking_here: lacking(said, &self.held),
            lacking_there: lacking(&self.held, said),
            own: own.map(|(log, head)| (log.tier, head.sequence)).collect(),
        })
    }

    fn tell(&mut self) {
        for (id, neighbour) in &mut self.neighbours {
            let is_news = |(log, head): &(&LogName, &LogHead)| {
                let told = neighbour.told.get(log);
                let is_told = told.is_some_and(|told| told == *head || is_planted(Defect::NeighbourToldOnce));
                let is_ending = self.is_renewing && log.incarnation == self.own;
                !is_told && !is_ending
            };
            let heads: Heads = self.held.iter().filter(is_news).map(|(log, head)| (*log, *head)).collect();
            if !heads.is_empty() {
                neighbour.told.extend(&heads);
                self.effects.push_back(Effect::Tell { to: *id, heads });
            }
        }
    }

    /// Asks each neighbour for what it has and this replica lacks.
    fn ask(&mut self) {
        let mut under_way: BTreeSet<LogName> = BTreeSet::new();
        self.neighbours.values().for_each(|neighbour| under_way.extend(neighbour.asked.keys()));
        for (id, neighbour) in &mut self.neighbours {
            // In tier order, so the first that may be asked for is the most urgent one.
            for (log, there) in &neighbour.said {
                let here = sequence(&self.held, *log);
                let waits = neighbour.asked.keys().any(|other| other.tier <= log.tier)
                    || self.refused_from.is_some_and(|from| log.tier >= from);
                let is_wanted = there.sequence > here
                    && log.incarnation != self.own
                    && neighbour.in_vain.get(log) != Some(&(*there, here));
                if waits || !is_wanted || !under_way.insert(*log) {
                    continue;
                }
                neighbour.asked.insert(*log, here);
                let fetch = Fetch { log: *log, after: here };
                self.effects.push_back(Effect::Fetch { from: *id, fetch });
            }
        }
    }
}

impl Effect {
    /// Returns the neighbour that it is about.
    const fn concerns(&self) -> NeighbourId {
        match self {
            Self::Tell { to: id, .. }
            | Self::Fetch { from: id, .. }
            | Self::Question { from: id, .. }
            | Self::Differs { from: id, .. }
            | Self::Disconnect(id) => *id,
        }
    }
}

#[cfg(test)]
#[path = "neighbours/tests.rs"]
mod tests;

//! Tests of neighbours: many replicas, any links, any order, links that break in mid-fetch; then what each has, how
//! often it was sent, and that a quiet LAN is quiet.

use std::collections::btree_map::Entry;

use super::*;
use crate::ids::Hash32;
use proptest::prelude::*;

fn incarnation(node: usize) -> Incarnation {
    Incarnation::from_bytes([u8::try_from(node).unwrap() + 1; 16])
}

fn log(node: usize, tier: Tier) -> LogName {
    LogName { tier, incarnation: incarnation(node) }
}

fn head(log: LogName, sequence: u64) -> LogHead {
    let mut hash = blake3::Hasher::new();
    hash.update(log.to_string().as_bytes()).update(&sequence.to_be_bytes());
    LogHead { sequence, hash: Hash32(*hash.finalize().as_bytes()) }
}

/// What is on its way between two replicas.
#[derive(Debug, Clone)]
enum Message {
    News(Heads),
    Ask(Fetch),
    /// Everything of a log from one change to another.
    Batches {
        log: LogName,
        after: u64,
        last: u64,
    },
}

/// A LAN without time: messages of one direction of a link keep their order.
struct Lan {
    nodes: Vec<(Neighbours, Heads)>,
    /// Link (from, to) with what is on its way; a link that is cut is not in it.
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
    /// Changes that were brought to somebody who had them.
    doubled: u64,
    moved: u64,
}

impl Lan {
    fn new(nodes: usize) -> Self {
        let nodes = (0..nodes).map(|node| (Neighbours::new(incarnation(node), Heads::new()), Heads::new()));
        Self { nodes: nodes.collect(), links: BTreeMap::new(), doubled: 0, moved: 0 }
    }

    /// The name of a link at one end is the node at the other.
    fn join(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if let Entry::Vacant(link) = self.links.entry((from, to)) {
                link.insert(VecDeque::new());
                self.nodes[from].0.handle_greeted(NeighbourId(to as u64));
                self.drain(from);
            }
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if self.links.remove(&(from, to)).is_some() {
                self.nodes[from].0.handle_gone(NeighbourId(to as u64));
            }
        }
        self.drain(a);
        self.drain(b);
    }

    fn write(&mut self, node: usize, tier: Tier) {
        let (engine, held) = &mut self.nodes[node];
        let log = log(node, tier);
        held.insert(log, head(log, sequence(held, log) + 1));
        engine.handle_held(held);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].0.poll_effect() {
            let to = usize::try_from(effect.concerns().0).unwrap();
            let message = match effect {
                Effect::Tell { heads, .. } => Message::News(heads),
                Effect::Fetch { fetch, .. } => Message::Ask(fetch),
                // Each is behind with the other's own log for a while; nothing is forked here.
                Effect::Question { head: named, log, .. } => {
                    assert_eq!(named, head(log, named.sequence));
                    continue;
                }
                Effect::Differs { .. } | Effect::Disconnect(_) => panic!("{effect:?}"),
            };
            if let Some(link) = self.links.get_mut(&(node, to)) {
                link.push_back(message);
            }
        }
    }

    /// Delivers the next message of one link. Returns whether there was one.
    fn deliver(&mut self, choice: usize) -> bool {
        let busy: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.is_empty()).map(|(ends, _)| *ends).collect();
        let Some((from, to)) = busy.get(choice % busy.len().max(1)).copied() else { return false };
        let message = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front).unwrap();
        let id = NeighbourId(from as u64);
        match message {
            Message::News(heads) => self.nodes[to].0.handle_news(id, &heads),
            Message::Ask(Fetch { log, after }) => {
                let last = sequence(&self.nodes[to].1, log);
                let back = self.links.get_mut(&(to, from)).unwrap();
                back.push_back(Message::Batches { log, after, last });
            }
            Message::Batches { log, after, last } => {
                let (engine, held) = &mut self.nodes[to];
                let here = sequence(held, log);
                assert!(here >= after, "what was asked for continues what is held");
                self.doubled += last.min(here) - after;
                self.moved += last - after;
                if last > here {
                    held.insert(log, head(log, last));
                }
                engine.handle_held(held);
                engine.handle_fetch_end(id, log);
            }
        }
        self.drain(to);
        true
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while self.deliver(steps) {
            steps += 1;
            assert!(steps < 100_000, "it never comes to rest");
        }
    }

    fn are_equal(&self) -> bool {
        self.nodes.windows(2).all(|pair| pair[0].1 == pair[1].1)
    }
}

/// Goal: a change gets from one end of a chain to the other, each link carries it once, and then nothing is said any
/// more. Method: five in a chain, writes at both ends.
#[test]
fn a_chain_passes_everything_on_once() {
    let mut lan = Lan::new(5);
    (0..4).for_each(|node| lan.join(node, node + 1));
    for tier in Tier::ALL {
        lan.write(0, tier);
        lan.write(4, tier);
    }
    lan.settle();
    assert!(lan.are_equal());
    assert_eq!((lan.doubled, lan.moved), (0, 4 * 2 * 3));
    let standing = lan.nodes[0].0.standing(NeighbourId(1)).unwrap();
    assert_eq!((standing.lacking_here, standing.lacking_there, standing.own[&Tier::Safety]), (0, 0, 1));
}

/// Goal: where everybody is linked with everybody no change is brought to anybody twice. Method: six, all linked,
/// writes while messages are on their way.
#[test]
fn a_mesh_brings_nothing_twice() {
    let mut lan = Lan::new(6);
    for a in 0..6 {
        (0..a).for_each(|b| lan.join(a, b));
    }
    for turn in 0..200 {
        lan.write(turn % 6, Tier::ALL[turn % 3]);
        (0..turn % 7).for_each(|choice| {
            lan.deliver(turn * 5 + choice);
        });
    }
    lan.settle();
    assert!(lan.are_equal());
    assert_eq!((lan.doubled, lan.moved), (0, 200 * 5));
}

/// Goal: tier 0 does not wait for tier 2 of the same neighbour, and tier 2 waits for tier 0. Method: look at what is
/// asked.
#[test]
fn the_urgent_tier_goes_first() {
    let mut engine = Neighbours::new(incarnation(0), Heads::new());
    let id = NeighbourId(7);
    let (archive, safety) = (log(1, Tier::Archive), log(1, Tier::Safety));
    let asked = |engine: &mut Neighbours| {
        let effects = std::iter::from_fn(|| engine.poll_effect());
        let fetch = |effect| if let Effect::Fetch { fetch, .. } = effect { Some(fetch.log) } else { None };
        effects.filter_map(fetch).collect::<Vec<_>>()
    };
    engine.handle_greeted(id);
    engine.handle_news(id, &Heads::from([(archive, head(archive, 9))]));
    assert_eq!(asked(&mut engine), [archive]);
    engine.handle_news(id, &Heads::from([(safety, head(safety, 2)), (log(2, Tier::Daily), head(safety, 3))]));
    assert_eq!(asked(&mut engine), [safety], "beside the archive, and before what is less urgent");
    let held = Heads::from([(safety, head(safety, 2))]);
    engine.handle_held(&held);
    engine.handle_fetch_end(id, safety);
    assert_eq!(asked(&mut engine), [log(2, Tier::Daily)]);
    // Nothing came of it: it is not asked for again before something moves.
    engine.handle_fetch_end(id, log(2, Tier::Daily));
    assert_eq!(asked(&mut engine), []);
    engine.handle_room(Some(Tier::Archive), 0);
    assert_eq!(asked(&mut engine), [log(2, Tier::Daily)]);
}

/// Goal: what could not be stored is asked for again although nobody moves, after a wait, and nothing is awaited for
/// nothing. Method: a fetch in vain with and without a failed store; the times; a clock that jumps back.
#[test]
fn what_was_not_stored_is_asked_for_again() {
    let mut engine = Neighbours::new(incarnation(0), Heads::new());
    let (id, daily) = (NeighbourId(7), log(1, Tier::Daily));
    let is_asked = |engine: &mut Neighbours| {
        std::iter::from_fn(|| engine.poll_effect()).any(|effect| matches!(effect, Effect::Fetch { .. }))
    };
    engine.handle_greeted(id);
    engine.handle_news(id, &Heads::from([(daily, head(daily, 9))]));
    assert!(is_asked(&mut engine));
    engine.handle_fetch_end(id, daily);
    assert_eq!((engine.poll_timeout(), is_asked(&mut engine)), (None, false));
    engine.handle_store_failed(1_000);
    assert_eq!(engine.poll_timeout(), Some(1_000 + STORE_AGAIN_MS));
    engine.handle_timeout(STORE_AGAIN_MS);
    assert!(!is_asked(&mut engine), "it is not due");
    engine.handle_timeout(1_000 + STORE_AGAIN_MS);
    assert_eq!((engine.poll_timeout(), is_asked(&mut engine)), (None, true));
    engine.handle_room(Some(Tier::Daily), 5_000_000);
    engine.handle_fetch_end(id, daily);
    engine.handle_timeout(0);
    assert_eq!((engine.poll_timeout(), is_asked(&mut engine)), (Some(STORE_AGAIN_MS), false), "no room");
    engine.handle_room(None, 0);
    assert!(is_asked(&mut engine));
    engine.handle_timeout(STORE_AGAIN_MS);
    assert_eq!(engine.poll_timeout(), None);
}

/// Goal: a head of an own log that is not the present one is questioned, once for each head; an ending incarnation is
/// not told of. Method: the effects.
#[test]
fn own_logs_are_questioned_and_never_asked_for() {
    let own = log(0, Tier::Safety);
    let mut engine = Neighbours::new(incarnation(0), Heads::from([(own, head(own, 5))]));
    let id = NeighbourId(1);
    engine.handle_greeted(id);
    assert!(matches!(engine.poll_effect(), Some(Effect::Tell { .. })));
    engine.handle_news(id, &Heads::from([(own, head(own, 5))]));
    assert_eq!(engine.poll_effect(), None);
    for there in
        [LogHead { sequence: 9, hash: Hash32([3; 32]) }, LogHead { sequence: 5, hash: Hash32([4; 32]) }]
    {
        let news = Heads::from([(own, there)]);
        engine.handle_news(id, &news);
        assert_eq!(engine.poll_effect(), Some(Effect::Question { from: id, log: own, head: there }));
        engine.handle_news(id, &news);
        assert_eq!(engine.poll_effect(), None);
    }
    engine.handle_renewing();
    engine.handle_held(&Heads::from([(own, head(own, 6))]));
    assert_eq!(engine.poll_effect(), None);
}

/// Goal: what a neighbour says is bounded, and another history of a peer's log is said once. Method: one log too many;
/// the same sequence with another hash.
#[test]
fn words_are_bounded_and_other_histories_are_told() {
    let peer = log(1, Tier::Daily);
    let mut engine = Neighbours::new(incarnation(0), Heads::from([(peer, head(peer, 3))]));
    let id = NeighbourId(1);
    engine.handle_greeted(id);
    drop(engine.poll_effect());
    let other = Heads::from([(peer, LogHead { sequence: 3, hash: Hash32([9; 32]) })]);
    engine.handle_news(id, &other);
    assert_eq!(engine.poll_effect(), Some(Effect::Differs { from: id, log: peer }));
    engine.handle_news(id, &other);
    assert_eq!(engine.poll_effect(), None);
    let flood = (0..=u16::try_from(VECTOR_LOGS_MAX).unwrap()).map(|number| {
        let mut name = [0; 16];
        name[..2].copy_from_slice(&number.to_be_bytes());
        let log = LogName { tier: Tier::Archive, incarnation: Incarnation::from_bytes(name) };
        (log, head(log, 1))
    });
    engine.handle_news(id, &flood.collect());
    assert_eq!(engine.poll_effect(), Some(Effect::Disconnect(id)));
    assert_eq!(engine.poll_effect(), None, "nothing is asked of it");
}

proptest! {
    /// Goal: whatever is written, delivered, cut and joined in whatever order, once all are linked again everybody has
    /// everything. Method: random steps, then a ring.
    #[test]
    fn any_order_ends_equal(steps in proptest::collection::vec((0_usize..8, any::<u16>()), 0..400)) {
        let mut lan = Lan::new(4);
        for (kind, choice) in steps {
            let choice = usize::from(choice);
            let (a, b) = (choice % 4, choice / 4 % 4);
            match kind {
                0 => lan.write(a, Tier::ALL[b % 3]),
                1 if a != b => lan.join(a, b),
                2 if a != b => lan.cut(a, b),
                _ => {
                    lan.deliver(choice);
                }
            }
        }
        (0..4).for_each(|node| lan.join(node, (node + 1) % 4));
        lan.settle();
        prop_assert!(lan.are_equal());
    }
}

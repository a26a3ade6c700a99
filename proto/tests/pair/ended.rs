//! Incarnations that have ended travel as one hash of their device where both sides hold the same, and are named in full
//! where they do not. The completed welcome is the one that a node without the hashes would have sent.

use std::collections::BTreeSet;

use sonae_proto::batch::Batch;
use sonae_proto::ended::EndedHashes;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{Hash32, Incarnation, Tier};
use sonae_proto::uplink::{Alarm, CarriedBatch, Effect, RELAY_MS};
use sonae_proto::vector::{LogHead, Sequences};
use sonae_proto::wire::{Fetch, Frame, Hello, RefusalCode, Welcome};

use crate::board::{Life, school};
use crate::desk::Desk;
use crate::receipts::effects;
use crate::replica::{Disk, Replica};

/// A device that has begun anew once, a node that has what both lives wrote, and a replica of `life` that holds it too.
struct Scene {
    desk: Desk,
    old: Life,
    new: Life,
    chain: Vec<Batch>,
    replica: Replica,
}

/// Whose replica it is that greets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    /// The device that has begun anew.
    Own,
    /// Another device of the school.
    Peers,
}

const BOTH: [Whose; 2] = [Whose::Own, Whose::Peers];

impl Scene {
    fn new(whose: Whose) -> Self {
        let (mut desk, old) = Desk::ready();
        let new = desk.board.begin(&old, 11, Beginning::Restored);
        let chain = desk.board.chain(&old, Tier::Safety, 3);
        desk.greet(2, &new, 0);
        for batch in &chain {
            desk.offer(1, batch);
        }
        desk.store_all(2);
        let peer = desk.board.enrol(school(), 20);
        let life = if whose == Whose::Own { new.clone() } else { peer };
        desk.greet(3, &life, 0);
        desk.store_all(2);
        let mut replica = Replica::new(&desk.board, life, Disk::default(), 1);
        replica.engine.handle_carried_identities(&[old.identity.clone(), new.identity.clone()]);
        for batch in &chain {
            assert_eq!(replica.engine.handle_carried_batch(batch.clone()), CarriedBatch::Taken);
        }
        effects(&mut replica);
        Self { desk, old, new, chain, replica }
    }

    /// The hello of the next connection.
    fn hello(&mut self) -> Hello {
        let engine = &mut self.replica.engine;
        engine.handle_disconnected(1_000);
        engine.handle_timeout(u64::MAX);
        engine.handle_connected();
        let mut hello = Desk::hello(&self.replica.life, engine.loss_counter());
        let held = engine.peer_heads().iter().map(|(log, head)| (*log, head.sequence));
        hello.have = held.collect();
        engine.say_ended(&mut hello);
        effects(&mut self.replica);
        hello
    }

    fn ask(&mut self, hello: &Hello) -> Welcome {
        match self.desk.say(4, &self.replica.life.tls_key, hello) {
            Frame::Welcome(welcome) => *welcome,
            other => panic!("{other:?}"),
        }
    }

    /// Takes a welcome and returns what the engine asks for.
    fn take(&mut self, welcome: &Welcome) -> Vec<Effect> {
        self.replica.engine.handle_welcome(welcome, 2_000);
        effects(&mut self.replica)
    }

    /// Greets, and takes the answer.
    fn greet(&mut self) -> (Welcome, Vec<Effect>) {
        let hello = self.hello();
        let welcome = self.ask(&hello);
        let told = self.take(&welcome);
        (welcome, told)
    }

    /// The node begins again with sites that have kept so many batches of the old life.
    fn lose_all_but(&mut self, count: usize) {
        let lost = std::mem::replace(&mut self.desk, Desk::new());
        let intake = lost.board.intake(2, 2);
        self.desk = Desk::with(lost.board, intake);
        self.desk.greet(1, &self.old, 0);
        self.desk.keys(1, &self.desk.board.documents());
        self.desk.greet(2, &self.new, 0);
        for batch in &self.chain[..count] {
            self.desk.offer(1, batch);
        }
        self.desk.store_all(2);
    }

    fn old_head(&self) -> LogHead {
        self.chain[2].header().head()
    }
}

fn named(welcome: &Welcome) -> BTreeSet<Incarnation> {
    let verified = |text: &sonae_proto::identity::IdentityText| {
        text.verify(&crate::board::Board::new(1).root.verifying_key(), school()).unwrap().name()
    };
    welcome.identities.iter().map(verified).chain(welcome.heads.keys().map(|log| log.incarnation)).collect()
}

/// Goal: what both hold of ended lives is named by neither, and nothing is fetched, alarmed or forgotten. Method: the
/// device itself and a peer; the completed welcome is compared with the answer to a hello without hashes.
#[test]
fn what_both_hold_is_left_out() {
    for whose in BOTH {
        let mut scene = Scene::new(whose);
        let log = scene.old.log(Tier::Safety);
        let hello = scene.hello();
        assert_eq!(hello.ended.len(), 1);
        assert_eq!(hello.have, Sequences::new(), "the hash stands for it");
        let welcome = scene.ask(&hello);
        assert!(!named(&welcome).contains(&scene.old.name) && named(&welcome).contains(&scene.new.name));
        let full = scene.ask(&Hello { ended: EndedHashes::new(), ..hello });
        assert!(named(&full).contains(&scene.old.name));
        let completed = scene.replica.engine.complete(&welcome).into_owned();
        assert_eq!((&completed.heads, named(&completed)), (&full.heads, named(&full)));
        let told = scene.take(&welcome);
        let is_quiet = |effect: &Effect| matches!(effect, Effect::KeepIdentity(_) | Effect::SendKeys);
        assert!(told.iter().all(is_quiet), "{whose:?}: {told:?}");
        assert_eq!(scene.replica.engine.cloud_heads()[&log], scene.old_head());
        assert!(scene.replica.engine.has_all_of_peers());
    }
}

/// Goal: a welcome that answers another hello says nothing. Method: the answer to the hello before.
#[test]
fn an_old_welcome_is_not_taken() {
    let mut scene = Scene::new(Whose::Peers);
    let hello = Hello { nonce: "11".repeat(16), ..scene.hello() };
    let old = scene.ask(&hello);
    assert_eq!(scene.take(&old), [Effect::Disconnect]);
    assert!(!scene.replica.engine.is_up());
}

/// Goal: a cloud that has lost the tail of an ended log is told of, by the device that wrote it and by a peer, as if
/// there were no hashes; and the tail is brought back. Method: it loses one batch of three after a greeting that left
/// them out, then all of them.
#[test]
fn a_lost_tail_of_an_ended_log_is_told() {
    for (whose, left) in BOTH.into_iter().flat_map(|whose| [(whose, 2), (whose, 0)]) {
        let mut scene = Scene::new(whose);
        scene.replica.engine.set_relay();
        let log = scene.old.log(Tier::Safety);
        assert!(scene.greet().0.heads.is_empty());
        scene.lose_all_but(left);
        let (welcome, told) = scene.greet();
        assert_eq!(welcome.ended, EndedHashes::new());
        let has = scene.chain[..left].last().map_or(0, |batch| batch.header().last);
        assert_eq!(welcome.heads.get(&log).map_or(0, |head| head.sequence), has);
        let alarm = Effect::Alarm(Alarm::CloudLostPeer { log, had: 6, has });
        assert!(told.contains(&alarm), "{whose:?}, {left} left: {told:?}");
        scene.replica.engine.handle_timeout(2_000 + 2 * RELAY_MS);
        assert!(effects(&mut scene.replica).contains(&Effect::SendBatch { log, first: has + 1 }));
    }
}

/// Goal: what a copy still writes under an ended life reaches everybody, and a fork of it is refused as ever. Method:
/// after a greeting that left it out, the node takes one more batch of the old life, then is offered another branch.
#[test]
fn what_a_zombie_writes_is_named() {
    for whose in BOTH {
        let mut scene = Scene::new(whose);
        let log = scene.old.log(Tier::Safety);
        scene.greet();
        let more = scene.desk.board.seal(&scene.old, Tier::Safety, scene.old_head(), &[b"{}".to_vec()]);
        let other = scene.desk.board.seal(&scene.old, Tier::Safety, scene.old_head(), &[b"{}".to_vec()]);
        scene.desk.offer(1, &more);
        scene.desk.store_all(2);
        let (welcome, told) = scene.greet();
        assert_eq!(welcome.heads[&log], more.header().head());
        assert!(told.contains(&Effect::Fetch(Fetch { log, after: 6 })), "{told:?}");
        scene.replica.engine.handle_fetched(more.clone());
        scene.replica.engine.handle_fetch_end();
        effects(&mut scene.replica);
        assert_eq!(scene.greet().0.heads.get(&log), None, "both hold it again");
        let refused = scene.desk.offer(1, &other);
        assert_eq!(scene.desk.refusal(refused), Some(RefusalCode::Fork));
    }
}

/// Goal: two histories of an ended log of one length are noticed. Method: the node has another third batch than the
/// replica, which was welcomed with its own before.
#[test]
fn another_history_of_an_ended_log_is_noticed() {
    let mut scene = Scene::new(Whose::Peers);
    let log = scene.old.log(Tier::Safety);
    scene.greet();
    scene.lose_all_but(2);
    let after = scene.chain[1].header().head();
    let lines = [b"{}".to_vec(), b"{}".to_vec()];
    let other = scene.desk.board.seal(&scene.old, Tier::Safety, after, &lines);
    scene.desk.offer(1, &other);
    scene.desk.store_all(2);
    let (welcome, told) = scene.greet();
    assert_eq!(welcome.heads[&log], other.header().head());
    let is_it = |effect: &Effect| matches!(effect, Effect::Alarm(Alarm::BadPeerBatch { log: named, .. }) if *named == log);
    assert!(told.iter().any(is_it), "{told:?}");
}

/// Goal: what a side cannot know to have ended is named. Method: a replica that has not heard of the new life, and a node
/// that has not.
#[test]
fn an_identity_that_one_side_lacks_leaves_nothing_out() {
    let mut scene = Scene::new(Whose::Peers);
    let (life, board) = (scene.replica.life.clone(), &scene.desk.board);
    scene.replica = Replica::new(board, life, Disk::default(), 1);
    scene.replica.engine.handle_carried_identities(std::slice::from_ref(&scene.old.identity));
    assert_eq!(scene.hello().ended, EndedHashes::new());

    let mut scene = Scene::new(Whose::Peers);
    let (mut young, _) = Desk::ready();
    std::mem::swap(&mut young, &mut scene.desk);
    let hello = scene.hello();
    assert_eq!(hello.ended.len(), 1);
    let welcome = scene.ask(&hello);
    assert_eq!(welcome.ended, EndedHashes::new());
    assert!(named(&welcome).contains(&scene.old.name));
}

/// Goal: versions that do not know the field meet without it. Method: an older box says no hashes; an older node reads
/// the new hello as JSON with one key more, and answers in full; neither writes the key where it has nothing to say.
#[test]
fn older_versions_say_all() {
    let mut scene = Scene::new(Whose::Peers);
    let hello = scene.hello();
    let older = Hello { ended: EndedHashes::new(), ..hello.clone() };
    let text = String::from_utf8(Frame::Hello(Box::new(older.clone())).to_bytes().unwrap()).unwrap();
    assert!(!text.contains("\"ended\""));
    let full = scene.ask(&older);
    let text = String::from_utf8(Frame::Welcome(Box::new(full.clone())).to_bytes().unwrap()).unwrap();
    assert!(!text.contains("\"ended\""));
    assert!(named(&full).contains(&scene.old.name));
    // The older node has not looked at the hash, so the new box takes its words as they are.
    assert_eq!(*scene.replica.engine.complete(&full), full);
    scene.take(&full);
    assert!(scene.replica.engine.has_all_of_peers());
}

/// Goal: what comes between hello and welcome by another way does not pass for what the cloud has. Method: a courier
/// brings one more batch of the old life; the cloud's head stays, and the batch is brought to it.
#[test]
fn what_comes_meanwhile_is_not_the_clouds() {
    let mut scene = Scene::new(Whose::Peers);
    scene.replica.engine.set_relay();
    let log = scene.old.log(Tier::Safety);
    let hello = scene.hello();
    let welcome = scene.ask(&hello);
    let more = scene.desk.board.seal(&scene.old, Tier::Safety, scene.old_head(), &[b"{}".to_vec()]);
    assert_eq!(scene.replica.engine.handle_carried_batch(more), CarriedBatch::Taken);
    let later = scene.desk.board.begin(&scene.new, 12, Beginning::Restored);
    scene.replica.engine.handle_carried_identities(std::slice::from_ref(&later.identity));
    scene.take(&welcome);
    assert_eq!(scene.replica.engine.cloud_heads()[&log], scene.old_head());
    scene.replica.engine.handle_timeout(2_000 + 2 * RELAY_MS);
    assert!(effects(&mut scene.replica).contains(&Effect::SendBatch { log, first: 7 }));
}

/// Goal: what a node leaves out without having shown that it holds it counts as lost. Method: a proof that is none, that
/// of an earlier greeting, and one that the node has given no reason for.
#[test]
fn what_is_left_out_without_a_proof_counts_as_lost() {
    for whose in BOTH {
        let mut scene = Scene::new(whose);
        let log = scene.old.log(Tier::Safety);
        let hello = scene.hello();
        let mut earlier = scene.ask(&Hello { nonce: "an earlier one".into(), ..hello.clone() });
        let good = scene.ask(&hello);
        assert_ne!(earlier.ended, good.ended);
        scene.take(&good);
        let hello = scene.hello();
        let good = scene.ask(&hello);
        let mut invented = good.clone();
        invented.ended.values_mut().for_each(|proof| *proof = Hash32([7; 32]));
        let said = Welcome { ended: hello.ended, ..good.clone() };
        earlier.nonce.clone_from(&good.nonce);
        for bad in [&invented, &said, &earlier] {
            assert_eq!(scene.replica.engine.complete(bad).heads.get(&log), None);
        }
        let told = scene.take(&invented);
        let alarm = Effect::Alarm(Alarm::CloudLostPeer { log, had: 6, has: 0 });
        assert!(told.contains(&alarm), "{told:?}");
    }
}

/// Goal: a clock that went back costs bytes and nothing else. Method: the present life passes for the ended one; with and
/// without a batch that the cloud lacks.
#[test]
fn a_present_life_that_passes_for_ended_goes_on() {
    let mut scene = Scene::new(Whose::Peers);
    let log = scene.old.log(Tier::Safety);
    let more = scene.desk.board.seal(&scene.old, Tier::Safety, scene.old_head(), &[b"{}".to_vec()]);
    let (chain, safe) = (scene.chain.clone(), scene.old_head());
    let sealed = [(log, chain)].into();
    let disk = Disk { sealed, receipted: [(log, safe)].into(), ..Disk::default() };
    for is_left_out in [true, false] {
        let life = scene.old.clone();
        let mut replica = Replica::new(&scene.desk.board, life.clone(), disk.clone(), 1);
        if !is_left_out {
            replica.engine.handle_sealed(more.header(), 0);
        }
        replica.engine.handle_carried_identities(std::slice::from_ref(&scene.new.identity));
        replica.engine.handle_timeout(u64::MAX);
        replica.engine.handle_connected();
        let mut hello = Desk::hello(&life, 0);
        replica.engine.say_ended(&mut hello);
        effects(&mut replica);
        let Frame::Welcome(welcome) = scene.desk.say(4, &life.tls_key, &hello) else { panic!() };
        assert_eq!(welcome.heads.contains_key(&log), !is_left_out);
        assert!(replica.engine.complete(&welcome).identities.contains(&life.identity));
        replica.engine.handle_welcome(&welcome, 2);
        let told = effects(&mut replica);
        assert!(!told.iter().any(|effect| matches!(effect, Effect::Alarm(_))), "{told:?}");
        let sends = told.contains(&Effect::SendBatch { log, first: 7 });
        assert_eq!(sends, !is_left_out, "{told:?}");
        assert_eq!(replica.engine.receipted()[&log], safe);
    }
}

/// Bytes of hello and welcome of a device with so many ended lives, each of which has written in all tiers: in full, and
/// with hashes.
fn bytes(ended: u8) -> [(usize, usize); 2] {
    let (mut desk, old) = Desk::ready();
    let new = desk.board.begin(&old, 11, Beginning::Restored);
    let begin =
        |number: u8| desk.board.begin_at(&old, 30 + number, Beginning::Restored, 1_000 + u64::from(number));
    let mut lives: Vec<Life> = [old.clone(), new].into_iter().chain((2..=ended).map(begin)).collect();
    let present = lives.pop().unwrap();
    let mut replica = Replica::new(&desk.board, present.clone(), Disk::default(), 1);
    for life in &lives {
        desk.greet(5, life, 0);
        replica.engine.handle_carried_identities(std::slice::from_ref(&life.identity));
        for tier in Tier::ALL {
            let batch = desk.board.seal_fast(life, tier, LogHead::EMPTY, b"{}\n");
            desk.offer(5, &batch);
            assert_eq!(replica.engine.handle_carried_batch(batch), CarriedBatch::Taken);
        }
        desk.store_all(2);
    }
    let held = replica.engine.peer_heads().iter().map(|(log, head)| (*log, head.sequence));
    let full = Hello { have: held.collect(), ..Desk::hello(&present, 0) };
    let mut short = full.clone();
    replica.engine.say_ended(&mut short);
    [full, short].map(|hello| {
        let answer = desk.say(6, &present.tls_key, &hello);
        [Frame::Hello(Box::new(hello)), answer].map(|frame| frame.to_bytes().unwrap().len()).into()
    })
}

/// Goal: greetings do not grow with the lives that a device has had. Method: 1, 10 and 100 that have ended; the figures
/// of decision 0031 are printed.
#[test]
fn greetings_do_not_grow_with_ended_lives() {
    let [one, ten, hundred] = [1, 10, 100].map(|ended| {
        let [full, short] = bytes(ended);
        println!("{ended} ended: hello {} -> {}, welcome {} -> {}", full.0, short.0, full.1, short.1);
        [full, short]
    });
    assert!(hundred[0].1 - ten[0].1 > 90 * 1_000, "named in full they take as much as before");
    // Times of one and of four digits.
    for short in [one[1], ten[1]] {
        assert!(hundred[1].0.abs_diff(short.0) < 16 && hundred[1].1.abs_diff(short.1) < 16, "{short:?}");
    }
    assert!(hundred[1].0 + hundred[1].1 < hundred[0].1 / 20);
}

//! Bundles that a courier carries, tampered with on the way: read by a box as `edge/src/courier/import.rs` does, and
//! by a node as `cloud/src/courier/session.rs` does, with the real decoder and the real engines.

use std::collections::BTreeSet;

use anyhow::Result;
use sonae_proto::batch::Batch;
use sonae_proto::courier::{
    CloudOpening, CourierError, Decoder, Encoder, FORMAT, Opening, Origin, Record, ReplicaOpening,
};
use sonae_proto::ids::LogName;
use sonae_proto::uplink::{CarriedBatch, CarriedReceipt};
use sonae_proto::vector::{Heads, Sequences};
use sonae_proto::wire::Frame;

use super::appliance::{Appliance, Kept};
use super::boxes::{Times, batches, holds_foreign, own_heads};
use super::carried::alter;
use super::cloud::Cloud;
use super::history::History;
use super::judge::Facts;
use super::options::{Mutation, Options};
use super::proxy::welcome;
use super::signal::Signal;
use super::{encode_whole, is_expected};
use crate::random::Random;

/// The connection of a courier.
const CONNECTION: u64 = 77;

/// A bundle that was tampered with.
struct Carried {
    bytes: Vec<u8>,
    done: BTreeSet<Mutation>,
    notes: Vec<String>,
    /// A record was altered that is not the last of its log, or altered in itself.
    material: bool,
}

/// Puts a bundle together and alters it: its records, or the bytes of the file.
fn carry(
    history: &History,
    options: &Options,
    opening: &Opening,
    mut records: Vec<Record>,
    span: (usize, usize),
) -> Result<Carried> {
    let mut random = Random::new(options.seed, "adversary bundle");
    let (mut done, mut notes, mut material) = (BTreeSet::new(), Vec::new(), false);
    let mut opening = opening.clone();
    let mut raw = Vec::new();
    for mutation in &options.mutations {
        if matches!(mutation, Mutation::Flip | Mutation::Drop) && random.one_in(3) {
            raw.push(*mutation);
        } else if *mutation == Mutation::CrossSchool && random.one_in(6) {
            opening.school = history.board.other.code;
            done.insert(*mutation);
            notes.push("CrossSchool: the opening".to_owned());
        } else if let Some((what, contradicts)) = alter(history, *mutation, &mut records, &mut random, span)?
        {
            done.insert(*mutation);
            material |= contradicts;
            notes.push(format!("{mutation:?}: {what}"));
        }
    }
    let mut bytes = encode(&opening, &records)?;
    for mutation in raw {
        let at = random.index(bytes.len());
        if mutation == Mutation::Flip {
            bytes[at] ^= 1 << random.index(8);
        } else {
            bytes.truncate(at);
        }
        done.insert(mutation);
        material = true;
        notes.push(format!("{mutation:?}: byte {at} of the file"));
    }
    Ok(Carried { bytes, done, notes, material })
}

fn encode(opening: &Opening, records: &[Record]) -> Result<Vec<u8>> {
    let (mut encoder, mut bytes) = Encoder::start(opening)?;
    for record in records {
        bytes.extend_from_slice(&encoder.record(record)?);
    }
    bytes.extend_from_slice(&encoder.finish().0);
    Ok(bytes)
}

/// Reads a file in pieces; `take` says whether to go on.
fn read(bytes: &[u8], mut take: impl FnMut(Record) -> bool) -> Option<Signal> {
    let mut decoder = Decoder::default();
    let stop = |error: &CourierError| match error {
        CourierError::Magic | CourierError::Format { .. } => Signal::BundleRefused,
        CourierError::Damaged { .. }
        | CourierError::Cut { .. }
        | CourierError::Order { .. }
        | CourierError::Count { .. } => Signal::BundleCut,
    };
    for piece in bytes.chunks(1_000) {
        decoder.feed(piece);
        loop {
            match decoder.poll() {
                Ok(Some(record)) => {
                    if !take(record) {
                        return Some(Signal::BundleRefused);
                    }
                }
                Ok(None) => break,
                Err(error) => return Some(stop(&error)),
            }
        }
    }
    decoder.finish().err().map(|error| stop(&error))
}

fn documents(history: &History, now: usize) -> Vec<Record> {
    let heads = history.heads_at(now);
    let writes = |life: &super::board::Life| heads.keys().any(|log| log.incarnation == life.name);
    let mut records = vec![Record::Keys(Box::new(history.board.school.documents(1)))];
    let identities = history.lives.iter().filter(|life| writes(life));
    records.extend(identities.map(|life| Record::Identity(Box::new(life.identity.clone()))));
    records
}

pub(crate) fn into_box(history: &History, options: &Options) -> Result<Facts> {
    let times = Times::of(history, options);
    let life = history.lives[0].clone();
    let (seen, now) = (history.heads_at(times.seen), history.heads_at(times.now));
    let held = history.heads_at(times.held);
    let kept = Kept {
        batches: batches(history, &now, &held),
        receipted: own_heads(history, &seen),
        loss_counter: u64::from(options.mutations.contains(&Mutation::OldReceipt)),
        epoch: 0,
        ..Kept::default()
    };
    let mut victim = Appliance::start(history, life.clone(), kept)?;
    let is_missed = |batch: &&Batch| {
        let (log, last) = (batch.header().log, batch.header().last);
        log.incarnation != life.name && held.get(&log).is_none_or(|head| last > head.sequence)
    };
    let all = history.batches_up_to(&now);
    let mut records = documents(history, times.now);
    let newest = own_heads(history, &now);
    let own = newest.iter().filter(|(log, head)| seen.get(*log) != Some(*head));
    let receipts = own.filter_map(|(log, head)| history.receipts.get(&(*log, head.sequence)));
    // Under a raised counter the honest cloud would have signed anew; the adversary has the old ones only.
    records.extend(receipts.cloned().map(Record::Receipt));
    records.extend(all.iter().filter(is_missed).map(|batch| Record::Batch(batch.bytes().to_vec())));
    let cloud = CloudOpening { to: life.name, heads: now.clone(), complete: true };
    let carried =
        carry(history, options, &opening(history, Origin::Cloud(cloud)), records, (times.held, times.now))?;
    let (stop, is_known) = import(history, &mut victim, &carried.bytes);
    victim.signals.extend(stop);
    victim.drain();
    let honest = history.cloud_at(times.now);
    let raised = victim.engine.receipted().into_iter().filter(|(log, head)| seen.get(log) != Some(head));
    let mut facts = Facts {
        exact: victim.state() == history.state_of(&all)?,
        // What is held already is not looked at, so it may have been altered.
        must_say: carried.material && !is_known,
        kept_foreign: holds_foreign(history, &victim),
        // The cloud that has lost something has none of what was receipted before.
        false_safe: raised
            .into_iter()
            .any(|(_, head)| victim.engine.loss_counter() > 0 || !honest.holds(head)),
        done: carried.done,
        notes: [carried.notes, victim.notes.clone()].concat(),
        ..Facts::default()
    };
    let unreceipted = victim.engine.receipted() != newest && options.mutations.is_empty();
    if victim.missing(&now) > 0 && is_expected() {
        facts.signals.insert(Signal::Witness);
    }
    facts.exact &= !unreceipted;
    facts.signals.extend(victim.signals.iter().copied());
    Ok(facts)
}

fn opening(history: &History, from: Origin) -> Opening {
    Opening {
        format: FORMAT.into(),
        school: history.board.school.code,
        made_ms: 1,
        software: "adversary".into(),
        from,
    }
}

/// As a box imports. Returns also whether some batch was known already.
fn import(history: &History, victim: &mut Appliance<'_>, bytes: &[u8]) -> (Option<Signal>, bool) {
    let mut is_known = false;
    let stop = read(bytes, |record| {
        match record {
            Record::Opening(opening) => return opening.school == history.board.school.code,
            Record::Batch(bytes) => match Batch::from_bytes(bytes) {
                Ok(batch) => match victim.engine.handle_carried_batch(batch) {
                    CarriedBatch::Taken => {}
                    CarriedBatch::Known => is_known = true,
                    CarriedBatch::Early { .. } => drop(victim.signals.insert(Signal::BatchEarly)),
                    CarriedBatch::Refused(_) | CarriedBatch::Quarantined | CarriedBatch::Dropped => {
                        victim.signals.insert(Signal::BatchRefused);
                    }
                },
                Err(_) => drop(victim.signals.insert(Signal::BatchRefused)),
            },
            Record::Identity(identity) => victim.engine.handle_carried_identities(&[*identity]),
            Record::Keys(keys) => victim.take_documents(*keys),
            Record::Receipt(bytes) => match victim.engine.handle_carried_receipt(bytes, 1) {
                CarriedReceipt::Moved | CarriedReceipt::Known | CarriedReceipt::Foreign => {}
                CarriedReceipt::Outdated | CarriedReceipt::Refused => {
                    victim.signals.insert(Signal::ReceiptRefused);
                }
            },
            Record::End(_) | Record::Unknown(_) => {}
        }
        victim.drain();
        true
    });
    (stop, is_known)
}

pub(crate) fn into_node(history: &History, options: &Options) -> Result<Facts> {
    let times = Times::of(history, options);
    let life = history.lives[0].clone();
    let (held, now) = (history.heads_at(times.held), history.heads_at(times.now));
    let mut cloud = history.cloud_at(times.held);
    let all = history.batches_up_to(&now);
    let is_new =
        |batch: &&Batch| held.get(&batch.header().log).is_none_or(|head| batch.header().last > head.sequence);
    let mut records = documents(history, times.now);
    records.extend(all.iter().filter(is_new).map(|batch| Record::Batch(batch.bytes().to_vec())));
    let replica = ReplicaOpening {
        identity: life.identity.clone(),
        loss_counter: 0,
        receipted: Heads::new(),
        have: Sequences::new(),
        manifest_version: 2,
    };
    let origin = Origin::Replica(Box::new(replica));
    let carried = carry(history, options, &opening(history, origin), records, (times.held, times.now))?;
    let mut signals = BTreeSet::new();
    let stop = offer(history, &mut cloud, &carried.bytes, &mut signals);
    signals.extend(stop);
    let heads = cloud.heads(&history.board);
    let mut facts = Facts {
        exact: heads == now,
        must_say: carried.material,
        kept_foreign: stores_foreign(history, &cloud) || !cloud.is_chained(&heads),
        done: carried.done,
        notes: carried.notes,
        signals,
        ..Facts::default()
    };
    if heads != now && is_expected() {
        facts.signals.insert(Signal::Witness);
    }
    Ok(facts)
}

/// Whether a batch of the school lies at the sites that nobody sealed.
fn stores_foreign(history: &History, cloud: &Cloud) -> bool {
    let mut records = cloud.objects.iter().flat_map(|(_, bytes)| sonae_proto::object::records(bytes).0);
    records.any(|record| {
        Batch::from_bytes(record.body.to_vec()).is_ok_and(|batch| {
            batch.header().school == history.board.school.code && !history.is_genuine(record.body)
        })
    })
}

/// As a node reads a bundle.
fn offer(
    history: &History,
    cloud: &mut Cloud,
    bytes: &[u8],
    signals: &mut BTreeSet<Signal>,
) -> Option<Signal> {
    let mut offered: Option<std::collections::BTreeMap<LogName, u64>> = None;
    let mut stopped: BTreeSet<LogName> = BTreeSet::new();
    let board = history.board.root.verifying_key();
    let mut peers = CONNECTION;
    read(bytes, |record| {
        match record {
            Record::Opening(opening) => {
                let Origin::Replica(replica) = &opening.from else { return false };
                let Ok(identity) = replica.identity.verify(&board, opening.school) else { return false };
                let hello = encode_whole(&opening, replica);
                let key = identity.device.body().key.to_bytes();
                let mut frames = cloud.hello(CONNECTION, &key, &hello);
                let Some(welcome) = welcome(&mut frames) else { return false };
                offered = Some(welcome.heads.iter().map(|(log, head)| (*log, head.sequence)).collect());
            }
            Record::Identity(identity) => {
                let Ok(known) = identity.verify(&board, history.board.school.code) else {
                    signals.insert(Signal::BatchRefused);
                    return true;
                };
                peers += 1;
                let key = known.device.body().key.to_bytes();
                let mut hello = super::hello_of(history);
                hello.identity = *identity;
                cloud.hello(peers, &key, &hello);
                cloud.leave(peers);
            }
            Record::Keys(keys) => cloud.keys(CONNECTION, &keys),
            Record::Batch(bytes) => {
                let Some(offered) = &mut offered else { return true };
                let Ok(batch) = Batch::from_bytes(bytes.clone()) else {
                    signals.insert(Signal::BatchRefused);
                    return true;
                };
                let header = batch.header();
                let held = offered.get(&header.log).copied().unwrap_or(0);
                if stopped.contains(&header.log) {
                    signals.insert(Signal::BatchRefused);
                } else if header.first > held + 1 {
                    signals.insert(Signal::BatchEarly);
                } else {
                    offered.insert(header.log, held.max(header.last));
                    if !matches!(cloud.batch(CONNECTION, bytes).as_slice(), [Frame::Receipt(_)]) {
                        signals.insert(Signal::BatchRefused);
                        stopped.insert(header.log);
                    }
                }
            }
            Record::Receipt(_) | Record::End(_) | Record::Unknown(_) => {}
        }
        true
    })
}

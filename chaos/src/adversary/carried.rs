//! What the adversary does with the records of a bundle.

use anyhow::{Context, Result};
use sonae_proto::batch::Batch;
use sonae_proto::courier::Record;
use sonae_proto::vector::Heads;

use super::history::History;
use super::options::Mutation;
use super::tamper::forge;
use crate::random::Random;

/// Records that are chosen to be altered, by their places.
struct Chosen {
    batch: Option<usize>,
    other: Option<usize>,
    receipt: Option<usize>,
    number: u64,
}

/// What was done, and whether the bundle contradicts itself by it: a record is altered in itself.
type Done = Option<(&'static str, bool)>;

fn choose(records: &[Record], random: &mut Random) -> Chosen {
    let places = |is: fn(&Record) -> bool| {
        records.iter().enumerate().filter(move |(_, record)| is(record)).map(|(at, _)| at).collect::<Vec<_>>()
    };
    let batches = places(|record| matches!(record, Record::Batch(_)));
    let receipts = places(|record| matches!(record, Record::Receipt(_)));
    let mut one = |list: &[usize]| (!list.is_empty()).then(|| list[random.index(list.len())]);
    let (batch, other, receipt) = (one(&batches), one(&batches), one(&receipts));
    Chosen { batch, other, receipt, number: random.below(3) }
}

/// Alters the records of a bundle that leads from one moment to another.
pub(crate) fn alter(
    history: &History,
    mutation: Mutation,
    records: &mut Vec<Record>,
    random: &mut Random,
    (from, now): (usize, usize),
) -> Result<Done> {
    let chosen = choose(records, random);
    Ok(match (mutation, chosen.number) {
        (Mutation::Drop | Mutation::Reorder | Mutation::Replay, _) => {
            move_records(mutation, records, &chosen)
        }
        (Mutation::RollBack, _) => {
            let heads = history.heads_at(from + random.index(now - from + 1));
            records.retain(|record| is_within(record, &heads));
            Some(("an earlier bundle", false))
        }
        (Mutation::Fork, number) => fork(history, records, now, number),
        (Mutation::Flip, _) => {
            let receipt = chosen.receipt.filter(|_| random.one_in(3));
            let Some(at) = receipt.or(chosen.batch) else { return Ok(None) };
            if let Record::Batch(bytes) | Record::Receipt(bytes) = &mut records[at] {
                let byte = random.index(bytes.len());
                bytes[byte] ^= 1 << random.index(8);
            }
            Some(("a bit of a record, under a right check", receipt.is_none()))
        }
        (Mutation::CrossSchool, _) => cross(history, records, &chosen),
        (Mutation::OldReceipt, _) => {
            let Some(at) = chosen.receipt else { return Ok(None) };
            let old = history.receipts.values().nth(random.index(history.receipts.len()));
            records[at] = Record::Receipt(old.context("there are receipts")?.clone());
            Some(("an old receipt", false))
        }
        (Mutation::OldEpoch, _) => {
            records.retain(|record| !matches!(record, Record::Keys(_)));
            records.push(Record::Keys(Box::new(history.board.school.documents(0))));
            Some(("older key documents", false))
        }
        (Mutation::Forge, number) => forge_record(records, &chosen, number)?,
        (Mutation::Revoked | Mutation::Withhold, _) => None,
    })
}

/// Leaves out, exchanges, repeats.
fn move_records(mutation: Mutation, records: &mut Vec<Record>, chosen: &Chosen) -> Done {
    let first = chosen.number == 0;
    if mutation == Mutation::Drop && first {
        records.retain(|record| !matches!(record, Record::Identity(_) | Record::Keys(_)));
        return Some(("all documents", false));
    }
    let (at, other) = (chosen.batch?, chosen.other?);
    if mutation == Mutation::Drop {
        records.remove(at);
        Some(("a batch", false))
    } else if mutation == Mutation::Reorder {
        records.swap(at, other);
        Some(("two batches", false))
    } else if first {
        records.push(records[at].clone());
        Some(("a batch once more", false))
    } else {
        records[other] = records[at].clone();
        Some(("a batch in the place of another", false))
    }
}

/// The other branch, or its last batch behind the first of the one.
fn fork(history: &History, records: &mut Vec<Record>, now: usize, number: u64) -> Done {
    let branch = history.branch.as_ref()?;
    let from = if number == 0 { branch.batches.len() - 1 } else { 0 };
    let first = branch.batches.get(from)?.header().first;
    // Before the fork there is nothing to show.
    history.heads_at(now).get(&branch.log).filter(|head| head.sequence >= first)?;
    let is_passed = |record: &Record| {
        batch_of(record)
            .is_some_and(|batch| batch.header().log == branch.log && batch.header().first >= first)
    };
    records.retain(|record| !is_passed(record));
    records.extend(branch.batches.iter().skip(from).map(|batch| Record::Batch(batch.bytes().to_vec())));
    Some(("the other branch", false))
}

fn cross(history: &History, records: &mut Vec<Record>, chosen: &Chosen) -> Done {
    let foreign = &history.foreign;
    match (chosen.number, chosen.receipt, chosen.batch) {
        (0, ..) => {
            records.insert(0, Record::Identity(Box::new(foreign.life.identity.clone())));
            records.insert(1, Record::Keys(Box::new(history.board.other.documents(1))));
            records.push(Record::Batch(foreign.batches[0].bytes().to_vec()));
            Some(("what is of another school", false))
        }
        (1, Some(receipt), _) => {
            records[receipt] = Record::Receipt(foreign.receipts[0].clone());
            Some(("a receipt of another school", false))
        }
        (_, _, Some(batch)) => {
            records[batch] = Record::Batch(foreign.batches[0].bytes().to_vec());
            Some(("a batch of another school", true))
        }
        _ => None,
    }
}

fn forge_record(records: &mut [Record], chosen: &Chosen, number: u64) -> Result<Done> {
    if let (0, Some(at)) = (number, chosen.receipt)
        && let Record::Receipt(bytes) = &mut records[at]
    {
        let end = bytes.len() - 64;
        bytes[end..].fill(7);
        return Ok(Some(("a receipt without a signature", false)));
    }
    let Some(at) = chosen.batch else { return Ok(None) };
    // Another mutation may have spoilt it before.
    let Some(batch) = batch_of(&records[at]) else { return Ok(None) };
    records[at] = Record::Batch(forge(&batch)?.bytes().to_vec());
    Ok(Some(("a forged batch", true)))
}

fn batch_of(record: &Record) -> Option<Batch> {
    match record {
        Record::Batch(bytes) => Batch::from_bytes(bytes.clone()).ok(),
        Record::Identity(_)
        | Record::Keys(_)
        | Record::Receipt(_)
        | Record::Opening(_)
        | Record::End(_)
        | Record::Unknown(_) => None,
    }
}

fn is_within(record: &Record, heads: &Heads) -> bool {
    batch_of(record).is_none_or(|batch| {
        heads.get(&batch.header().log).is_some_and(|head| batch.header().last <= head.sequence)
    })
}

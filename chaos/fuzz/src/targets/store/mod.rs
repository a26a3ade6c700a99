//! The store of a replica, opened over a journal and an archive of sealed batches: the frames that only it can read,
//! its checkpoints, and the archive's files.
//!
//! An input is frames of the journal and files of the archive (`input.rs`). Layers: 0 as it is; 1 the harness makes the
//! payload of every archived batch the one that its header names. Checksums of the journal are always right: what rot
//! does to them is the target `journal`.

mod harness;
mod input;

use std::collections::BTreeMap;
use std::path::Path;

use sonae_proto::ids::Tier;
use sonae_store::{Opened, Options, Store, StoreError, StoreState};

use self::harness::{disk_of, opening, wait, written};
use self::input::{
    CHANGE_PREFIX_BYTES, Item, PREFIX_BYTES, Values, batches, body_of, counted, is_readable, is_rotten,
    is_sealed_of, items, rename_payloads,
};
use super::journal::disk::MemoryDisk;
use crate::mutate::{self, Order};
use crate::random::Random;
use crate::{
    Broken, Planted, Seed, Target, Verdict, behind_layer, hold, json, keys, layer, layered, measure,
};

/// The target.
pub struct StoreTarget;

/// Where no view can be made: then the store keeps its records in memory, and no input waits for a real disk.
const NO_VIEW: &str = "/proc/no/view";

/// What opening may hold, beside a few copies of all it reads: keys, threads, an empty view.
const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;
const MEMORY_PER_BYTE: usize = 60;

const WORDS: [&str; 8] =
    ["student", "attendance", "sequences", "safe", "loss_counter", "documents", "own", "foundations"];

/// Fields of a batch's header, and of a change frame.
const BATCH_FIELDS: [std::ops::Range<usize>; 11] =
    [0..16, 16..29, 29..30, 30..46, 46..54, 54..62, 62..94, 94..98, 98..130, 130..134, 134..166];
const CHANGE_FIELDS: [std::ops::Range<usize>; 4] = [0..16, 16..17, 17..25, 25..33];

/// Bugs that lie in front of the store: what it would read if it had them.
fn bent(items: &[Item], planted: Planted) -> Vec<Item> {
    let mut bent = items.to_vec();
    for item in &mut bent {
        match item.tag {
            1 if planted.is("tier") => {
                if let Some(tier) = item.bytes.get_mut(16) {
                    *tier = (*tier).min(2);
                }
            }
            4..=9 if planted.is("trailing") => {
                let end = item.bytes.iter().rposition(|byte| *byte == b'}').map_or(0, |at| at + 1);
                item.bytes.truncate(end);
            }
            10..128 if planted.is("later-kind") => item.tag = 128,
            _ => {}
        }
    }
    // A store that does not ask its checkpoint how much there was.
    bent.retain(|item| item.tag != 6 || !planted.is("shorter"));
    bent
}

fn class(error: &StoreError) -> Verdict {
    match error {
        StoreError::Journal(_) => "journal".into(),
        StoreError::Batches { doing, .. } => format!("archive: {doing}"),
        StoreError::Frame { kind } => format!("frame {kind}"),
        StoreError::LaterVersion { .. } => "later version".into(),
        StoreError::Keyring(_) => "keyring".into(),
        StoreError::Seal { .. } => "seal".into(),
        StoreError::Batch(_) => "batch".into(),
        StoreError::Hole { .. } => "hole".into(),
        StoreError::Snapshot { what, .. } => format!("snapshot {what}"),
        StoreError::View(_) | StoreError::Identity(_) | StoreError::Closing | StoreError::Thread(_) => {
            "other".into()
        }
    }
}

fn open(disk: &MemoryDisk, bytes: usize) -> Result<Result<Opened, StoreError>, Broken> {
    let opening = opening(disk, Path::new(NO_VIEW), Options::default())?;
    measure::call(MEMORY_BYTES_MAX + MEMORY_PER_BYTE * bytes, || Store::open(opening))
}

/// What must be the same after opening again.
fn essence(state: &StoreState) -> String {
    format!("{:?} {:?}", state.vector, state.digests)
}

/// Every batch that is served lies in the input as it is served, or was sealed of its changes just now, and continues
/// the one before.
fn check_batches(store: &Store, items: &[Item]) -> Result<usize, Broken> {
    // What was not sealed yet is about to be, in another thread.
    wait(store.seal_now())?;
    let held = wait(store.held())?.map_err(|_| Broken("the keeper of an open store is there".into()))?;
    let (mut count, key) = (0, keys::epoch()?);
    for (log, headers) in held {
        let mut last = 0;
        for header in headers {
            hold(header.first == last + 1 && header.log == log, || "held batches have no gap".into())?;
            last = header.last;
            let served = wait(store.batch(log, header.first))?;
            // Payloads are read when they are asked for, if no view had to be made of them.
            let Some(served) = served else {
                hold(is_rotten(items, log.tier), || "a held batch can be read".into())?;
                continue;
            };
            let stands = |item: &Item| {
                let is_theirs = item.archived() == Some(log.tier) || matches!(item.tag, 2 | 3);
                is_theirs && batches(&item.bytes).contains(&served.as_slice())
            };
            hold(items.iter().any(stands) || is_sealed_of(items, &served, &key), || {
                "a batch is served as it was kept".into()
            })?;
            count += 1;
        }
    }
    Ok(count)
}

/// Every value that is served was written.
fn check_values(store: &Store, items: &[Item], planted: Planted) -> Result<usize, Broken> {
    let values = Values::of(items, &keys::epoch()?);
    let mut records = Vec::new();
    for tier in Tier::ALL {
        let read = store.each_record(tier, |record| {
            records.push(record);
            Ok(())
        });
        read.map_err(|_| Broken("the records of an open store can be read".into()))?;
    }
    // What is derived has names that no line can write.
    records.retain(|record| !record.collection.starts_with('~'));
    for record in &records {
        for (field, state) in &record.state.fields {
            for head in &state.heads {
                let mut value = head.value.clone();
                if planted.is("text-only") && !value.is_string() {
                    value = serde_json::Value::Null;
                }
                hold(values.has(&record.collection, &record.record, field, &value), || {
                    "a value that is served was written".into()
                })?;
            }
        }
    }
    Ok(records.len())
}

fn check_open(
    opened: Opened,
    disk: &MemoryDisk,
    items: &[Item],
    planted: Planted,
) -> Result<Verdict, Broken> {
    hold(items.iter().all(is_readable), || {
        "a journal with a frame that cannot be read does not open".into()
    })?;
    let (batches, records) =
        (check_batches(&opened.store, items)?, check_values(&opened.store, items, planted)?);
    let state = opened.store.state();
    let vector: BTreeMap<String, u64> =
        state.vector.iter().map(|(log, sequence)| (log.to_string(), *sequence)).collect();
    for (log, sequence) in counted(items) {
        hold(vector.get(&log).is_some_and(|held| *held >= sequence) || sequence == 0, || {
            "a store that opens holds all that its last checkpoint counts".into()
        })?;
    }
    opened.close();
    if planted == Planted::NONE {
        let again = open(disk, items.iter().map(|item| item.bytes.len()).sum())?;
        let again = again.map_err(|error| Broken(format!("a store opens again: {}", class(&error))))?;
        hold(essence(&again.store.state()) == essence(&state), || {
            "a store that is opened again is the same".into()
        })?;
        again.close();
    }
    Ok(match (batches, records) {
        (0, 0) => "empty".into(),
        (0, _) => "opened with changes".into(),
        (_, 0) => "opened with batches that say nothing".into(),
        _ => "opened with batches".into(),
    })
}

fn mutate_frame(item: &mut Item, random: &mut Random) {
    match item.tag {
        1 if random.once_in(2) => mutate::field(&mut item.bytes, &CHANGE_FIELDS, Order::Big, random),
        1 => {
            let mut line = item.bytes.split_off(CHANGE_PREFIX_BYTES.min(item.bytes.len()));
            json::text(&mut line, &WORDS, random);
            item.bytes.extend(line);
        }
        2 | 3 => mutate::field(&mut item.bytes, &BATCH_FIELDS, Order::Big, random),
        4..=9 => json::text(&mut item.bytes, &WORDS, random),
        _ => mutate::bytes(&mut item.bytes, random),
    }
}

/// What rot and power cuts do to a file of batches, and what neither can do.
fn mutate_archive(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut all: Vec<Vec<u8>> = batches(bytes).into_iter().map(<[u8]>::to_vec).collect();
    let at = random.below(all.len());
    let Some(batch) = all.get_mut(at) else { return mutate::bytes(bytes, random) };
    match random.below(8) {
        0 => drop(all.remove(at)),
        1 => {
            let copy = batch.clone();
            all.insert(at, copy);
        }
        2 => {
            let other = random.below(all.len());
            all.swap(at, other);
        }
        3 => all.truncate(at),
        4 => return mutate::bytes(bytes, random),
        5 => {
            let mut payload = batch.split_off(PREFIX_BYTES.min(batch.len()));
            mutate::bytes(&mut payload, random);
            batch.extend(payload);
        }
        _ => mutate::field(batch, &BATCH_FIELDS, Order::Big, random),
    }
    *bytes = all.concat();
}

impl Target for StoreTarget {
    fn name(&self) -> &'static str {
        "store"
    }

    fn executions(&self) -> u64 {
        1_500
    }

    fn bugs(&self) -> &'static [&'static str] {
        &["tier", "trailing", "later-kind", "shorter", "text-only"]
    }

    fn reaches(&self) -> &'static [&'static str] {
        &["opened with batches", "hole", "later version", "frame change", "frame checkpoint", "batch"]
    }

    fn seeds(&self) -> Vec<Seed> {
        let stores = [("killed", written(1, false)), ("archived", written(6, true))];
        stores.into_iter().filter_map(|(name, body)| Some((name, layer(0, &body?)))).collect()
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Random) {
        behind_layer(input, 2, random, |_, body, random| {
            let mut all = items(body);
            let at = random.below(all.len());
            let Some(item) = all.get_mut(at) else { return mutate::bytes(body, random) };
            match random.below(12) {
                0 => drop(all.remove(at)),
                1 => {
                    let copy = item.clone();
                    all.insert(at, copy);
                }
                2 => {
                    let tag = if random.once_in(2) { random.byte() } else { 1 + random.byte() % 12 };
                    all.insert(at, Item { tag, bytes: b"{}".to_vec() });
                }
                3 => item.bytes.extend_from_slice(b"}"),
                _ if item.archived().is_some() => mutate_archive(&mut item.bytes, random),
                _ => mutate_frame(item, random),
            }
            *body = body_of(&all);
        });
    }

    fn judge(&self, input: &[u8], planted: Planted) -> Result<Verdict, Broken> {
        let (number, body) = layered(input);
        let mut items = items(body);
        if number % 2 == 1 {
            rename_payloads(&mut items);
        }
        let Some(disk) = disk_of(&bent(&items, planted))? else { return Ok("a frame too large".into()) };
        match open(&disk, body.len())? {
            Ok(opened) => check_open(opened, &disk, &items, planted),
            Err(error) => Ok(class(&error)),
        }
    }
}

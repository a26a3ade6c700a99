//! What the adversary does to objects at the sites: whole ones, their records, and bits.

use std::collections::BTreeSet;

use anyhow::Result;
use sonae_cloud::object_name::ObjectName;
use sonae_proto::batch::{Batch, Place};
use sonae_proto::identity::Beginning;
use sonae_proto::object::{self, RecordKind};

use super::board::key;
use super::cloud::{Object, name};
use super::history::History;
use super::options::{Mutation, Options};
use super::tamper::{forge, forked};
use crate::random::Random;

/// A record of an object.
type Record = (RecordKind, Vec<u8>);

/// Objects taken apart.
type Parts = Vec<(ObjectName, Vec<Record>)>;

fn take_apart(objects: &[Object]) -> Parts {
    let records = |bytes: &[u8]| {
        let all = object::records(bytes).0.into_iter();
        all.filter_map(|record| Some((record.kind?, record.body.to_vec()))).collect()
    };
    objects.iter().map(|(name, bytes)| (*name, records(bytes))).collect()
}

fn put_together(parts: &Parts) -> Vec<Object> {
    let whole = |records: &[Record]| {
        let mut bytes = Vec::new();
        for (kind, body) in records {
            object::append(&mut bytes, *kind, body);
        }
        bytes
    };
    let full = parts.iter().filter(|(_, records)| !records.is_empty());
    full.map(|(name, records)| (*name, whole(records))).collect()
}

/// The copies of all sites, and what was done to them.
pub(crate) struct Tampered {
    pub copies: Vec<Vec<Object>>,
    pub done: BTreeSet<Mutation>,
    pub notes: Vec<String>,
}

pub(crate) fn tamper(history: &History, options: &Options, now: usize) -> Result<Tampered> {
    let objects = history.objects_at(now);
    let mut random = Random::new(options.seed, "adversary sites");
    let mut copies = vec![objects; history.options.sites];
    let (mut done, mut notes) = (BTreeSet::new(), Vec::new());
    for mutation in &options.mutations {
        // One site in some cases, all of them in the others, and always if there is only one.
        let only = random.one_in(3).then(|| random.index(copies.len()));
        let state = Random::new(options.seed, &format!("adversary sites {mutation:?}"));
        let mut changed = None;
        for (number, copy) in copies.iter_mut().enumerate() {
            if only.is_none_or(|only| only == number) {
                let mut random = state.clone();
                changed = alter(history, *mutation, copy, &mut random, now)?.or(changed);
            }
        }
        if let Some(what) = changed {
            done.insert(*mutation);
            notes.push(format!(
                "{mutation:?}: {what}, at {}",
                if only.is_some() { "one site" } else { "all sites" }
            ));
        }
    }
    Ok(Tampered { copies, done, notes })
}

fn alter(
    history: &History,
    mutation: Mutation,
    copy: &mut Vec<Object>,
    random: &mut Random,
    now: usize,
) -> Result<Option<&'static str>> {
    if mutation == Mutation::Flip && random.one_in(2) && !copy.is_empty() {
        let number = random.index(copy.len());
        let byte = random.index(copy[number].1.len());
        copy[number].1[byte] ^= 1 << random.index(8);
        return Ok(Some("a bit of an object"));
    }
    if mutation == Mutation::RollBack {
        let earlier = history.objects_at(random.index(now + 1));
        copy.truncate(earlier.len());
        return Ok(Some("an earlier state"));
    }
    if mutation == Mutation::Fork {
        // Before the fork there is nothing to show.
        let Some(other) = forked(history, copy) else { return Ok(None) };
        if random.one_in(2) {
            *copy = other;
            return Ok(Some("the other branch in the place of the one"));
        }
    }
    let mut parts = take_apart(copy);
    let what = alter_parts(history, mutation, &mut parts, random)?;
    *copy = put_together(&parts);
    Ok(what)
}

/// Where the batches of the school lie.
fn places(history: &History, parts: &Parts) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (object, (_, records)) in parts.iter().enumerate() {
        for (at, (kind, body)) in records.iter().enumerate() {
            let batch = Batch::from_bytes(body.clone());
            let ours = batch.is_ok_and(|batch| batch.header().school == history.board.school.code);
            if *kind == RecordKind::Batch && ours {
                found.push((object, at));
            }
        }
    }
    found
}

fn alter_parts(
    history: &History,
    mutation: Mutation,
    parts: &mut Parts,
    random: &mut Random,
) -> Result<Option<&'static str>> {
    let places = places(history, parts);
    if places.is_empty() {
        return Ok(None);
    }
    let (object, at) = places[random.index(places.len())];
    let (other_object, other_at) = places[random.index(places.len())];
    let body = parts[object].1[at].1.clone();
    let newest = |parts: &mut Parts, record: Record| parts.push((name(900, 1), vec![record]));
    Ok(Some(match (mutation, random.below(3)) {
        (Mutation::Drop, 0) => {
            drop_documents(parts, random);
            "documents"
        }
        (Mutation::Drop, 1) => {
            parts.remove(object);
            "an object"
        }
        (Mutation::Drop, _) => {
            parts[object].1.remove(at);
            "a batch"
        }
        (Mutation::Reorder, _) => {
            let other = parts[other_object].1[other_at].clone();
            parts[object].1[at] = other;
            parts[other_object].1[other_at].1 = body;
            "two batches in each other's place"
        }
        (Mutation::Replay, 0) => {
            newest(parts, (RecordKind::Batch, body));
            "a batch once more"
        }
        (Mutation::Replay, _) => {
            parts[other_object].1[other_at].1 = body;
            "a batch in the place of another"
        }
        (Mutation::Fork, _) => {
            let Some(branch) = &history.branch else { return Ok(None) };
            let records = branch.batches.iter().map(|batch| (RecordKind::Batch, batch.bytes().to_vec()));
            parts.push((name(900, 1), records.collect()));
            "the other branch beside the one"
        }
        (Mutation::Flip, _) => {
            let place = &mut parts[object].1[at].1;
            let byte = random.index(place.len());
            place[byte] ^= 1 << random.index(8);
            "a bit of a batch, under a right checksum"
        }
        (Mutation::CrossSchool, number) => {
            let foreign = &history.foreign.batches;
            let batch = foreign[random.index(foreign.len())].bytes().to_vec();
            if number == 0 {
                newest(parts, (RecordKind::Batch, batch));
            } else {
                parts[object].1[at].1 = batch;
            }
            "a batch of another school"
        }
        (Mutation::OldEpoch, _) => {
            let newer = serde_json::to_vec(&history.board.school.documents(1))?;
            for (_, records) in parts.iter_mut() {
                records.retain(|(kind, body)| *kind != RecordKind::Keys || *body != newer);
            }
            "without the newer key documents"
        }
        (Mutation::Forge, number) => forge_records(history, parts, (object, at), number, random)?,
        (Mutation::RollBack | Mutation::OldReceipt | Mutation::Revoked | Mutation::Withhold, _) => {
            return Ok(None);
        }
    }))
}

/// Leaves out the documents of one object.
fn drop_documents(parts: &mut Parts, random: &mut Random) {
    let has_some = |number: &usize| parts[*number].1.iter().any(|(kind, _)| *kind != RecordKind::Batch);
    let with: Vec<usize> = (0..parts.len()).filter(has_some).collect();
    let number = with[random.index(with.len())];
    parts[number].1.retain(|(kind, _)| *kind == RecordKind::Batch);
}

fn forge_records(
    history: &History,
    parts: &mut Parts,
    (object, at): (usize, usize),
    number: u64,
    random: &mut Random,
) -> Result<&'static str> {
    let batch = Batch::from_bytes(parts[object].1[at].1.clone())?;
    let forged = forge(&batch)?;
    Ok(match number {
        0 => {
            parts[object].1[at].1 = forged.bytes().to_vec();
            "a forged batch in the place of one"
        }
        1 if random.one_in(2) => {
            let newer = parts.iter().flat_map(|(_, records)| records).filter_map(|(_, body)| {
                let other = Batch::from_bytes(body.clone()).ok()?;
                (other.header().log == batch.header().log).then(|| *other.header())
            });
            let last = newer.max_by_key(|header| header.last).unwrap_or(*batch.header());
            let place = Place {
                school: last.school,
                log: last.log,
                after: last.head(),
                last: last.last + 1,
                epoch: last.epoch,
                manifest: last.manifest,
            };
            let longer = Batch::sign(&place, forged.payload(), &key("forger"))?;
            parts.push((name(900, 1), vec![(RecordKind::Batch, longer.bytes().to_vec())]));
            "a forged batch behind the last"
        }
        1 => {
            parts.push((name(900, 1), vec![(RecordKind::Batch, forged.bytes().to_vec())]));
            "a forged rival"
        }
        _ => {
            let board = &history.board;
            let stranger = board.begin_under(
                &key("stranger root"),
                &board.school,
                "stranger",
                "stranger",
                Beginning::Enrolment,
            )?;
            let identity = serde_json::to_vec(&stranger.identity)?;
            parts.push((name(900, 1), vec![(RecordKind::Identity, identity)]));
            "an identity that the board has not signed"
        }
    })
}

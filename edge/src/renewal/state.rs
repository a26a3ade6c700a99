//! What a renewal does where the cloud has lost changes that this box has pruned: they cannot be sent again, because
//! nobody here holds them one by one. The state that they led to is here, and is written again.
//!
//! **Invariant**: afterwards every field has the values that it has here, with who wrote them; when and what they
//! replaced is lost, and people were told.

use std::collections::BTreeMap;

use sonae_proto::batch::BatchHeader;
use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::ids::{ChangeId, LogName, Tier};
use sonae_proto::record::{FieldState, Head, RecordState};
use sonae_proto::snapshot::Record;
use sonae_proto::view::REISSUED;

use super::{RenewalError, write_again};
use crate::replica::Replica;

/// Headers of all batches of some logs.
type Held = BTreeMap<LogName, Vec<BatchHeader>>;

/// Writes again the state of each tier in which the second store lacks what the first has pruned. Returns the number of
/// changes.
pub(super) async fn carry_state(old: &Replica, next: &Replica, there: &Held) -> Result<u64, RenewalError> {
    let pruned = old.opened.store.state().pruned;
    let begins = next.opened.store.state().pruned;
    let reached = |log: &LogName| {
        let last = there.get(log).and_then(|headers| headers.last()).map(|last| last.last);
        last.or_else(|| begins.get(log).map(|begins| begins.sequence)).unwrap_or(0)
    };
    let lacks =
        |tier: &Tier| pruned.iter().any(|(log, base)| log.tier == *tier && reached(log) < base.sequence);
    let mut carried = 0;
    // Of a tier that is being filled nothing was written here that the cloud does not have.
    let is_whole = |tier: &Tier| old.opened.store.filling().is_usable(*tier);
    for tier in Tier::ALL.into_iter().filter(|tier| lacks(tier) && is_whole(tier)) {
        let mut changes = Vec::new();
        old.opened.store.each_record(tier, |record| {
            let present = next.opened.store.record(tier, &record.collection, &record.record)?;
            changes.extend(differences(&record, &present.unwrap_or_default()));
            Ok(())
        })?;
        log::warn!(tier:% = tier, changes = changes.len(); "a state is written again, because its changes were lost");
        carried += write_again(next, tier, &changes).await?;
    }
    Ok(carried)
}

/// Makes the changes that give a record the values that it has here.
fn differences(here: &Record, there: &RecordState) -> Vec<Change> {
    let mut changes: BTreeMap<ChangeId, Change> = BTreeMap::new();
    if here.collection == REISSUED {
        return Vec::new();
    }
    for (name, field) in &here.state.fields {
        let present = there.fields.get(name).cloned().unwrap_or_default();
        if values(field) == values(&present) {
            continue;
        }
        for head in &field.heads {
            let write = FieldWrite { value: head.value.clone(), bases: present.bases() };
            let change = changes.entry(head.id).or_insert_with(|| empty(here, head));
            change.fields.insert(name.clone(), write);
        }
    }
    changes.into_values().collect()
}

fn values(field: &FieldState) -> Vec<String> {
    let mut values: Vec<String> = field.heads.iter().map(|head| head.value.to_string()).collect();
    values.sort_unstable();
    values
}

fn empty(record: &Record, head: &Head) -> Change {
    Change {
        stamp: head.stamp,
        collection: record.collection.clone(),
        record: record.record.clone(),
        fields: BTreeMap::new(),
        who: head.who.clone(),
        source: head.source.clone(),
        origin: None,
        rest: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sonae_proto::ids::Incarnation;

    fn field(heads: &[(u8, &str)]) -> FieldState {
        let head = |(byte, value): &(u8, &str)| {
            let id = ChangeId { incarnation: Incarnation::from_bytes([*byte; 16]), sequence: 1 };
            serde_json::from_value(json!({ "i": id, "t": [1, 0], "v": value, "w": "tanaka" })).unwrap()
        };
        FieldState { heads: heads.iter().map(head).collect(), ..FieldState::default() }
    }

    fn state(fields: &[(&str, FieldState)]) -> RecordState {
        RecordState {
            fields: fields.iter().map(|(name, field)| ((*name).to_owned(), field.clone())).collect(),
        }
    }

    /// Goal: what differs is written with its writer, in place of what stands there, a dispute stays one, and nothing
    /// else is written. Method: a field that is equal under another name, one that is older there, a disputed one, one
    /// that is missing.
    #[test]
    fn only_what_differs_is_written() {
        let here = state(&[
            ("same", field(&[(1, "a")])),
            ("older", field(&[(1, "new")])),
            ("disputed", field(&[(2, "x"), (3, "y")])),
            ("missing", field(&[(1, "b")])),
        ]);
        let there = state(&[
            ("same", field(&[(9, "a")])),
            ("older", field(&[(8, "old")])),
            ("disputed", field(&[(2, "x")])),
        ]);
        let record = Record { collection: "student".into(), record: "r".into(), state: here };
        let changes = differences(&record, &there);
        let shown: Vec<_> = changes
            .iter()
            .map(|change| {
                let fields =
                    change.fields.iter().map(|(name, write)| (name.as_str(), write.value.as_str().unwrap()));
                (fields.collect::<Vec<_>>(), change.who.as_deref())
            })
            .collect();
        let wanted = [
            (vec![("missing", "b"), ("older", "new")], Some("tanaka")),
            (vec![("disputed", "x")], Some("tanaka")),
            (vec![("disputed", "y")], Some("tanaka")),
        ];
        assert_eq!(shown, wanted);
        assert_eq!(changes[0].fields["older"].bases, there.fields["older"].bases());
        assert_eq!(changes[2].fields["disputed"].bases, there.fields["disputed"].bases());
        let names = Record { collection: REISSUED.into(), ..record };
        assert!(differences(&names, &RecordState::default()).is_empty());
    }
}

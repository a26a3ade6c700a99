//! The fold: what all logs add up to. Owns idempotence, gap detection and the incremental digest; leaves the
//! keeping of records to a [`Records`] port (sled and an overlay in the edge, a map here).
//!
//! **Invariant**: of each log a gapless prefix is applied, each change once.
//! **Invariant**: no record stands that a tombstone names, in whatever order they came.

mod memory;

use std::collections::{BTreeMap, BTreeSet};

use crate::change::Change;
use crate::clock::Stamp;
use crate::digest::{Digest, DigestKey};
use crate::erasure::{erasers, tombstones};
use crate::ids::{ChangeId, LogName, Tier};
use crate::planted::{Defect, is_planted};
use crate::record::{FieldState, RecordState};
use crate::snapshot::Record;
use crate::vector::Sequences;

pub use memory::MemoryRecords;

/// The records that say which re-issued changes have been applied, by their names. No change can name this
/// collection, and no digest counts it. Spec: `docs/spec/batch.md#re-issue`.
pub const REISSUED: &str = "~reissued";

/// Where records are kept.
pub trait Records {
    /// Why a record cannot be read.
    type Error;

    /// Returns a record, or an empty one.
    ///
    /// # Errors
    /// Those of the store.
    fn get(&self, tier: Tier, collection: &str, record: &str) -> Result<RecordState, Self::Error>;

    /// Keeps a record.
    ///
    /// # Errors
    /// Those of the store.
    fn put(
        &mut self,
        tier: Tier,
        collection: &str,
        record: &str,
        state: RecordState,
    ) -> Result<(), Self::Error>;

    /// Takes out all records of a tier for which `is_meant` says so of collection and id, and returns them.
    ///
    /// # Errors
    /// Those of the store.
    fn take(
        &mut self,
        tier: Tier,
        is_meant: &mut dyn FnMut(&str, &str) -> bool,
    ) -> Result<Vec<Record>, Self::Error>;
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// It changed a record.
    Changed(Box<Change>),
    /// It had been applied before, under this or another name.
    Duplicate,
    /// It is of a record that was erased, so it has no effect.
    Erased,
    /// It is not a change that this version can read. Its place in the log is taken, because refusing it would
    /// wedge the log; the sealed bytes stay.
    Unreadable,
}

/// Why a line cannot be applied now.
#[derive(Debug, thiserror::Error)]
pub enum FoldError<E> {
    /// An earlier change of the log is missing.
    #[error("change {sequence} of log {log} came before change {expected}")]
    Gap {
        /// Which log.
        log: LogName,
        /// What came.
        sequence: u64,
        /// What must come first.
        expected: u64,
    },
    /// The store failed.
    #[error("the view's store failed")]
    Store(E),
}

/// The state of a fold, beside the records.
#[derive(Debug, Clone)]
pub struct Fold {
    key: DigestKey,
    /// What has been applied.
    pub sequences: Sequences,
    /// The state digest of each tier.
    pub digests: BTreeMap<Tier, Digest>,
    /// The highest stamp that was applied of each log's incarnation; the own one continues the clock.
    pub highest_stamp: Stamp,
}

impl Fold {
    /// Starts with nothing applied.
    #[must_use]
    pub fn new(key: DigestKey) -> Self {
        let digests = Tier::ALL.into_iter().map(|tier| (tier, Digest::default())).collect();
        Self { key, sequences: Sequences::new(), digests, highest_stamp: Stamp::default() }
    }

    /// Returns the last applied sequence of a log.
    #[must_use]
    pub fn applied(&self, log: LogName) -> u64 {
        self.sequences.get(&log).copied().unwrap_or(0)
    }

    /// Applies one line of a log.
    ///
    /// # Errors
    /// [`FoldError::Gap`] when an earlier one is missing; [`FoldError::Store`]. Nothing has changed then.
    pub fn apply<R: Records>(
        &mut self,
        records: &mut R,
        log: LogName,
        sequence: u64,
        line: &[u8],
    ) -> Result<Applied, FoldError<R::Error>> {
        let expected = self.applied(log).saturating_add(1);
        if sequence < expected {
            return Ok(Applied::Duplicate);
        }
        if sequence > expected {
            return Err(FoldError::Gap { log, sequence, expected });
        }
        let Ok(change) = Change::from_line(line, log.incarnation) else {
            self.sequences.insert(log, sequence);
            return Ok(Applied::Unreadable);
        };
        let id = change.origin.unwrap_or(ChangeId { incarnation: log.incarnation, sequence });
        if change.origin.is_some() {
            let was_applied = self.has_seen(log.tier, id) || is_reissued(records, log.tier, id)?;
            if was_applied && !is_planted(Defect::ReissueAppliedTwice) {
                self.sequences.insert(log, sequence);
                return Ok(Applied::Duplicate);
            }
            let mark = RecordState { fields: BTreeMap::from([("applied".into(), FieldState::default())]) };
            records.put(log.tier, REISSUED, &id.to_string(), mark).map_err(FoldError::Store)?;
        }
        if self.is_erased(records, log.tier, &change.collection, &change.record)?
            && !is_planted(Defect::TombstoneNotSticky)
        {
            self.sequences.insert(log, sequence);
            self.highest_stamp = self.highest_stamp.max(change.stamp);
            return Ok(Applied::Erased);
        }
        let mut reissued = BTreeSet::new();
        for base in change.fields.values().flat_map(|write| &write.bases) {
            if !self.has_seen(log.tier, *base) && is_reissued(records, log.tier, *base)? {
                reissued.insert(*base);
            }
        }
        let mut state =
            records.get(log.tier, &change.collection, &change.record).map_err(FoldError::Store)?;
        let before = self.fields_digest(&change, &state);
        let is_new = state.fields.is_empty();
        let is_stone = change.collection == tombstones(log.tier) && !is_planted(Defect::TombstoneOnlyAhead);
        let taken = if is_new && is_stone {
            self.take_erased(records, log.tier, &change.record)?
        } else {
            Vec::new()
        };
        state.apply(id, &change, |base| self.has_seen(log.tier, base) || reissued.contains(&base));
        let after = self.fields_digest(&change, &state);
        records.put(log.tier, &change.collection, &change.record, state).map_err(FoldError::Store)?;
        let digest = self.digests.entry(log.tier).or_default();
        digest.remove(&before);
        digest.add(&after);
        for Record { collection, record, state } in &taken {
            digest.remove(&self.key.record(collection, record, state));
        }
        self.sequences.insert(log, sequence);
        self.highest_stamp = self.highest_stamp.max(change.stamp);
        Ok(Applied::Changed(Box::new(change)))
    }

    /// Whether a tombstone names a record: it is not there, and whatever is written to it has no effect.
    ///
    /// # Errors
    /// [`FoldError::Store`].
    pub fn is_erased<R: Records>(
        &self,
        records: &R,
        tier: Tier,
        collection: &str,
        record: &str,
    ) -> Result<bool, FoldError<R::Error>> {
        for name in erasers(&self.key, tier, collection, record) {
            let stone = records.get(tier, tombstones(tier), &name).map_err(FoldError::Store)?;
            if !stone.fields.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes out what a tombstone names.
    fn take_erased<R: Records>(
        &self,
        records: &mut R,
        tier: Tier,
        stone: &str,
    ) -> Result<Vec<Record>, FoldError<R::Error>> {
        let mut is_meant = |collection: &str, record: &str| {
            erasers(&self.key, tier, collection, record).any(|name| name == stone)
        };
        records.take(tier, &mut is_meant).map_err(FoldError::Store)
    }

    fn has_seen(&self, tier: Tier, id: ChangeId) -> bool {
        self.applied(LogName { tier, incarnation: id.incarnation }) >= id.sequence
    }

    fn fields_digest(&self, change: &Change, state: &RecordState) -> Digest {
        let mut sum = Digest::default();
        for name in change.fields.keys() {
            sum.add(&self.key.field(&change.collection, &change.record, name, state.fields.get(name)));
        }
        sum
    }
}

fn is_reissued<R: Records>(records: &R, tier: Tier, id: ChangeId) -> Result<bool, FoldError<R::Error>> {
    let mark = records.get(tier, REISSUED, &id.to_string()).map_err(FoldError::Store)?;
    Ok(!mark.fields.is_empty())
}

#[cfg(test)]
mod erased;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use proptest::prelude::*;

    fn log(writer: u8) -> LogName {
        LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([writer; 16]) }
    }

    /// Three writers who see some of each other's changes, written as lines.
    fn history(choices: &[(u8, u8, u8)]) -> Vec<(LogName, u64, Vec<u8>)> {
        let mut folds = vec![(Fold::new(DigestKey::from_secret("k")), MemoryRecords::default()); 3];
        let mut lines: Vec<(LogName, u64, Vec<u8>)> = Vec::new();
        for (writer, record, sees) in choices {
            let writer = usize::from(*writer % 3);
            let (fold, records) = &mut folds[writer];
            let known: Vec<_> = lines.iter().take(usize::from(*sees)).cloned().collect();
            for (log, sequence, line) in known {
                fold.apply(records, log, sequence, &line).unwrap();
            }
            let own = log(u8::try_from(writer).unwrap() + 1);
            let id = format!("r{}", record % 2);
            let state = records.get(Tier::Daily, "c", &id).unwrap();
            let bases = state.fields.get("f").map(|field| field.bases()).unwrap_or_default();
            let sequence = fold.applied(own) + 1;
            let text = serde_json::json!({
                "t": [100 - u64::from(*sees % 50), 0], "c": "c", "r": id, "f": {"f": lines.len()},
                "b": {"f": bases.iter().map(ToString::to_string).collect::<Vec<_>>()},
            });
            let line = text.to_string().into_bytes();
            fold.apply(records, own, sequence, &line).unwrap();
            lines.push((own, sequence, line));
        }
        lines
    }

    proptest! {
        /// Goal: order-free (P7). Method: deliver one history in any interleaving that keeps each log's
        /// order, with duplicates; state, vector and digest are equal.
        #[test]
        fn any_interleaving_gives_one_state(
            choices in proptest::collection::vec((0_u8..3, 0_u8..2, 0_u8..20), 1..25),
            picks in proptest::collection::vec(0_usize..3, 0..200),
        ) {
            let lines = history(&choices);
            let mut straight = (Fold::new(DigestKey::from_secret("k")), MemoryRecords::default());
            for (log, sequence, line) in &lines {
                straight.0.apply(&mut straight.1, *log, *sequence, line).unwrap();
            }
            let mut mixed = (Fold::new(DigestKey::from_secret("k")), MemoryRecords::default());
            let mut rest = lines.clone();
            for pick in picks.into_iter().chain(std::iter::repeat(0)) {
                if rest.is_empty() { break; }
                let wanted = rest[pick.min(rest.len() - 1)].0;
                let position = rest.iter().position(|(log, _, _)| *log == wanted).unwrap();
                let (log, sequence, line) = rest.remove(position);
                mixed.0.apply(&mut mixed.1, log, sequence, &line).unwrap();
                prop_assert_eq!(
                    mixed.0.apply(&mut mixed.1, log, sequence, &line).unwrap(), Applied::Duplicate);
            }
            prop_assert_eq!(&straight.0.sequences, &mixed.0.sequences);
            prop_assert_eq!(&straight.0.digests, &mixed.0.digests);
            let strip = |records: &MemoryRecords| records.records.clone();
            prop_assert_eq!(strip(&straight.1), strip(&mixed.1));
        }
    }

    /// Goal: a gap is refused and an unreadable line does not wedge its log. Method: skip one, send rubbish.
    #[test]
    fn gaps_wait_and_rubbish_passes() {
        let (mut fold, mut records) = (Fold::new(DigestKey::from_secret("k")), MemoryRecords::default());
        let line = br#"{"t":[1,0],"c":"c","r":"r","f":{"f":1}}"#;
        let gap = fold.apply(&mut records, log(1), 2, line);
        assert!(matches!(gap, Err(FoldError::Gap { expected: 1, .. })));
        assert_eq!(fold.apply(&mut records, log(1), 1, b"rubbish").unwrap(), Applied::Unreadable);
        assert!(matches!(fold.apply(&mut records, log(1), 2, line).unwrap(), Applied::Changed(_)));
    }

    /// Goal: a change that is re-issued under another name applies once. Method: original, then re-issue.
    #[test]
    fn a_reissued_change_applies_once() {
        let (mut fold, mut records) = (Fold::new(DigestKey::from_secret("k")), MemoryRecords::default());
        fold.apply(&mut records, log(1), 1, br#"{"t":[1,0],"c":"c","r":"r","f":{"f":1}}"#).unwrap();
        let before = (fold.digests.clone(), records.clone());
        let again = format!(r#"{{"t":[1,0],"c":"c","r":"r","f":{{"f":1}},"o":"{}:1"}}"#, log(1).incarnation);
        assert_eq!(fold.apply(&mut records, log(2), 1, again.as_bytes()).unwrap(), Applied::Duplicate);
        assert_eq!((fold.digests, records), before);
    }

    /// Goal: what was carried over twice applies once, in any order, and its bases are known. Method: two logs
    /// re-issue one branch, interleaved both ways; then somebody replaces its last value.
    #[test]
    fn a_branch_that_was_carried_over_twice_applies_once() {
        let branch = [
            (5, br#"{"t":[1,0],"c":"c","r":"r","f":{"f":1}}"#.to_vec()),
            (6, br#"{"t":[2,0],"c":"c","r":"r","f":{"f":2},"b":{"f":[5]}}"#.to_vec()),
        ];
        let changes = crate::reissue::reissue(log(1), &branch).unwrap();
        let ends: Vec<_> = [[(2, 0), (2, 1), (3, 0), (3, 1)], [(3, 0), (2, 0), (2, 1), (3, 1)]]
            .into_iter()
            .map(|order| {
                let (mut fold, mut records) =
                    (Fold::new(DigestKey::from_secret("k")), MemoryRecords::default());
                for (writer, change) in order {
                    let sequence = fold.applied(log(writer)) + 1;
                    let line = changes[change].to_line(log(writer).incarnation).unwrap();
                    fold.apply(&mut records, log(writer), sequence, &line).unwrap();
                }
                let state = records.get(Tier::Daily, "c", "r").unwrap();
                let field = &state.fields["f"];
                assert_eq!(
                    field.heads.iter().map(|head| head.id).collect::<Vec<_>>(),
                    [changes[1].origin.unwrap()]
                );
                assert!(field.replaced_early.is_empty());
                (fold.digests, records)
            })
            .collect();
        assert_eq!(ends[0], ends[1]);
    }
}

//! Re-issue: what an incarnation wrote and nobody else will ever take under its name, written again under
//! another (P6). Owns the names that such changes get.
//!
//! **Invariant**: the same line of the same place gets the same name, whoever re-issues it and how often, if it saw the
//! same; another line in that place, or one that names other bases by then, gets another one. So the branches of a fork
//! never pass for each other, what was carried over twice applies once, and no name has two contents.
//! Spec: `docs/spec/batch.md#re-issue`.

use std::collections::BTreeMap;

use crate::change::{Change, ChangeError};
use crate::ids::{ChangeId, Incarnation, LogName};

/// Context of the name of a forked change.
const CONTEXT: &str = "sonae 2026 forked change";

/// Names a change by its place, its line, and what its bases are called by now: the place alone is taken by the other
/// branch as well, and whoever re-issues from a later place on leaves bases as they are.
#[must_use]
pub fn forked_name(log: LogName, sequence: u64, line: &[u8], renamed: &[ChangeId]) -> ChangeId {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(log.incarnation.bytes());
    hasher.update(&[log.tier.number()]);
    hasher.update(&sequence.to_be_bytes());
    hasher.update(line);
    for base in renamed {
        hasher.update(base.incarnation.bytes());
        hasher.update(&base.sequence.to_be_bytes());
    }
    let name = hasher.finalize().as_bytes().first_chunk::<16>().copied().unwrap_or_default();
    ChangeId { incarnation: Incarnation::from_bytes(name), sequence }
}

/// Turns the lines of one branch of a log, from where it parts on, into changes for another log. What each saw
/// of its own branch, it names by the new names.
///
/// # Errors
/// [`ChangeError`] when a line is no change; it stays where it is.
pub fn reissue(log: LogName, lines: &[(u64, Vec<u8>)]) -> Result<Vec<Change>, ChangeError> {
    let mut changes = Vec::with_capacity(lines.len());
    let mut names: BTreeMap<ChangeId, ChangeId> = BTreeMap::new();
    for (sequence, line) in lines {
        let mut change = Change::from_line(line, log.incarnation)?;
        let mut renamed = Vec::new();
        for base in change.fields.values_mut().flat_map(|write| &mut write.bases) {
            if let Some(name) = names.get(base) {
                *base = *name;
                renamed.push(*name);
            }
        }
        let known = change.origin.filter(|_| renamed.is_empty());
        let name = known.unwrap_or_else(|| forked_name(log, *sequence, line, &renamed));
        names.insert(ChangeId { incarnation: log.incarnation, sequence: *sequence }, name);
        change.origin = Some(name);
        changes.push(change);
    }
    Ok(changes)
}

/// Returns the first change of `here` that `there` does not have in the same place. Both are consecutive lines of
/// one log, sorted by their sequence.
#[must_use]
pub fn parting(here: &[(u64, Vec<u8>)], there: &[(u64, Vec<u8>)]) -> Option<u64> {
    let there: BTreeMap<u64, &[u8]> =
        there.iter().map(|(sequence, line)| (*sequence, line.as_slice())).collect();
    let differs = |(sequence, line): &&(u64, Vec<u8>)| there.get(sequence) != Some(&line.as_slice());
    here.iter().find(differs).map(|(sequence, _)| *sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Tier;

    const LOG: LogName = LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([1; 16]) };

    fn line(value: u32, base: Option<u64>) -> Vec<u8> {
        let bases = base.map(|base| format!(r#","b":{{"f":[{base}]}}"#)).unwrap_or_default();
        format!(r#"{{"t":[1,0],"c":"c","r":"r","f":{{"f":{value}}}{bases}}}"#).into_bytes()
    }

    /// Goal: names follow place, content and bases. Method: vary each.
    #[test]
    fn names_commit_to_place_and_line() {
        let name = forked_name(LOG, 3, b"a", &[]);
        assert_eq!(name, forked_name(LOG, 3, b"a", &[]));
        assert_eq!(name.sequence, 3);
        let other = LogName { tier: Tier::Safety, ..LOG };
        let differing = [
            forked_name(LOG, 4, b"a", &[]),
            forked_name(LOG, 3, b"b", &[]),
            forked_name(other, 3, b"a", &[]),
            forked_name(LOG, 3, b"a", &[name]),
        ];
        for differs in differing {
            assert_ne!(differs.incarnation, name.incarnation);
        }
    }

    /// Goal: no name has two contents: a state would depend on which came first. Method: re-issue a branch from two
    /// places, as two boxes do that have dug out one disk and hold different parts of its log; found by simulation seed
    /// 1795827766.
    #[test]
    fn no_name_has_two_contents() {
        let lines = [(5, line(1, None)), (6, line(2, Some(5))), (7, line(3, Some(6))), (8, line(4, None))];
        let named = |from: usize| -> BTreeMap<ChangeId, Change> {
            let changes = reissue(LOG, &lines[from..]).unwrap();
            changes.into_iter().map(|change| (change.origin.unwrap(), change)).collect()
        };
        let (all, late) = (named(0), named(1));
        for (name, change) in &late {
            assert!(all.get(name).is_none_or(|other| other == change), "{name}");
        }
        assert_eq!(all.keys().filter(|name| late.contains_key(name)).count(), 1, "the one without bases");
    }

    /// Goal: a chain of edits stays a chain. Method: three edits, each seeing the one before; the first saw what
    /// both branches have.
    #[test]
    fn bases_follow_the_branch() {
        let lines = vec![(5, line(1, Some(4))), (6, line(2, Some(5))), (7, line(3, Some(6)))];
        let changes = reissue(LOG, &lines).unwrap();
        let base = |change: &Change| change.fields["f"].bases[0];
        assert_eq!(base(&changes[0]), ChangeId { incarnation: LOG.incarnation, sequence: 4 });
        assert_eq!(Some(base(&changes[1])), changes[0].origin);
        assert_eq!(Some(base(&changes[2])), changes[1].origin);
        let bases = [changes[1].origin.unwrap()];
        assert_eq!(changes[2].origin, Some(forked_name(LOG, 7, &lines[2].1, &bases)));
    }

    /// Goal: a change that was carried over keeps its name when it is carried over again. Method: re-issue twice.
    #[test]
    fn a_second_reissue_keeps_the_name() {
        let first = reissue(LOG, &[(5, line(1, None))]).unwrap();
        let next = LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([2; 16]) };
        let again = first[0].to_line(next.incarnation).unwrap();
        assert_eq!(reissue(next, &[(1, again)]).unwrap()[0].origin, first[0].origin);
    }

    /// Goal: whatever may be written can be carried over. Method: the longest line with the most fields, each with a
    /// base in its own branch.
    #[test]
    fn the_longest_change_can_be_carried_over() {
        use crate::change::FieldWrite;
        use crate::limits::{CHANGE_FIELDS_MAX, CHANGE_WRITTEN_BYTES_MAX};
        let base = ChangeId { incarnation: LOG.incarnation, sequence: 1 };
        let write = |text: &str| FieldWrite { value: text.into(), bases: vec![base] };
        let mut change = reissue(LOG, &[(1, line(1, None))]).unwrap().remove(0);
        change.origin = None;
        change.fields = (0..CHANGE_FIELDS_MAX).map(|field| (format!("f{field}"), write(""))).collect();
        let bare = change.to_line(LOG.incarnation).unwrap().len();
        change.fields.insert("f0".into(), write(&"x".repeat(CHANGE_WRITTEN_BYTES_MAX - bare - 1)));
        let longest = change.to_line(LOG.incarnation).unwrap();
        assert_eq!(longest.len(), CHANGE_WRITTEN_BYTES_MAX - 1);
        let again = reissue(LOG, &[(1, line(1, None)), (2, longest)]).unwrap();
        assert!(again[1].to_line(Incarnation::from_bytes([9; 16])).is_ok());
    }

    /// Goal: only what the other branch lacks is carried over. Method: equal, longer, shorter and other branches.
    #[test]
    fn branches_part_where_they_differ() {
        let lines = |values: &[u32]| -> Vec<(u64, Vec<u8>)> {
            values.iter().zip(3..).map(|(value, sequence)| (sequence, line(*value, None))).collect()
        };
        let here = lines(&[1, 2, 3]);
        assert_eq!(parting(&here, &lines(&[1, 2, 3])), None);
        assert_eq!(parting(&here, &lines(&[1, 2, 3, 4])), None);
        assert_eq!(parting(&here, &lines(&[1, 2])), Some(5));
        assert_eq!(parting(&here, &lines(&[1, 9, 3])), Some(4));
        assert_eq!(parting(&here, &[]), Some(3));
    }
}

//! Which objects are merged with which: pure, and the same for whoever sees the same listing.
//!
//! Objects are merged with others of about as many inputs, so that each byte is copied a few times at most and not each
//! time that something new comes.

use sonae_proto::object::MERGED_INPUTS_MAX;

use super::Rules;
use crate::object_name::StoredName;

/// An object that may be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Its name.
    pub name: StoredName,
    /// Its bytes.
    pub bytes: u64,
    /// Names that it brings: its own, and those of what it stands for.
    pub inputs: usize,
}

/// Returns the groups that are to be merged, each at least two objects and within the bounds of one merged object.
#[must_use]
pub fn groups(mut candidates: Vec<Candidate>, rules: &Rules) -> Vec<Vec<StoredName>> {
    candidates.sort();
    let mut levels: Vec<Vec<Candidate>> = Vec::new();
    for candidate in candidates {
        if let Some(level) = level(&candidate, rules) {
            levels.resize_with(levels.len().max(level + 1), Vec::new);
            levels.get_mut(level).into_iter().for_each(|level| level.push(candidate));
        }
    }
    levels.into_iter().flat_map(|level| groups_of_level(level, rules)).collect()
}

/// Returns how often its records were merged already; `None` for one that is large enough to stay as it is.
fn level(candidate: &Candidate, rules: &Rules) -> Option<usize> {
    if candidate.bytes >= rules.bytes_max / 2 || candidate.inputs >= INPUTS_MAX / 2 {
        return None;
    }
    let level = candidate.inputs.max(1).ilog(rules.inputs_min.max(2));
    usize::try_from(level).ok()
}

/// Inputs of one object at most: half of what may be, so that what comes of it can be merged once more by itself when keys
/// in it have to go.
const INPUTS_MAX: usize = MERGED_INPUTS_MAX / 2;

fn groups_of_level(level: Vec<Candidate>, rules: &Rules) -> Vec<Vec<StoredName>> {
    let mut groups = Vec::new();
    let (mut group, mut bytes, mut inputs) = (Vec::new(), 0, 0);
    for candidate in level {
        let next = (bytes + candidate.bytes, inputs + candidate.inputs);
        if next.0 > rules.bytes_max || next.1 > INPUTS_MAX {
            groups.push(std::mem::take(&mut group));
            (bytes, inputs) = (candidate.bytes, candidate.inputs);
        } else {
            (bytes, inputs) = next;
        }
        group.push(candidate.name);
    }
    if group.len() >= rules.inputs_min {
        groups.push(group);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object_name::ObjectName;
    use sonae_proto::ids::Hash32;
    use std::time::Duration;
    use ulid::Ulid;

    const RULES: Rules =
        Rules { inputs_min: 4, bytes_max: 1_000, superseded: Duration::ZERO, interval: Duration::ZERO };

    fn written(counter: u64, bytes: u64) -> Candidate {
        let name = ObjectName { boot: Ulid::from_parts(1, 1), counter };
        Candidate { name: name.into(), bytes, inputs: 1 }
    }

    fn merged(number: u8, bytes: u64, inputs: usize) -> Candidate {
        Candidate { name: StoredName::Merged(Hash32([number; 32])), bytes, inputs }
    }

    /// Goal: few are left alone, many become one, none grows over its bounds. Method: around the numbers.
    #[test]
    fn groups_keep_their_bounds() {
        let small = |count| (0..count).map(|n| written(n, 10)).collect::<Vec<_>>();
        assert!(groups(small(3), &RULES).is_empty());
        assert_eq!(groups(small(4), &RULES).len(), 1);
        let mut shuffled = small(9);
        shuffled.reverse();
        assert_eq!(groups(shuffled, &RULES), groups(small(9), &RULES));
        let full: Vec<_> = (0..7).map(|n| written(n, 400)).collect();
        let lengths: Vec<_> = groups(full, &RULES).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 2, 2], "the seventh waits for company");
        assert!(groups(vec![written(1, 500), written(2, 900), written(3, 500)], &RULES).is_empty());
        let many: Vec<_> = (0..9).map(|n| merged(n, 1, INPUTS_MAX / 2 - 1)).collect();
        assert!(groups(many, &RULES).iter().all(|group| group.len() == 2));
    }

    /// Goal: what was merged is not copied again with each new object. Method: one merged, a few new.
    #[test]
    fn the_large_wait_for_the_large() {
        let mut candidates: Vec<_> = (0..4).map(|n| written(n, 10)).collect();
        candidates.push(merged(1, 40, 4));
        let found = groups(candidates, &RULES);
        assert_eq!(found.len(), 1);
        assert!(found[0].iter().all(|name| name.written().is_some()));
        let four: Vec<_> = (0..4).map(|n| merged(n, 40, 4)).collect();
        assert_eq!(groups(four, &RULES).len(), 1);
    }
}

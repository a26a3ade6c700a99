//! Actions: what a person or an import wants written. Owns how an edit becomes changes: bases, no-ops, the
//! three-way comparison of imports.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sonae_proto::change::{Change, FieldWrite};
use sonae_proto::clock::Stamp;
use sonae_proto::collection;
use sonae_proto::ids::{ChangeId, Tier};
use sonae_proto::record::{FieldState, RecordState};
use sonae_proto::vector::Sequences;

/// New values for fields of one record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Which collection; it must be a known one.
    pub collection: String,
    /// Which record.
    pub record: String,
    /// The values; null clears a field.
    pub fields: BTreeMap<String, Value>,
    /// The changes whose values the person saw, by field. `None` means the present ones.
    pub seen: Option<BTreeMap<String, Vec<ChangeId>>>,
}

/// Edits that belong together: kept all or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The login of the person.
    pub who: Option<String>,
    /// The import source that the edits mirror; makes the comparison three-way.
    pub source: Option<String>,
    /// The edits.
    pub edits: Vec<Edit>,
}

/// The answer to a write: everything is on this replica's stable storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// For each own log that is concerned, its last sequence.
    pub sequences: Sequences,
    /// How many changes were written; 0 when everything was there already.
    pub changes: u64,
    /// How many edits of an import were passed over because their records were erased.
    #[serde(default)]
    pub erased: u64,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
}

/// Returns the tier of an edit's collection.
pub(crate) fn tier_of(edit: &Edit) -> Result<Tier, String> {
    collection::find(&edit.collection)
        .map(|known| known.tier)
        .ok_or_else(|| format!("collection '{}' is not known", edit.collection))
}

/// Makes the change that an edit needs, or none when nothing would change.
pub(crate) fn change_for(edit: &Edit, action: &Action, state: &RecordState, stamp: Stamp) -> Option<Change> {
    let fields: BTreeMap<String, FieldWrite> = edit
        .fields
        .iter()
        .filter_map(|(name, value)| {
            let field = state.fields.get(name);
            let bases = match &action.source {
                Some(source) => import_bases(field, source, value)?,
                None => {
                    let seen = edit.seen.as_ref().map(|seen| seen.get(name).cloned().unwrap_or_default());
                    person_bases(field, value, seen)?
                }
            };
            Some((name.clone(), FieldWrite { value: value.clone(), bases }))
        })
        .collect();
    (!fields.is_empty()).then(|| Change {
        stamp,
        collection: edit.collection.clone(),
        record: edit.record.clone(),
        fields,
        who: action.who.clone(),
        source: action.source.clone(),
        origin: None,
        rest: Map::new(),
    })
}

/// Bases of a person's write; `None` when the one standing value is this very value already.
fn person_bases(
    field: Option<&FieldState>,
    value: &Value,
    seen: Option<Vec<ChangeId>>,
) -> Option<Vec<ChangeId>> {
    let Some(field) = field.filter(|field| !field.heads.is_empty()) else {
        return (!value.is_null()).then(Vec::new);
    };
    match field.heads.as_slice() {
        [only] if only.value == *value => None,
        _ => {
            let seen: Option<BTreeSet<ChangeId>> = seen.map(|seen| seen.into_iter().collect());
            // A person who saw nothing of the field writes beside what stands, and is asked.
            Some(seen.map_or_else(|| field.bases(), |seen| seen.into_iter().collect()))
        }
    }
}

/// Bases of an import: what the source said last time. `None` when the source says the same as then.
///
/// Where staff have replaced the source's value since, the base is no head any more, and the new value stands
/// beside theirs until a person decides. Where the source says nothing new, theirs stands.
fn import_bases(field: Option<&FieldState>, source: &str, value: &Value) -> Option<Vec<ChangeId>> {
    let Some(field) = field else { return (!value.is_null()).then(Vec::new) };
    // The source has come to say what stands already: it takes its place, and nobody is asked.
    if let [only] = field.heads.as_slice()
        && only.value == *value
        && field.mirrored.get(source).is_some_and(|last| last.value != *value)
    {
        return Some(vec![only.id]);
    }
    match field.mirrored.get(source) {
        Some(last) if last.value == *value => None,
        Some(last) => Some(vec![last.id]),
        None => match field.heads.as_slice() {
            [only] if only.value == *value => None,
            _ => Some(Vec::new()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::ids::Incarnation;

    struct Box {
        record: RecordState,
        next: u64,
    }

    impl Box {
        fn write(&mut self, source: Option<&str>, value: &str) -> bool {
            let action = Action { source: source.map(str::to_owned), ..Action::default() };
            let edit = Edit {
                collection: "student".into(),
                record: "p".into(),
                fields: BTreeMap::from([("address".into(), value.into())]),
                seen: None,
            };
            let stamp = Stamp { ms: self.next, counter: 0 };
            let Some(change) = change_for(&edit, &action, &self.record, stamp) else { return false };
            let id = ChangeId { incarnation: Incarnation::from_bytes([1; 16]), sequence: self.next };
            let next = self.next;
            self.record.apply(id, &change, |base| base.sequence < next);
            self.next += 1;
            true
        }
    }

    /// Goal: an import is three-way. Method: same file twice; a stale file after a correction; a new value
    /// after a correction.
    #[test]
    fn a_stale_import_does_not_undo_a_correction() {
        let mut replica = Box { record: RecordState::default(), next: 1 };
        assert!(replica.write(Some("oneroster"), "old"));
        assert!(!replica.write(Some("oneroster"), "old"));
        assert!(replica.write(None, "corrected"));
        assert!(!replica.write(Some("oneroster"), "old"));
        assert_eq!(replica.record.text("address"), Some("corrected"));
        assert_eq!(replica.record.disputed().count(), 0);
        assert!(replica.write(Some("oneroster"), "newer"));
        assert_eq!(replica.record.disputed().count(), 1, "both values stand for a person to choose");
        assert!(replica.write(None, "newer"));
        assert_eq!(replica.record.disputed().count(), 0);
    }

    /// Goal: staff and source that come to the same value are no dispute. Method: correct, then import that.
    #[test]
    fn agreement_is_no_dispute() {
        let mut replica = Box { record: RecordState::default(), next: 1 };
        assert!(replica.write(Some("oneroster"), "old"));
        assert!(replica.write(None, "new"));
        assert!(replica.write(Some("oneroster"), "new"));
        assert_eq!(replica.record.disputed().count(), 0);
        assert!(!replica.write(Some("oneroster"), "new"));
    }
}

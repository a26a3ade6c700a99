//! A record's state: for each field the heads, that is the values which no other write has seen and replaced.
//!
//! **Invariant**: the state is a function of the set of applied changes, not of their order (P7).
//! Leaves the keeping of records to its callers and the fold over logs to [`crate::view`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::change::Change;
use crate::clock::Stamp;
use crate::ids::ChangeId;
use crate::planted::{Defect, is_planted};

/// A value that stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// The change that wrote it.
    #[serde(rename = "i")]
    pub id: ChangeId,
    /// When, by its writer's clock.
    #[serde(rename = "t")]
    pub stamp: Stamp,
    /// The value.
    #[serde(rename = "v")]
    pub value: Value,
    /// Who wrote it.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The import source that it mirrors.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// One field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FieldState {
    /// Values that stand, ordered by change. One, unless writers did not see each other.
    #[serde(rename = "h")]
    pub heads: Vec<Head>,
    /// Changes that were replaced before they arrived. Normally empty.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    pub replaced_early: Vec<ChangeId>,
    /// What each import source said last, for the three-way comparison of the next import.
    #[serde(rename = "m", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mirrored: BTreeMap<String, Mirrored>,
}

/// The last value that an import source gave to a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mirrored {
    /// The change that brought it.
    #[serde(rename = "i")]
    pub id: ChangeId,
    /// Orders imports of one source by several replicas.
    #[serde(rename = "t")]
    pub stamp: Stamp,
    /// The value.
    #[serde(rename = "v")]
    pub value: Value,
}

impl FieldState {
    /// Returns the value to show: of the heads the one with the highest stamp. With more than one head a
    /// person is asked; until then this one is displayed beside a mark.
    #[must_use]
    pub fn shown(&self) -> Option<&Head> {
        self.heads.iter().max_by_key(|head| (head.stamp, head.id))
    }

    /// Returns the changes that a writer who sees this field replaces.
    #[must_use]
    pub fn bases(&self) -> Vec<ChangeId> {
        self.heads.iter().map(|head| head.id).collect()
    }
}

/// One record: its fields by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordState {
    /// The fields.
    pub fields: BTreeMap<String, FieldState>,
}

impl RecordState {
    /// Returns the value to show of a field; null and absent are both `None`.
    #[must_use]
    pub fn value(&self, field: &str) -> Option<&Value> {
        let value = &self.fields.get(field)?.shown()?.value;
        (!value.is_null()).then_some(value)
    }

    /// Returns the text to show of a field.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.value(field)?.as_str()
    }

    /// Returns the names of the fields whose writers did not see each other.
    pub fn disputed(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|(_, state)| state.heads.len() > 1).map(|(name, _)| name.as_str())
    }

    /// Applies a change whose name is `id`. `seen` says whether a change has been applied before this one;
    /// it keeps bases that arrived and went long ago from being remembered for ever.
    ///
    /// The caller has made sure that `id` itself was not applied before.
    pub fn apply(&mut self, id: ChangeId, change: &Change, seen: impl Fn(ChangeId) -> bool) {
        for (name, write) in &change.fields {
            let field = self.fields.entry(name.clone()).or_default();
            for base in &write.bases {
                match field.heads.iter().position(|head| head.id == *base) {
                    Some(_) if is_planted(Defect::BaseIgnored) => {}
                    Some(position) => {
                        field.heads.remove(position);
                    }
                    None if is_planted(Defect::EarlyReplacementForgotten) => {}
                    None if !seen(*base) && *base != id => insert_sorted(&mut field.replaced_early, *base),
                    None => {}
                }
            }
            if let Some(source) = &change.source {
                mirror(field, source, id, change.stamp, &write.value);
            }
            if let Ok(position) = field.replaced_early.binary_search(&id) {
                field.replaced_early.remove(position);
                continue;
            }
            let head = Head {
                id,
                stamp: change.stamp,
                value: write.value.clone(),
                who: change.who.clone(),
                source: change.source.clone(),
            };
            let position = if is_planted(Defect::HeadsAsTheyCame) {
                field.heads.len()
            } else {
                field.heads.partition_point(|other| other.id < id)
            };
            field.heads.insert(position, head);
        }
    }
}

fn mirror(field: &mut FieldState, source: &str, id: ChangeId, stamp: Stamp, value: &Value) {
    let newer = field.mirrored.get(source).is_none_or(|known| (known.stamp, known.id) < (stamp, id));
    if newer {
        field.mirrored.insert(source.to_owned(), Mirrored { id, stamp, value: value.clone() });
    }
}

fn insert_sorted(ids: &mut Vec<ChangeId>, id: ChangeId) {
    if let Err(position) = ids.binary_search(&id) {
        ids.insert(position, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::FieldWrite;
    use crate::ids::Incarnation;

    fn id(writer: u8, sequence: u64) -> ChangeId {
        ChangeId { incarnation: Incarnation::from_bytes([writer; 16]), sequence }
    }

    fn write(value: &str, ms: u64, bases: &[ChangeId]) -> Change {
        let write = FieldWrite { value: value.into(), bases: bases.to_vec() };
        Change {
            stamp: Stamp { ms, counter: 0 },
            collection: "student".into(),
            record: "p".into(),
            fields: BTreeMap::from([("phone".to_owned(), write)]),
            who: None,
            source: None,
            origin: None,
            rest: serde_json::Map::new(),
        }
    }

    fn fold(changes: &[(ChangeId, Change)]) -> RecordState {
        let mut record = RecordState::default();
        let mut applied: Vec<ChangeId> = Vec::new();
        for (id, change) in changes {
            record.apply(*id, change, |base| applied.contains(&base));
            applied.push(*id);
        }
        record
    }

    /// Goal: a write that saw the present value replaces it although its clock is in 1970. Method: two writes.
    #[test]
    fn bases_beat_clocks() {
        let record = fold(&[(id(1, 1), write("old", 9_000, &[])), (id(2, 1), write("new", 3, &[id(1, 1)]))]);
        assert_eq!(record.text("phone"), Some("new"));
        assert_eq!(record.disputed().count(), 0);
    }

    /// Goal: any order of arrival gives one state. Method: all 24 orders of a chain and a concurrent write.
    #[test]
    fn all_orders_agree() {
        let changes = [
            (id(1, 1), write("a", 10, &[])),
            (id(2, 1), write("b", 20, &[id(1, 1)])),
            (id(3, 1), write("c", 5, &[id(2, 1)])),
            (id(4, 1), write("d", 7, &[id(1, 1)])),
        ];
        let expected = fold(&changes);
        assert_eq!(expected.disputed().collect::<Vec<_>>(), ["phone"]);
        let mut orders = 0;
        for a in 0..4 {
            for b in (0..4).filter(|b| *b != a) {
                for c in (0..4).filter(|c| *c != a && *c != b) {
                    let d = 6 - a - b - c;
                    let order = [a, b, c, d].map(|position: usize| changes[position].clone());
                    assert_eq!(fold(&order), expected, "order {a}{b}{c}{d}");
                    orders += 1;
                }
            }
        }
        assert_eq!(orders, 24);
    }

    /// Goal: resolving names all heads and leaves one. Method: two heads, one write that saw both.
    #[test]
    fn a_resolution_ends_a_dispute() {
        let mut changes = vec![(id(1, 1), write("a", 1, &[])), (id(2, 1), write("b", 2, &[]))];
        let bases = fold(&changes).fields["phone"].bases();
        assert_eq!(bases.len(), 2);
        changes.push((id(1, 2), write("a", 3, &bases)));
        assert_eq!(fold(&changes).disputed().count(), 0);
    }
}

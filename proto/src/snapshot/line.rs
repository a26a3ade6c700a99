//! The line of a record: what several fields have in common is said once.
//!
//! ```text
//! {"c":"student","r":"<id>","b":[["<incarnation>:7",[1764034377123,0],"tanaka",null]],"f":{"name":[[0,"見本 花子"]]}}
//! ```
//! `b` are the changes whose values stand, `f` says of each field which of them wrote what. Spec:
//! `docs/spec/snapshot.md#parts`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::part::Record;
use crate::clock::Stamp;
use crate::ids::ChangeId;
use crate::record::{FieldState, Head, Mirrored, RecordState};

/// A change: its name, its stamp, who, and the import source.
type By = (ChangeId, Stamp, Option<String>, Option<String>);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    c: String,
    r: String,
    b: Vec<By>,
    /// For each field its heads: place of the change in `b`, and the value.
    f: BTreeMap<String, Vec<(usize, Value)>>,
    /// Fields some of whose replacements came before what they replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    x: BTreeMap<String, Vec<ChangeId>>,
    /// Fields of which a source said last something else than its head shows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    m: BTreeMap<String, BTreeMap<String, Mirrored>>,
}

impl Line {
    pub fn of(record: &Record) -> Self {
        let mut line = Self {
            c: record.collection.clone(),
            r: record.record.clone(),
            b: Vec::new(),
            f: BTreeMap::new(),
            x: BTreeMap::new(),
            m: BTreeMap::new(),
        };
        for (name, field) in &record.state.fields {
            let heads = field.heads.iter().map(|head| (line.place(head), head.value.clone())).collect();
            line.f.insert(name.clone(), heads);
            if !field.replaced_early.is_empty() {
                line.x.insert(name.clone(), field.replaced_early.clone());
            }
            if field.mirrored != shown_by(&field.heads) {
                line.m.insert(name.clone(), field.mirrored.clone());
            }
        }
        line
    }

    fn place(&mut self, head: &Head) -> usize {
        let by = (head.id, head.stamp, head.who.clone(), head.source.clone());
        self.b.iter().position(|known| *known == by).unwrap_or_else(|| {
            self.b.push(by);
            self.b.len() - 1
        })
    }

    /// Returns the record; `None` when a field names a change that is not there.
    pub fn record(self) -> Option<Record> {
        let Self { c: collection, r: record, b, f, mut x, mut m } = self;
        let mut state = RecordState::default();
        for (name, heads) in f {
            let head = |(place, value): (usize, Value)| {
                let (id, stamp, who, source) = b.get(place)?.clone();
                Some(Head { id, stamp, value, who, source })
            };
            let heads: Vec<Head> = heads.into_iter().map(head).collect::<Option<_>>()?;
            let mirrored = m.remove(&name).unwrap_or_else(|| shown_by(&heads));
            let replaced_early = x.remove(&name).unwrap_or_default();
            state.fields.insert(name, FieldState { heads, replaced_early, mirrored });
        }
        (x.is_empty() && m.is_empty()).then_some(Record { collection, record, state })
    }
}

/// What import sources have said last if nobody has written since: their heads.
fn shown_by(heads: &[Head]) -> BTreeMap<String, Mirrored> {
    let mut mirrored: BTreeMap<String, Mirrored> = BTreeMap::new();
    for head in heads {
        let Some(source) = &head.source else { continue };
        let said = Mirrored { id: head.id, stamp: head.stamp, value: head.value.clone() };
        let newer = mirrored.get(source).is_none_or(|known| (known.stamp, known.id) < (said.stamp, said.id));
        if newer {
            mirrored.insert(source.clone(), said);
        }
    }
    mirrored
}

//! Imports among the writes of people, against a model that knows only what was written and seen (decision 0007).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sonae_journal::sim::SimDisk;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::Tier;
use sonae_store::options::Defects;
use sonae_store::testing::{Board, opening};
use sonae_store::{Action, Clock, Edit, Options, Store, enrolment};

use crate::workload::Random;

/// What stands of one field, as anybody outside would say.
#[derive(Default)]
struct Model {
    /// The values that stand, each with whether the source wrote it.
    standing: BTreeSet<(String, bool)>,
    /// What the source said last.
    said: Option<String>,
}

impl Model {
    fn values(&self) -> BTreeSet<String> {
        self.standing.iter().map(|(value, _)| value.clone()).collect()
    }

    fn is_only(&self, value: &str) -> bool {
        self.standing.len() == 1 && self.values().contains(value)
    }

    /// A person sees what stands, and replaces it.
    fn write(&mut self, value: &str) {
        if !self.is_only(value) {
            self.standing = BTreeSet::from([(value.to_owned(), false)]);
        }
    }

    /// The source is heard when it says something new. Its word takes the place of its own last one, and what people wrote
    /// since stays beside it. Where it comes to say what stands already nobody is asked; if it is its first word, nothing
    /// is noted.
    fn import(&mut self, value: &str) {
        let is_first = self.said.is_none();
        if self.said.as_deref() == Some(value) || (is_first && self.is_only(value)) {
            return;
        }
        self.said = Some(value.to_owned());
        if self.is_only(value) {
            self.standing.clear();
        }
        self.standing.retain(|(_, by_source)| !by_source);
        self.standing.insert((value.to_owned(), true));
    }
}

fn write(store: &Store, source: Option<&str>, record: &str, value: &str) {
    let fields = BTreeMap::from([("grade".to_owned(), value.into())]);
    let edit = Edit { collection: "student".into(), record: record.into(), fields, seen: None };
    let source = source.map(str::to_owned);
    store.write_blocking(Action { who: Some("tester".into()), source, edits: vec![edit] }).unwrap();
}

/// Plays one seed. Returns what stands otherwise than it should.
fn play(seed: u64, defects: Defects) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Board::default().bundle();
    drop(enrolment::enrol(dir.path(), &bundle, Beginning::Enrolment, 1).unwrap());
    let options = Options { defects, ..Options::without_reserve() };
    let disk = Arc::new(SimDisk::new(seed));
    let opened = Store::open(opening(dir.path(), &bundle, Clock::system(), disk, options)).unwrap();
    let mut random = Random(seed);
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let mut wrong = None;
    for _ in 0..40 {
        let record = format!("p{}", random.below(2));
        let value = ["P1", "P2", "P3"][usize::try_from(random.below(3)).unwrap()];
        let source = (random.below(2) == 0).then_some("oneroster");
        write(&opened.store, source, &record, value);
        let model = models.entry(record.clone()).or_default();
        match source {
            Some(_) => model.import(value),
            None => model.write(value),
        }
        let state = opened.store.record(Tier::Safety, "student", &record).unwrap().unwrap();
        let heads = state.fields["grade"].heads.iter();
        let found: BTreeSet<String> = heads.map(|head| head.value.as_str().unwrap().to_owned()).collect();
        let expected = model.values();
        if found != expected {
            wrong = Some(format!("seed {seed}: {found:?} stands in place of {expected:?}"));
            break;
        }
    }
    opened.close();
    wrong
}

/// Goal: what people corrected stands against a source that says nothing new, and beside one that does; a source that
/// overwrites is caught. Method: random writes of people and a source; the same with the planted defect.
#[test]
fn imports_are_three_way() {
    let found: Vec<_> = (1..=40).filter_map(|seed| play(seed, Defects::None)).collect();
    assert_eq!(found, Vec::<String>::new());
    assert!((1..4).any(|seed| play(seed, Defects::ImportTwoWay).is_some()), "the defect was not caught");
}

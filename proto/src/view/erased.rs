//! Tombstones: sticky, and of no order.

use proptest::prelude::*;

use super::*;
use crate::erasure::{Place, tombstone};
use crate::ids::Incarnation;

const TIER: Tier = Tier::Daily;

fn key() -> DigestKey {
    DigestKey::from_secret("k")
}

fn log(writer: u8) -> LogName {
    LogName { tier: TIER, incarnation: Incarnation::from_bytes([writer; 16]) }
}

fn stone(pupil: &str) -> String {
    tombstone(&key(), "attendance", Place::Part(1), pupil)
}

fn line(collection: &str, record: &str, value: u64) -> Vec<u8> {
    let line = serde_json::json!({"t": [value, 0], "c": collection, "r": record, "f": {"f": value}});
    line.to_string().into_bytes()
}

type Folded = (Fold, MemoryRecords);

fn fresh() -> Folded {
    (Fold::new(key()), MemoryRecords::default())
}

fn apply(folded: &mut Folded, writer: u8, line: &[u8]) -> Applied {
    let sequence = folded.0.applied(log(writer)) + 1;
    folded.0.apply(&mut folded.1, log(writer), sequence, line).unwrap()
}

/// Adds the digest of all records up anew.
fn sum(folded: &Folded) -> Digest {
    let mut sum = Digest::default();
    for ((_, collection, record), state) in &folded.1.records {
        if collection != REISSUED {
            sum.add(&key().record(collection, record, state));
        }
    }
    sum
}

/// Goal: a tombstone takes a pupil's records out with all heads, other pupils stay, and nothing written to them later
/// has an effect, also to records that were not there. Method: two pupils, concurrent heads, a tombstone, more writes.
#[test]
fn an_erased_pupil_does_not_come_back() {
    let mut folded = fresh();
    for (writer, record) in [(1, "d1/p1/day"), (2, "d1/p1/day"), (1, "d1/p2/day"), (1, "d2/p1/day")] {
        apply(&mut folded, writer, &line("attendance", record, 7));
    }
    assert!(matches!(apply(&mut folded, 3, &line("erased.daily", &stone("p1"), 8)), Applied::Changed(_)));
    let left: Vec<_> = folded.1.records.keys().map(|key| key.2.clone()).collect();
    assert_eq!(left, ["d1/p2/day".to_owned(), stone("p1")]);
    assert_eq!(folded.0.digests[&TIER], sum(&folded));
    let before = (folded.0.digests.clone(), folded.1.clone());
    for record in ["d1/p1/day", "d9/p1/day"] {
        assert_eq!(apply(&mut folded, 2, &line("attendance", record, 9)), Applied::Erased);
    }
    assert_eq!((&folded.0.digests, &folded.1), (&before.0, &before.1));
    // Clearing the tombstone, or one for it, takes nothing back.
    let cleared = format!(r#"{{"t":[9,0],"c":"erased.daily","r":"{}","f":{{"f":null}}}}"#, stone("p1"));
    apply(&mut folded, 2, cleared.as_bytes());
    let of_stone = tombstone(&key(), "erased.daily", Place::Whole, &stone("p1"));
    apply(&mut folded, 2, &line("erased.daily", &of_stone, 9));
    assert_eq!(apply(&mut folded, 2, &line("attendance", "d1/p1/day", 9)), Applied::Erased);
    assert_eq!(folded.0.digests[&TIER], sum(&folded));
}

/// Goal: a tombstone of one tier, or under another school's key, does nothing elsewhere. Method: both.
#[test]
fn tombstones_are_of_one_tier_and_school() {
    let mut folded = fresh();
    apply(&mut folded, 1, &line("attendance", "d1/p1/day", 7));
    apply(&mut folded, 1, &line("erased.safety", &stone("p1"), 8));
    let foreign = tombstone(&DigestKey::from_secret("other"), "attendance", Place::Part(1), "p1");
    apply(&mut folded, 1, &line("erased.daily", &foreign, 8));
    assert!(!folded.1.get(TIER, "attendance", "d1/p1/day").unwrap().fields.is_empty());
}

/// A change of a history: three writers write to four records, two of which are erased at some time, and some issue
/// again what another branch had written.
fn change(what: u8, value: u64) -> Vec<u8> {
    let record = |number: u8| format!("d{}/p{}/day", number / 2, number % 2);
    match what {
        0..=3 => line("attendance", &record(what), value),
        4 => line("erased.daily", &stone("p1"), value),
        5 => line("erased.daily", &tombstone(&key(), "attendance", Place::Whole, &record(2)), value),
        _ => {
            let mut line: serde_json::Value =
                serde_json::from_slice(&line("attendance", &record(what % 4), 1_000)).unwrap();
            let id = ChangeId { incarnation: Incarnation::from_bytes([9; 16]), sequence: what.into() };
            line["o"] = id.to_string().into();
            line.to_string().into_bytes()
        }
    }
}

proptest! {
    /// Goal: order-free (P7), with tombstones. Method: any interleaving that keeps each log's order, with doubles,
    /// gives one state, one digest, and that digest is the sum of what is left.
    #[test]
    fn any_interleaving_with_tombstones_gives_one_state(
        choices in proptest::collection::vec((1_u8..4, 0_u8..10), 1..25),
        picks in proptest::collection::vec(0_usize..25, 0..200),
    ) {
        let mut next = [1_u64; 4];
        let mut lines: Vec<(LogName, u64, Vec<u8>)> = Vec::new();
        for ((writer, what), value) in choices.iter().zip(1..) {
            let sequence = &mut next[usize::from(*writer)];
            lines.push((log(*writer), *sequence, change(*what, value)));
            *sequence += 1;
        }
        let mut straight = fresh();
        for (log, sequence, line) in &lines {
            straight.0.apply(&mut straight.1, *log, *sequence, line).unwrap();
        }
        let (mut mixed, mut rest) = (fresh(), lines);
        for pick in picks.into_iter().chain(std::iter::repeat(0)) {
            if rest.is_empty() { break; }
            let wanted = rest[pick.min(rest.len() - 1)].0;
            let position = rest.iter().position(|(log, _, _)| *log == wanted).unwrap();
            let (log, sequence, line) = rest.remove(position);
            mixed.0.apply(&mut mixed.1, log, sequence, &line).unwrap();
            prop_assert_eq!(mixed.0.apply(&mut mixed.1, log, sequence, &line).unwrap(), Applied::Duplicate);
        }
        prop_assert_eq!(&straight.0.sequences, &mixed.0.sequences);
        prop_assert_eq!(&straight.1, &mixed.1);
        prop_assert_eq!(&straight.0.digests, &mixed.0.digests);
        prop_assert_eq!(straight.0.digests[&TIER], sum(&straight));
    }
}

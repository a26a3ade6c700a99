//! Tests of snapshots: what is cut, sealed and signed comes back, and nothing else passes.

use super::*;
use crate::ids::LogName;
use crate::record::RecordState;
use crate::seal::OpenKey;
use crate::vector::LogHead;

fn record(n: usize, value: &str) -> Record {
    let state: RecordState = serde_json::from_value(serde_json::json!({
        "code": {"h": [{"i": format!("01010101010101010101010101010101:{}", n + 1), "t": [1_764_034_377_000_u64 + 7 * n as u64, 0], "v": value, "w": "tanaka"}]}
    }))
    .unwrap();
    Record { collection: "attendance".into(), record: format!("2026-04-08/p{n:06}/day"), state }
}

fn cut(records: &[Record]) -> Vec<Vec<u8>> {
    let mut cutter = PartCutter::default();
    let mut parts: Vec<Vec<u8>> = records
        .iter()
        .filter_map(|record| cutter.push(record).unwrap())
        .map(|lines| lines.to_vec())
        .collect();
    parts.extend(cutter.finish().map(|lines| lines.to_vec()));
    parts
}

fn root(parts: Vec<PartName>, digest: Digest, records: u64, key: &SigningKey) -> SnapshotRoot {
    let author = Incarnation::of_key(key.verifying_key().as_bytes());
    let log = LogName { tier: Tier::Daily, incarnation: author };
    SnapshotRoot {
        school: "B113200000011".parse().unwrap(),
        tier: Tier::Daily,
        author,
        epoch: 2026,
        manifest: Hash32([4; 32]),
        merge_version: MERGE_VERSION,
        heads: Heads::from([(log, LogHead { sequence: 9, hash: Hash32([7; 32]) })]),
        digest,
        records,
        parts,
    }
}

/// Goal: records come back whole, in order, and add up to their digest. Method: cut, seal, open, sum.
#[test]
fn parts_bring_all_records_back() {
    let records: Vec<Record> = (0..8_000).map(|n| record(n, "absent_sick")).collect();
    let (key, digest_key) = (OpenKey::generate(), DigestKey::from_secret("k"));
    let parts = cut(&records);
    assert!(parts.len() > 1, "{} parts", parts.len());
    let mut sum = Sum::new(digest_key.clone());
    let mut back = Vec::new();
    for lines in &parts {
        back.extend(open_part(&seal_part(lines, &key.recipient()).unwrap(), &key).unwrap());
    }
    back.iter().for_each(|record| sum.add(record));
    assert_eq!(back, records);
    let signing = SigningKey::from_bytes(&[5; 32]);
    let right = root(vec![PartName::of(b"x")], sum.digest(), 8_000, &signing);
    assert!(sum.is_of(&right));
    for wrong in [
        SnapshotRoot { records: 7_999, ..right.clone() },
        SnapshotRoot { digest: Digest::default(), ..right.clone() },
        SnapshotRoot { merge_version: MERGE_VERSION + 1, ..right },
    ] {
        assert!(!sum.is_of(&wrong));
    }
}

/// Goal: whatever a record can hold comes back. Method: several heads by several writers, early replacements, sources
/// that agree with their heads and such that do not, fields without heads; then lines that refer to nothing.
#[test]
fn every_state_of_a_record_comes_back() {
    let id = |n: u8| format!("{}:{n}", "0".repeat(30) + &format!("{n:02}"));
    let states = [
        serde_json::json!({}),
        serde_json::json!({"f": {"h": []}}),
        serde_json::json!({
            "a": {"h": [{"i": id(1), "t": [5, 0], "v": "x"}, {"i": id(2), "t": [5, 1], "v": null, "w": "tanaka"}]},
            "b": {"h": [{"i": id(1), "t": [5, 0], "v": {"deep": [1.5]}}], "x": [id(3), id(4)]},
        }),
        serde_json::json!({
            "agrees": {
                "h": [{"i": id(1), "t": [5, 0], "v": "x", "s": "roster"}],
                "m": {"roster": {"i": id(1), "t": [5, 0], "v": "x"}},
            },
            "was_corrected": {
                "h": [{"i": id(2), "t": [6, 0], "v": "y", "w": "tanaka"}],
                "m": {"roster": {"i": id(1), "t": [5, 0], "v": "x"}},
            },
            "forgotten": {"h": [{"i": id(1), "t": [5, 0], "v": "x", "s": "roster"}]},
        }),
    ];
    for state in states {
        let state: RecordState = serde_json::from_value(state).unwrap();
        let record = Record { collection: "student".into(), record: "p1".into(), state };
        let line = record.to_line().unwrap();
        let key = OpenKey::generate();
        assert_eq!(open_part(&seal_part(&line, &key.recipient()).unwrap(), &key).unwrap(), [record]);
    }
    let key = OpenKey::generate();
    for wrong in [
        r#"{"c":"a","r":"x","b":[],"f":{"f":[[0,1]]}}"#,
        r#"{"c":"a","r":"x","b":[],"f":{},"x":{"f":[]}}"#,
        r#"{"c":"a","r":"x","b":[],"f":{},"m":{"f":{}}}"#,
        r#"{"c":"a","r":"x"}"#,
        "rubbish",
    ] {
        let sealed = seal_part(wrong.as_bytes(), &key.recipient()).unwrap();
        assert!(open_part(&sealed, &key).is_err(), "{wrong}");
    }
}

/// Goal: a change in one place leaves nearly all parts as they were, so that they need not be sent again. Method:
/// change a record in the middle, insert one, append some; compare parts.
#[test]
fn what_has_not_changed_gives_the_same_parts() {
    let mut records: Vec<Record> = (0..60_000).map(|n| record(2 * n, "absent_sick")).collect();
    let before = cut(&records);
    records[29_000] = record(58_000, "present");
    records.insert(9_001, record(18_001, "late"));
    records.extend((60_000..60_200).map(|n| record(2 * n, "late")));
    let after = cut(&records);
    let same = after.iter().filter(|lines| before.contains(lines)).count();
    assert!(before.len() > 8, "{} parts", before.len());
    assert!(same + 4 >= after.len(), "{same} of {} parts are as before", after.len());
}

/// Goal: a root passes only as it was signed, by an incarnation of the school, within the limits. Method: change
/// one thing at a time.
#[test]
fn roots_pass_only_as_they_were_signed() {
    let key = SigningKey::from_bytes(&[5; 32]);
    let right = root(vec![PartName::of(b"x")], Digest::default(), 1, &key);
    let (school, author) = (right.school, right.author);
    let key_of = |name| (name == author).then(|| key.verifying_key());
    let snapshot = Snapshot::sign(right.clone(), &key).unwrap();
    assert_eq!(Snapshot::verify(snapshot.text(), school, key_of).unwrap(), snapshot);
    let other = "B113200000029".parse().unwrap();
    assert!(matches!(Snapshot::verify(snapshot.text(), other, key_of), Err(SnapshotError::Limits)));
    let unknown = Snapshot::verify(snapshot.text(), school, |_| None);
    assert!(matches!(unknown, Err(SnapshotError::Author { .. })));
    let forged = snapshot.text().replacen("2026", "2027", 1);
    assert!(matches!(Snapshot::verify(&forged, school, key_of), Err(SnapshotError::Document(_))));
    let foreign_log = LogName { tier: Tier::Archive, incarnation: author };
    let head = LogHead { sequence: 1, hash: Hash32([1; 32]) };
    for wrong in [
        SnapshotRoot { heads: Heads::new(), ..right.clone() },
        SnapshotRoot { heads: Heads::from([(foreign_log, head)]), ..right.clone() },
        SnapshotRoot { parts: Vec::new(), ..right.clone() },
        SnapshotRoot { parts: vec![PartName::of(b"x"); SNAPSHOT_PARTS_MAX + 1], ..right.clone() },
        SnapshotRoot { parts: vec![PartName { bytes: u32::MAX, ..PartName::of(b"x") }], ..right.clone() },
    ] {
        assert!(matches!(Snapshot::sign(wrong, &key), Err(SnapshotError::Limits)));
    }
}

/// Goal: a part is known by all that its name says of it, also by a name of before, which says less. Method: another part,
/// and names in which one thing is another's; then both texts.
#[test]
fn a_part_is_known_by_its_name() {
    let (name, other) = (PartName::of(b"a part"), PartName::of(b"b part"));
    let before = PartName { sha256: None, ..name };
    assert!(name.is_of(b"a part") && before.is_of(b"a part"));
    assert!(!name.is_of(b"b part") && !before.is_of(b"b part"));
    for wrong in [
        PartName { bytes: 7, ..name },
        PartName { hash: other.hash, ..name },
        PartName { sha256: other.sha256, ..name },
    ] {
        assert!(!wrong.is_of(b"a part"), "{wrong:?}");
    }
    let text = serde_json::to_string(&name).unwrap();
    // `printf 'a part' | sha256sum`
    assert!(
        text.ends_with(r#""sha256":"3513ae1a39086c2a2738daa630b9e2f304f41b5945228e0741a117a508fc51b9"}"#),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<PartName>(&text).unwrap(), name);
    let text = serde_json::to_string(&before).unwrap();
    assert!(!text.contains("sha256") && serde_json::from_str::<PartName>(&text).unwrap() == before);
}

/// Goal: the largest root fits its document. Method: as many heads and parts as the limits allow.
#[test]
fn the_largest_root_fits() {
    let key = SigningKey::from_bytes(&[5; 32]);
    let part = PartName { bytes: 1_000_000, ..PartName::of(b"x") };
    let mut largest = root(vec![part; SNAPSHOT_PARTS_MAX], Digest::default(), u64::MAX, &key);
    largest.heads = (0..SNAPSHOT_HEADS_MAX)
        .map(|n| {
            let incarnation = Incarnation::from_bytes(u128::MAX.wrapping_sub(n as u128).to_be_bytes());
            let head = LogHead { sequence: u64::MAX, hash: Hash32([255; 32]) };
            (LogName { tier: Tier::Daily, incarnation }, head)
        })
        .collect();
    Snapshot::sign(largest, &key).unwrap();
}

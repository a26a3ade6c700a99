//! The names of an export's files. Spec: `docs/spec/export.md`.
//!
//! **Invariant**: names are ASCII, sort in the order of the log, and come from fields that were checked.

use crate::batch::BatchHeader;
use crate::ids::{Hash32, Incarnation};
use crate::manifest::KeyUse;
use crate::snapshot::SnapshotRoot;

/// Returns the name of a key: `tier0-2026`, `digest-0`.
#[must_use]
pub fn key_name(key_use: KeyUse, epoch: u32) -> String {
    format!("{key_use}-{epoch}")
}

/// Returns the file of a wrapped key that opens with the newest manifest's readers.
#[must_use]
pub fn key_file(key_use: KeyUse, epoch: u32) -> String {
    format!("keys/{}.age", key_name(key_use, epoch))
}

/// Returns the file of a wrapped key of an earlier set of key documents.
#[must_use]
pub fn earlier_key_file(set: &str, key_use: KeyUse, epoch: u32) -> String {
    format!("keys/earlier/{set}/{}.age", key_name(key_use, epoch))
}

/// Returns the file of a manifest.
#[must_use]
pub fn manifest_file(version: u64, hash: Hash32) -> String {
    format!("manifests/{version:06}-{}.txt", short(hash))
}

/// Returns the files of an identity: device, incarnation.
#[must_use]
pub fn identity_files(incarnation: Incarnation, device: Hash32) -> (String, String) {
    (format!("identities/device-{}.txt", short(device)), format!("identities/incarnation-{incarnation}.txt"))
}

/// Returns the file of the evidence of a restore proof.
#[must_use]
pub fn proof_file(incarnation: Incarnation, number: u64) -> String {
    format!("proofs/{incarnation}-{number:06}.txt")
}

/// Returns the file of a batch's payload.
#[must_use]
pub fn batch_file(header: &BatchHeader) -> String {
    payload_file("batches", header)
}

/// Returns the file of the payload of a batch that the board does not accept: not where people look for all batches.
#[must_use]
pub fn quarantined_file(header: &BatchHeader) -> String {
    payload_file("quarantine", header)
}

fn payload_file(top: &str, header: &BatchHeader) -> String {
    let folder = key_name(KeyUse::Tier(header.log.tier), header.epoch);
    format!("{top}/{folder}/{}/{:012}-{:012}.age", header.log.incarnation, header.first, header.last)
}

/// Returns the file of a snapshot's root. Its parts lie beside it.
#[must_use]
pub fn snapshot_root_file(root: &SnapshotRoot) -> String {
    format!("{}/root.txt", snapshot_folder(root))
}

/// Returns the file of a part of a snapshot, by its number from 0.
#[must_use]
pub fn snapshot_part_file(root: &SnapshotRoot, number: usize) -> String {
    format!("{}/{number:06}.age", snapshot_folder(root))
}

/// An author's heads only grow, so the changes that they add up tell one snapshot of a key from the next.
fn snapshot_folder(root: &SnapshotRoot) -> String {
    let key = key_name(KeyUse::Tier(root.tier), root.epoch);
    format!("snapshots/{key}/{}-{:012}", root.author, root.changes())
}

/// Returns the name of a file whose own name another content took: the second batch of one place in a log.
#[must_use]
pub fn rival_file(name: &str, content: Hash32) -> String {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, "bin"));
    format!("{stem}-{}.{extension}", short(content))
}

/// Returns the file of a document that does not verify.
#[must_use]
pub fn foreign_file(kind: &str, content: Hash32) -> String {
    format!("foreign/{kind}-{}.json", short(content))
}

/// The first eight digits of a hash: enough to tell files apart that a person looks at.
#[must_use]
pub fn short(hash: Hash32) -> String {
    hash.to_string().chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogName, Tier};

    fn header(first: u64, payload_hash: Hash32) -> BatchHeader {
        BatchHeader {
            school: "B113200000011".parse().unwrap(),
            log: LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([7; 16]) },
            first,
            last: first + 9,
            previous: Hash32::ZERO,
            epoch: 2026,
            manifest: Hash32([4; 32]),
            payload_bytes: 1,
            payload_hash,
        }
    }

    /// Goal: names sort as the log does, and rivals have names of their own. Method: growing sequences, two
    /// batches of one place.
    #[test]
    fn names_sort_as_the_log() {
        let name = |first| batch_file(&header(first, Hash32::ZERO));
        let names: Vec<String> = [1, 9, 10, 99, 1_000, 10_000_000_000].map(name).to_vec();
        assert!(names.is_sorted(), "{names:?}");
        let folder = "batches/tier1-2026/07070707070707070707070707070707";
        assert_eq!(names[0], format!("{folder}/000000000001-000000000010.age"));
        assert_eq!(
            rival_file(&names[0], Hash32([1; 32])),
            format!("{folder}/000000000001-000000000010-01010101.age")
        );
    }
}

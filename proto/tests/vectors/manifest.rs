//! The manifest of the vectors: one epoch, the board's readers and one replica.

use sonae_proto::identity::ReplicaKind;
use sonae_proto::ids::{SchoolCode, Tier};
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, Reader};

pub fn manifest(school: SchoolCode, recipient: &str, replica: &str) -> Manifest {
    let key = |key_use, epoch| ManifestKey { key_use, epoch, recipient: recipient.to_owned() };
    let reader = |name: &str, kind| Reader { name: name.to_owned(), kind, recipient: recipient.to_owned() };
    let mut keys = Tier::ALL.map(|tier| key(KeyUse::Tier(tier), 2026)).to_vec();
    keys.push(key(KeyUse::Digest, 0));
    let readers = vec![
        reader("operations", None),
        reader("recovery", None),
        reader(replica, Some(ReplicaKind::Appliance)),
    ];
    Manifest { school, version: 7, keys, readers, revoked: Vec::new(), held: Vec::new(), destroyed: vec![] }
}

//! What a node knows, for people: schools, heads of logs, incarnations. Nothing here is secret.

use ed25519_dalek::VerifyingKey;

use crate::identity::{Beginning, ReplicaKind};
use crate::ids::{Incarnation, ReplicaId, SchoolCode};
use crate::vector::Heads;

use super::{Intake, Proofs, QuarantinedBranch, School, heads};

/// One school.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchoolOverview {
    /// Whose data.
    pub school: SchoolCode,
    /// Version of the newest manifest here; 0 when there is none.
    pub manifest_version: u64,
    /// Heads of all its logs.
    pub heads: Heads,
    /// Devices that the board has revoked.
    pub revoked: Vec<ReplicaId>,
    /// Batches of theirs that wait for a person.
    pub quarantined: Vec<QuarantinedBranch>,
    /// All incarnations, those of one device together, the oldest first.
    pub incarnations: Vec<IncarnationOverview>,
    /// The evidence of their restore proofs, those of one incarnation together.
    pub proofs: Vec<Proofs>,
}

/// One incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncarnationOverview {
    /// Its name.
    pub incarnation: Incarnation,
    /// The device.
    pub replica: ReplicaId,
    /// What the device is for.
    pub kind: ReplicaKind,
    /// Why it began.
    pub beginning: Beginning,
    /// When, by the device's clock, milliseconds since 1970 UTC.
    pub began_ms: u64,
    /// 1 for the device's first, 2 for its second, and so on.
    pub ordinal: usize,
}

impl Intake {
    /// Returns the key that signs the batches of an incarnation, if the node knows it.
    #[must_use]
    pub fn key_of(&self, school: SchoolCode, incarnation: Incarnation) -> Option<VerifyingKey> {
        self.schools.get(&school)?.identities.get(&incarnation).map(|identity| *identity.key())
    }

    /// Returns what is known of every school.
    #[must_use]
    pub fn overview(&self) -> Vec<SchoolOverview> {
        self.schools.iter().map(|(code, school)| one(*code, school)).collect()
    }
}

fn one(code: SchoolCode, school: &School) -> SchoolOverview {
    let mut incarnations: Vec<IncarnationOverview> = school
        .identities
        .iter()
        .map(|(name, identity)| IncarnationOverview {
            incarnation: *name,
            replica: identity.incarnation.body().replica,
            kind: identity.device.body().kind,
            beginning: identity.incarnation.body().beginning,
            began_ms: identity.incarnation.body().began_ms,
            ordinal: 1,
        })
        .collect();
    incarnations.sort_by_key(|one| (one.replica, one.began_ms, one.incarnation));
    let mut before: Option<(ReplicaId, usize)> = None;
    for one in &mut incarnations {
        one.ordinal = before.filter(|(replica, _)| *replica == one.replica).map_or(1, |(_, n)| n + 1);
        before = Some((one.replica, one.ordinal));
    }
    SchoolOverview {
        school: code,
        manifest_version: school.newest,
        heads: heads(school),
        revoked: school.revocations.devices().collect(),
        quarantined: school.quarantined(),
        incarnations,
        proofs: school.proofs.values().cloned().collect(),
    }
}

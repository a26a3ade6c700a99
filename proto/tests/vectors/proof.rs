//! Vectors of the evidence of restore proofs.

use std::collections::BTreeMap;

use sonae_proto::digest::Digest;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::proof::{Proof, ProofResult};
use sonae_proto::signed::Signed;
use sonae_proto::vector::Heads;

use super::file::Vector;
use super::make::{Made, Named, hex, named};

impl Made {
    /// Evidence of a restore proof at the head of the one log.
    pub fn proof(&self) -> Signed<Proof> {
        let proof = Proof {
            school: self.school,
            incarnation: self.log.incarnation,
            number: 41,
            result: ProofResult::Proved,
            cause: String::new(),
            tiers: vec![],
            heads: Heads::from([(self.log, self.batch.header().head())]),
            digests: Tier::ALL.into_iter().map(|tier| (tier, Digest::default())).collect(),
            merge_version: 1,
            began_ms: 1_775_000_004_000,
            duration_ms: 5_000,
            bytes: 60_000,
            software: "sonae-edge 0.1.0".into(),
            snapshots: BTreeMap::new(),
        };
        proof.sign(&self.writer).unwrap()
    }

    pub fn proofs(&self) -> Vec<Named> {
        let good = self.proof();
        let failed = Proof {
            result: ProofResult::Differs,
            cause: "digest".into(),
            tiers: vec![Tier::Safety],
            ..good.body().clone()
        };
        let snapshots = BTreeMap::from([(Tier::Safety, Hash32([0x5A; 32]))]);
        let through = Proof { snapshots, ..good.body().clone() }.sign(&self.writer).unwrap();
        let without = Proof { digests: BTreeMap::new(), ..good.body().clone() };
        let vector = |expect, comment, text: &str| {
            Vector::new("proof", expect, comment)
                .field("key", hex(&self.writer))
                .field("school", self.school)
                .text("body", text)
        };
        let changed = good.text().replacen("\"number\":41", "\"number\":42", 1);
        let without = Signed::sign(without, &self.writer).unwrap();
        let other = self.identity.incarnation.as_str();
        vec![
            named("proof-good", vector("ok", "all three tiers proved", good.text())),
            named("proof-snapshots", vector("ok", "tier 0 came as a snapshot", through.text())),
            named("proof-differs", vector("ok", "a tier differs", failed.sign(&self.writer).unwrap().text())),
            named("proof-changed", vector("document", "the number changed after signing", &changed)),
            named("proof-no-digest", vector("unfit", "a success that shows no digest", without.text())),
            named("proof-other-kind", vector("document", "an incarnation certificate", other)),
        ]
    }
}

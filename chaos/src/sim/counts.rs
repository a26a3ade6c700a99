//! What happened in runs, in numbers: counted in the world of one, added up in a report of many.

use std::ops::AddAssign;

use serde::Serialize;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of one run, or of many.
        #[derive(Debug, Default, Clone, Serialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// New incarnations that engines asked for.
    renewals,
    /// How often boxes pruned.
    prunes,
    /// How often the cloud had lost what a box had pruned.
    unfillable,
    /// Snapshots that boxes made.
    snapshots,
    /// Tiers that began with one.
    beginnings,
    /// Tombstones that persons wrote.
    erasures,
    /// Changes of erased records that came later, in the views at the ends of runs.
    without_effect,
    /// Connections between boxes.
    links,
    /// Batches that were taken from neighbours.
    from_neighbours,
    /// Batches that were brought to the cloud by others than their writers.
    relayed,
    /// Writes that were refused because a disk was full.
    refused_for_room,
    /// How often a second node stood beside the first.
    splits,
    /// Bits that rotted on disks.
    rots,
    /// How often a journal was made again for that.
    repairs,
    /// Bundles that boxes gave to couriers.
    carried,
    /// Receipts that couriers brought and that moved what is safe.
    receipts_by_hand,
    /// Visits of an auditor.
    audits,
    /// Objects that a node did not find at a site, because that listed them late.
    unlisted,
}

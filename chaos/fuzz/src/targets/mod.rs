//! The targets, one file for each decoder or family of decoders.

use crate::Target;

pub mod batch;
pub mod bundle;
pub mod change;
pub mod courier;
pub mod document;
pub mod frame;
pub mod heads;
pub mod journal;
pub mod object;
pub mod payload;
pub mod receipt;
pub mod roster;
pub mod snapshot;
pub mod store;
pub mod tables;

/// All targets, in the order in which they are run.
pub const ALL: [&dyn Target; 15] = [
    &batch::BatchTarget,
    &payload::PayloadTarget,
    &change::ChangeTarget,
    &frame::FrameTarget,
    &receipt::ReceiptTarget,
    &document::DocumentTarget,
    &snapshot::SnapshotTarget,
    &bundle::BundleTarget,
    &courier::CourierTarget,
    &object::ObjectTarget,
    &heads::HeadsTarget,
    &journal::JournalTarget,
    &store::StoreTarget,
    &roster::RosterTarget,
    &tables::TablesTarget,
];

/// Finds a target by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Target> {
    ALL.into_iter().find(|target| target.name() == name)
}

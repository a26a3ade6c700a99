//! Deliberate defects, with which the simulation proves that it would find real ones.
//!
//! **Invariant**: without the feature `planted` there is no switch: [`is_planted`] is a constant `false` and the
//! defective paths are not compiled into anything that is shipped. With it, nothing is planted until a test
//! says so, for its own thread only, or a program that was built for tests, for all its threads.

/// A defect that a test can plant: of this crate, or of the drivers around its engines, as is said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "planted", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Defect {
    /// The uplink counts a receipt that was signed under an older loss counter.
    StaleReceipt,
    /// The uplink does not notice that the cloud has lost what it had receipted.
    LossNotNoticed,
    /// The uplink goes on with its own log although the cloud has another history of it.
    OwnLogReused,
    /// The uplink sends the archive before what a safety check needs.
    TierPriorityLost,
    /// The uplink does not send again what was on a line that is gone.
    SentForGood,
    /// The uplink does not forget a fetch whose line is gone, so no other is begun.
    FetchForGood,
    /// The uplink stores a peer's batch that does not continue its log.
    PeerChainNotChecked,
    /// The uplink stores a peer's batch again.
    KnownBatchStored,
    /// The node takes a batch that does not continue its log.
    ChainNotChecked,
    /// The node signs a receipt for what one site has.
    ReceiptOfOneSite,
    /// The node signs receipts before anything is stored.
    ReceiptBeforeStore,
    /// The node takes what a site has been given for durable, without a flush.
    SiteNotFlushed,
    /// The node signs a receipt for a batch behind one that is not durable.
    ReceiptBehindHole,
    /// The node never writes identities to its sites.
    IdentityNotStored,
    /// The node forgets the second asker of a batch that is on its way.
    SecondAskerForgotten,
    /// The uplink does not notice that the cloud takes back what it said it has of a peer's log.
    PeerLossNotNoticed,
    /// The uplink does not notice another history of a peer's log.
    OtherHistoryTaken,
    /// Nobody checks who signed a batch.
    BatchSignatureNotChecked,
    /// Nobody checks that a payload is the one that its header names.
    PayloadNotChecked,
    /// The uplink counts receipts that nobody signed.
    ReceiptSignatureNotChecked,
    /// The uplink counts a receipt for another batch than the one that it holds.
    ReceiptOfOtherBatch,
    /// A document counts without its signature.
    DocumentSignatureNotChecked,
    /// A courier's bundle that ends early passes for whole.
    CutBundleIsWhole,
    /// What a revoked device sends counts as ever.
    RevocationIgnored,
    /// A write does not replace the values that its writer saw.
    BaseIgnored,
    /// A value that was replaced before it arrived stands all the same.
    EarlyReplacementForgotten,
    /// Heads are kept in the order in which they arrived.
    HeadsAsTheyCame,
    /// A change that is re-issued under another incarnation is applied again.
    ReissueAppliedTwice,
    /// The uplink keeps a part of a snapshot that is not the one that its root names.
    SnapshotPartUnchecked,
    /// The node takes a snapshot that names more of a log than is durable there.
    SnapshotAheadTaken,
    /// The uplink counts a tier's logs as held up to the heads of a snapshot whose state was not laid under it.
    SnapshotHeadsAlone,
    /// The node takes a snapshot of which the last part is missing for whole.
    SnapshotPartMissing,
    /// Nobody checks that what the parts of a snapshot add up to is the state that its root names.
    SnapshotSumUnchecked,
    /// The uplink begins with what a revoked device says, or with more of it than the board accepts.
    SnapshotOfRevoked,
    /// Batches are pruned whatever is lacking.
    PrunedEarly,
    /// The node deletes what a merged object stands for although that did not come back from every site.
    InputDeletedEarly,
    /// What is held of ended incarnations is left out of welcomes, and added to them, although the hashes differ.
    EndedUnequal,
    /// A peer's stamp pushes the clock however far it likes.
    ClockDragged,
    /// What is written to a record after its tombstone stands.
    TombstoneNotSticky,
    /// A tombstone takes out nothing that stood before it.
    TombstoneOnlyAhead,
    /// A neighbour is told what is held of a log once, and not again when that moves.
    NeighbourToldOnce,
    /// What the cloud lacks of others is not brought to it.
    RelayForgotten,
    /// The store keeps no room for tier 0.
    ReserveLeftOut,
    /// The uplink's driver waits for an answer for as long as the connection lives, and dials no other.
    SilenceNotWatched,
    /// The uplink's driver forgets another connection that is ready in place of a silent one.
    StandbyForgotten,
    /// The uplink's driver lets an idle connection be forgotten by routers.
    KeepAliveForgotten,
    /// The uplink's driver does not tell the store that the line is up, so that batches wait to be large.
    LineNotTold,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}

/// What is planted for all threads.
#[cfg(feature = "planted")]
static EVERYWHERE: std::sync::OnceLock<Defect> = std::sync::OnceLock::new();

/// Plants a defect for all threads, for good, by its name in `snake_case`.
///
/// # Errors
/// When there is no such defect.
#[cfg(feature = "planted")]
pub fn plant_everywhere(name: &str) -> Result<(), serde::de::value::Error> {
    use serde::de::{Deserialize as _, IntoDeserializer as _};
    let defect = Defect::deserialize(name.into_deserializer())?;
    // A second call changes nothing.
    let _ = EVERYWHERE.set(defect);
    Ok(())
}

/// Plants a defect for the calling thread, or takes it out.
#[cfg(feature = "planted")]
pub fn plant(defect: Option<Defect>) {
    PLANTED.set(defect);
}

/// Whether a defect is planted.
#[cfg(feature = "planted")]
#[must_use]
pub fn is_planted(defect: Defect) -> bool {
    PLANTED.get() == Some(defect) || EVERYWHERE.get() == Some(&defect)
}

/// Whether a defect is planted: never.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is_planted(_: Defect) -> bool {
    false
}

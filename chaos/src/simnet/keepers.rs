//! The keepers of all boxes of this thread. Each is the real one, and takes its turn whenever no task can go on: as
//! its thread would, but at moments that a seed decides.
//!
//! **Invariant**: simulated time does not pass while a request waits for a keeper.

use std::cell::RefCell;
use std::collections::BTreeMap;

use sonae_store::testing::Stepped;

thread_local! {
    static KEEPERS: RefCell<BTreeMap<usize, Stepped>> = const { RefCell::new(BTreeMap::new()) };
}

/// Lets all keepers take their turn. To be called when the runtime has nothing else to do.
pub(crate) fn turn() {
    KEEPERS.with_borrow_mut(|keepers| keepers.values_mut().for_each(Stepped::turn));
}

/// Does what keepers do when nobody has asked for anything for a while.
pub(crate) fn idle() {
    KEEPERS.with_borrow_mut(|keepers| keepers.values_mut().for_each(Stepped::idle));
}

/// Takes on the keeper of a box.
pub(crate) fn add(slot: usize, keeper: Stepped) {
    KEEPERS.with_borrow_mut(|keepers| keepers.insert(slot, keeper));
}

/// Lets go of the keeper of a box, as a kill does.
pub(crate) fn kill(slot: usize) {
    KEEPERS.with_borrow_mut(|keepers| keepers.remove(&slot));
}

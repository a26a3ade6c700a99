//! The store of one replica: its keys, its journal, its view, its sealed batches, and the one thread that
//! writes them.
//!
//! **Invariant**: an answer to a write follows the device flush that made it durable (P1).
//! **Invariant**: "safe" follows a verified receipt and nothing else (P2).
//! **Invariant**: the view is derived; deleting it loses nothing.

mod archive;
mod batches;
mod clock;
pub mod data_dir;
mod edit;
pub mod enrolment;
pub mod erasure;
mod error;
mod evidence;
pub mod filling;
mod foundation;
mod frame;
pub mod held_keys;
pub mod identity;
mod keeper;
pub mod keyring;
mod manifests;
pub mod neighbours;
pub mod options;
pub mod proof;
pub mod quarantine;
mod recover;
pub mod renewal;
pub mod retention;
pub mod room;
pub mod salvage;
mod sealer;
mod shelf;
pub mod snapshot;
mod state;
pub mod status;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod view;
mod view_db;

pub use clock::Clock;
pub use edit::{Action, Edit, Kept};
pub use evidence::Evidence;
pub use filling::{Filling, NotYet};
pub use frame::{SafeHead, StoredIdentity};
pub use keeper::Mark;
pub use options::Options;
pub use quarantine::Quarantine;
pub use shelf::Shelf;
pub use state::{KeyUses, Point, StoreState};
pub use store::{Open, Opened, Store, StoreError, WriteError};
pub use view_db::ViewError;

/// The journal's disk, for those who open a store.
pub use sonae_journal::{Disk, RealDisk};

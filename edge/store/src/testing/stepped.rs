//! A store whose keeper takes its turns when it is told, on the caller's thread: the same requests give the same
//! disk operations in the same order.

use std::collections::VecDeque;
use std::sync::mpsc::Receiver;

use sonae_proto::batch::BatchHeader;

use crate::evidence::Evidence;
use crate::keeper::{Keeper, Request};
use crate::store::{Open, Ready, Store, StoreError};

/// A store without a thread. Send a request by polling a call of [`Store`] once, take a turn, poll it again.
pub struct Stepped {
    /// The handle. Its blocking calls would wait for ever.
    pub store: Store,
    /// What an uplink starts from.
    pub evidence: Evidence,
    /// Headers of batches sealed from now on.
    pub sealed: tokio::sync::mpsc::UnboundedReceiver<BatchHeader>,
    keeper: Keeper,
    waiting: Receiver<Request>,
}

impl Stepped {
    /// Opens a store as [`Store::open`] does, but for its thread.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(open: Open) -> Result<Self, StoreError> {
        let Ready { store, keeper, waiting, evidence, sealed } = Store::recover(open)?;
        Ok(Self { store, evidence, sealed, keeper, waiting })
    }

    /// Serves all requests that wait and makes durable what is due by the told clock, as the thread would.
    pub fn turn(&mut self) {
        loop {
            self.keeper.seal_due(false);
            let mut queue: VecDeque<Request> = self.waiting.try_iter().collect();
            if queue.is_empty() && !self.keeper.has_sealed() {
                return;
            }
            while !queue.is_empty() || self.keeper.has_sealed() {
                self.keeper.round(&mut queue);
            }
        }
    }

    /// Does what the thread does when nobody has asked for anything for a while.
    pub fn idle(&mut self) {
        self.keeper.idle();
    }

    /// Closes the store cleanly. Dropping it instead is a kill.
    pub fn close(self) {
        self.keeper.close();
    }
}

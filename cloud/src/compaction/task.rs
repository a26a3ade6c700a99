//! Compaction beside a running node: when, with what the engine knows, and what it is told.
//!
//! **Invariant**: it may be dropped at any moment, as by a crash.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::destruction::{Orders, carry_out, rewriting};
use super::{Compactor, Judge, Pass, Places};
use crate::engine::{Barred, Input};
use crate::status::Board;

/// Key documents that are just being written are looked for again after so long.
const BUSY: Duration = Duration::from_millis(200);

/// What runs beside a node.
#[derive(Debug)]
pub struct Task {
    /// What merges and deletes.
    pub compactor: Compactor,
    /// The node's engine.
    pub engine: mpsc::Sender<Input>,
    /// Where it is told.
    pub board: Arc<Board>,
    /// Whether the start found nothing amiss: else nobody can tell which snapshots are needed, and all are kept.
    pub sound: bool,
    /// Changes whenever the engine has learnt a manifest: it may order the destruction of keys.
    pub orders: watch::Receiver<Barred>,
    /// Signs that destroyed keys have gone.
    pub key: SigningKey,
}

impl Task {
    /// Passes over the sites for as long as the engine runs. An order to destroy keys is carried out at once.
    pub async fn run(mut self) {
        let hours = self.compactor.rules.superseded.as_secs() / 3_600;
        self.board.update(|status| status.compaction.delete_after_hours = hours);
        let (mut before, mut carried_out, mut tried) = (Instant::now(), Orders::new(), Orders::new());
        let mut again: Option<Instant> = None;
        // What was ordered before this start is looked for again.
        self.orders.mark_changed();
        loop {
            let is_due = tokio::select! {
                () = sleep_until(before + self.compactor.rules.interval) => true,
                changed = self.orders.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                () = sleep_until(again.unwrap_or(before)), if again.is_some() => false,
            };
            again = None;
            let (ask, answer) = oneshot::channel();
            if self.engine.send(Input::Keeping(ask)).await.is_err() {
                return;
            }
            let Ok(keeping) = answer.await else { return };
            let (orders, is_busy) = (keeping.destroyed.clone(), keeping.keys_under_way);
            let judge = Judge { keeping: self.sound.then_some(keeping), keys: rewriting(&orders) };
            // Each look reads everything: out of turn only for what was not looked for yet.
            if orders != carried_out && (is_due || orders != tried) {
                if is_busy {
                    again = Some(Instant::now() + BUSY);
                } else {
                    tried.clone_from(&orders);
                    // Only keys change now. What else may go waits for its time.
                    let keys_alone = Judge { keeping: None, ..judge.clone() };
                    if self.destroy(&orders, &keys_alone).await {
                        carried_out = orders;
                    }
                }
            }
            if is_due {
                let elapsed = before.elapsed();
                before = Instant::now();
                self.pass(elapsed, &judge).await;
            }
        }
    }

    async fn pass(&mut self, elapsed: Duration, judge: &Judge) {
        match self.compactor.pass(elapsed, judge).await {
            Ok(pass) => {
                tell(&pass, &self.board);
                self.moved(pass.places).await;
            }
            Err(waits) => {
                log::warn!(reason:% = waits; "nothing is merged or deleted");
                self.board.update(|status| status.compaction.waits_for = Some(waits.to_string()));
            }
        }
    }

    /// Takes destroyed keys out of the sites. Returns whether none is left; else it is tried again.
    async fn destroy(&mut self, orders: &Orders, judge: &Judge) -> bool {
        let (pass, said) = carry_out(&mut self.compactor, orders, judge, &self.key).await;
        match &said.waits_for {
            None => {
                log::info!(schools = orders.len(), rewritten = pass.made; "no copy of destroyed keys is left")
            }
            Some(reason) => log::warn!(reason; "copies of destroyed keys may be left"),
        }
        let is_done = said.waits_for.is_none();
        self.board.update(|status| {
            status.compaction.add(&pass);
            // What was signed stays true: it names its keys and its time.
            let before = std::mem::take(&mut status.destruction.certificates);
            status.destruction = said;
            for (school, certificate) in before {
                status.destruction.certificates.entry(school).or_insert(certificate);
            }
        });
        self.moved(pass.places).await;
        is_done
    }

    /// Tells the engine where records lie now. If it is gone, so is the node.
    async fn moved(&self, places: Vec<Places>) {
        for places in places {
            drop(self.engine.send(Input::Moved(places)).await);
        }
    }
}

fn tell(pass: &Pass, board: &Board) {
    if pass.made > 0 || pass.deleted > 0 {
        log::info!(
            made = pass.made, left_out = pass.left_out, deleted = pass.deleted, superseded = pass.superseded,
            objects = pass.objects;
            "objects were merged or deleted"
        );
    }
    board.update(|status| {
        status.compaction.note(pass);
        // Open sites come first, in the order in which they were named.
        for (site, held) in status.sites.iter_mut().zip(&pass.held) {
            site.objects = u64::try_from(*held).unwrap_or(u64::MAX);
        }
    });
}

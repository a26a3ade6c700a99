//! Compaction beside a running node: when, with what the engine knows, and what it is told.
//!
//! **Invariant**: it may be dropped at any moment, as by a crash.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::{Compactor, Judge, Pass};
use crate::engine::Input;
use crate::status::Board;

/// Passes over the sites for as long as the engine runs. `sound` says that the start found nothing amiss: else nobody can
/// tell which snapshots are needed, and all are kept.
pub async fn run(mut compactor: Compactor, engine: mpsc::Sender<Input>, board: Arc<Board>, sound: bool) {
    let hours = compactor.rules.superseded.as_secs() / 3_600;
    board.update(|status| status.compaction.delete_after_hours = hours);
    let mut before = Instant::now();
    loop {
        sleep(compactor.rules.interval).await;
        let elapsed = before.elapsed();
        before = Instant::now();
        let (ask, answer) = oneshot::channel();
        if engine.send(Input::Keeping(ask)).await.is_err() {
            return;
        }
        let Ok(keeping) = answer.await else { return };
        let judge = Judge { keeping: sound.then_some(keeping), keys: None };
        match compactor.pass(elapsed, &judge).await {
            Ok(pass) => {
                tell(&pass, &board);
                for places in pass.places {
                    if engine.send(Input::Moved(places)).await.is_err() {
                        return;
                    }
                }
            }
            Err(waits) => {
                log::warn!(reason:% = waits; "nothing is merged or deleted");
                board.update(|status| status.compaction.waits_for = Some(waits.to_string()));
            }
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

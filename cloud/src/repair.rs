//! Brings batches that are on fewer sites than the quorum back to it: writes them again, under new names.
//!
//! Healing copies whole objects; this is for what healing could not copy, because the object is damaged at one
//! site or a site refused the copy. Until it succeeds the engine signs no receipt for what follows in the log.

use sonae_proto::intake::StoredBatch;
use sonae_proto::object::RecordKind;
use tokio::sync::mpsc;

use crate::engine::Input;
use crate::reader::Reader;
use crate::writer::Writer;

/// Tries once for all. What reached the quorum is told to the engine and leaves the list.
pub async fn run(
    writer: &mut Writer,
    reader: &Reader,
    engine: &mpsc::Sender<Input>,
    undurable: &mut Vec<StoredBatch>,
    quorum: usize,
) {
    let mut left = Vec::new();
    let mut todo = std::mem::take(undurable).into_iter().peekable();
    let mut reachable = true;
    while reachable && todo.peek().is_some() {
        let mut group = writer.group();
        let mut placed = Vec::new();
        while !group.is_full()
            && let Some(mut stored) = todo.next()
        {
            let Some(bytes) = reader.batch(&stored).await else {
                left.push(stored);
                continue;
            };
            let old = stored.clone();
            stored.location = group.append(RecordKind::Batch, &bytes);
            placed.push((old, stored));
        }
        if placed.is_empty() {
            continue;
        }
        let sites = writer.put(group).await;
        // One object that does not reach the quorum is enough to know that the next will not either.
        reachable = sites.len() >= quorum;
        let (old, batches): (Vec<_>, Vec<_>) = placed.into_iter().unzip();
        if reachable {
            log::info!(batches = batches.len(); "batches are back at the quorum");
            let _ = engine.send(Input::Repaired { batches, sites }).await;
        } else {
            left.extend(old);
        }
    }
    left.extend(todo);
    *undurable = left;
}

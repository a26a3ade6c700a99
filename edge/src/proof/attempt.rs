//! One restore proof, from the mark to the judgement.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::vector::Heads;
use sonae_proto::wire::SnapshotOffer;
use sonae_store::{Mark, Store};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Prover;
use super::compare::{Verdict, compare};
use super::scratch::{Scratch, bytes_under, discard, scratch_dir};
use crate::replica::ReplicaError;
use crate::uplink::{self, Purpose};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How often room on the disk is looked at.
const LOOK_AT_ROOM: Duration = Duration::from_secs(1);

/// Changes that were just kept get their receipts in seconds; without them there is nothing to hold the cloud to.
const RECEIPTS_MAX: Duration = Duration::from_secs(600);

/// A cloud that has not answered by then does not answer now: over TCP, too, where UDP is blocked.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Without a word from the cloud for this long a proof is given up.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// The longest fetch: 200 MB at 256 kbit/s.
const FETCH_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// An uplink that has not ended so long after it was asked to is ended.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// What a scratch store may take besides a multiple of the store: preallocated segments and the view's least.
const ROOM_BYTES: u64 = 64 * 1024 * 1024;

/// By how much more it may take than journal and batches of the store: its view is not counted there.
const ROOM_FACTOR: u64 = 3;

/// What always stays free for the school's own writes.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Why a proof ended before its judgement.
enum Broken {
    /// The box stops or goes on under another incarnation.
    Stopped,
    /// It cannot be found out.
    Judged(Verdict),
}

fn broken(cause: &'static str, text: impl Into<String>) -> Broken {
    Broken::Judged(Verdict::not_verified(cause, text))
}

/// Does what waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReplicaError> + Send + 'static,
) -> Result<T, Broken> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| broken("scratch", error.to_string())),
        Err(error) => Err(broken("scratch", error.to_string())),
    }
}

/// What a proof found.
pub(super) struct Attempted {
    pub verdict: Verdict,
    pub mark: Option<Mark>,
    pub bytes: u64,
    /// Tiers that came as a snapshot.
    pub snapshots: BTreeMap<Tier, Hash32>,
}

/// Proves once. `None` when it was stopped.
pub(super) async fn attempt(prover: &Prover, stopped: &watch::Receiver<bool>) -> Option<Attempted> {
    let is_whole = prover.source.store.wants_whole_proof();
    let mut attempt = Attempt { prover, stopped, is_whole, mark: None, bytes: 0, snapshots: BTreeMap::new() };
    let verdict = match attempt.run().await {
        Ok(verdict) | Err(Broken::Judged(verdict)) => verdict,
        Err(Broken::Stopped) => return None,
    };
    let Attempt { mark, bytes, snapshots, .. } = attempt;
    Some(Attempted { verdict, mark, bytes, snapshots })
}

struct Attempt<'a> {
    prover: &'a Prover,
    stopped: &'a watch::Receiver<bool>,
    /// Whether batches are read back from where this box holds them, in place of snapshots.
    is_whole: bool,
    mark: Option<Mark>,
    bytes: u64,
    snapshots: BTreeMap<Tier, Hash32>,
}

impl Attempt<'_> {
    async fn run(&mut self) -> Result<Verdict, Broken> {
        discard(&self.prover.data).map_err(|error| broken("scratch", error.to_string()))?;
        let storage = self.prover.source.status().storage;
        let room = room(storage.used_bytes, storage.free_bytes)?;
        let mark = self.prover.source.store.mark().await;
        let mark = mark.map_err(|error| broken("store", error.to_string()))?;
        self.mark = Some(mark.clone());
        self.receipted(&mark).await?;
        let (data, store, is_whole) =
            (self.prover.data.clone(), self.prover.source.store.clone(), self.is_whole);
        let judged = match blocking(move || Scratch::open(&data, &store, is_whole)).await {
            Ok(scratch) => self.judge(scratch, &mark, room).await,
            Err(broken) => Err(broken),
        };
        if let Err(error) = discard(&self.prover.data) {
            log::error!(error = error.to_string(); "the scratch store of a restore proof cannot be deleted");
        }
        judged
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow() || self.stopped.has_changed().is_err()
    }

    /// Waits until all own logs have receipts up to the mark: from there on the cloud has to give them back.
    async fn receipted(&self, mark: &Mark) -> Result<(), Broken> {
        let own = |heads: &Heads| -> Heads {
            heads
                .iter()
                .filter(|(log, _)| mark.own.contains(&log.incarnation))
                .map(|(l, h)| (*l, *h))
                .collect()
        };
        let (wanted, began) = (own(&mark.heads), Instant::now());
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            let safe = self.prover.source.store.state().safe_heads;
            let has = |(log, head): (_, &sonae_proto::vector::LogHead)| {
                safe.get(log).is_some_and(|safe| safe.sequence >= head.sequence)
            };
            if wanted.iter().all(has) {
                return Ok(());
            }
            if self.is_stopped() {
                return Err(Broken::Stopped);
            }
            let waited = began.elapsed();
            if waited > RECEIPTS_MAX || (waited > ANSWER_MAX && !self.prover.source.uplink.get().up) {
                let text = "what was kept here has got no receipt meanwhile; look at the line";
                return Err(broken("not_receipted", text));
            }
        }
    }

    /// Fetches, opens anew what came, as the next start of a rebuilt box would, and compares.
    async fn judge(&mut self, mut scratch: Scratch, mark: &Mark, room: u64) -> Result<Verdict, Broken> {
        let fetched = self.fetched(&mut scratch, mark, room).await;
        self.bytes = scratch.shared.get().udp_bytes_received;
        if let Err(broken) = fetched {
            blocking(move || {
                scratch.close();
                Ok(())
            })
            .await?;
            return Err(broken);
        }
        self.prover.source.proofs.progress("comparing", scratch.changes(), changes(mark));
        let store = self.prover.source.store.clone();
        let scratch = blocking(move || scratch.reopened(&store)).await?;
        let restored = scratch.restored().await;
        if !self.is_whole {
            self.snapshots = scratch.foundations();
        }
        blocking(move || {
            scratch.close();
            Ok(())
        })
        .await?;
        let restored = restored.ok_or_else(|| broken("scratch", "the scratch store is gone"))?;
        Ok(compare(mark, &restored))
    }

    async fn fetched(&self, scratch: &mut Scratch, mark: &Mark, room: u64) -> Result<(), Broken> {
        let loss_counter = self.prover.source.store.state().loss_counter;
        let snapshots =
            if self.is_whole { Vec::new() } else { offers(&self.prover.source.store, &mark.heads) };
        let purpose = Purpose::Prove { until: mark.heads.clone(), snapshots };
        let config = scratch.uplink(purpose, loss_counter, self.prover.cloud.clone());
        let config = config.map_err(|error| broken("scratch", error.to_string()))?;
        let (stop, stopping) = watch::channel(false);
        let mut uplink = tokio::spawn(uplink::run(config, stopping));
        let fetched = self.fetch(scratch, mark, room, &mut uplink).await;
        let _ = stop.send(true);
        if !uplink.is_finished() && tokio::time::timeout(CLOSING_MAX, &mut uplink).await.is_err() {
            uplink.abort();
        }
        fetched
    }

    /// Waits until everything up to the mark has come back, or nothing more comes.
    async fn fetch(
        &self,
        scratch: &Scratch,
        mark: &Mark,
        room: u64,
        uplink: &mut JoinHandle<Result<(), uplink::UplinkError>>,
    ) -> Result<(), Broken> {
        let (began, there) = (Instant::now(), changes(mark));
        let (mut last_word, mut last_count, mut looked, mut patience) = (began, (0, 0), began, ANSWER_MAX);
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            let (status, here) = (scratch.shared.get(), scratch.changes());
            self.prover.source.proofs.progress("fetching", here, there);
            if status.up && !status.is_fetching {
                return Ok(());
            }
            let error = |code: &str| status.errors.iter().find(|error| error.code == code);
            if let Some(refused) = error("refused") {
                return Err(broken("refused", format!("the cloud refuses this box: {}", refused.text)));
            }
            if self.is_stopped() {
                return Err(Broken::Stopped);
            }
            if uplink.is_finished() {
                return Err(broken("line", "the line for it cannot be opened"));
            }
            if let Some(failed) = scratch.failure() {
                return Err(broken("scratch", failed));
            }
            if status.up {
                patience = SILENCE_MAX;
            }
            // Of a snapshot bytes come long before changes count.
            let count = (here, status.snapshot.map_or(0, |snapshot| snapshot.here_bytes));
            if count != last_count {
                (last_count, last_word) = (count, Instant::now());
            }
            if last_word.elapsed() > patience || began.elapsed() > FETCH_MAX {
                let why = error("line_down").map_or("it took too long", |error| error.text.as_str());
                return Err(broken("line", format!("it did not come to an end ({why})")));
            }
            if looked.elapsed() > LOOK_AT_ROOM {
                looked = Instant::now();
                let taken = bytes_under(&scratch_dir(&self.prover.data));
                has_kept_to(room, taken, self.prover.source.status().storage.free_bytes)?;
            }
        }
    }
}

/// Returns the snapshots of this box as the cloud would offer them, but none that was made behind the mark.
fn offers(store: &Store, until: &Heads) -> Vec<SnapshotOffer> {
    let offer = |(tier, root)| {
        let said = store.shelf().root(root).filter(|said| is_within(&said.heads, until))?;
        Some(SnapshotOffer { tier, root, bytes: said.bytes(), changes: said.changes() })
    };
    store.own_snapshots().into_iter().filter_map(offer).collect()
}

fn is_within(heads: &Heads, until: &Heads) -> bool {
    heads.iter().all(|(log, head)| until.get(log).is_some_and(|until| head.sequence <= until.sequence))
}

/// Returns how many bytes the scratch store may take, if there is room for so many.
fn room(used: u64, free: Option<u64>) -> Result<u64, Broken> {
    let room = used.saturating_mul(ROOM_FACTOR).saturating_add(ROOM_BYTES);
    match free {
        Some(free) if free < room.saturating_add(FREE_BYTES_MIN) => {
            Err(broken("disk_short", format!("it takes {room} bytes of room, and the disk has {free}")))
        }
        _ => Ok(room),
    }
}

/// Whether a scratch store has kept to its room and left the school enough.
fn has_kept_to(room: u64, taken: u64, free: Option<u64>) -> Result<(), Broken> {
    if taken > room || free.is_some_and(|free| free < FREE_BYTES_MIN) {
        return Err(broken("disk_short", format!("its scratch store has taken {taken} bytes of the disk")));
    }
    Ok(())
}

fn changes(mark: &Mark) -> u64 {
    mark.heads.values().map(|head| head.sequence).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonae_proto::ids::{Incarnation, LogName};
    use sonae_proto::vector::LogHead;

    fn cause<T>(outcome: Result<T, Broken>) -> Option<&'static str> {
        match outcome {
            Err(Broken::Judged(verdict)) => Some(verdict.cause),
            _ => None,
        }
    }

    /// Goal: a snapshot that was made after the mark is not taken, since it would pass for another history. Method: heads
    /// at the mark, behind it, and of a log that the mark does not know.
    #[test]
    fn a_later_snapshot_is_not_taken() {
        let log = |byte| LogName { tier: Tier::Daily, incarnation: Incarnation::from_bytes([byte; 16]) };
        let heads = |byte, sequence| Heads::from([(log(byte), LogHead { sequence, hash: Hash32([1; 32]) })]);
        assert!(is_within(&heads(1, 5), &heads(1, 5)) && is_within(&heads(1, 4), &heads(1, 5)));
        assert!(!is_within(&heads(1, 6), &heads(1, 5)) && !is_within(&heads(2, 1), &heads(1, 5)));
    }

    /// Goal: a proof never takes the room that the school's own writes need. Method: the last byte that suffices, and
    /// one less, before and while it runs; a disk that does not say.
    #[test]
    fn a_short_disk_is_left_alone() {
        let used = 1_000;
        let takes = used * ROOM_FACTOR + ROOM_BYTES;
        let suffices = takes + FREE_BYTES_MIN;
        assert!(room(used, Some(suffices)).is_ok_and(|room| room == takes) && room(used, None).is_ok());
        assert_eq!(cause(room(used, Some(suffices - 1))), Some("disk_short"));
        assert!(has_kept_to(takes, takes, Some(FREE_BYTES_MIN)).is_ok());
        assert_eq!(cause(has_kept_to(takes, takes + 1, None)), Some("disk_short"));
        assert_eq!(cause(has_kept_to(takes, 0, Some(FREE_BYTES_MIN - 1))), Some("disk_short"));
    }
}

//! Recovery: from what lies in the data directory to a running keeper.
//!
//! One pass over the journal finds the batches, the evidence and the last checkpoint. If sled holds that very
//! checkpoint, only what follows it is replayed; otherwise the view is deleted and rebuilt from all sealed
//! batches and the unsealed changes.

mod found;
mod replay;
mod revoked;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};

use sonae_journal::{Journal, Lsn};
use sonae_proto::batch::BatchHeader;
use sonae_proto::clock;
use sonae_proto::ids::LogName;
use sonae_proto::view::Fold;
use sonae_proto::wire::KeyDocuments;
use tokio::sync::watch;

use crate::archive::Archive;
use crate::batches::BatchIndex;
use crate::clock::own_stamp;
use crate::evidence::Evidence;
use crate::foundation::Foundations;
use crate::frame::{self, ChangeFrame};
use crate::held_keys;
use crate::keeper::{Keeper, Room, note_without_receipt, steady_of_kept};
use crate::keyring::{DeviceReader, Keyring};
use crate::room::Place;
use crate::sealer::Sealer;
use crate::shelf::Shelf;
use crate::state::StoreState;
use crate::store::{Open, Shared, StoreError};
use crate::view::{Staged, View};
use crate::view_db::ViewDb;
use found::{Found, no_hole, read_journal};
use replay::Replay;
use revoked::Revoked;

/// A keeper that is ready to run, and what an uplink starts from.
pub(crate) struct Recovered {
    pub keeper: Keeper,
    pub evidence: Evidence,
}

fn open_journal(open: &Open) -> Result<Journal, StoreError> {
    let (journal, opened) =
        Journal::open(Arc::clone(&open.disk), &open.journal, open.options.journal.clone())?;
    if let Some(torn) = &opened.torn_tail {
        log::info!(segment = torn.segment.as_str(), bytes = torn.bytes;
            "an unfinished commit was discarded; nobody was told that it was kept");
    }
    Ok(journal)
}

/// Opens journal, archive and view of a replica.
pub(crate) fn recover(
    open: Open,
    sealed_out: tokio::sync::mpsc::UnboundedSender<BatchHeader>,
) -> Result<Recovered, StoreError> {
    let journal = open_journal(&open)?;
    let (shelf, foundations, mut index) = open_files(&open, &journal)?;
    let mut found = read_journal(&journal, &mut index, &open)?;
    no_hole(&found, &index)?;
    index.check_ends(|name| found.writer(name, &open.keys))?;
    found.own.insert(open.keys.name());
    let keyring =
        newest_keyring(&open, found.documents.take())?.holding(held_keys::read(&shelf), &open.device_age_key);

    let revoked = Revoked::of(&found.identities, &keyring, &open.keys, &foundations.heads);
    let Filled { view, fold, state, disputed } =
        fill_view(&open, &found, &keyring, &journal, &index, (&shelf, &foundations), &revoked)?;
    let evidence = evidence(&found, &index, &open, &keyring, &fold);
    let shared = Arc::new(Shared {
        view: RwLock::new(view),
        state: RwLock::new(state),
        documents: RwLock::new(keyring.documents().clone()),
        reader: DeviceReader { board: open.keys.board, age_key: open.device_age_key },
        shelf,
        filling: open.filling,
        place: Place { disk: Arc::clone(&open.disk), dir: open.journal.clone() },
        heads: watch::Sender::default(),
    });
    let name = open.keys.name();
    let mut keeper = Keeper {
        hlc: clock::Clock::after(own_stamp(fold.highest_stamp, open.clock.now_ms())),
        sealer: Sealer::new(),
        keys: open.keys,
        keyring,
        safe: found.safe,
        loss_counter: found.loss_counter,
        shown: found.shown,
        identities: found.identities,
        own: found.own,
        kept_ms: found.kept_ms,
        without_receipt: BTreeMap::new(),
        disputed,
        own_bytes: index.payload_bytes(name),
        foundations: foundations.roots,
        pinned: false,
        scrub_due: false,
        erased_under: BTreeMap::new(),
        untaken: None,
        key_uses: BTreeMap::new(),
        distrusted: false,
        late: Vec::new(),
        lazy: Vec::new(),
        sealed: Vec::new(),
        sealed_out,
        view_dir: open.view,
        room: Room::new(open.options.quota.clone()),
        options: open.options,
        is_short_of_room: false,
        commits: 0,
        failed: None,
        marks: Vec::new(),
        is_frozen: false,
        clock: open.clock,
        shared,
        journal,
        index,
        fold,
    };
    refill(&mut keeper)?;
    let checkpointed = found.checkpoint.as_ref().map(|(_, checkpoint)| &checkpoint.sequences);
    check_held(&keeper, keeper.fold.sequences.iter().chain(checkpointed.into_iter().flatten()))?;
    // What a cut or a full disk has left of batches that a snapshot stands for.
    keeper.index.trim();
    keeper.step_room();
    keeper.take_stock();
    keeper.publish_state();
    Ok(Recovered { keeper, evidence })
}

/// A view with everything that is kept.
struct Filled {
    view: View,
    fold: Fold,
    state: StoreState,
    disputed: u64,
}

/// Opens the view and applies what it lacks: all of it if it could not be used.
fn fill_view(
    open: &Open,
    found: &Found,
    keyring: &Keyring,
    journal: &Journal,
    index: &BatchIndex,
    (shelf, foundations): (&Shelf, &Foundations),
    revoked: &Revoked,
) -> Result<Filled, StoreError> {
    let (mut view, fold, replay_from, rebuilt) = open_view(open, found, keyring, revoked)?;
    let is_empty = fold.sequences.is_empty();
    let mut recovery = Replay { journal, index, keyring, revoked, fold, replayed: 0 };
    let mut staged = Staged::over(&view);
    if is_empty {
        foundations.enter(shelf, keyring, &mut recovery.fold, &mut staged)?;
    }
    if rebuilt {
        recovery.batches(&mut staged)?;
    }
    recovery.frames(&mut staged, replay_from, rebuilt)?;
    recovery.accepted_since(&mut staged)?;
    let (records, disputed) = (staged.records, staged.disputed);
    view.publish(records);
    let before = if rebuilt { 0 } else { found.checkpoint.as_ref().map_or(0, |(_, c)| c.disputed) };
    let state = StoreState { replayed: recovery.replayed, view_rebuilt: rebuilt, ..StoreState::default() };
    let disputed = before.saturating_add_signed(disputed);
    Ok(Filled { view, fold: recovery.fold, state, disputed })
}

/// Opens what lies beside the journal.
fn open_files(open: &Open, journal: &Journal) -> Result<(Shelf, Foundations, BatchIndex), StoreError> {
    let shelf = Shelf::new(Arc::clone(&open.disk), &open.snapshots);
    let foundations = Foundations::find(journal, &shelf)?;
    let (disk, defects) = (Arc::clone(&open.disk), open.options.defects);
    let (archive, headers) = Archive::open(disk, &open.batches, defects, &foundations.heads)?;
    let index = BatchIndex::open(archive, headers, &foundations.heads)?;
    Ok((shelf, foundations, index))
}

fn newest_keyring(open: &Open, kept: Option<KeyDocuments>) -> Result<Keyring, StoreError> {
    let bundled = open.keyring.documents();
    if let Some(kept) = kept {
        let keyring = Keyring::open(&open.keys.board, &kept, &open.device_age_key)?;
        if keyring.manifest().version >= open.keyring.manifest().version {
            return Ok(keyring);
        }
    }
    Ok(Keyring::open(&open.keys.board, bundled, &open.device_age_key)?)
}

/// Opens the view at its checkpoint, or empties it. Returns it with its fold, the first frame to replay and
/// whether it has to be rebuilt.
fn open_view(
    open: &Open,
    found: &Found,
    keyring: &Keyring,
    revoked: &Revoked,
) -> Result<(View, Fold, Lsn, bool), StoreError> {
    let mut fold = Fold::new(keyring.digest_key()?);
    // What a cut has left of a copy.
    ViewDb::delete(&crate::view::beside(&open.view))?;
    if let Some((lsn, checkpoint)) = &found.checkpoint
        && let Ok(db) = ViewDb::open(&open.view)
    {
        let is_this = db.checkpoint().as_deref() == Some(checkpoint.id.as_str());
        let counts = !revoked.is_too_much(&checkpoint.sequences);
        if counts && (is_this || open.options.defects.any_checkpoint()) {
            fold.sequences.clone_from(&checkpoint.sequences);
            fold.digests.clone_from(&checkpoint.digests);
            fold.highest_stamp = checkpoint.highest_stamp;
            return Ok((View::new(Some(db), &open.view), fold, lsn.plus(1), false));
        }
        log::warn!(counts; "the view is not the one that was journalled, or holds what does not count; it is rebuilt");
    }
    ViewDb::delete(&open.view)?;
    let rebuilt = found.checkpoint.is_some();
    let db = ViewDb::open(&open.view);
    if let Err(error) = &db {
        // It is derived: a full disk must not keep the box from serving and from keeping tier 0.
        log::error!(error = error.to_string(); "the view cannot be made; its records stay in memory until it can");
    }
    Ok((View::new(db.ok(), &open.view), fold, Lsn(0), rebuilt))
}

/// Gives the sealer what is kept and not sealed, and notes since when changes wait for a receipt.
fn refill(keeper: &mut Keeper) -> Result<(), StoreError> {
    let name = keeper.keys.name();
    let mut waiting: BTreeMap<LogName, VecDeque<(u64, u64)>> = BTreeMap::new();
    for frame in keeper.journal.replay(keeper.journal.first_lsn()) {
        let frame = frame?;
        if frame.kind != frame::CHANGE {
            continue;
        }
        let change = ChangeFrame::from_bytes(&frame.payload)?;
        if change.log.incarnation == name && change.sequence > keeper.index.head(change.log).sequence {
            keeper.sealer.push(change.log.tier, change.sequence, frame.lsn, change.line.to_vec());
        }
        if change.sequence > keeper.safe.get(&change.log).map_or(0, |safe| safe.head.sequence) {
            let at = steady_of_kept(&keeper.clock, change.kept_ms);
            note_without_receipt(waiting.entry(change.log).or_default(), change.sequence, at);
        }
    }
    keeper.without_receipt = waiting;
    Ok(())
}

/// Checks that everything that was applied is in a batch that is held or waits to be sealed. An archive whose middle
/// has rotted shows only so: what lies behind is not found, and nothing in the journal misses it.
fn check_held<'a>(
    keeper: &Keeper,
    applied: impl Iterator<Item = (&'a LogName, &'a u64)>,
) -> Result<(), StoreError> {
    for (log, sequence) in applied {
        let held = keeper.index.head(*log).sequence;
        let own = log.incarnation == keeper.keys.name();
        let waiting = keeper.sealer.last_sequence(log.tier).filter(|_| own).unwrap_or(0);
        if *sequence > held.max(waiting) {
            return Err(StoreError::Hole { log: *log, after: held });
        }
    }
    Ok(())
}

fn evidence(found: &Found, index: &BatchIndex, open: &Open, keyring: &Keyring, fold: &Fold) -> Evidence {
    let (own, peers): (Vec<LogName>, Vec<LogName>) =
        index.logs().partition(|log| found.own.contains(&log.incarnation));
    let base = |log: &LogName| Some((*log, index.foundations().get(log).copied()?));
    Evidence {
        safe: found.safe.clone(),
        loss_counter: found.loss_counter,
        shown: found.shown.clone(),
        own: found.own.clone(),
        pruned: own.iter().filter_map(base).collect(),
        own_batches: own.into_iter().flat_map(|log| index.headers(log)).collect(),
        peers: peers.into_iter().map(|log| (log, index.head_at(log, fold.applied(log)))).collect(),
        identities: found
            .identities
            .values()
            .filter_map(|text| text.verify(&open.keys.board, open.keys.school).ok())
            .collect(),
        manifest_version: keyring.manifest().version,
        revocations: keyring.revocations(),
        destroyed: keyring.destroyed(),
    }
}

//! What opening a store takes: fixed keys, a disk that an input gives, and stores that the product has written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use sonae_journal::{FrameKind, Journal};
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::Tier;
use sonae_proto::manifest::{KeyUse, Manifest, ManifestKey, WrappedKey};
use sonae_proto::seal::encrypt;
use sonae_proto::signed::Signed;
use sonae_proto::wire::KeyDocuments;
use sonae_store::identity::ReplicaKeys;
use sonae_store::keyring::Keyring;
use sonae_store::{Action, Clock, Edit, Filling, Open, Options, Store};

use super::super::journal::disk::MemoryDisk;
use super::input::{ARCHIVE, Item, body_of};
use crate::{Broken, Planted, keys};

const JOURNAL: &str = "/data/journal";
const BATCHES: &str = "/data/batches";

/// What the store is told the time is: in the school year of its keys.
const NOW_MS: u64 = 1_785_000_000_000;
const YEAR: u32 = 2026;

/// Bytes of a segment: the smallest that takes a checkpoint.
const SEGMENT_BYTES: u32 = 64 * 1024;

fn failed(error: impl std::fmt::Display) -> Broken {
    Broken(format!("the harness cannot make what it needs: {error}"))
}

fn documents() -> Result<KeyDocuments, Broken> {
    static ONCE: OnceLock<Result<KeyDocuments, Broken>> = OnceLock::new();
    ONCE.get_or_init(|| {
        let key = keys::epoch()?;
        let uses = Tier::ALL.map(|tier| (KeyUse::Tier(tier), YEAR)).into_iter().chain([(KeyUse::Digest, 0)]);
        let manifest = Manifest {
            school: keys::school()?,
            version: 1,
            keys: uses
                .clone()
                .map(|(key_use, epoch)| ManifestKey { key_use, epoch, recipient: key.recipient() })
                .collect(),
            readers: Vec::new(),
            revoked: Vec::new(),
            held: Vec::new(),
            destroyed: Vec::new(),
        };
        let manifest = Signed::sign(manifest, &keys::root()).map_err(failed)?.text().to_owned();
        let mut wrapped_keys = Vec::new();
        for (key_use, epoch) in uses {
            let file = encrypt(key.secret().as_bytes(), [key.recipient().as_str()]).map_err(failed)?;
            wrapped_keys.push(WrappedKey { key_use, epoch, file });
        }
        Ok(KeyDocuments { school: keys::school()?, manifest, wrapped_keys })
    })
    .clone()
}

#[allow(clippy::needless_update, reason = "tests build the journal with a feature that adds a field")]
fn journal_options() -> sonae_journal::Options {
    sonae_journal::Options {
        segment_bytes: SEGMENT_BYTES,
        free_segments_max: 0,
        reserve_segments: 0,
        ..sonae_journal::Options::default()
    }
}

pub fn opening(disk: &MemoryDisk, view: &Path, options: Options) -> Result<Open, Broken> {
    let (board, school, secret) = (keys::root().verifying_key(), keys::school()?, keys::epoch()?.secret());
    let device = Signed::sign(keys::device_certificate()?, &keys::root()).map_err(failed)?;
    let life = Signed::sign(keys::incarnation_certificate()?, &keys::device()).map_err(failed)?;
    let text = IdentityText { device: device.text().to_owned(), incarnation: life.text().to_owned() };
    let identity = text.verify(&board, school).map_err(failed)?;
    let keyring = Keyring::open(&board, &documents()?, &secret).map_err(failed)?;
    Ok(Open {
        journal: JOURNAL.into(),
        batches: BATCHES.into(),
        snapshots: "/data/snapshots".into(),
        view: view.to_owned(),
        keys: ReplicaKeys { board, school, device: keys::device(), incarnation: keys::writer(), identity },
        device_age_key: secret,
        keyring,
        clock: Clock::told(|| NOW_MS),
        disk: Arc::new(disk.clone()),
        filling: Filling::default(),
        options: Options { journal: journal_options(), ..options },
    })
}

fn path_of(tier: Tier) -> PathBuf {
    Path::new(BATCHES).join(format!("{}-{tier}", keys::incarnation()))
}

/// A disk with the journal and the archive of an input; `None` when the journal does not take its frames.
pub fn disk_of(items: &[Item]) -> Result<Option<MemoryDisk>, Broken> {
    let archived = items.iter().filter_map(|item| Some((path_of(item.archived()?), item.bytes.clone())));
    let disk = MemoryDisk::holding(archived.collect(), Planted::NONE);
    let opened = Journal::open(Arc::new(disk.clone()), Path::new(JOURNAL), journal_options());
    let (mut journal, _) = opened.map_err(failed)?;
    for item in items.iter().filter(|item| item.archived().is_none()) {
        if journal.commit(&[(FrameKind(item.tag), item.bytes.as_slice())]).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(disk))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer of the keeper, in a thread of its own: whoever calls may be a task of a runtime, which is given
/// no more than so many answers in a row.
pub fn wait<T: Send>(future: impl Future<Output = T> + Send) -> Result<T, Broken> {
    let answer = thread::scope(|scope| scope.spawn(|| wait_here(future)).join());
    answer.map_err(|_| Broken("an open store answers without a panic".into()))
}

fn wait_here<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
        thread::park();
    }
}

fn edit(collection: &str, record: &str, field: &str, value: &str) -> Action {
    let fields = BTreeMap::from([(field.to_owned(), value.into())]);
    let edit = Edit { collection: collection.into(), record: record.into(), fields, seen: None };
    Action { who: Some("tanaka".into()), source: None, edits: vec![edit] }
}

/// What lies on a disk, as an input.
fn written_to(disk: &MemoryDisk) -> Option<Vec<u8>> {
    let copy = MemoryDisk::holding(disk.contents(), Planted::NONE);
    let (journal, _) = Journal::open(Arc::new(copy), Path::new(JOURNAL), journal_options()).ok()?;
    let frames: Result<Vec<_>, _> = journal.replay(journal.first_lsn()).collect();
    let frames = frames.ok()?.into_iter().map(|frame| Item { tag: frame.kind.0, bytes: frame.payload });
    let contents = disk.contents();
    let archived = |tier: Tier| {
        Some(Item { tag: ARCHIVE + tier.number(), bytes: contents.get(&path_of(tier))?.clone() })
    };
    let items: Vec<Item> = frames.chain(Tier::ALL.into_iter().filter_map(archived)).collect();
    Some(body_of(&items))
}

/// A store of a few changes, all of them sealed but the last: as a kill leaves it, and as it was closed, with whatever
/// has left the journal.
pub fn written(rounds: usize, closes: bool) -> Option<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("sonae-fuzz-{}-{rounds}-{closes}", std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    let disk = MemoryDisk::default();
    // Every round checkpoints, and what fills more than a segment leaves the journal.
    let options = if closes {
        Options { overlay_records_max: 1, segments_max: 1, ..Options::default() }
    } else {
        Options::default()
    };
    let opened = Store::open(opening(&disk, &folder.join("view"), options).ok()?).ok()?;
    for round in 0..rounds {
        let record = format!("2026-04-08/p{}/day", round % 3);
        opened.store.write_blocking(edit("student", &format!("p{round}"), "family_name", "架空")).ok()?;
        opened.store.write_blocking(edit("attendance", &record, "code", "absent_sick")).ok()?;
        wait(opened.store.seal_now()).ok()?;
    }
    opened.store.write_blocking(edit("attendance", "2026-04-09/p0/day", "code", "late")).ok()?;
    let killed = written_to(&disk);
    opened.close();
    let closed = written_to(&disk);
    // What is left of it is small, and lies where such things are swept away.
    let _ = std::fs::remove_dir_all(&folder);
    if closes { closed } else { killed }
}

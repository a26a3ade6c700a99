//! Reads stored batches and parts of snapshots back from whichever site has them whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sonae_proto::batch::Batch;
use sonae_proto::ids::Hash32;
use sonae_proto::intake::{Location, StoredBatch};
use tokio::sync::mpsc;

use crate::engine::Input;
use crate::moved::{Found, Moved};
use crate::site::{Site, TransferError};
use crate::status::Board;

/// All sites, for reading.
#[derive(Debug)]
pub struct Reader {
    sites: Arc<Vec<Site>>,
    board: Arc<Board>,
    /// The site that answered last, so that one that hangs is not asked first for every batch.
    preferred: AtomicUsize,
    moved: Moved,
    /// Told where the records of merged objects lie.
    engine: mpsc::Sender<Input>,
}

impl Reader {
    /// Reads from these sites.
    #[must_use]
    pub fn new(sites: Arc<Vec<Site>>, board: Arc<Board>, engine: mpsc::Sender<Input>) -> Self {
        Self { sites, board, preferred: AtomicUsize::new(0), moved: Moved::default(), engine }
    }

    /// Reads a batch and checks that it is the one that was stored. `None` when no site has it whole.
    pub async fn batch(&self, stored: &StoredBatch) -> Option<Vec<u8>> {
        let is_whole = |bytes: &[u8]| {
            let batch = Batch::from_bytes(bytes.to_vec()).map_err(|error| error.to_string())?;
            if *batch.header() == stored.header {
                Ok(())
            } else {
                Err("another batch lies in its place".to_owned())
            }
        };
        let found = self.read(&stored.location, stored.header.hash(), is_whole).await;
        if found.is_none() {
            log::error!(
                log:% = stored.header.log, first = stored.header.first, last = stored.header.last;
                "a stored batch cannot be read at any site"
            );
            self.board.note_error("a stored batch cannot be read at any site");
        }
        found
    }

    /// Reads a part of a snapshot and checks its hash. `None` when no site has it whole.
    pub async fn part(&self, hash: Hash32, location: &Location) -> Option<Vec<u8>> {
        let is_whole = |bytes: &[u8]| {
            if *blake3::hash(bytes).as_bytes() == hash.0 { Ok(()) } else { Err("it is damaged".to_owned()) }
        };
        let found = self.read(location, hash, is_whole).await;
        if found.is_none() {
            log::error!(hash:% = hash; "a part of a snapshot cannot be read at any site");
            self.board.note_error("a part of a snapshot cannot be read at any site");
        }
        found
    }

    /// Reads where a record lay; if its object has gone, where it lies now.
    async fn read(
        &self,
        place: &Location,
        record: Hash32,
        is_whole: impl Fn(&[u8]) -> Result<(), String>,
    ) -> Option<Vec<u8>> {
        match self.read_at(place, &is_whole).await {
            Read::Whole(bytes) => return Some(bytes),
            Read::Damaged => return None,
            Read::Gone => {}
        }
        let Found { location, places } = self.moved.find(&self.sites, &place.object, record).await?;
        if let Some(places) = places {
            // An engine that has ended needs no places.
            let _ = self.engine.send(Input::Moved(places)).await;
        }
        match self.read_at(&location, &is_whole).await {
            Read::Whole(bytes) => Some(bytes),
            Read::Damaged | Read::Gone => None,
        }
    }

    async fn read_at(&self, place: &Location, is_whole: impl Fn(&[u8]) -> Result<(), String>) -> Read {
        let mut is_gone = false;
        let start = self.preferred.load(Ordering::Relaxed);
        for step in 0..self.sites.len() {
            let number = (start + step) % self.sites.len();
            let Some(site) = self.sites.get(number) else { continue };
            let read = site.get_part(&place.object, place.offset, place.bytes).await;
            if read.as_ref().is_err_and(TransferError::is_missing) {
                is_gone = true;
                continue;
            }
            let read = read.map_err(|error| error.to_string());
            match read.and_then(|bytes| is_whole(&bytes).map(|()| bytes)) {
                Ok(bytes) => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return Read::Whole(bytes.to_vec());
                }
                Err(error) => {
                    log::warn!(
                        site = site.label(), object = place.object.as_str(), offset = place.offset,
                        error = error.as_str();
                        "a record cannot be read at a site"
                    );
                    self.board.note_site_fault(site.id(), &error);
                }
            }
        }
        if is_gone { Read::Gone } else { Read::Damaged }
    }
}

enum Read {
    Whole(Vec<u8>),
    /// No site has it whole, and some site has the object.
    Damaged,
    /// Some site has no such object any more, and no other gives the record back.
    Gone,
}

//! Reads stored batches back from whichever site has them whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sonae_proto::batch::Batch;
use sonae_proto::intake::StoredBatch;

use crate::site::Site;
use crate::status::Board;

/// All sites, for reading.
#[derive(Debug)]
pub struct Reader {
    sites: Arc<Vec<Site>>,
    board: Arc<Board>,
    /// The site that answered last, so that one that hangs is not asked first for every batch.
    preferred: AtomicUsize,
}

impl Reader {
    /// Reads from these sites.
    #[must_use]
    pub fn new(sites: Arc<Vec<Site>>, board: Arc<Board>) -> Self {
        Self { sites, board, preferred: AtomicUsize::new(0) }
    }

    /// Reads a batch and checks that it is the one that was stored. `None` when no site has it whole.
    pub async fn batch(&self, stored: &StoredBatch) -> Option<Vec<u8>> {
        let start = self.preferred.load(Ordering::Relaxed);
        for step in 0..self.sites.len() {
            let number = (start + step) % self.sites.len();
            let Some(site) = self.sites.get(number) else { continue };
            match read(site, stored).await {
                Ok(bytes) => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return Some(bytes);
                }
                Err(error) => {
                    log::warn!(
                        site = site.label(), object = stored.location.object.as_str(),
                        offset = stored.location.offset, error = error.as_str();
                        "a batch cannot be read at a site"
                    );
                    self.board.note_site_fault(site.id(), &error);
                }
            }
        }
        log::error!(
            log:% = stored.header.log, first = stored.header.first, last = stored.header.last;
            "a stored batch cannot be read at any site"
        );
        self.board.note_error("a stored batch cannot be read at any site");
        None
    }
}

async fn read(site: &Site, stored: &StoredBatch) -> Result<Vec<u8>, String> {
    let place = &stored.location;
    let bytes =
        site.get_part(&place.object, place.offset, place.bytes).await.map_err(|error| error.to_string())?;
    let batch = Batch::from_bytes(bytes.to_vec()).map_err(|error| error.to_string())?;
    if *batch.header() == stored.header {
        Ok(bytes.to_vec())
    } else {
        Err("another batch lies in its place".to_owned())
    }
}

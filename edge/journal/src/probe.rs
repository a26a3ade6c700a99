//! What a segment file says about itself before it is scanned: its header, or failing that its commits.

use std::io;

use crate::layout::{CommitHeader, FORMAT_VERSION, SegmentHeader, page_offset, to_u32, to_usize};
use crate::limits::{PAGE_BYTES, SEGMENT_BYTES_MAX};
use crate::pool::Pool;
use crate::scan::{Expect, Scan, header_at, page_count, scan};
use crate::segment::{SegmentFile, file_name};
use crate::{JournalError, Lsn, Options};

/// A segment file, live or free.
pub(crate) struct Candidate {
    pub(crate) file: SegmentFile,
    pub(crate) header: Option<SegmentHeader>,
    /// The commit with the highest epoch, the first one of it in the file.
    first_commit: Option<CommitHeader>,
    /// The only commit of that epoch begins at page 1, as after a roll-over that was cut short.
    pub(crate) only_first_page: bool,
    /// The highest epoch of the header and of any commit.
    pub(crate) epoch_seen: u64,
    pub(crate) settled: bool,
}

/// Opens a segment file and looks at it.
pub(crate) fn probe(pool: &Pool, slot: u64) -> Result<Candidate, JournalError> {
    let path = pool.dir.join(file_name(slot));
    let opened = pool.disk.open(&path).and_then(|disk| disk.bytes().map(|bytes| (disk, bytes)));
    let (disk, bytes) = opened.map_err(|source| JournalError::Io {
        doing: "open the journal segment",
        path: path.clone(),
        source,
    })?;
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(SEGMENT_BYTES_MAX) / PAGE_BYTES * PAGE_BYTES;
    let mut candidate = Candidate {
        file: SegmentFile { slot, path, bytes, disk },
        header: None,
        first_commit: None,
        only_first_page: false,
        epoch_seen: 0,
        settled: false,
    };
    candidate.look(&pool.options)?;
    Ok(candidate)
}

impl Candidate {
    /// Reads what the file says about itself. If its header verifies, of the commits only the place of the first
    /// one is looked at: a roll-over that was cut short may have left one there with an epoch that is newer than
    /// the header and must not be given out again.
    pub(crate) fn look(&mut self, options: &Options) -> Result<(), JournalError> {
        let mut bytes = vec![0; to_usize(self.file.bytes.min(2 * PAGE_BYTES))];
        let head = self.file.disk.read_at(0, &mut bytes);
        self.header = head.ok().and_then(|()| SegmentHeader::decode(&bytes));
        if let Some(header) = &self.header
            && header.version != FORMAT_VERSION
        {
            let (version, known) = (header.version, FORMAT_VERSION);
            return Err(JournalError::Version { segment: self.file.name(), version, known });
        }
        if self.header.is_none() {
            bytes = self.read_all(options.salvage)?;
        }
        let headers = || (1..page_count(&bytes)).filter_map(|page| header_at(&bytes, page));
        let epoch = headers().map(|header| header.epoch).max().unwrap_or(0);
        self.first_commit = headers().find(|header| header.epoch == epoch);
        let later = headers().any(|header| header.epoch == epoch && header.page > 1);
        self.only_first_page = !later && self.first_commit.is_some();
        self.epoch_seen = epoch.max(self.header.map_or(0, |header| header.epoch));
        Ok(())
    }

    /// Returns the epoch of the segment in the file, 0 if there is none.
    pub(crate) fn epoch(&self) -> u64 {
        match (&self.header, &self.first_commit) {
            (Some(header), _) => header.epoch,
            (None, Some(commit)) => commit.epoch,
            (None, None) => 0,
        }
    }

    /// Returns the epoch of the segment before, if the header that tells it verifies.
    pub(crate) fn previous_epoch(&self) -> Option<u64> {
        self.header.map(|header| header.previous_epoch)
    }

    /// Returns the first frame of the segment.
    pub(crate) fn first_lsn(&self) -> Lsn {
        match (&self.header, &self.first_commit) {
            (Some(header), _) => header.first_lsn,
            (None, Some(commit)) => commit.first_lsn,
            (None, None) => Lsn::FIRST,
        }
    }

    /// Returns the first frame that is needed, as far as this segment can tell: `None` if it has no sound commit.
    /// Only what will not be written again counts, because files are freed on the strength of it: not the header
    /// of a segment without a commit, and not the header of a commit that is torn.
    pub(crate) fn keep_from(&self, found: &Scan) -> Option<Lsn> {
        let header = self.header.map_or(Lsn::FIRST, |header| header.keep_from);
        (found.last_page > 0).then(|| found.keep_from.max(header))
    }

    /// Scans the segment by itself, without its neighbours.
    pub(crate) fn scan_alone(&self, options: &Options) -> Result<Scan, JournalError> {
        let bytes = self.read_all(options.salvage)?;
        Ok(scan(
            &bytes,
            Expect {
                epoch: self.epoch(),
                first_lsn: self.first_lsn(),
                chain: None,
                reach: None,
                mend: !options.salvage,
                truncate_at_rot: options.truncate_at_rot(),
            },
        ))
    }

    /// Decides whether the file with the highest epoch is a segment, or a roll-over that was cut short: one
    /// without header counts only if its first commit is complete, or if there are more than one.
    pub(crate) fn begins_or_continues(&self, options: &Options) -> Result<bool, JournalError> {
        if self.header.is_some() || !self.only_first_page {
            return Ok(true);
        }
        Ok(self.scan_alone(options)?.last_page > 0)
    }

    /// Reads the whole file. With salvage, pages that cannot be read count as zeros.
    pub(crate) fn read_all(&self, salvage: bool) -> Result<Vec<u8>, JournalError> {
        let mut bytes = vec![0; to_usize(self.file.bytes)];
        match self.file.disk.read_at(0, &mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if !salvage => Err(self.file.failed("read the journal segment", error)),
            Err(_) => {
                self.read_pages(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    fn read_pages(&self, bytes: &mut [u8]) -> Result<(), JournalError> {
        let mut unreadable: Option<io::Error> = None;
        let mut read = 0_u32;
        for (page, place) in bytes.chunks_mut(to_usize(PAGE_BYTES)).enumerate() {
            match self.file.disk.read_at(page_offset(to_u32(page)), place) {
                Ok(()) => read += 1,
                Err(error) => {
                    place.fill(0);
                    unreadable = Some(error);
                }
            }
        }
        // Not a single page: that is a device which is gone, not rot.
        match unreadable {
            Some(error) if read == 0 => Err(self.file.failed("read any page of the journal segment", error)),
            _ => Ok(()),
        }
    }
}

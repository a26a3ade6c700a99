//! Measures what a commit costs above the least that any durable write costs on the same disk, in the same run.
//!
//! Alternates rounds of `Journal::commit` of one 284 B frame with rounds of a bare 4 KiB `pwrite` and `fdatasync`
//! into a file of zeros, so that whatever else the machine does hits both alike. Absolute times depend on the
//! machine; the ratio is what counts (target: p50 at most 1.3).
//!
//! Usage: `commit_ratio [DIR] [--rounds N] [--json]`

use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hdrhistogram::Histogram;
use sonae_journal::limits::{PAGE_BYTES, SEGMENT_BYTES_DEFAULT};
use sonae_journal::{FrameKind, Journal, Options, RealDisk};

/// The size of a typical change.
const FRAME_BYTES: usize = 284;
/// Commits in a round: few, so that both kinds see the same weather. On a busy machine times jump between
/// fractions of a millisecond and whole ticks of the scheduler, and stay there for a while.
const ROUND_COMMITS: u64 = 4;
/// Rounds after which the journal is recycled, outside of what is measured, as an idle owner does.
const RECYCLE_ROUNDS: u64 = 50;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Measured {
    journal: Histogram<u64>,
    raw: Histogram<u64>,
    flushes_per_commit: f64,
}

/// Writes pages into a pre-zeroed file, round and round.
struct Raw {
    file: std::fs::File,
    at: u64,
}

impl Raw {
    fn new(path: &Path) -> Outcome<Self> {
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
        file.write_all_at(&vec![0; usize::try_from(SEGMENT_BYTES_DEFAULT)?], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn append(&mut self, page: &[u8]) -> Outcome<()> {
        self.file.write_all_at(page, self.at)?;
        self.file.sync_data()?;
        self.at = (self.at + u64::from(PAGE_BYTES)) % u64::from(SEGMENT_BYTES_DEFAULT);
        Ok(())
    }
}

fn measure(dir: &Path, rounds: u64) -> Outcome<Measured> {
    let (mut journal, _) = Journal::open(Arc::new(RealDisk), &dir.join("journal"), Options::default())?;
    let mut raw = Raw::new(&dir.join("raw"))?;
    let mut times =
        Measured { journal: Histogram::new(3)?, raw: Histogram::new(3)?, flushes_per_commit: 0.0 };
    let frame = [0x5a_u8; FRAME_BYTES];
    let page = vec![0x5a_u8; usize::try_from(PAGE_BYTES)?];
    let mut flushes = 0;
    for round in 0..rounds {
        // Whoever goes second finds the device as the first has left it, so they take turns at that too.
        for turn in 0..2 {
            let journal_turn = (round + turn) % 2 == 0;
            let before = journal.flushes();
            for _ in 0..ROUND_COMMITS {
                let begin = Instant::now();
                if journal_turn {
                    journal.commit(&[(FrameKind(1), &frame)])?;
                } else {
                    raw.append(&page)?;
                }
                let nanos = u64::try_from(begin.elapsed().as_nanos())?;
                if journal_turn { times.journal.record(nanos)? } else { times.raw.record(nanos)? }
            }
            flushes += journal.flushes() - before;
        }
        if round % RECYCLE_ROUNDS == 0 {
            journal.recycle_before(journal.next_lsn())?;
            journal.prepare()?;
        }
    }
    let commits = u32::try_from(rounds * ROUND_COMMITS)?;
    times.flushes_per_commit = f64::from(u32::try_from(flushes)?) / f64::from(commits);
    Ok(times)
}

fn main() -> Outcome<()> {
    let mut json = false;
    let mut rounds = 500;
    let mut parent: Option<PathBuf> = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--rounds" => rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            _ => parent = Some(argument.into()),
        }
    }
    // Not the directory for temporary files, which may be memory, where a flush costs nothing.
    let dir = tempfile::tempdir_in(parent.unwrap_or_else(|| PathBuf::from(".")))?;
    let times = measure(dir.path(), rounds)?;
    let micros = |histogram: &Histogram<u64>, quantile| {
        std::time::Duration::from_nanos(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e6
    };
    let (journal_p50, journal_p99) = (micros(&times.journal, 0.5), micros(&times.journal, 0.99));
    let (raw_p50, raw_p99) = (micros(&times.raw, 0.5), micros(&times.raw, 0.99));
    let ratio = journal_p50 / raw_p50;
    // The fast end, where the scheduler has least to say: what the processor adds to the device's time.
    let ratio_p10 = micros(&times.journal, 0.1) / micros(&times.raw, 0.1);
    if json {
        println!(
            "{{\"commits\":{},\"frame_bytes\":{FRAME_BYTES},\"journal_p50_us\":{journal_p50:.1},\
             \"journal_p99_us\":{journal_p99:.1},\"raw_p50_us\":{raw_p50:.1},\"raw_p99_us\":{raw_p99:.1},\
             \"ratio_p50\":{ratio:.3},\"ratio_p10\":{ratio_p10:.3},\"flushes_per_commit\":{:.3}}}",
            times.journal.len(),
            times.flushes_per_commit
        );
    } else {
        println!("journal  p50 {journal_p50:.1} us  p99 {journal_p99:.1} us");
        println!("raw      p50 {raw_p50:.1} us  p99 {raw_p99:.1} us");
        println!(
            "ratio    p50 {ratio:.3}  p10 {ratio_p10:.3}, {:.3} flushes for each commit",
            times.flushes_per_commit
        );
    }
    Ok(())
}

//! Bundles that a courier brings: the same engine, writer, quorum and receipts as for the line (P7). Spec:
//! `docs/spec/courier.md`.
//!
//! A running node listens on `DATA/courier.sock`, 0600; the command line sends a bundle there and gets a report
//! and the answer that goes back to the school.
//!
//! ```text
//! {"import":null}\n the bundle, to the end of the stream   ->   the report, one line; the answer, a bundle
//! ```
//! **Invariant**: nothing is taken that the engine would not take over the line. Who carries needs no certificate:
//! batches, identities and key documents prove themselves.
//! **Invariant**: an answer holds receipts for the logs of the incarnation that the bundle is from, and no
//! others: they echo that replica's loss counter, which means nothing to another one.
//! **Invariant**: what is in flight is bounded by [`IN_FLIGHT_BATCHES`] and [`IN_FLIGHT_BYTES`].

mod answer;
mod session;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use sonae_proto::ids::{LogName, SchoolCode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::engine::Input;
use crate::reader::Reader;
use session::Session;

/// Batches that wait for their receipts: enough to fill a group of the writer.
pub const IN_FLIGHT_BATCHES: usize = 512;

/// Bytes of them.
pub const IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;

/// Connections of couriers are numbered from here, those of the line from 0.
pub const CONNECTION_FIRST: u64 = 1 << 63;

/// Bytes of the first line.
const LINE_BYTES_MAX: u64 = 1024;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Take the bundle that follows.
    Import,
}

/// Batches of a log that come after something that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early {
    /// The log.
    pub log: LogName,
    /// The last change that is stored.
    pub held: u64,
    /// The first change of the earliest batch that came.
    pub first: u64,
    /// How many batches.
    pub batches: u64,
}

/// What became of a bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose data.
    pub school: Option<SchoolCode>,
    /// Batches that were stored and have a receipt.
    pub taken: u64,
    /// Changes in them.
    pub changes: u64,
    /// Batches that were stored already.
    pub known: u64,
    /// Batches of a revoked device that are in quarantine now.
    #[serde(default)]
    pub quarantined: u64,
    /// Sets of the board's key documents that the quorum has.
    #[serde(default)]
    pub documents: u64,
    /// Logs of which an earlier bundle is missing.
    pub early: Vec<Early>,
    /// Batches and identities that were refused, or that follow a refused one.
    pub refused: u64,
    /// Why, of the first ones.
    pub reasons: Vec<String>,
    /// Logs of the replica that the cloud has lost receipted changes of, by the heads in the bundle.
    pub lost: Vec<LogName>,
    /// Fewer sites than the quorum took a batch: bring the bundle again.
    pub storage: bool,
    /// Why the file as a whole is refused; nothing was taken then.
    pub refused_file: Option<String>,
    /// Why the file was not read to its end.
    pub cut: Option<String>,
    /// Whether an answer follows.
    pub answer: bool,
}

impl Report {
    /// Whether everything that came is stored and nothing is amiss.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.early.is_empty()
            && self.refused == 0
            && self.lost.is_empty()
            && !self.storage
            && self.refused_file.is_none()
            && self.cut.is_none()
    }
}

/// What conversations need.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The engine's queue.
    pub engine: mpsc::Sender<Input>,
    /// For the batches of an answer.
    pub reader: Arc<Reader>,
    /// The board's root key.
    pub board: VerifyingKey,
}

/// Returns the socket of a data directory.
#[must_use]
pub fn socket(data: &Path) -> PathBuf {
    data.join("courier.sock")
}

/// Makes the socket of a data directory whose lock is held.
///
/// # Errors
/// Those of the system.
pub fn bind(data: &Path) -> io::Result<UnixListener> {
    let path = socket(data);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves one bundle after another until `stopping` says so.
pub async fn serve(listener: UnixListener, desk: Desk, data: PathBuf, mut stopping: watch::Receiver<bool>) {
    let mut next = CONNECTION_FIRST;
    loop {
        let stream = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            outcome = serve_one(stream, &desk, &mut next) => if let Err(error) = outcome {
                log::warn!(error:% = error; "a bundle was not read or answered to its end");
            }
        }
    }
    let _ = std::fs::remove_file(socket(&data));
}

async fn serve_one(stream: UnixStream, desk: &Desk, next: &mut u64) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (mut read, mut write) = (BufReader::new(read), BufWriter::new(write));
    let mut line = String::new();
    (&mut read).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    let Request::Import = serde_json::from_str(&line)?;
    let mut session = Session::new(desk, next);
    session.read(&mut read).await;
    let (report, told) = session.finish().await;
    log::info!(
        taken = report.taken, known = report.known, refused = report.refused, whole = report.is_whole();
        "a bundle was read"
    );
    let mut text = serde_json::to_vec(&report)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    if let Some(told) = told {
        answer::write(desk, next, &told, &mut write).await?;
    }
    write.flush().await?;
    write.shutdown().await
}

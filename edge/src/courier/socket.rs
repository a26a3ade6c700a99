//! The conversation about bundles: one line of JSON asks, then bytes. `DATA/courier.sock`, 0600, reaches the
//! daemon; a command that has opened the store itself talks to its own process the same way.
//!
//! ```text
//! export:  {"export":{"since":{LOG: SEQUENCE}}}\n   ->   the bundle, to the end of the stream
//! import:  {"import":null}\n the bundle, to the end   ->   one line: the report
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sonae_proto::vector::Sequences;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::Desk;
use super::export::export;
use super::import::import;

/// Bytes of the first line: 900 logs with their sequences.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A bundle of what is held after these sequences.
    Export {
        /// What the receiver has.
        since: Sequences,
    },
    /// Take the bundle that follows.
    Import,
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

/// Serves one conversation after another until `stop` says so: two imports at once would only wait for each
/// other.
pub async fn serve(listener: UnixListener, desk: Desk, data: PathBuf, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                tokio::select! {
                    _ = stop.changed() => break,
                    outcome = serve_one(stream, &desk) => if let Err(error) = outcome {
                        log::warn!(error = error.to_string(); "a bundle was not written or read to its end");
                    }
                }
            }
        }
    }
    let _ = std::fs::remove_file(socket(&data));
}

/// Serves one conversation.
///
/// # Errors
/// Those of the stream, and those of an export.
pub async fn serve_one(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (mut read, mut write) = (BufReader::new(read), BufWriter::new(write));
    let mut line = String::new();
    (&mut read).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    match serde_json::from_str(&line)? {
        Request::Export { since } => {
            let exported = export(desk, &since, &mut write).await?;
            log::info!(batches = exported.batches, changes = exported.changes; "a bundle was written");
        }
        Request::Import => {
            let report = import(desk, &mut read).await;
            log::info!(
                taken = report.taken, known = report.known, refused = report.refused,
                receipts = report.receipts, whole = report.is_whole(); "a bundle was read"
            );
            let mut answer = serde_json::to_vec(&report)?;
            answer.push(b'\n');
            write.write_all(&answer).await?;
        }
    }
    write.flush().await?;
    write.shutdown().await
}

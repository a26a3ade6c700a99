//! People at a box: they sign in, write again and again, note what they were answered, and go on when the box is back.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use crate::lan_client::LanClient;
use crate::town::{LOGIN, PASSWORD};

/// Pause before a box that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);

/// Boxes of a run at most, copies included: each has pupils of its own.
const BOXES_MAX: usize = 8;

/// The values that are written.
const CODES: [&str; 4] = ["late", "absent_sick", "absent_other", "left_early"];

/// The day that nobody writes but in a conflict.
const CONFLICT_DAY: &str = "2026-11-28";

#[derive(Debug)]
struct Shared {
    address: String,
    ca: PathBuf,
    ledger: Mutex<Ledger>,
    /// Held by whoever writes; whoever looks takes it alone, so that nothing is under way.
    hand: RwLock<()>,
}

/// The people at one box. They stop when dropped.
#[derive(Debug)]
pub(crate) struct Staff {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Staff {
    /// Has people begin to write at a box.
    pub fn begin(number: usize, address: String, ca: PathBuf, pause: Duration, ledger: Ledger) -> Self {
        let shared = Arc::new(Shared { address, ca, ledger: Mutex::new(ledger), hand: RwLock::new(()) });
        let task = tokio::spawn(work(Arc::clone(&shared), number, pause));
        Self { shared, task }
    }

    /// What they were answered.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is under way, and keeps it so.
    pub async fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared.hand.write().await
    }

    /// Has them write no more, once nothing is under way.
    pub async fn rest(&self) {
        let _hand = self.pause().await;
        self.task.abort();
    }

    /// Signs somebody else in.
    pub async fn client(&self) -> Result<LanClient> {
        LanClient::sign_in(&self.shared.address, &self.shared.ca, LOGIN, PASSWORD, None).await
    }
}

impl Drop for Staff {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn work(shared: Arc<Shared>, number: usize, pause: Duration) {
    let mut turn = 0_usize;
    loop {
        let signed_in = LanClient::sign_in(&shared.address, &shared.ca, LOGIN, PASSWORD, None).await;
        if let Ok(client) = signed_in
            && let Ok(pupils) = client.pupils("").await
        {
            let own: Vec<String> = pupils.into_iter().skip(number).step_by(BOXES_MAX).collect();
            while write(&shared, &client, &own, turn).await {
                turn += 1;
                tokio::time::sleep(pause).await;
            }
            turn += 1;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Writes a record, each twice, with values that change. Returns whether it was answered well.
async fn write(shared: &Shared, client: &LanClient, own: &[String], turn: usize) -> bool {
    let Some(pupil) = own.get((turn / 2) % own.len().max(1)) else { return true };
    let day = 1 + (turn / 2 / own.len()) % 27;
    let path = format!("/api/v1/attendance/2026-11-{day:02}/{pupil}");
    // After all days they begin again, with other values.
    let code = CODES[(turn + turn / 2 / own.len() / 27) % CODES.len()];
    let _hand = shared.hand.read().await;
    let ledger = || shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
    if !ledger().is_known(&path) {
        return true;
    }
    match client.put(&path, json!({ "code": code })).await {
        Ok((log, sequence)) => {
            ledger().kept(&path, code, log, sequence);
            true
        }
        Err(_) => {
            ledger().unanswered(&path, code);
            false
        }
    }
}

/// Writes the record that all may write.
pub(crate) async fn conflict(client: &LanClient, number: usize) -> Result<()> {
    let pupils = client.pupils("").await?;
    let Some(pupil) = pupils.first() else { return Ok(()) };
    let path = format!("/api/v1/attendance/{CONFLICT_DAY}/{pupil}");
    client.put(&path, json!({ "code": CODES[number % CODES.len()] })).await?;
    Ok(())
}

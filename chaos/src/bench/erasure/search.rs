//! The search for an erased pupil: raw, and with every key that can still be opened.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sonae_proto::descriptor::{CloudDescriptor, ReceiptKey};
use sonae_proto::destruction::DestructionCertificate;
use sonae_proto::seal::{OpenKey, decrypt, open_lines};
use sonae_proto::signed::Signed;

use super::{CANARY, LONG, Scene, epoch, text};
use crate::canary::contains;
use crate::program::run;

impl Scene {
    /// Exports what the cloud gives out, with its signatures verified, and returns the folder.
    fn export(&self, name: &str) -> Result<PathBuf> {
        let out = self.dir.join(format!("export-{name}"));
        if out.exists() {
            return Ok(out);
        }
        let board: Value =
            serde_json::from_slice(&std::fs::read(self.settled.town.dir.join("board/board.json"))?)?;
        let root = board.get("root").and_then(Value::as_str).context("no root")?.to_owned();
        let [_, a, b] = self.settled.town.cloud_dirs().map(|path| text(&path));
        let school = self.settled.town.school.as_str();
        let arguments =
            ["export", "--site", &a, "--site", &b, "--school", school, "--root", &root, "--out", &text(&out)];
        run("sonae-cloud", &arguments, "")?;
        Ok(out)
    }

    /// Searches for the pupil: in all files raw, and in all that opens with a key which the recovery key opens.
    pub(super) fn search(&self, name: &str) -> Result<usize> {
        let export = self.export(name)?;
        let recovery = std::fs::read_to_string(self.settled.town.dir.join("board/recovery.key"))?;
        let secret =
            recovery.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).context("no recovery key")?;
        let recovery = OpenKey::parse(secret)?;
        let mut files = Vec::new();
        let boxes = self.boxes.iter().map(|one| one.appliance.data.clone());
        for dir in boxes.chain([export]).chain(self.settled.town.cloud_dirs()) {
            walk(&dir, &mut files)?;
        }
        let opened = |bytes: &Vec<u8>| {
            let text = decrypt(bytes, &recovery).ok()?;
            OpenKey::parse(std::str::from_utf8(&text).ok()?.trim()).ok()
        };
        let keys: Vec<OpenKey> = files.iter().filter_map(opened).collect();
        ensure!(keys.len() >= 4, "only {} keys open", keys.len());
        let needles = [CANARY.as_bytes(), self.pupil.as_bytes()];
        let in_bytes = |bytes: &[u8]| needles.iter().filter(|needle| contains(bytes, needle)).count();
        let mut hits = 0;
        for bytes in &files {
            hits += in_bytes(bytes);
            if bytes.starts_with(b"age-encryption.org/v1") {
                let lines = keys.iter().find_map(|key| open_lines(bytes, key).ok());
                hits += lines.map_or(0, |lines| in_bytes(&lines));
            }
        }
        Ok(hits)
    }

    /// Waits until the node says that the destroyed keys have gone, and reads what it has signed.
    pub(super) async fn certified(&self) -> Result<()> {
        let began = Instant::now();
        let board = self.settled.town.dir.join("board/descriptor");
        let board = std::fs::read_to_string(board)?;
        let descriptor: CloudDescriptor = serde_json::from_str(board.lines().next().unwrap_or_default())?;
        let [data, ..] = self.settled.town.cloud_dirs().map(|path| text(&path));
        let place = format!("/destruction/certificates/{}", self.settled.town.school);
        loop {
            let said = run("sonae-cloud", &["status", "--data", &data, "--json"], "")?;
            let status: Value = serde_json::from_str(&said)?;
            if let Some(text) = status.pointer(&place).and_then(Value::as_str) {
                let by = |key: &ReceiptKey| Signed::<DestructionCertificate>::verify(text, &key.key).ok();
                let signed = descriptor.receipt_keys.iter().find_map(by).context("nobody has signed that")?;
                let (keys, sites) = (&signed.body().keys, &signed.body().sites);
                ensure!(keys.len() == 3 && sites.len() == 2, "it is about something else: {text}");
                return Ok(());
            }
            ensure!(began.elapsed() < LONG, "the destroyed keys stay: {status}");
            // paced: the file is written anew once a second
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Counts the files of the cloud that hold a wrapped key of the old epoch. Key documents lie there in clear.
    pub(super) fn objects_with_old_keys(&self) -> Result<usize> {
        let mut files = Vec::new();
        for dir in self.settled.town.cloud_dirs() {
            walk(&dir, &mut files)?;
        }
        let wrapped = format!("\"epoch\":{},\"file\":", epoch());
        Ok(files.iter().filter(|bytes| contains(bytes, wrapped.as_bytes())).count())
    }
}

/// Reads all files below a folder.
fn walk(dir: &Path, files: &mut Vec<Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            walk(&path, files)?;
        } else if kind.is_file() {
            files.push(std::fs::read(&path)?);
        }
    }
    Ok(())
}

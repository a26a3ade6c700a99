//! The directory that an export writes.
//!
//! **Invariant**: no file is ever replaced: other content for a name gets a name of its own.
//! **Invariant**: the index comes last and by rename, so an export with an index was not interrupted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use sonae_proto::export::{INDEX_FILE, Line, rival_file};
use sonae_proto::ids::Hash32;

use super::ExportError;

/// An export under construction.
#[derive(Debug)]
pub struct Out {
    /// Nothing is written without one.
    dir: Option<PathBuf>,
    written: BTreeMap<String, Hash32>,
}

impl Out {
    /// Takes a new or empty directory.
    ///
    /// # Errors
    /// [`ExportError::Occupied`], [`ExportError::Write`].
    pub fn create(dir: &Path) -> Result<Self, ExportError> {
        fs::create_dir_all(dir).map_err(|source| fault(dir, source))?;
        let mut entries = fs::read_dir(dir).map_err(|source| fault(dir, source))?;
        if entries.next().is_some() {
            return Err(ExportError::Occupied { path: dir.to_owned() });
        }
        Ok(Self { dir: Some(dir.to_owned()), written: BTreeMap::new() })
    }

    /// Writes nothing: for an audit.
    #[must_use]
    pub const fn nowhere() -> Self {
        Self { dir: None, written: BTreeMap::new() }
    }

    /// Writes a file once. Returns the name under which the content lies.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    pub fn write(&mut self, name: &str, content: &[u8]) -> Result<String, ExportError> {
        let hash = Hash32(*blake3::hash(content).as_bytes());
        let name = match self.written.get(name) {
            Some(known) if *known == hash => return Ok(name.to_owned()),
            Some(_) => rival_file(name, hash),
            None => name.to_owned(),
        };
        if self.written.contains_key(&name) {
            return Ok(name);
        }
        if let Some(path) = self.dir.as_ref().map(|dir| dir.join(&name)) {
            let write = || {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                File::create_new(&path)?.write_all(content)
            };
            write().map_err(|source| fault(&path, source))?;
        }
        self.written.insert(name.clone(), hash);
        Ok(name)
    }

    /// Writes the index and ends.
    ///
    /// # Errors
    /// [`ExportError::Write`].
    ///
    /// # Durability
    /// Everything is on stable storage when this returns.
    pub fn finish(self, lines: &[Line]) -> Result<(), ExportError> {
        let Some(dir) = self.dir else { return Ok(()) };
        let staged = dir.join("index.jsonl.unfinished");
        let write = || {
            let file = File::create_new(&staged)?;
            let mut out = BufWriter::new(&file);
            for line in lines {
                serde_json::to_writer(&mut out, line)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
            drop(out);
            // All files at once: thousands of single flushes would take longer than the export.
            rustix::fs::syncfs(&file)?;
            fs::rename(&staged, dir.join(INDEX_FILE))?;
            File::open(&dir)?.sync_all()
        };
        write().map_err(|source| fault(&staged, source))
    }
}

fn fault(path: &Path, source: std::io::Error) -> ExportError {
    ExportError::Write { path: path.to_owned(), source }
}

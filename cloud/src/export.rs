//! `sonae-cloud export`: everything that the sites hold of one school, as files that `age`, `zstd` and `jq`
//! read (P8). Spec: `docs/spec/export.md`; how a person goes on: `docs/runbooks/by-hand.en.md`.
//!
//! **Invariant**: sites are only read, without a lock, so a node may run beside it. What is written meanwhile may
//! be missed.
//! **Invariant**: nothing that was found of the logs is left out; what does not verify is written too, and told. Of
//! snapshots those are written that tell what the logs alone do not, or the most (`snapshots`).
//! **Invariant**: "complete" is said only when every site and object was read, every batch verifies and no log
//! has a gap (P10).

pub mod audit;
mod chain;
mod documents;
mod out;
mod scan;
mod snapshots;

use std::collections::BTreeSet;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use ed25519_dalek::VerifyingKey;
use sonae_proto::batch::{Batch, PREFIX_BYTES};
use sonae_proto::destruction::Destroyed;
use sonae_proto::export::{FORMAT, Line, Problem, batch_file, key_name, quarantined_file};
use sonae_proto::ids::SchoolCode;
use sonae_proto::manifest::KeyUse;
use sonae_proto::object::RecordKind;
use sonae_proto::vector::Heads;

use crate::exit::Exit;
use crate::limits::LISTINGS_MAX;
use crate::object_name::StoredName;
use crate::site::{Site, SiteError};
use chain::{Chains, Entries, Entry};
use documents::Documents;
use out::Out;
use scan::{Found, Gone, Listing};
use snapshots::Snapshots;

pub(crate) use documents::said;

/// The pages that are written beside the data.
const PAGES: [(&str, &str); 2] = [
    ("BY-HAND.ja.md", include_str!("../../docs/runbooks/by-hand.ja.md")),
    ("BY-HAND.en.md", include_str!("../../docs/runbooks/by-hand.en.md")),
];

/// What to export.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose data.
    pub school: SchoolCode,
    /// Where to, a new or empty directory.
    pub out: PathBuf,
    /// The site directories.
    pub sites: Vec<PathBuf>,
    /// The board's root key; nothing is verified without.
    pub root: Option<VerifyingKey>,
    /// Heads that a witness outside of the cloud names; empty for none.
    pub expect: Heads,
}

/// How far an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Objects read, in all passes.
    pub done: usize,
    /// Objects to read; those with parts of snapshots are known once the others were read.
    pub total: usize,
    /// Batches written.
    pub batches: usize,
}

/// What came of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Batches that were written.
    pub batches: u64,
    /// Changes in the chains.
    pub changes: u64,
    /// Snapshots that were written.
    pub snapshots: u64,
    /// What was found wrong.
    pub problems: Vec<Problem>,
    /// Whether nothing is known to be missing and everything was verified.
    pub complete: bool,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The directory has something in it.
    #[error("{path} is not empty; give --out a new or empty directory")]
    Occupied {
        /// Which directory.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written; check the space there, then start again into an empty directory")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No site can be read at all.
    #[error("no site can be read; --site is the directory that holds site.json and objects/")]
    Sites(#[source] SiteError),
    /// There is nothing of this school.
    #[error("the sites hold nothing of school {school}; check the code and name all sites")]
    Nothing {
        /// Which school.
        school: SchoolCode,
    },
}

impl ExportError {
    /// Returns the exit code that says it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Occupied { .. } => Exit::Usage,
            Self::Write { .. } => Exit::Internal,
            Self::Sites(_) => Exit::Sites,
            Self::Nothing { .. } => Exit::Incomplete,
        }
    }
}

/// Exports a school. `progress` is told after each object.
///
/// # Errors
/// [`ExportError`]; an export that ends without one has an index, however incomplete it is.
///
/// # Durability
/// Everything is on stable storage when this returns.
pub async fn run(request: &Request, progress: &mut dyn FnMut(Progress)) -> Result<Summary, ExportError> {
    let mut problems = Vec::new();
    let sites = open(&request.sites, &mut problems)?;
    let out = Out::create(&request.out)?;
    read(request, sites, problems, out, progress).await
}

/// Reads everything, and writes it wherever `out` leads.
async fn read(
    request: &Request,
    sites: Vec<Site>,
    mut problems: Vec<Problem>,
    mut out: Out,
    progress: &mut dyn FnMut(Progress),
) -> Result<Summary, ExportError> {
    let listing = scan::list(&sites, &mut problems).await;
    let mut export = Export {
        request,
        sites,
        documents: Documents::new(request.school, request.root),
        snapshots: Snapshots::default(),
        entries: Entries::new(),
        total: listing.len() * 2,
        listing,
        done: 0,
    };
    // Documents first: a batch is verified as it is written, and its identity may lie in a later object. The
    // second pass reads the same objects, so it tells of the same damage.
    export.pass(Pass::Documents, None, &mut out, &mut Vec::new(), progress).await?;
    export.documents.write_keys(&mut out)?;
    export.documents.write_proofs(&mut out)?;
    export.snapshots.judge(&mut export.documents, &mut out)?;
    export.pass(Pass::Batches, None, &mut out, &mut problems, progress).await?;
    if export.entries.is_empty() && export.documents.is_empty() {
        return Err(ExportError::Nothing { school: request.school });
    }
    let chains = export.chains();
    let destroyed = export.documents.destroyed();
    let objects = export.snapshots.choose(&chains.lines, &destroyed, &mut out)?;
    // What goes away now shows as a part that is missing.
    export.pass(Pass::Parts, Some(&objects), &mut out, &mut Vec::new(), progress).await?;
    for (name, page) in PAGES {
        out.write(name, page.as_bytes())?;
    }
    export.finish(chains, &destroyed, problems, out)
}

fn open(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Result<Vec<Site>, ExportError> {
    let mut sites = Vec::new();
    let mut fault = None;
    for path in paths {
        match Site::open_to_read(path) {
            Ok(site) => sites.push(site),
            Err(error) => {
                let (site, text) = (path.display().to_string(), said(&error));
                problems.push(Problem::Unreadable { site, object: None, text });
                fault = Some(error);
            }
        }
    }
    match fault {
        Some(fault) if sites.is_empty() => Err(ExportError::Sites(fault)),
        _ => Ok(sites),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Documents and roots of snapshots.
    Documents,
    /// Batches, and where parts of snapshots lie.
    Batches,
    /// Parts of the snapshots that were chosen.
    Parts,
}

struct Export<'a> {
    request: &'a Request,
    sites: Vec<Site>,
    /// All objects that have been listed so far.
    listing: Listing,
    documents: Documents,
    snapshots: Snapshots,
    entries: Entries,
    total: usize,
    done: usize,
}

impl Export<'_> {
    /// Reads all objects or only some, and those that have come while others went away under the reader.
    async fn pass(
        &mut self,
        pass: Pass,
        only: Option<&BTreeSet<StoredName>>,
        out: &mut Out,
        problems: &mut Vec<Problem>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ExportError> {
        let mut gone = Gone::default();
        let mut new = self.listing.clone();
        if let Some(only) = only {
            new.retain(|name, _| only.contains(name));
            self.total += new.len();
        }
        for _ in 0..LISTINGS_MAX {
            let vanished = gone.vanished();
            for (name, holders) in &new {
                for found in scan::read(&self.sites, *name, holders, &mut gone, problems).await {
                    self.add(pass, *name, found, out, problems)?;
                }
                self.done += 1;
                progress(Progress { done: self.done, total: self.total, batches: self.entries.len() });
            }
            if gone.vanished() == vanished {
                break;
            }
            new = scan::list(&self.sites, problems).await;
            new.retain(|name, _| !self.listing.contains_key(name));
            self.total += new.len();
            self.listing.extend(new.clone());
        }
        gone.problems(problems);
        Ok(())
    }

    fn add(
        &mut self,
        pass: Pass,
        name: StoredName,
        found: Found,
        out: &mut Out,
        problems: &mut Vec<Problem>,
    ) -> Result<(), ExportError> {
        match (pass, found.kind()) {
            (Pass::Documents, Some(RecordKind::Snapshot)) => {
                self.snapshots.add_root(self.request.school, &found.body, found.position);
            }
            (Pass::Documents, Some(kind)) => self.documents.add(kind, &found.body, out)?,
            (Pass::Batches, Some(RecordKind::SnapshotPart)) => self.snapshots.note_part(&found.body, name),
            (Pass::Parts, Some(RecordKind::SnapshotPart)) => self.snapshots.write_part(&found.body, out)?,
            (Pass::Batches, Some(RecordKind::Batch)) => self.add_batch(name, found, out, problems)?,
            (Pass::Batches, None) => problems.push(Problem::UnknownRecord {
                object: name.to_string(),
                offset: u64::try_from(found.offset).unwrap_or(u64::MAX),
            }),
            (Pass::Documents, None) | (Pass::Batches, Some(_)) | (Pass::Parts, _) => {}
        }
        Ok(())
    }

    fn add_batch(
        &mut self,
        object: StoredName,
        found: Found,
        out: &mut Out,
        problems: &mut Vec<Problem>,
    ) -> Result<(), ExportError> {
        let (offset, position) = (u64::try_from(found.offset).unwrap_or(u64::MAX), found.position);
        let Ok(batch) = Batch::from_bytes(found.body) else {
            problems.push(Problem::UnknownRecord { object: object.to_string(), offset });
            return Ok(());
        };
        let header = *batch.header();
        if header.school != self.request.school {
            return Ok(());
        }
        let key = (header.log, header.first, header.hash());
        let prefix = batch.bytes().get(..PREFIX_BYTES).unwrap_or_default().to_vec();
        let known = self.entries.get_mut(&key).filter(|known| known.verified);
        let is_known = known.is_some();
        if let Some(known) = known {
            known.position = known.position.max(position);
            if known.prefix == prefix {
                return Ok(());
            }
        }
        // A copy with another signature is no rival, but somebody has altered it.
        let objection = self.documents.objection(&batch);
        let verified = self.request.root.is_some() && objection.is_none();
        if let Some(text) = objection.filter(|_| is_known || !self.entries.contains_key(&key)) {
            let (log, first, last) = (header.log, header.first, header.last);
            problems.push(Problem::UnverifiedBatch { log, first, last, text });
        }
        if is_known {
            return Ok(());
        }
        let quarantined = self.documents.is_quarantined(&header);
        let name = if quarantined { quarantined_file(&header) } else { batch_file(&header) };
        let file = out.write(&name, batch.payload())?;
        self.entries.insert(key, Entry { header, prefix, file, verified, quarantined, position });
        Ok(())
    }

    /// Puts the batches into their logs, and compares with what is known of their ends.
    fn chains(&self) -> Chains {
        let mut chains = Chains::of(&self.entries, &self.documents.accepted());
        chains.expect(&self.request.expect);
        chains.expect(&self.snapshots.heads());
        chains
    }

    fn finish(
        self,
        mut chains: Chains,
        destroyed: &Destroyed,
        mut problems: Vec<Problem>,
        out: Out,
    ) -> Result<Summary, ExportError> {
        problems.append(&mut chains.problems);
        let used: BTreeSet<(KeyUse, u32)> = chains
            .lines
            .iter()
            .map(|line| (KeyUse::Tier(line.log.tier), line.epoch))
            .chain(self.snapshots.keys())
            .collect();
        for (key_use, epoch) in used {
            if destroyed.contains(key_use, epoch) {
                problems.push(Problem::KeyDestroyed { key: key_name(key_use, epoch) });
            } else if !self.documents.has_key(key_use, epoch) {
                problems.push(Problem::KeyMissing { key: key_name(key_use, epoch) });
            }
        }
        problems.append(&mut self.snapshots.problems(&chains.lines, destroyed));
        if self.request.root.is_none() {
            problems.push(Problem::NoRoot);
        }
        let (mut document_lines, mut document_problems) = self.documents.finish();
        problems.append(&mut document_problems);
        let mut snapshot_lines = self.snapshots.lines();

        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let (batches, snapshots) = (count(chains.lines.len()), count(snapshot_lines.len()));
        let against = count(problems.iter().filter(|problem| problem.counts()).count());
        let (changes, complete) = (chains.changes, against == 0);
        let mut lines = vec![Line::Export {
            format: FORMAT.to_owned(),
            school: self.request.school,
            root: self.request.root.map(|root| HEXLOWER.encode(root.as_bytes())),
            sites: self.request.sites.iter().map(|path| path.display().to_string()).collect(),
            objects: count(self.listing.len()),
        }];
        lines.append(&mut document_lines);
        lines.extend(chains.lines.into_iter().map(|line| Line::Batch(Box::new(line))));
        lines.append(&mut snapshot_lines);
        lines.extend(problems.iter().cloned().map(Line::Problem));
        lines.push(Line::End { batches, changes, snapshots, problems: against, complete });
        out.finish(&lines)?;
        Ok(Summary { batches, changes, snapshots, problems, complete })
    }
}

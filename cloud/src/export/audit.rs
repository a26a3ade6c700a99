//! An audit: what the sites hold of one school, judged with public keys only (P4). The same reading and the same
//! checks as an export; nothing is written.
//!
//! **Invariant**: "verified" is said only when nothing speaks against it and a witness outside of the cloud has
//! confirmed the heads: a cloud that was rolled back as a whole is without fault in itself (P10).

use std::path::PathBuf;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use sonae_proto::export::Problem;
use sonae_proto::ids::SchoolCode;
use sonae_proto::vector::Heads;

use super::out::Out;
use super::{ExportError, Progress, Request, Summary, open, read};
use crate::site::Site;

/// What is audited.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whose data.
    pub school: SchoolCode,
    /// The board's root key.
    pub root: VerifyingKey,
    /// Heads that a witness outside of the cloud names; empty for none.
    pub expect: Heads,
}

/// Whether everything is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// The heads from outside are here, and so is all before them.
    Verified,
    /// Nothing speaks against it, but no witness was asked.
    Unverified,
    /// Something is missing, forked, or does not verify.
    Incomplete,
}

/// What came of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether everything is there.
    pub completeness: Completeness,
    /// What was found.
    pub summary: Summary,
}

/// Audits site directories. They are only read; a node may be using them.
///
/// # Errors
/// [`ExportError::Sites`] when none can be read, [`ExportError::Nothing`].
pub async fn of_directories(
    question: &Question,
    paths: &[PathBuf],
    progress: &mut dyn FnMut(Progress),
) -> Result<Verdict, ExportError> {
    let mut problems = Vec::new();
    let sites = open(paths, &mut problems)?;
    of_sites(question, sites, problems, progress).await
}

/// Audits sites; `problems` is what opening them has shown.
///
/// # Errors
/// [`ExportError::Nothing`].
pub async fn of_sites(
    question: &Question,
    sites: Vec<Site>,
    problems: Vec<Problem>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verdict, ExportError> {
    let request = Request {
        school: question.school,
        out: PathBuf::new(),
        sites: Vec::new(),
        root: Some(question.root),
        expect: question.expect.clone(),
    };
    let summary = read(&request, sites, problems, Out::nowhere(), progress).await?;
    let completeness = match (summary.complete, question.expect.is_empty()) {
        (false, _) => Completeness::Incomplete,
        (true, true) => Completeness::Unverified,
        (true, false) => Completeness::Verified,
    };
    Ok(Verdict { completeness, summary })
}

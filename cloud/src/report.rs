//! `sonae-cloud status` in words.

use std::fmt::{self, Write as _};

use sonae_proto::limits::PROOF_AGE_MS_MAX;
use sonae_proto::proof::ProofResult;

use crate::compaction::CompactionStatus;
use crate::status::{LastError, ProofStatus, SchoolStatus, SiteState, SiteStatus, Status};

/// Writes a status for people.
///
/// # Errors
/// Those of the formatter.
pub fn text(status: &Status, running: bool, now_ms: u64) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let state = if running { "running" } else { "not running; what follows is its last word" };
    writeln!(out, "node      {state}")?;
    writeln!(out, "listen    {}", status.listen)?;
    writeln!(out, "boot      {}", status.boot)?;
    writeln!(out, "quorum    {} of {} sites", status.quorum, status.sites.len())?;
    writeln!(out, "complete  {}", if status.complete { "yes" } else { "NO: too few sites could be read" })?;
    for site in &status.sites {
        write_site(&mut out, site)?;
    }
    write_compaction(&mut out, &status.compaction)?;
    for school in &status.schools {
        write_school(&mut out, school, now_ms)?;
    }
    writeln!(out, "connections {}", status.connections)?;
    writeln!(out, "handshakes refused {}, failed {}", status.handshakes_refused, status.handshakes_failed)?;
    for (code, count) in &status.refusals {
        let name = serde_json::to_value(code).ok();
        let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or("?");
        writeln!(out, "refused   {name} {count}")?;
    }
    if status.equivocations > 0 {
        writeln!(
            out,
            "FORKS     {} batches claim a place that another holds; both are kept",
            status.equivocations
        )?;
    }
    if status.cut_off > 0 {
        writeln!(out, "HOLES     {} batches lie behind something that is lost", status.cut_off)?;
    }
    writeln!(out, "last error {}", error(status.last_error.as_ref()))?;
    Ok(out)
}

fn write_site(out: &mut String, site: &SiteStatus) -> fmt::Result {
    let state = match site.state {
        SiteState::Ok => "ok",
        SiteState::Failing => "FAILING",
        SiteState::Unusable => "UNUSABLE",
    };
    writeln!(
        out,
        "site      {state} {} id {} objects {} healed {} damaged {} faults {}, last error {}",
        site.place,
        site.id,
        site.objects,
        site.healed,
        site.damaged,
        site.faults,
        error(site.last_error.as_ref())
    )
}

fn write_compaction(out: &mut String, one: &CompactionStatus) -> fmt::Result {
    let Some(passed_ms) = one.passed_ms else {
        return match &one.waits_for {
            Some(reason) => writeln!(out, "merging   WAITS: {reason}"),
            None => writeln!(out, "merging   not looked yet"),
        };
    };
    writeln!(
        out,
        "merging   {} objects, {} of them merged, {} superseded (oldest {} h of {} h), {} left alone; since the start \
         {} made, {} deleted (at {passed_ms} ms)",
        one.objects,
        one.merged,
        one.superseded,
        one.oldest_hours,
        one.delete_after_hours,
        one.left_alone,
        one.made,
        one.deleted
    )?;
    match &one.waits_for {
        Some(reason) => writeln!(out, "merging   WAITS: {reason}"),
        None => Ok(()),
    }
}

fn write_school(out: &mut String, school: &SchoolStatus, now_ms: u64) -> fmt::Result {
    writeln!(out, "school    {} manifest {}", school.school, school.manifest_version)?;
    for one in &school.incarnations {
        let mark =
            if one.second { ", SECOND INCARNATION: a rebuild, or its bundle was used twice" } else { "" };
        writeln!(out, "  incarnation {} of {} (number {}{mark})", one.incarnation, one.replica, one.ordinal)?;
    }
    for device in &school.revoked {
        writeln!(out, "  revoked {device}")?;
    }
    for one in &school.quarantined {
        writeln!(
            out,
            "  QUARANTINE {} batches with {} changes of {} wait for the board: log {} head {} {}",
            one.batches, one.changes, one.replica, one.log, one.head.sequence, one.head.hash
        )?;
    }
    for one in &school.proofs {
        write_proof(out, one, now_ms)?;
    }
    if school.proofs.is_empty() {
        writeln!(out, "  restore  NEVER PROVED: no box of this school has said that it tried")?;
    }
    for (log, head) in &school.heads {
        writeln!(out, "  log {log} head {} {}", head.sequence, head.hash)?;
    }
    Ok(())
}

/// A proof that failed, and one that is too old, are both shown as what they are: not proved.
fn write_proof(out: &mut String, one: &ProofStatus, now_ms: u64) -> fmt::Result {
    let age_ms = one.proved_ms.map(|at_ms| now_ms.abs_diff(at_ms));
    let is_fresh = age_ms.is_some_and(|age_ms| age_ms <= PROOF_AGE_MS_MAX);
    let state = if is_fresh && one.result == ProofResult::Proved { "proved" } else { "NOT PROVED" };
    let last = match age_ms {
        Some(age_ms) => format!("last success {} h ago", age_ms / 3_600_000),
        None => "no success ever".to_owned(),
    };
    let cause = if one.cause.is_empty() { String::new() } else { format!(" ({})", one.cause) };
    writeln!(
        out,
        "  restore  {state} by {}: number {} {}{cause} at {} ms, {last}",
        one.incarnation,
        one.number,
        one.result.name(),
        one.ended_ms
    )
}

fn error(error: Option<&LastError>) -> String {
    error.map_or_else(|| "none".to_owned(), |error| format!("{} (at {} ms)", error.text, error.at_ms))
}

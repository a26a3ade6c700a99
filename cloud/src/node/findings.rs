//! What a start says: the first status, and what reading the sites has shown.

use std::net::SocketAddr;

use ulid::Ulid;

use super::Options;
use crate::clock::now_ms;
use crate::compaction::{CompactionStatus, DestructionStatus};
use crate::index::Fed;
use crate::load::SiteReading;
use crate::site::{Site, SiteError};
use crate::status::{FORMAT, SiteState, SiteStatus, Status, error_now};

pub(super) fn first_status(options: &Options, boot: &Ulid, listen: SocketAddr, complete: bool) -> Status {
    Status {
        format: FORMAT.to_owned(),
        boot: boot.to_string(),
        listen: listen.to_string(),
        started_ms: now_ms(),
        updated_ms: now_ms(),
        complete,
        quorum: options.quorum,
        sites: Vec::new(),
        schools: Vec::new(),
        connections: 0,
        refusals: std::collections::BTreeMap::new(),
        handshakes_refused: 0,
        handshakes_failed: 0,
        equivocations: 0,
        cut_off: 0,
        compaction: CompactionStatus::default(),
        destruction: DestructionStatus::default(),
        last_error: None,
    }
}

pub(super) fn site_statuses(
    sites: &[Site],
    readings: &[SiteReading],
    faults: &[SiteError],
) -> Vec<SiteStatus> {
    let open = sites.iter().zip(readings).map(|(site, reading)| {
        log::info!(
            site = site.label(), objects = reading.objects, healed = reading.healed, damaged = reading.damaged;
            "a site was read"
        );
        SiteStatus {
            id: site.id_text(),
            place: site.label().to_owned(),
            state: if reading.fault.is_some() { SiteState::Failing } else { SiteState::Ok },
            objects: reading.objects,
            damaged: reading.damaged,
            healed: reading.healed,
            faults: u64::from(reading.fault.is_some()),
            last_error: reading.fault.as_deref().map(error_now),
        }
    });
    let unusable = faults.iter().map(|fault| {
        log::error!(error:% = fault; "a site cannot be opened");
        SiteStatus {
            id: String::new(),
            place: fault.place(),
            state: SiteState::Unusable,
            objects: 0,
            damaged: 0,
            healed: 0,
            faults: 1,
            last_error: Some(error_now(&fault.to_string())),
        }
    });
    open.chain(unusable).collect()
}

pub(super) fn note_findings(status: &mut Status, fed: &Fed) {
    log::info!(
        batches = fed.batches, snapshots = fed.snapshots, undurable = fed.undurable.len(), complete = status.complete;
        "the logs were read from the sites"
    );
    status.equivocations = u64::try_from(fed.equivocations).unwrap_or(u64::MAX);
    status.cut_off = u64::try_from(fed.cut_off).unwrap_or(u64::MAX);
    let findings = [
        (fed.equivocations, "two batches claim one place in a log; both are kept"),
        (fed.cut_off, "batches lie behind a hole in their log"),
        (fed.forged, "batches are not signed by who is said to have written them; no log counts them"),
        (fed.meaningless, "batches are not what their headers name; somebody has altered them"),
        (fed.nameless, "batches are of incarnations that no document at the sites names"),
        (fed.foreign_documents, "documents at the sites are not signed by this board"),
    ];
    for (count, text) in findings.into_iter().filter(|(count, _)| *count > 0) {
        log::error!(count = count, finding = text; "the sites hold something unexpected");
        status.last_error = Some(error_now(text));
    }
    if !status.complete {
        log::error!("too few sites could be read; heads may be incomplete");
        status.last_error = Some(error_now("too few sites could be read; heads may be incomplete"));
    }
}

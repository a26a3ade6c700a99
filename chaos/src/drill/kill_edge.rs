//! `kill -9` of the appliance at random moments under load: nothing that was acknowledged may be lost (P1).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::Ledger;
use crate::generate::{self, Options};
use crate::lan_client::LanClient;
use crate::line::Line;
use crate::program::run;
use crate::town::{LOGIN, PASSWORD, Town};

/// Writers at once.
pub(super) const WRITERS: usize = 4;

/// The report of a drill.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Kills.
    pub rounds: u32,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that were not there afterwards.
    pub lost: u64,
    /// Acknowledged sequences that the log did not reach afterwards.
    pub sequences_lost: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Runs the drill in an empty folder.
///
/// # Errors
/// When a program fails; a loss is no error but stands in the report.
pub async fn run_drill(dir: &Path, rounds: u32, seed: u64) -> Result<Report> {
    let started = Instant::now();
    let school = generate::school(Options { pupils: 60, years: 1, seed, ..Options::default() })?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    let written = generate::write(&school, &dir.join("school"))?;
    let _cloud = town.start_cloud()?;
    let line = Line::open(town.cloud_address()?).await?;
    let (appliance, _) = town.appliance("edge")?;
    let (data, package) = (appliance.data.display().to_string(), written.package.display().to_string());
    run("sonae-edge", &["import", "--data", &data, &package], "")?;
    let mut ledger = Ledger::default();
    let (mut lost, mut sequences_lost) = (0, 0);
    let mut random = seed | 1;
    for round in 0..rounds {
        let mut edge = town.start_edge(&appliance, &line)?;
        let address = edge.said("listen")?;
        let client = LanClient::sign_in(&address, &appliance.ca, LOGIN, PASSWORD, None).await?;
        let pupils = client.pupils("").await?;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis(20 + (random >> 33) % 300);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(client.clone(), pupils.clone(), round, writer, moment)))
            .collect();
        tokio::time::sleep(moment).await;
        edge.kill_hard()?;
        let mut under_way = BTreeMap::new();
        for writer in writers {
            let (acknowledged, pending) = writer.await?;
            for (path, value, log, sequence) in acknowledged {
                ledger.note(path, value, log, sequence);
            }
            under_way.extend(pending);
        }
        let mut edge = town.start_edge(&appliance, &line)?;
        let address = edge.said("listen")?;
        let client = LanClient::sign_in(&address, &appliance.ca, LOGIN, PASSWORD, None).await?;
        let found = read_back(&client, ledger.values.keys()).await?;
        let value_of = |path: &str| found.get(path).cloned();
        lost += u64::try_from(ledger.lost(value_of, &under_way).len())?;
        ledger.settle(value_of, under_way);
        sequences_lost += behind(&client.status().await?, &ledger);
        edge.stop()?;
    }
    Ok(Report {
        rounds,
        acknowledged: ledger.acknowledged,
        lost,
        sequences_lost,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Where what was kept: path, value, log, sequence.
type Acknowledged = (String, String, String, u64);

/// What was answered, and the write that was not.
pub(super) type Written = (Vec<Acknowledged>, Option<(String, String)>);

/// Writes until the service is gone. Returns what was answered, and the write that was not.
pub(super) async fn write(
    client: LanClient,
    pupils: Vec<String>,
    round: u32,
    writer: usize,
    at_most: Duration,
) -> Written {
    let codes = ["late", "absent_sick", "absent_other", "left_early"];
    let until = Instant::now() + at_most * 10;
    let mut answered = Vec::new();
    for turn in 0.. {
        // Writers take pupils of their own, so that the last acknowledged value of each is known.
        let own: Vec<&String> = pupils.iter().skip(writer).step_by(WRITERS).collect();
        let Some(pupil) = own.get(turn % own.len().max(1)) else { break };
        let day = 1 + (turn / own.len()) % 28;
        let path = format!("/api/v1/attendance/2026-10-{day:02}/{pupil}");
        let position = turn.wrapping_add(writer).wrapping_add(usize::try_from(round).unwrap_or(0));
        let code = codes.get(position % codes.len()).copied().unwrap_or("late");
        match client.put(&path, json!({ "code": code })).await {
            Ok((log, sequence)) => answered.push((path, code.to_owned(), log, sequence)),
            Err(_) => return (answered, Some((path, code.to_owned()))),
        }
        if Instant::now() > until {
            break;
        }
    }
    (answered, None)
}

/// Reads the values of all days that the paths speak of.
pub(crate) async fn read_back(
    client: &LanClient,
    paths: impl Iterator<Item = &String>,
) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let days: std::collections::BTreeSet<&str> = paths.filter_map(|path| path.split('/').nth(4)).collect();
    for day in days {
        let answer = client.get(&format!("/api/v1/attendance/{day}")).await?;
        let entries = answer.get("attendance").and_then(Value::as_array).context("no attendance")?;
        for entry in entries {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            // What nobody has recorded is listed too.
            if text("code") != "not_recorded" {
                found.insert(format!("/api/v1/attendance/{day}/{}", text("student_id")), text("code"));
            }
        }
    }
    Ok(found)
}

/// Returns how many acknowledged sequences the logs do not reach.
pub(super) fn behind(status: &Value, ledger: &Ledger) -> u64 {
    let kept =
        |tier: &str| status.pointer(&format!("/kept/{tier}/sequence")).and_then(Value::as_u64).unwrap_or(0);
    let missing = ledger
        .sequences
        .iter()
        .map(|(log, sequence)| sequence.saturating_sub(kept(log.rsplit('/').next().unwrap_or_default())));
    missing.sum()
}

//! A disk that somebody else fills under the real appliance (P9): tier 2 is refused, then tier 1, tier 0 never, as far
//! as the reserve goes; `kill -9` and a start while it is full; then room again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::generate::{self, Options};
use crate::lan_client::LanClient;
use crate::line::Line;
use crate::program::{Daemon, planted, run_to_end};
use crate::small_disk::{SmallDisk, missing};
use crate::town::{Appliance, LOGIN, PASSWORD, Town};

const MIB: u64 = 1024 * 1024;

/// The whole disk: five times what the appliance takes of it when it is new.
const DISK_BYTES: u64 = 160 * MIB;

/// Room for tier 1 and not for tier 2.
const ROOM_DAILY: u64 = 40 * MIB;

/// Room for tier 0 only.
const ROOM_SAFETY: u64 = 20 * MIB;

/// Changes of tier 0 on the full disk, before the kill and after it.
const CHANGES: [usize; 2] = [500, 50];

/// Bytes of each of them: five pages, so that they need more than the two segments that are there without a reserve,
/// 550 * 5 > 2 * 1,022.
const CHANGE_BYTES: usize = 18_000;

const LONG: Duration = Duration::from_secs(120);

/// What the drill saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How tiers 0, 1 and 2 were answered with room for all, for tier 1, for tier 0, and with none.
    pub answers: Vec<[String; 3]>,
    /// What an import was told when it did not fit, with its exit code.
    pub import: (i32, String),
    /// Changes of tier 0 that were acknowledged while nothing was free.
    pub acknowledged: usize,
    /// Those of them that were not there afterwards.
    pub lost: usize,
    /// Changes of tier 0 without a receipt, of those that were written while nothing was free.
    pub unsafe_on_full_disk: Option<u64>,
    /// Whether a peer's change of tier 0 came while nothing was free, and one of tier 1 did not.
    pub peer_on_full_disk: (bool, bool),
    /// The same with room again.
    pub peer_afterwards: (bool, bool),
    /// Changes without a receipt in the end.
    pub unsafe_in_the_end: Option<u64>,
    /// Why the appliance did not start on the full disk, if it did not.
    pub not_started: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Report {
    /// Returns what is not as promised.
    #[must_use]
    pub fn objections(&self) -> Vec<&'static str> {
        let kept = "kept";
        let is = |stage: usize, wanted: [&str; 3]| {
            self.answers
                .get(stage)
                .is_some_and(|said| said.iter().zip(wanted).all(|(said, wanted)| said == wanted))
        };
        let rows = [
            (is(0, [kept, kept, kept]), "with room something was refused"),
            (is(1, [kept, kept, "no_room 2"]), "with little room not tier 2 alone was refused"),
            (is(2, [kept, "no_room 1", "no_room 2"]), "with less room not tiers 1 and 2 were refused"),
            (is(3, [kept, "no_room 1", "no_room 2"]), "without room not tier 0 alone was kept"),
            (
                self.import.0 == 5 && self.import.1.contains("nothing was imported"),
                "an import began that cannot end",
            ),
            (self.not_started.is_none(), "it did not start on a full disk"),
            (self.acknowledged == CHANGES.iter().sum::<usize>(), "tier 0 was refused"),
            (self.lost == 0, "an acknowledged change of tier 0 was lost"),
            (self.unsafe_on_full_disk == Some(0), "tier 0 was not replicated from the full disk"),
            (self.peer_on_full_disk == (true, false), "peers' batches did not obey the room"),
            (self.peer_afterwards == (true, true), "what was refused of peers did not come later"),
            (self.unsafe_in_the_end == Some(0), "not everything was replicated in the end"),
        ];
        rows.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }
}

/// The drill under way.
struct Drill {
    // Before the disk, because nothing may use it when it is unmounted.
    edge: Option<Daemon>,
    _peer_daemon: Daemon,
    _cloud: Daemon,
    disk: SmallDisk,
    town: Town,
    line: Line,
    appliance: Appliance,
    peer: Appliance,
    pupils: Vec<String>,
    /// A file to import.
    contacts: String,
    /// What was acknowledged: contact to name.
    kept: BTreeMap<String, String>,
    report: Report,
}

/// Runs the drill in an empty folder. `without_reserve` is the control, which must be found out.
///
/// # Errors
/// When a program fails, or when nothing can be mounted here: then nothing was verified.
pub async fn run_drill(dir: &Path, without_reserve: bool) -> Result<Report> {
    let started = Instant::now();
    let mut drill = Drill::found(dir, without_reserve).await?;
    // One refusal of tier 0 is enough; what it would have sent cannot be waited for.
    if drill.fill().await? && drill.restart().await? {
        drill.empty().await?;
    }
    drill.report.seconds = started.elapsed().as_secs_f64();
    Ok(drill.report.clone())
}

/// Asks a running appliance something through its control socket.
fn ask(appliance: &Appliance, ask: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(appliance.data.join("control.sock"))?;
    stream.write_all(format!("{ask}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Writes one field through the control socket. Says how that was answered.
fn write(appliance: &Appliance, collection: &str, record: &str, field: &str, value: &str) -> Result<String> {
    let edit =
        json!({ "collection": collection, "record": record, "fields": { field: value }, "seen": null });
    let action = json!({ "who": "drill", "source": null, "edits": [edit] });
    let said = ask(appliance, &json!({ "ask": "write", "action": action }))?;
    let refused = said.get("store").and_then(Value::as_str).unwrap_or_default();
    let tier = refused.split_once("nothing of tier ").and_then(|(_, rest)| rest.chars().next());
    Ok(match tier {
        Some(tier) => format!("no_room {tier}"),
        None if said.get("ok").is_some() => "kept".into(),
        None => said.to_string(),
    })
}

/// Returns the records of a collection: id to one field.
fn records(
    appliance: &Appliance,
    tier: &str,
    collection: &str,
    field: &str,
) -> Result<BTreeMap<String, String>> {
    let said = ask(appliance, &json!({ "ask": "records", "tier": tier, "collection": collection }))?;
    let records = said.get("ok").and_then(Value::as_array).with_context(|| format!("no records: {said}"))?;
    let value = |record: &Value| {
        let id = record.get(0)?.as_str()?.to_owned();
        let value = record.pointer(&format!("/1/{field}/h/0/v"))?.as_str()?;
        Some((id, value.to_owned()))
    };
    Ok(records.iter().filter_map(value).collect())
}

impl Drill {
    async fn found(dir: &Path, without_reserve: bool) -> Result<Self> {
        if let Some(what) = missing() {
            bail!("not verified: {what}");
        }
        let school = generate::school(Options { pupils: 60, years: 1, seed: 3, ..Options::default() })?;
        let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
        if without_reserve {
            town.edge_environment.push(planted("edge-reserve"));
        }
        let written = generate::write(&school, &dir.join("school"))?;
        let disk = SmallDisk::mount(&dir.join("disk"), DISK_BYTES)?;
        let cloud = town.start_cloud()?;
        let line = Line::open(town.cloud_address()?).await?;
        let (appliance, _) = town.appliance("disk/edge")?;
        let package = written.package.display().to_string();
        town.edge(&["import", "--data", &appliance.data.display().to_string(), &package], "")?;
        let (bundle, passphrase) = town.enrol_bundle("appliance", "peer.bundle")?;
        let peer = town.appliance_at("peer");
        let (data, bundle) = (peer.data.display().to_string(), bundle.display().to_string());
        town.edge(&["enrol", "--data", &data, "--bundle", &bundle, "--passphrase-stdin"], &passphrase)?;
        let peer_daemon = town.start_edge(&peer, &line)?;
        let edge = town.start_edge(&appliance, &line)?;
        let pupils = records(&appliance, "0", "student", "family_name")?.into_keys().collect();
        Ok(Self {
            edge: Some(edge),
            _peer_daemon: peer_daemon,
            _cloud: cloud,
            disk,
            town,
            line,
            appliance,
            peer,
            pupils,
            contacts: written.contacts.display().to_string(),
            kept: BTreeMap::new(),
            report: Report::default(),
        })
    }

    async fn client(&self) -> Result<LanClient> {
        let edge = self.edge.as_ref().context("the appliance does not run")?;
        LanClient::sign_in(&edge.said("listen")?, &self.appliance.ca, LOGIN, PASSWORD, None).await
    }

    /// Writes once in each tier and notes the answers; tier 1 as staff do, over the LAN.
    async fn look(&mut self, client: &LanClient) -> Result<()> {
        let stage = self.report.answers.len();
        let name = format!("stage {stage}");
        let safety = write(&self.appliance, "student", &self.pupils[0], "address", &name)?;
        let path = format!("/api/v1/attendance/2026-11-{:02}/{}", stage + 1, self.pupils[0]);
        let (status, said) = client.ask(Method::PUT, &path, Some(json!({ "code": "late" }))).await?;
        let code = said.pointer("/error/code").and_then(Value::as_str).unwrap_or_default();
        let daily = match status.as_u16() {
            200 => "kept".to_owned(),
            507 if code == "no_room" => "no_room 1".to_owned(),
            other => format!("{other} {said}"),
        };
        let archive = write(&self.appliance, "grade_result", &name, "title", &name)?;
        self.report.answers.push([safety, daily, archive]);
        Ok(())
    }

    /// Writes changes of tier 0, each by itself, until one is refused.
    fn write_safety(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let (number, pupils) = (self.report.acknowledged, self.pupils.len());
            let contact = format!("{}/{}", self.pupils[number % pupils], 5 + number / pupils);
            let name = format!("架空 {number}{}", "x".repeat(CHANGE_BYTES));
            if write(&self.appliance, "guardian_contact", &contact, "name", &name)? != "kept" {
                return Ok(());
            }
            self.kept.insert(contact, name);
            self.report.acknowledged += 1;
        }
        Ok(())
    }

    /// Fills the disk in steps; writes, imports and receives at each of them. Returns whether tier 0 was kept.
    async fn fill(&mut self) -> Result<bool> {
        let client = self.client().await?;
        self.look(&client).await?;
        self.appliance.wait_until_safe(&client, LONG).await?;
        self.disk.leave(ROOM_DAILY)?;
        self.look(&client).await?;
        self.disk.leave(ROOM_SAFETY)?;
        self.look(&client).await?;
        let data = self.appliance.data.display().to_string();
        let (code, _, said) = run_to_end("sonae-edge", &["import", "--data", &data, &self.contacts], "")?;
        self.report.import = (code, said);
        self.disk.leave(0)?;
        if !self.disk.is_full() {
            bail!("the disk is not full, so nothing would be shown");
        }
        self.look(&client).await?;
        self.write_safety(CHANGES[0])?;
        if self.report.acknowledged < CHANGES[0] {
            return Ok(false);
        }
        write(&self.peer, "student", "peer", "address", "from the peer")?;
        write(&self.peer, "attendance", "2026-11-09/peer/day", "code", "from the peer")?;
        self.report.peer_on_full_disk = self.peer_came(|came| came.0).await?;
        self.report.unsafe_on_full_disk = self.wait_for_safe("/unsafe_by_tier/0").await?;
        Ok(true)
    }

    /// Waits until a fact of the status is 0, and returns what it was last.
    async fn wait_for_safe(&self, pointer: &str) -> Result<Option<u64>> {
        let until = Instant::now() + LONG;
        loop {
            let waiting = self.appliance.status()?.pointer(pointer).and_then(Value::as_u64);
            if waiting == Some(0) || Instant::now() > until {
                return Ok(waiting);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the peer's changes of tier 0 and tier 1 are as they should. Says which have come.
    async fn peer_came(&self, is_enough: impl Fn((bool, bool)) -> bool) -> Result<(bool, bool)> {
        let until = Instant::now() + LONG;
        loop {
            let has = |tier, collection, field| -> Result<bool> {
                Ok(records(&self.appliance, tier, collection, field)?
                    .values()
                    .any(|value| value == "from the peer"))
            };
            let came = (has("0", "student", "address")?, has("1", "attendance", "code")?);
            if is_enough(came) || Instant::now() > until {
                return Ok(came);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kills the appliance on the full disk, takes its view away, and starts it there. Returns whether it runs.
    async fn restart(&mut self) -> Result<bool> {
        if let Some(mut edge) = self.edge.take() {
            edge.kill_hard()?;
        }
        std::fs::remove_dir_all(self.appliance.data.join("view"))?;
        // Somebody else takes that room too.
        self.disk.leave(0)?;
        match self.town.start_edge(&self.appliance, &self.line) {
            Ok(edge) => self.edge = Some(edge),
            Err(error) => {
                self.report.not_started = Some(format!("{error:#}"));
                return Ok(false);
            }
        }
        self.disk.leave(0)?;
        self.write_safety(CHANGES[1])?;
        self.count_lost()?;
        Ok(true)
    }

    fn count_lost(&mut self) -> Result<()> {
        let found = records(&self.appliance, "0", "guardian_contact", "name")?;
        self.report.lost = self.kept.iter().filter(|(id, name)| found.get(*id) != Some(*name)).count();
        Ok(())
    }

    /// Gives the room back, and looks whether everything goes on.
    async fn empty(&mut self) -> Result<()> {
        self.disk.leave(100 * MIB)?;
        let client = self.client().await?;
        self.report.peer_afterwards = self.peer_came(|came| came == (true, true)).await?;
        self.look(&client).await?;
        if let Some(said) = self.report.answers.pop().filter(|said| said.iter().any(|said| said != "kept")) {
            bail!("with room again: {said:?}");
        }
        self.count_lost()?;
        self.report.unsafe_in_the_end = self.wait_for_safe("/unsafe").await?;
        Ok(())
    }
}

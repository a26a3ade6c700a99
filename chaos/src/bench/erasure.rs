//! The erasure of a pupil, from the command to destroyed keys, with two boxes and a cloud: how long each step takes, and
//! that nothing of the pupil can be opened afterwards with all keys that are left.
//!
//! The month for which batches stay on a box is told to have passed; all else is the machine's own time.

mod afterwards;
mod search;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use sonae_proto::retention::{DAY_MS, RETAIN_DAYS_MIN};

use crate::lan_client::LanClient;
use crate::program::{Daemon, run};
use crate::town::{Appliance, Settled};

/// How long each step may take.
const LONG: Duration = Duration::from_secs(300);

/// After so long a box has looked what the last proof was good for: it looks every 20 seconds.
const SETTLED: Duration = Duration::from_secs(25);

/// Restore proofs after which a box must wait for its age alone.
const PROOFS_MAX: usize = 8;

/// A name that stands nowhere else.
const CANARY: &str = "消去対象太郎";

/// The school year that the keys of before the rotation are of, and that now is.
fn epoch() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    sonae_proto::manifest::school_year(now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0)))
}

/// The report. Seconds are from the command that is named on.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Pupils of the school.
    pub pupils: u32,
    /// `erase`: not visible on this box any more.
    pub gone_here_seconds: f64,
    /// `erase`: not visible on the second box any more.
    pub gone_there_seconds: f64,
    /// `erase`: journal and view of both boxes have no plain text of it any more.
    pub overwritten_seconds: f64,
    /// `epoch rotate`: the newest snapshots of both boxes, sealed to the new keys, are safe.
    pub snapshot_seconds: f64,
    /// The floor that no machine shortens: days for which a box has to run before batches may go.
    pub floor_days: u64,
    /// Two restore proofs and pruning of both boxes, the floor left out.
    pub pruning_seconds: f64,
    /// `epoch destroy`: both boxes say that the erasure is complete.
    pub destroyed_seconds: f64,
    /// Canaries that were found with all keys before the destruction: the search finds.
    pub control_hits: usize,
    /// Canaries that were found with all keys that are left, in what the cloud gives out, in both boxes' folders, raw or
    /// opened. Must be none.
    pub hits: usize,
    /// `epoch destroy`: the node has signed that no site has a copy of the destroyed keys.
    pub certified_seconds: f64,
    /// Objects at the cloud's sites that had a wrapped copy of them before. Afterwards there must be none.
    pub objects_with_destroyed_keys: usize,
    /// A box that comes back from an old copy afterwards: until it has gone on and all is safe.
    pub renewed_seconds: f64,
    /// A box whose journal rots afterwards: until it serves again.
    pub repaired_seconds: f64,
}

struct Scene {
    dir: PathBuf,
    settled: Settled,
    boxes: Vec<Running>,
    pupil: String,
}

struct Running {
    appliance: Appliance,
    daemon: Daemon,
    client: LanClient,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// Waits until a box says what is asked.
async fn wait_for(appliance: &Appliance, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let status = tokio::task::block_in_place(|| appliance.status());
        if status.as_ref().is_ok_and(&is_so) {
            return Ok(());
        }
        if began.elapsed() > LONG {
            bail!("never: {what}: {status:?}");
        }
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn erasures(status: &Value) -> Vec<Value> {
    let all = status.get("erasures").and_then(Value::as_array).into_iter().flatten();
    all.map(|erasure| erasure.get("waits_for").cloned().unwrap_or_default()).collect()
}

/// Erasures of all three tiers stand, and none waits for this or anything before it.
fn waits_beyond(status: &Value, steps: &[&str]) -> bool {
    let waits = erasures(status);
    waits.len() == 3 && waits.iter().all(|of| !steps.iter().any(|step| of == step))
}

fn retention(status: &Value) -> Vec<&Value> {
    let tiers = status.pointer("/storage/tiers").and_then(Value::as_object).into_iter().flatten();
    tiers.filter_map(|(_, tier)| tier.get("retention")).collect()
}

/// All three tiers have a snapshot that lacks one of these.
fn lacks(status: &Value, steps: &[&str]) -> bool {
    let is_one =
        |tier: &&Value| tier.get("lacks").and_then(Value::as_str).is_some_and(|lack| steps.contains(&lack));
    let all = retention(status);
    all.len() == 3 && all.iter().all(is_one)
}

fn lacking(status: &Value) -> Vec<Value> {
    retention(status).into_iter().filter_map(|tier| tier.get("lacks")).cloned().collect()
}

/// Waits until a box has looked what a proof was good for: until it lacks something else, or had the time to look.
async fn settled(appliance: &Appliance, before: &[Value]) {
    let began = Instant::now();
    while began.elapsed() < SETTLED {
        let status = tokio::task::block_in_place(|| appliance.status());
        if status.is_ok_and(|status| lacking(&status) != before) {
            return;
        }
        // paced: looks again
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Measures.
///
/// # Errors
/// When a program fails, a step never ends, or something of the pupil is found in the end.
pub async fn run_bench(dir: &Path, pupils: u32) -> Result<Report> {
    let mut scene = Scene::new(dir, pupils).await?;
    let began = Instant::now();
    scene.erase()?;
    let gone_here_seconds = seconds(began);
    ensure!(scene.knows(0)? == 0, "the pupil is still here");
    while scene.knows(1)? > 0 {
        ensure!(began.elapsed() < LONG, "the second box never heard of it");
    }
    let gone_there_seconds = seconds(began);
    for one in &scene.boxes {
        wait_for(&one.appliance, "overwritten", |status| waits_beyond(status, &["scrub"])).await?;
    }
    let overwritten_seconds = seconds(began);

    let began = Instant::now();
    scene.rotate()?;
    scene.snapshots().await?;
    let snapshot_seconds = seconds(began);
    let began = Instant::now();
    for number in 0..scene.boxes.len() {
        scene.prune(number).await?;
    }
    let pruning_seconds = seconds(began);
    let control_hits = scene.search("before")?;
    ensure!(control_hits > 0, "the search finds nothing even with the keys, so it proves nothing");

    let began = Instant::now();
    let objects_with_destroyed_keys = scene.objects_with_old_keys()?;
    ensure!(
        objects_with_destroyed_keys > 0,
        "the sites have none of the keys, so looking there proves nothing"
    );
    scene.destroy()?;
    for one in &scene.boxes {
        wait_for(&one.appliance, "complete", |status| {
            waits_beyond(status, &["scrub", "rotation", "pruning", "order"])
        })
        .await?;
    }
    let destroyed_seconds = seconds(began);
    scene.certified().await?;
    let certified_seconds = seconds(began);
    ensure!(scene.objects_with_old_keys()? == 0, "the node has signed for keys that are still there");
    let hits = scene.search("after")?;
    ensure!(hits == 0, "{hits} canaries were found after the destruction");
    Ok(Report {
        pupils,
        gone_here_seconds,
        gone_there_seconds,
        overwritten_seconds,
        snapshot_seconds,
        floor_days: RETAIN_DAYS_MIN,
        pruning_seconds,
        destroyed_seconds,
        control_hits,
        hits,
        certified_seconds,
        objects_with_destroyed_keys,
        renewed_seconds: scene.comes_back().await?,
        repaired_seconds: scene.rots().await?,
    })
}

impl Scene {
    async fn new(dir: &Path, pupils: u32) -> Result<Self> {
        // A second install changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settled = Settled::found(dir, pupils, 5).await?;
        let (second, _) = settled.town.appliance("second")?;
        let mut boxes = Vec::new();
        for appliance in [settled.appliance.clone(), second] {
            let (daemon, client) = settled.start(&appliance).await?;
            boxes.push(Running { appliance, daemon, client });
        }
        let all = boxes.first().context("no box")?.client.pupils("").await?;
        let pupil = all.first().context("no pupils")?.clone();
        let mut scene = Self { dir: dir.to_owned(), settled, boxes, pupil };
        let contacts = dir.join("canary.csv");
        std::fs::write(
            &contacts,
            format!(
                "student_id,priority,name,kana,relationship,phone1,phone2,email,lives_with\n{},9,{CANARY},,父,090-0000-0009,,,\n",
                scene.pupil
            ),
        )?;
        run("sonae-edge", &["import", "--data", &text(&scene.appliance(0)?.data), &text(&contacts)], "")?;
        scene.settle().await?;
        let known = scene.knows(0)?;
        while scene.knows(1)? != known {
            // paced: the second box catches up
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        scene.mark(1).await?;
        scene.settle().await?;
        Ok(scene)
    }

    fn appliance(&self, number: usize) -> Result<&Appliance> {
        Ok(&self.boxes.get(number).context("no such box")?.appliance)
    }

    async fn settle(&mut self) -> Result<()> {
        for one in &self.boxes {
            one.appliance.wait_until_safe(&one.client, LONG).await?;
        }
        Ok(())
    }

    /// Writes something on each box, so that receipts come.
    async fn mark(&self, day: u32) -> Result<()> {
        for (number, one) in self.boxes.iter().enumerate() {
            let pupils = one.client.pupils("").await?;
            let pupil = pupils.iter().rev().nth(number).context("too few pupils")?;
            one.client
                .put(&format!("/api/v1/attendance/2026-11-{day:02}/{pupil}"), json!({"code": "late"}))
                .await?;
        }
        Ok(())
    }

    /// Returns how many records of the pupil a box shows.
    fn knows(&self, number: usize) -> Result<usize> {
        let data = text(&self.appliance(number)?.data);
        let arguments = ["erase", "--data", &data, "--pupil", &self.pupil, "--json"];
        let (code, out, _) = crate::program::run_to_end("sonae-edge", &arguments, "")?;
        if code == 3 {
            return Ok(0);
        }
        let plan: Value = serde_json::from_str(&out)?;
        let goes = plan.pointer("/plan/goes").and_then(Value::as_object).into_iter().flatten();
        Ok(goes.filter_map(|(_, count)| usize::try_from(count.as_u64()?).ok()).sum())
    }

    fn erase(&self) -> Result<()> {
        let data = text(&self.appliance(0)?.data);
        let sure = ["--erase", "--even-kept-records", "--confirm-stdin", "--json"];
        run(
            "sonae-edge",
            &[&["erase", "--data", &data, "--pupil", &self.pupil][..], &sure].concat(),
            &self.pupil,
        )?;
        Ok(())
    }

    /// Has the board say something, and brings its word to the cloud.
    fn board(&self, verb: &str, rest: &[&str], input: &str) -> Result<()> {
        let (board, out) =
            (text(&self.settled.town.dir.join("board")), text(&self.dir.join(format!("{verb}.word"))));
        let arguments =
            ["epoch", verb, "--dir", &board, "--school", &self.settled.town.school, "--out", &out, "--json"];
        run("sonae-provision", &[&arguments[..], rest].concat(), input)?;
        let [cloud, ..] = self.settled.town.cloud_dirs();
        run("sonae-cloud", &["bundle", "import", "--data", &text(&cloud), "--json", &out], "")?;
        Ok(())
    }

    fn rotate(&self) -> Result<()> {
        self.board("rotate", &[], "")
    }

    fn destroy(&self) -> Result<()> {
        let mut rest = Vec::new();
        for (number, one) in self.boxes.iter().enumerate() {
            let file = self.dir.join(format!("status-{number}.json"));
            std::fs::write(&file, one.appliance.status()?.to_string())?;
            rest.extend(["--status".to_owned(), text(&file)]);
        }
        let epoch = epoch().to_string();
        rest.extend(["--use", "tier0", "--use", "tier1", "--use", "tier2"].map(str::to_owned));
        rest.extend(["--epoch", &epoch, "--confirm-stdin"].map(str::to_owned));
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        self.board("destroy", &rest, &format!("destroy-{epoch}"))
    }

    /// Waits until each box has snapshots under the new keys at the cloud.
    async fn snapshots(&mut self) -> Result<()> {
        let new = epoch() * 1_000 + 1;
        for one in &self.boxes {
            wait_for(&one.appliance, "the rotation is known", |status| waits_beyond(status, &["rotation"]))
                .await?;
        }
        for one in &self.boxes {
            let has_all = |status: &Value| {
                let uses = status.get("key_uses").and_then(Value::as_array).into_iter().flatten();
                let is_new = |key: &&Value| key.get("epoch").and_then(Value::as_u64) == Some(new.into());
                let snapshots = |key: &Value| key.pointer("/uses/snapshots").and_then(Value::as_u64);
                uses.filter(is_new).filter(|key| snapshots(key) > Some(0)).count() == 3
            };
            wait_for(&one.appliance, "snapshots under new keys", has_all).await?;
            one.appliance.wait_for_snapshots(LONG).await?;
        }
        Ok(())
    }

    /// Takes a box to where its batches wait for the floor alone, tells it that the floor has passed, and has it prune.
    async fn prune(&mut self, number: usize) -> Result<()> {
        let appliance = self.appliance(number)?.clone();
        // Which tiers a proof takes as snapshots depends on whose was the newest then; the next one takes the others.
        for proof in 0.. {
            let steps = ["age", "read_back", "proof", "restore"];
            wait_for(&appliance, "a snapshot of each tier is chosen", |status| lacks(status, &steps)).await?;
            let before = appliance.status()?;
            if lacks(&before, &["age"]) {
                break;
            }
            let lacking = lacking(&before);
            ensure!(
                proof < PROOFS_MAX,
                "the box waits for more than its age after {proof} proofs: {lacking:?}"
            );
            let (code, said) = appliance.prove().await?;
            ensure!(code == 0, "no proof: {said}");
            settled(&appliance, &lacking).await;
        }
        let one = self.boxes.get_mut(number).context("no such box")?;
        one.daemon.stop()?;
        for tier in 0..3 {
            let path = appliance.data.join("snapshots").join(format!("prune-{tier}.json"));
            let mut note: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
            *note.get_mut("aged_ms").context("no age")? = json!(RETAIN_DAYS_MIN * DAY_MS);
            std::fs::write(&path, note.to_string())?;
        }
        (one.daemon, one.client) = self.settled.start(&appliance).await?;
        wait_for(&appliance, "pruned", |status| waits_beyond(status, &["scrub", "rotation", "pruning"])).await
    }
}

//! Power cuts of the appliance's disk at random operations under load (P1): what was not flushed is dropped or
//! torn, names included, and the program is killed. Between the cuts, operations fail with EIO and ENOSPC.
//!
//! The whole life of the data directory, from the enrolment on, lies on the fault file system.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::Ledger;
use super::kill_edge::{WRITERS, Written, behind, read_back, write};
use crate::fault_fs::{Fault, FaultFs, Loss, missing};
use crate::generate::{self, Options};
use crate::lan_client::LanClient;
use crate::line::Line;
use crate::program::{Daemon, run, run_to_end};
use crate::town::{Appliance, LOGIN, PASSWORD, Town};

/// How long a round goes on at most before its cut.
const ROUND_MAX: Duration = Duration::from_secs(4);

/// What a round does to the disk.
#[derive(Debug, Clone, Copy)]
enum Round {
    /// The power goes at an operation under load.
    Cut(Loss),
    /// The same, and once more while the appliance starts.
    CutTwice(Loss),
    /// An operation fails under load; the power goes afterwards.
    Fail(Fault),
}

const ROUNDS: [Round; 7] = [
    Round::Cut(Loss::Drop),
    Round::CutTwice(Loss::Torn),
    Round::Fail(Fault::Io),
    Round::Cut(Loss::Torn),
    Round::CutTwice(Loss::Drop),
    Round::Fail(Fault::NoSpace),
    Round::Cut(Loss::Prefix),
];

impl Round {
    fn name(self) -> &'static str {
        match self {
            Self::Cut(Loss::Drop) | Self::CutTwice(Loss::Drop) => "drop",
            Self::Cut(Loss::Prefix) | Self::CutTwice(Loss::Prefix) => "prefix",
            Self::Cut(Loss::Torn) | Self::CutTwice(Loss::Torn) => "torn",
            Self::Fail(Fault::Io) => "eio",
            Self::Fail(Fault::NoSpace) => "enospc",
        }
    }

    fn loss(self) -> Loss {
        match self {
            Self::Cut(loss) | Self::CutTwice(loss) => loss,
            Self::Fail(_) => Loss::Drop,
        }
    }
}

/// The report of the drill.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Cuts under load.
    pub rounds: u32,
    /// How many of each way.
    pub ways: BTreeMap<&'static str, u32>,
    /// Cuts, besides, while the appliance started.
    pub cut_starts: u32,
    /// All cuts of the disk.
    pub cuts: u64,
    /// Faults that met an operation.
    pub faults_met: u32,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that were not there afterwards.
    pub lost: u64,
    /// Acknowledged sequences that the log did not reach afterwards.
    pub sequences_lost: u64,
    /// Why the appliance did not start again, if it did not; all its writes count as lost then.
    pub not_started: Option<String>,
    /// Operations that changed or flushed something.
    pub operations: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Report {
    /// Whether nothing was lost.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.lost + self.sequences_lost == 0 && self.not_started.is_none()
    }
}

/// The drill under way.
struct Drill {
    /// Somebody who is signed in at the appliance that runs.
    client: Option<LanClient>,
    // Before the disk, because nothing may use it when it is unmounted.
    edge: Option<Daemon>,
    _cloud: Daemon,
    disk: FaultFs,
    town: Town,
    line: Line,
    appliance: Appliance,
    random: u64,
    ledger: Ledger,
    report: Report,
}

/// Runs the drill in an empty folder, at most for so many seconds. With `flushes_lie` the disk answers flushes well and does nothing: the
/// control, which must lose something.
///
/// # Errors
/// When a program fails, or when there is no such file system here: then nothing was verified. A loss is no error
/// but stands in the report.
pub async fn run_drill(
    dir: &Path,
    rounds: u32,
    seconds: Option<u64>,
    seed: u64,
    flushes_lie: bool,
) -> Result<Report> {
    let started = Instant::now();
    let is_over = || seconds.is_some_and(|seconds| started.elapsed() >= Duration::from_secs(seconds));
    let mut drill = Drill::found(dir, seed).await?;
    drill.disk.set_lying(flushes_lie);
    if drill.start()? {
        for (number, round) in (0..rounds).zip(ROUNDS.iter().cycle()) {
            // One loss is enough; a box that has lost something repairs itself from the cloud, which may take long.
            if is_over() || !drill.round(number, *round).await? || !drill.report.holds() {
                break;
            }
        }
    }
    drop(drill.edge.take());
    drill.report.operations = drill.disk.operations();
    drill.report.acknowledged = drill.ledger.acknowledged;
    drill.report.seconds = started.elapsed().as_secs_f64();
    Ok(drill.report.clone())
}

/// Flips one bit of what the appliance has acknowledged, opens its store, flips it back, opens it again. Returns
/// both exit codes, and what was said first.
///
/// # Errors
/// As [`run_drill`].
pub async fn flip_a_bit(dir: &Path, seed: u64) -> Result<(i32, String, i32)> {
    let drill = Drill::found(dir, seed).await?;
    let data = drill.appliance.data.display().to_string();
    let open = || run_to_end("sonae-edge", &["digest", "--data", &data], "");
    let name = ["edge", "journal", "segment-0000000000000001.snj"];
    // In the first frame of the first commit, behind the page of the header and the commit's own header.
    let offset = 4096 + 200;
    if !drill.disk.flip(&name, offset, 1) {
        bail!("the journal has no such byte");
    }
    let (rotten, _, said) = open()?;
    if !drill.disk.flip(&name, offset, 1) {
        bail!("the journal has no such byte any more");
    }
    Ok((rotten, said, open()?.0))
}

impl Drill {
    /// Founds a town whose appliance lies on a fault file system, and has taken in its school.
    async fn found(dir: &Path, seed: u64) -> Result<Self> {
        if let Some(what) = missing() {
            bail!("not verified: {what}");
        }
        let school = generate::school(Options { pupils: 60, years: 1, seed, ..Options::default() })?;
        let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
        let written = generate::write(&school, &dir.join("school"))?;
        let disk = FaultFs::mount(&dir.join("disk"), seed)?;
        let cloud = town.start_cloud()?;
        let line = Line::open(town.cloud_address()?).await?;
        let (appliance, _) = town.appliance("disk/edge")?;
        let (data, package) = (appliance.data.display().to_string(), written.package.display().to_string());
        run("sonae-edge", &["import", "--data", &data, &package], "")?;
        let (ledger, report) = (Ledger::default(), Report::default());
        Ok(Self {
            client: None,
            edge: None,
            _cloud: cloud,
            disk,
            town,
            line,
            appliance,
            random: seed | 1,
            ledger,
            report,
        })
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    async fn client(&mut self) -> Result<LanClient> {
        let Some(edge) = &self.edge else { bail!("the appliance does not run") };
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client =
            LanClient::sign_in(&edge.said("listen")?, &self.appliance.ca, LOGIN, PASSWORD, None).await?;
        Ok(self.client.insert(client).clone())
    }

    /// Writes, cuts, starts again, compares. Returns whether the appliance runs.
    async fn round(&mut self, number: u32, round: Round) -> Result<bool> {
        let client = self.client().await?;
        let pupils = client.pupils("").await?;
        let operations = 1 + self.below(300);
        match round {
            Round::Cut(_) | Round::CutTwice(_) => self.disk.cut_after(operations),
            Round::Fail(fault) => self.disk.fail_after(operations / 4, fault),
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(client.clone(), pupils.clone(), number, writer, ROUND_MAX / 10)))
            .collect();
        let under_way = self.end_of_load(writers).await?;
        self.report.faults_met += u32::from(matches!(round, Round::Fail(_)) && !self.disk.is_fault_due());
        self.power_cycle(round.loss())?;
        self.report.rounds += 1;
        *self.report.ways.entry(round.name()).or_default() += 1;
        let is_well = !matches!(round, Round::CutTwice(_)) || self.cut_start(round.loss())?;
        if !is_well || !self.start()? {
            return Ok(false);
        }
        self.compare(under_way).await?;
        Ok(true)
    }

    /// Waits for the cut, or for the writers where they end first, kills the appliance and takes down what was
    /// answered. Returns what was not.
    async fn end_of_load(
        &mut self,
        writers: Vec<tokio::task::JoinHandle<Written>>,
    ) -> Result<BTreeMap<String, String>> {
        let mut under_way = BTreeMap::new();
        for writer in writers {
            // It ends with the first write that is not answered well, at the latest after its time.
            let (acknowledged, pending) = writer.await?;
            for (path, value, log, sequence) in acknowledged {
                self.ledger.note(path, value, log, sequence);
            }
            under_way.extend(pending);
        }
        self.disk.cut();
        self.client = None;
        if let Some(mut edge) = self.edge.take() {
            edge.kill_hard()?;
        }
        Ok(under_way)
    }

    fn power_cycle(&mut self, loss: Loss) -> Result<()> {
        self.report.cuts += 1;
        self.disk.power_cycle(loss)
    }

    /// Starts the appliance. Returns whether it runs; if not, all that was acknowledged is lost.
    fn start(&mut self) -> Result<bool> {
        match self.town.start_edge(&self.appliance, &self.line) {
            Ok(edge) => self.edge = Some(edge),
            Err(error) => self.has_not_started(&error)?,
        }
        Ok(self.edge.is_some())
    }

    fn has_not_started(&mut self, error: &anyhow::Error) -> Result<()> {
        self.report.not_started = Some(format!("{error:#}"));
        self.report.lost += u64::try_from(self.ledger.values.len())?;
        Ok(())
    }

    /// Cuts the power while the appliance starts. Returns whether nothing but the cut kept it from that.
    fn cut_start(&mut self, loss: Loss) -> Result<bool> {
        let operations = self.below(40);
        self.disk.cut_after(operations);
        match self.town.start_edge(&self.appliance, &self.line) {
            // It was quicker than that.
            Ok(mut edge) => edge.kill_hard()?,
            Err(error) if !self.disk.is_off() => {
                self.has_not_started(&error)?;
                return Ok(false);
            }
            Err(_) => {}
        }
        self.report.cut_starts += 1;
        self.power_cycle(loss)?;
        Ok(true)
    }

    async fn compare(&mut self, under_way: BTreeMap<String, String>) -> Result<()> {
        let client = self.client().await?;
        let found = read_back(&client, self.ledger.values.keys()).await?;
        let value_of = |path: &str| found.get(path).cloned();
        self.report.lost += u64::try_from(self.ledger.lost(value_of, &under_way).len())?;
        self.ledger.settle(value_of, under_way);
        self.report.sequences_lost += behind(&client.status().await?, &self.ledger);
        Ok(())
    }
}

//! The world of a run: real programs, each machine with a network, a disk, a clock and bounds of its own.
//!
//! **Invariant**: every control is synchronous. When a call returns, the next packet, disk operation or instruction
//! of the program meets the new state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::groups::{self, Group};
use super::network::{Block, Machine, Network};
use super::options::{Options, Trouble};
use super::report::Tally;
use super::staff::Staff;
use super::{Plan, ledger::Ledger};
use crate::fault_fs::FaultFs;
use crate::generate;
use crate::lan_client::LanClient;
use crate::line::{Line, Slowness};
use crate::program::{Daemon, Place, planted, run};
use crate::town::{Appliance, Town};
use crate::wrong_clock::{self, WrongClock};

/// Where a box serves, and a copy of it at the next numbers.
pub(super) const LAN_PORT: u16 = 8443;

/// Where the node listens.
const CLOUD_PORT: u16 = 4433;

/// Bytes a second of a line that is only far away.
const FAR_BYTES_PER_SECOND: u32 = 1_250_000;

/// A place where a box stands, and what belongs to it: the box itself may be replaced.
#[derive(Debug)]
pub(super) struct Seat {
    // Before the disk, which nobody may use when it is unmounted.
    pub daemon: Option<Daemon>,
    pub staff: Staff,
    pub client: Option<LanClient>,
    pub disk: Option<FaultFs>,
    pub appliance: Appliance,
    pub machine: Machine,
    pub group: Option<Group>,
    pub clock: Option<WrongClock>,
    pub block: Option<Block>,
    /// What it called safe when it was last asked: log to sequence.
    pub safe: BTreeMap<String, u64>,
    /// Its loss counter then.
    pub loss_counter: u64,
    /// What that was when the cloud last lost something: until it rises, the box may not know.
    pub counter_at_loss: Option<u64>,
    /// Whether it may have too little memory to live.
    pub is_bounded: bool,
    /// How many machines have had its place.
    pub lives: u32,
}

/// The world of a run.
#[derive(Debug)]
pub(super) struct World {
    pub boxes: Vec<Seat>,
    pub node: Option<Daemon>,
    pub site_disk: Option<FaultFs>,
    pub cloud: Machine,
    pub town: Town,
    /// What boxes dial: the node, or a relay in front of it.
    pub dial: SocketAddr,
    _relay: Option<Line>,
    pub network: Network,
    pub options: Options,
    pub plan: Plan,
    pub tally: Tally,
    pub violation: Option<String>,
    pub trace: Vec<String>,
    /// What boxes called safe and the cloud has not lost since: log to sequence.
    pub promised: BTreeMap<String, u64>,
    /// Whether writers have not seen one another, so that fields may have several values.
    pub has_parted: bool,
    began: Instant,
}

impl World {
    /// Founds a town in an empty folder, with its boxes at work.
    pub async fn found(dir: &Path, options: Options, plan: Plan) -> Result<Self> {
        let began = Instant::now();
        let mut network = Network::claim()?;
        let of_school =
            generate::Options { pupils: options.pupils, years: 1, seed: options.seed, ..Default::default() };
        let school = generate::school(of_school)?;
        let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
        let written = generate::write(&school, &dir.join("school"))?;
        let has = |trouble| options.troubles.contains(&trouble);
        let cloud = network.add()?;
        let site_disk = (has(Trouble::Site) || has(Trouble::SitePower))
            .then(|| FaultFs::mount(&dir.join("site-disk"), options.seed))
            .transpose()?;
        town.sites = (0..options.sites).map(|number| dir.join(site_folder(number, &options))).collect();
        town.cloud_place = Place {
            under: cloud.under(),
            listen: Some((cloud.address, CLOUD_PORT)),
            ready_within: Some(plan.patience),
            ..Place::default()
        };
        let planted = plan.planted.as_deref().map(planted);
        town.cloud_environment.extend(planted.clone());
        town.edge_environment.extend(planted);
        let node = tokio::task::block_in_place(|| town.start_cloud())?;
        let (dial, relay) = line(&network, &options, town.cloud_address()?).await?;
        let mut world = Self {
            boxes: Vec::new(),
            node: Some(node),
            site_disk,
            cloud,
            town,
            dial,
            _relay: relay,
            network,
            options,
            plan,
            tally: Tally::default(),
            violation: None,
            trace: Vec::new(),
            promised: BTreeMap::new(),
            has_parted: false,
            began,
        };
        for number in 0..world.options.boxes {
            world.settle_in(number, &written.package)?;
        }
        // What people sign in with comes to the other boxes by the line.
        for number in 0..world.boxes.len() {
            world.client(number).await?;
        }
        world.note("the town is founded");
        Ok(world)
    }

    /// Enrols a box and starts it; the first takes in the files of the school and its teacher.
    fn settle_in(&mut self, number: usize, package: &Path) -> Result<()> {
        let (options, dir) = (&self.options, self.town.dir.clone());
        let has = |trouble| options.troubles.contains(&trouble);
        let machine = self.network.add()?;
        let root = format!("box-{number}");
        let on_disk =
            [Trouble::Power, Trouble::DiskError, Trouble::SlowDisk, Trouble::LyingDisk, Trouble::Rot];
        let disk = on_disk
            .into_iter()
            .any(has)
            .then(|| FaultFs::mount(&dir.join(&root), options.seed ^ u64::try_from(number).unwrap_or(0)))
            .transpose()?;
        std::fs::create_dir_all(dir.join(&root))?;
        let name = format!("{root}/edge");
        let mut appliance = if number == 0 {
            let (appliance, _) = self.town.appliance(&name)?;
            let data = appliance.data.display().to_string();
            run("sonae-edge", &["import", "--data", &data, &package.display().to_string()], "")?;
            appliance
        } else {
            self.town.enrol(&name)?
        };
        // Beside the disk: people read it whenever they like, also while the disk is unmounted.
        appliance.ca = dir.join(format!("{root}-ca.pem"));
        let group = (has(Trouble::Limits) && groups::missing().is_none())
            .then(|| Group::make(&format!("sonae-{}-{number}", self.network.number())))
            .transpose()?;
        let clock = (has(Trouble::Clock) && wrong_clock::missing().is_none())
            .then(|| WrongClock::make(&dir.join(format!("clock-{number}"))))
            .transpose()?;
        appliance.place = Place {
            under: machine.under(),
            listen: Some((machine.address, LAN_PORT)),
            environment: clock.as_ref().map(WrongClock::environment).unwrap_or_default(),
            joins: group.as_ref().map(Group::joins).unwrap_or_default(),
            ready_within: Some(self.plan.patience),
        };
        self.seat(appliance, machine, disk, group, clock)
    }

    /// Gives a box a place and starts it, with people at it.
    pub fn seat(
        &mut self,
        appliance: Appliance,
        machine: Machine,
        disk: Option<FaultFs>,
        group: Option<Group>,
        clock: Option<WrongClock>,
    ) -> Result<()> {
        let daemon = tokio::task::block_in_place(|| self.town.start_edge_to(&appliance, self.dial))?;
        let pause = Duration::from_millis(self.options.write_pause_ms);
        let (listen, ca) = (daemon.said("listen")?, appliance.ca.clone());
        let staff = Staff::begin(self.boxes.len(), listen, ca, pause, Ledger::default());
        self.boxes.push(Seat {
            daemon: Some(daemon),
            staff,
            client: None,
            disk,
            appliance,
            machine,
            group,
            clock,
            block: None,
            safe: BTreeMap::new(),
            loss_counter: 0,
            counter_at_loss: None,
            is_bounded: false,
            lives: 1,
        });
        Ok(())
    }

    /// How many sites make a receipt.
    pub const fn quorum(&self) -> usize {
        self.options.sites / 2 + 1
    }

    /// Writes down what happens, with its time.
    pub fn note(&mut self, what: impl std::fmt::Display) {
        self.trace.push(format!("{:8.3} s  {what}", self.began.elapsed().as_secs_f64()));
    }

    /// The oracle objects.
    pub fn violate(&mut self, what: impl std::fmt::Display) {
        self.note(format_args!("VIOLATION {what}"));
        self.violation.get_or_insert_with(|| what.to_string());
    }

    /// Somebody who is signed in at a box, as soon as that works.
    pub async fn client(&mut self, number: usize) -> Result<LanClient> {
        let until = Instant::now() + self.plan.patience;
        loop {
            let seat = self.boxes.get_mut(number).context("no such box")?;
            if let Some(client) = &seat.client
                && client.status().await.is_ok()
            {
                return Ok(client.clone());
            }
            match seat.staff.client().await {
                Ok(client) => seat.client = Some(client),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Starts a box. One that does not start is a violation.
    pub fn start(&mut self, number: usize) {
        let dial = self.dial;
        let started = self
            .boxes
            .get(number)
            .map(|seat| tokio::task::block_in_place(|| self.town.start_edge_to(&seat.appliance, dial)));
        match started {
            Some(Ok(daemon)) => {
                self.tally.starts += 1;
                self.boxes[number].daemon = Some(daemon);
            }
            Some(Err(error)) => self.violate(format_args!("box {number} does not start: {error:#}")),
            None => {}
        }
    }

    /// Kills a box as `kill -9` does.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.boxes
            .get_mut(number)
            .and_then(|seat| seat.daemon.take())
            .map_or(Ok(()), |mut daemon| daemon.kill_hard())
    }

    /// Starts the node.
    pub fn start_node(&mut self) {
        if self.node.is_some() {
            return;
        }
        match tokio::task::block_in_place(|| self.town.start_cloud()) {
            Ok(node) => {
                self.tally.starts += 1;
                self.node = Some(node);
            }
            Err(error) => self.violate(format_args!("the node does not start: {error:#}")),
        }
    }

    /// Kills the node as `kill -9` does.
    pub fn kill_node(&mut self) -> Result<()> {
        self.node.take().map_or(Ok(()), |mut node| node.kill_hard())
    }

    /// Blocks what passes between a box and the cloud.
    pub fn block(&mut self, number: usize, block: Option<Block>) -> Result<()> {
        let dial = self.dial;
        let seat = self.boxes.get_mut(number).context("no such box")?;
        seat.block = block;
        seat.machine.block(dial, block)
    }

    /// How many operations of the boxes' disks have changed or flushed something.
    pub fn disk_operations(&self) -> u64 {
        self.boxes.iter().filter_map(|seat| seat.disk.as_ref()).map(FaultFs::operations).sum()
    }

    /// The folders of the sites.
    pub fn sites(&self) -> &[PathBuf] {
        &self.town.sites
    }
}

/// Where a site lies: the last one has a disk of its own, or all share the one of a house whose power goes.
fn site_folder(number: usize, options: &Options) -> String {
    let shares = options.troubles.contains(&Trouble::SitePower);
    let is_last = number + 1 == options.sites && options.troubles.contains(&Trouble::Site);
    format!("{}site-{number}", if shares || is_last { "site-disk/" } else { "" })
}

/// The line of a town: a relay where packets take time.
async fn line(network: &Network, options: &Options, cloud: SocketAddr) -> Result<(SocketAddr, Option<Line>)> {
    if options.delay_ms == 0 {
        return Ok((cloud, None));
    }
    let line = Line::open_at(network.here(), cloud).await?;
    line.set_slow(Slowness {
        delay: Duration::from_millis(options.delay_ms),
        bytes_per_second: FAR_BYTES_PER_SECOND,
        lost_per_thousand: 0,
    });
    Ok((line.address(), Some(line)))
}

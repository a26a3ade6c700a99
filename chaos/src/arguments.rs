//! The command line of `sonae-chaos`, as people type it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "Exit codes:\n  0  done, and every promise held\n  1  a promise was broken or a program failed\n  2  wrong use of the command line";

/// Generates a school, tells the demo, runs drills and benches. Drives the other programs as processes.
#[derive(Debug, Parser)]
#[command(name = "sonae-chaos", version, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Writes a generated school as a OneRoster zip, contacts.csv, attendance.csv and summary.json
    Generate {
        /// Pupils, 1 to 3000
        #[arg(long, default_value_t = 600)]
        pupils: u32,
        /// School years of attendance, 1 to 6
        #[arg(long, default_value_t = 1)]
        years: u32,
        /// The same seed gives the same school
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Edition of the Japan Profile
        #[arg(long, default_value = "jp-1.2.1")]
        profile: String,
        /// Folder to write into
        #[arg(long)]
        out: PathBuf,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Shows the main job as a story with measured figures
    Demo {
        /// Stops everything at the end
        #[arg(long)]
        once: bool,
        /// Folder of the demo; emptied first
        #[arg(long, default_value = "target/demo")]
        dir: PathBuf,
    },
    /// Runs a drill with an outside ledger
    Drill {
        #[command(subcommand)]
        drill: Drill,
        /// Prints one JSON object
        #[arg(long, global = true)]
        json: bool,
    },
    /// Simulates boxes, lines and the cloud in virtual time, seed after seed
    #[cfg(feature = "sim")]
    Sim {
        /// Seeds to run
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        #[command(flatten)]
        runs: Runs,
    },
    /// Attacks what the cloud serves, what its sites hold and what couriers carry, each case with an honest twin
    #[cfg(feature = "sim")]
    Adversary {
        /// Cases to run
        #[arg(long, default_value_t = 2_000)]
        cases: u64,
        #[command(flatten)]
        runs: Runs,
    },
    /// Runs the real drivers over real QUIC in simulated time on a simulated network, seed after seed
    #[cfg(feature = "sim")]
    Simnet(sonae_chaos::simnet::command::Arguments),
    /// Runs the real programs, each machine with a network, disk and clock of its own, under trouble; needs root
    Proc {
        /// Seeds to run
        #[arg(long, default_value_t = 4)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Runs this seed and nothing else, and prints all that happens
        #[arg(long, conflicts_with_all = ["seeds", "from", "seconds"])]
        seed: Option<u64>,
        /// Begins no further seed after so many seconds
        #[arg(long)]
        seconds: Option<u64>,
        /// Also plants each defect; the programs must be built with them
        #[arg(long)]
        planted: bool,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Runs all rings for as long as asked, and adds up what all runs of a commit have shown
    #[cfg(feature = "sim")]
    Soak {
        /// Hours, fractions too
        #[arg(long, default_value_t = 2.0)]
        hours: f64,
        /// What is run, for the report
        #[arg(long)]
        commit: String,
        /// Folder of all reports
        #[arg(long, default_value = "target/soak")]
        out: PathBuf,
        /// Only this ring, which then has its lane to itself; can be given again
        #[arg(long)]
        ring: Vec<String>,
        /// Runs nothing, adds up what is there
        #[arg(long)]
        sum: bool,
    },
    /// Mutates inputs of every decoder and checks what must hold
    Fuzz {
        /// One target; all if absent
        #[arg(long)]
        target: Option<String>,
        /// Seconds for all targets together
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The same seed tries the same inputs in the same order
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Plants a bug of the target, which must be found out
        #[arg(long, requires = "target")]
        plant: Option<String>,
        /// Folder for failing inputs
        #[arg(long, default_value = "target/fuzz")]
        out: PathBuf,
        /// Judges the input of this file and nothing else
        #[arg(long)]
        replay: Option<PathBuf>,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Simulates one seed again and prints what it decides and all that happens; makes a failing one short
    #[cfg(feature = "sim")]
    Replay {
        /// The seed
        #[arg(long)]
        seed: u64,
        /// The ring: sim, simnet, adversary or proc
        #[arg(long, default_value = "sim")]
        ring: Ring,
    },
    /// Measures this machine
    Bench {
        #[command(subcommand)]
        bench: Bench,
        /// Prints one JSON object
        #[arg(long, global = true)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Drill {
    /// kill -9 of the appliance at random moments under load
    KillEdge {
        /// Kills
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// kill -9 of the cloud at the moment of a receipt; CUT=cloud-fsync, with the
    /// programs of `make planted`, must be found out
    KillCloud {
        /// Kills
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// Cuts the power of the appliance's disk at random operations under load, and lets operations fail; needs root
    /// and FUSE. CUT=edge-flush, a disk whose flushes lie, must be found out
    PowerCut {
        /// Rounds, each with a cut or two
        #[arg(long, default_value_t = 50)]
        rounds: u32,
        /// Begins no further round after so many seconds
        #[arg(long)]
        seconds: Option<u64>,
        /// Decides where the cuts fall
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Fills the appliance's disk: tier 2 is refused, then tier 1, tier 0 goes on; needs root. CUT=edge-reserve, an
    /// appliance without a reserve (of `make planted`), must be found out
    FullDisk,
    /// Looks for names and numbers of a school in the cloud's folders and in captured packets
    Canary,
}

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Seconds and bytes of a year of a school by USB stick
    Courier,
    /// Seconds from the erasure of a pupil to each step after it, until its keys are destroyed
    Erasure {
        /// Pupils of the school
        #[arg(long, default_value_t = 600)]
        pupils: u32,
    },
    /// Bytes on the wire per change
    Wire,
    /// A rebuild over a satellite link: 256 kbit/s, 700 ms, 2 % loss
    Satellite,
    /// Seconds from the end of a blackout to the first receipt
    Blackout {
        /// Seconds without a packet; once for each length
        #[arg(long, default_values_t = [30, 120])]
        seconds: Vec<u64>,
        /// Blackouts of each length
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Blocks UDP all the time, so that TCP is measured
        #[arg(long)]
        tcp: bool,
        /// Milliseconds that a packet takes, one way
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
    /// Wakeups a second and resident memory of an idle appliance
    Idle {
        /// Seconds to watch
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
}

/// What is asked of a ring that runs one seed after the other.
#[cfg(feature = "sim")]
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Runs {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Stops after so many seconds
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Also plants each defect and reports how fast it is found
    #[arg(long)]
    pub planted: bool,
    /// Prints one JSON object
    #[arg(long)]
    pub json: bool,
}

#[cfg(feature = "sim")]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Ring {
    Sim,
    Simnet,
    Adversary,
    Proc,
}

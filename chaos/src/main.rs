//! `sonae-chaos`: the generator, the demo, drills, the simulation and benches.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use sonae_chaos::{bench, demo, drill, fuzz, generate};

const EXIT_CODES: &str = "Exit codes:\n  0  done, and every promise held\n  1  a promise was broken or a program failed\n  2  wrong use of the command line";

/// Generates a school, tells the demo, runs drills and benches. Drives the other programs as processes.
#[derive(Debug, Parser)]
#[command(name = "sonae-chaos", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Stops after so many seconds
        #[arg(long)]
        seconds: Option<u64>,
        /// Also plants each defect and reports how fast it is found
        #[arg(long)]
        planted: bool,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Attacks what the cloud serves, what its sites hold and what couriers carry, each case with an honest twin
    #[cfg(feature = "sim")]
    Adversary {
        /// Cases to run
        #[arg(long, default_value_t = 2_000)]
        cases: u64,
        /// The first seed
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Stops after so many seconds
        #[arg(long)]
        seconds: Option<u64>,
        /// Also plants each defect and reports how fast it is found
        #[arg(long)]
        planted: bool,
        /// Prints one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Runs the real drivers over real QUIC in simulated time on a simulated network, seed after seed
    #[cfg(feature = "sim")]
    Simnet(sonae_chaos::simnet::command::Arguments),
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
        /// The ring: sim, simnet or adversary
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
enum Drill {
    /// kill -9 of the appliance at random moments under load
    KillEdge {
        /// Kills
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// kill -9 of the cloud at the moment of a receipt; CUT=cloud-fsync must be found out
    KillCloud {
        /// Kills
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// Cuts the power of the appliance's disk at random operations under load, and lets operations fail; needs root
    /// and FUSE. CUT=edge-flush, a disk whose flushes lie, must be found out
    PowerCut {
        /// Cuts
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// Fills the appliance's disk: tier 2 is refused, then tier 1, tier 0 goes on; needs root. CUT=edge-reserve, an
    /// appliance without a reserve, must be found out
    FullDisk,
    /// Looks for names and numbers of a school in the cloud's folders and in captured packets
    Canary,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Seconds and bytes of a year of a school by USB stick
    Courier,
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::runtime::Runtime::new()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(arguments.command)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "sonae-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    // One provider of cryptography for the HTTPS client; a second install changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cut = std::env::var("CUT").ok().filter(|cut| !cut.is_empty());
    match command {
        Command::Generate { pupils, years, seed, profile, out, json: _ } => {
            let options = generate::Options { pupils, years, seed, profile, ..Default::default() };
            let written = generate::write(&generate::school(options)?, &out)?;
            print(&written.counts)
        }
        Command::Demo { once, dir } => demo::run(&dir, once, cut.as_deref()).await,
        Command::Fuzz { target, plant, replay: Some(file), .. } => {
            let verdict = fuzz::replay(&file, target.as_deref(), plant.as_deref())?;
            print(&serde_json::json!({ "file": file, "verdict": verdict }))
        }
        Command::Fuzz { target, seconds, seed, plant, out, replay: None, json: _ } => {
            run_fuzz(&fuzz::Options { target, seconds, seed, plant, out })
        }
        Command::Drill { drill, json: _ } => run_drill(drill, cut.as_deref()).await,
        #[cfg(feature = "sim")]
        Command::Sim { seeds, from, seconds, planted, json: _ } => {
            let limit = seconds.map(std::time::Duration::from_secs);
            let mut report = sonae_chaos::sim::report::Report::of_seeds(from, seeds, limit)?;
            if planted {
                report.planted = sonae_chaos::sim::planted::find_all()?;
            }
            print(&report)?;
            match report.objections().as_slice() {
                [] => Ok(()),
                objections => bail!("the simulation objects: {}", objections.join("; ")),
            }
        }
        #[cfg(feature = "sim")]
        Command::Adversary { cases, from, seconds, planted, json } => {
            use sonae_chaos::adversary::command;
            // The ring has a runtime of its own for its object stores.
            tokio::task::block_in_place(|| command::run(cases, from, seconds, planted, json))
        }
        #[cfg(feature = "sim")]
        Command::Simnet(arguments) => {
            // The ring has a runtime of its own, whose time is simulated.
            tokio::task::block_in_place(|| sonae_chaos::simnet::command::run(&arguments))
        }
        #[cfg(feature = "sim")]
        Command::Replay { seed, ring: Ring::Simnet } => sonae_chaos::simnet::command::replay(seed),
        #[cfg(feature = "sim")]
        Command::Replay { seed, ring: Ring::Sim } => replay(seed),
        #[cfg(feature = "sim")]
        Command::Replay { seed, ring: Ring::Adversary } => {
            tokio::task::block_in_place(|| sonae_chaos::adversary::command::replay(seed))
        }
        Command::Bench { bench, json: _ } => {
            let dir = scratch("bench")?;
            match bench {
                Bench::Courier => print(&bench::courier::run_bench(&dir)?),
                Bench::Wire => print(&bench::wire::run_bench(&dir).await?),
                Bench::Satellite => print(&bench::satellite::run_bench(&dir).await?),
                Bench::Blackout { seconds, rounds, tcp, delay_ms } => {
                    let delay = std::time::Duration::from_millis(delay_ms);
                    let options = bench::blackout::Options { rounds, block_udp: tcp, delay };
                    print(&bench::blackout::run_bench(&dir, &seconds, options).await?)
                }
                Bench::Idle { seconds } => print(&bench::idle::run_bench(&dir, seconds).await?),
            }
        }
    }
}

fn run_fuzz(options: &fuzz::Options) -> Result<()> {
    let report = fuzz::run_fuzz(options)?;
    print(&report)?;
    if let Some(first) = report.failures.first() {
        bail!("{} break(s) what must hold, the first: {}", report.failures.len(), first.broken);
    }
    Ok(())
}

async fn run_drill(drill: Drill, cut: Option<&str>) -> Result<()> {
    let dir = scratch("drill")?;
    match drill {
        Drill::KillEdge { rounds } => {
            let report = drill::kill_edge::run_drill(&dir, rounds, 1).await?;
            print(&report)?;
            if report.lost + report.sequences_lost > 0 {
                bail!("P1 is broken: acknowledged writes were lost");
            }
        }
        Drill::KillCloud { rounds } => {
            let report = drill::kill_cloud::run_drill(&dir, rounds, 1, cut).await?;
            print(&report)?;
            if report.lost + report.alarms > 0 {
                bail!("P2 is broken: changes that were called safe were lost");
            }
        }
        Drill::PowerCut { rounds } => {
            let report = drill::power_cut::run_drill(&dir, rounds, 1, cut == Some("edge-flush")).await?;
            print(&report)?;
            if !report.holds() {
                bail!("P1 is broken: acknowledged writes were lost, or the appliance did not start");
            }
        }
        Drill::FullDisk => {
            let report = drill::full_disk::run_drill(&dir, cut == Some("edge-reserve")).await?;
            print(&report)?;
            if !report.objections().is_empty() {
                bail!("P9 is broken: {}", report.objections().join("; "));
            }
        }
        Drill::Canary => {
            let search = drill::canary::run_drill(&dir, 1).await?;
            print(&search)?;
            if !search.objections().is_empty() {
                bail!("P3 is not shown to hold: {}", search.objections().join(", "));
            }
        }
    }
    Ok(())
}

#[cfg(feature = "sim")]
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Ring {
    Sim,
    Simnet,
    Adversary,
}

/// Prints one run of the simulation; a failing one also as the shortest script that still fails.
#[cfg(feature = "sim")]
fn replay(seed: u64) -> Result<()> {
    use sonae_chaos::sim::{self, options::Options, script};
    use std::io::Write;
    let options = Options::of_seed(seed);
    let whole = script::draw(&options);
    let outcome = sim::run(&options, &whole, None, true)?;
    let mut out = std::io::stdout().lock();
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "digest {}", outcome.digest)?;
    if let Some((short, violation)) = sim::minimise(&options, &whole, None)? {
        writeln!(out, "the same with {} of {} actions:", short.len(), whole.len())?;
        for line in short {
            writeln!(out, "  {:?}, then {} ms", line.action, line.then_ms)?;
        }
        bail!("seed {seed}: {violation}");
    }
    Ok(())
}

/// An empty folder below `target/`.
fn scratch(name: &str) -> Result<PathBuf> {
    let dir = PathBuf::from("target").join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

fn print<T: Serialize>(value: &T) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

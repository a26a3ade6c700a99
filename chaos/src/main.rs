//! `sonae-chaos`: the generator, the demo, drills, the simulation and benches.

mod arguments;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arguments::{Arguments, Bench, Command, Drill};
#[cfg(feature = "sim")]
use arguments::{Ring, Runs};
use clap::Parser;
use serde::Serialize;
#[cfg(feature = "sim")]
use sonae_chaos::soak;
use sonae_chaos::{bench, demo, drill, fuzz, generate, proc};

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
        Command::Proc { seed: Some(seed), .. } => proc::command::replay(&scratch("proc")?, seed).await,
        Command::Proc { seeds, from, seed: None, seconds, planted, json: _ } => {
            let seeds = from..from.saturating_add(seeds);
            proc::command::run(&scratch("proc")?, seeds, seconds, planted).await
        }
        Command::Drill { drill, json: _ } => run_drill(drill, cut.as_deref()).await,
        #[cfg(feature = "sim")]
        Command::Sim { seeds, runs: Runs { from, seconds, planted, json: _ } } => {
            let limit = seconds.map(std::time::Duration::from_secs);
            use sonae_chaos::sim::report::Report;
            // The auditor has a runtime of its own for its object stores.
            let of_seeds = || Report::of_seeds(from, seeds, limit);
            let mut report = tokio::task::block_in_place(of_seeds)?;
            if planted {
                report.planted = tokio::task::block_in_place(sonae_chaos::sim::planted::find_all)?;
            }
            print(&report)?;
            match report.objections().as_slice() {
                [] => Ok(()),
                objections => bail!("the simulation objects: {}", objections.join("; ")),
            }
        }
        #[cfg(feature = "sim")]
        Command::Adversary { cases, runs: Runs { from, seconds, planted, json } } => {
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
        Command::Replay { seed, ring } => replay(ring, seed).await,
        #[cfg(feature = "sim")]
        Command::Soak { hours, commit, ring, out, sum } => {
            let seconds = std::time::Duration::try_from_secs_f64(hours * 3_600.0)?.as_secs();
            tokio::task::block_in_place(|| soak::run_or_sum(&out, &commit, &ring, (!sum).then_some(seconds)))
        }
        Command::Bench { bench, json: _ } => run_bench(bench).await,
    }
}

async fn run_bench(bench: Bench) -> Result<()> {
    let dir = scratch("bench")?;
    match bench {
        Bench::Courier => print(&bench::courier::run_bench(&dir)?),
        Bench::Erasure { pupils } => print(&bench::erasure::run_bench(&dir, pupils).await?),
        Bench::Wire => print(&bench::wire::run_bench(&dir).await?),
        Bench::Satellite => {
            let report = bench::satellite::run_bench(&dir).await?;
            print(&report)?;
            if !report.holds() {
                bail!("P5 is broken: a rebuild over a satellite link takes longer than was promised");
            }
            Ok(())
        }
        Bench::Blackout { seconds, rounds, tcp, delay_ms } => {
            let delay = std::time::Duration::from_millis(delay_ms);
            let options = bench::blackout::Options { rounds, block_udp: tcp, delay };
            let report = bench::blackout::run_bench(&dir, &seconds, options).await?;
            print(&report)?;
            if report.blackouts.iter().any(|measured| !measured.held) {
                bail!("a receipt came later after a blackout than was promised");
            }
            Ok(())
        }
        Bench::Idle { seconds } => print(&bench::idle::run_bench(&dir, seconds).await?),
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
        Drill::PowerCut { rounds, seconds, seed } => {
            let lies = cut == Some("edge-flush");
            let report = drill::power_cut::run_drill(&dir, rounds, seconds, seed, lies).await?;
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

/// Runs one seed of a ring again.
#[cfg(feature = "sim")]
async fn replay(ring: Ring, seed: u64) -> Result<()> {
    match ring {
        // The auditor has a runtime of its own for its object stores.
        Ring::Sim => tokio::task::block_in_place(|| replay_simulation(seed)),
        Ring::Simnet => sonae_chaos::simnet::command::replay(seed),
        Ring::Adversary => tokio::task::block_in_place(|| sonae_chaos::adversary::command::replay(seed)),
        Ring::Proc => proc::command::replay(&scratch("proc")?, seed).await,
    }
}

/// Prints one run of the simulation; a failing one also as the shortest script that still fails.
#[cfg(feature = "sim")]
fn replay_simulation(seed: u64) -> Result<()> {
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
    let Some((short, violation)) = sim::minimise(&options, &whole, None)? else { return Ok(()) };
    writeln!(out, "the same with {} of {} actions:", short.len(), whole.len())?;
    for line in &short {
        writeln!(out, "  {line}")?;
    }
    for line in sim::run(&options, &short, None, true)?.trace {
        writeln!(out, "{line}")?;
    }
    bail!("seed {seed}: {violation}");
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

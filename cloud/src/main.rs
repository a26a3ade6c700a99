//! The command line of the cloud: `run`, `status`, `export`, `audit` and `bundle`.

mod command_audit;
mod command_bundle;
mod command_export;

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sonae_cloud::clock::{Clock, now_ms};
use sonae_cloud::compaction::Rules;
use sonae_cloud::exit::{self, Exit};
use sonae_cloud::identity::{NodeIdentity, open_bundle, read_passphrase};
use sonae_cloud::limits::SUPERSEDED_DAYS_MIN;
use sonae_cloud::lock::DataLock;
use sonae_cloud::node::{Node, NodeError, Options, default_quorum};
use sonae_cloud::{report, status};
use tokio::signal::unix::{SignalKind, signal};

/// The blind cloud of Sonae: takes sealed batches, stores them at every site, signs receipts.
#[derive(Parser)]
#[command(name = "sonae-cloud", version, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a node until it is told to stop. Prints one line of JSON when it serves.
    #[command(after_help = exit::HELP)]
    Run(Run),
    /// Shows schools, logs, incarnations, refusals and sites of a node, running or not.
    #[command(after_help = exit::HELP)]
    Status(StatusOf),
    /// Writes everything that sites hold of one school as files that `age`, `zstd` and `jq` read.
    #[command(after_help = exit::HELP)]
    Export(command_export::Export),
    /// Judges what sites hold of one school with public keys only: gaps, forks, forgeries, and with --expect also
    /// what is missing at the end.
    #[command(after_help = exit::HELP)]
    Audit(command_audit::Audit),
    /// Takes sealed batches that a courier brought, and writes the answer that goes back.
    #[command(after_help = exit::HELP)]
    Bundle {
        #[command(subcommand)]
        command: command_bundle::Bundle,
    },
}

#[derive(Args)]
struct Run {
    /// The node's bundle, made by `sonae-provision cloud enrol`.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Reads the bundle's passphrase from the first line of standard input.
    #[arg(long, required = true)]
    passphrase_stdin: bool,
    /// The data directory: a lock and a status file, nothing that matters.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A directory where objects are stored, each on a disk of its own. Once for each site.
    #[arg(long = "site", value_name = "DIR", required = true)]
    sites: Vec<PathBuf>,
    /// How many sites must have a batch before it gets its receipt; more than half when not given.
    #[arg(long, value_name = "N")]
    quorum: Option<usize>,
    /// Where to listen for QUIC, on UDP; port 0 chooses one.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:4433")]
    listen: SocketAddr,
    /// Where to listen on TCP, for schools where UDP is blocked; the address of --listen when not given.
    #[arg(long, value_name = "ADDR")]
    listen_tcp: Option<SocketAddr>,
    /// Days for which the node runs before it deletes objects that a larger one stands for. Not less than 7.
    #[arg(long, value_name = "DAYS", default_value_t = SUPERSEDED_DAYS_MIN,
        value_parser = clap::value_parser!(u64).range(SUPERSEDED_DAYS_MIN..=36_500))]
    superseded_days: u64,
}

#[derive(Args)]
struct StatusOf {
    /// The data directory of the node.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match cli.command {
        Command::Run(options) => run(options),
        Command::Status(of) => show_status(&of.data, of.json),
        Command::Export(arguments) => command_export::run(&arguments),
        Command::Audit(arguments) => command_audit::run(&arguments),
        Command::Bundle { command } => command_bundle::run(&command),
    };
    exit.into()
}

fn run(options: Run) -> Exit {
    start_log();
    #[cfg(feature = "planted")]
    if let Ok(name) = std::env::var("SONAE_TEST_PLANT")
        && let Err(error) = sonae_proto::planted::plant_everywhere(&name)
    {
        return fail(Exit::Usage, &error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Internal, &error),
    };
    match runtime.block_on(serve(options)) {
        Ok(()) => Exit::Done,
        Err(error) => fail(error.exit(), &error),
    }
}

async fn serve(run: Run) -> Result<(), NodeError> {
    let identity = {
        let passphrase = read_passphrase(std::io::stdin().lock())?;
        NodeIdentity::of_bundle(&open_bundle(&run.bundle, &passphrase)?)?
    };
    let options = Options {
        quorum: run.quorum.unwrap_or_else(|| default_quorum(run.sites.len())),
        data: run.data,
        sites: run.sites,
        listen: run.listen,
        listen_tcp: run.listen_tcp,
        clock: Clock::default(),
        status_file: true,
        compaction: Rules { superseded: Duration::from_hours(24 * run.superseded_days), ..Rules::default() },
    };
    let node = Node::start(identity, &options).await?;
    let ready = serde_json::to_string(node.ready()).unwrap_or_default();
    say(&ready);
    log::info!(listen:% = node.ready().listen, listen_tcp:? = node.ready().listen_tcp; "serving");
    wait_for_signal().await;
    log::info!("stopping");
    node.stop().await;
    Ok(())
}

async fn wait_for_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        log::error!("signals cannot be received; only a kill stops this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn show_status(data: &Path, json: bool) -> Exit {
    let status = match status::read(data) {
        Ok(status) => status,
        Err(error) => {
            complain(&format!("{} has no status: is it the --data of a node that has run?", data.display()));
            return fail(Exit::Usage, &error);
        }
    };
    let running = DataLock::is_held(data);
    let text = if json {
        serde_json::to_value(&status).map(|mut value| {
            if let Some(fields) = value.as_object_mut() {
                fields.insert("running".to_owned(), running.into());
            }
            value.to_string()
        })
    } else {
        report::text(&status, running, now_ms()).map_err(serde::ser::Error::custom)
    };
    match text {
        Ok(text) => {
            say(text.trim_end());
            Exit::Done
        }
        Err(error) => fail(Exit::Internal, &error),
    }
}

fn start_log() {
    if systemd_journal_logger::connected_to_journal()
        && systemd_journal_logger::JournalLog::new().is_ok_and(|journal| journal.install().is_ok())
    {
        log::set_max_level(log::LevelFilter::Info);
        return;
    }
    // Fails only when there is a logger already.
    let _ = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).try_init();
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads: the node serves all the same.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "sonae-cloud: {text}");
}

fn fail(exit: Exit, error: &dyn Error) -> Exit {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    complain(&text);
    exit
}

//! The commands: their arguments, and what each does with the library.

mod bundle;
mod erase;
mod failure;
mod import;
mod neighbours;
mod print;
mod prove;
mod rebuild;
mod room;
mod run;
mod show;
mod staff;

use std::io::{self, Read};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use sonae_edge::exit::{self, Exit};
use sonae_edge::{control, replica};
use sonae_proto::identity::Beginning;
use sonae_store::{Clock, enrolment};
use zeroize::Zeroizing;

pub use failure::Failure;
use print::print_line;

/// Bytes that are read of a passphrase or password from standard input.
const SECRET_BYTES_MAX: u64 = 4_096;

/// The appliance at a school: keeps the school's data, serves it on the LAN, streams it sealed to the cloud,
/// and rebuilds itself from there.
#[derive(Debug, Parser)]
#[command(name = "sonae-edge", version, after_help = exit::HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes an empty directory the data directory of a new replica
    Enrol {
        /// The data directory, empty or not there yet
        #[arg(long)]
        data: PathBuf,
        /// The bundle from the board
        #[arg(long)]
        bundle: PathBuf,
        /// Reads the bundle's passphrase from standard input
        #[arg(long, required = true)]
        passphrase_stdin: bool,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Manages the accounts of staff
    Staff {
        #[command(subcommand)]
        command: staff::StaffCommand,
    },
    /// Imports OneRoster packages, contacts.csv and attendance.csv
    Import(import::ImportArguments),
    /// Serves the school until it is told to stop
    Run(run::RunArguments),
    /// Says what is kept, what is safe, how old the difference is, and what fails
    Status {
        /// The data directory
        #[arg(long)]
        data: PathBuf,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Prints the state digest of each tier, with the version vector that it belongs to
    Digest {
        /// The data directory
        #[arg(long)]
        data: PathBuf,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Proves now that the cloud gives back what this box holds; exit code 0 for that alone, 7 for all else
    Prove {
        /// The data directory of the running daemon
        #[arg(long)]
        data: PathBuf,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Carries sealed batches by hand: a USB stick or a phone in place of the line
    Bundle {
        #[command(subcommand)]
        command: bundle::BundleCommand,
    },
    /// Erases a pupil for good; says only what would go, unless told to
    Erase(erase::EraseArguments),
    /// Makes a new replica out of what the cloud holds; run again after an interruption, it resumes
    Rebuild(rebuild::RebuildArguments),
}

/// Does what the command line says.
///
/// # Errors
/// [`Failure`], with what to do next.
pub fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Enrol { data, bundle, passphrase_stdin: _, json } => enrol(&data, &bundle, json),
        Command::Staff { command } => staff::run(command),
        Command::Import(arguments) => import::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Status { data, json } => show::status(&data, json),
        Command::Digest { data, json } => show::digest(&data, json),
        Command::Prove { data, json } => prove::prove(&data, json),
        Command::Bundle { command } => bundle::run(&command),
        Command::Erase(arguments) => erase::run(&arguments),
        Command::Rebuild(arguments) => rebuild::run(&arguments),
    }
}

fn enrol(data: &std::path::Path, bundle: &std::path::Path, json: bool) -> Result<Exit, Failure> {
    let passphrase = read_secret("the bundle's passphrase")?;
    let bundle = enrolment::open_bundle(bundle, &passphrase)?;
    drop(enrolment::enrol(data, &bundle, Beginning::Enrolment, Clock::system().now_ms())?);
    if json {
        print_line(
            &serde_json::json!({ "enrolled": true, "school": bundle.school, "data": data }).to_string(),
        );
    } else {
        print_line(&format!(
            "Enrolled {} ({}) in {}. enrolment.json and incarnation.json there hold secrets (0600); the bundle is \
             not needed any more, destroy it.\n{}（{}）を登録しました。次に: sonae-edge run --data {}",
            bundle.school_name,
            bundle.school,
            data.display(),
            bundle.school_name,
            bundle.school,
            data.display(),
        ));
    }
    Ok(Exit::Ok)
}

/// Reads one line of standard input.
fn read_secret(what: &'static str) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|error| {
        Failure::new(Exit::Refused, format!("cannot read {what} from standard input: {error}"))
    })?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format!("standard input has no line with {what}; pipe it in, for example `sonae-edge … < FILE`"),
        ));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// Reaches the daemon of a data directory, or opens the directory when there is none.
fn reach(data: &std::path::Path) -> Result<control::Replica, Failure> {
    match control::Client::connect(data) {
        Some(client) => Ok(control::Replica::Daemon(client)),
        None => Ok(control::Replica::Own(Box::new(replica::Replica::open(data)?))),
    }
}

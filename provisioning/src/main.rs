//! `sonae-provision`: the command line of the board's tool.
//!
//! **Invariant**: secrets never reach standard output or error, with one exception: the passphrase of a new
//! bundle, the last line of standard output (with `--json` a field of the one line).

mod epoch_command;
mod print;

use std::error::Error as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sonae_proto::identity::ReplicaKind;
use sonae_proto::ids::{LogName, ReplicaId, SchoolCode};
use sonae_proto::vector::{Heads, LogHead};
use sonae_provision::board::Board;
use sonae_provision::cloud;
use sonae_provision::disk::Disk;
use sonae_provision::epochs;
use sonae_provision::error::{Exit, ProvisionError};
use sonae_provision::heads::{self, Which};
use sonae_provision::hold;
use sonae_provision::names::Host;
use sonae_provision::overview::Overview;
use sonae_provision::replica::{self, ReplicaRequest};
use sonae_provision::revoke::{self, Decision};
use sonae_provision::school::School;
use sonae_provision::words;
use time::OffsetDateTime;

/// The tool of a board of education: makes its authority and keys, enrols its cloud and its schools' replicas.
#[derive(Parser)]
#[command(name = "sonae-provision", version, after_help = Exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The board itself.
    #[command(subcommand, after_help = Exit::HELP)]
    Board(BoardCommand),
    /// Its schools.
    #[command(subcommand, after_help = Exit::HELP)]
    School(SchoolCommand),
    /// Its cloud.
    #[command(subcommand, after_help = Exit::HELP)]
    Cloud(CloudCommand),
    /// Replicas of its schools.
    #[command(subcommand, after_help = Exit::HELP)]
    Replica(ReplicaCommand),
    /// Keys of a school.
    #[command(subcommand, after_help = Exit::HELP)]
    Epoch(epoch_command::EpochCommand),
    /// Show board, schools, replicas, manifests and cloud, verified; no secrets.
    #[command(after_help = Exit::HELP)]
    Show(Common),
}

#[derive(Args)]
struct Common {
    /// The board's directory.
    #[arg(long)]
    dir: PathBuf,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum BoardCommand {
    /// Make a board: root key, certificate authority, operations and recovery keys. Never overwrites.
    #[command(after_help = Exit::HELP)]
    Init {
        #[command(flatten)]
        common: Common,
        /// The board's name for people, at most 48 characters.
        #[arg(long)]
        name: String,
    },
}

#[derive(Subcommand)]
enum SchoolCommand {
    /// Add a school: keys of this school year and the next, and its first manifest.
    #[command(after_help = Exit::HELP)]
    Add {
        #[command(flatten)]
        common: Common,
        /// The 13-character school code (学校コード), such as B113200000011.
        #[arg(long)]
        code: String,
        /// The school's name for people.
        #[arg(long)]
        name: String,
    },
    /// Add the keys of this school year and the next where they are missing; once a year, before April.
    #[command(after_help = Exit::HELP)]
    AddYear(SchoolWord),
    /// Write the board's present word on a school again, for `bundle import` on its boxes and its cloud.
    #[command(after_help = Exit::HELP)]
    Words(SchoolWord),
}

#[derive(Args)]
struct SchoolWord {
    #[command(flatten)]
    common: Common,
    /// Code of the school.
    #[arg(long, value_name = "CODE")]
    school: String,
    /// File of the board's word; must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum CloudCommand {
    /// Enrol a node of the cloud and write its bundle; the last line printed is the bundle's passphrase.
    #[command(after_help = Exit::HELP)]
    Enrol {
        #[command(flatten)]
        common: Common,
        /// Where replicas dial it: DNS name or address, port 4433 unless given.
        #[arg(long, value_name = "NAME[:PORT]")]
        host: String,
        /// File of the bundle; must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum ReplicaCommand {
    /// Enrol a replica and write its bundle; the last line printed is the bundle's passphrase.
    #[command(after_help = Exit::HELP)]
    Enrol {
        #[command(flatten)]
        common: Common,
        /// Code of its school.
        #[arg(long, value_name = "CODE")]
        school: String,
        /// What it is for.
        #[arg(long)]
        kind: Kind,
        /// File of the bundle; must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// One more DNS name or address of its LAN service; can be given again.
        #[arg(long = "lan-name", value_name = "NAME")]
        lan_names: Vec<String>,
    },
    /// Revoke a replica that is lost or stolen, and make new keys that it cannot open. Take the written file to the cloud
    /// with `sonae-cloud bundle import`, and to boxes without a line with `sonae-edge bundle import`.
    #[command(after_help = Exit::HELP)]
    Revoke(HeadsWord),
    /// Say that what came of a revoked replica afterwards counts, up to these heads.
    #[command(after_help = Exit::HELP)]
    Accept(HeadsWord),
    /// Say that what came of a revoked replica afterwards does not count, and is not to be asked about again.
    #[command(after_help = Exit::HELP)]
    Drop(HeadsWord),
    /// Let nobody write at a box that was given up for lost, in case it comes back: what it still holds is merged, and
    /// people can read there. `release` ends it. Take the written file where that of `revoke` goes.
    #[command(after_help = Exit::HELP)]
    Hold(ReplicaWord),
    /// Let people write again at a box that was held.
    #[command(after_help = Exit::HELP)]
    Release(ReplicaWord),
}

#[derive(Args)]
struct ReplicaWord {
    #[command(flatten)]
    common: Common,
    /// Code of the school.
    #[arg(long, value_name = "CODE")]
    school: String,
    /// The replica, 32 hexadecimal digits, as `show` names it.
    #[arg(long, value_name = "REPLICA")]
    replica: String,
    /// File of the board's word; must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct HeadsWord {
    #[command(flatten)]
    word: ReplicaWord,
    /// What `sonae-cloud status --json` printed: of a replica that is revoked, what is stored now counts; of one that was,
    /// what waits in quarantine is accepted or dropped.
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
    /// One head more, INCARNATION/TIER:SEQUENCE:HASH; can be given again.
    #[arg(long = "head", value_name = "HEAD", value_parser = heads::parse)]
    more: Vec<(LogName, LogHead)>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// The box in the school.
    Appliance,
    /// A box in the cupboard, or the sealed standby outside the building.
    Spare,
    /// A replica that is opened somewhere else after a disaster.
    Continuity,
}

impl From<Kind> for ReplicaKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Appliance => Self::Appliance,
            Kind::Spare => Self::Spare,
            Kind::Continuity => Self::Continuity,
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come here too. If nobody reads, nothing can be done about it.
            let _ = error.print();
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return ExitCode::from(exit.code());
        }
    };
    match run(cli.command) {
        Ok(()) => ExitCode::from(Exit::Ok.code()),
        Err(error) => {
            let mut text = format!("sonae-provision: {error}");
            let mut cause = error.source();
            while let Some(source) = cause {
                text.push_str(&format!("\n  because: {source}"));
                cause = source.source();
            }
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::from(error.exit().code())
        }
    }
}

fn run(command: Command) -> Result<(), ProvisionError> {
    let now = OffsetDateTime::now_utc();
    match command {
        Command::Board(BoardCommand::Init { common, name }) => {
            let board = Board::init(&common.dir, &name, now, Disk::new())?;
            print::board(&board, common.json)
        }
        Command::School(SchoolCommand::Add { common, code, name }) => {
            let code = code.parse::<SchoolCode>()?;
            let board = Board::open(&common.dir, Disk::new())?;
            print::school(School::add(&board, code, &name, now)?, common.json)
        }
        Command::School(SchoolCommand::AddYear(word)) => {
            let board = Board::open(&word.common.dir, Disk::new())?;
            let school = School::load(&board, word.school.parse()?)?;
            print::school_word(epochs::add_year(&board, school, &word.out, now)?, &word.out, word.common.json)
        }
        Command::School(SchoolCommand::Words(word)) => {
            let board = Board::open(&word.common.dir, Disk::new())?;
            let school = School::load(&board, word.school.parse()?)?;
            words::write(&board, &school, &word.out, now)?;
            print::school_word(school, &word.out, word.common.json)
        }
        Command::Epoch(command) => epoch_command::run(command, now),
        Command::Replica(ReplicaCommand::Revoke(word)) => say(&word, None, now),
        Command::Replica(ReplicaCommand::Accept(word)) => say(&word, Some(Decision::Accept), now),
        Command::Replica(ReplicaCommand::Drop(word)) => say(&word, Some(Decision::Drop), now),
        Command::Replica(ReplicaCommand::Hold(word)) => say_hold(&word, true, now),
        Command::Replica(ReplicaCommand::Release(word)) => say_hold(&word, false, now),
        Command::Cloud(CloudCommand::Enrol { common, host, out }) => {
            let host = host.parse::<Host>()?;
            let board = Board::open(&common.dir, Disk::new())?;
            print::cloud(&cloud::enrol(&board, &host, &out, now)?, common.json)
        }
        Command::Replica(ReplicaCommand::Enrol { common, school, kind, out, lan_names }) => {
            let request = ReplicaRequest { school: school.parse()?, kind: kind.into(), lan_names };
            let board = Board::open(&common.dir, Disk::new())?;
            print::replica(&replica::enrol(&board, &request, &out, now)?, common.json)
        }
        Command::Show(common) => {
            let board = Board::open(&common.dir, Disk::new())?;
            print::overview(&Overview::of(&board)?, common.json)
        }
    }
}

/// Holds a replica, or releases it.
fn say_hold(word: &ReplicaWord, is_held: bool, now: OffsetDateTime) -> Result<(), ProvisionError> {
    let board = Board::open(&word.common.dir, Disk::new())?;
    let school = School::load(&board, word.school.parse()?)?;
    let school = hold::say(&board, &school, word.replica.parse()?, is_held, &word.out, now)?;
    print::school_word(school, &word.out, word.common.json)
}

/// Revokes a replica, or decides about what came of it since.
fn say(of: &HeadsWord, decision: Option<Decision>, now: OffsetDateTime) -> Result<(), ProvisionError> {
    let HeadsWord { word, heads, more } = of;
    let (code, replica) = (word.school.parse::<SchoolCode>()?, word.replica.parse::<ReplicaId>()?);
    let board = Board::open(&word.common.dir, Disk::new())?;
    let school = School::load(&board, code)?;
    let which = if decision.is_some() { Which::Quarantined } else { Which::Stored };
    let mut heads = match heads {
        Some(path) => heads::of_status(path, code, replica, which)?,
        None => Heads::new(),
    };
    heads.extend(more.iter().copied());
    let said = match decision {
        None => revoke::revoke(&board, &school, replica, heads, &word.out, now)?,
        Some(decision) => revoke::decide(&board, &school, replica, decision, &heads, &word.out, now)?,
    };
    print::word(&said, &word.out, word.common.json)
}

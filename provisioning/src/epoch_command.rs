//! `sonae-provision epoch`: keys of a school are rotated and destroyed.

use std::io;
use std::path::PathBuf;

use clap::Subcommand;
use sonae_proto::ids::Tier;
use sonae_proto::manifest::KeyUse;
use sonae_provision::board::Board;
use sonae_provision::destroy::{self, Order};
use sonae_provision::disk::Disk;
use sonae_provision::error::{Exit, ProvisionError};
use sonae_provision::school::School;
use time::OffsetDateTime;

use super::{SchoolWord, print};

#[derive(Subcommand)]
pub(crate) enum EpochCommand {
    /// Make new keys for this school year and the next, so that older ones come to be needed by nobody.
    #[command(after_help = Exit::HELP)]
    Rotate(SchoolWord),
    /// Order keys to be destroyed: what is sealed to them can then be read by nobody, for good. Take the written file to
    /// the cloud and to boxes without a line with `bundle import`.
    #[command(after_help = Exit::HELP)]
    Destroy {
        #[command(flatten)]
        word: SchoolWord,
        /// Which tiers' keys; can be given again.
        #[arg(long = "use", value_name = "tier0|tier1|tier2", required = true, value_parser = tier)]
        uses: Vec<Tier>,
        /// Which epoch, such as 2020 or 2026001.
        #[arg(long)]
        epoch: u32,
        /// What `sonae-edge status --json` printed on a box; one for each replica that lives.
        #[arg(long = "status", value_name = "FILE")]
        statuses: Vec<PathBuf>,
        /// A replica that nobody can ask any more: what only it holds is lost. Can be given again.
        #[arg(long, value_name = "REPLICA")]
        lost: Vec<String>,
        /// Reads `destroy-EPOCH`, typed by a person, from standard input.
        #[arg(long)]
        confirm_stdin: bool,
    },
}

fn tier(text: &str) -> Result<Tier, String> {
    match text.parse() {
        Ok(KeyUse::Tier(tier)) => Ok(tier),
        Ok(KeyUse::Digest) | Err(_) => Err("give tier0, tier1 or tier2".to_owned()),
    }
}

/// Does what the command line says.
pub(crate) fn run(command: EpochCommand, now: OffsetDateTime) -> Result<(), ProvisionError> {
    match command {
        EpochCommand::Rotate(word) => {
            let board = Board::open(&word.common.dir, Disk::new())?;
            let school = School::load(&board, word.school.parse()?)?;
            print::school_word(destroy::rotate(&board, school, &word.out, now)?, &word.out, word.common.json)
        }
        EpochCommand::Destroy { word, uses, epoch, statuses, lost, confirm_stdin } => {
            let lost = lost.iter().map(|replica| replica.parse()).collect::<Result<_, _>>()?;
            let order = Order { tiers: uses, epoch, statuses, lost };
            destroy_keys(&word, &order, confirm_stdin, now)
        }
    }
}

/// Destroys keys, once a person has typed what for.
fn destroy_keys(
    word: &SchoolWord,
    order: &Order,
    confirm_stdin: bool,
    now: OffsetDateTime,
) -> Result<(), ProvisionError> {
    let board = Board::open(&word.common.dir, Disk::new())?;
    let school = School::load(&board, word.school.parse()?)?;
    let (expected, mut typed) = (destroy::confirmation(order.epoch), String::new());
    // Nothing that can be read is no confirmation.
    let is_read = confirm_stdin && io::stdin().read_line(&mut typed).is_ok();
    if !is_read || typed.trim() != expected {
        return Err(ProvisionError::Unconfirmed { expected });
    }
    print::destruction(&destroy::destroy(&board, school, order, &word.out, now)?, &word.out, word.common.json)
}

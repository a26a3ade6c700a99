//! `sonae-cloud bundle import`: carries a file to the running node and its answer to another file.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use sonae_cloud::courier::{Report, Request, socket};
use sonae_cloud::exit::Exit;
use sonae_proto::courier::{Decoder, EXTENSION, Opening, Record};

use crate::{complain, say};

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Subcommand)]
pub enum Bundle {
    /// Takes a bundle of a school's box: the same checks, sites, quorum and receipts as over the line.
    #[command(after_help = sonae_cloud::exit::HELP)]
    Import {
        /// The data directory of the running node.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Where to write the answer: receipts, and what the box lacks of others. Carry it back.
        #[arg(long, value_name = "DIR")]
        receipts_to: Option<PathBuf>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// The bundle.
        file: PathBuf,
    },
}

/// Why a command failed, in words.
struct Failed(Exit, String);

pub fn run(command: &Bundle) -> Exit {
    let Bundle::Import { data, receipts_to, json, file } = command;
    match import(data, file, receipts_to.as_deref(), *json) {
        Ok(exit) => exit,
        Err(Failed(exit, text)) => {
            complain(&text);
            exit
        }
    }
}

fn import(data: &Path, path: &Path, receipts_to: Option<&Path>, json: bool) -> Result<Exit, Failed> {
    let unreadable =
        |error: io::Error| Failed(Exit::Bundle, format!("{} cannot be read: {error}", path.display()));
    let lost = |error: io::Error| {
        Failed(Exit::Internal, format!("the node ended the conversation: {error}; see its log"))
    };
    if let Some(directory) = receipts_to.filter(|directory| !directory.is_dir()) {
        let text = format!("{} is not a directory; is the stick mounted?", directory.display());
        return Err(Failed(Exit::Usage, text));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let mut stream = UnixStream::connect(socket(data)).map_err(|_| {
        let text = format!("no node runs with --data {}; start it first: it owns the sites", data.display());
        Failed(Exit::Usage, text)
    })?;
    let mut line = serde_json::to_vec(&Request::Import).unwrap_or_default();
    line.push(b'\n');
    stream.write_all(&line).map_err(lost)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece).map_err(unreadable)?;
        let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        // A node that has read enough stops listening, and its report says why.
        if stream.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).map_err(lost)?;
    let report: Report = serde_json::from_str(&line).map_err(|error| lost(error.into()))?;
    let written = match receipts_to.filter(|_| report.answer) {
        Some(directory) => Some(keep_answer(&mut answer, directory)?),
        None => None,
    };
    tell(&report, &line, written.as_deref(), json);
    Ok(exit_of(&report))
}

fn exit_of(report: &Report) -> Exit {
    if report.refused_file.is_some() {
        Exit::Bundle
    } else if report.storage {
        Exit::Sites
    } else if report.is_whole() {
        Exit::Done
    } else {
        Exit::Incomplete
    }
}

/// Writes the answer; only a whole one gets its name.
fn keep_answer(answer: &mut impl io::Read, directory: &Path) -> Result<PathBuf, Failed> {
    let staged = directory.join(format!(".{}.{EXTENSION}.part", std::process::id()));
    let kept = copy_answer(answer, &staged).and_then(|opening| {
        let name = format!("sonae-{}-answer-{}.{EXTENSION}", opening.school, opening.made_ms);
        let path = directory.join(name);
        fs::rename(&staged, &path)?;
        File::open(directory)?.sync_all()?;
        Ok(path)
    });
    kept.map_err(|error| {
        let _ = fs::remove_file(&staged);
        let text = format!(
            "the batches are stored, but the answer cannot be written to {}: {error}; import the same file again",
            directory.display()
        );
        Failed(Exit::Incomplete, text)
    })
}

fn copy_answer(answer: &mut impl io::Read, path: &Path) -> io::Result<Opening> {
    let mut file = File::create(path)?;
    let (mut decoder, mut opening) = (Decoder::default(), None);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = answer.read(&mut piece)?;
        let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        file.write_all(bytes)?;
        decoder.feed(bytes);
        while let Some(record) = decoder.poll().map_err(io::Error::other)? {
            if let Record::Opening(found) = record {
                opening = Some(*found);
            }
        }
    }
    decoder.finish().map_err(io::Error::other)?;
    file.sync_all()?;
    opening.ok_or_else(|| io::Error::other("no answer came"))
}

fn tell(report: &Report, line: &str, written: Option<&Path>, json: bool) {
    if let Some(text) = &report.refused_file {
        complain(&format!("{text}; nothing was taken"));
    }
    if let Some(text) = &report.cut {
        complain(&format!("not whole: {text}. What came before was taken"));
    }
    for early in &report.early {
        complain(&format!(
            "{} batches of log {} begin at change {}, but only {} is here: import the earlier bundle first, then this one again",
            early.batches, early.log, early.first, early.held
        ));
    }
    for reason in &report.reasons {
        complain(reason);
    }
    for log in &report.lost {
        complain(&format!(
            "the sites have lost receipted changes of log {log}; this bundle may bring them back"
        ));
    }
    if report.storage {
        complain(
            "fewer sites than the quorum could be written; import the same file again when they are back",
        );
    }
    if json {
        say(line.trim_end());
        return;
    }
    if report.documents > 0 {
        say("The board's key documents are at the quorum; revoked devices are sent away from now on.\n\
             教育委員会の鍵情報を控えに保存しました。失効した端末は今後つながりません。");
        return;
    }
    if report.quarantined > 0 {
        let batches = report.quarantined;
        say(&format!(
            "{batches} batches are of a device that the board has revoked. They are in quarantine; `sonae-cloud status` \
             lists them, and the board accepts or drops them.\n\
             失効した端末の束{batches}個を隔離しました。教育委員会が判断します。"
        ));
    }
    if report.refused_file.is_none() {
        let (taken, changes, known) = (report.taken, report.changes, report.known);
        say(&format!(
            "Took {taken} batches with {changes} changes; {known} were here already.\n\
             {changes}件の変更を受け取りました（受け取り済み {known}個）。"
        ));
    }
    if let Some(path) = written {
        let path = path.display();
        say(&format!(
            "The receipts are in {path}: carry it back and import it on the box.\n受領証は {path} です。学校へ持ち帰り、取り込んでください。"
        ));
    }
}

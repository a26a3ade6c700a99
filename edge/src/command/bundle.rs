//! `sonae-edge bundle export` and `import`.
//!
//! Both talk to the daemon, or to the same service in this process when there is none.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sonae_edge::courier::{self, Desk, Imported, Request};
use sonae_edge::exit::Exit;
use sonae_edge::replica::Replica;
use sonae_edge::uplink;
use sonae_proto::batch::Batch;
use sonae_proto::courier::{CourierError, Decoder, EXTENSION, MAGIC, Opening, Origin, Record};
use sonae_proto::ids::LogName;
use sonae_proto::uplink::Uplink as Engine;
use sonae_proto::vector::{Heads, Sequences};
use sonae_store::Quarantine;
use sonae_store::data_dir::sync_dir;
use sonae_store::keyring::Keyring;

use super::Failure;
use super::print::print_line;

/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum BundleCommand {
    /// Writes the sealed batches of this box to a file, for the cloud or for another box of the school
    Export(ExportArguments),
    /// Takes a bundle of another box, or the cloud's answer with its receipts
    Import(ImportArguments),
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// The data directory
    #[arg(long)]
    data: PathBuf,
    /// The directory to write to, such as that of a USB stick
    #[arg(long)]
    to: PathBuf,
    /// Leaves out what the receiver has: an answer of the cloud, or what `sonae-edge digest --json` printed
    #[arg(long)]
    since: Option<PathBuf>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The data directory
    #[arg(long)]
    data: PathBuf,
    /// The bundle
    file: PathBuf,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &BundleCommand) -> Result<Exit, Failure> {
    match command {
        BundleCommand::Export(arguments) => export(arguments),
        BundleCommand::Import(arguments) => import(arguments),
    }
}

/// A conversation with the daemon, or with a service that lives as long as this.
struct Talk {
    stream: UnixStream,
    own: Option<(tokio::runtime::Runtime, Replica)>,
}

impl Talk {
    fn start(data: &Path, request: &Request) -> Result<Self, Failure> {
        let mut talk = match UnixStream::connect(courier::socket(data)) {
            Ok(stream) => Self { stream, own: None },
            Err(_) => Self::within(Replica::open(data)?)?,
        };
        let mut line = serde_json::to_vec(request).map_err(internal)?;
        line.push(b'\n');
        talk.stream.write_all(&line).map_err(lost)?;
        Ok(talk)
    }

    fn within(replica: Replica) -> Result<Self, Failure> {
        let keys = replica.keys()?;
        let (store, clock) = (replica.opened.store.clone(), replica.clock.clone());
        let quarantine = Quarantine::of(replica.dir.path());
        let start = uplink::start(&keys, replica.cloud.clone(), 1, replica.opened.evidence.clone());
        let documents = Keyring::documents_of(&replica.bundle);
        let (desk, asks) = Desk::new(&keys, documents, store.clone(), quarantine.clone(), clock.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(internal)?;
        let (stream, there) = UnixStream::pair().map_err(internal)?;
        there.set_nonblocking(true).map_err(internal)?;
        runtime.spawn(courier::run_without_line(Engine::new(start), store, quarantine, clock, asks));
        runtime.spawn(async move {
            match tokio::net::UnixStream::from_std(there) {
                Ok(there) => courier::serve_one(there, &desk).await,
                Err(error) => Err(error),
            }
        });
        Ok(Self { stream, own: Some((runtime, replica)) })
    }

    /// Ends: an own store is closed cleanly.
    fn end(self) {
        if let Some((runtime, replica)) = self.own {
            drop(runtime);
            replica.opened.close();
        }
    }
}

fn internal(error: impl ToString) -> Failure {
    Failure::new(Exit::Internal, error.to_string())
}

fn lost(error: impl ToString) -> Failure {
    Failure::new(Exit::Store, format!("the box ended the conversation: {}; see its log", error.to_string()))
}

fn bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {eta}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn export(arguments: &ExportArguments) -> Result<Exit, Failure> {
    let since = arguments.since.as_deref().map(read_since).transpose()?.unwrap_or_default();
    if !arguments.to.is_dir() {
        let text = format!("{} is not a directory; is the stick mounted?", arguments.to.display());
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut talk = Talk::start(&arguments.data, &Request::Export { since: since.clone() })?;
    let staged = arguments.to.join(format!(".{}.{EXTENSION}.part", std::process::id()));
    let written = receive(&mut talk.stream, &staged);
    talk.end();
    let Written { opening, batches, first } = match written {
        Ok(written) => written,
        Err(failure) => {
            // Half a bundle is of no use to anybody.
            let _ = fs::remove_file(&staged);
            return Err(failure);
        }
    };
    let path = arguments.to.join(file_name(&opening));
    let write = |error: io::Error| unwritable(&path, &error);
    fs::rename(&staged, &path).map_err(write)?;
    sync_dir(&arguments.to).map_err(write)?;
    let begin_behind = begin_behind(&opening, &since, &first);
    if arguments.json {
        let (school, begin_behind) = (opening.school, begin_behind);
        let object = serde_json::json!({
            "bundle": path, "batches": batches, "school": school, "begin_behind": begin_behind
        });
        print_line(&object.to_string());
    } else {
        let path = path.display();
        print_line(&format!(
            "{batches} sealed batches are in {path}. Nobody on the way can read or change them.\n\
             封をした{batches}個のまとまりを {path} に書きました。途中で読むことも変えることもできません。"
        ));
        for (log, pruned) in &begin_behind {
            print_line(&format!(
                "log {log} begins behind change {pruned}: this box does not hold older ones one by one any more. \
                 Whoever lacks them must fetch them over the line.\n\
                 記録 {log} は変更{pruned}より後だけです。それより前は回線で受け取ってください。"
            ));
        }
    }
    Ok(Exit::Ok)
}

/// Returns the logs that begin later in a bundle than was asked for, with the last change that is not in it.
fn begin_behind(opening: &Opening, since: &Sequences, first: &Sequences) -> Sequences {
    let Origin::Replica(replica) = &opening.from else { return Sequences::new() };
    let behind = |(log, last): (&LogName, &u64)| {
        let after = since.get(log).copied().unwrap_or(0);
        let begins = first.get(log).map_or(*last, |first| first.saturating_sub(1));
        (begins > after).then_some((*log, begins))
    };
    replica.have.iter().filter_map(behind).collect()
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot write {}: {error}; check the space there", path.display());
    Failure::new(Exit::Refused, text)
}

fn file_name(opening: &Opening) -> String {
    format!("sonae-{}-{}.{EXTENSION}", opening.school, opening.made_ms)
}

/// What was received.
struct Written {
    opening: Opening,
    batches: u64,
    /// The first change of each log in it.
    first: Sequences,
}

/// Writes what comes to a file and reads it at the same time, so that only a whole bundle gets its name.
fn receive(stream: &mut UnixStream, path: &Path) -> Result<Written, Failure> {
    let mut file = File::create(path).map_err(|error| unwritable(path, &error))?;
    let (mut decoder, mut opening, mut batches) = (Decoder::default(), None, 0_u64);
    let mut first = Sequences::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = stream.read(&mut piece).map_err(lost)?;
        let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        file.write_all(bytes).map_err(|error| unwritable(path, &error))?;
        decoder.feed(bytes);
        while let Some(record) = decoder.poll().map_err(lost)? {
            match record {
                Record::Opening(found) => opening = Some(*found),
                Record::Batch(bytes) => {
                    batches += 1;
                    let header = *Batch::from_bytes(bytes).map_err(lost)?.header();
                    first.entry(header.log).or_insert(header.first);
                }
                Record::Identity(_)
                | Record::Keys(_)
                | Record::Receipt(_)
                | Record::End(_)
                | Record::Unknown(_) => {}
            }
        }
    }
    decoder.finish().map_err(lost)?;
    file.sync_all().map_err(|error| unwritable(path, &error))?;
    let opening = opening.ok_or_else(|| lost("no bundle came"))?;
    Ok(Written { opening, batches, first })
}

/// Reads what a receiver has, from an answer of the cloud or a digest.
fn read_since(path: &Path) -> Result<Sequences, Failure> {
    #[derive(serde::Deserialize)]
    struct Report {
        heads: Heads,
    }
    let refused = |why: &str| {
        let text = format!(
            "cannot use {} for --since: {why}; give an answer of the cloud or the output of `sonae-edge digest --json`",
            path.display()
        );
        Failure::new(Exit::Refused, text)
    };
    let mut file = File::open(path).map_err(|error| refused(&error.to_string()))?;
    let mut start = [0; MAGIC.len()];
    let is_bundle = file.read_exact(&mut start).is_ok() && start == MAGIC;
    let heads = if is_bundle {
        match read_opening(file, &start).map_err(|error| refused(&error.to_string()))?.from {
            Origin::Cloud(cloud) => cloud.heads,
            Origin::Replica(_) | Origin::Board => {
                return Err(refused("it is a bundle of a box or of the board, not an answer"));
            }
        }
    } else {
        let text = fs::read_to_string(path).map_err(|error| refused(&error.to_string()))?;
        serde_json::from_str::<Report>(&text)
            .map(|report| report.heads)
            .or_else(|_| serde_json::from_str::<Heads>(&text))
            .map_err(|_| refused("it holds no heads"))?
    };
    Ok(heads.into_iter().map(|(log, head)| (log, head.sequence)).collect())
}

fn read_opening(mut file: File, start: &[u8]) -> Result<Opening, CourierError> {
    let mut decoder = Decoder::default();
    decoder.feed(start);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if let Some(Record::Opening(opening)) = decoder.poll()? {
            return Ok(*opening);
        }
        match file.read(&mut piece) {
            Ok(count) if count > 0 => decoder.feed(piece.get(..count).unwrap_or_default()),
            Ok(_) | Err(_) => return Err(CourierError::Cut { offset: 0 }),
        }
    }
}

fn import(arguments: &ImportArguments) -> Result<Exit, Failure> {
    let path = arguments.file.display();
    let unreadable = |error: io::Error| Failure::new(Exit::Refused, format!("cannot read {path}: {error}"));
    let mut file = File::open(&arguments.file).map_err(unreadable)?;
    let bar = bar(file.metadata().map_err(unreadable)?.len());
    let mut talk = Talk::start(&arguments.data, &Request::Import)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece).map_err(unreadable)?;
        let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        // A box that has read enough stops listening, and its report says why.
        if talk.stream.write_all(bytes).is_err() {
            break;
        }
        bar.inc(u64::try_from(count).unwrap_or(0));
    }
    // It may be gone already.
    let _ = talk.stream.shutdown(std::net::Shutdown::Write);
    let mut line = String::new();
    let answered = BufReader::new(&talk.stream).read_line(&mut line);
    talk.end();
    bar.finish_and_clear();
    answered.map_err(lost)?;
    let report: Imported = serde_json::from_str(&line).map_err(lost)?;
    if arguments.json {
        print_line(line.trim_end());
    } else {
        describe(&report).iter().for_each(|text| print_line(text));
    }
    if let Some(text) = &report.refused_file {
        return Err(Failure::new(Exit::Refused, text.clone()));
    }
    if let Some(text) = &report.store {
        return Err(Failure::new(Exit::Store, text.clone()));
    }
    Ok(if report.is_whole() { Exit::Ok } else { Exit::Unverified })
}

/// A report in words.
fn describe(report: &Imported) -> Vec<String> {
    let mut lines = Vec::new();
    if report.refused_file.is_none() {
        lines.push(format!(
            "Took {} batches with {} changes; {} were here already.\n{}件の変更を受け取りました（受け取り済み {}個）。",
            report.taken, report.changes, report.known, report.changes, report.known
        ));
    }
    if report.receipts > 0 {
        lines.push(
            "The cloud's receipts were taken; `sonae-edge status` says what is safe.\n\
             校外の控えの受領証を確認しました。"
                .to_owned(),
        );
    }
    for early in &report.early {
        lines.push(format!(
            "{} batches of log {} begin at change {}, but only {} is here: import the earlier bundle first, then this one again.\n\
             先に前の束を取り込み、そのあとでこの束をもう一度取り込んでください。",
            early.batches, early.log, early.first, early.held
        ));
    }
    if let Some(text) = &report.cut {
        lines.push(format!(
            "Not whole: {text}. What came before was taken.\n途中で切れています。そこまでは受け取りました。写し直してください。"
        ));
    }
    if report.quarantined > 0 {
        lines.push(format!(
            "{} batches are of a device that the board has revoked. They are kept aside; the board decides.\n\
             失効した端末の束{}個を別に保管しました。教育委員会が判断します。",
            report.quarantined, report.quarantined
        ));
    }
    if report.refused > 0 {
        lines.push(format!("{} batches were refused: {}", report.refused, report.reasons.join("; ")));
    }
    if report.receipts_foreign > 0 && report.receipts == 0 {
        lines.push("The receipts in this bundle are for another box of the school.".to_owned());
    }
    if report.receipts_outdated > 0 {
        lines.push(
            "Receipts did not count: they are from before a loss of the cloud, or were signed within ten minutes after it \
             last said that it lacked these batches. Nothing is lost. Ten minutes after the last contact export again and \
             have the cloud answer that, or wait for the line.\n\
             受領証の一部は使えませんでした（控えの側で失われた後のもの、または直前の通信から10分以内のもの）。データは失われて\
             いません。10分たってからもう一度書き出して運ぶか、回線の回復をお待ちください。"
                .to_owned(),
        );
    }
    if report.receipts_refused > 0 {
        lines.push(format!("{} receipts do not verify; call the board", report.receipts_refused));
    }
    lines
}

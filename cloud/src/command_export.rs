//! `sonae-cloud export`: the command line around [`sonae_cloud::export`].

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use ed25519_dalek::VerifyingKey;
use sonae_cloud::exit::Exit;
use sonae_cloud::export::{self, Progress, Request, Summary};
use sonae_proto::export::Problem;
use sonae_proto::ids::SchoolCode;
use sonae_proto::signed::public_key_hex;
use sonae_proto::vector::Heads;

use crate::{complain, fail, say};

/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

/// Problems that are printed; the index holds all.
pub const PRINTED_MAX: usize = 20;

#[derive(Args)]
pub struct Export {
    /// The school's code (学校コード).
    #[arg(long, value_name = "CODE")]
    school: SchoolCode,
    /// Where to write, a new or empty directory.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A site directory, once for each site. A node may be using it.
    #[arg(long = "site", value_name = "DIR", required = true)]
    sites: Vec<PathBuf>,
    /// The board's root key, 64 hex digits, from `board.json`. Without it nothing is verified.
    #[arg(long, value_name = "HEX", value_parser = root_key)]
    root: Option<VerifyingKey>,
    /// A file with heads from outside the cloud, as `sonae-edge digest --json` prints them: proves completeness.
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

pub fn root_key(text: &str) -> Result<VerifyingKey, String> {
    public_key_hex::parse(text)
        .ok_or_else(|| "not a root key: 64 hex digits, `root` in board.json".to_owned())
}

pub fn run(arguments: &Export) -> Exit {
    let expect = match arguments.expect.as_ref().map(|path| read_heads(path)).transpose() {
        Ok(expect) => expect.unwrap_or_default(),
        Err(text) => {
            complain(&text);
            return Exit::Usage;
        }
    };
    let request = Request {
        school: arguments.school,
        out: arguments.out.clone(),
        sites: arguments.sites.clone(),
        root: arguments.root,
        expect,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Internal, &error),
    };
    let mut told = Instant::now();
    let mut tell = |progress: Progress| {
        if told.elapsed() >= TELL || progress.done == progress.total {
            told = Instant::now();
            let Progress { done, total, batches } = progress;
            let _ = writeln!(std::io::stderr().lock(), "{done} of {total} objects, {batches} batches");
        }
    };
    match runtime.block_on(export::run(&request, &mut tell)) {
        Ok(summary) => report(arguments, &summary),
        Err(error) => fail(error.exit(), &error),
    }
}

fn report(arguments: &Export, summary: &Summary) -> Exit {
    let out = arguments.out.display();
    let Summary { batches, changes, snapshots, .. } = summary;
    for problem in summary.problems.iter().take(PRINTED_MAX) {
        complain(&text(problem));
    }
    if let Some(more) = summary.problems.len().checked_sub(PRINTED_MAX).filter(|more| *more > 0) {
        complain(&format!("{more} more problems stand in {out}/index.jsonl"));
    }
    say(&format!(
        "{batches} batches with {changes} changes and {snapshots} snapshots of {} are in {out}; BY-HAND.en.md there says \
         how to read them.\n\
         {out} に {batches} バッチ（{changes}件の変更）とスナップショット {snapshots} 件を書き出しました。読み方は \
         BY-HAND.ja.md にあります。",
        arguments.school
    ));
    if summary.complete {
        let completeness = if arguments.expect.is_some() {
            "complete: everything verifies, and the heads that you gave are here\n完全：すべて検証済み、指定の先頭まで揃っています"
        } else {
            "everything here verifies and has no gap; whether the end of a log is missing, only --expect can tell\n検証済み、途中の欠けはありません。末尾の欠けは --expect を付けたときだけ分かります"
        };
        say(completeness);
        Exit::Done
    } else {
        say(
            "incomplete or not verified; see the problems above\n不完全、または未検証です。上の問題を見てください",
        );
        Exit::Incomplete
    }
}

/// A problem in words.
pub fn text(problem: &Problem) -> String {
    match problem {
        Problem::Unreadable { site, object: None, text } => format!("site {site} cannot be read: {text}"),
        Problem::Unreadable { site, object: Some(object), text } => {
            format!("{object} at site {site} cannot be read: {text}")
        }
        Problem::DamagedCopy { site, object, offset } => {
            format!("{object} at site {site} is damaged at byte {offset}; other copies were read as well")
        }
        Problem::DamagedObject { object } => {
            format!("{object} is whole at no site; what could be read of it was written. Name all sites")
        }
        Problem::Gap { log, first, last } => {
            format!("log {log}: changes {first} to {last} are missing. Name all sites")
        }
        Problem::MissingHead { log, expected, held } => {
            format!("log {log}: change {expected} was expected, the sites have {held}. Name all sites")
        }
        Problem::Fork { log, first, last } => {
            format!("log {log}: two histories of changes {first} to {last}; both were written")
        }
        Problem::UnverifiedBatch { log, first, last, text } => {
            format!("log {log}, changes {first} to {last}, written but not verified: {text}")
        }
        Problem::UnverifiedDocument { file, text } => format!("{file} does not verify: {text}"),
        Problem::KeyMissing { key } => {
            format!("no wrapped key {key} is at the sites; ask the board's directory")
        }
        Problem::KeyDestroyed { key } => format!(
            "the board has destroyed the key {key}: what is sealed to it can be read by nobody, as was meant. What still \
             stands of it is in snapshots under later keys"
        ),
        Problem::Uncovered { key, log, first, last } => format!(
            "log {log}: changes {first} to {last} are sealed to the destroyed key {key}, and no whole snapshot here tells \
             what still stands of them. Name all sites; ask the school's box"
        ),
        Problem::SnapshotNotWhole { tier, author, changes, missing } => format!(
            "the snapshot of tier {tier} by {author} with {changes} changes lacks {} of its parts; what could be read of \
             it was written. Name all sites",
            missing.len()
        ),
        Problem::Quarantined { log, first, last } => format!(
            "log {log}: changes {first} to {last} are by a device that the board has revoked; they are part of no log, and \
             were written to quarantine/"
        ),
        Problem::UnknownRecord { object, offset } => {
            format!("{object}: the record at byte {offset} is not known to this version; use a newer one")
        }
        Problem::NoRoot => "no --root was given, so no signature was verified".to_owned(),
    }
}

pub fn read_heads(path: &std::path::Path) -> Result<Heads, String> {
    #[derive(serde::Deserialize)]
    struct Report {
        heads: Heads,
    }
    let refused = |why: String| format!("cannot use the heads in {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    serde_json::from_str::<Report>(&text)
        .map(|report| report.heads)
        .or_else(|_| serde_json::from_str::<Heads>(&text))
        .map_err(|_| refused("it is not what `sonae-edge digest --json` prints".into()))
}

//! `sonae-edge rebuild`: a new replica out of what the cloud holds. Always a new incarnation (P6).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sonae_edge::digest;
use sonae_edge::exit::Exit;
use sonae_edge::fetch::{Progress, Timing, fetch_all};
use sonae_edge::replica::Replica;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::Beginning;
use sonae_proto::ids::{LogName, Tier};
use sonae_proto::vector::{Heads, Sequences};
use sonae_store::data_dir::{DataDir, REBUILDING};
use sonae_store::{Clock, Filling, enrolment};

use super::print::print_line;
use super::run::{self, RunArguments, ServiceArguments};
use super::{Failure, read_secret};

#[derive(Debug, Args)]
pub(super) struct RebuildArguments {
    /// The new data directory: empty, not there yet, or of an interrupted rebuild
    #[arg(long)]
    data: PathBuf,
    /// A bundle from the board, made for this device
    #[arg(long)]
    bundle: PathBuf,
    /// Reads the bundle's passphrase from standard input
    #[arg(long, required = true)]
    passphrase_stdin: bool,
    /// Dials this HOST:PORT instead of the cloud's hosts in the board's description
    #[arg(long)]
    cloud: Option<String>,
    /// A file with heads from outside the cloud, as `sonae-edge digest --json` prints them: proves completeness
    #[arg(long, conflicts_with_all = ["serve", "enrol_only"])]
    expect: Option<PathBuf>,
    /// Serves the school as soon as the first data are here, and fetches the rest meanwhile
    #[arg(long, conflicts_with = "json")]
    serve: bool,
    /// Only makes the directory: `sonae-edge run` on it then serves as soon as the first data are here
    #[arg(long, conflicts_with_all = ["serve", "cloud"])]
    enrol_only: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: ServiceArguments,
}

pub(super) fn run(arguments: &RebuildArguments) -> Result<Exit, Failure> {
    let started = Instant::now();
    let passphrase = read_secret("the bundle's passphrase")?;
    let bundle = enrolment::open_bundle(&arguments.bundle, &passphrase)?;
    let expected = arguments.expect.as_deref().map(read_expected).transpose()?;
    let (heads, kept) = expected.map(|expected| (expected.heads, expected.version_vector)).unzip();
    let dir = begin(&arguments.data, &bundle, heads)?;
    if arguments.enrol_only {
        say_enrolled(arguments, &bundle);
        return Ok(Exit::Ok);
    }
    if arguments.serve {
        drop(dir);
        let (data, cloud) = (arguments.data.clone(), arguments.cloud.clone());
        return run::run(&RunArguments { data, cloud, service: arguments.service.clone() });
    }
    rebuild(arguments, &kept.unwrap_or_default(), Replica::open_to_fill(dir)?, started)
}

/// Makes the directory a replica that is being filled, or opens one of which a rebuild has begun.
fn begin(data: &Path, bundle: &ReplicaBundle, expected: Option<Heads>) -> Result<DataDir, Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Store, error.to_string());
    let dir = if data.join(REBUILDING).exists() && data.join("enrolment.json").exists() {
        DataDir::open(data)?
    } else {
        // The marker comes first, so that whatever cuts this off, the same command goes on.
        drop(DataDir::create(data)?);
        Filling::begin(data).map_err(failed)?;
        enrolment::enrol(data, bundle, Beginning::Rebuild, Clock::system().now_ms())?
    };
    if let Some(heads) = expected {
        Filling::of(data).and_then(|filling| filling.expect(heads)).map_err(failed)?;
    }
    Ok(dir)
}

fn say_enrolled(arguments: &RebuildArguments, bundle: &ReplicaBundle) {
    let (data, school) = (arguments.data.display(), &bundle.school);
    if arguments.json {
        print_line(
            &serde_json::json!({ "enrolled": true, "school": school, "rebuilding": true }).to_string(),
        );
    } else {
        print_line(&format!(
            "Enrolled for {school} in {data}; nothing is fetched yet. Next: sonae-edge run --data {data}, which serves the \
             roster as soon as it is here and goes on fetching.\n登録しました。次に: sonae-edge run --data {data}\
             （名簿が届きしだい使えます。残りは続けて取り込みます）"
        ));
    }
}

/// Fetches everything before anything is served. `kept` is what the lost box held, safe or not.
fn rebuild(
    arguments: &RebuildArguments,
    kept: &Sequences,
    mut replica: Replica,
    started: Instant,
) -> Result<Exit, Failure> {
    // The uplink forgets it when everything is here.
    let filling = replica.opened.store.filling().clone();
    let expected = filling.expected();
    let outcome = fetch(&mut replica, arguments.cloud.clone(), started);
    let report = digest::report(&replica.status);
    let status = replica.status.status();
    let snapshots = replica.opened.store.state().foundations;
    let timing = match outcome {
        Ok(timing) => timing,
        Err(failure) => {
            replica.opened.close();
            return Err(failure);
        }
    };
    let missing = expected.as_ref().map(|heads| missing(heads, &replica));
    let unsafe_then = lacking(kept, &report.version_vector);
    let completeness = match &missing {
        None => "unverified",
        Some(missing) if missing.is_empty() && unsafe_then.is_empty() => "verified",
        Some(_) => "incomplete",
    };
    replica.opened.close();
    filling.end().map_err(|error| Failure::new(Exit::Store, error.to_string()))?;
    let changes: u64 = report.version_vector.values().sum();
    if arguments.json {
        let object = serde_json::json!({
            "rebuilt": true,
            "school": status.school,
            "incarnation": status.incarnation,
            "changes": changes,
            "tier0_ms": u64::try_from(timing.tier_0.as_millis()).unwrap_or(u64::MAX),
            "total_ms": u64::try_from(timing.total.as_millis()).unwrap_or(u64::MAX),
            "snapshots": snapshots,
            "completeness": completeness,
            "missing": missing.clone().unwrap_or_default(),
            "lacking": unsafe_then,
            "digests": report.digests,
            "version_vector": report.version_vector,
        });
        print_line(&object.to_string());
    } else {
        let gaps = gaps(&missing.unwrap_or_default(), &unsafe_then);
        print_line(&describe(changes, &timing, completeness, &gaps, &report.digests));
    }
    Ok(if completeness == "incomplete" { Exit::Unverified } else { Exit::Ok })
}

fn describe(
    changes: u64,
    timing: &Timing,
    completeness: &str,
    gaps: &str,
    digests: &BTreeMap<Tier, sonae_proto::digest::Digest>,
) -> String {
    let note = match completeness {
        "verified" => {
            "completeness verified by what you gave\nお渡しの記録と照らし、すべて揃っていることを確認しました".to_owned()
        }
        "incomplete" => format!(
            "INCOMPLETE: what is here lacks changes that the file names. They may still lie on the lost box, at another box \
             of the school or on a stick (`sonae-edge bundle import`); the box can be used meanwhile.\n\
             不足があります: お渡しの記録にある変更の一部がここにありません。元の端末、校内の別の端末、USBメモリーに残っている\
             場合があります。\n{gaps}"
        ),
        _ => "completeness unverified: a fresh box remembers nothing; give --expect HEADS from outside the cloud\n\
              すべて揃っているかは確認できていません（外部に控えた heads を --expect で渡すと確認できます）"
            .to_owned(),
    };
    let digests: Vec<String> =
        digests.iter().map(|(tier, digest)| format!("tier {tier}  {digest}")).collect();
    format!(
        "Rebuilt {changes} changes in {:.1} s; tier 0 was here after {:.1} s.\n復元しました（{changes}件、{:.1}秒）。\n{note}\n{}",
        timing.total.as_secs_f64(),
        timing.tier_0.as_secs_f64(),
        timing.total.as_secs_f64(),
        digests.join("\n"),
    )
}

/// What a box said of itself before it was lost.
#[derive(Default, serde::Deserialize)]
struct Expected {
    heads: Heads,
    /// What it had kept, also without a receipt. Not in what the cloud says.
    #[serde(default)]
    version_vector: Sequences,
}

fn read_expected(path: &Path) -> Result<Expected, Failure> {
    let refused = |why: String| {
        Failure::new(Exit::Refused, format!("cannot use the heads in {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    serde_json::from_str::<Expected>(&text)
        .or_else(|_| serde_json::from_str(&text).map(|heads| Expected { heads, ..Expected::default() }))
        .map_err(|_| refused("it is not what `sonae-edge digest --json` prints".into()))
}

/// Returns how many changes of each log were kept and are not here.
fn lacking(kept: &Sequences, here: &Sequences) -> Sequences {
    let lacks = |(log, kept): (&LogName, &u64)| {
        let lacks = kept.saturating_sub(here.get(log).copied().unwrap_or(0));
        (lacks > 0).then_some((*log, lacks))
    };
    kept.iter().filter_map(lacks).collect()
}

/// Says what lacks, log by log.
fn gaps(missing: &[LogName], lacking: &Sequences) -> String {
    let of_heads = missing.iter().filter(|log| !lacking.contains_key(log));
    let of_heads = of_heads.map(|log| format!("log {log}: the expected head is not here"));
    let of_changes = lacking.iter().map(|(log, count)| format!("log {log}: {count} change(s) are not here"));
    of_changes.chain(of_heads).collect::<Vec<_>>().join("\n")
}

/// Returns the expected logs whose heads are not held here.
fn missing(expected: &Heads, replica: &Replica) -> Vec<LogName> {
    let held = |log: &LogName, head| replica.opened.store.has_head_blocking(*log, head);
    expected.iter().filter(|(log, head)| !held(log, **head)).map(|(log, _)| *log).collect()
}

/// Fetches with a progress bar.
fn fetch(replica: &mut Replica, cloud: Option<String>, started: Instant) -> Result<Timing, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot start the runtime: {error}")))?;
    let template = "{spinner} {msg} {bar:30} {pos}/{len} changes, {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    let report = |progress: Progress| {
        bar.set_length(progress.there);
        bar.set_position(progress.here);
        let usable = if progress.tier_0 { "roster here 名簿が届きました" } else { "" };
        bar.set_message(match progress.snapshot {
            Some(snapshot) => format!(
                "{usable} tier {} 第{}層 {}/{} KiB",
                snapshot.tier,
                snapshot.tier,
                snapshot.here_bytes / 1024,
                snapshot.bytes / 1024
            ),
            None => usable.to_owned(),
        });
    };
    // No courier serves a rebuild, so nobody keeps the desk.
    let (config, _) = replica.uplink(cloud)?;
    let timing = runtime.block_on(fetch_all(config, &replica.status, started, report))?;
    bar.finish_and_clear();
    Ok(timing)
}

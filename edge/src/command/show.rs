//! `sonae-edge status` and `sonae-edge digest`.

use std::path::Path;

use serde_json::Value;
use sonae_edge::control::Ask;
use sonae_edge::digest::DigestReport;
use sonae_edge::exit::Exit;

use super::print::print_line;
use super::{Failure, reach};

pub(super) fn status(data: &Path, json: bool) -> Result<Exit, Failure> {
    let mut replica = reach(data)?;
    let running = matches!(replica, sonae_edge::control::Replica::Daemon(_));
    let status: Result<Value, _> = replica.ask(Ask::Status);
    replica.close();
    let status = status?;
    if json {
        print_line(&status.to_string());
    } else {
        print_line(&describe(&status, running));
    }
    Ok(Exit::Ok)
}

fn describe(status: &Value, running: bool) -> String {
    let text = |pointer: &str| match status.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let points = |name: &str| {
        let tiers = status.get(name).and_then(Value::as_object).into_iter().flatten();
        let shown: Vec<String> = tiers
            .map(|(tier, point)| {
                format!("tier {tier} up to {}", point.get("sequence").unwrap_or(&Value::Null))
            })
            .collect();
        if shown.is_empty() { "nothing yet".to_owned() } else { shown.join(", ") }
    };
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64);
    let lag = number("/lag_ms").map_or("none".to_owned(), |ms| format!("{} s", ms / 1_000));
    let replicas = status.pointer("/uplink/replicas").and_then(Value::as_array).into_iter().flatten();
    let several =
        replicas.clone().filter(|r| r.get("device_has_several") == Some(&Value::Bool(true))).count();
    [
        format!("school     {} {}", text("/school"), text("/school_name")),
        format!("replica    {} (incarnation {})", text("/replica"), text("/incarnation")),
        format!("daemon     {}", if running { "running" } else { "not running; this is what the disk says" }),
        rebuild(status),
        format!("kept       {}", points("kept")),
        format!("safe       {}", points("safe")),
        format!("unsafe     {} change(s), oldest {lag}", text("/unsafe")),
        format!("waiting    {}", waiting(status)),
        format!("disputed   {} record(s)", text("/disputed")),
        format!(
            "line       {} via {}{}",
            if text("/uplink/up") == "true" { "up" } else { "down" },
            text("/uplink/cloud"),
            match status.pointer("/uplink/transport").and_then(Value::as_str) {
                Some("tcp") => " over TCP: UDP is blocked",
                Some("quic") => " over QUIC",
                _ => "",
            }
        ),
        neighbours(status),
        format!("replicas   {} known, {several} of a device that has several incarnations", replicas.count()),
        keys(status),
        format!("held       {}", held(status)),
        format!("erasures   {}", erasures(status)),
        format!("quarantine {}", quarantine(status)),
        format!("losses     {} found at the cloud", text("/loss_counter")),
        format!("forks      {} kept aside", text("/forks")),
        restore(status),
        format!(
            "storage    {} bytes used, {} bytes free, {} bytes of reserve; refused tiers: {}",
            text("/storage/used_bytes"),
            text("/storage/free_bytes"),
            text("/storage/reserved_bytes"),
            refused(status)
        ),
        format!("pruned     {}", pruned(status)),
        format!("replayed   {} change(s) at the last start", text("/replayed")),
        number("/uplink/stalled/for_ms").map_or("stalled    no".to_owned(), |ms| {
            format!("stalled    for {} s: the line is up, changes wait, and no receipt comes", ms / 1_000)
        }),
        format!(
            "last error {}{}",
            number("/last_error/age_ms").map_or(String::new(), |ms| format!("{} s ago: ", ms / 1_000)),
            text("/last_error/text")
        ),
    ]
    .join("\n")
}

/// How far a rebuild is.
fn rebuild(status: &Value) -> String {
    let Some(rebuild) = status.get("rebuild").filter(|rebuild| rebuild.is_object()) else {
        return "rebuild    none under way".to_owned();
    };
    let tiers = rebuild.get("tiers").and_then(Value::as_object).into_iter().flatten();
    let one = |(tier, filling): (&String, &Value)| {
        let number = |name: &str| filling.get(name).and_then(Value::as_u64);
        let there = number("there").map_or("an unknown number".to_owned(), |there| there.to_string());
        let state = match filling.get("usable").and_then(Value::as_bool) {
            Some(true) => "USABLE".to_owned(),
            _ => format!("coming, {} of {there} change(s)", number("here").unwrap_or(0)),
        };
        format!("tier {tier} {state}")
    };
    let tiers: Vec<String> = tiers.map(one).collect();
    let left = |name: &str| rebuild.get(name).and_then(Value::as_u64);
    let kib = left("left_bytes")
        .map_or(String::new(), |bytes| format!("; about {} KiB left", bytes.div_ceil(1024)));
    let time = left("left_ms").map_or(String::new(), |ms| format!(", {} s", ms.div_ceil(1_000)));
    format!("rebuild    {}{kib}{time}; completeness unverified", tiers.join(", "))
}

/// Other boxes on the LAN, a line each.
fn neighbours(status: &Value) -> String {
    let one = |neighbour: &Value| {
        let text = |name: &str| neighbour.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        let number = |name: &str| neighbour.get(name).and_then(Value::as_u64);
        let who = format!("{} at {}", text("replica"), text("address"));
        let error = match text("last_error").as_str() {
            "-" => String::new(),
            error => format!(": {error}"),
        };
        if neighbour.get("connected") != Some(&Value::Bool(true)) {
            let age =
                number("last_contact_age_ms").map_or("never".into(), |ms| format!("{} s ago", ms / 1_000));
            return format!("near       {who}, not connected, last contact {age}{error}");
        }
        let count = |name: &str| number(name).unwrap_or(0);
        let own = neighbour.get("holds_own").and_then(Value::as_object).into_iter().flatten();
        let own: Vec<String> = own.map(|(tier, sequence)| format!("tier {tier} up to {sequence}")).collect();
        let own = if own.is_empty() { "nothing of this box yet".to_owned() } else { own.join(", ") };
        format!(
            "near       {who}, connected; {} change(s) still to come, {} still to go; has {own}, which is not safe{error}",
            count("lacking_here"),
            count("lacking_there")
        )
    };
    let all = status.get("neighbours").and_then(Value::as_array).into_iter().flatten();
    let lines: Vec<String> = all.map(one).collect();
    if lines.is_empty() { "near       nobody".to_owned() } else { lines.join("\n") }
}

fn keys(status: &Value) -> String {
    let year = |name: &str| status.pointer(&format!("/keys/{name}")).and_then(Value::as_u64).unwrap_or(0);
    let are_due = status.pointer("/keys/are_due") == Some(&Value::Bool(true));
    let note =
        if are_due { ": ask the board for the next ones (`sonae-provision school add-year`)" } else { "" };
    format!("keys       school year {}, keys up to {}{note}", year("this"), year("last"))
}

/// Whether the board lets people write here.
fn held(status: &Value) -> &'static str {
    if status.get("held_ms").is_some_and(Value::is_u64) {
        "READ ONLY until the board releases it: `sonae-provision replica release`"
    } else {
        "no"
    }
}

/// What was erased, and what is waited for before nothing of it can be read anywhere.
fn erasures(status: &Value) -> String {
    let one = |erasure: &Value| {
        let text =
            |name: &str| erasure.get(name).map_or(String::new(), |value| value.to_string().replace('"', ""));
        let state = match text("waits_for").as_str() {
            "scrub" => "pending: this box overwrites its plain text when it is idle",
            "rotation" => "pending: the board has to rotate the keys (`sonae-provision epoch rotate`)",
            "pruning" => {
                "pending: what is sealed to older keys lies here until a newer snapshot stands for it"
            }
            "order" => "pending: the board has to destroy the older keys (`sonae-provision epoch destroy`)",
            _ => "complete",
        };
        format!(
            "tier {} {} tombstone(s), keys up to {}, {state}",
            text("tier"),
            text("tombstones"),
            text("epoch")
        )
    };
    let all = status.get("erasures").and_then(Value::as_array).into_iter().flatten();
    let shown: Vec<String> = all.map(one).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join("; ") }
}

fn quarantine(status: &Value) -> String {
    let logs = status.get("quarantine").and_then(Value::as_array).into_iter().flatten();
    let sum =
        |name: &str| -> u64 { logs.clone().filter_map(|log| log.get(name)).filter_map(Value::as_u64).sum() };
    match sum("batches") {
        0 => "nothing".to_owned(),
        batches => format!(
            "{batches} batch(es) with {} change(s) of a revoked device wait for the board: `sonae-provision replica \
             accept` or `drop`",
            sum("changes")
        ),
    }
}

/// The restore proofs: whatever is not a young success is said to be none.
fn restore(status: &Value) -> String {
    let figure = |name: &str| status.pointer(&format!("/proof/{name}")).and_then(Value::as_u64);
    let word = |name: &str| status.pointer(&format!("/proof/last/{name}")).and_then(Value::as_str);
    let is = |name: &str| status.pointer(&format!("/proof/{name}")) == Some(&Value::Bool(true));
    let hours = |ms: u64| ms / 3_600_000;
    let state = if is("is_proved") { "proved" } else { "NOT PROVED" };
    let age = figure("age_ms").map_or("never".to_owned(), |ms| format!("{} h ago", hours(ms)));
    let overdue = if is("is_overdue") { ", OVERDUE" } else { "" };
    let last = word("text").unwrap_or("none was made yet");
    format!("restore    {state}{overdue}, last success {age}: {last}")
}

/// Names the tiers that are refused.
fn refused(status: &Value) -> String {
    let tiers = status.pointer("/storage/refused_tiers").and_then(Value::as_array).into_iter().flatten();
    let tiers: Vec<&str> = tiers.filter_map(Value::as_str).collect();
    if tiers.is_empty() { "none".to_owned() } else { tiers.join(", ") }
}

/// Says what is not held change by change any more, and what is lacking before more goes.
fn pruned(status: &Value) -> String {
    let tiers = status.pointer("/storage/tiers").and_then(Value::as_object).into_iter().flatten();
    let shown: Vec<String> = tiers
        .filter_map(|(tier, storage)| {
            let retention = storage.get("retention")?;
            let changes = retention.get("pruned_changes").and_then(Value::as_u64).unwrap_or(0);
            let left = retention.get("left_ms").and_then(Value::as_u64);
            let lacks = retention.get("lacks").and_then(Value::as_str).unwrap_or("nothing");
            let next = left
                .map(|ms| format!(", next in {} day(s) at least, lacks {lacks}", ms.div_ceil(86_400_000)));
            (changes > 0 || next.is_some())
                .then(|| format!("tier {tier} {changes} change(s){}", next.unwrap_or_default()))
        })
        .collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join("; ") }
}

/// Says what waits in each tier, and for how long.
fn waiting(status: &Value) -> String {
    let tiers = status.get("unsafe_by_tier").and_then(Value::as_object).into_iter().flatten();
    let lag = |tier: &str| status.pointer(&format!("/lag_ms_by_tier/{tier}")).and_then(Value::as_u64);
    let shown: Vec<String> = tiers
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(tier, count)| format!("tier {tier} {count}, for {} s", lag(tier).unwrap_or(0) / 1_000))
        .collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join("; ") }
}

pub(super) fn digest(data: &Path, json: bool) -> Result<Exit, Failure> {
    let mut replica = reach(data)?;
    let report: Result<DigestReport, _> = replica.ask(Ask::Digest);
    replica.close();
    let report = report?;
    if json {
        print_line(&serde_json::to_string(&report).unwrap_or_default());
        return Ok(Exit::Ok);
    }
    for (tier, digest) in &report.digests {
        print_line(&format!("tier {tier}  {digest}"));
    }
    for (log, sequence) in &report.version_vector {
        print_line(&format!("log {log}  {sequence}"));
    }
    Ok(Exit::Ok)
}

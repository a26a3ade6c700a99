//! The chapters of the demo.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::teller::Teller;
use crate::canary::Canaries;
use crate::drill::kill_cloud::{kill_rounds, wait_for_line};
use crate::generate::{self, Options, Written};
use crate::lan_client::{LanClient, one_time_code};
use crate::line::Line;
use crate::program::{Daemon, planted, run};
use crate::town::{Appliance, LOGIN, PASSWORD, Town};

/// Pupils of the demo's school.
const PUPILS: u32 = 600;

/// A receipt that takes longer than this is a failure of the demo.
const SAFE_AT_MOST: Duration = Duration::from_secs(120);

/// A number that is only ever typed into the running service, so that it can be looked for afterwards.
const TYPED_PHONE: &str = "090-0000-9901";

/// Everything that runs.
struct Stage {
    town: Town,
    written: Written,
    cloud: Daemon,
    line: Line,
    appliance: Appliance,
    edge: Daemon,
    otpauth: String,
    /// The one-time code of the first sign-in.
    used_code: String,
    client: LanClient,
}

pub(super) async fn tell(dir: &Path, once: bool, cut: Option<&str>) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir)?;
    let dir = dir.canonicalize()?;
    let summary = dir.join("summary.json");
    let mut teller = Teller::new(8);
    let mut stage = open(&dir, cut, &mut teller).await?;
    school_day(&mut stage, &mut teller).await?;
    line_goes(&mut stage, &mut teller).await?;
    cloud_falls(&mut stage, &mut teller).await?;
    blind(&stage, &mut teller)?;
    let before = stage.appliance.digest()?;
    box_is_destroyed(&mut stage, &before, &mut teller).await?;
    after(&mut stage, &mut teller).await?;
    if once {
        stage.edge.stop()?;
        stage.cloud.stop()?;
        return teller.finish(&summary);
    }
    let outcome = teller.finish(&summary);
    invite(&stage)?;
    tokio::signal::ctrl_c().await?;
    stage.edge.stop()?;
    stage.cloud.stop()?;
    outcome
}

async fn open(dir: &Path, cut: Option<&str>, teller: &mut Teller) -> Result<Stage> {
    teller.chapter("A board, a school, a cloud 教育委員会と学校と控え");
    let started = Instant::now();
    let school = generate::school(Options { pupils: PUPILS, years: 1, seed: 11, ..Options::default() })?;
    let written = generate::write(&school, &dir.join("school"))?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    town.cloud_environment.extend(cut.map(planted));
    let cloud = town.start_cloud()?;
    let line = Line::open(town.cloud_address()?).await?;
    let (appliance, otpauth) = town.appliance("edge")?;
    let took = teller.duration("set_up_ms", started.elapsed());
    teller.say(&format!(
        "The board made its keys, one school, a cloud with two sites and one appliance in {took}. \
         The cloud holds no key to any data."
    ));

    teller.chapter("The roster comes in 名簿の取り込み");
    let started = Instant::now();
    let (package, contacts) = (text(&written.package), text(&written.contacts));
    let data = text(&appliance.data);
    let said = run("sonae-edge", &["import", "--data", &data, "--json", &package, &contacts], "")?;
    let imported: Value = serde_json::from_str(&said)?;
    let took = teller.duration("import_ms", started.elapsed());
    let changes = teller.figure("import_changes", imported.get("changes").cloned().unwrap_or_default());
    teller.say(&format!(
        "A OneRoster package of {PUPILS} pupils and their contacts: {changes} changes in {took}."
    ));
    let again = run("sonae-edge", &["import", "--data", &data, "--json", &package, &contacts], "")?;
    let again: Value = serde_json::from_str(&again)?;
    let again_changes =
        teller.figure("import_again_changes", again.get("changes").cloned().unwrap_or_default());
    teller.say(&format!("The same files again: {again_changes} changes."));
    teller.promise("import", again_changes == "0", "the same file twice made changes");

    let started = Instant::now();
    let edge = town.start_edge(&appliance, &line)?;
    let address = edge.said("listen")?;
    let used_code = one_time_code(&otpauth)?;
    let client = LanClient::sign_in(&address, &appliance.ca, LOGIN, PASSWORD, Some(&otpauth)).await?;
    let found = client.pupils("").await?;
    let took = teller.duration("first_roster_ms", started.elapsed());
    let count = teller.figure("roster_pupils", found.len());
    teller
        .say(&format!("From starting the box to a signed-in search over {count} pupils on the LAN: {took}."));
    teller.promise("roster", found.len() == usize::try_from(PUPILS)?, "pupils are missing in the search");
    Ok(Stage { town, written, cloud, line, appliance, edge, otpauth, used_code, client })
}

async fn school_day(stage: &mut Stage, teller: &mut Teller) -> Result<()> {
    teller.chapter("A change is kept, then safe 保存と校外の控え");
    let first = stage.appliance.wait_until_safe(&stage.client, SAFE_AT_MOST).await?;
    let took = teller.duration("import_safe_ms", first);
    teller.say(&format!("The whole import had signed receipts from two sites {took} later."));
    let pupil = stage.client.pupils("").await?.first().cloned().context("no pupils")?;
    let started = Instant::now();
    let body = json!({ "code": "absent_sick", "reason_text": "熱" });
    stage.client.put(&format!("/api/v1/attendance/2026-11-25/{pupil}"), body).await?;
    let contact = json!({ "name": "架空 連絡", "phone1": TYPED_PHONE });
    stage.client.put(&format!("/api/v1/students/{pupil}/contacts/1"), contact).await?;
    let kept = teller.duration("two_edits_kept_ms", started.elapsed());
    let safe = stage.appliance.wait_until_safe(&stage.client, SAFE_AT_MOST).await?;
    let safe = teller.duration("two_edits_safe_ms", safe);
    teller
        .say(&format!("Two edits were kept on this box in {kept} and safe outside the school {safe} later."));
    Ok(())
}

async fn line_goes(stage: &mut Stage, teller: &mut Teller) -> Result<()> {
    teller.chapter("The line goes, work goes on 回線が切れても続く");
    stage.line.set_cut(true);
    let pupils = stage.client.pupils("").await?;
    let started = Instant::now();
    for pupil in pupils.iter().take(20) {
        stage
            .client
            .put(&format!("/api/v1/attendance/2026-11-26/{pupil}"), json!({ "code": "late" }))
            .await?;
    }
    let took = teller.duration("edits_without_line_ms", started.elapsed());
    let waiting = stage.client.status().await?.get("unsafe").cloned().unwrap_or_default();
    let waiting = teller.figure("unsafe_without_line", waiting);
    teller.say(&format!(
        "With the line cut, 20 more edits were kept in {took}; the status says honestly: {waiting} not safe yet."
    ));
    teller.promise("P2", waiting != "0", "changes were called safe while the line was cut");
    stage.line.set_cut(false);
    let back = stage.appliance.wait_until_safe(&stage.client, SAFE_AT_MOST).await?;
    let back = teller.duration("safe_after_line_ms", back);
    teller.say(&format!("The line came back; {back} later everything was safe."));
    Ok(())
}

async fn cloud_falls(stage: &mut Stage, teller: &mut Teller) -> Result<()> {
    teller.chapter("The cloud is killed at the moment of a receipt 控えの電源断");
    let report = kill_rounds(&mut stage.town, &mut stage.cloud, &stage.line, &stage.client, 5).await?;
    let kills = teller.figure("cloud_kills", report.rounds);
    let lost = teller.figure("cloud_safe_lost", report.lost);
    let alarms = teller.figure("cloud_loss_alarms", report.alarms);
    teller.say(&format!(
        "kill -9 of the cloud, {kills} times, each just after a receipt: {lost} changes that were called safe \
         were gone, {alarms} alarms."
    ));
    teller.promise("P2", report.lost == 0, "the cloud has lost what it had receipted");
    teller.promise("P2", report.alarms == 0, "the appliance found that receipted changes were gone");
    wait_for_line(&stage.client).await?;
    stage.appliance.wait_until_safe(&stage.client, SAFE_AT_MOST).await?;
    Ok(())
}

fn blind(stage: &Stage, teller: &mut Teller) -> Result<()> {
    teller.chapter("The cloud and the line are blind 控えと回線からは読めない");
    let canaries = Canaries::of(&stage.written.summary, &[TYPED_PHONE, PASSWORD, "架空 連絡"])?;
    let plain = stage.written.summary.parent().context("the school lies nowhere")?;
    let search = canaries.search(&stage.town, &stage.line, plain)?;
    let looked = teller.figure("canaries", search.canaries);
    let found = teller.figure("canary_hits", search.hits);
    let controls = teller.figure("canary_control_hits", search.control_hits);
    let in_packet = teller.figure("canary_control_packet_hits", search.control_packet_hits);
    let stored = teller.figure("cloud_bytes", search.stored_bytes);
    let packets = teller.figure("captured_bytes", search.captured_bytes);
    teller.say(&format!(
        "{looked} names, numbers and passwords were looked for in {stored} bytes of the cloud's folders and \
         {packets} bytes of captured packets: {found} hits. The same search over the plain files: {controls} hits; \
         over the packets with all of them put in: {in_packet}."
    ));
    let objections = search.objections();
    teller.promise("P3", objections.is_empty(), &objections.join(", "));
    Ok(())
}

async fn box_is_destroyed(stage: &mut Stage, before: &Value, teller: &mut Teller) -> Result<()> {
    teller.chapter("The box is destroyed, a new one rebuilds itself 復元");
    let heads = stage.town.dir.join("heads.json");
    std::fs::write(&heads, before.to_string())?;
    stage.edge.kill_hard()?;
    std::fs::remove_dir_all(&stage.appliance.data)?;
    let gone = !stage.appliance.data.exists();
    let gone_text = teller.figure("old_box_gone", gone);
    teller.say(&format!("kill -9, and its data directory deleted (gone: {gone_text})."));
    teller.promise("P5", gone, "the old data directory is still there");

    let (bundle, passphrase) = stage.town.enrol_bundle("spare", "spare.bundle")?;
    let spare = stage.town.appliance_at("spare");
    let cloud = stage.line.address().to_string();
    let said = run(
        "sonae-edge",
        &[
            "rebuild",
            "--data",
            &text(&spare.data),
            "--bundle",
            &text(&bundle),
            "--passphrase-stdin",
            "--cloud",
            &cloud,
            "--expect",
            &text(&heads),
            "--json",
        ],
        &passphrase,
    )?;
    let rebuilt: Value = serde_json::from_str(&said)?;
    let millis = |key: &str| Duration::from_millis(rebuilt.get(key).and_then(Value::as_u64).unwrap_or(0));
    let tier_0 = teller.duration("rebuild_tier0_ms", millis("tier0_ms"));
    let total = teller.duration("rebuild_total_ms", millis("total_ms"));
    let changes = teller.figure("rebuild_changes", rebuilt.get("changes").cloned().unwrap_or_default());
    let complete =
        teller.figure("rebuild_completeness", rebuilt.get("completeness").cloned().unwrap_or_default());
    teller.say(&format!(
        "A spare box rebuilt {changes} changes from the cloud in {total}; what a safety check needs was there \
         after {tier_0}. Completeness against heads kept outside the cloud: {complete}."
    ));
    let same = |key: &str| before.get(key) == rebuilt.get(key) && before.get(key).is_some();
    teller.figure("digests_before", before.get("digests").cloned().unwrap_or_default());
    teller.figure("digests_after", rebuilt.get("digests").cloned().unwrap_or_default());
    teller.figure("digests_equal", same("digests"));
    teller.say(&format!("State digests before and after are equal: {}.", same("digests")));
    teller.promise("P5", same("digests"), "the rebuilt box has another state digest");
    teller.promise("P5", same("version_vector"), "the rebuilt box adds up other logs");
    teller.promise("P4", complete == "verified", "the completeness was not verified");
    stage.appliance = spare;
    Ok(())
}

async fn after(stage: &mut Stage, teller: &mut Teller) -> Result<()> {
    teller.chapter("The new box serves 新しい箱で続ける");
    let started = Instant::now();
    stage.edge = stage.town.start_edge(&stage.appliance, &stage.line)?;
    let address = stage.edge.said("listen")?;
    // A code is good once, and the rebuilt box knows which one was used: wait for the next step of 30 s.
    while one_time_code(&stage.otpauth)? == stage.used_code {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (ca, otpauth) = (&stage.appliance.ca, Some(stage.otpauth.as_str()));
    stage.client = LanClient::sign_in(&address, ca, LOGIN, PASSWORD, otpauth).await?;
    let found = stage.client.pupils("").await?.len();
    let took = teller.duration("rebuilt_roster_ms", started.elapsed());
    let count = teller.figure("rebuilt_roster_pupils", found);
    teller.say(&format!(
        "The teacher signed in with the same password and authenticator and searched {count} pupils after {took}."
    ));
    teller.promise("P5", found == usize::try_from(PUPILS)?, "pupils are missing on the rebuilt box");
    let pupil = stage.client.pupils("").await?.first().cloned().context("no pupils")?;
    stage.client.put(&format!("/api/v1/attendance/2026-11-27/{pupil}"), json!({ "code": "late" })).await?;
    let safe = stage.appliance.wait_until_safe(&stage.client, SAFE_AT_MOST).await?;
    let safe = teller.duration("rebuilt_edit_safe_ms", safe);
    teller.say(&format!(
        "A first edit on the new box was safe after {safe}: it goes on where the old one ended."
    ));
    let traffic = stage.line.traffic();
    let up = teller.figure("line_up_bytes", traffic.up_bytes);
    let down = teller.figure("line_down_bytes", traffic.down_bytes);
    teller.say(&format!("All in all {up} bytes went up the line and {down} came down."));
    Ok(())
}

fn invite(stage: &Stage) -> Result<()> {
    let (url, code) = (stage.edge.said("url")?, one_time_code(&stage.otpauth)?);
    let lines: [(&str, String); 6] = [
        ("page and API", url),
        ("trust root", text(&stage.appliance.ca)),
        ("login", LOGIN.to_owned()),
        ("password", PASSWORD.to_owned()),
        ("one-time code now", code),
        ("authenticator URI", stage.otpauth.clone()),
    ];
    let mut out = String::from("\nEverything is still running. Try it, and end it with Ctrl-C:\n");
    for (name, value) in lines {
        out.push_str(&format!("  {name:<18} {value}\n"));
    }
    use std::io::Write;
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(())
}

fn text(path: &Path) -> String {
    PathBuf::from(path).display().to_string()
}

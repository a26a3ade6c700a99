//! From the board's directory to a pupil's record without our software (P8): the real programs make and export a
//! school, then the commands of `docs/runbooks/by-hand.en.md` read it with the board's own `recovery.key`.
//! They run the real programs: `make build` first.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "by_hand/page.rs"]
mod page;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use page::{read, record_ids};
use serde_json::Value;
use sonae_chaos::generate::{self, Options};
use sonae_chaos::lan_client::LanClient;
use sonae_chaos::line::Line;
use sonae_chaos::program::{run, run_to_end};
use sonae_chaos::town::{Appliance, LOGIN, PASSWORD, Town};

/// Makes a school and waits until all of it is safe.
async fn school(dir: &Path) -> (Town, Appliance) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let school = generate::school(Options { pupils: 30, years: 1, seed: 5, ..Options::default() }).unwrap();
    let mut town = Town::found(dir, &school.school_code, &school.school_name).unwrap();
    let written = generate::write(&school, &dir.join("school")).unwrap();
    let mut cloud = town.start_cloud().unwrap();
    let line = Line::open(town.cloud_address().unwrap()).await.unwrap();
    let (appliance, _) = town.appliance("edge").unwrap();
    let data = appliance.data.display().to_string();
    for file in [&written.package, &written.contacts] {
        run("sonae-edge", &["import", "--data", &data, &file.display().to_string()], "").unwrap();
    }
    let mut edge = town.start_edge(&appliance, &line).unwrap();
    let listen = edge.said("listen").unwrap();
    let client = LanClient::sign_in(&listen, &appliance.ca, LOGIN, PASSWORD, None).await.unwrap();
    appliance.wait_until_safe(&client, Duration::from_secs(300)).await.unwrap();
    edge.stop().unwrap();
    cloud.stop().unwrap();
    (town, appliance)
}

fn export(town: &Town, out: &Path, heads: &Path) -> (i32, String, String) {
    let facts: Value =
        serde_json::from_slice(&std::fs::read(town.dir.join("board/board.json")).unwrap()).unwrap();
    let [_, site_a, site_b] = town.cloud_dirs().map(|path| path.display().to_string());
    let (out, heads) = (out.display().to_string(), heads.display().to_string());
    let root = facts["root"].as_str().unwrap();
    let arguments = [
        "export",
        "--school",
        &town.school,
        "--out",
        &out,
        "--root",
        root,
        "--site",
        &site_a,
        "--site",
        &site_b,
        "--expect",
        &heads,
    ];
    run_to_end("sonae-cloud", &arguments, "").unwrap()
}

/// Goal: the recovery key of a board reads what its school's appliance wrote. Method: real programs up to the
/// export, its heads from the appliance; then the page in a folder with the board's `recovery.key`; as many
/// pupils come out as were put in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recovery_key_reads_a_real_school() {
    let dir = tempfile::tempdir().unwrap();
    let (town, appliance) = school(&dir.path().join("town")).await;
    let folder = dir.path().join("by hand");
    std::fs::create_dir(&folder).unwrap();
    let heads = dir.path().join("heads.json");
    std::fs::write(&heads, appliance.digest().unwrap().to_string()).unwrap();
    let (code, said, told) = export(&town, &folder.join("export"), &heads);
    assert_eq!(code, 0, "{said}{told}");
    assert!(said.contains("the heads that you gave are here"), "{said}");

    std::fs::copy(town.dir.join("board/recovery.key"), folder.join("recovery.key")).unwrap();
    let (records, told) = read(&folder);
    assert!(told.is_empty(), "{told}");
    assert_eq!(record_ids(&records, "student").len(), 30);
    assert_eq!(record_ids(&records, "staff_account"), BTreeSet::from([LOGIN.to_owned()]));
    assert!(record_ids(&records, "guardian_contact").len() >= 30);
}

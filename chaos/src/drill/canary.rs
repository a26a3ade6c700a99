//! The search after canaries as a drill of its own: a small school is imported and made safe, then the cloud's
//! folders and all captured packets are searched (P3).

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::canary::{Canaries, Search};
use crate::generate::{self, Options};
use crate::lan_client::LanClient;
use crate::line::Line;
use crate::program::run;
use crate::town::{LOGIN, PASSWORD, Town};

/// Runs the drill in an empty folder.
///
/// # Errors
/// When a program fails; plaintext that was found is no error but stands in the report.
pub async fn run_drill(dir: &Path, seed: u64) -> Result<Search> {
    let school = generate::school(Options { pupils: 60, years: 1, seed, ..Options::default() })?;
    let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
    let plain = dir.join("school");
    let written = generate::write(&school, &plain)?;
    let _cloud = town.start_cloud()?;
    let line = Line::open(town.cloud_address()?).await?;
    let (appliance, _) = town.appliance("edge")?;
    let data = appliance.data.display().to_string();
    for file in [&written.package, &written.contacts, &written.attendance] {
        run("sonae-edge", &["import", "--data", &data, &file.display().to_string()], "")?;
    }
    let mut edge = town.start_edge(&appliance, &line)?;
    let client = LanClient::sign_in(&edge.said("listen")?, &appliance.ca, LOGIN, PASSWORD, None).await?;
    appliance.wait_until_safe(&client, Duration::from_secs(300)).await?;
    let search = Canaries::of(&written.summary, &[PASSWORD])?.search(&town, &line, &plain)?;
    edge.stop()?;
    Ok(search)
}

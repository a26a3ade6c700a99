//! A small town for demo, drills and benches: a board, one school, a cloud with two sites, an appliance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::generate;
use crate::lan_client::LanClient;
use crate::line::Line;
use crate::program::{Daemon, Place, run, run_in, run_to_end};

/// Sign-in name of the teacher that a town has.
pub const LOGIN: &str = "tanaka";

/// That teacher's password; the town is invented.
pub const PASSWORD: &str = "kunren-no-tame-7";

/// A board's folder, its school and its cloud.
#[derive(Debug)]
pub struct Town {
    /// Everything lies in here.
    pub dir: PathBuf,
    /// The school's code.
    pub school: String,
    /// The folders of the cloud's sites.
    pub sites: Vec<PathBuf>,
    /// Where the cloud runs.
    pub cloud_place: Place,
    cloud_passphrase: String,
    cloud_listen: Option<String>,
    /// Environment of the cloud, for test switches.
    pub cloud_environment: Vec<(String, String)>,
    /// Environment of the appliances, for test switches.
    pub edge_environment: Vec<(String, String)>,
}

/// A town whose cloud runs and whose appliance has taken in the files of its school.
#[derive(Debug)]
pub struct Settled {
    /// The town.
    pub town: Town,
    /// Its cloud, running.
    pub cloud: Daemon,
    /// The line to it.
    pub line: Line,
    /// The appliance, not running.
    pub appliance: Appliance,
    /// The authenticator of its first member of staff.
    pub otpauth: String,
}

impl Settled {
    /// Makes one in an empty folder, with a generated school.
    ///
    /// # Errors
    /// When a program fails.
    pub async fn found(dir: &Path, pupils: u32, seed: u64) -> Result<Self> {
        let options = generate::Options { pupils, years: 1, seed, ..generate::Options::default() };
        let school = generate::school(options)?;
        let mut town = Town::found(dir, &school.school_code, &school.school_name)?;
        let written = generate::write(&school, &dir.join("school"))?;
        let cloud = town.start_cloud()?;
        let line = Line::open(town.cloud_address()?).await?;
        let (appliance, otpauth) = town.appliance("edge")?;
        for file in [&written.package, &written.contacts, &written.attendance] {
            run("sonae-edge", &["import", "--data", &text(&appliance.data), &text(file)], "")?;
        }
        Ok(Self { town, cloud, line, appliance, otpauth })
    }

    /// Starts an appliance on this town's line and signs the teacher in.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(&self, appliance: &Appliance) -> Result<(Daemon, LanClient)> {
        let edge = self.town.start_edge(appliance, &self.line)?;
        let listen = edge.said("listen")?;
        let client = LanClient::sign_in(&listen, &appliance.ca, LOGIN, PASSWORD, None).await?;
        Ok((edge, client))
    }
}

/// An appliance's data directory and its trust root for clients.
#[derive(Debug, Clone)]
pub struct Appliance {
    /// The data directory.
    pub data: PathBuf,
    /// Where `run` writes the trust root.
    pub ca: PathBuf,
    /// Where it runs.
    pub place: Place,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Town {
    /// Makes the board, the school and the cloud's bundle in an empty folder.
    ///
    /// # Errors
    /// When a command fails.
    pub fn found(dir: &Path, school: &str, name: &str) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let board = text(&dir.join("board"));
        run("sonae-provision", &["board", "init", "--dir", &board, "--name", "架空市教育委員会"], "")?;
        run("sonae-provision", &["school", "add", "--dir", &board, "--code", school, "--name", name], "")?;
        let bundle = text(&dir.join("cloud.bundle"));
        let said = run(
            "sonae-provision",
            &["cloud", "enrol", "--dir", &board, "--host", "localhost", "--out", &bundle],
            "",
        )?;
        Ok(Self {
            dir: dir.to_owned(),
            school: school.to_owned(),
            sites: ["site-a", "site-b"].map(|name| dir.join(name)).into(),
            cloud_place: Place::default(),
            cloud_passphrase: last_line(&said)?,
            cloud_listen: None,
            cloud_environment: Vec::new(),
            edge_environment: Vec::new(),
        })
    }

    /// Returns the folders of the cloud.
    #[must_use]
    pub fn cloud_dirs(&self) -> [PathBuf; 3] {
        ["cloud", "site-a", "site-b"].map(|name| self.dir.join(name))
    }

    /// Starts the cloud, after the first time on the same port.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_cloud(&mut self) -> Result<Daemon> {
        let [data, ..] = self.cloud_dirs().map(|path| text(&path));
        let bundle = text(&self.dir.join("cloud.bundle"));
        let listen = self.cloud_listen.clone().unwrap_or_else(|| self.cloud_place.listen_text());
        let mut arguments =
            vec!["run", "--bundle", &bundle, "--passphrase-stdin", "--data", &data, "--listen", &listen];
        let sites: Vec<String> = self.sites.iter().map(|site| text(site)).collect();
        for site in &sites {
            std::fs::create_dir_all(site)?;
            arguments.extend(["--site", site]);
        }
        let mut place = self.cloud_place.clone();
        place.environment.extend(self.cloud_environment.iter().cloned());
        let log = self.dir.join("cloud.log");
        let daemon = Daemon::start("sonae-cloud", &arguments, &self.cloud_passphrase, &log, &place)?;
        self.cloud_listen = Some(daemon.said("listen")?);
        Ok(daemon)
    }

    /// Returns where the cloud listens.
    ///
    /// # Errors
    /// Before it was started.
    pub fn cloud_address(&self) -> Result<SocketAddr> {
        let listen = self.cloud_listen.as_deref().context("the cloud has not been started")?;
        listen.parse().context("the cloud listens on no address")
    }

    /// Has the board make a bundle. Returns its file and passphrase.
    ///
    /// # Errors
    /// When the command fails.
    pub fn enrol_bundle(&self, kind: &str, name: &str) -> Result<(PathBuf, String)> {
        let out = self.dir.join(name);
        let said = run(
            "sonae-provision",
            &[
                "replica",
                "enrol",
                "--dir",
                &text(&self.dir.join("board")),
                "--school",
                &self.school,
                "--kind",
                kind,
                "--out",
                &text(&out),
            ],
            "",
        )?;
        Ok((out, last_line(&said)?))
    }

    /// Enrols an appliance and adds its teacher. Returns it with the teacher's one-time code URI.
    ///
    /// # Errors
    /// When a command fails.
    pub fn appliance(&self, name: &str) -> Result<(Appliance, String)> {
        let appliance = self.enrol(name)?;
        let data = text(&appliance.data);
        let said = self.edge(
            &[
                "staff",
                "add",
                "--data",
                &data,
                "--login",
                LOGIN,
                "--name",
                "架空 田中",
                "--role",
                "teacher",
                "--password-stdin",
                "--totp",
            ],
            PASSWORD,
        )?;
        Ok((appliance, last_line(&said)?))
    }

    /// Enrols an appliance, which has nobody to sign in with until it has heard of other replicas.
    ///
    /// # Errors
    /// When a command fails.
    pub fn enrol(&self, name: &str) -> Result<Appliance> {
        let (bundle, passphrase) = self.enrol_bundle("appliance", &format!("{name}.bundle"))?;
        let appliance = self.appliance_at(name);
        let (data, bundle) = (text(&appliance.data), text(&bundle));
        self.edge(&["enrol", "--data", &data, "--bundle", &bundle, "--passphrase-stdin"], &passphrase)?;
        Ok(appliance)
    }

    /// Runs `sonae-edge` with what the appliances have in their environment. Returns what it said.
    ///
    /// # Errors
    /// When it fails.
    pub fn edge(&self, arguments: &[&str], input: &str) -> Result<String> {
        run_in("sonae-edge", arguments, input, &self.edge_environment)
    }

    /// Names an appliance's folders.
    #[must_use]
    pub fn appliance_at(&self, name: &str) -> Appliance {
        let (data, ca) = (self.dir.join(name), self.dir.join(format!("{name}-ca.pem")));
        Appliance { data, ca, place: Place::default() }
    }

    /// Starts an appliance that dials through a line.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_edge(&self, appliance: &Appliance, line: &Line) -> Result<Daemon> {
        self.start_edge_to(appliance, line.address())
    }

    /// Starts an appliance that dials an address.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_edge_to(&self, appliance: &Appliance, cloud: SocketAddr) -> Result<Daemon> {
        self.start_edge_with(appliance, &cloud.to_string(), &[])
    }

    /// Starts an appliance that dials this address for the cloud, with more on its command line.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_edge_with(&self, appliance: &Appliance, cloud: &str, rest: &[&str]) -> Result<Daemon> {
        self.serve(appliance, cloud, &[&["run"], rest].concat(), "")
    }

    /// Starts an appliance that is rebuilt over a line and serves meanwhile.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_rebuild(
        &self,
        appliance: &Appliance,
        line: &Line,
        bundle: &Path,
        passphrase: &str,
    ) -> Result<Daemon> {
        let words = ["rebuild", "--serve", "--passphrase-stdin", "--bundle", &text(bundle)];
        self.serve(appliance, &line.address().to_string(), &words, passphrase)
    }

    fn serve(&self, appliance: &Appliance, cloud: &str, words: &[&str], input: &str) -> Result<Daemon> {
        let (data, ca) = (text(&appliance.data), text(&appliance.ca));
        let listen = appliance.place.listen_text();
        let mut place = appliance.place.clone();
        place.environment.extend(self.edge_environment.iter().cloned());
        let rest = ["--data", &data, "--listen", &listen, "--cloud", cloud, "--ca-out", &ca];
        let log = self.dir.join("edge.log");
        Daemon::start("sonae-edge", &[words, &rest].concat(), input, &log, &place)
    }
}

impl Appliance {
    /// Asks `sonae-edge status`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn status(&self) -> Result<Value> {
        let said = run("sonae-edge", &["status", "--data", &text(&self.data), "--json"], "")?;
        serde_json::from_str(&said).context("the status is no JSON")
    }

    /// Waits until the cloud has snapshots of all tiers of which one is due. Returns their bytes by tier.
    ///
    /// # Errors
    /// When it takes longer than `at_most`.
    pub async fn wait_for_snapshots(&self, at_most: Duration) -> Result<BTreeMap<u64, u64>> {
        let started = Instant::now();
        loop {
            let status = tokio::task::block_in_place(|| self.status())?;
            let snapshots = status.get("snapshots").and_then(Value::as_array).cloned().unwrap_or_default();
            let is = |one: &Value, name: &str| one.get(name).and_then(Value::as_bool) == Some(true);
            if !snapshots.is_empty() && snapshots.iter().all(|one| is(one, "safe") && !is(one, "due")) {
                let number = |one: &Value, name: &str| {
                    one.get(name).and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()))
                };
                return Ok(snapshots
                    .iter()
                    .filter_map(|one| Some((number(one, "tier")?, number(one, "bytes")?)))
                    .collect());
            }
            if started.elapsed() > at_most {
                bail!("the cloud had no snapshots after {at_most:?}: {snapshots:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs `sonae-edge prove`. Returns its exit code and what it printed.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn prove(&self) -> Result<(i32, Value)> {
        let data = text(&self.data);
        let proving = tokio::task::spawn_blocking(move || {
            run_to_end("sonae-edge", &["prove", "--data", &data, "--json"], "")
        });
        let (code, out, error) = proving.await??;
        Ok((code, serde_json::from_str(&out).unwrap_or_else(|_| serde_json::json!({ "said": error }))))
    }

    /// Asks `sonae-edge digest`.
    ///
    /// # Errors
    /// When the command fails.
    pub fn digest(&self) -> Result<Value> {
        let said = run("sonae-edge", &["digest", "--data", &text(&self.data), "--json"], "")?;
        serde_json::from_str(&said).context("the digest is no JSON")
    }

    /// Waits until nothing kept is without a receipt. Returns how long that took.
    ///
    /// # Errors
    /// When it takes longer than `at_most`.
    pub async fn wait_until_safe(&self, client: &LanClient, at_most: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let status = client.status().await?;
            if status.get("unsafe").and_then(Value::as_u64) == Some(0) {
                return Ok(started.elapsed());
            }
            if started.elapsed() > at_most {
                let unsafe_changes = status.get("unsafe").cloned().unwrap_or_default();
                let error = status.pointer("/last_error/text").cloned().unwrap_or_default();
                bail!("{unsafe_changes} changes had no receipt after {at_most:?}; last error {error}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Copies files and folders, sockets left out: a box that is copied.
///
/// # Errors
/// When one cannot be copied.
pub fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn last_line(said: &str) -> Result<String> {
    said.lines().last().map(str::to_owned).context("a command printed nothing")
}

//! The programs under test: where they are, how they are started, and that none outlives its owner.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long a daemon may take until it is ready, where nobody says otherwise: long enough for a repair on a loaded
/// machine. One that takes longer hangs.
const READY_MAX: Duration = Duration::from_secs(300);

/// Where and how a program runs. The default is this machine as it is.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The command that runs it, such as `nsenter` with the name of a network; it must not fork.
    pub under: Vec<String>,
    /// The address and port that a daemon listens on; loopback and a free port if absent.
    pub listen: Option<(IpAddr, u16)>,
    /// What it has in its environment, besides.
    pub environment: Vec<(String, String)>,
    /// Files that take a daemon's process id: control groups that it joins.
    pub joins: Vec<PathBuf>,
    /// How long a daemon may take until it is ready; five minutes if absent.
    pub ready_within: Option<Duration>,
}

impl Place {
    /// The address that a daemon is told to listen on.
    #[must_use]
    pub fn listen_text(&self) -> String {
        self.listen.map_or_else(|| "127.0.0.1:0".into(), |(address, port)| format!("{address}:{port}"))
    }

    fn command(&self, name: &str) -> Result<Command> {
        let program = find(name)?;
        let mut command = match self.under.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

/// Finds a program beside this one, or in `SONAE_BIN_DIR`.
///
/// # Errors
/// When it is not there.
pub fn find(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("SONAE_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let own = std::env::current_exe().context("cannot tell where this program lies")?;
            let beside = own.parent().map(Path::to_owned).unwrap_or_default();
            // A test lies one folder deeper than the programs.
            if beside.ends_with("deps") {
                beside.parent().map(Path::to_owned).unwrap_or(beside)
            } else {
                beside
            }
        }
    };
    let path = dir.join(name);
    if !path.exists() {
        bail!("{} is missing; run `make build` first, or name its folder in SONAE_BIN_DIR", path.display());
    }
    // Children run in other directories.
    path.canonicalize().context("cannot resolve the path of a program")
}

/// What has a program break a promise on purpose, in its environment, by the name of a defect or that of a `CUT`. Only
/// programs that were built with defects (`make planted`) heed it.
#[must_use]
pub fn planted(cut: &str) -> (String, String) {
    let defect = match cut {
        "cloud-fsync" => "receipt_before_store",
        "edge-reserve" => "reserve_left_out",
        defect => defect,
    };
    ("SONAE_TEST_PLANT".to_owned(), defect.to_owned())
}

/// Runs a program to its end, with text on its standard input. Returns its standard output.
///
/// # Errors
/// When it fails; what it said is in the text.
pub fn run(name: &str, arguments: &[&str], input: &str) -> Result<String> {
    run_in(name, arguments, input, &[])
}

/// Does the same as [`run`] with more in the environment.
///
/// # Errors
/// As [`run`].
pub fn run_in(
    name: &str,
    arguments: &[&str],
    input: &str,
    environment: &[(String, String)],
) -> Result<String> {
    run_at(&Place { environment: environment.to_vec(), ..Place::default() }, name, arguments, input)
}

/// Does the same as [`run`] somewhere.
///
/// # Errors
/// As [`run`].
pub fn run_at(place: &Place, name: &str, arguments: &[&str], input: &str) -> Result<String> {
    let (code, out, error) = to_end(place, name, arguments, input)?;
    if code == 0 { Ok(out) } else { bail!("{name} {} ended with {code}: {error}", arguments.join(" ")) }
}

/// Runs a program to its end. Returns its exit code, standard output and standard error.
///
/// # Errors
/// When it cannot be run.
pub fn run_to_end(name: &str, arguments: &[&str], input: &str) -> Result<(i32, String, String)> {
    to_end(&Place::default(), name, arguments, input)
}

fn to_end(place: &Place, name: &str, arguments: &[&str], input: &str) -> Result<(i32, String, String)> {
    let mut child = place
        .command(name)?
        .args(arguments)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input says why by itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
}

/// A program under way that prints no ready line. Killed when its owner goes.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a program with text on its standard input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, arguments: &[&str], input: &str) -> Result<Self> {
        let mut child = Command::new(find(name)?)
            .args(arguments)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading its input says why by itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(Self(child))
    }

    /// Returns whether it has ended.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_hard(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon that is killed when its owner goes.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    /// What it said when it was ready.
    pub ready: Value,
}

impl Daemon {
    /// Starts a daemon and waits for its ready line. Its log goes to `log`.
    ///
    /// # Errors
    /// When it ends before it is ready.
    pub fn start(
        name: &'static str,
        arguments: &[&str],
        input: &str,
        log: &Path,
        place: &Place,
    ) -> Result<Self> {
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = place
            .command(name)?
            .args(arguments)
            .env("RUST_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let stdout = child.stdout.take().context("no standard output")?;
        let mut daemon = Self { name, child, ready: Value::Null };
        for group in &place.joins {
            std::fs::write(group, daemon.id().to_string())
                .with_context(|| format!("cannot put {name} into {}", group.display()))?;
        }
        let mut line = String::new();
        if has_something(&stdout, place.ready_within.unwrap_or(READY_MAX))? {
            // The ready line is written at once.
            BufReader::new(stdout.take(64 * 1024)).read_line(&mut line)?;
        }
        daemon.ready = serde_json::from_str(&line).map_err(|_| {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let tail: Vec<&str> = said.lines().rev().take(5).collect();
            anyhow::anyhow!("{name} did not become ready: {}", tail.join(" | "))
        })?;
        Ok(daemon)
    }

    /// Returns a text of the ready line.
    ///
    /// # Errors
    /// When it is not there.
    pub fn said(&self, key: &str) -> Result<String> {
        let text = self.ready.get(key).and_then(Value::as_str);
        text.map(str::to_owned).with_context(|| format!("{} did not say '{key}'", self.name))
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether it has ended by itself.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        Ok(rustix::process::kill_process(id.context("no process id")?, signal)?)
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_hard(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("{} ended with {status}", self.name) }
    }
}

/// Waits until a pipe has something, or its end. Returns whether it has by then.
fn has_something(pipe: &impl std::os::fd::AsFd, at_most: Duration) -> Result<bool> {
    let until = Instant::now() + at_most;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = rustix::event::Timespec::try_from(left).context("too long a wait")?;
        let mut pipes = [rustix::event::PollFd::new(pipe, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut pipes, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

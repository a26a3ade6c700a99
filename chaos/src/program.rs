//! The programs under test: where they are, how they are started, and that none outlives its owner.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

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
    let (code, out, error) = to_end(name, arguments, input, environment)?;
    if code == 0 { Ok(out) } else { bail!("{name} {} ended with {code}: {error}", arguments.join(" ")) }
}

/// Runs a program to its end. Returns its exit code, standard output and standard error.
///
/// # Errors
/// When it cannot be run.
pub fn run_to_end(name: &str, arguments: &[&str], input: &str) -> Result<(i32, String, String)> {
    to_end(name, arguments, input, &[])
}

fn to_end(
    name: &str,
    arguments: &[&str],
    input: &str,
    environment: &[(String, String)],
) -> Result<(i32, String, String)> {
    let mut child = Command::new(find(name)?)
        .args(arguments)
        .env("RUST_LOG", "warn")
        .envs(environment.iter().map(|(name, value)| (name, value)))
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
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let log_file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = Command::new(find(name)?)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes());
        }
        let mut line = String::new();
        let stdout = child.stdout.take().context("no standard output")?;
        let mut reader = BufReader::new(stdout.take(64 * 1024));
        reader.read_line(&mut line)?;
        let mut daemon = Self { name, child, ready: Value::Null };
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
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.context("no process id")?, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("{} ended with {status}", self.name) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

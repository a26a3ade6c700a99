//! A box under test: a bundle of an invented board, a data directory, and the real binary.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, where a panic is the report")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use sonae_proto::bundle;
use sonae_store::testing::Board;

/// The passphrase of all bundles of tests.
pub const PASSPHRASE: &str = "correct-horse-battery-staple";

/// The end of a command.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub out: String,
    pub error: String,
}

impl End {
    /// What it printed; it must have ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// What it said; it must have ended with this code and printed nothing.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.out.is_empty(), "{self:?}");
        self.error
    }

    /// The JSON object that it printed; it must have ended well.
    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.ok();
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str(&out).unwrap()
    }
}

/// A folder with a bundle, and beside it the data directory that a test may make of it.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A sealed bundle, nothing enrolled.
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let sealed = bundle::seal(&Board::default().bundle(), PASSPHRASE).unwrap();
        fs::write(place.path("bundle"), sealed).unwrap();
        place
    }

    /// An enrolled replica.
    pub fn enrolled() -> Self {
        let place = Self::new();
        place.enrol("data", "bundle", PASSPHRASE).ok();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    pub fn enrol(&self, data: &str, bundle: &str, passphrase: &str) -> End {
        let mut command = binary();
        command.arg("enrol").arg("--data").arg(self.path(data));
        command.arg("--bundle").arg(self.path(bundle)).arg("--passphrase-stdin");
        run(command, passphrase)
    }

    /// Runs a command on the data directory; `words` may be a command of two words.
    pub fn edge(&self, words: &str, rest: &[&str], input: &str) -> End {
        let mut command = binary();
        command.args(words.split(' ')).arg("--data").arg(self.data()).args(rest);
        run(command, input)
    }

    pub fn import(&self, file: &Path, rest: &[&str]) -> End {
        self.edge("import", &[&[file.to_str().unwrap()], rest].concat(), "")
    }

    pub fn status(&self) -> Value {
        self.edge("status", &["--json"], "").json()
    }

    /// Digests with their version vector, without what only the uplink moves.
    pub fn digests(&self) -> (Value, Value) {
        let digest = self.edge("digest", &["--json"], "").json();
        (digest["digests"].clone(), digest["version_vector"].clone())
    }

    /// Starts the daemon, which dials a port that nobody serves.
    pub fn start(&self) -> Daemon {
        let mut command = binary();
        command.arg("run").arg("--data").arg(self.data());
        command.args(["--listen", "127.0.0.1:0", "--cloud", "127.0.0.1:1"]);
        command.arg("--ca-out").arg(self.path("ca.pem"));
        Daemon::start(command)
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-edge"));
    command.env("RUST_LOG", "off").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(mut command: Command, input: &str) -> End {
    let mut child = command.spawn().unwrap();
    // A command that ends without reading its input says why by itself.
    let _ = child.stdin.take().unwrap().write_all(format!("{input}\n").as_bytes());
    let output = child.wait_with_output().unwrap();
    End {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A running daemon. Killed when dropped, so also when its test fails.
pub struct Daemon {
    child: Child,
    pub ready: Value,
}

impl Daemon {
    fn start(mut command: Command) -> Self {
        let mut daemon =
            Self { child: command.stderr(Stdio::inherit()).spawn().unwrap(), ready: Value::Null };
        let mut line = String::new();
        BufReader::new(daemon.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        daemon.ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: '{line}'"));
        daemon
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop.
    pub fn terminate(mut self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

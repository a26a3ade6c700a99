//! The real binary as a child process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use sonae_proto::bundle;

use super::board::Board;

/// The passphrase of all bundles of tests.
pub const PASSPHRASE: &str = "correct-horse-battery-staple";

/// A running node. Killed when dropped, so also when its test fails.
pub struct Daemon {
    child: Child,
    pub ready: serde_json::Value,
    pub address: SocketAddr,
}

/// Writes the board's cloud bundle.
pub fn write_bundle(board: &Board, path: &Path) {
    std::fs::write(path, bundle::seal(&board.bundle(), PASSPHRASE).unwrap()).unwrap();
}

/// The command line `run` over two sites in `root`.
pub fn command(root: &Path) -> Command {
    command_on(root, "127.0.0.1:0")
}

/// The same at an address.
pub fn command_on(root: &Path, address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sonae-cloud"));
    command.arg("run").arg("--bundle").arg(root.join("bundle")).arg("--passphrase-stdin");
    command.arg("--data").arg(root.join("data"));
    command.arg("--site").arg(root.join("a")).arg("--site").arg(root.join("b"));
    command.args(["--listen", address]).env("RUST_LOG", "error").env_remove("SONAE_TEST_PLANT");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end with a line on standard input.
pub fn run(command: &mut Command, line: &str) -> Output {
    let mut child = command.spawn().unwrap();
    // One that is called wrongly may have ended before it reads.
    let written = child.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes());
    assert!(written.is_ok_and(|()| true) || child.wait().is_ok_and(|status| !status.success()));
    child.wait_with_output().unwrap()
}

impl Daemon {
    /// Starts a node and waits until it serves.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{PASSPHRASE}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut daemon = Self { child, ready: serde_json::Value::Null, address: ([0, 0, 0, 0], 0).into() };
        daemon.ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: '{line}'"));
        daemon.address = daemon.ready["listen"].as_str().unwrap().parse().unwrap();
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

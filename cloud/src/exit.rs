//! What a process says with its exit code, so that systemd and scripts can act on it.

/// The exit codes of `sonae-cloud`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked, or was told to stop.
    Done = 0,
    /// The command line is wrong.
    Usage = 2,
    /// The bundle or its passphrase is wrong.
    Bundle = 3,
    /// Another process uses the data directory.
    InUse = 4,
    /// Fewer sites than the quorum can be used.
    Sites = 5,
    /// The address cannot be listened on.
    Network = 6,
    /// It was done, but something is missing or could not be verified.
    Incomplete = 7,
    /// Anything else.
    Internal = 70,
}

/// The codes as `--help` prints them.
pub const HELP: &str = "Exit codes:
   0  done, or stopped by a signal
   2  the command line is wrong
   3  the bundle or its passphrase is wrong
   4  another process uses the data directory
   5  fewer sites than the quorum can be used
   6  the address cannot be listened on
   7  done, but something is missing or could not be verified
  70  an internal error";

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the help names every code. Method: look for each number at the start of a line.
    #[test]
    fn the_help_names_every_code() {
        let all = [
            Exit::Done,
            Exit::Usage,
            Exit::Bundle,
            Exit::InUse,
            Exit::Sites,
            Exit::Network,
            Exit::Incomplete,
            Exit::Internal,
        ];
        for code in all {
            let start = format!("{} ", code as u8);
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&start)), "{code:?}");
        }
    }
}

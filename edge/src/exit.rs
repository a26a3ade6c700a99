//! Exit codes, so that scripts and systemd can act on them.

use std::process::ExitCode;

/// Why a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Ok,
    /// The command line has no meaning (also what the argument parser uses).
    Usage,
    /// A bundle, passphrase or input file was refused; nothing was changed.
    Refused,
    /// The data directory is in use, occupied or holds no replica.
    DataDir,
    /// The store cannot be opened or written.
    Store,
    /// The network or the cloud cannot be reached or does not answer as it must.
    Network,
    /// A promise could not be verified, such as the completeness of a rebuild, or that the cloud restores.
    Unverified,
    /// A defect of this program.
    Internal,
}

impl Exit {
    /// Returns the number that the process ends with.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::DataDir => 4,
            Self::Store => 5,
            Self::Network => 6,
            Self::Unverified => 7,
            Self::Internal => 70,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// The table for `--help`.
pub const HELP: &str = "Exit codes:
  0   done
  2   wrong use of the command line
  3   bundle, passphrase or input file refused; nothing was changed
  4   data directory in use, occupied, or without a replica
  5   the store cannot be opened or written
  6   network or cloud not reachable
  7   done, but something could not be verified
  70  a defect of this program";

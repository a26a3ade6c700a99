//! What can go wrong when the board's directory is used, and the exit code that says so.

use std::io;
use std::path::{Path, PathBuf};

use sonae_proto::bundle::BundleError;
use sonae_proto::ids::{IdError, ReplicaId, SchoolCode};
use sonae_proto::limits::{MANIFEST_KEYS_MAX, MANIFEST_READERS_MAX};
use sonae_proto::seal::SealError;
use sonae_proto::signed::DocumentError;
use sonae_trust::authority::AuthorityError;
use sonae_trust::device_name::DeviceNameError;
use sonae_trust::entropy::EntropyError;
use sonae_trust::leaf::ServerNamesError;
use sonae_trust::passphrase::PassphraseError;
use sonae_trust::secret_file::SecretFileError;

/// How a run ends. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The command line has no meaning.
    Usage = 2,
    /// What was asked cannot be done with what there is.
    BadInput = 3,
    /// Another process works in the board's directory.
    InUse = 4,
    /// The disk refused.
    Io = 5,
    /// A fault of this program or of the machine.
    Internal = 70,
}

impl Exit {
    /// The table that `--help` shows.
    pub const HELP: &'static str = "\
Exit codes:
  0   done
  2   usage: the command line has no meaning
  3   bad input: unknown school, exists already, not a board, damaged file, clock not set
  4   the board's directory is in use by another process
  5   input or output failed
  70  internal fault";

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::BadInput => 3,
            Self::InUse => 4,
            Self::Io => 5,
            Self::Internal => 70,
        }
    }
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// There is no board in the directory.
    #[error("{} is not a board's directory; make one with `sonae-provision board init`", dir.display())]
    NotABoard {
        /// The directory.
        dir: PathBuf,
    },
    /// The board's creation was interrupted.
    #[error("the board in {} was never finished; run `sonae-provision board init` on it again", dir.display())]
    BoardUnfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// Something is in the directory already.
    #[error("{} is not empty and stays as it is; choose a new directory for the board", dir.display())]
    BoardExists {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is locked.
    #[error("another sonae-provision works in {}; wait until it has ended and try again", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Not a school code.
    #[error("the school code cannot be used; correct --code or --school")]
    SchoolCode(#[from] IdError),
    /// The school is there already.
    #[error("school {code} exists already and stays as it is; see `sonae-provision show`")]
    SchoolExists {
        /// Its code.
        code: SchoolCode,
    },
    /// The school is not there.
    #[error("school {code} is unknown to this board; add it with `sonae-provision school add`")]
    UnknownSchool {
        /// Its code.
        code: SchoolCode,
    },
    /// A name for people cannot be used.
    #[error("the {what} must have 1 to {chars_max} characters and no control characters; correct --name")]
    Name {
        /// Whose name.
        what: &'static str,
        /// Longest length.
        chars_max: usize,
    },
    /// Not a host.
    #[error(
        "'{text}' is not a host; give --host NAME or NAME:PORT, such as cloud.example.jp:4433 or [fd00::1]:4433"
    )]
    Host {
        /// What was given, cut to 64 characters.
        text: String,
    },
    /// Names cannot stand in a certificate.
    #[error("the names cannot stand in a certificate; correct --host or --lan-name")]
    ServerNames(#[from] ServerNamesError),
    /// There is no cloud yet.
    #[error("this board has no cloud yet; run `sonae-provision cloud enrol` first")]
    NoCloud,
    /// The bundle's file exists.
    #[error("{} exists and stays as it is; choose another --out, or delete it if the run that made it showed no passphrase", path.display())]
    OutExists {
        /// The file.
        path: PathBuf,
    },
    /// The clock is not set.
    #[error(
        "this machine's clock says {year}; set it first, because certificates and school years depend on it"
    )]
    Clock {
        /// The year that it says.
        year: i32,
    },
    /// The replica is not the school's.
    #[error("school {code} has no replica {replica} that this could be said of; see `sonae-provision show`")]
    UnknownReplica {
        /// The replica.
        replica: ReplicaId,
        /// The school.
        code: SchoolCode,
    },
    /// The replica is revoked already.
    #[error("replica {replica} is revoked already; `sonae-provision school words` writes that word again")]
    Revoked {
        /// The replica.
        replica: ReplicaId,
    },
    /// There is nothing to say.
    #[error("there is nothing new to say for school {code}; nothing was changed")]
    NothingNew {
        /// The school.
        code: SchoolCode,
    },
    /// A file of heads cannot be used.
    #[error("{} gives no heads: {what}", path.display())]
    Heads {
        /// The file.
        path: PathBuf,
        /// Why.
        what: &'static str,
    },
    /// A key cannot be destroyed yet.
    #[error("nothing was destroyed: the key of epoch {epoch} is needed: {what}")]
    KeyInUse {
        /// Its epoch.
        epoch: u32,
        /// By whom, and what to do.
        what: String,
    },
    /// A destruction was not confirmed.
    #[error(
        "nothing was destroyed, and it could not be undone: type `{expected}` on standard input, with --confirm-stdin\n\
         何も廃棄していません。取り消せない操作です。--confirm-stdin を付け、{expected} と入力してください"
    )]
    Unconfirmed {
        /// What has to be typed.
        expected: String,
    },
    /// A status of a box cannot be used.
    #[error("{} says nothing about keys: {what}", path.display())]
    Status {
        /// The file.
        path: PathBuf,
        /// Why.
        what: &'static str,
    },
    /// A manifest would be over its limits.
    #[error(
        "school {code} would have more than {MANIFEST_READERS_MAX} readers or {MANIFEST_KEYS_MAX} keys; retire replicas first"
    )]
    ManifestFull {
        /// The school.
        code: SchoolCode,
    },
    /// A file of the board is not what was written.
    #[error("{} is damaged ({what}); restore the board's directory from its backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A document of the board does not verify.
    #[error("{} does not verify; restore the board's directory from its backup", path.display())]
    Unverified {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// The operating system refused.
    #[error("could not {what} {}; check that the disk has space and allows it, then run the command again", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file of secrets cannot be used.
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    /// The authority refuses.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A device cannot be named.
    #[error(transparent)]
    DeviceName(#[from] DeviceNameError),
    /// No entropy.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// No passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// A document cannot be signed.
    #[error("signing a document failed; report it")]
    Sign(#[source] DocumentError),
    /// A key cannot be wrapped.
    #[error("wrapping a key failed; report it")]
    Wrap(#[source] SealError),
    /// A bundle cannot be sealed.
    #[error("sealing the bundle failed; report it")]
    Bundle(#[source] BundleError),
    /// Facts have no JSON form.
    #[error("encoding facts as JSON failed; report it")]
    Json(#[source] serde_json::Error),
}

impl ProvisionError {
    /// Returns the exit code that says what kind of failure it is.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::InUse { .. } => Exit::InUse,
            Self::Io { .. } | Self::SecretFile(SecretFileError::Io { .. }) => Exit::Io,
            Self::NotABoard { .. }
            | Self::BoardUnfinished { .. }
            | Self::BoardExists { .. }
            | Self::SchoolCode(_)
            | Self::SchoolExists { .. }
            | Self::UnknownSchool { .. }
            | Self::Name { .. }
            | Self::Host { .. }
            | Self::ServerNames(_)
            | Self::NoCloud
            | Self::OutExists { .. }
            | Self::Clock { .. }
            | Self::ManifestFull { .. }
            | Self::UnknownReplica { .. }
            | Self::Revoked { .. }
            | Self::NothingNew { .. }
            | Self::Heads { .. }
            | Self::KeyInUse { .. }
            | Self::Unconfirmed { .. }
            | Self::Status { .. }
            | Self::Damaged { .. }
            | Self::Unverified { .. }
            | Self::SecretFile(
                SecretFileError::Exists { .. }
                | SecretFileError::Exposed { .. }
                | SecretFileError::Mode { .. }
                | SecretFileError::Size { .. }
                | SecretFileError::NotAFile { .. },
            ) => Exit::BadInput,
            Self::Authority(AuthorityError::Signing { .. } | AuthorityError::Entropy(_))
            | Self::SecretFile(SecretFileError::Entropy(_))
            | Self::DeviceName(_)
            | Self::Entropy(_)
            | Self::Passphrase(_)
            | Self::Sign(_)
            | Self::Wrap(_)
            | Self::Bundle(_)
            | Self::Json(_) => Exit::Internal,
            Self::Authority(_) => Exit::BadInput,
        }
    }

    /// Makes the converter of an I/O error that happened while doing `what` to `path`.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

//! The control socket: how commands reach the daemon that holds the data directory.
//!
//! A unix socket in the data directory, 0600, so whoever may speak to it may read the directory anyway. One
//! JSON line asks, one JSON line answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sonae_lan::people::{NewStaff, PeopleError, add_staff};
use sonae_proto::ids::Tier;
use sonae_proto::record::RecordState;
use sonae_store::data_dir::control_socket;
use sonae_store::status::StatusSource;
use sonae_store::{Action, Kept, WriteError};
use sonae_trust::password::{Cost, PasswordHasher};
use sonae_trust::role::RoleError;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncBufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::digest;

/// Bytes of one request or answer: an import sends at most 1,000 edits at a time.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a box that is being filled proves nothing.
const NOT_WHOLE: &str = "a rebuild is still filling this box, so there is nothing whole to compare with; `sonae-edge \
                         status` says how much is left";

/// What a command asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Ask {
    /// The whole status.
    Status,
    /// Digests and heads.
    Digest,
    /// A restore proof now; answered at once with its number.
    Prove,
    /// All records of a collection.
    Records {
        /// Their tier.
        tier: Tier,
        /// The collection.
        collection: String,
    },
    /// Whether an import would fit.
    Fits {
        /// Bytes of its changes by tier.
        changes: BTreeMap<Tier, u64>,
    },
    /// Which records are of a pupil.
    OfPupil {
        /// The pupil's id.
        pupil: String,
    },
    /// Which of these ids of a collection were erased.
    Erased {
        /// The collection.
        collection: String,
        /// The ids.
        records: BTreeSet<String>,
    },
    /// Erase a pupil for good.
    Erase {
        /// The pupil's id.
        pupil: String,
        /// The login of the person who does it.
        who: Option<String>,
    },
    /// Keep an action.
    Write {
        /// The action.
        action: Action,
    },
    /// Add a member of staff.
    StaffAdd {
        /// Sign-in name.
        login: String,
        /// Name for people.
        name: String,
        /// Role.
        role: String,
        /// Password.
        password: Zeroizing<String>,
        /// Whether to make a TOTP secret.
        totp: bool,
    },
}

/// What a member of staff was given.
#[derive(Debug, Serialize, Deserialize)]
pub struct StaffAdded {
    /// Where it was kept.
    pub kept: Kept,
    /// The `otpauth://` URI, once.
    pub otpauth_uri: Option<Zeroizing<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(Value),
    Error(String),
    Store(String),
}

/// Why something asked was not done.
#[derive(Debug)]
pub enum Refusal {
    /// It was wrong to ask.
    Asked(String),
    /// The store is full or fails.
    Store(String),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused { .. } | WriteError::Held | WriteError::Erased => {
                Self::Asked(error.to_string())
            }
            WriteError::NoRoom { .. }
            | WriteError::Full
            | WriteError::NotYet(_)
            | WriteError::Moving
            | WriteError::Failed => Self::Store(error.to_string()),
        }
    }
}

fn asked(error: impl ToString) -> Refusal {
    Refusal::Asked(error.to_string())
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be used.
    #[error("the daemon's control socket {} cannot be used", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The answer has no meaning to this version.
    #[error("the daemon's answer cannot be read; use the same version of `sonae-edge` as the daemon")]
    Answer,
    /// The command was refused.
    #[error("{0}")]
    Refused(String),
    /// The store is full or fails.
    #[error("{0}")]
    Store(String),
}

/// Makes the socket, so that whoever saw the daemon ready reaches it.
///
/// # Errors
/// [`ControlError::Socket`].
pub fn bind(data: &Path) -> Result<UnixListener, ControlError> {
    let path = control_socket(data);
    let failed = |source| ControlError::Socket { path: path.clone(), source };
    // The lock on the directory is held, so a socket that lies here belongs to nobody.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves commands until `stop` says so.
///
/// # Errors
/// None at present; a conversation that fails ends by itself.
pub async fn serve(
    listener: UnixListener,
    source: StatusSource,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ControlError> {
    let source = Arc::new(source);
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(converse(stream, Arc::clone(&source)));
                }
            }
        }
    }
    let _ = std::fs::remove_file(control_socket(&source.data));
    Ok(())
}

async fn converse(stream: UnixStream, source: Arc<StatusSource>) {
    let (read, mut write) = stream.into_split();
    let mut lines = AsyncBufReader::new(read.take(LINE_BYTES_MAX));
    let mut line = String::new();
    while matches!(lines.read_line(&mut line).await, Ok(count) if count > 0) {
        let text = Zeroizing::new(std::mem::take(&mut line));
        let source = Arc::clone(&source);
        // Writes wait for a flush, and passwords are slow on purpose.
        let answer = tokio::task::spawn_blocking(move || match serde_json::from_str::<Ask>(&text) {
            Ok(ask) => answer(&source, ask),
            Err(error) => Err(asked(format!("the request cannot be read: {error}"))),
        })
        .await
        .unwrap_or_else(|_| Err(Refusal::Store("the daemon failed on this command; see its log".into())));
        let answer = match answer {
            Ok(value) => Answer::Ok(value),
            Err(Refusal::Asked(text)) => Answer::Error(text),
            Err(Refusal::Store(text)) => Answer::Store(text),
        };
        let Ok(mut bytes) = serde_json::to_vec(&answer) else { return };
        bytes.push(b'\n');
        if write.write_all(&bytes).await.is_err() {
            return;
        }
        lines.get_mut().set_limit(LINE_BYTES_MAX);
    }
}

/// Does what is asked. Blocking.
///
/// # Errors
/// [`Refusal`], with a text for people.
pub fn answer(source: &StatusSource, ask: Ask) -> Result<Value, Refusal> {
    fn value<T: Serialize>(value: T) -> Result<Value, Refusal> {
        serde_json::to_value(value).map_err(asked)
    }
    match ask {
        Ask::Status => value(source.status()),
        Ask::Digest => value(digest::report(source)),
        Ask::Prove if source.store.filling().is_filling() => Err(asked(NOT_WHOLE)),
        Ask::Prove => value(
            source
                .proofs
                .ask()
                .ok_or_else(|| asked("only a running daemon proves; start `sonae-edge run`"))?,
        ),
        Ask::Records { tier, collection } => {
            value(source.store.records(tier, &collection, "").map_err(asked)?)
        }
        Ask::Fits { changes } => {
            let store = &source.store;
            // Before the first of several actions is kept.
            changes.keys().try_for_each(|tier| store.filling().check(*tier)).map_err(WriteError::from)?;
            value(store.fits(&changes).err())
        }
        Ask::OfPupil { pupil } => value(source.store.of_pupil(&pupil).map_err(asked)?),
        Ask::Erased { collection, records } => value(source.store.erased_blocking(&collection, &records)?),
        Ask::Erase { pupil, who } => value(source.store.erase_blocking(&pupil, who)?),
        Ask::Write { action } => value(source.store.write_blocking(action)?),
        Ask::StaffAdd { login, name, role, password, totp } => {
            let role = role.parse().map_err(|error: RoleError| asked(error))?;
            let mut entropy = sonae_trust::entropy::SystemEntropy;
            let hasher = PasswordHasher::new(Cost::STANDARD, &mut entropy).map_err(asked)?;
            let new = NewStaff { login, name, role, password, totp };
            let added = add_staff(&source.store, &hasher, &source.store.school().to_string(), new, None)
                .map_err(
                    |error| if let PeopleError::Write(error) = error { error.into() } else { asked(error) },
                )?;
            value(StaffAdded { kept: added.kept, otpauth_uri: added.otpauth_uri })
        }
    }
}

/// Where a command's answers come from: the daemon, or the store that the command has opened itself.
#[derive(Debug)]
pub enum Replica {
    /// The daemon holds the directory.
    Daemon(Client),
    /// Nobody does; the command has opened it.
    Own(Box<crate::replica::Replica>),
}

/// A conversation with the daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<BlockingStream>,
}

impl Client {
    /// Reaches the daemon, if one listens.
    #[must_use]
    pub fn connect(data: &Path) -> Option<Self> {
        let path = control_socket(data);
        let stream = BlockingStream::connect(&path).ok()?;
        Some(Self { path, stream: BufReader::new(stream) })
    }

    fn ask(&mut self, ask: &Ask) -> Result<Value, ControlError> {
        let failed = |source| ControlError::Socket { path: self.path.clone(), source };
        let mut bytes = Zeroizing::new(serde_json::to_vec(ask).map_err(|_| ControlError::Answer)?);
        bytes.push(b'\n');
        self.stream.get_mut().write_all(&bytes).map_err(failed)?;
        let mut line = String::new();
        self.stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line).map_err(failed)?;
        match serde_json::from_str(&line).map_err(|_| ControlError::Answer)? {
            Answer::Ok(value) => Ok(value),
            Answer::Error(text) => Err(ControlError::Refused(text)),
            Answer::Store(text) => Err(ControlError::Store(text)),
        }
    }
}

impl Replica {
    /// Asks, wherever the data is.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn ask<T: DeserializeOwned>(&mut self, ask: Ask) -> Result<T, ControlError> {
        let value = match self {
            Self::Daemon(client) => client.ask(&ask)?,
            Self::Own(replica) => answer(&replica.status, ask).map_err(|refusal| match refusal {
                Refusal::Asked(text) => ControlError::Refused(text),
                Refusal::Store(text) => ControlError::Store(text),
            })?,
        };
        serde_json::from_value(value).map_err(|_| ControlError::Answer)
    }

    /// Reads a collection as the importer needs it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn records(
        &mut self,
        tier: Tier,
        collection: &str,
    ) -> Result<Vec<(String, RecordState)>, ControlError> {
        self.ask(Ask::Records { tier, collection: collection.to_owned() })
    }

    /// Closes a store that the command has opened itself.
    pub fn close(self) {
        if let Self::Own(replica) = self {
            replica.opened.close();
        }
    }
}

//! What a box keeps, one by one, as the journal has it.

use anyhow::{Result, anyhow};
use sonae_journal::FrameKind;
use sonae_proto::batch::Batch;
use sonae_proto::identity::IdentityText;
use sonae_proto::ids::{Hash32, LogName, Tier};
use sonae_proto::uplink::Shown;
use sonae_proto::vector::{Heads, LogHead};

use super::shelf::Made;

/// Something that is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// An own change.
    Change { log: LogName, sequence: u64, line: Vec<u8> },
    /// A sealed own batch.
    Sealed(Batch),
    /// A batch of a peer.
    Peer(Batch),
    /// An own log is safe up to here.
    Receipt { log: LogName, head: LogHead },
    /// A raised loss counter and what is still safe.
    Loss { counter: u64, receipted: Heads },
    /// What the cloud has said of own logs.
    Shown(Shown),
    /// A peer's identity.
    Identity(IdentityText),
    /// Own batches up to these heads are gone; the lines stand for them.
    Pruned(Heads),
    /// The root of a snapshot.
    Root(String),
    /// A part of one.
    Part(Vec<u8>),
    /// A tier begins with the snapshot of this root.
    Founded(Tier, Hash32),
    /// The newest snapshot of a tier that was made here.
    Made(Tier, Made),
    /// Everything that the cloud had was here: people may write.
    Rebuilt,
}

impl Item {
    /// What it is, in a word, for reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Change { .. } => "change",
            Self::Sealed(_) => "sealed batch",
            Self::Peer(_) => "peer's batch",
            Self::Receipt { .. } => "receipt",
            Self::Loss { .. } => "loss counter",
            Self::Shown(_) => "what the cloud says",
            Self::Identity(_) => "identity",
            Self::Pruned(_) | Self::Founded(..) => "foundation",
            Self::Root(_) | Self::Part(_) | Self::Made(..) => "snapshot",
            Self::Rebuilt => "rebuild's end",
        }
    }

    pub fn concerns_safety(&self) -> bool {
        match self {
            Self::Change { log, .. } => log.tier == Tier::Safety,
            Self::Sealed(batch) => batch.header().log.tier == Tier::Safety,
            Self::Peer(_)
            | Self::Receipt { .. }
            | Self::Loss { .. }
            | Self::Shown(_)
            | Self::Identity(_)
            | Self::Pruned(_)
            | Self::Root(_)
            | Self::Part(_)
            | Self::Founded(..)
            | Self::Made(..)
            | Self::Rebuilt => false,
        }
    }

    pub fn encode(&self) -> Result<(FrameKind, Vec<u8>)> {
        let (kind, bytes) = match self {
            Self::Change { log, sequence, line } => {
                (1, serde_json::to_vec(&(log, sequence, std::str::from_utf8(line)?))?)
            }
            Self::Sealed(batch) => (2, batch.bytes().to_vec()),
            Self::Peer(batch) => (3, batch.bytes().to_vec()),
            Self::Receipt { log, head } => (4, serde_json::to_vec(&(log, head))?),
            Self::Loss { counter, receipted } => (5, serde_json::to_vec(&(counter, receipted))?),
            Self::Identity(text) => (6, serde_json::to_vec(text)?),
            Self::Pruned(bases) => (7, serde_json::to_vec(bases)?),
            Self::Root(text) => (8, text.as_bytes().to_vec()),
            Self::Part(sealed) => (9, sealed.clone()),
            Self::Founded(tier, root) => (10, serde_json::to_vec(&(tier, root))?),
            Self::Made(tier, made) => (11, serde_json::to_vec(&(tier, made))?),
            Self::Rebuilt => (12, b"rebuilt".to_vec()),
            Self::Shown(shown) => (13, serde_json::to_vec(shown)?),
        };
        Ok((FrameKind(kind), bytes))
    }

    pub fn decode(kind: FrameKind, bytes: Vec<u8>) -> Result<Self> {
        Ok(match kind.0 {
            1 => {
                let (log, sequence, line): (_, _, String) = serde_json::from_slice(&bytes)?;
                Self::Change { log, sequence, line: line.into_bytes() }
            }
            2 => Self::Sealed(Batch::from_bytes(bytes)?),
            3 => Self::Peer(Batch::from_bytes(bytes)?),
            4 => {
                let (log, head) = serde_json::from_slice(&bytes)?;
                Self::Receipt { log, head }
            }
            5 => {
                let (counter, receipted) = serde_json::from_slice(&bytes)?;
                Self::Loss { counter, receipted }
            }
            6 => Self::Identity(serde_json::from_slice(&bytes)?),
            7 => Self::Pruned(serde_json::from_slice(&bytes)?),
            8 => Self::Root(String::from_utf8(bytes)?),
            9 => Self::Part(bytes),
            10 => {
                let (tier, root) = serde_json::from_slice(&bytes)?;
                Self::Founded(tier, root)
            }
            11 => {
                let (tier, made) = serde_json::from_slice(&bytes)?;
                Self::Made(tier, made)
            }
            12 => Self::Rebuilt,
            13 => Self::Shown(serde_json::from_slice(&bytes)?),
            other => return Err(anyhow!("frame kind {other} was never written")),
        })
    }
}

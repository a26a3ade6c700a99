//! The opened epoch keys of this school: what seals, what opens, what keys the digest.

use std::collections::BTreeMap;
use std::fmt;

use ed25519_dalek::VerifyingKey;
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::destruction::Destroyed;
use sonae_proto::digest::DigestKey;
use sonae_proto::ids::{Hash32, Tier};
use sonae_proto::manifest::{KeyUse, Manifest, WrappedKey, school_year};
use sonae_proto::revocation::Revocations;
use sonae_proto::seal::{OpenKey, SealError, decrypt};
use sonae_proto::signed::{DocumentError, Signed, unverified};
use sonae_proto::wire::KeyDocuments;
use zeroize::Zeroizing;

/// Why keys cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The manifest does not verify.
    #[error("the manifest of recipients does not verify")]
    Manifest(#[from] DocumentError),
    /// A key cannot be unwrapped.
    #[error(
        "the key {key_use} of {epoch} cannot be unwrapped by this device; ask the board for a new bundle"
    )]
    Wrapped {
        /// What it is for.
        key_use: KeyUse,
        /// School year.
        epoch: u32,
        /// Why.
        #[source]
        source: SealError,
    },
    /// A wrapped key is not the one that the manifest names.
    #[error(
        "the key {key_use} of {epoch} is not the one that the manifest names; ask the board for a new bundle"
    )]
    Foreign {
        /// What it is for.
        key_use: KeyUse,
        /// School year.
        epoch: u32,
    },
    /// Key documents do not have the keys of their manifest.
    #[error("not every key that manifest {version} names is there exactly once; nothing of it is used")]
    NotWhole {
        /// Version of the manifest.
        version: u64,
    },
    /// The task that opens keys has ended.
    #[error("the keys were not opened, because the box is closing")]
    Unopened,
    /// A key that is needed was destroyed.
    #[error(
        "the key {key_use} of {epoch} was destroyed by the board's order: what is sealed to it cannot be read by anybody \
         any more. Begin with the newest snapshot, which is sealed to a later key"
    )]
    Destroyed {
        /// What it was for.
        key_use: KeyUse,
        /// Its epoch.
        epoch: u32,
    },
    /// A key that is needed is not there.
    #[error("the board has issued no key for {what}; ask it to add the school year")]
    Missing {
        /// Which.
        what: String,
    },
}

/// What opens key documents on this device, and judges those that come.
pub(crate) struct DeviceReader {
    pub board: VerifyingKey,
    pub age_key: Zeroizing<String>,
}

impl fmt::Debug for DeviceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceReader").field("board", &self.board).finish_non_exhaustive()
    }
}

impl DeviceReader {
    /// Opens key documents that are to take the place of others. The board's word covers the manifest alone, so they
    /// count only if each key that it names is there, opens on this device and is the one that is named.
    ///
    /// # Errors
    /// [`KeyringError`].
    ///
    /// # Source
    /// `docs/spec/keys.md#wrapped-keys`
    pub fn open(&self, documents: &KeyDocuments) -> Result<Keyring, KeyringError> {
        let signed = Signed::<Manifest>::verify(&documents.manifest, &self.board)?;
        let manifest = signed.body();
        let not_whole = KeyringError::NotWhole { version: manifest.version };
        let whole = manifest.whole(documents).ok_or(not_whole)?;
        Keyring::open(&self.board, &whole, &self.age_key)
    }
}

/// How far ahead of a school year its keys should be here, in milliseconds: 60 days.
const KEYS_AHEAD_MS: u64 = 60 * 86_400_000;

/// School years and the keys for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct KeyYears {
    /// The school year by the told clock.
    pub this: u32,
    /// The last school year that all tiers have keys for.
    pub last: u32,
    /// This year has no keys, or the next one begins within 60 days and has none. Everything is sealed all the same, to
    /// the last keys that there are; it will be erased with their year.
    pub are_due: bool,
}

impl KeyYears {
    /// Reads them out of key documents that were verified when they were taken over.
    #[must_use]
    pub fn of(documents: &KeyDocuments, now_ms: u64) -> Self {
        let manifest: Option<Manifest> = unverified(&documents.manifest);
        let years = manifest.iter().flat_map(|manifest| Tier::ALL.map(|tier| manifest.last_year(tier)));
        let last = years.map(|year| year.unwrap_or(0)).min().unwrap_or(0);
        let are_due = school_year(now_ms.saturating_add(KEYS_AHEAD_MS)) > last;
        Self { this: school_year(now_ms), last, are_due }
    }
}

/// The keys of one school.
#[derive(Debug)]
pub struct Keyring {
    documents: KeyDocuments,
    manifest: Manifest,
    hash: Hash32,
    keys: BTreeMap<(KeyUse, u32), OpenKey>,
    /// Destroyed keys that something here is still sealed to.
    held: Vec<WrappedKey>,
}

impl Keyring {
    /// Takes the key documents out of a bundle.
    #[must_use]
    pub fn documents_of(bundle: &ReplicaBundle) -> KeyDocuments {
        KeyDocuments {
            school: bundle.school,
            manifest: bundle.manifest.clone(),
            wrapped_keys: bundle.wrapped_keys.clone(),
        }
    }

    /// Opens the wrapped keys that are there with the device's age key. Those of an enrolment may lack some: a destroyed
    /// key is taken out of them, and they stay those of an earlier manifest.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn open(
        board: &VerifyingKey,
        documents: &KeyDocuments,
        device_age_key: &str,
    ) -> Result<Self, KeyringError> {
        let signed = Signed::<Manifest>::verify(&documents.manifest, board)?;
        let device = OpenKey::parse(device_age_key).map_err(|source| KeyringError::Wrapped {
            key_use: KeyUse::Digest,
            epoch: 0,
            source,
        })?;
        let mut keys = BTreeMap::new();
        for wrapped in &documents.wrapped_keys {
            let (key_use, epoch) = (wrapped.key_use, wrapped.epoch);
            let failed = |source| KeyringError::Wrapped { key_use, epoch, source };
            let secret = decrypt(&wrapped.file, &device).map_err(failed)?;
            let text = std::str::from_utf8(&secret)
                .map_err(|_| failed(SealError::Malformed { what: "not text" }))?;
            let key = OpenKey::parse(text).map_err(failed)?;
            let named = signed.body().key(key_use, epoch);
            if named.is_none_or(|named| named.recipient != key.recipient()) {
                return Err(KeyringError::Foreign { key_use, epoch });
            }
            keys.insert((key_use, epoch), key);
        }
        let keyring = Self {
            documents: documents.clone(),
            manifest: signed.body().clone(),
            hash: signed.hash(),
            keys,
            held: Vec::new(),
        };
        keyring.digest_key()?;
        for tier in Tier::ALL {
            keyring.sealing(tier, 0)?;
        }
        Ok(keyring)
    }

    /// Holds destroyed keys besides, for what is still sealed to them here. What does not open is passed over: it is
    /// missed only if something needs it, and that says so.
    #[must_use]
    pub fn holding(mut self, held: Vec<WrappedKey>, device_age_key: &str) -> Self {
        let Ok(device) = OpenKey::parse(device_age_key) else { return self };
        for wrapped in held {
            let secret = decrypt(&wrapped.file, &device).ok();
            let key = secret.and_then(|secret| OpenKey::parse(std::str::from_utf8(&secret).ok()?).ok());
            let name = (wrapped.key_use, wrapped.epoch);
            if let Some(key) = key.filter(|_| !self.keys.contains_key(&name)) {
                self.keys.insert(name, key);
                self.held.push(wrapped);
            }
        }
        self
    }

    /// Returns the wrapped keys that this keyring has and a manifest destroys.
    #[must_use]
    pub fn destroyed_by(&self, manifest: &Manifest) -> Vec<WrappedKey> {
        let all = self.documents.wrapped_keys.iter().chain(&self.held);
        all.filter(|key| manifest.is_destroyed(key.key_use, key.epoch)).cloned().collect()
    }

    /// Returns the destroyed keys that are held.
    #[must_use]
    pub fn held(&self) -> &[WrappedKey] {
        &self.held
    }

    /// Forgets a destroyed key that is held.
    pub fn forget(&mut self, key_use: KeyUse, epoch: u32) {
        self.held.retain(|key| (key.key_use, key.epoch) != (key_use, epoch));
        if self.manifest.key(key_use, epoch).is_none() {
            self.keys.remove(&(key_use, epoch));
        }
    }

    /// Says why there is no key that opens a tier in an epoch.
    #[must_use]
    pub fn missing(&self, tier: Tier, epoch: u32) -> KeyringError {
        let key_use = KeyUse::Tier(tier);
        if self.manifest.is_destroyed(key_use, epoch) {
            return KeyringError::Destroyed { key_use, epoch };
        }
        KeyringError::Missing { what: format!("tier {tier} of {epoch}") }
    }

    /// Returns the key of the state digest.
    ///
    /// # Errors
    /// [`KeyringError::Missing`].
    pub fn digest_key(&self) -> Result<DigestKey, KeyringError> {
        self.keys
            .get(&(KeyUse::Digest, 0))
            .map(|key| DigestKey::from_secret(&key.secret()))
            .ok_or_else(|| KeyringError::Missing { what: "the state digest".into() })
    }

    /// Returns epoch and recipient that seal a tier at a moment.
    ///
    /// # Errors
    /// [`KeyringError::Missing`].
    pub fn sealing(&self, tier: Tier, now_ms: u64) -> Result<(u32, &str), KeyringError> {
        self.manifest
            .sealing_key(tier, school_year(now_ms))
            .map(|key| (key.epoch, key.recipient.as_str()))
            .ok_or_else(|| KeyringError::Missing { what: format!("tier {tier}") })
    }

    /// Returns the key that opens the batches of a tier in an epoch.
    #[must_use]
    pub fn opening(&self, tier: Tier, epoch: u32) -> Option<&OpenKey> {
        self.keys.get(&(KeyUse::Tier(tier), epoch))
    }

    /// Returns the hash of the manifest, which goes into every header.
    #[must_use]
    pub fn manifest_hash(&self) -> Hash32 {
        self.hash
    }

    /// Returns the manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns what the manifest says of revoked devices.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        let mut revocations = Revocations::default();
        revocations.learn(&self.manifest);
        revocations
    }

    /// Returns what the manifest says of destroyed keys.
    #[must_use]
    pub fn destroyed(&self) -> Destroyed {
        Destroyed::of(&self.manifest)
    }

    /// Whether a manifest says at least what this one does of revoked devices and destroyed keys.
    #[must_use]
    pub fn are_kept_by(&self, manifest: &Manifest) -> bool {
        self.revocations().are_in(manifest) && self.destroyed().are_in(manifest)
    }

    /// Returns the documents as they travel.
    #[must_use]
    pub fn documents(&self) -> &KeyDocuments {
        &self.documents
    }
}

//! The keys of this replica: the device key from its bundle, and the key of its present incarnation, which it
//! makes and certifies by itself.

use std::path::Path;

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sonae_proto::bundle::ReplicaBundle;
use sonae_proto::identity::{Beginning, DeviceCertificate, Identity, IdentityText, IncarnationCertificate};
use sonae_proto::ids::{Incarnation, SchoolCode};
use sonae_proto::signed::{Signed, public_key_hex};
use sonae_trust::entropy::{Entropy, EntropyError, SystemEntropy};
use sonae_trust::secret_file;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A secret file cannot be read or written.
    #[error("the keys of this replica cannot be read or written")]
    File(#[from] secret_file::SecretFileError),
    /// A key or certificate has no meaning.
    #[error("{what} of this replica is damaged; enrol it again with a new bundle")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// The system gives no entropy.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The present incarnation as it is stored.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct StoredIncarnation {
    seed: String,
    #[zeroize(skip)]
    certificate: String,
}

/// The keys of a replica, verified.
pub struct ReplicaKeys {
    /// The board's root key.
    pub board: VerifyingKey,
    /// Whose data.
    pub school: SchoolCode,
    /// The device's key.
    pub device: SigningKey,
    /// The key of the present incarnation.
    pub incarnation: SigningKey,
    /// Both certificates.
    pub identity: Identity,
}

impl std::fmt::Debug for ReplicaKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplicaKeys({})", self.name())
    }
}

impl ReplicaKeys {
    /// Returns the name of the present incarnation.
    #[must_use]
    pub fn name(&self) -> Incarnation {
        self.identity.name()
    }

    /// Begins a new incarnation and keeps its key in `DATA/incarnation.json`.
    ///
    /// # Errors
    /// [`IdentityError`].
    ///
    /// # Durability
    /// The key is on stable storage when this returns.
    pub fn begin(
        data: &Path,
        bundle: &ReplicaBundle,
        beginning: Beginning,
        now_ms: u64,
    ) -> Result<Self, IdentityError> {
        let device = signing_key(&bundle.device_seed, "the device key")?;
        let certificate = device_certificate(bundle)?;
        let mut seed = Zeroizing::new([0_u8; 32]);
        SystemEntropy.fill(seed.as_mut())?;
        let key = SigningKey::from_bytes(&seed);
        let body = IncarnationCertificate {
            school: bundle.school,
            replica: certificate.body().replica(),
            key: key.verifying_key(),
            beginning,
            began_ms: now_ms,
        };
        let signed = Signed::sign(body, &device)
            .map_err(|_| IdentityError::Damaged { what: "the incarnation certificate" })?;
        let stored = StoredIncarnation {
            seed: data_encoding::HEXLOWER.encode(seed.as_ref()),
            certificate: signed.text().to_owned(),
        };
        let content = Zeroizing::new(
            serde_json::to_vec(&stored)
                .map_err(|_| IdentityError::Damaged { what: "the incarnation key" })?,
        );
        secret_file::replace(&data.join("incarnation.json"), &content, &mut SystemEntropy)?;
        Self::load(data, bundle)
    }

    /// Loads the keys of a replica and verifies that they belong together.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(data: &Path, bundle: &ReplicaBundle) -> Result<Self, IdentityError> {
        let content = secret_file::read(&data.join("incarnation.json"))?;
        let stored: StoredIncarnation = serde_json::from_slice(&content)
            .map_err(|_| IdentityError::Damaged { what: "the incarnation key" })?;
        let board = board_key(bundle)?;
        let text = IdentityText {
            device: bundle.device_certificate.clone(),
            incarnation: stored.certificate.clone(),
        };
        let identity = text
            .verify(&board, bundle.school)
            .map_err(|_| IdentityError::Damaged { what: "the incarnation certificate" })?;
        let incarnation = signing_key(&stored.seed, "the incarnation key")?;
        if incarnation.verifying_key() != *identity.key() {
            return Err(IdentityError::Damaged { what: "the incarnation key" });
        }
        let device = signing_key(&bundle.device_seed, "the device key")?;
        Ok(Self { board, school: bundle.school, device, incarnation, identity })
    }
}

/// Reads the board's root key of a bundle.
///
/// # Errors
/// [`IdentityError::Damaged`].
pub fn board_key(bundle: &ReplicaBundle) -> Result<VerifyingKey, IdentityError> {
    public_key_hex::parse(&bundle.board_root).ok_or(IdentityError::Damaged { what: "the board's root key" })
}

fn device_certificate(bundle: &ReplicaBundle) -> Result<Signed<DeviceCertificate>, IdentityError> {
    Signed::verify(&bundle.device_certificate, &board_key(bundle)?)
        .map_err(|_| IdentityError::Damaged { what: "the device certificate" })
}

fn signing_key(seed_hex: &str, what: &'static str) -> Result<SigningKey, IdentityError> {
    let bytes = Zeroizing::new(
        data_encoding::HEXLOWER.decode(seed_hex.as_bytes()).map_err(|_| IdentityError::Damaged { what })?,
    );
    let seed = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| IdentityError::Damaged { what })?;
    Ok(SigningKey::from_bytes(&Zeroizing::new(seed)))
}

//! Who writes: the board certifies a device key, the device key certifies the keys of its incarnations.
//!
//! A box that is dark can take a new incarnation by itself, because its device key is at hand. Spec:
//! `docs/spec/keys.md#identity`.

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::ids::{Incarnation, ReplicaId, SchoolCode};
use crate::signed::{Document, DocumentError, Signed, public_key_hex};

/// What a replica is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaKind {
    /// The box in the school.
    Appliance,
    /// A box in the cupboard, or the sealed standby outside the building.
    Spare,
    /// A replica that is opened somewhere else after a disaster.
    Continuity,
}

/// The board's word that a device key belongs to a replica of a school.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCertificate {
    /// Whose replica.
    pub school: SchoolCode,
    /// The device's Ed25519 key, also the key of its TLS certificate.
    #[serde(with = "public_key_hex")]
    pub key: VerifyingKey,
    /// The device's age recipient, to which epoch keys are wrapped.
    pub recipient: String,
    /// What it is for.
    pub kind: ReplicaKind,
    /// When it was enrolled, milliseconds since 1970 UTC.
    pub enrolled_ms: u64,
}

impl Document for DeviceCertificate {
    const LABEL: &'static str = "sonae/device/v1";
}

impl DeviceCertificate {
    /// Returns the replica's name.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        ReplicaId::of_key(self.key.as_bytes())
    }
}

/// Why an incarnation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Beginning {
    /// The device was enrolled with an empty store.
    Enrolment,
    /// The device started from the data of the cloud.
    Rebuild,
    /// The device found that somebody knows more of its log than itself.
    Restored,
}

/// The device's word that a key signs one incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationCertificate {
    /// Whose data.
    pub school: SchoolCode,
    /// Which device.
    pub replica: ReplicaId,
    /// The key that signs the batches of this incarnation.
    #[serde(with = "public_key_hex")]
    pub key: VerifyingKey,
    /// Why it began.
    pub beginning: Beginning,
    /// When, by the device's clock, milliseconds since 1970 UTC.
    pub began_ms: u64,
}

impl Document for IncarnationCertificate {
    const LABEL: &'static str = "sonae/incarnation/v1";
}

impl IncarnationCertificate {
    /// Returns the incarnation's name.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation::of_key(self.key.as_bytes())
    }
}

/// A device certificate and one of its incarnations, both verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Signed by the board.
    pub device: Signed<DeviceCertificate>,
    /// Signed by the device.
    pub incarnation: Signed<IncarnationCertificate>,
}

/// The two texts of an identity, as they travel and are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityText {
    /// Text of the device certificate.
    pub device: String,
    /// Text of the incarnation certificate.
    pub incarnation: String,
}

/// Why an identity is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// One of the documents does not verify.
    #[error("an identity does not verify")]
    Document(#[from] DocumentError),
    /// The documents are not about one device of this school.
    #[error(
        "an identity of school {found} replica {replica} does not belong here; it was enrolled for another school or device"
    )]
    Foreign {
        /// The school that the incarnation certificate names.
        found: SchoolCode,
        /// The replica that it names.
        replica: ReplicaId,
    },
}

impl IdentityText {
    /// Verifies the chain board, device, incarnation, for one school.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn verify(&self, board: &VerifyingKey, school: SchoolCode) -> Result<Identity, IdentityError> {
        let device = Signed::<DeviceCertificate>::verify(&self.device, board)?;
        let incarnation = Signed::<IncarnationCertificate>::verify(&self.incarnation, &device.body().key)?;
        let (of_device, of_incarnation) = (device.body(), incarnation.body());
        if of_device.school != school
            || of_incarnation.school != school
            || of_incarnation.replica != of_device.replica()
        {
            return Err(IdentityError::Foreign { found: of_device.school, replica: of_incarnation.replica });
        }
        Ok(Identity { device, incarnation })
    }
}

impl Identity {
    /// Returns the texts.
    #[must_use]
    pub fn text(&self) -> IdentityText {
        IdentityText {
            device: self.device.text().to_owned(),
            incarnation: self.incarnation.text().to_owned(),
        }
    }

    /// Returns whether these are its texts. Who knows that need not verify them: it costs two signatures.
    #[must_use]
    pub fn has_text(&self, text: &IdentityText) -> bool {
        self.incarnation.text() == text.incarnation && self.device.text() == text.device
    }

    /// Returns the incarnation's name.
    #[must_use]
    pub fn name(&self) -> Incarnation {
        self.incarnation.body().incarnation()
    }

    /// Returns the device's name.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.incarnation.body().replica
    }

    /// Returns the key that signs its batches.
    #[must_use]
    pub fn key(&self) -> &VerifyingKey {
        &self.incarnation.body().key
    }
}

//! Fixed keys and names of the targets: a board, a device, a writer and a node that nobody has.

use ed25519_dalek::SigningKey;
use sonae_proto::identity::{Beginning, DeviceCertificate, IncarnationCertificate, ReplicaKind};
use sonae_proto::ids::{Incarnation, LogName, SchoolCode, Tier};
use sonae_proto::seal::OpenKey;

use crate::Broken;

/// The key of the recipients in the vectors of `proto`.
const AGE_SECRET: &str = "AGE-SECRET-KEY-1U4YSEFGST737GJKX8T0Z7K8SHUP75V7P7U8LTNH60Z7ZH0TYFYLSG5RJ5D";

fn seed(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

/// The board's root.
pub fn root() -> SigningKey {
    seed(1)
}

/// The device.
pub fn device() -> SigningKey {
    seed(2)
}

/// The incarnation.
pub fn writer() -> SigningKey {
    seed(3)
}

/// The node of the cloud.
pub fn node() -> SigningKey {
    seed(4)
}

/// The school.
///
/// # Errors
/// Never: the code is fixed.
pub fn school() -> Result<SchoolCode, Broken> {
    SchoolCode::from_bytes(*b"B113200000011").map_err(|error| Broken(error.to_string()))
}

/// The writer's incarnation.
pub fn incarnation() -> Incarnation {
    Incarnation::of_key(writer().verifying_key().as_bytes())
}

/// The writer's log of a tier.
pub fn log(tier: Tier) -> LogName {
    LogName { tier, incarnation: incarnation() }
}

/// The epoch key.
///
/// # Errors
/// Never: the text is fixed.
pub fn epoch() -> Result<OpenKey, Broken> {
    OpenKey::parse(AGE_SECRET).map_err(|error| Broken(error.to_string()))
}

/// The device's certificate.
///
/// # Errors
/// As [`epoch`].
pub fn device_certificate() -> Result<DeviceCertificate, Broken> {
    Ok(DeviceCertificate {
        school: school()?,
        key: device().verifying_key(),
        recipient: epoch()?.recipient(),
        kind: ReplicaKind::Appliance,
        enrolled_ms: 1_775_000_000_000,
    })
}

/// The incarnation's certificate.
///
/// # Errors
/// As [`epoch`].
pub fn incarnation_certificate() -> Result<IncarnationCertificate, Broken> {
    Ok(IncarnationCertificate {
        school: school()?,
        replica: device_certificate()?.replica(),
        key: writer().verifying_key(),
        beginning: Beginning::Enrolment,
        began_ms: 1_775_000_001_000,
    })
}

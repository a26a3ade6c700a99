//! The board's tool: its authority, its schools' keys, its cloud's descriptor, bundles for new machines.
//!
//! The board's directory is the only place where the root key, the certificate authority and the operations
//! key lie:
//!
//! ```text
//! DIR/            0700; every file in it 0600
//!   lock          flock: one process at a time
//!   board.json    name, root, recipients: public
//!   ca.pem        certificate authority: public
//!   root.key      SECRET  signs manifests, device certificates, the cloud's descriptor
//!   ca.key        SECRET  issues TLS certificates
//!   operations.key SECRET opens epoch keys, so that devices can be enrolled
//!   recovery.key  SECRET  opens epoch keys when all else is lost; leaves this machine
//!   descriptor    signed: the cloud, public
//!   schools/CODE/ school.json, manifest, keys/USE-EPOCH.age, replicas/REPLICA.json: public
//! ```
//!
//! **Invariant**: a run that is interrupted anywhere leaves the directory as it was before or as it is after,
//! never between; leftovers are named `.NAME.unfinished` and go at the next start ([`disk`], [`board`]).
//! **Invariant**: a secret of an epoch, a device or a cloud node never lies in the directory in the clear.
//! **Invariant**: a passphrase is shown only after everything that it opens is on stable storage.
//!
//! **Left out**: splitting the recovery key, renewal of certificates.

pub mod board;
pub mod bundle_file;
pub mod cloud;
pub mod destroy;
pub mod disk;
pub mod epochs;
pub mod error;
pub mod heads;
pub mod hold;
pub mod names;
pub mod overview;
pub mod replica;
pub mod revoke;
pub mod school;
pub mod secret_text;
pub mod words;

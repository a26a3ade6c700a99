//! People and trust: what the box, the console and provisioning share about who may do what.
//!
//! Owns passwords ([`password`]), time-based codes ([`totp`]), the brake on guessing ([`lockout`]),
//! sessions ([`session`]), roles and decisions ([`role`], [`catalogue`], [`policy`]), the board's
//! certificate authority ([`authority`], [`leaf`], [`device_name`], [`device_chain`],
//! [`private_key`]), files of secrets
//! ([`secret_file`]) and one-time passphrases ([`passphrase`]).
//!
//! **Invariants**
//! - No clock of its own: times are told, monotonic in milliseconds or as [`time::OffsetDateTime`].
//! - Entropy is told through [`entropy::Entropy`], with one exception that is stated there: TLS keys
//!   and ECDSA nonces, which `ring` draws itself.
//! - Secrets are wiped when dropped, and `Debug` never shows them.
//! - What is not known is denied: unknown roles, fields and collections never widen access.
//! - Every error ends with what to do next.
//!
//! **Left out:** servers, storage of accounts, the audit trail, and any other crate of the workspace.

pub mod authority;
pub mod catalogue;
pub mod device_chain;
pub mod device_name;
pub mod entropy;
pub mod leaf;
pub mod lockout;
pub mod passphrase;
pub mod password;
pub mod policy;
pub mod private_key;
pub mod role;
pub mod secret_file;
pub mod session;
pub mod totp;

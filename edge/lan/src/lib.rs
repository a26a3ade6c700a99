//! The LAN service of an appliance: HTTPS, the JSON API, one plain page.
//!
//! Owns the accounts of staff ([`people`]), signing in, what each person sees of a record, and how answers
//! and errors look. Serves one [`sonae_store::Store`].
//!
//! **Invariants**
//! - A write is answered after it is kept, and the answer never says "safe" (P1, P2).
//! - Denied by default: a field is shown or taken only if [`sonae_trust::policy`] allows it for this role and
//!   this strength of sign-in; fields of class I and II are absent without a second factor, secrets always.
//! - Nothing that a client sends is unbounded: bodies, names, waiting sign-ins, time.
//! - Logs hold roles and outcomes, never logins, bodies or tokens.
//!
//! **Left out:** the audit of looks at class I and II data, passkeys, service in other languages than
//! Japanese and English, pages beyond the first.

mod api;
mod app;
mod body;
mod clock;
mod connections;
mod error;
mod etag;
mod gate;
mod guard;
mod openapi;
mod page;
pub mod people;
mod proof_line;
mod rebuilding;
mod router;
mod search;
mod serve;
mod shape;
mod sign_in;
mod status_details;
mod status_line;
mod student_list;
mod write;

pub use clock::Monotonic;
pub use openapi::document;
pub use router::router;
pub use serve::{LanConfig, LanError, serve};

//! The blind replica: intake, sites, receipts.
//!
//! A node takes sealed batches over QUIC, verifies them with public keys only, writes them to every site and
//! signs a receipt when the quorum has them. It holds no key to any data and no state that matters: everything
//! is read back from the sites at its start.
//!
//! | file | owns |
//! | --- | --- |
//! | `node` | puts the parts together, starts and stops them |
//! | `server`, `connection`, `frames`, `tls` | the line |
//! | `engine` | the task around the sans-IO engine of `sonae-proto` |
//! | `writer`, `repair` | group commit to the sites |
//! | `site`, `object_name` | one site |
//! | `load`, `superseded`, `contents`, `index`, `reader`, `moved` | what the sites hold, at the start and for a rebuild |
//! | `compaction` | many objects become one; what that stands for is deleted later |
//! | `courier` | bundles by hand, into the same engine |
//! | `export` | one school as files for stock tools, without a node |
//! | `status`, `report` | facts for people |
//! | `identity` | the bundle's content, checked |
//!
//! **Invariant**: a receipt follows the call that reports the batch durable at the quorum (P2).
//! **Invariant**: nothing here replaces what a site holds, and nothing but `compaction` deletes an object: one of which
//! every batch lies whole at every site in another.

pub mod clock;
pub mod compaction;
pub mod connection;
pub mod contents;
pub mod courier;
pub mod engine;
pub mod exit;
pub mod export;
pub mod frames;
pub mod identity;
pub mod index;
pub mod limits;
pub mod load;
pub mod lock;
pub mod moved;
pub mod node;
pub mod object_name;
pub mod reader;
pub mod repair;
pub mod report;
pub mod server;
pub mod site;
pub mod status;
pub mod superseded;
pub mod tls;
pub mod writer;

//! The answers of a running node, snapshots, events and errors, and the machine under it.
//!
//! Errors are `#[non_exhaustive]` where no crate of this workspace matches every case. Snapshots,
//! events and drops are not: the programs must show every field and every case, and a new one
//! must stop the build there.

pub mod counters;
pub mod drain;
pub mod drill;
pub mod error;
pub mod events;
pub mod handover;
pub mod host;
pub mod join;
pub mod overrides;
pub mod query;
pub mod session;
pub mod snapshot;
pub mod vip;

//! What a running node answers with: snapshot, events, errors.

pub mod counters;
pub mod drain;
pub mod error;
pub mod events;
pub mod host;
pub mod query;
pub mod snapshot;

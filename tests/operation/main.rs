//! A running daemon and what its operator does to it.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod daemon_life;
mod policies;
mod reload;
mod validate;
mod validate_facts;
mod validate_nodes;
mod why;

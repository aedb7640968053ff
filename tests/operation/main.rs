//! A running daemon, what its operator does to it, and the cluster that it joins.

#![allow(clippy::unwrap_used, missing_docs)]

mod cluster;
mod cluster_join;
#[path = "../common/mod.rs"]
mod common;
mod daemon_life;
mod drain_restart;
mod policies;
mod reload;
mod report_nodes;
mod upgrade;
mod validate;
mod validate_facts;
mod validate_nodes;
mod why;

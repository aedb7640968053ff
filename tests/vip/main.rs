//! Floating addresses, with the servers and cluster managers of Debian that decide on them.

#![allow(clippy::unwrap_used, missing_docs)]

mod cluster_manager;
#[path = "../common/mod.rs"]
mod common;
mod dhcp;
mod dhcp_failover;
mod dns;
mod etcd;
mod manual;
mod raft;
mod witness;

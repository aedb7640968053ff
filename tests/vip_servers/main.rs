//! netft and servers of Debian: DHCP and DNS for floating addresses, DHCP failover over it.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod dhcp;
mod dns;
mod failover;

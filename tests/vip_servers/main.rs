//! netft beside servers of Debian: DHCP for floating addresses.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod dhcp;

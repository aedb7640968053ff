//! The adapter beside the host it lives in: its device, addresses, rules, packet filter and names.

#![allow(clippy::unwrap_used, missing_docs)]

mod addresses;
#[path = "../common/mod.rs"]
mod common;
mod debug_log;
mod device;
mod hosts;
mod names;
mod overlay_echo;
mod packet_filter;
mod policy_rules;
mod rtnl;

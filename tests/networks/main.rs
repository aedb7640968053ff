//! Networks of every shape under the adapter: who reaches whom, by which routes, and who may not.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod distance;
mod lists;
mod nat;
mod reachability;
mod relay;
mod security;
mod topology;

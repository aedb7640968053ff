//! Deterministic simulation of whole clusters: a virtual clock, modelled networks, and a real
//! [`Engine`](crate::engine::Engine) in every node. Pure.
//!
//! [`run_scenario`] runs a [`Scenario`] to its end, a [`Simulation`] runs one step by step.
//! Networks lose, delay, reorder, duplicate and cut packets, and those above a size; nodes pause,
//! crash and lose carriers. After every step the invariants (table in `rules.rs`) compare the state
//! of the engines with the ground truth. Every random draw comes from the scenario's seed, so one
//! seed and one build give one trace, byte for byte.
//!
//! Data runs through the real sent-frame table, the real replay window and the real acknowledgement
//! schedule. Heartbeats and frames travel decoded and unencrypted.
//!
//! Simplifications: two nodes have a session as soon as any network passes in both directions, and
//! keep it until an end dies. A frame of another session is dropped, as one that fails
//! authentication. Duplicated heartbeats reach the engine, which must tolerate them: only data goes
//! through the replay window.

#![deny(clippy::wildcard_enum_match_arm)]

mod bounds;
mod check;
mod cluster;
mod converge;
mod data;
mod deferred_heartbeats;
mod delivery;
mod faults;
mod network;
mod node;
mod ownership;
mod random;
mod report;
pub(crate) mod rng;
mod routed;
mod rules;
mod scenario;
mod simulation;
mod stream;
mod trace;
mod truth;

pub use crate::sim::{
    ownership::{OwnershipBug, OwnershipReport, run_ownership_world, run_takeover_world},
    report::{DataReport, MAX_VIOLATIONS, PacketRecord, SimReport},
    routed::{RoutedBug, RoutedReport, run_routed_world},
    scenario::{DataFault, FaultAction, MAX_NETWORKS, MAX_NODES, NetworkModel, Scenario},
    simulation::{Simulation, run_scenario},
};

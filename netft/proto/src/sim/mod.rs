//! The simulator: whole clusters on a virtual clock, with a real [`Engine`](crate::engine::Engine)
//! in every node. Pure.
//!
//! [`run_scenario`] plays a [`Scenario`]: heartbeats travel as values through networks that lose,
//! delay, reorder, duplicate and cut; nodes pause, crash and lose carriers. After every step the
//! rules (table in `rules.rs`) compare what the engines believe with what is so. Everything random
//! comes from the scenario's seed, so a seed repeats a run exactly, byte for byte of its trace.
//!
//! Data goes through the real flight, the real replay window and the real debt of
//! acknowledgements; frames travel as numbers, unsealed.
//!
//! Simpler than life: a session is agreed as soon as any network passes each way, and lasts until
//! an end dies; frames of another session reach nobody; copies of a heartbeat reach the engine,
//! which must bear them (the replay window is asked for data only).

mod bounds;
mod check;
mod converge;
mod data;
mod deferred_heartbeats;
mod delivery;
mod faults;
mod mesh;
mod network;
mod node;
mod random;
mod report;
mod rng;
mod rules;
mod scenario;
mod simulation;
mod stream;
mod trace;
mod truth;

pub use crate::sim::{
    mesh::{MAX_MESH_NODES, Mesh, MeshChange, MeshPlan},
    report::{PacketRecord, SimReport},
    scenario::{FaultAction, MAX_NETWORKS, MAX_NODES, NetworkModel, Scenario},
};

/// Violations a run collects before it stops.
pub const MAX_VIOLATIONS: usize = 10;

/// Plays a scenario.
pub fn run_scenario(scenario: &Scenario) -> SimReport {
    let mut world = simulation::Simulation::new(scenario);
    world.run_until(crate::Time::ZERO + scenario.length);
    if scenario.then_converge {
        world.run_to_convergence();
    }
    world.into_report()
}

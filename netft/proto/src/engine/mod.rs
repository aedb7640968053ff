//! The route engine of a node: inputs in, decisions out. Pure.
//!
//! The driver (or the simulator) calls [`Engine::on_input`] with what happened and
//! [`Engine::on_timer`] when [`Engine::next_wake`] is due, and drains [`Engine::poll_output`] after
//! each. Bounds: the work of a call is linear in the routes of the peers concerned, however many
//! others there are (a stall concerns every peer); a call produces
//! at most a few outputs per route of those peers.

mod brown_outs;
mod context;
mod data_comparison;
mod failover_costs;
mod forwarding;
mod heartbeat;
mod peer;
mod peer_changes;
mod peer_session;
mod probes;
mod progress_events;
mod reevaluate;
mod route_engine;
mod saved_peer;
mod status;
mod types;

#[cfg(feature = "sim")]
pub use crate::engine::context::InjectedBug;
pub use crate::engine::{
    data_comparison::RouteTally,
    route_engine::Engine,
    saved_peer::{SavedPeer, SavedRoute, SavedSpec},
    types::{EngineConfig, EngineInput, EngineOutput},
};

#[cfg(test)]
mod tests;

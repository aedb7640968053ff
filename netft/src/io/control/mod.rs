//! The driver: the one thread that feeds the engine and carries out its outputs.
//!
//! It owns the engine, the sockets, the sessions and the forwarding state, and is a thread of its
//! own, so that neither a handshake nor an operator's request delays a heartbeat. It decides
//! nothing: inputs go to [`Engine`](netft_proto::engine::Engine), outputs become frames, tables and
//! events.
//!
//! ```text
//! workers ────────heartbeats──▶ ┌────────┐ ──heartbeat frames──▶ sockets
//! netlink watcher ─interfaces─▶ │ driver │ ──Fib───────────────▶ workers, QUIC
//! QUIC ───────────sessions────▶ │ engine │ ──events────────────▶ subscribers
//! API ────────────requests────▶ └────────┘
//! ```
//!
//! Where another part of it keeps state over time (redial, relays, NAT, QUIC connections, carrier
//! polls, retries), that part is a [`Component`](component::Component): it sees the node's state
//! read-only and answers with actions.

mod carrier_poll;
mod component;
mod components;
mod control_sessions;
mod drain;
mod drill;
mod drill_runner;
mod driver;
mod frame_limits;
mod handover;
mod nat;
mod network_watch;
mod overlay_watch;
mod overrides;
mod peer_absence;
mod peer_table;
mod quic_connections;
mod reconfigure;
mod redial;
mod relay;
mod requests;
mod retries;
mod route_planner;
mod route_table;
mod route_trials;
mod routes;
mod run;
mod segmented_sends;
mod session_problem;
mod snapshot;
mod sockets;
mod steering;
mod table_publisher;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod test_node;

pub(crate) use handover::ResumedState;
pub(crate) use overrides::OverrideTable;
pub(crate) use run::{DriverParts, RandomSeeds, spawn_driver};

//! netft: a virtual network adapter that outlives the networks under it.
//!
//! Decisions and formats are in [`netft_proto`], which does no I/O; this crate is the I/O around
//! them. [`Adapter`] is the way in, [`api`] what it answers with.

pub mod adapter;
pub mod api;
pub mod io;

pub use adapter::Adapter;
pub use netft_proto::{
    NodeKey, PeerId, RouteId, Time, config, engine, failover, ids, loss_detection, packet, route,
    session, time, topology, wire,
};

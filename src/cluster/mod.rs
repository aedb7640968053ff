//! The cluster of this node: the roster on disk, applied to the config, exchanged with the peers.

mod joins;
pub mod node_config;
pub mod service;
pub mod store;

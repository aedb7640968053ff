//! Ownership by raft: openraft among the voters, its log and vote in a redb file, its messages on
//! the control sessions. The decisions are those of [`netft::vip::ownership`]; the argument why two
//! nodes never answer stands in `docs/design/vip-ownership.md`.

mod engine;
mod event;
mod machine;
mod network;
mod serve;
mod settings;
mod start;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod voter;

pub use self::{
    network::OwnershipTransport,
    settings::{EngineChannels, EngineStatus, OwnershipNode, PeerMessage, RaftSettings},
    start::RaftEngine,
};

//! Ownership by raft: openraft among the voters, its log and vote in a redb file, its messages on
//! the control sessions. The decisions are those of [`netft::vip::ownership`]; the argument why two
//! nodes never answer stands in `docs/design/vip-ownership.md`.

mod election;
mod engine;
mod event;
mod machine;
mod network;
mod publish;
mod revival;
mod serve;
mod settings;
mod start;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod voter;

pub use self::{
    network::OwnershipTransport,
    settings::{EngineChannels, OwnershipNode, PeerMessage, RaftSettings},
    start::RaftEngine,
    status::{EngineRole, EngineStatus},
};

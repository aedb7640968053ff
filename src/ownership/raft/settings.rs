//! Settings, channels and state of the engine.

use std::{path::PathBuf, sync::Arc};

use netft::vip::ownership::VipPolicy;
use tokio::sync::{mpsc, oneshot};

use crate::ownership::{OwnershipRequest, OwnershipUpdate};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnershipNode {
    /// Its name.
    pub name: String,
    /// Its number in the log, the same on every node and for ever.
    pub id: u64,
    /// It votes.
    pub is_voter: bool,
}

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct RaftSettings {
    /// This node's name.
    pub node: String,
    /// All nodes, this one included.
    pub nodes: Vec<OwnershipNode>,
    /// Rules of the addresses.
    pub policies: Vec<VipPolicy>,
    /// File of the log and the vote.
    pub store: PathBuf,
}

/// A request of another node.
#[derive(Debug)]
pub struct PeerMessage {
    /// The request.
    pub payload: Vec<u8>,
    /// Channel of the reply. Dropping it refuses the request.
    pub reply_tx: oneshot::Sender<Vec<u8>>,
}

/// Channels of the engine.
#[derive(Debug)]
pub struct EngineChannels {
    /// To the address service.
    pub updates: mpsc::Sender<OwnershipUpdate>,
    /// From the address service.
    pub requests: mpsc::Receiver<OwnershipRequest>,
    /// From the other nodes.
    pub peers: mpsc::Receiver<PeerMessage>,
    /// Other rules of the addresses, after a change of the config.
    pub policies: mpsc::Receiver<Vec<VipPolicy>>,
    /// Nodes that netft reaches, or not over any route.
    pub reachability: mpsc::Receiver<(Arc<str>, bool)>,
}

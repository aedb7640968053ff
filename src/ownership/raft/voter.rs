//! Raft on a node that votes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{BasicNode, Config, Raft, RaftMetrics, SnapshotPolicy};
use tokio::sync::watch;

use super::{
    machine::OwnershipMachine,
    network::{LeaseEvidence, OwnershipNetwork, OwnershipTransport},
    settings::RaftSettings,
    store::{OwnershipStore, StoreProblem},
    types::OwnershipLog,
};

/// Raft's timing, milliseconds. Its election timers rest: the engine begins elections. For the
/// longest of its election times after it heard the leader, raft refuses votes.
const HEARTBEAT_MS: u64 = 80;
const ELECTION_MS: (u64, u64) = (90, 100);
/// Time for which raft refuses votes after it heard the leader, whatever netft says.
pub(super) const VOTE_REFUSAL: Duration = Duration::from_millis(ELECTION_MS.1);
/// Entries after which the log is replaced by a snapshot, and how many stay for slow followers.
const SNAPSHOT_AFTER: u64 = 1000;
const KEPT_ENTRIES: u64 = 100;
/// Raft's account of itself.
pub(super) type RaftState = watch::Receiver<RaftMetrics<u64, BasicNode>>;

/// Raft on this node.
pub(super) struct Voter {
    pub(super) raft: Raft<OwnershipLog>,
    pub(super) machine: OwnershipMachine,
    pub(super) metrics: RaftState,
}

/// The store that raft starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreOrigin {
    /// The node may start for the first time: a missing store is created.
    New,
    /// There was a store: a missing one would let this node vote twice.
    Known,
}

/// Starts raft from its store.
pub(super) async fn start_voter<T: OwnershipTransport>(
    settings: &RaftSettings,
    me: u64,
    transport: &Arc<T>,
    evidence: &Arc<LeaseEvidence>,
    origin: StoreOrigin,
) -> Result<Voter, StoreProblem> {
    let path = settings.store.clone();
    let open = move || OwnershipStore::open(&path, origin == StoreOrigin::New);
    let unusable = |error: &dyn ToString| StoreProblem::Unusable(error.to_string());
    let store = tokio::task::spawn_blocking(open).await.map_err(|error| unusable(&error))??;
    let machine = OwnershipMachine::restore(store.clone()).map_err(|error| unusable(&error))?;
    let config = Config {
        cluster_name: "netft".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.0,
        election_timeout_max: ELECTION_MS.1,
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_AFTER),
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        // Below the bound of a request, as JSON, with entries of the most decisions.
        snapshot_max_chunk_size: 12 * 1024,
        max_payload_entries: 4,
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(|error| unusable(&error))?);
    let (transport, evidence) = (Arc::clone(transport), Arc::clone(evidence));
    let network = OwnershipNetwork { transport, evidence };
    let raft = Raft::new(me, config, network, store, machine.clone())
        .await
        .map_err(|error| unusable(&format!("raft does not start: {error}")))?;
    let voter = Voter { metrics: raft.metrics(), raft, machine };
    voter.join_members(settings).await.map_err(|error| unusable(&error))?;
    Ok(voter)
}

impl Voter {
    /// Begins the log with its members, if nobody has; a witness leaves that to the others.
    pub(super) async fn join_members(&self, settings: &RaftSettings) -> Result<(), String> {
        let is_begun = self.raft.is_initialized().await.map_err(|error| error.to_string())?;
        if is_begun || settings.policies.is_empty() {
            return Ok(());
        }
        let voters = settings.nodes.iter().filter(|node| node.is_voter);
        let members: BTreeMap<u64, BasicNode> =
            voters.map(|node| (node.id, BasicNode::new(&node.name))).collect();
        // Every voter begins with the same members, so it does not matter who is first.
        if let Err(error) = self.raft.initialize(members).await {
            tracing::debug!(%error, "ownership: begun by another voter");
        }
        Ok(())
    }
}

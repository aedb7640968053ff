//! Raft's messages, over the control sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use netft::vip::ownership::{AckClock, LeaseRules, VoteAges};
use openraft::{
    BasicNode, RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};

use super::types::{OwnershipAnswer, OwnershipLog, OwnershipMessage};
use crate::ownership::clock;

/// Silence of a leader that netft reaches until it counts as lost, a few heartbeats; the voters
/// refuse votes meanwhile. Shorter than a lease, so an election ends before the leases do.
pub(super) const LEADER_SILENCE: Duration = Duration::from_millis(320);
/// Pause of the replication to a node that cannot be reached.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(50);

/// How requests reach the other nodes, by name.
pub trait OwnershipTransport: Send + Sync + 'static {
    /// Sends a request and awaits its reply.
    ///
    /// # Errors
    /// There was no reply: in words for the log.
    fn request(
        &self,
        node: &str,
        payload: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
}

/// Evidence from raft's messages for the engine: when leaders were acknowledged; and which nodes
/// netft cannot reach.
#[derive(Debug)]
pub(super) struct LeaseEvidence {
    me: u64,
    ack_clock: Mutex<AckClock>,
    vote_ages: Mutex<VoteAges>,
    unreachable: Mutex<BTreeSet<String>>,
    /// The other nodes, by number.
    names: BTreeMap<u64, String>,
    /// Number of the leader that was acknowledged last; 0: none.
    leader: AtomicU64,
    /// A voter that was asked for its vote has a longer log than this node.
    is_log_behind: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An acknowledgement of a leader under way.
pub(super) struct AckGuard(Arc<LeaseEvidence>);

impl Drop for AckGuard {
    fn drop(&mut self) {
        lock(&self.0.ack_clock).end_ack(clock::now());
    }
}

impl LeaseEvidence {
    pub(super) fn new(me: u64, names: BTreeMap<u64, String>) -> Arc<Self> {
        Arc::new(Self {
            me,
            names,
            leader: AtomicU64::new(0),
            ack_clock: Mutex::new(AckClock::new(clock::now())),
            vote_ages: Mutex::default(),
            unreachable: Mutex::default(),
            is_log_behind: AtomicBool::default(),
        })
    }

    /// Counts what happens until the guard is dropped as an acknowledgement of a leader.
    pub(super) fn begin_ack(self: &Arc<Self>) -> AckGuard {
        lock(&self.ack_clock).begin_ack();
        AckGuard(Arc::clone(self))
    }

    /// Notes the leader that is about to be acknowledged; `None`: this node ceased to be it.
    pub(super) fn follow_leader(&self, leader: Option<u64>) {
        self.leader.store(leader.unwrap_or_default(), Relaxed);
    }

    /// True if this node heard another leader than the candidate a moment ago, and netft reaches
    /// it: the candidate has lost its own way to that leader, and this node gives it no vote.
    pub(super) fn is_led(&self, candidate: Option<u64>) -> bool {
        let leader = self.leader.load(Relaxed);
        let is_heard = self.last_ack() + LEADER_SILENCE > clock::now();
        let is_reached = self.names.get(&leader).is_some_and(|name| !self.is_unreachable(name));
        is_heard && is_reached && candidate != Some(leader)
    }

    /// Time since this node acknowledged a leader last.
    pub(super) fn ack_age(&self) -> Duration {
        lock(&self.ack_clock).age(clock::now())
    }

    /// When this node acknowledged a leader last, as far as that is over.
    pub(super) fn last_ack(&self) -> netft::Time {
        lock(&self.ack_clock).last_ack()
    }

    /// True if a voter with a longer log refused its vote since the last call.
    pub(super) fn take_log_behind(&self) -> bool {
        self.is_log_behind.swap(false, Relaxed)
    }

    fn add_vote(&self, term: u64, voter: u64, age: Duration) {
        let now = clock::now();
        lock(&self.vote_ages).add_vote(term, voter, now, age, &LeaseRules::DEFAULT);
    }

    /// See [`VoteAges::newest_ack`]. Once: a leader that raft restarts in its term does not know
    /// the leases that it granted in it.
    pub(super) fn take_newest_ack(&self, term: u64, voters: usize) -> Option<netft::Time> {
        std::mem::take(&mut *lock(&self.vote_ages)).newest_ack(term, voters)
    }

    /// netft reaches the node, or not.
    pub(super) fn set_reachable(&self, node: &str, is_reachable: bool) {
        let mut unreachable = lock(&self.unreachable);
        if is_reachable {
            unreachable.remove(node);
        } else {
            unreachable.insert(node.to_owned());
        }
    }

    /// Requests to the node would wait in its session until a route works.
    pub(super) fn is_unreachable(&self, node: &str) -> bool {
        lock(&self.unreachable).contains(node)
    }
}

/// Sends a message and awaits its answer.
pub(super) async fn send_message<T: OwnershipTransport>(
    transport: &T,
    evidence: &LeaseEvidence,
    node: &str,
    message: &OwnershipMessage,
) -> Result<OwnershipAnswer, String> {
    if evidence.is_unreachable(node) {
        return Err(format!("no route to {node} works"));
    }
    let payload = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    let answer = transport.request(node, payload).await?;
    serde_json::from_slice(&answer).map_err(|error| format!("{node}: malformed answer: {error}"))
}

/// Makes a client of each node.
pub(super) struct OwnershipNetwork<T> {
    pub(super) transport: Arc<T>,
    pub(super) evidence: Arc<LeaseEvidence>,
}

/// Client of one node.
pub(super) struct OwnershipClient<T> {
    target: u64,
    name: String,
    transport: Arc<T>,
    evidence: Arc<LeaseEvidence>,
}

impl<T: OwnershipTransport> RaftNetworkFactory<OwnershipLog> for OwnershipNetwork<T> {
    type Network = OwnershipClient<T>;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Self::Network {
        OwnershipClient {
            target,
            name: node.addr.clone(),
            transport: Arc::clone(&self.transport),
            evidence: Arc::clone(&self.evidence),
        }
    }
}

impl<T: OwnershipTransport> OwnershipClient<T> {
    async fn exchange<E: std::error::Error>(
        &self,
        message: OwnershipMessage,
        limit: Duration,
    ) -> Result<OwnershipAnswer, RPCError<u64, BasicNode, E>> {
        let send = send_message(&*self.transport, &self.evidence, &self.name, &message);
        let failed =
            |error: String| RPCError::Unreachable(Unreachable::new(&std::io::Error::other(error)));
        match tokio::time::timeout(limit, send).await {
            Ok(Ok(OwnershipAnswer::Failed(error))) | Ok(Err(error)) => Err(failed(error)),
            Ok(Ok(answer)) => Ok(answer),
            Err(_) => Err(failed(format!("{} did not answer within {limit:?}", self.name))),
        }
    }
}

fn unexpected<E: std::error::Error>() -> RPCError<u64, BasicNode, E> {
    RPCError::Network(NetworkError::new(&std::io::Error::other("an answer to another question")))
}

impl<T: OwnershipTransport> RaftNetwork<OwnershipLog> for OwnershipClient<T> {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<OwnershipLog>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        match self.exchange(OwnershipMessage::Append(rpc), option.hard_ttl()).await? {
            OwnershipAnswer::Append(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<OwnershipLog>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>,
    > {
        match self.exchange(OwnershipMessage::Snapshot(rpc), option.hard_ttl()).await? {
            OwnershipAnswer::Snapshot(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        let (vote, term, last) = (rpc.vote, rpc.vote.leader_id.term, rpc.last_log_id);
        // This node has voted for itself; it acknowledges no earlier leader from here on.
        self.evidence.add_vote(term, self.evidence.me, self.evidence.ack_age());
        match self.exchange(OwnershipMessage::Vote(rpc), option.hard_ttl()).await? {
            OwnershipAnswer::Vote { response, age } => {
                if response.vote == vote {
                    self.evidence.add_vote(term, self.target, age);
                } else if response.last_log_id > last {
                    self.evidence.is_log_behind.store(true, Relaxed);
                }
                Ok(response)
            }
            _ => Err(unexpected()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_count_for_one_leadership_of_their_term() {
        let evidence = LeaseEvidence::new(1, BTreeMap::new());
        for voter in [1, 2] {
            evidence.add_vote(4, voter, Duration::from_secs(9));
        }
        assert!(evidence.take_newest_ack(4, 3).is_some());
        assert_eq!(evidence.take_newest_ack(4, 3), None, "raft was started again");
    }
}

//! Engines of several nodes in one process, with real stores, over a network that can be cut.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use netft::{
    Time,
    vip::{FencingToken, ownership::VipPolicy},
};
use openraft::{
    CommittedLeaderId, LogId, RaftLogReader, StorageError, Vote,
    storage::RaftLogStorage,
    testing::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::{
    EngineChannels, OwnershipNode, OwnershipTransport, PeerMessage, RaftEngine, RaftSettings,
    machine::OwnershipMachine,
    store::{OwnershipStore, StoreProblem, forget_store},
    types::OwnershipLog,
};
use crate::ownership::{OWNERSHIP_QUEUE_LEN, OwnershipRequest, OwnershipUpdate, clock};

const NODE_NAMES: [&str; 3] = ["a", "b", "c"];
const LEASE_TIME: Duration = Duration::from_millis(400);
/// How long a test waits for what must happen.
const TEST_DEADLINE: Duration = Duration::from_secs(60);
/// Time in which netft would notice that a node cannot be reached.
const DETECTION_TIME: Duration = Duration::from_millis(150);

/// The network between the nodes.
#[derive(Default)]
struct Hub {
    inboxes: Mutex<BTreeMap<String, mpsc::Sender<PeerMessage>>>,
    cut: Mutex<BTreeSet<String>>,
    /// How long each request and each reply is on its way.
    delay: Mutex<Duration>,
}

struct HubTransport {
    hub: Arc<Hub>,
    from: String,
}

impl OwnershipTransport for HubTransport {
    async fn request(&self, node: &str, payload: Vec<u8>) -> Result<Vec<u8>, String> {
        let is_cut = |name: &str| self.hub.cut.lock().unwrap().contains(name);
        let inbox = self.hub.inboxes.lock().unwrap().get(node).cloned();
        let delay = *self.hub.delay.lock().unwrap();
        let exchange = async {
            sleep(delay).await;
            let (reply_tx, reply) = oneshot::channel();
            inbox?.send(PeerMessage { payload, reply_tx }).await.ok()?;
            let reply = reply.await.ok();
            sleep(delay).await;
            reply
        };
        let reply = exchange.await.filter(|_| !is_cut(node) && !is_cut(&self.from));
        match reply {
            Some(reply) => Ok(reply),
            None => {
                sleep(Duration::from_secs(2)).await;
                Err("no answer".to_owned())
            }
        }
    }
}

/// A time in which a node answers for the address.
#[derive(Clone, Debug)]
struct Held {
    node: &'static str,
    vip: Arc<str>,
    token: FencingToken,
    from: Time,
    until: Time,
}

type HeldTimes = Arc<Mutex<Vec<Held>>>;

struct Node {
    engine: RaftEngine,
    requests: mpsc::Sender<OwnershipRequest>,
    policies: mpsc::Sender<Vec<VipPolicy>>,
    reachability: mpsc::Sender<(Arc<str>, bool)>,
    service: JoinHandle<()>,
}

impl Node {
    fn term(&self) -> u64 {
        self.engine.status().borrow().term
    }
}

struct Cluster {
    hub: Arc<Hub>,
    folder: TempDir,
    vips: Vec<&'static str>,
    held: HeldTimes,
    nodes: BTreeMap<&'static str, Node>,
}

/// The address service: records when this node answers.
async fn serve_addresses(
    node: &'static str,
    mut updates: mpsc::Receiver<OwnershipUpdate>,
    requests: mpsc::Sender<OwnershipRequest>,
    held: HeldTimes,
) {
    while let Some(update) = updates.recv().await {
        match update {
            OwnershipUpdate::Granted { leases, until, .. } => {
                let from = clock::now();
                let leases = leases.into_iter();
                let leases = leases.map(|(vip, token)| Held { node, vip, token, from, until });
                held.lock().unwrap().extend(leases);
            }
            OwnershipUpdate::Revoked { vip, token } => {
                let now = clock::now();
                for one in held.lock().unwrap().iter_mut() {
                    if one.node == node && one.vip == vip {
                        one.until = one.until.min(now);
                    }
                }
                requests.send(OwnershipRequest::Released { vip, token }).await.unwrap();
            }
            OwnershipUpdate::Owner { .. }
            | OwnershipUpdate::Notice { .. }
            | OwnershipUpdate::Problem { .. } => {}
        }
    }
}

impl Cluster {
    async fn start(vips: &[&'static str]) -> Self {
        let mut cluster = Self {
            hub: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
            vips: vips.to_vec(),
            held: HeldTimes::default(),
            nodes: BTreeMap::new(),
        };
        for name in NODE_NAMES {
            cluster.start_node(name).await;
        }
        cluster
    }

    async fn start_node(&mut self, name: &'static str) {
        let (peers_tx, peers) = mpsc::channel(64);
        let (updates, service_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let (requests, requests_rx) = mpsc::channel(OWNERSHIP_QUEUE_LEN);
        let (reachability, reachability_rx) = mpsc::channel(64);
        let node = |(name, id): (&&str, u64)| OwnershipNode {
            name: (*name).to_owned(),
            id,
            is_voter: true,
        };
        let settings = RaftSettings {
            node: name.to_owned(),
            nodes: NODE_NAMES.iter().zip(1..).map(node).collect(),
            policies: self.vips.iter().map(|vip| VipPolicy::new(vip, LEASE_TIME)).collect(),
            store: self.store_path(name),
        };
        let transport = HubTransport { hub: Arc::clone(&self.hub), from: name.to_owned() };
        let (policies, policies_rx) = mpsc::channel(1);
        let channels = EngineChannels {
            updates,
            requests: requests_rx,
            peers,
            policies: policies_rx,
            reachability: reachability_rx,
        };
        self.hub.inboxes.lock().unwrap().insert(name.to_owned(), peers_tx);
        let engine = RaftEngine::start(settings, Arc::new(transport), channels).await.unwrap();
        for vip in &self.vips {
            let (vip, is_able) = ((*vip).into(), true);
            let able = OwnershipRequest::Able { vip, is_able, reason: None, role_since: None };
            requests.send(able).await.unwrap();
        }
        let service = serve_addresses(name, service_rx, requests.clone(), Arc::clone(&self.held));
        let service = tokio::spawn(service);
        for other in self.nodes.values() {
            let _ = other.reachability.send((name.into(), true)).await;
        }
        self.nodes.insert(name, Node { engine, requests, policies, reachability, service });
    }

    fn store_path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name).join("ownership.redb")
    }

    /// As if killed: what it was granted runs on.
    async fn kill_node(&mut self, name: &'static str) {
        let node = self.nodes.remove(name).unwrap();
        self.hub.inboxes.lock().unwrap().remove(name);
        node.service.abort();
        drop(node);
        sleep(DETECTION_TIME).await;
        for other in self.nodes.values() {
            other.reachability.send((name.into(), false)).await.unwrap();
        }
    }

    fn owner(&self, vip: &str) -> Option<Held> {
        let now = clock::now();
        let held = self.held.lock().unwrap();
        held.iter().rev().find(|one| &*one.vip == vip && one.until > now).cloned()
    }

    async fn await_owner(&self, vip: &str, is_good: impl Fn(&Held) -> bool) -> Held {
        let began = Instant::now();
        loop {
            if let Some(owner) = self.owner(vip).filter(&is_good) {
                return owner;
            }
            assert!(began.elapsed() < TEST_DEADLINE, "{vip} has no owner");
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn move_address(&self, from: &str, vip: &str, to: &str) -> Result<(), String> {
        let (reply, moved) = oneshot::channel();
        let order = OwnershipRequest::Move { vip: vip.into(), to: Some(to.into()), reply };
        self.nodes[from].requests.send(order).await.unwrap();
        moved.await.unwrap()
    }

    /// No two nodes held an address at once, and tokens only grow.
    fn check_held(&self) {
        let held = self.held.lock().unwrap();
        assert!(held.len() > 1, "too little happened");
        for (place, one) in held.iter().enumerate() {
            for other in held[..place].iter().filter(|other| other.vip == one.vip) {
                if other.node != one.node {
                    let apart = other.until <= one.from || one.until <= other.from;
                    assert!(apart, "{one:?} overlaps {other:?}");
                }
                assert!(other.token <= one.token, "{one:?} after {other:?}");
            }
        }
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("{} runs: p50 {:?}, p99 {:?}", times.len(), at(50), at(99))
}

/// F-60.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_goes_on_when_its_owner_dies_and_never_has_two() {
    let mut cluster = Cluster::start(&["v", "w"]).await;
    let mut takeovers = Vec::new();
    for _ in 0..8 {
        let owner = cluster.await_owner("v", |_| true).await;
        let began = Instant::now();
        cluster.kill_node(owner.node).await;
        let next = cluster.await_owner("v", |one| one.node != owner.node).await;
        takeovers.push(began.elapsed());
        assert!(next.token > owner.token);
        cluster.await_owner("w", |one| one.node != owner.node).await;
        cluster.start_node(owner.node).await;
        sleep(Duration::from_millis(300)).await;
    }
    println!("owner killed, takeover: {}", percentiles(takeovers));
    cluster.check_held();
}

/// F-103: candidates that end each other's elections would use a term each.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn few_terms_are_used_when_the_leader_is_lost_and_messages_are_slow() {
    const KILL_ROUNDS: u64 = 4;
    let mut cluster = Cluster::start(&["v"]).await;
    cluster.await_owner("v", |_| true).await;
    *cluster.hub.delay.lock().unwrap() = Duration::from_millis(25);
    let mut used = 0;
    for _ in 0..KILL_ROUNDS {
        cluster.await_owner("v", |_| true).await;
        let led = |node: &Node| (node.engine.status().borrow().leader.clone(), node.term());
        let (leader, term) = led(cluster.nodes.values().next().unwrap());
        let leader = NODE_NAMES.into_iter().find(|name| leader.as_deref() == Some(*name)).unwrap();
        cluster.kill_node(leader).await;
        let began = clock::now();
        cluster.await_owner("v", |one| one.node != leader && one.from > began).await;
        used += cluster.nodes.values().map(Node::term).max().unwrap() - term;
        cluster.start_node(leader).await;
        sleep(Duration::from_secs(1)).await;
    }
    println!("{used} terms for {KILL_ROUNDS} lost leaders");
    assert!(used <= 3 * KILL_ROUNDS, "{used} terms for {KILL_ROUNDS} lost leaders");
    cluster.check_held();
}

/// A node that runs but reaches nobody keeps its lease to its end, and nothing longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_owner_that_is_cut_off_loses_the_address_and_gets_none_back_by_itself() {
    let cluster = Cluster::start(&["v"]).await;
    for _ in 0..3 {
        let owner = cluster.await_owner("v", |_| true).await;
        cluster.hub.cut.lock().unwrap().insert(owner.node.to_owned());
        sleep(DETECTION_TIME).await;
        let others: Vec<_> = NODE_NAMES.into_iter().filter(|name| *name != owner.node).collect();
        for name in &others {
            let node = &cluster.nodes[name];
            node.reachability.send((owner.node.into(), false)).await.unwrap();
            let lost = ((*name).into(), false);
            cluster.nodes[owner.node].reachability.send(lost).await.unwrap();
        }
        cluster.await_owner("v", |one| one.node != owner.node).await;
        cluster.hub.cut.lock().unwrap().clear();
        for name in &others {
            let node = &cluster.nodes[name];
            node.reachability.send((owner.node.into(), true)).await.unwrap();
            let found = ((*name).into(), true);
            cluster.nodes[owner.node].reachability.send(found).await.unwrap();
        }
        sleep(Duration::from_millis(500)).await;
    }
    cluster.check_held();
}

/// F-141.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_hands_the_address_over_from_any_node() {
    const MESSAGE_DELAY: Duration = Duration::from_millis(25);
    let cluster = Cluster::start(&["v"]).await;
    cluster.await_owner("v", |_| true).await;
    *cluster.hub.delay.lock().unwrap() = MESSAGE_DELAY;
    let mut gaps = Vec::new();
    for n in 0..12 {
        let owner = cluster.await_owner("v", |_| true).await;
        let to = NODE_NAMES.into_iter().find(|name| *name != owner.node).unwrap();
        let began = Instant::now();
        let moved = cluster.move_address(NODE_NAMES[n % 3], "v", to).await;
        if let Err(refusal) = &moved {
            // A leader that was just elected has not heard every node.
            assert!(began.elapsed() < TEST_DEADLINE, "{refusal}");
            sleep(Duration::from_millis(200)).await;
            continue;
        }
        let next = cluster.await_owner("v", |one| one.node == to).await;
        let held = cluster.held.lock().unwrap();
        let first = held.iter().find(|one| one.token == next.token).unwrap();
        let before = held.iter().filter(|one| one.token < next.token).map(|one| one.until);
        gaps.push(first.from.since(before.max().unwrap()));
    }
    println!("moved, gap: {}", percentiles(gaps.clone()));
    assert!(gaps.len() >= 6, "most moves succeed");
    gaps.sort();
    // The release to the leader, and its word to the new owner; no further question and round.
    let median = gaps[gaps.len() / 2];
    assert!(median < 3 * MESSAGE_DELAY, "{median:?}");
    cluster.check_held();
    let refused = cluster.move_address("a", "no such address", "b").await;
    assert!(refused.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn decisions_survive_a_restart_of_all_nodes() {
    let mut cluster = Cluster::start(&["v"]).await;
    let owner = cluster.await_owner("v", |_| true).await;
    for name in NODE_NAMES {
        cluster.kill_node(name).await;
    }
    cluster.start_node("a").await;
    sleep(Duration::from_secs(1)).await;
    let alone = clock::now();
    assert!(cluster.owner("v").is_none_or(|one| one.from < alone), "one of three decides nothing");
    for name in ["b", "c"] {
        cluster.start_node(name).await;
    }
    let next = cluster.await_owner("v", |one| one.from > alone).await;
    assert!(next.token >= owner.token, "{next:?} {owner:?}");
    assert!(next.token > owner.token || next.node == owner.node);
    cluster.check_held();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_that_is_added_while_the_engines_run_gets_an_owner() {
    let cluster = Cluster::start(&["v"]).await;
    cluster.await_owner("v", |_| true).await;
    let status = cluster.nodes["a"].engine.status();
    let voters: Vec<_> = NODE_NAMES.iter().map(|name| ((*name).to_owned(), true)).collect();
    assert_eq!(status.borrow().voters, voters);
    let leaders: Vec<_> =
        cluster.nodes.values().map(|node| node.engine.status().borrow().leader.clone()).collect();
    assert!(leaders[0].is_some() && leaders.iter().all(|one| *one == leaders[0]), "{leaders:?}");
    for node in cluster.nodes.values() {
        let policies = ["v", "w"].map(|vip| VipPolicy::new(vip, LEASE_TIME)).to_vec();
        node.policies.send(policies).await.unwrap();
        let (vip, is_able) = ("w".into(), true);
        let able = OwnershipRequest::Able { vip, is_able, reason: None, role_since: None };
        node.requests.send(able).await.unwrap();
    }
    cluster.await_owner("w", |_| true).await;
    cluster.check_held();
}

/// F-88.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_voter_with_a_damaged_store_does_not_vote_and_says_why() {
    let mut cluster = Cluster::start(&["v"]).await;
    cluster.await_owner("v", |_| true).await;
    cluster.kill_node("c").await;
    let path = cluster.store_path("c");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 3;
    bytes[..64].fill(0xee);
    bytes[middle..].fill(0xee);
    std::fs::write(&path, bytes).unwrap();
    cluster.start_node("c").await;
    let problem = cluster.nodes["c"].engine.status().borrow().problem.clone().unwrap();
    assert!(problem.contains("does not vote") && problem.contains("c/ownership.redb"), "{problem}");
    // It may own the address nevertheless, by the votes of the others.
    let owner = cluster.await_owner("v", |_| true).await;
    if owner.node != "c" {
        let mut moved = Err(String::new());
        for _ in 0..50 {
            moved = cluster.move_address("c", "v", "c").await;
            if moved.is_ok() {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        moved.unwrap();
    }
    // One voter is left of the two: nobody decides.
    cluster.kill_node("a").await;
    let began = clock::now();
    sleep(3 * LEASE_TIME).await;
    assert!(cluster.owner("v").is_none(), "{:?} {began}", cluster.owner("v"));
    cluster.check_held();
}

/// F-142.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_voter_whose_store_was_deleted_does_not_vote_until_it_is_added_again() {
    let mut cluster = Cluster::start(&["v"]).await;
    cluster.await_owner("v", |_| true).await;
    cluster.kill_node("c").await;
    std::fs::remove_file(cluster.store_path("c")).unwrap();
    cluster.start_node("c").await;
    let problem = cluster.nodes["c"].engine.status().borrow().problem.clone().unwrap();
    assert!(problem.contains("the file is gone") && problem.contains("does not vote"), "{problem}");
    assert!(!cluster.store_path("c").exists(), "it begins no new store");
    forget_store(&cluster.store_path("c"));
    cluster.kill_node("c").await;
    cluster.start_node("c").await;
    assert_eq!(cluster.nodes["c"].engine.status().borrow().problem, None);
    cluster.check_held();
}

/// Content of a store.
fn content_of(store: &mut OwnershipStore) -> (Option<Vote<u64>>, Vec<String>) {
    let read = async {
        let entries = store.try_get_log_entries(..).await.unwrap();
        let entries = entries.iter().map(|entry| format!("{entry:?}")).collect();
        (store.read_vote().await.unwrap(), entries)
    };
    futures_util::FutureExt::now_or_never(read).unwrap()
}

/// F-101: with one byte changed, a store is what it was, or is refused; it never goes back to what
/// it was before its last vote.
#[tokio::test]
async fn a_store_with_a_changed_byte_is_whole_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.redb");
    let mut store = OwnershipStore::open(&path, true).unwrap();
    for term in 1..6 {
        let entry = openraft::Entry::<OwnershipLog> {
            log_id: LogId::new(CommittedLeaderId::new(term, 1), term),
            payload: openraft::EntryPayload::Blank,
        };
        store.append_entries(vec![entry]).await.unwrap();
        store.save_vote(&Vote::new(term, term)).await.unwrap();
    }
    let content = content_of(&mut store);
    // As a process that is killed leaves it.
    let bytes = std::fs::read(&path).unwrap();
    drop(store);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let changed = folder.path().join("changed.redb");
    let (mut whole, mut refused) = (0, 0);
    // A stride without a common factor meets every kind of page.
    for number in 0..150 {
        let mut bytes = bytes.clone();
        bytes[(number * 7919 + 13) % used] ^= 0x15;
        std::fs::write(&changed, bytes).unwrap();
        match OwnershipStore::open(&changed, true) {
            Ok(mut store) => {
                assert_eq!(content_of(&mut store), content, "change {number}");
                whole += 1;
            }
            Err(StoreProblem::Damaged(text)) => {
                assert!(text.contains("changed.redb is damaged"), "{text}");
                refused += 1;
            }
            Err(other) => panic!("change {number}: {other}"),
        }
    }
    println!("{whole} whole, {refused} refused");
    assert!(refused > 0);
    std::fs::remove_file(&path).unwrap();
    let gone = OwnershipStore::open(&path, false).map(drop);
    assert!(matches!(gone, Err(StoreProblem::Damaged(_))), "a new store would vote twice");
}

struct Builder;

impl StoreBuilder<OwnershipLog, OwnershipStore, OwnershipMachine, TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(TempDir, OwnershipStore, OwnershipMachine), StorageError<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let (store, machine) = open_store(folder.path());
        Ok((folder, store, machine))
    }
}

fn open_store(folder: &Path) -> (OwnershipStore, OwnershipMachine) {
    let store = OwnershipStore::open(&folder.join("log.redb"), true).unwrap();
    let machine = OwnershipMachine::restore(store.clone()).unwrap();
    (store, machine)
}

/// openraft's own tests of a store.
#[test]
fn the_store_keeps_what_raft_demands() {
    Suite::test_all(Builder).unwrap();
}

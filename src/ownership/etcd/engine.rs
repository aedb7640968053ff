//! The engine: one task that renews this node's lease in etcd and reads and writes the keys.

use std::{sync::Arc, time::Duration};

use netft::{
    Time,
    config::{EtcdConfig, VipOwnership},
    vip::ownership::{EtcdHolder, EtcdView, HolderUpdate, LeaseProof, LeaseRules, VipPolicy},
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

use super::{gateway::EtcdGateway, watcher::watch_changes};
use crate::ownership::{OwnershipRequest, OwnershipUpdate, clock, send_update};

/// Pause after a request that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Least time from one look at the keys to the next.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
/// Timeout of a move, below that of a request between nodes.
const MOVE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// This node's name.
    pub node: String,
    /// A number that no other node of any cluster has: of its key.
    pub node_id: u64,
    /// The cluster.
    pub cluster: EtcdConfig,
}

/// State of the engine, for those who ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdStatus {
    /// The server that is asked.
    pub server: String,
    /// When a server answered last.
    pub answered: Option<Time>,
    /// Length of this node's lease; `None` without one.
    pub ttl: Option<Duration>,
    /// No server answers; the reason.
    pub problem: Option<String>,
    /// The last error, and when it happened.
    pub last_error: Option<(Time, String)>,
}

/// A running engine. Dropping it stops it.
pub struct EtcdEngine {
    status: watch::Receiver<EtcdStatus>,
    _tasks: JoinSet<()>,
}

impl EtcdEngine {
    /// Starts the engine. A cluster that is not there is waited for. `policies`: rules of all
    /// addresses, again whenever they change.
    pub fn start(
        settings: EtcdSettings,
        updates: mpsc::Sender<OwnershipUpdate>,
        requests: mpsc::Receiver<OwnershipRequest>,
        policies: mpsc::Receiver<Vec<VipPolicy>>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let EtcdSettings { node, node_id, cluster } = settings;
        let id = format!("{node_id:016x}");
        let task = EtcdTask {
            holder: EtcdHolder::new(&node, &id, Vec::new(), LeaseRules::DEFAULT, clock::now()),
            gateway: EtcdGateway::new(cluster.clone()),
            updates,
            failures: 0,
            moves: Vec::new(),
            status: watch::Sender::new(EtcdStatus::default()),
        };
        let status = task.status.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(requests, policies, Arc::clone(&changed)));
        tasks.spawn(watch_changes(cluster, changed));
        Self { status, _tasks: tasks }
    }

    /// Its state, again whenever it changes.
    pub fn status(&self) -> watch::Receiver<EtcdStatus> {
        self.status.clone()
    }
}

/// A move that the operator waits for.
struct WaitingMove {
    vip: String,
    to: Option<String>,
    /// The new owner, once the move is written.
    target: Option<String>,
    deadline: Time,
    reply_tx: oneshot::Sender<Result<(), String>>,
}

struct EtcdTask {
    holder: EtcdHolder,
    gateway: EtcdGateway,
    updates: mpsc::Sender<OwnershipUpdate>,
    /// Failures since the last success.
    failures: usize,
    moves: Vec<WaitingMove>,
    status: watch::Sender<EtcdStatus>,
}

impl EtcdTask {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<OwnershipRequest>,
        mut policies: mpsc::Receiver<Vec<VipPolicy>>,
        changed: Arc<Notify>,
    ) {
        let mut next = clock::now();
        let mut last = Time::ZERO;
        loop {
            let wait = next.max(last + MIN_INTERVAL).since(clock::now());
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => {
                        self.on_request(request);
                        next = clock::now();
                    }
                    None => return,
                },
                Some(policies) = policies.recv() => {
                    self.holder.set_policies(policies);
                    next = clock::now();
                }
                () = changed.notified() => next = clock::now(),
                () = sleep(wait) => {
                    last = clock::now();
                    let pause = match self.look().await {
                        Ok(true) => Duration::ZERO,
                        Ok(false) => self.holder.interval(),
                        Err(error) => self.on_failure(error).await,
                    };
                    next = last + pause;
                    self.expire_moves();
                }
            }
        }
    }

    /// Renews the lease, reads the keys and writes what follows. True: look again at once.
    async fn look(&mut self) -> Result<bool, String> {
        if !self.holder.needs_lease()
            && let Some(lease) = self.holder.lease_id()
        {
            self.holder.on_lease_lost();
            self.gateway.revoke_lease(lease).await?;
        }
        if self.holder.needs_lease() && self.holder.lease_id().is_none() {
            let (lease, ttl) = self.gateway.grant_lease().await?;
            tracing::debug!(lease, ?ttl, "ownership: a lease in etcd");
            self.holder.on_lease(lease, ttl);
        }
        if self.holder.needs_baseline() {
            let view = self.gateway.read_keys().await?;
            self.holder.on_baseline(&view);
        }
        let mut proof = None;
        if let Some(lease) = self.holder.lease_id() {
            let asked = clock::now();
            match self.gateway.renew_lease(lease).await? {
                Some(ttl) => proof = Some(LeaseProof { asked, ttl }),
                None => {
                    let updates = self.holder.on_lease_lost();
                    self.send_updates(updates).await;
                    self.notify("etcd ended this node's lease: a new one is asked for").await;
                    return Ok(true);
                }
            }
        }
        let view = self.gateway.read_keys().await?;
        self.on_success().await;
        let (updates, writes) = self.holder.on_view(clock::now(), proof, &view);
        self.send_updates(updates).await;
        let mut has_written = false;
        for write in &writes {
            let is_done = self.gateway.write_key(write).await?;
            tracing::debug!(?write, is_done, "ownership: written to etcd");
            has_written |= is_done;
        }
        has_written |= self.advance_moves(&view).await?;
        Ok(has_written)
    }

    /// Writes the moves that wait, and answers those that are done.
    async fn advance_moves(&mut self, view: &EtcdView) -> Result<bool, String> {
        let mut has_written = false;
        let mut moves = std::mem::take(&mut self.moves).into_iter();
        while let Some(mut pending) = moves.next() {
            if pending.target.is_none() {
                let to = pending.to.as_deref();
                match self.holder.plan_move(clock::now(), &pending.vip, to, view) {
                    Ok((target, None)) => pending.target = Some(target),
                    Ok((target, Some(write))) => match self.gateway.write_key(&write).await {
                        Ok(is_done) => {
                            pending.target = Some(target);
                            has_written |= is_done;
                        }
                        Err(error) => {
                            // The next look plans them anew.
                            self.moves.push(pending);
                            self.moves.extend(moves);
                            return Err(error);
                        }
                    },
                    Err(refusal) => {
                        // The operator may have stopped waiting.
                        let _ = pending.reply_tx.send(Err(refusal));
                        continue;
                    }
                }
            }
            if self.holder.owner_of(&pending.vip) == pending.target.as_deref() {
                let _ = pending.reply_tx.send(Ok(()));
            } else {
                self.moves.push(pending);
            }
        }
        Ok(has_written)
    }

    fn expire_moves(&mut self) {
        let now = clock::now();
        for pending in std::mem::take(&mut self.moves) {
            if now < pending.deadline {
                self.moves.push(pending);
                continue;
            }
            let refusal = match pending.target {
                Some(target) => format!("{target} did not take it in time"),
                None => "etcd does not answer".to_owned(),
            };
            let _ = pending.reply_tx.send(Err(refusal));
        }
    }

    async fn on_success(&mut self) {
        if self.failures >= self.gateway.server_count() {
            let text = format!("etcd at {} answers again", self.gateway.endpoint());
            self.notify(&text).await;
        }
        self.failures = 0;
        let (server, ttl) = (self.gateway.endpoint().to_owned(), self.holder.lease_ttl());
        self.status.send_modify(|status| {
            let (answered, problem) = (Some(clock::now()), None);
            let last_error = status.last_error.take();
            *status = EtcdStatus { server, answered, ttl, problem, last_error };
        });
    }

    /// Tries the next server; how long to wait before that.
    async fn on_failure(&mut self, error: String) -> Duration {
        tracing::debug!(%error, "ownership: etcd");
        self.failures += 1;
        self.holder.on_server_changed();
        self.gateway.next_server();
        let servers = self.gateway.server_count();
        let is_out = self.failures >= servers;
        self.status.send_modify(|status| {
            status.last_error = Some((clock::now(), error.clone()));
            if is_out {
                status.problem = Some(format!("no etcd server answers: {error}"));
            }
        });
        if self.failures == servers {
            let text = format!("no etcd server answers, its leases end: {error}");
            self.notify(&text).await;
        }
        if self.failures < servers { Duration::ZERO } else { RETRY_INTERVAL }
    }

    async fn notify(&self, what: &str) {
        let engine = VipOwnership::Etcd;
        send_update(&self.updates, OwnershipUpdate::Notice { engine, what: what.into() }).await;
    }

    async fn send_updates(&self, updates: Vec<HolderUpdate>) {
        for update in OwnershipUpdate::from_holder(updates) {
            send_update(&self.updates, update).await;
        }
    }

    fn on_request(&mut self, request: OwnershipRequest) {
        match request {
            OwnershipRequest::Able { vip, is_able, reason, .. } => {
                tracing::debug!(%vip, is_able, ?reason, "ownership: ability of this node");
                self.holder.set_able(&vip, is_able);
            }
            OwnershipRequest::Released { vip, token } => {
                let now = clock::now().as_nanos();
                tracing::debug!(%vip, %token, now, "ownership: let go");
                self.holder.on_released(&vip, token);
            }
            OwnershipRequest::Move { vip, to, reply } => {
                let (vip, to) = (vip.to_string(), to.map(|to| to.to_string()));
                let deadline = clock::now() + MOVE_TIMEOUT;
                self.moves.push(WaitingMove { vip, to, target: None, deadline, reply_tx: reply });
            }
        }
    }
}

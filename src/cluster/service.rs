//! Keeps this node's roster: takes newer ones from peers and from the operator, stores them,
//! applies them, and offers them to the peers. Decisions are in `netft::roster`.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use netft::{
    NodeKey, PeerId,
    api::{
        events::{EventStream, MissedEvents},
        join::JoinAttempt,
        query::PeerRequest,
        session::{SessionCause, SessionProblem},
    },
    config::{Config, ConfigChange},
    roster::{
        ExchangeOutput, ExchangeProblem, JoinReply, Roster, RosterExchange, RosterReply,
        RosterRequest, SignedRoster,
    },
    route::{Event, EventKind},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{joins::JoinHandler, store::ClusterStore};
use crate::{
    control::{
        backend::ControlBackend,
        cluster::ClusterRequest,
        schema::{ClusterStatus, InviteAnswer, InviteOrder, NextKeyAnswer},
    },
    exit::ExitError,
};

/// Time for which a node that was removed is told so, before its session ends.
const REMOVAL_NOTICE_TIMEOUT: Duration = Duration::from_millis(300);

/// Time that a peer has to store its next key.
const NEXT_KEY_TIMEOUT: Duration = Duration::from_secs(3);

/// The running node, as the service needs it.
pub trait ClusterNode: ControlBackend {
    /// Its config; `None` once closed.
    fn config(&self) -> impl Future<Output = Option<Arc<Config>>> + Send;

    /// Its events from here on; `None` once closed.
    fn subscribe(&self) -> impl Future<Output = Option<EventStream>> + Send;

    /// The peers' requests about rosters; `None` the second time.
    fn roster_requests(&self) -> impl Future<Output = Option<mpsc::Receiver<PeerRequest>>> + Send;

    /// Sends a peer a request about rosters; `None` without an answer.
    fn request_roster(
        &self,
        peer: PeerId,
        request: Vec<u8>,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// The nodes that ask to join; `None` the second time.
    fn joins(&self) -> impl Future<Output = Option<mpsc::Receiver<JoinAttempt>>> + Send;

    /// Answers nodes that ask to join, or stops that.
    fn set_joining(&self, joining: bool) -> impl Future<Output = ()> + Send;

    /// Applies a roster to the config file as it was last loaded, and proves the next key of this
    /// node if `uses_next_key`. Must be awaited to its end.
    ///
    /// # Errors
    /// The two contradict each other, or a change needs a restart; nothing changed.
    fn apply_roster(
        &self,
        roster: Arc<SignedRoster>,
        uses_next_key: bool,
    ) -> impl Future<Output = Result<Vec<ConfigChange>, ExitError>> + Send;
}

/// Outcome of a request to a peer.
struct RequestOutcome {
    peer: NodeKey,
    number: u64,
    reply: Option<Vec<u8>>,
}

/// The service.
pub struct ClusterService<N> {
    node: Arc<N>,
    store: ClusterStore,
    exchange: RosterExchange,
    commands: mpsc::Receiver<ClusterRequest>,
    /// Numbers of the peers, by key.
    peers: BTreeMap<NodeKey, PeerId>,
    sending: JoinSet<RequestOutcome>,
    /// Requests to peers for their next keys.
    asking: JoinSet<()>,
    started: Instant,
    /// Reason why the roster in force is not applied, or not on disk.
    problem: Option<String>,
    refused: u64,
    joins: JoinHandler,
    /// Strangers are answered.
    joining: bool,
}

impl<N: ClusterNode> ClusterService<N> {
    /// The service of a node that runs with `roster`.
    pub fn new(
        node: Arc<N>,
        store: ClusterStore,
        roster: Option<Arc<SignedRoster>>,
        commands: mpsc::Receiver<ClusterRequest>,
    ) -> Self {
        Self {
            node,
            store,
            exchange: RosterExchange::new(roster),
            commands,
            peers: BTreeMap::new(),
            sending: JoinSet::new(),
            asking: JoinSet::new(),
            started: Instant::now(),
            problem: None,
            refused: 0,
            joins: JoinHandler::default(),
            joining: false,
        }
    }

    /// Runs until the node closes or the task is aborted.
    pub async fn run(mut self) {
        let Some(mut events) = self.node.subscribe().await else { return };
        let Some(mut requests) = self.node.roster_requests().await else { return };
        let Some(mut attempts) = self.node.joins().await else { return };
        self.resync_sessions().await;
        loop {
            self.carry_out().await;
            let answers_until = self.joins.answers_until(self.now());
            if self.joining != answers_until.is_some() {
                self.joining = answers_until.is_some();
                self.node.set_joining(self.joining).await;
            }
            let wake = [self.exchange.next_wake(), answers_until].into_iter().flatten().min();
            let wake = wake.map(|at| self.started + Duration::from_nanos(at.as_nanos()));
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.on_event(event).await,
                    None => return,
                },
                Some(request) = requests.recv() => self.on_peer_request(request).await,
                Some(outcome) = self.sending.join_next() => {
                    // A request's task neither panics nor is aborted while the service runs.
                    if let Ok(RequestOutcome { peer, number, reply }) = outcome {
                        let now = self.now();
                        self.exchange.on_reply(now, peer, number, reply.as_deref());
                    }
                }
                Some(command) = self.commands.recv() => self.on_command(command).await,
                Some(attempt) = attempts.recv() => self.on_join(attempt).await,
                () = timer => {
                    let now = self.now();
                    self.exchange.on_timer(now);
                }
            }
        }
    }

    fn now(&self) -> netft::Time {
        netft::Time::ZERO + self.started.elapsed()
    }

    async fn on_event(&mut self, event: Result<Event, MissedEvents>) {
        match event.map(|event| event.kind) {
            Ok(EventKind::SessionEstablished { peer, .. }) => {
                // A peer that came with the last change may be unknown here yet.
                self.update_peers().await;
                if let Some(key) = self.key_of(peer) {
                    let now = self.now();
                    self.exchange.on_session_up(now, key);
                }
            }
            Ok(EventKind::SessionEnded { peer, .. }) => {
                if let Some(key) = self.key_of(peer) {
                    self.exchange.on_session_down(key);
                }
            }
            Ok(EventKind::SessionRefused { .. }) => self.try_next_key().await,
            Ok(EventKind::Reconfigured) => self.update_peers().await,
            Ok(_) => {}
            Err(missed) => {
                tracing::debug!(%missed, "sessions read anew");
                self.resync_sessions().await;
            }
        }
    }

    /// Proves this node's next key where a peer refuses the present one: the roster there may be
    /// newer, and accept the next key alone, when this node was off as it changed.
    async fn try_next_key(&mut self) {
        let (Some(own), Some(config)) = (self.exchange.own().cloned(), self.node.config().await)
        else {
            return;
        };
        let node = own.roster().nodes.iter().find(|node| node.key == config.public_key);
        if node.is_none_or(|node| node.next_key.is_none()) {
            return;
        }
        let Some(snapshot) = self.node.take_snapshot().await else { return };
        let is_refused = |problem: &SessionProblem| problem.cause == SessionCause::KeyRefused;
        if !snapshot.peers.iter().any(|peer| peer.session_problem.as_ref().is_some_and(is_refused))
        {
            return;
        }
        tracing::warn!("a peer refuses this node's key: the next key is proven from here on");
        if let Err(error) = self.node.apply_roster(own, true).await {
            tracing::error!("the next key cannot be used\n{error}");
        }
    }

    fn key_of(&self, peer: PeerId) -> Option<NodeKey> {
        self.peers.iter().find(|(_, id)| **id == peer).map(|(key, _)| *key)
    }

    /// Takes over the peers of the config in force.
    async fn update_peers(&mut self) {
        let Some(config) = self.node.config().await else { return };
        let peers: BTreeMap<_, _> = config.peers.iter().map(|peer| (peer.key, peer.id)).collect();
        let connected = |key| self.exchange.peers().any(|(known, it)| known == key && it.connected);
        let gone = self.peers.iter().filter(|(key, _)| !peers.contains_key(key));
        let gone: Vec<_> = gone.map(|(key, id)| (*key, *id, connected(key))).collect();
        self.peers = peers;
        let now = self.now();
        for (key, id, was_connected) in gone {
            self.exchange.forget_peer(key);
            // A session outlives the key that it was agreed with.
            if let Some(replaced) = self.key_of(id).filter(|_| was_connected) {
                self.exchange.on_session_up(now, replaced);
            }
        }
    }

    /// Reads which peers have a session.
    async fn resync_sessions(&mut self) {
        self.update_peers().await;
        let Some(snapshot) = self.node.take_snapshot().await else { return };
        let now = self.now();
        for info in snapshot.peers.iter().filter(|info| info.status.session) {
            self.exchange.on_session_up(now, info.key);
        }
    }

    async fn on_peer_request(&mut self, request: PeerRequest) {
        let Some(key) = self.key_of(request.peer) else { return };
        let now = self.now();
        let reply = match RosterRequest::decode(&request.payload) {
            Ok(RosterRequest::PrepareKey) => match self.prepare_key().await {
                Ok(key) => RosterReply::NextKey(key).encode(),
                Err(error) => {
                    tracing::error!("no next key of this node\n{error}");
                    return;
                }
            },
            _ => self.exchange.on_request(now, key, &request.payload),
        };
        // A peer that has given up is no error.
        let _ = request.reply_tx.send(reply);
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.exchange.poll_output() {
            match output {
                ExchangeOutput::Send { peer, number, request } => {
                    self.send_request(peer, number, request);
                }
                ExchangeOutput::Adopt { roster, from } => {
                    tracing::info!(
                        serial = roster.version().serial,
                        peer = %self.name_of(&from),
                        "newer roster from a peer"
                    );
                    self.apply(roster).await;
                }
                ExchangeOutput::Problem { peer, problem } => {
                    self.refused += 1;
                    let peer = self.name_of(&peer);
                    tracing::warn!("roster of {peer}: {}", problem_text(&problem));
                }
            }
        }
    }

    fn name_of(&self, key: &NodeKey) -> String {
        let roster = self.exchange.own();
        let node = roster.and_then(|signed| signed.roster().node_with_key(key));
        node.map_or_else(|| key.to_string(), |node| node.name.clone())
    }

    fn send_request(&mut self, peer: NodeKey, number: u64, request: Vec<u8>) {
        let (node, id) = (Arc::clone(&self.node), self.peers.get(&peer).copied());
        self.sending.spawn(async move {
            let reply = match id {
                Some(id) => node.request_roster(id, request).await,
                None => None,
            };
            RequestOutcome { peer, number, reply }
        });
    }

    /// Stores a roster that is in force, and makes it so.
    async fn apply(&mut self, roster: Arc<SignedRoster>) {
        let store = self.store.clone();
        let stored = Arc::clone(&roster);
        let saved = tokio::task::spawn_blocking(move || store.save_roster(&stored)).await;
        // The roster is in force whether or not the disk takes it: a peer has it.
        self.problem = match saved {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.text),
            Err(error) => Some(error.to_string()),
        };
        self.joins.close_of_removed(roster.roster());
        self.tell_removed(&roster).await;
        let serial = roster.version().serial;
        match self.node.apply_roster(roster, false).await {
            Ok(changes) => {
                tracing::info!(serial, changes = changes.len(), "roster in force");
                changes.iter().for_each(|change| tracing::info!("roster: {change}"));
            }
            Err(error) => self.problem = Some(error.text),
        }
        if let Some(problem) = &self.problem {
            tracing::error!(serial, "roster not applied, or not stored\n{problem}");
        }
        self.update_peers().await;
    }

    /// Hands the roster to the nodes that it names no more, while there are sessions with them: a
    /// node that learns of its removal stops dialling.
    async fn tell_removed(&self, roster: &SignedRoster) {
        let request = RosterRequest::Push(roster.text().as_bytes()).encode();
        let mut notices = JoinSet::new();
        for (key, peer) in self.exchange.peers() {
            let named = roster.roster().node_with_key(key).is_some();
            let Some(id) = self.peers.get(key).copied().filter(|_| peer.connected && !named) else {
                continue;
            };
            let (node, request) = (Arc::clone(&self.node), request.clone());
            notices.spawn(async move { node.request_roster(id, request).await });
        }
        // One that does not answer finds out by the end of its session.
        let _ = timeout(REMOVAL_NOTICE_TIMEOUT, notices.join_all()).await;
    }

    async fn on_command(&mut self, command: ClusterRequest) {
        // A client that went away is no error.
        match command {
            ClusterRequest::Status(answer) => {
                let _ = answer.send(self.status().await);
            }
            ClusterRequest::Import(text, answer) => {
                let result = self.import(&text).await;
                let _ = answer.send(result);
            }
            ClusterRequest::NextKey(name, answer) => self.ask_next_key(&name, answer).await,
            ClusterRequest::Invite(order, answer) => {
                let result = self.open_invite(order).await;
                let _ = answer.send(result);
            }
        }
    }

    /// The key that will replace this node's, on its disk.
    async fn prepare_key(&self) -> Result<NodeKey, ExitError> {
        let config = self.node.config().await;
        let in_use = config.ok_or_else(|| ExitError::other_error("netftd is stopping"))?.public_key;
        let store = self.store.clone();
        let prepared = tokio::task::spawn_blocking(move || store.prepare_next_key(in_use)).await;
        prepared.map_err(ExitError::other_error)?
    }

    /// Has a node store its next key. A peer is given its time beside everything else.
    async fn ask_next_key(
        &mut self,
        name: &str,
        answer: oneshot::Sender<Result<NextKeyAnswer, ExitError>>,
    ) {
        let own = self.exchange.own().and_then(|own| own.roster().node_named(name)).cloned();
        let config = self.node.config().await;
        let (Some(node), Some(config)) = (own, config) else {
            let error = format!("the cluster has no node {name:?}");
            let _ = answer.send(Err(ExitError::invalid_input(error)));
            return;
        };
        if node.owns_key(&config.public_key) {
            let prepared = self.prepare_key().await;
            let _ = answer.send(prepared.map(|key| NextKeyAnswer { key: key.to_string() }));
            return;
        }
        let id = self.peers.get(&node.key).copied();
        let running = Arc::clone(&self.node);
        while self.asking.try_join_next().is_some() {}
        self.asking.spawn(async move {
            let ask =
                async { running.request_roster(id?, RosterRequest::PrepareKey.encode()).await };
            let reply = timeout(NEXT_KEY_TIMEOUT, ask).await.ok().flatten();
            let failed = |why| Err(ExitError::other_error(format!("node {:?}: {why}", node.name)));
            let result = match reply.as_deref().map(RosterReply::decode) {
                Some(Ok(RosterReply::NextKey(key))) => Ok(NextKeyAnswer { key: key.to_string() }),
                Some(_) => failed("it makes no next key: is netftd there of the same release?"),
                None => failed("it gives no answer: does netftd run there?"),
            };
            let _ = answer.send(result);
        });
    }

    async fn import(&mut self, text: &str) -> Result<ClusterStatus, ExitError> {
        let document = match self.exchange.own() {
            Some(own) => SignedRoster::verify(text.as_bytes(), &own.roster().id),
            None => SignedRoster::verify_first(text.as_bytes()),
        };
        let document = document.map_err(ExitError::invalid_input)?;
        let version = document.version();
        if let Some(own) = self.exchange.own().map(|own| own.version()) {
            match version.compare(&own) {
                Some(std::cmp::Ordering::Greater) => {}
                Some(std::cmp::Ordering::Equal) => return Ok(self.status().await),
                _ => {
                    return Err(ExitError::invalid_input(format!(
                        "the roster in force is {own:?}, this one is {version:?}: only a higher \
                         serial replaces it"
                    )));
                }
            }
        }
        tracing::info!(serial = version.serial, "roster imported by the operator");
        self.set_own(document).await?;
        Ok(self.status().await)
    }

    /// Goes over to a newer roster that was made here.
    async fn set_own(&mut self, document: SignedRoster) -> Result<(), ExitError> {
        let document = Arc::new(document);
        let now = self.now();
        self.exchange.set_own(now, Arc::clone(&document));
        self.carry_out_sends();
        self.apply(document).await;
        match &self.problem {
            Some(problem) => Err(ExitError::other_error(problem)),
            None => Ok(()),
        }
    }

    async fn open_invite(&mut self, order: InviteOrder) -> Result<InviteAnswer, ExitError> {
        let own = self.exchange.own().ok_or_else(|| {
            ExitError::invalid_input("this node is in no cluster: `netft cluster create NAME`")
        })?;
        if !self.store.key_path().exists() {
            return Err(self.store.no_key_error());
        }
        let config = self.node.config().await;
        let key = config.map(|config| config.public_key);
        let key = key.filter(|key| own.roster().node_with_key(key).is_some());
        let key = key.ok_or_else(|| {
            ExitError::invalid_input("the roster does not name this node: it can invite nobody")
        })?;
        let (now, cluster) = (self.now(), own.roster().id);
        self.joins.open_invite(now, cluster, key, order)
    }

    /// Answers a node that asks to join.
    async fn on_join(&mut self, attempt: JoinAttempt) {
        let reply = match self.let_in(&attempt).await {
            Ok(roster) => JoinReply::Joined(roster),
            Err(reason) => JoinReply::Refused(reason),
        };
        // A joiner that has given up asks again.
        let _ = attempt.reply_tx.send(reply.encode());
    }

    /// Puts a joiner into the roster, here first: when it has the reply, this node accepts it.
    async fn let_in(&mut self, attempt: &JoinAttempt) -> Result<Vec<u8>, String> {
        let now = self.now();
        let name = self.joins.check_attempt(now, attempt).map_err(|why| why.to_string())?;
        let own = self.exchange.own().cloned().ok_or("the inviting node is in no cluster")?;
        let (joiner, addresses) = (attempt.session.joiner, attempt.request.addresses.clone());
        let next = own.roster().with_joiner(&name, joiner, addresses);
        let signed = match next.map_err(|why| why.to_string())? {
            Some(next) => Some(self.sign(next).await.map_err(|error| error.text)?),
            None => None,
        };
        // Counted first: the roster is in force even if the disk or the config does not take it.
        self.joins.record_join(attempt);
        if let Some(signed) = signed {
            self.set_own(signed).await.map_err(|error| error.text)?;
        }
        tracing::info!(name, source = %attempt.source, "node joined");
        let own = self.exchange.own().map(|own| own.text().as_bytes().to_vec());
        own.ok_or_else(|| "the inviting node is in no cluster".to_owned())
    }

    /// Signs a version that a join makes.
    async fn sign(&self, next: Roster) -> Result<SignedRoster, ExitError> {
        let store = self.store.clone();
        let signed = tokio::task::spawn_blocking(move || {
            let key = store.load_key()?.ok_or_else(|| {
                ExitError::other_error("the cluster's key is gone from the inviting node")
            })?;
            SignedRoster::sign(&next, &key).map_err(ExitError::other_error)
        });
        signed.await.map_err(ExitError::other_error)?
    }

    /// Sends the offers before the change ends sessions.
    fn carry_out_sends(&mut self) {
        while let Some(output) = self.exchange.poll_output() {
            match output {
                ExchangeOutput::Send { peer, number, request } => {
                    self.send_request(peer, number, request);
                }
                other => debug_assert!(false, "an own roster only leads to offers: {other:?}"),
            }
        }
    }

    async fn status(&self) -> ClusterStatus {
        let Some(own) = self.exchange.own() else { return ClusterStatus::default() };
        let mut status = ClusterStatus::from_roster(own);
        let config = self.node.config().await;
        let own_key = config.map(|config| config.public_key.to_string());
        let known: BTreeMap<_, _> =
            self.exchange.peers().map(|(key, peer)| (key.to_string(), peer)).collect();
        for node in &mut status.nodes {
            node.this_node = own_key.is_some()
                && [Some(&node.key), node.next_key.as_ref()].contains(&own_key.as_ref());
            if node.this_node {
                node.serial = status.serial;
                status.member = true;
            }
            if let Some(peer) = known.get(&node.key) {
                node.session = peer.connected;
                node.serial = peer.version.map(|version| version.serial);
                node.problem = peer.problem.as_ref().map(problem_text);
            }
        }
        status.can_sign = self.store.key_path().exists();
        status.problem = self.problem.clone();
        status.rosters_refused = self.refused;
        (status.invites_open, status.joins_accepted, status.joins_refused) =
            self.joins.figures(self.now());
        status
    }
}

fn problem_text(problem: &ExchangeProblem) -> String {
    match problem {
        ExchangeProblem::Conflict { own, other } => format!(
            "serial {} has two contents, {} here and {} there: the cluster's key signed in two \
             places; the next `netft cluster` change on one of them ends it",
            own.serial,
            own.short_digest(),
            other.short_digest()
        ),
        ExchangeProblem::Invalid(reason) => reason.clone(),
        ExchangeProblem::OtherCluster => {
            "it is in another cluster: `netft cluster show` there and here".to_owned()
        }
    }
}

//! The engine: one task that holds the leases of this node and, while it leads, grants them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use netft::{
    Time,
    vip::ownership::{
        ElectionTurns, HolderUpdate, LeaseHolder, LeaseReply, LeaseRules, OwnershipCommand,
        OwnershipLeader,
    },
};
use openraft::ServerState;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    event::{EngineEvent, WaitingReport, spawn_for_event},
    network::{AckGuard, LeaseEvidence, OwnershipTransport, send_message},
    revival::VoterRevival,
    serve::serve_message,
    settings::{EngineChannels, RaftSettings},
    status::EngineStatus,
    types::{OwnershipAnswer, OwnershipMessage},
    voter::{RaftState, Voter},
};
use crate::ownership::{OwnershipRequest, OwnershipUpdate, clock, send_update};

/// Reports that wait for a round at once; further ones are refused.
const MAX_WAITING: usize = 1024;
/// Timeout of a report's reply.
const REPORT_TIMEOUT: Duration = Duration::from_millis(500);
/// Timeout of a move, below that of a request between nodes.
const MOVE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Longest sleep.
const MAX_SLEEP: Duration = Duration::from_secs(1);

/// A move that waits for the new owner's lease.
pub(super) struct PendingMove {
    vip: String,
    target: String,
    deadline: Time,
    reply_tx: oneshot::Sender<Result<(), String>>,
}

/// Where reports go while another node leads.
#[derive(Default)]
pub(super) struct LeaderRoute {
    pub(super) hint: Option<String>,
    /// The node that answered the last report.
    pub(super) answered: Option<String>,
    /// The next voter to ask for the leader.
    pub(super) turn: usize,
    /// When this node begins elections.
    pub(super) election: ElectionTurns,
    /// Term of the newest vote.
    pub(super) seen_term: u64,
}

/// Channels to the outside, and to the engine itself.
pub(super) struct EngineOutputs {
    pub(super) inbox: mpsc::Sender<EngineEvent>,
    pub(super) updates: mpsc::Sender<OwnershipUpdate>,
    pub(super) status: watch::Sender<EngineStatus>,
}

/// The engine's task.
pub(super) struct EngineTask<T> {
    pub(super) me: u64,
    pub(super) names: BTreeMap<u64, String>,
    pub(super) voters: BTreeSet<u64>,
    pub(super) settings: RaftSettings,
    pub(super) transport: Arc<T>,
    pub(super) evidence: Arc<LeaseEvidence>,
    pub(super) voter: Option<Voter>,
    pub(super) revival: VoterRevival,
    /// This node's leadership and its term.
    pub(super) leader: Option<(u64, OwnershipLeader)>,
    pub(super) holder: LeaseHolder,
    pub(super) waiting: Vec<WaitingReport>,
    pub(super) is_round_running: bool,
    pub(super) moves: Vec<PendingMove>,
    pub(super) route: LeaderRoute,
    pub(super) outputs: EngineOutputs,
}

impl<T: OwnershipTransport> EngineTask<T> {
    pub(super) fn new(
        me: u64,
        settings: RaftSettings,
        transport: Arc<T>,
        evidence: Arc<LeaseEvidence>,
        voter: Option<Voter>,
        outputs: EngineOutputs,
    ) -> Self {
        let voters = settings.nodes.iter().filter(|node| node.is_voter);
        Self {
            me,
            names: settings.nodes.iter().map(|node| (node.id, node.name.clone())).collect(),
            voters: voters.map(|node| node.id).collect(),
            holder: LeaseHolder::new(&settings.node, clock::now()),
            transport,
            evidence,
            revival: VoterRevival::new(clock::now(), voter.is_none(), settings.store.exists()),
            settings,
            voter,
            leader: None,
            waiting: Vec::new(),
            is_round_running: false,
            moves: Vec::new(),
            route: LeaderRoute::default(),
            outputs,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<EngineEvent>,
        mut channels: EngineChannels,
    ) {
        let mut metrics = None;
        loop {
            if self.revival.take_change() {
                metrics = self.voter.as_ref().map(|voter| voter.metrics.clone());
            }
            let now = clock::now();
            self.follow_members();
            self.follow_raft(now).await;
            self.follow_votes(now);
            self.revive_voter(now);
            self.publish_status();
            self.watch_leader(now);
            self.lead(now);
            self.send_report(now);
            self.start_round();
            self.begin_election(now).await;
            let wake = self.next_wake(now);
            tokio::select! {
                Some(event) = inbox.recv() => self.on_event(event).await,
                request = channels.requests.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => return self.stop().await,
                },
                Some(message) = channels.peers.recv() => {
                    let raft = self.voter.as_ref().map(|voter| voter.raft.clone());
                    let inbox = self.outputs.inbox.clone();
                    let evidence = Arc::clone(&self.evidence);
                    tokio::spawn(serve_message(raft, evidence, inbox, message));
                }
                Some((node, is_reachable)) = channels.reachability.recv() => {
                    self.on_reachability(&node, is_reachable);
                }
                Some(policies) = channels.policies.recv() => self.set_policies(policies).await,
                () = metrics_changed(&mut metrics) => {}
                () = sleep(wake.since(now)) => {}
            }
        }
    }

    pub(super) async fn stop(&mut self) {
        if let Some(voter) = self.voter.take() {
            // A task that panicked has stopped.
            let _ = voter.raft.shutdown().await;
        }
    }

    fn next_wake(&self, now: Time) -> Time {
        let mut wake = self.holder.next_wake().min(now + MAX_SLEEP);
        if let (Some((_, leader)), Some(voter)) = (&self.leader, &self.voter) {
            let policies = &self.settings.policies;
            let at = voter.machine.with_state(|state| leader.next_wake(now, state, policies));
            wake = at.map_or(wake, |at| wake.min(at));
        }
        let elections = self.route.election.next_wake().into_iter().chain(self.silent_at());
        wake = elections.fold(wake, Time::min);
        let deadlines = self.moves.iter().map(|pending| pending.deadline);
        deadlines.chain(self.revival.next_wake()).fold(wake, Time::min)
    }

    /// Becomes leader or ceases to be, as raft says.
    async fn follow_raft(&mut self, now: Time) {
        let Some(voter) = &self.voter else { return };
        let (term, is_leader, failure) = {
            let metrics = voter.metrics.borrow();
            let is_leader = metrics.state == ServerState::Leader
                && metrics.current_leader == Some(self.me)
                && metrics.running_state.is_ok();
            let failure = metrics.running_state.as_ref().err().map(ToString::to_string);
            (metrics.current_term, is_leader, failure)
        };
        if let Some(failure) = failure {
            let path = self.settings.store.display();
            let problem = format!(
                "the ownership store {path} failed ({failure}): this node does not vote until the \
                 store can be written again"
            );
            self.lose_vote(now, problem).await;
        }
        let is_current = self.leader.as_ref().is_some_and(|(known, _)| *known == term);
        if is_leader == is_current && (is_leader || self.leader.is_none()) {
            return;
        }
        if self.leader.take().is_some() && !is_leader {
            self.on_deposed(now);
        }
        for report in std::mem::take(&mut self.waiting) {
            // The node may have stopped waiting.
            let _ = report.reply_tx.send(Err(None));
        }
        for pending in std::mem::take(&mut self.moves) {
            let _ = pending.reply_tx.send(Err("the leader changed; try again".to_owned()));
        }
        if is_leader {
            let ack = self.evidence.take_newest_ack(term, self.voters.len());
            let mut leader = OwnershipLeader::new(now, ack, LeaseRules::DEFAULT);
            for name in self.names.values().filter(|name| self.evidence.is_unreachable(name)) {
                leader.set_reachable(name, false);
            }
            let reached = self.names.values();
            let reached = reached.filter(|name| !self.evidence.is_unreachable(name)).cloned();
            leader.ask_nodes(now, reached.collect());
            let age = ack.map(|ack| now.since(ack));
            tracing::info!(term, ?age, "ownership: this node leads");
            self.leader = Some((term, leader));
            self.holder.request_report(now);
        }
    }

    /// Writes decisions to the log, and tells those whom they concern.
    fn lead(&mut self, now: Time) {
        let Some(voter) = &self.voter else { return };
        let Some((_, leader)) = &mut self.leader else { return };
        let policies = &self.settings.policies;
        let commands = voter.machine.with_state(|state| leader.poll_commands(now, state, policies));
        for command in &commands {
            if let OwnershipCommand::Assign { vip, owner, reason, .. } = command {
                tracing::info!(vip, ?owner, "ownership: assigned because {reason}");
            }
        }
        for command in OwnershipCommand::into_entries(commands) {
            let raft = voter.raft.clone();
            let work = async move {
                if let Err(error) = raft.client_write(command).await {
                    tracing::debug!(%error, "ownership: a decision did not reach the log");
                }
                EngineEvent::Proposed
            };
            spawn_for_event(&self.outputs.inbox, work, |_| EngineEvent::Proposed);
        }
        let grants = voter.machine.with_state(|state| leader.take_grants(now, state, policies));
        for node in leader.take_nudges() {
            let leader = self.settings.node.clone();
            if node == self.settings.node {
                self.holder.request_report(now);
            } else {
                let (transport, evidence) = (Arc::clone(&self.transport), self.evidence.clone());
                tokio::spawn(async move {
                    // A node that misses it reports soon anyway.
                    let nudge = OwnershipMessage::ReportTo { leader };
                    let _ = send_message(&*transport, &evidence, &node, &nudge).await;
                });
            }
        }
        self.moves.retain_mut(|pending| {
            let is_done = leader.has_granted(&pending.vip, &pending.target);
            let is_over = now >= pending.deadline;
            if is_done || is_over {
                let (sender, _) = oneshot::channel();
                let reply_tx = std::mem::replace(&mut pending.reply_tx, sender);
                let late = || format!("{} did not take it in time", pending.target);
                let _ = reply_tx.send(if is_done { Ok(()) } else { Err(late()) });
            }
            !is_done && !is_over
        });
        grants.into_iter().for_each(|(node, reply)| self.send_grant(node, reply));
    }

    /// Sends a node the second reply to its report.
    fn send_grant(&self, node: String, reply: LeaseReply) {
        let inbox = self.outputs.inbox.clone();
        let is_own = node == self.settings.node;
        let (transport, evidence) = (Arc::clone(&self.transport), Arc::clone(&self.evidence));
        tokio::spawn(async move {
            if is_own {
                // The engine may have stopped.
                let _ = inbox.send(EngineEvent::Granted(reply)).await;
                return;
            }
            let grant = OwnershipMessage::Grant(reply);
            if send_message(&*transport, &evidence, &node, &grant).await.is_err() {
                // A node that does not know this message asks instead.
                let nudge = OwnershipMessage::Nudge;
                let _ = send_message(&*transport, &evidence, &node, &nudge).await;
            }
        });
    }

    /// Sends this node's report to the leader, if it is due.
    fn send_report(&mut self, now: Time) {
        let Some(report) = self.holder.poll_report(now) else { return };
        let (serial, inbox) = (report.serial, self.outputs.inbox.clone());
        if self.leader.is_some() {
            let (reply_tx, reply) = oneshot::channel();
            self.take_report(now, WaitingReport { report, reply_tx });
            tokio::spawn(async move {
                let answer = match reply.await {
                    Ok(Ok(reply)) => Ok(OwnershipAnswer::Lease(reply)),
                    Ok(Err(leader)) => Ok(OwnershipAnswer::NotLeader { leader }),
                    Err(_) => Err("the leadership ended".to_owned()),
                };
                let _ = inbox.send(EngineEvent::Answered { serial, answer, by: None }).await;
            });
            return;
        }
        let Some(to) = self.report_target() else { return self.holder.on_failure(now, serial) };
        let (transport, evidence) = (Arc::clone(&self.transport), Arc::clone(&self.evidence));
        tokio::spawn(async move {
            let message = OwnershipMessage::Report(report);
            let exchange = send_message(&*transport, &evidence, &to, &message);
            let answer = timeout(REPORT_TIMEOUT, exchange)
                .await
                .unwrap_or_else(|_| Err(format!("{to} did not answer")));
            let _ = inbox.send(EngineEvent::Answered { serial, answer, by: Some(to) }).await;
        });
    }

    /// The leader as far as known, else one voter after another.
    fn report_target(&mut self) -> Option<String> {
        let hint = self.route.hint.take();
        let mut leaders = hint.into_iter().chain(self.known_leader());
        let is_other =
            |name: &String| *name != self.settings.node && !self.evidence.is_unreachable(name);
        if let Some(name) = leaders.find(is_other) {
            return Some(name);
        }
        let others = self.voters.iter().filter(|id| **id != self.me);
        let names: Vec<&String> = others.filter_map(|id| self.names.get(id)).collect();
        let reachable: Vec<_> =
            names.into_iter().filter(|name| !self.evidence.is_unreachable(name)).collect();
        self.route.turn = self.route.turn.wrapping_add(1);
        let place = self.route.turn.checked_rem(reachable.len())?;
        reachable.get(place).map(|name| (*name).clone())
    }

    /// The leader, if it is another node; one that does not vote knows it by its answers.
    pub(super) fn known_leader(&self) -> Option<String> {
        let Some(voter) = &self.voter else { return self.route.answered.clone() };
        let leader = voter.metrics.borrow().current_leader?;
        self.names.get(&leader).filter(|name| **name != self.settings.node).cloned()
    }

    fn take_report(&mut self, now: Time, waiting: WaitingReport) {
        let known = self.known_leader();
        let (Some((_, leader)), Some(voter)) = (&mut self.leader, &self.voter) else {
            // The node may have stopped waiting.
            let _ = waiting.reply_tx.send(Err(known));
            return;
        };
        if self.waiting.len() >= MAX_WAITING {
            return;
        }
        voter.machine.with_state(|state| leader.on_report(now, state, &waiting.report));
        self.waiting.push(waiting);
    }

    /// Has a majority confirm this leader for the reports that have arrived. One round at a time:
    /// what arrives meanwhile needs the next one.
    fn start_round(&mut self) {
        let Some(voter) = &self.voter else { return };
        if self.leader.is_none() || self.is_round_running || self.waiting.is_empty() {
            return;
        }
        self.is_round_running = true;
        let reports = std::mem::take(&mut self.waiting);
        let raft = voter.raft.clone();
        // This node's own acknowledgement is part of the majority.
        self.evidence.follow_leader(Some(self.me));
        let ack = self.evidence.begin_ack();
        let work = async move {
            let term = match raft.ensure_linearizable().await {
                Ok(Some(read)) => Ok(read.leader_id.term),
                Ok(None) => Err("the log is empty".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            EngineEvent::RoundDone { reports, term, ack: Some(ack) }
        };
        spawn_for_event(&self.outputs.inbox, work, |panic| {
            let reports = Vec::new();
            EngineEvent::RoundDone { reports, term: Err(panic), ack: None }
        });
    }

    fn answer_reports(
        &mut self,
        now: Time,
        reports: Vec<WaitingReport>,
        term: Result<u64, String>,
        ack: Option<AckGuard>,
    ) {
        self.is_round_running = false;
        if let Err(error) = &term {
            tracing::debug!(%error, "ownership: the leadership was not confirmed");
            self.note_error(now, format!("the leadership was not confirmed: {error}"));
        }
        let policies = &self.settings.policies;
        let mut answers = Vec::new();
        // A leadership of another term knows nothing of the leases in between.
        match (&mut self.leader, &self.voter) {
            (Some((led, leader)), Some(voter)) if term == Ok(*led) => {
                voter.machine.with_state(|state| {
                    for WaitingReport { report, reply_tx } in reports {
                        let reply = leader.answer_report(now, state, policies, &report);
                        answers.push((reply_tx, Ok(reply)));
                    }
                });
            }
            _ => answers.extend(reports.into_iter().map(|report| (report.reply_tx, Err(None)))),
        }
        // The leases count as granted before anybody hears of them.
        drop(ack);
        for (reply_tx, answer) in answers {
            let _ = reply_tx.send(answer);
        }
    }

    async fn on_event(&mut self, event: EngineEvent) {
        let now = clock::now();
        match event {
            EngineEvent::Report(waiting) => self.take_report(now, waiting),
            EngineEvent::Move { vip, to, may_forward, reply_tx } => {
                self.move_address(now, vip, to, may_forward, reply_tx)
            }
            EngineEvent::Nudged(leader) => {
                self.route.hint = leader.or(self.route.hint.take());
                self.holder.request_report(now);
            }
            EngineEvent::Granted(reply) => {
                let updates = self.holder.on_reply(now, &reply);
                self.send_updates(updates).await;
            }
            EngineEvent::RoundDone { reports, term, ack } => {
                self.answer_reports(now, reports, term, ack)
            }
            EngineEvent::Answered { serial, answer, by } => match answer {
                Ok(OwnershipAnswer::Lease(reply)) => {
                    self.route.answered = by;
                    let updates = self.holder.on_reply(now, &reply);
                    self.send_updates(updates).await;
                }
                Ok(OwnershipAnswer::NotLeader { leader }) => {
                    (self.route.hint, self.route.answered) = (leader, None);
                    self.holder.on_failure(now, serial);
                }
                answer => {
                    let other = || "another answer than a lease".to_owned();
                    self.note_error(now, answer.err().unwrap_or_else(other));
                    self.route.answered = None;
                    self.holder.on_failure(now, serial);
                }
            },
            EngineEvent::Proposed => {}
            EngineEvent::VoterStarted(started) => self.on_voter_started(now, *started).await,
        }
    }

    async fn send_updates(&self, updates: Vec<HolderUpdate>) {
        for update in OwnershipUpdate::from_holder(updates) {
            self.send_to_service(update).await;
        }
    }

    pub(super) async fn send_to_service(&self, update: OwnershipUpdate) {
        send_update(&self.outputs.updates, update).await;
    }

    fn on_request(&mut self, request: OwnershipRequest) {
        let now = clock::now();
        match request {
            OwnershipRequest::Able { vip, is_able, reason, role_since } => {
                tracing::debug!(%vip, is_able, ?reason, "ownership: ability of this node");
                if let Some(since) = role_since {
                    self.holder.set_role(&vip, since);
                }
                self.holder.set_able(now, &vip, is_able);
            }
            OwnershipRequest::Released { vip, token } => {
                tracing::debug!(%vip, %token, now = now.as_nanos(), "ownership: let go");
                self.holder.on_released(now, &vip, token);
            }
            OwnershipRequest::Move { vip, to, reply } => {
                let to = to.map(|to| to.to_string());
                self.move_address(now, vip.to_string(), to, true, reply);
            }
        }
    }

    fn move_address(
        &mut self,
        now: Time,
        vip: String,
        to: Option<String>,
        may_forward: bool,
        reply_tx: oneshot::Sender<Result<(), String>>,
    ) {
        if let (Some((_, leader)), Some(voter)) = (&mut self.leader, &self.voter) {
            let moved = voter
                .machine
                .with_state(|state| leader.request_move(now, state, &vip, to.as_deref()));
            match moved {
                Ok(target) => {
                    let deadline = now + MOVE_TIMEOUT;
                    self.moves.push(PendingMove { vip, target, deadline, reply_tx });
                }
                // The operator may have stopped waiting.
                Err(refusal) => drop(reply_tx.send(Err(refusal))),
            }
            return;
        }
        let target = if may_forward { self.report_target() } else { None };
        let Some(target) = target else {
            drop(reply_tx.send(Err("no leader is known; try again in a second".to_owned())));
            return;
        };
        let (transport, evidence) = (Arc::clone(&self.transport), Arc::clone(&self.evidence));
        tokio::spawn(async move {
            let message = OwnershipMessage::Move { vip, to };
            let moved = match send_message(&*transport, &evidence, &target, &message).await {
                Ok(OwnershipAnswer::Moved(moved)) => moved,
                Ok(_) => Err(format!("{target} gave another answer")),
                Err(error) => Err(error),
            };
            let _ = reply_tx.send(moved);
        });
    }
}

/// Waits for a change of raft's state; for ever without raft.
async fn metrics_changed(metrics: &mut Option<RaftState>) {
    if let Some(receiver) = metrics
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

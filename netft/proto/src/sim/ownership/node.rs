//! One node of the ownership simulation: the process, which crashes and pauses, and the kernel,
//! which does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    sim::{
        ownership::{
            bug::OwnershipBug,
            raft::{Durable, RaftEvent, RaftMessage, RaftNode},
        },
        rng::SplitMix64,
    },
    time::Time,
    vip::{
        FencingToken,
        ownership::{
            HolderUpdate, LeaseHolder, LeaseReply, LeaseReport, LeaseRules, LeaseVerdict,
            OwnershipCommand, OwnershipLeader, OwnershipState, VipPolicy,
        },
    },
};

/// Proposals that reach the log twice, per thousand: their writer did not hear of the first one.
const REPEATED_PERMILLE: u16 = 50;
/// Longest time between the two.
const REPEATED_WITHIN: Duration = Duration::from_millis(1_500);

/// A message between nodes.
#[derive(Clone, Debug)]
pub(super) enum NodeMessage {
    Raft(RaftMessage),
    Report(LeaseReport),
    Reply(LeaseReply),
    /// The serial of a report that reached no leader, and the leader if known.
    NotLeader(u64, Option<usize>),
    Nudge,
}

/// Outputs of a process.
#[derive(Debug)]
pub(super) enum NodeOutput {
    Send(usize, NodeMessage),
    /// The kernel answers for the address until this local time.
    Fence {
        vip: String,
        token: FencingToken,
        until: Time,
    },
    /// The kernel answers no more.
    Unfence {
        vip: String,
    },
}

/// The process of a node.
pub(super) struct Process {
    me: usize,
    voters: usize,
    pub(super) raft: RaftNode,
    pub(super) leader: Option<OwnershipLeader>,
    pub(super) holder: LeaseHolder,
    /// Proposals that follow once more.
    repeated: Vec<(Time, OwnershipCommand)>,
    /// Nodes that netft does not reach.
    unreachable: BTreeSet<usize>,
    /// Reports that wait for a round: from whom, the report, the round.
    waiting: Vec<(usize, LeaseReport, u64)>,
    leader_hint: Option<usize>,
    policies: Vec<VipPolicy>,
    bug: Option<OwnershipBug>,
    pub(super) outputs: Vec<NodeOutput>,
}

pub(super) fn node_name(node: usize) -> String {
    format!("n{node}")
}

fn node_index(name: &str) -> usize {
    name[1..].parse().unwrap_or_default()
}

impl Process {
    pub(super) fn start(
        me: usize,
        voters: usize,
        durable: Durable,
        policies: &[VipPolicy],
        bug: Option<OwnershipBug>,
        (now, rng): (Time, &mut SplitMix64),
    ) -> Self {
        Self {
            me,
            voters,
            raft: RaftNode::start(me, voters, durable, now, rng),
            leader: None,
            holder: LeaseHolder::new(&node_name(me), now),
            repeated: Vec::new(),
            unreachable: BTreeSet::new(),
            waiting: Vec::new(),
            leader_hint: None,
            policies: policies.to_vec(),
            bug,
            outputs: Vec::new(),
        }
    }

    pub(super) fn set_able(&mut self, now: Time, vip: &str, is_able: bool) {
        if is_able {
            self.holder.set_role(vip, now);
        }
        self.holder.set_able(now, vip, is_able);
        if !is_able {
            // A service that cannot carry the address lets it go by itself, then says so.
            self.outputs.push(NodeOutput::Unfence { vip: vip.to_owned() });
            self.holder.on_released(now, vip, FencingToken::default());
        }
    }

    /// A reload of the config.
    pub(super) fn set_lease(&mut self, vip: usize, lease: Duration) {
        self.policies[vip].lease = lease;
    }

    /// The state as the leader reads it.
    fn leader_state(&self) -> OwnershipState {
        let mut state = self.raft.state.clone();
        if self.bug == Some(OwnershipBug::OwnLease) {
            for policy in &self.policies {
                let (vip, lease) = (policy.name.clone(), policy.lease);
                let bound = OwnershipCommand::SetLease { vip, lease, expected: None };
                state.apply_command(FencingToken::default(), &bound);
            }
        }
        state
    }

    pub(super) fn request_move(&mut self, now: Time, vip: &str, to: &str) {
        if let Some(leader) = &mut self.leader {
            // A refusal changes nothing.
            let _ = leader.request_move(now, &self.raft.state, vip, Some(to));
        }
    }

    /// netft says that the peer cannot be reached over any route, or that it can.
    pub(super) fn on_reachable(
        &mut self,
        now: Time,
        peer: usize,
        is_reachable: bool,
        rng: &mut SplitMix64,
    ) {
        if is_reachable {
            self.unreachable.remove(&peer);
        } else {
            self.unreachable.insert(peer);
            self.raft.on_unreachable(now, peer, rng);
        }
        if let Some(leader) = &mut self.leader {
            leader.set_reachable(&node_name(peer), is_reachable);
        }
    }

    pub(super) fn next_wake(&self, now: Time) -> Time {
        let mut wake = self.raft.next_wake().min(self.holder.next_wake());
        let state = &self.raft.state;
        let next = |leader: &OwnershipLeader| leader.next_wake(now, state, &self.policies);
        if let Some(at) = self.leader.as_ref().and_then(next) {
            wake = wake.min(at);
        }
        self.repeated.iter().map(|(at, _)| *at).fold(wake, Time::min)
    }

    pub(super) fn on_message(
        &mut self,
        now: Time,
        from: usize,
        message: NodeMessage,
        rng: &mut SplitMix64,
    ) {
        match message {
            NodeMessage::Raft(message) => self.raft.on_message(now, from, message, rng),
            NodeMessage::Report(report) => self.on_report(now, from, report),
            NodeMessage::Reply(reply) => self.on_reply(now, &reply),
            NodeMessage::NotLeader(serial, leader) => {
                self.leader_hint = leader.filter(|leader| *leader != from);
                self.holder.on_failure(now, serial);
            }
            NodeMessage::Nudge => {
                self.leader_hint = Some(from);
                self.holder.request_report(now);
            }
        }
    }

    fn send(&mut self, to: usize, message: NodeMessage) {
        self.outputs.push(NodeOutput::Send(to, message));
    }

    fn on_report(&mut self, now: Time, from: usize, report: LeaseReport) {
        let Some(leader) = &mut self.leader else {
            let refusal = NodeMessage::NotLeader(report.serial, self.raft.leader);
            if from == self.me {
                self.holder.on_failure(now, report.serial);
            } else {
                self.send(from, refusal);
            }
            return;
        };
        leader.on_report(now, &self.raft.state, &report);
        let round = match self.bug {
            // Every heartbeat so far counts as the confirmation.
            Some(OwnershipBug::NoConfirmation) => 0,
            _ => self.raft.start_round(now),
        };
        self.waiting.push((from, report, round));
    }

    fn on_reply(&mut self, now: Time, reply: &LeaseReply) {
        for update in self.holder.on_reply(now, reply) {
            match update {
                HolderUpdate::Granted { vip, token, until, .. } => {
                    let until = match self.bug {
                        Some(OwnershipBug::FromReceipt) => {
                            let lease = self.policies.iter().find(|policy| policy.name == vip);
                            now + lease.map_or(Duration::ZERO, |policy| policy.lease)
                        }
                        _ => until,
                    };
                    self.outputs.push(NodeOutput::Fence { vip, token, until });
                }
                HolderUpdate::Revoked { vip, token } => {
                    if self.bug != Some(OwnershipBug::ReleaseNotAwaited) {
                        self.outputs.push(NodeOutput::Unfence { vip: vip.clone() });
                    }
                    self.holder.on_released(now, &vip, token);
                }
                HolderUpdate::Owner { .. } => {}
            }
        }
    }

    /// Runs whatever is due, until nothing is.
    pub(super) fn run(&mut self, now: Time, rng: &mut SplitMix64) {
        self.raft.on_timer(now, rng);
        self.repeat_proposals(now);
        loop {
            self.take_raft_events(now);
            let sent = self.outputs.len();
            self.send_report(now, rng);
            self.answer_reports(now);
            self.lead(now, rng);
            if self.outputs.len() == sent && self.raft.events.is_empty() {
                return;
            }
        }
    }

    fn take_raft_events(&mut self, now: Time) {
        for event in std::mem::take(&mut self.raft.events) {
            match event {
                RaftEvent::Send(to, message) => self.send(to, NodeMessage::Raft(message)),
                RaftEvent::Elected(ack) => {
                    let ack = match self.bug {
                        Some(OwnershipBug::NewLeaderDoesNotWait) => Some(Time::ZERO),
                        Some(OwnershipBug::VotesTellNoAge) => {
                            let long_ago =
                                now.since(Time::ZERO).saturating_sub(Duration::from_secs(1));
                            Some(Time::ZERO + long_ago)
                        }
                        _ => ack,
                    };
                    let mut leader = OwnershipLeader::new(now, ack, LeaseRules::DEFAULT);
                    let reached = (0..self.voters).filter(|node| !self.unreachable.contains(node));
                    let reached: BTreeSet<_> = reached.map(node_name).collect();
                    for lost in &self.unreachable {
                        leader.set_reachable(&node_name(*lost), false);
                    }
                    if self.bug != Some(OwnershipBug::PlacesUnheard) {
                        leader.ask_nodes(now, reached);
                    }
                    self.leader = Some(leader);
                    self.waiting.clear();
                    self.repeated.clear();
                    self.holder.request_report(now);
                }
                RaftEvent::Deposed => {
                    self.leader = None;
                    for (from, report, _) in std::mem::take(&mut self.waiting) {
                        if from != self.me {
                            self.send(from, NodeMessage::NotLeader(report.serial, None));
                        }
                    }
                }
            }
        }
    }

    fn send_report(&mut self, now: Time, rng: &mut SplitMix64) {
        let Some(report) = self.holder.poll_report(now) else { return };
        if self.leader.is_some() {
            return self.on_report(now, self.me, report);
        }
        let known = self.leader_hint.take().or(self.raft.leader);
        let to = known.unwrap_or_else(|| rng.next_below(self.voters as u64) as usize);
        if to == self.me {
            self.holder.on_failure(now, report.serial);
        } else {
            self.send(to, NodeMessage::Report(report));
        }
    }

    fn answer_reports(&mut self, now: Time) {
        let state = self.leader_state();
        let Some(leader) = &mut self.leader else { return };
        let mut answers = Vec::new();
        let raft = &mut self.raft;
        let policies = &self.policies;
        self.waiting.retain(|(from, report, round)| {
            let is_confirmed = raft.is_confirmed(*round);
            if is_confirmed {
                raft.acknowledge_self(now);
                let mut reply = leader.answer_report(now, &state, policies, report);
                if self.bug == Some(OwnershipBug::LeavesOutLoss) {
                    reply.vips.retain(|word| word.verdict != LeaseVerdict::NotOwner);
                    let lease = policies.iter().map(|policy| policy.lease).min();
                    reply.renewed = reply.renewed.or(lease);
                }
                answers.push((*from, reply));
            }
            !is_confirmed
        });
        self.send_replies(now, answers);
    }

    fn send_replies(&mut self, now: Time, replies: Vec<(usize, LeaseReply)>) {
        for (to, reply) in replies {
            if to == self.me {
                self.on_reply(now, &reply);
            } else {
                self.send(to, NodeMessage::Reply(reply));
            }
        }
    }

    fn lead(&mut self, now: Time, rng: &mut SplitMix64) {
        let state = self.leader_state();
        let Some(leader) = &mut self.leader else { return };
        let commands = leader.poll_commands(now, &self.raft.state, &self.policies);
        let grants = leader.take_grants(now, &state, &self.policies);
        let nudges = leader.take_nudges();
        let grants = grants.into_iter().map(|(node, reply)| (node_index(&node), reply));
        self.send_replies(now, grants.collect());
        for command in OwnershipCommand::into_entries(commands) {
            if rng.chance_permille(REPEATED_PERMILLE) {
                let at = now + rng.duration_up_to(REPEATED_WITHIN);
                self.repeated.push((at, command.clone()));
            }
            self.raft.propose(now, command);
        }
        for node in nudges.iter().map(|name| node_index(name)) {
            if node == self.me {
                self.holder.request_report(now);
            } else {
                self.send(node, NodeMessage::Nudge);
            }
        }
    }
}

impl Process {
    fn repeat_proposals(&mut self, now: Time) {
        for (at, command) in std::mem::take(&mut self.repeated) {
            if now < at {
                self.repeated.push((at, command));
                continue;
            }
            self.raft.propose(now, command);
        }
    }
}

/// Leases that the kernel of a node enforces, by address: the token, and the end in real time.
pub(super) type Fences = BTreeMap<String, (FencingToken, Time)>;

//! This node's vote: when elections begin, who may begin them, and what happens after the store
//! failed.

use std::{collections::BTreeSet, sync::Arc};

use netft::{Time, vip::ownership::VipPolicy};

use super::{
    engine::EngineTask,
    event::{EngineEvent, spawn_for_event},
    network::{LEADER_SILENCE, OwnershipTransport},
    store::StoreProblem,
    voter::{VOTE_REFUSAL, Voter, start_voter},
};
use crate::ownership::clock;

impl<T: OwnershipTransport> EngineTask<T> {
    /// netft's word on a node. The reachable voters begin the election in turn when the leader is
    /// lost.
    pub(super) fn on_reachability(&mut self, node: &str, is_reachable: bool) {
        let now = clock::now();
        self.evidence.set_reachable(node, is_reachable);
        if let Some((_, leader)) = &mut self.leader {
            leader.set_reachable(node, is_reachable);
        }
        let lost = self.known_leader().as_deref() == Some(node) && !is_reachable;
        if lost && self.may_elect() {
            tracing::info!(leader = node, "ownership: the leader is unreachable");
            self.take_turns(now, self.evidence.last_ack() + VOTE_REFUSAL);
        }
    }

    /// The reached voters begin elections in turn, from when votes are given again.
    fn take_turns(&mut self, now: Time, refused_until: Time) {
        let reached = self.voters.iter().filter(|id| self.is_reached(**id));
        let (before, all) =
            reached.fold((0, 0), |(before, all), id| (before + u32::from(*id < self.me), all + 1));
        self.route.election.on_leader_lost(now, refused_until, before, all);
    }

    /// When a leader that this voter does not hear counts as lost; `None`: it need not hear one.
    pub(super) fn silent_at(&self) -> Option<Time> {
        let is_watching =
            self.leader.is_none() && !self.route.election.is_active() && self.may_elect();
        is_watching.then(|| self.evidence.last_ack() + LEADER_SILENCE)
    }

    /// Takes turns if the leader is silent. What it said may wait for this process: the first turn
    /// comes later.
    pub(super) fn watch_leader(&mut self, now: Time) {
        if self.silent_at().is_some_and(|at| now >= at) {
            self.take_turns(now, now + VOTE_REFUSAL / 2);
        }
    }

    /// This node does not lead any more: a candidate of a later term has its time first.
    pub(super) fn on_deposed(&mut self, now: Time) {
        self.evidence.follow_leader(None);
        if self.may_elect() {
            self.take_turns(now, now + VOTE_REFUSAL);
        }
    }

    /// Takes the voters from the log once it has begun: a config that names others, as by a peer
    /// that came or went while all nodes vote, does not change who must agree.
    pub(super) fn follow_members(&mut self) {
        let Some(voter) = &self.voter else { return };
        let metrics = voter.metrics.borrow();
        let members = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = members.voter_ids().collect();
        if voters.is_empty() || voters == self.voters {
            return;
        }
        for (id, node) in members.nodes() {
            self.names.entry(*id).or_insert_with(|| node.addr.clone());
        }
        let name_of = |id: &u64| self.names.get(id).map_or("?", String::as_str);
        let [in_log, in_config] = [&voters, &self.voters]
            .map(|ids| ids.iter().map(name_of).collect::<Vec<_>>().join(", "));
        tracing::warn!(
            in_log,
            in_config,
            "ownership: the config names other voters than the log, which counts"
        );
        self.voters = voters;
    }

    /// True for this node, and for those that netft reaches.
    pub(super) fn is_reached(&self, id: u64) -> bool {
        let is_other_reached =
            || self.names.get(&id).is_some_and(|name| !self.evidence.is_unreachable(name));
        id == self.me || is_other_reached()
    }

    /// A node without a majority begins no election, so that its terms do not rise, and neither
    /// does a witness.
    fn may_elect(&self) -> bool {
        let reached = self.voters.iter().filter(|id| self.is_reached(**id)).count();
        let is_majority = reached > self.voters.len() / 2;
        let is_voter = self.voter.is_some() && self.voters.contains(&self.me);
        is_voter && is_majority && !self.settings.policies.is_empty()
    }

    /// Follows other rules from here on. A node that had none was a witness.
    pub(super) async fn set_policies(&mut self, policies: Vec<VipPolicy>) {
        tracing::info!("ownership: raft decides on {} addresses", policies.len());
        self.settings.policies = policies;
        if let Some(voter) = &self.voter
            && let Err(error) = voter.join_members(&self.settings).await
        {
            self.note_error(clock::now(), error);
        }
    }

    /// Begins an election if it is this node's turn.
    pub(super) async fn begin_election(&mut self, now: Time) {
        if !self.route.election.is_active() {
            return;
        }
        let is_heard = now < self.evidence.last_ack() + LEADER_SILENCE;
        let is_led = self.leader.is_some()
            || is_heard
                && self.known_leader().is_some_and(|name| !self.evidence.is_unreachable(&name));
        if is_led || !self.may_elect() {
            self.route.election.end();
        }
        if self.evidence.take_log_behind() {
            self.route.election.on_log_behind(now);
        }
        let is_turn = self.route.election.take_turn(now);
        let Some(voter) = self.voter.as_ref().filter(|_| is_turn) else { return };
        tracing::debug!("ownership: this node's turn to be elected");
        if let Err(error) = voter.raft.trigger().elect().await {
            tracing::debug!(%error, "ownership: no election");
            self.note_error(now, format!("no election: {error}"));
        }
    }

    /// Another voter is a candidate: it gets its time.
    pub(super) fn follow_votes(&mut self, now: Time) {
        let Some(voter) = &self.voter else { return };
        let vote = voter.metrics.borrow().vote;
        let is_given = vote.leader_id.voted_for != Some(self.me) && !vote.committed;
        if is_given && self.route.seen_term < vote.leader_id.term {
            self.route.election.on_vote_given(now);
        }
        self.route.seen_term = vote.leader_id.term;
    }

    /// The store failed: leases are asked for, and nothing is voted on.
    pub(super) async fn lose_vote(&mut self, now: Time, problem: String) {
        tracing::error!("ownership: {problem}");
        self.set_problem(Some(problem)).await;
        self.stop().await;
        self.revival.on_failed(now);
    }

    /// Tries to start raft again, if that is due.
    pub(super) fn revive_voter(&mut self, now: Time) {
        if self.voter.is_some() || !self.voters.contains(&self.me) || !self.revival.take_due(now) {
            return;
        }
        let (settings, me, origin) = (self.settings.clone(), self.me, self.revival.origin);
        let (transport, evidence) = (Arc::clone(&self.transport), Arc::clone(&self.evidence));
        let inbox = self.outputs.inbox.clone();
        let work = async move {
            let started = start_voter(&settings, me, &transport, &evidence, origin).await;
            EngineEvent::VoterStarted(Box::new(started))
        };
        spawn_for_event(&inbox, work, |panic| {
            let problem = format!("raft does not start: {panic}");
            EngineEvent::VoterStarted(Box::new(Err(StoreProblem::Unusable(problem))))
        });
    }

    pub(super) async fn on_voter_started(
        &mut self,
        now: Time,
        started: Result<Voter, StoreProblem>,
    ) {
        match started {
            Ok(voter) => {
                tracing::info!("ownership: the store can be written: this node votes again");
                self.voter = Some(voter);
                self.revival.on_started(now);
                self.set_problem(None).await;
            }
            // The former process of the store ends soon.
            Err(StoreProblem::InUse(text)) => {
                tracing::debug!("ownership: {text}");
                self.revival.on_failed(now);
            }
            Err(StoreProblem::Unusable(text) | StoreProblem::Damaged(text)) => {
                self.set_problem(Some(text)).await;
                self.revival.on_failed(now);
            }
        }
    }
}

//! This node's vote: elections that netft's own detection begins, who may begin them, and what
//! happens after the store failed.

use std::sync::Arc;

use netft::{Time, vip::ownership::VipPolicy};

use super::{
    engine::EngineTask,
    event::EngineEvent,
    network::OwnershipTransport,
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
        let may_elect = self.update_election_right();
        let lost = self.known_leader().as_deref() == Some(node) && !is_reachable;
        if may_elect && lost {
            let reached = self.voters.iter().filter(|id| self.is_reached(**id));
            let (before, all) = reached
                .fold((0, 0), |(before, all), id| (before + u32::from(*id < self.me), all + 1));
            let refused_until = self.evidence.last_ack() + VOTE_REFUSAL;
            tracing::info!(leader = node, turn = before, "ownership: the leader is unreachable");
            self.route.election.on_leader_lost(now, refused_until, before, all);
            self.update_election_right();
        }
    }

    /// True for this node, and for those that netft reaches.
    pub(super) fn is_reached(&self, id: u64) -> bool {
        let is_other_reached =
            || self.names.get(&id).is_some_and(|name| !self.evidence.is_unreachable(name));
        id == self.me || is_other_reached()
    }

    /// A node without a majority begins no election, so that its terms do not rise, and neither
    /// does a witness.
    fn update_election_right(&mut self) -> bool {
        let Some(voter) = &self.voter else { return false };
        let reached = self.voters.iter().filter(|id| self.is_reached(**id)).count();
        let may_elect = reached > self.voters.len() / 2 && !self.settings.policies.is_empty();
        if !may_elect {
            self.route.election.end();
        }
        // Two timers of one node would end each other's elections.
        voter.raft.runtime_config().elect(may_elect && !self.route.election.is_active());
        may_elect
    }

    /// Follows other rules from here on. A node that had none was a witness.
    pub(super) async fn set_policies(&mut self, policies: Vec<VipPolicy>) {
        tracing::info!("ownership: raft decides on {} addresses", policies.len());
        self.settings.policies = policies;
        self.update_election_right();
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
        let is_led = self.leader.is_some()
            || self.known_leader().is_some_and(|name| !self.evidence.is_unreachable(&name));
        if is_led {
            self.route.election.end();
        }
        if self.evidence.take_log_behind() {
            self.route.election.on_log_behind(now);
        }
        let is_turn = self.route.election.take_turn(now);
        if !self.route.election.is_active() {
            self.update_election_right();
        }
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
        tokio::spawn(async move {
            let started = start_voter(&settings, me, &transport, &evidence, origin).await;
            // The engine may have stopped.
            let _ = inbox.send(EngineEvent::VoterStarted(Box::new(started))).await;
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
                self.update_election_right();
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

//! Elections that netft's own detection begins, and who may begin them.

use std::time::Duration;

use netft::{Time, vip::ownership::VipPolicy};

use super::{engine::EngineTask, network::OwnershipTransport};
use crate::ownership::clock;

/// Interval and duration of the elections that this node begins because netft cannot reach the
/// leader; raft's own timers follow.
const ELECTION_RETRY: Duration = Duration::from_millis(60);
const ELECTION_TURN: Duration = Duration::from_millis(20);
const ELECTION_EFFORT: Duration = Duration::from_millis(600);

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
            tracing::info!(leader = node, "ownership: the leader is unreachable: election");
            let mut reached = self.voters.iter().filter(|id| self.is_reached(**id));
            let turn = reached.position(|id| *id == self.me).unwrap_or_default();
            let first = now + ELECTION_TURN * u32::try_from(turn).unwrap_or_default();
            self.route.election = Some((now + ELECTION_EFFORT, first));
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
        voter.raft.runtime_config().elect(may_elect);
        if !may_elect {
            self.route.election = None;
        }
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

    pub(super) async fn begin_election(&mut self, now: Time) {
        let Some((until, next)) = self.route.election else { return };
        if now < next {
            return;
        }
        let led = self.known_leader().is_some_and(|name| !self.evidence.is_unreachable(&name));
        let Some(voter) = self.voter.as_ref().filter(|_| !led && now < until) else {
            self.route.election = None;
            return;
        };
        if self.leader.is_some() {
            self.route.election = None;
            return;
        }
        self.route.election = Some((until, now + ELECTION_RETRY));
        if let Err(error) = voter.raft.trigger().elect().await {
            tracing::debug!(%error, "ownership: no election");
            self.note_error(now, format!("no election: {error}"));
        }
    }
}

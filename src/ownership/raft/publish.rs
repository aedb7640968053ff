//! Publishes the state of the engine.

use netft::{Time, config::VipOwnership};
use openraft::ServerState;

use super::{engine::EngineTask, network::OwnershipTransport, status::EngineRole};
use crate::ownership::OwnershipUpdate;

/// The update that tells the address service why this node does not vote.
pub(super) fn raft_problem(problem: Option<String>) -> OwnershipUpdate {
    let engine = VipOwnership::Raft;
    OwnershipUpdate::Problem { engine, problem: problem.map(Into::into) }
}

impl<T: OwnershipTransport> EngineTask<T> {
    /// Keeps an error for those who ask.
    pub(super) fn note_error(&self, now: Time, what: String) {
        self.outputs.status.send_modify(|status| status.last_error = Some((now, what)));
    }

    /// Says why this node does not vote, also to the address service; `None`: it votes.
    pub(super) async fn set_problem(&self, problem: Option<String>) {
        let has_changed = self.outputs.status.send_if_modified(|status| {
            let has_changed = status.problem != problem;
            status.problem.clone_from(&problem);
            has_changed
        });
        if has_changed {
            self.send_to_service(raft_problem(problem)).await;
        }
    }

    pub(super) fn publish_status(&self) {
        let (role, term) = match &self.voter {
            Some(voter) => {
                let metrics = voter.metrics.borrow();
                let role = match metrics.state {
                    ServerState::Leader => EngineRole::Leader,
                    ServerState::Candidate => EngineRole::Candidate,
                    ServerState::Learner | ServerState::Follower | ServerState::Shutdown => {
                        EngineRole::Follower
                    }
                };
                (role, metrics.current_term)
            }
            None => (EngineRole::Holder, 0),
        };
        let leader = match role {
            EngineRole::Leader => Some(self.settings.node.clone()),
            _ => self.known_leader(),
        };
        let voters = self
            .voters
            .iter()
            .filter_map(|id| self.names.get(id).map(|name| (name.clone(), self.is_reached(*id))));
        let mut voters: Vec<_> = voters.collect();
        voters.sort();
        self.outputs.status.send_if_modified(|status| {
            let has_changed = (status.role, &status.leader, status.term, &status.voters)
                != (role, &leader, term, &voters);
            (status.role, status.leader, status.term, status.voters) = (role, leader, term, voters);
            has_changed
        });
    }
}

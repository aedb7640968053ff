//! Publishes the state of the engine.

use netft::Time;
use openraft::ServerState;

use super::{engine::EngineTask, network::OwnershipTransport, status::EngineRole};

impl<T: OwnershipTransport> EngineTask<T> {
    /// Keeps an error for those who ask.
    pub(super) fn note_error(&self, now: Time, what: String) {
        self.outputs.status.send_modify(|status| status.last_error = Some((now, what)));
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

//! Times at which candidate routes are planned again: an interface without a working route tries
//! all its pairs, and candidates that never came up end once another route of their interfaces
//! works.

use std::time::Duration;

use netft_proto::{time::Time, topology::RouteActivity};

use crate::io::control::component::{Action, Actions, Component, Input, View};

/// Several routes change state together.
const COALESCE_DELAY: Duration = Duration::from_millis(20);

/// The next moment at which another pair may have to be tried.
#[derive(Default)]
pub(super) struct RouteTrials {
    due: Option<Time>,
}

impl Component for RouteTrials {
    fn next_wake(&self) -> Option<Time> {
        self.due
    }

    fn on_input(&mut self, now: Time, input: &Input<'_>, view: &View<'_>, _: &mut Actions) {
        let next = match input {
            Input::RouteStateChanged => Some(now + COALESCE_DELAY),
            Input::RoutesChanged => next_change(now, view),
            _ => return,
        };
        self.due = [self.due, next].into_iter().flatten().min();
    }

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if self.due.is_some_and(|due| due <= now) {
            self.due = next_change(now, view);
            actions.push(Action::UpdateTrials);
        }
    }
}

/// When the activity of a route changes by itself.
fn next_change(now: Time, view: &View<'_>) -> Option<Time> {
    let statuses = view.engine.route_statuses();
    statuses.iter().filter_map(|status| RouteActivity::next_change(status, now)).min()
}

#[cfg(test)]
mod tests {
    use netft_proto::ids::PeerId;

    use super::*;
    use crate::io::control::test_node::{TestNode, actions_of, due_actions};

    #[test]
    fn trials_are_updated_when_a_route_has_had_its_time_and_after_changes() {
        let mut node = TestNode::new(1);
        node.add_route(PeerId(0));
        let (mut trials, at) = (RouteTrials::default(), Time::from_millis);
        assert!(actions_of(&mut trials, at(1), &Input::RoutesChanged, &node).is_empty());
        assert_eq!(trials.next_wake(), Some(at(400)));
        assert!(due_actions(&mut trials, at(399), &node).is_empty());
        let due = due_actions(&mut trials, at(400), &node);
        assert!(matches!(due[..], [Action::UpdateTrials]), "{due:?}");
        assert_eq!(trials.next_wake(), Some(at(60_000)));
        assert!(actions_of(&mut trials, at(500), &Input::RouteStateChanged, &node).is_empty());
        assert_eq!(trials.next_wake(), Some(at(520)));
    }
}

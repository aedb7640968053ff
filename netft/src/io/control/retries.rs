//! Sends that the kernel refused and sockets that did not open, until they are tried again.

use std::{collections::BTreeMap, time::Duration};

use netft_proto::{engine::EngineInput, ids::RouteId, route::Reason, time::Time};

use crate::io::control::component::{Action, Actions, Component, Input, View};

/// How long a route counts as broken after the kernel refused to send on it.
const SEND_RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The time to the next attempt to open a socket.
const SOCKET_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Failures on this node, by route. Most of the time there is none.
#[derive(Default)]
pub(super) struct Retries {
    /// The routes reported as broken by a send error, and until when.
    send_errors: BTreeMap<RouteId, Time>,
    /// The routes whose sockets did not open, and when they are opened again.
    closed_sockets: BTreeMap<RouteId, Time>,
}

impl Retries {
    /// The socket of a route is open.
    pub(super) fn on_socket_opened(&mut self, route: RouteId) {
        self.closed_sockets.remove(&route);
    }

    /// The socket of a route did not open: it is opened again after a while. Returns whether it
    /// was the first time.
    pub(super) fn on_socket_failed(&mut self, now: Time, route: RouteId) -> bool {
        self.closed_sockets.insert(route, now + SOCKET_RETRY_INTERVAL).is_none()
    }
}

impl Component for Retries {
    fn next_wake(&self) -> Option<Time> {
        self.send_errors.values().chain(self.closed_sockets.values()).min().copied()
    }

    fn on_input(&mut self, now: Time, input: &Input<'_>, view: &View<'_>, actions: &mut Actions) {
        let Input::SendFailed(route) = *input else { return };
        if !view.routes.contains(route) {
            return;
        }
        let first = self.send_errors.insert(route, now + SEND_RETRY_INTERVAL).is_none();
        if first {
            tracing::debug!(%route, "send refused by the kernel: the route is down until a retry");
            actions.feed_engine(EngineInput::Fault { route, reason: Reason::SendError });
        }
    }

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if self.next_wake().is_none_or(|due| due > now) {
            return;
        }
        self.send_errors.retain(|route, until| {
            if *until > now {
                return true;
            }
            let (route, reason) = (*route, Reason::SendError);
            tracing::debug!(%route, "sending is tried again");
            actions.feed_engine(EngineInput::FaultCleared { route, reason });
            false
        });
        self.closed_sockets.retain(|route, _| view.routes.contains(*route));
        let mut due = false;
        for at in self.closed_sockets.values_mut().filter(|at| **at <= now) {
            // Also where no interface has the address, so that no socket is opened.
            *at = now + SOCKET_RETRY_INTERVAL;
            due = true;
        }
        if due {
            actions.push(Action::SyncSockets);
        }
    }
}

#[cfg(test)]
mod tests {
    use netft_proto::ids::PeerId;

    use super::*;
    use crate::io::control::test_node::{TestNode, actions_of, due_actions};

    #[test]
    fn a_send_error_is_a_fault_until_nothing_fails_for_a_while() {
        let mut node = TestNode::new(1);
        let route = node.add_route(PeerId(0));
        let (mut retries, at) = (Retries::default(), Time::from_millis);
        let failed = Input::SendFailed(route);
        let first = actions_of(&mut retries, at(0), &failed, &node);
        assert!(matches!(first[..], [Action::Engine(EngineInput::Fault { .. })]), "{first:?}");
        assert!(actions_of(&mut retries, at(100), &failed, &node).is_empty());
        assert!(due_actions(&mut retries, at(299), &node).is_empty());
        assert_eq!(retries.next_wake(), Some(at(300)));
        let over = due_actions(&mut retries, at(300), &node);
        assert!(matches!(over[..], [Action::Engine(EngineInput::FaultCleared { .. })]), "{over:?}");
        assert_eq!(retries.next_wake(), None);
        let unknown = Input::SendFailed(RouteId(99));
        assert!(actions_of(&mut retries, at(0), &unknown, &node).is_empty());
    }

    #[test]
    fn a_socket_is_opened_again_until_it_opens_or_its_route_is_gone() {
        let mut node = TestNode::new(1);
        let route = node.add_route(PeerId(0));
        let (mut retries, at) = (Retries::default(), Time::from_millis);
        assert!(retries.on_socket_failed(at(0), route));
        assert!(!retries.on_socket_failed(at(1), route), "logged once");
        let due = due_actions(&mut retries, at(251), &node);
        assert!(matches!(due[..], [Action::SyncSockets]), "{due:?}");
        retries.on_socket_opened(route);
        assert!(due_actions(&mut retries, at(300), &node).is_empty());
        assert!(retries.on_socket_failed(at(300), route));
        node.routes.remove(route);
        assert!(due_actions(&mut retries, at(900), &node).is_empty());
        assert_eq!(retries.next_wake(), None);
    }
}

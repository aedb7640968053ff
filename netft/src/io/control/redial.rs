//! Fresh handshakes with peers that have a session and no usable route: they may have restarted
//! where they cannot dial, behind a NAT or without an address of this node. So this node dials.

use std::{collections::BTreeMap, time::Duration};

use netft_proto::{ids::PeerId, time::Time};

use crate::io::control::component::{Action, Actions, Component, Input, View};

/// The time between two checks; the driver wakes up for heartbeats anyway.
const SILENCE_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a peer with a session must be unreachable before it is dialled.
const PEER_SILENCE_BEFORE_REDIAL: Duration = Duration::from_secs(1);
/// The time to the next dial, if the fresh session changed nothing.
const REDIAL_INTERVAL: Duration = Duration::from_secs(10);

/// The peers with a session that are unreachable.
#[derive(Default)]
pub(super) struct Redial {
    next_check: Time,
    /// When each is dialled next, and how often it was dialled.
    dials: BTreeMap<PeerId, (Time, u32)>,
}

impl Component for Redial {
    /// Never: the driver wakes up for heartbeats.
    fn next_wake(&self) -> Option<Time> {
        None
    }

    fn on_input(&mut self, _: Time, _: &Input<'_>, _: &View<'_>, _: &mut Actions) {}

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if now < self.next_check {
            return;
        }
        self.next_check = now + SILENCE_CHECK_INTERVAL;
        let peers = view.engine.peer_statuses().into_iter();
        let silent: Vec<_> = peers
            .filter(|status| status.session && !status.reachable)
            .map(|status| status.peer)
            .collect();
        self.dials.retain(|peer, _| silent.contains(peer));
        for peer in silent {
            let first = (now + PEER_SILENCE_BEFORE_REDIAL, 0);
            let (dial_at, attempt) = self.dials.entry(peer).or_insert(first);
            if *dial_at <= now {
                (*dial_at, *attempt) = (now + REDIAL_INTERVAL, *attempt + 1);
                let name = view.config.peer_of(peer).map_or("?", |peer| &peer.name);
                // Once an outage for the operator, every attempt for a debugger.
                if *attempt == 1 {
                    tracing::info!(peer = %name, "no usable route for 1 s: fresh handshake");
                } else {
                    tracing::debug!(peer = %name, attempt, "fresh handshake");
                }
                // It goes on until a handshake succeeds; the present session serves until then.
                actions.push(Action::RenewSession(peer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::control::test_node::{TestNode, due_actions};

    #[test]
    fn an_unreachable_peer_is_dialled_after_a_second_and_every_ten() {
        let mut node = TestNode::new(2);
        let route = node.add_route(PeerId(1));
        node.bring_up(Time::from_millis(1), PeerId(1), route);
        let mut redial = Redial::default();
        let mut dials = Vec::new();
        for at in (0..15_000).step_by(100).map(Time::from_millis) {
            for action in due_actions(&mut redial, at, &node) {
                assert!(matches!(action, Action::RenewSession(PeerId(0))), "{action:?}");
                dials.push(at);
            }
        }
        assert_eq!(dials.len(), 2, "{dials:?}");
        assert!(dials[0] >= Time::from_millis(1000) && dials[0] <= Time::from_millis(1300));
        assert!(dials[1].since(dials[0]) >= REDIAL_INTERVAL);
    }
}

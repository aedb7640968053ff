//! Reports when a peer is gone: the second threshold, after unreachable ([`PeerAbsence`]).

use std::{collections::BTreeMap, time::Duration};

use netft_proto::{
    config::FailoverConfig,
    ids::PeerId,
    route::{EventKind, PeerAbsence},
    time::Time,
};

use crate::io::control::component::{Action, Actions, Component, Input, View};

/// Time between two updates; the driver wakes up for heartbeats anyway.
const ABSENCE_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Every peer's absence.
#[derive(Default)]
pub(super) struct AbsentPeers {
    peers: BTreeMap<PeerId, AbsentPeer>,
    next_check: Time,
    next_update: Option<Time>,
}

/// The two ways in which a peer may be absent.
struct AbsentPeer {
    /// No heartbeat of it arrives on any route.
    silence: PeerAbsence,
    /// No route to it is usable.
    unrouted: PeerAbsence,
}

impl AbsentPeers {
    /// The peer has been silent for `failover.gone`.
    pub(super) fn is_gone(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.silence.is_gone())
    }

    /// No route to the peer has been usable for `failover.unreachable`.
    pub(super) fn is_unreachable(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.unrouted.is_gone())
    }
}

impl Component for AbsentPeers {
    fn next_wake(&self) -> Option<Time> {
        // `poll` does nothing before the next check.
        self.next_update.map(|due| due.max(self.next_check))
    }

    fn on_input(&mut self, _: Time, _: &Input<'_>, _: &View<'_>, _: &mut Actions) {}

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if now < self.next_check {
            return;
        }
        self.next_check = now + ABSENCE_CHECK_INTERVAL;
        let FailoverConfig { gone_after: after, unreachable_after, .. } = view.config.failover;
        let statuses = view.engine.peer_statuses();
        self.peers.retain(|peer, _| statuses.iter().any(|status| status.peer == *peer));
        for status in statuses {
            let peer = status.peer;
            let absent = self.peers.entry(peer).or_insert_with(|| AbsentPeer {
                silence: PeerAbsence::new(now),
                unrouted: PeerAbsence::new(now),
            });
            if absent.silence.update(now, status.heard, after) {
                actions.push(Action::Emit(EventKind::RemoteGone { peer, after }));
            }
            let was_unreachable = absent.unrouted.is_gone();
            absent.unrouted.update(now, status.reachable, unreachable_after);
            // A longer `failover.unreachable` ends the answers. A route that comes up has the table
            // built anyway.
            if !status.reachable && absent.unrouted.is_gone() != was_unreachable {
                actions
                    .push(Action::RebuildTable("a peer is unreachable for its time, or not yet"));
            }
        }
        let due = |peer: &AbsentPeer| {
            let updates =
                [peer.silence.next_update(after), peer.unrouted.next_update(unreachable_after)];
            updates.into_iter().flatten().min()
        };
        self.next_update = self.peers.values().filter_map(due).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::control::test_node::{TestNode, due_actions};

    #[test]
    fn a_silent_peer_is_unreachable_at_once_and_gone_after_its_time() {
        let mut node = TestNode::new(2);
        node.config.failover.gone_after = Duration::from_secs(3);
        node.config.failover.unreachable_after = Duration::from_secs(1);
        let route = node.add_route(PeerId(1));
        node.bring_up(Time::from_millis(1), PeerId(1), route);
        let mut absent = AbsentPeers::default();
        let (mut gone, mut unreachable) = (Vec::new(), Vec::new());
        for at in (0..6000).step_by(10).map(Time::from_millis) {
            if at >= Time::from_millis(2000) {
                node.engine.on_timer(at);
            } else {
                node.bring_up(at, PeerId(1), route);
            }
            for action in due_actions(&mut absent, at, &node) {
                match action {
                    Action::Emit(EventKind::RemoteGone { peer, .. }) => {
                        gone.push((peer, at.as_millis()));
                    }
                    Action::RebuildTable(_) => unreachable.push(at.as_millis()),
                    action => panic!("{action:?}"),
                }
            }
        }
        // The first was never heard; the second was, until two seconds.
        assert_eq!(gone.iter().map(|(peer, _)| peer.0).collect::<Vec<_>>(), [0, 1]);
        assert!((3000..3200).contains(&gone[0].1) && (5000..5500).contains(&gone[1].1), "{gone:?}");
        assert!((1000..1200).contains(&unreachable[0]), "{unreachable:?}");
        assert!((3000..3500).contains(&unreachable[1]), "{unreachable:?}");
        assert_eq!(unreachable.len(), 2);
        assert!(absent.is_unreachable(PeerId(0)) && absent.is_unreachable(PeerId(1)));
        assert!(absent.is_gone(PeerId(1)) && absent.next_wake().is_none());
    }

    #[test]
    fn a_time_that_is_raised_while_a_peer_is_unreachable_ends_its_answers() {
        let mut node = TestNode::new(1);
        node.config.failover.gone_after = Duration::from_secs(60);
        node.config.failover.unreachable_after = Duration::from_secs(1);
        let mut absent = AbsentPeers::default();
        let mut rebuilt = Vec::new();
        for at in (0..6000).step_by(10).map(Time::from_millis) {
            if at == Time::from_millis(2000) {
                node.config.failover.unreachable_after = Duration::from_secs(4);
            }
            for action in due_actions(&mut absent, at, &node) {
                assert!(matches!(action, Action::RebuildTable(_)), "{action:?}");
                rebuilt.push((at.as_millis(), absent.is_unreachable(PeerId(0))));
            }
        }
        assert_eq!(rebuilt, [(1000, true), (2000, false), (4000, true)]);
    }
}

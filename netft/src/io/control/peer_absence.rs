//! Reports when a peer is gone: the second threshold, after unreachable ([`PeerAbsence`]).

use std::{collections::BTreeMap, time::Duration};

use netft_proto::{
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
    peers: BTreeMap<PeerId, PeerAbsence>,
    next_check: Time,
    next_update: Option<Time>,
}

impl AbsentPeers {
    /// The peer has been silent for `failover.gone`.
    pub(super) fn is_gone(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(PeerAbsence::is_gone)
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
        let after = view.config.failover.gone_after;
        let statuses = view.engine.peer_statuses();
        self.peers.retain(|peer, _| statuses.iter().any(|status| status.peer == *peer));
        for status in statuses {
            let peer = status.peer;
            let absence = self.peers.entry(peer).or_insert_with(|| PeerAbsence::new(now));
            if absence.update(now, status.heard, after) {
                actions.push(Action::Emit(EventKind::RemoteGone { peer, after }));
            }
        }
        self.next_update = self.peers.values().filter_map(|peer| peer.next_update(after)).min();
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
        let route = node.add_route(PeerId(1));
        node.bring_up(Time::from_millis(1), PeerId(1), route);
        let mut absent = AbsentPeers::default();
        let mut gone = Vec::new();
        for at in (0..6000).step_by(10).map(Time::from_millis) {
            if at >= Time::from_millis(2000) {
                node.engine.on_timer(at);
            } else {
                node.bring_up(at, PeerId(1), route);
            }
            for action in due_actions(&mut absent, at, &node) {
                let Action::Emit(EventKind::RemoteGone { peer, .. }) = action else {
                    panic!("{action:?}")
                };
                gone.push((peer, at.as_millis()));
            }
        }
        // The first was never heard; the second was, until two seconds.
        assert_eq!(gone.iter().map(|(peer, _)| peer.0).collect::<Vec<_>>(), [0, 1]);
        assert!((3000..3200).contains(&gone[0].1) && (5000..5500).contains(&gone[1].1), "{gone:?}");
        assert!(absent.is_gone(PeerId(1)) && absent.next_wake().is_none());
    }
}

//! Tries the way through the adapter to every peer with a usable route ([`OverlayEcho`]).
//!
//! Changes of this node's nftables rules are told to the peers by repeating the advertisement: the
//! rules decide about what the peers send, and only their echoes try them.

use std::{collections::BTreeMap, time::Duration};

use netft_proto::{
    ids::PeerId,
    route::{EchoNews, EchoOutcome, EventKind, OverlayEcho},
    time::Time,
};

use crate::io::control::component::{Action, Actions, Component, Input, View};

/// Shortest time between two repetitions of the advertisement: some programs change rules all the
/// time.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Changes of a ruleset come in several transactions.
const REPEAT_DELAY: Duration = Duration::from_millis(500);

/// The echoes to every peer.
#[derive(Default)]
pub(super) struct OverlayWatch {
    peers: BTreeMap<PeerId, OverlayEcho>,
    /// The repetition of the advertisement that is due, and the last one.
    repeat_at: Option<Time>,
    repeated_at: Option<Time>,
    /// The state of routes changed.
    is_stale: bool,
}

impl OverlayWatch {
    /// Why packets through the adapter get no answer from a peer, while a route to it is usable.
    pub(super) fn problem_of(&self, peer: PeerId) -> Option<&'static str> {
        describe_lost(self.peers.get(&peer)?.lost()?)
    }
}

/// The cause that an outcome shows, and its remedy.
const fn describe_lost(outcome: EchoOutcome) -> Option<&'static str> {
    match outcome {
        EchoOutcome::Silent => Some(
            "routes are up and nothing comes back through the adapter: a firewall there or here \
             drops on it; admit the adapter there, and look at `netft validate` on both",
        ),
        EchoOutcome::NotSent => Some(
            "this node's firewall refuses what leaves through the adapter: admit the adapter, and \
             look at `netft validate`",
        ),
        EchoOutcome::Answered | EchoOutcome::Failed => None,
    }
}

impl Component for OverlayWatch {
    fn next_wake(&self) -> Option<Time> {
        let echoes = self.peers.values().filter_map(OverlayEcho::next_wake).min();
        echoes.into_iter().chain(self.repeat_at).min()
    }

    fn on_input(&mut self, now: Time, input: &Input<'_>, _: &View<'_>, actions: &mut Actions) {
        match *input {
            Input::RouteStateChanged => self.is_stale = true,
            Input::RulesetChanged => {
                self.peers.values_mut().for_each(|echo| echo.on_firewall_changed(now));
                let earliest = self.repeated_at.map_or(now, |at| at + REPEAT_INTERVAL);
                self.repeat_at.get_or_insert(earliest.max(now + REPEAT_DELAY));
            }
            Input::PeerAdvertised(peer) => {
                if let Some(echo) = self.peers.get_mut(&peer) {
                    echo.on_firewall_changed(now);
                }
            }
            Input::EchoDone { peer, outcome } => {
                tracing::debug!(%peer, ?outcome, "echo through the adapter");
                let Some(echo) = self.peers.get_mut(&peer) else { return };
                match echo.on_outcome(now, outcome) {
                    Some(EchoNews::Lost(outcome)) => {
                        let what = describe_lost(outcome).unwrap_or_default().to_owned();
                        actions.push(Action::Emit(EventKind::OverlayLost { peer, what }));
                    }
                    Some(EchoNews::Answered) => {
                        actions.push(Action::Emit(EventKind::OverlayAnswers { peer }));
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if self.repeat_at.take_if(|at| *at <= now).is_some() {
            self.repeated_at = Some(now);
            actions.push(Action::RepeatAdvertisement);
        }
        // A witness has no adapter that an echo could leave through.
        if !view.config.adapter.backend.has_device() {
            return;
        }
        let is_due = self.peers.values().filter_map(OverlayEcho::next_wake).any(|at| at <= now);
        if !std::mem::take(&mut self.is_stale) && !is_due {
            return;
        }
        let statuses = view.engine.peer_statuses();
        self.peers.retain(|peer, _| statuses.iter().any(|status| status.peer == *peer));
        for status in statuses {
            let peer = status.peer;
            // A peer without its adapter has nothing that could answer.
            let is_up = view.peers.get(peer).is_some_and(|entry| entry.adapter_up == Some(true));
            let is_reachable = status.session && status.reachable && is_up;
            if self.peers.entry(peer).or_default().update(now, is_reachable) {
                actions.push(Action::SendEcho(peer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::control::test_node::{TestNode, actions_of, due_actions};

    fn up(node: &mut TestNode, ms: u64) -> Time {
        let (at, peer) = (Time::from_millis(ms), PeerId(0));
        let route = node.add_route(peer);
        node.bring_up(at, peer, route);
        node.peers.note_adapter_up(peer);
        at
    }

    #[test]
    fn f_46_a_reachable_peer_is_tried_and_silence_is_an_event() {
        let mut node = TestNode::new(1);
        let mut watch = OverlayWatch::default();
        assert_eq!(watch.next_wake(), None);
        let start = up(&mut node, 1000);
        actions_of(&mut watch, start, &Input::RouteStateChanged, &node);
        assert!(due_actions(&mut watch, start, &node).is_empty());
        let peer = PeerId(0);
        let mut events = Vec::new();
        for _ in 0..3 {
            let due = watch.next_wake().unwrap_or(start);
            let sent = due_actions(&mut watch, due, &node);
            assert!(matches!(sent[..], [Action::SendEcho(PeerId(0))]), "{sent:?}");
            let done = Input::EchoDone { peer, outcome: EchoOutcome::Silent };
            events.extend(actions_of(&mut watch, due, &done, &node));
        }
        let [Action::Emit(EventKind::OverlayLost { what, .. })] = &events[..] else {
            panic!("{events:?}")
        };
        assert!(what.contains("firewall"), "{what}");
        assert_eq!(watch.problem_of(peer), Some(what.as_str()));
        let due = watch.next_wake().unwrap_or(start);
        due_actions(&mut watch, due, &node);
        let done = Input::EchoDone { peer, outcome: EchoOutcome::Answered };
        let over = actions_of(&mut watch, due, &done, &node);
        assert!(matches!(over[..], [Action::Emit(EventKind::OverlayAnswers { .. })]), "{over:?}");
        assert_eq!(watch.problem_of(peer), None);
    }

    #[test]
    fn changes_of_the_ruleset_are_told_to_the_peers_seldom() {
        let node = TestNode::new(0);
        let mut watch = OverlayWatch::default();
        let mut repeated = Vec::new();
        for tenth in 0..350 {
            let now = Time::from_millis(tenth * 100);
            actions_of(&mut watch, now, &Input::RulesetChanged, &node);
            for action in due_actions(&mut watch, now, &node) {
                assert!(matches!(action, Action::RepeatAdvertisement), "{action:?}");
                repeated.push(tenth);
            }
        }
        assert_eq!(repeated, [5, 105, 205, 305]);
    }
}

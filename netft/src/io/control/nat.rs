//! Peers behind a NAT: a route leads to where its peer answers a challenge.
//!
//! A route that interfaces make keeps the address it was planned with beside the one it leads to
//! ([`configured_remote`](crate::io::control::route_table::RouteEntry::configured_remote)), so that
//! a new plan finds it again. One that was made for a peer-reflexive address is planned anew with
//! every plan, until it was down for [`PEER_REFLEXIVE_TIMEOUT`].

use std::{net::SocketAddr, time::Duration};

use netft_proto::{
    ids::{PeerId, RouteId},
    route::{
        RouteState, RouteStatus,
        path_validation::{PathValidator, PeerReflexive},
    },
    time::Time,
    topology,
    topology::PlannedRoute,
    wire::{DropReason, challenge::ChallengeMessage, heartbeat::Heartbeat},
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::io::control::{
    component::{Action, Actions, Component, Input, View},
    route_table::RouteKey,
};

/// How long a route to a peer-reflexive address may be down before it is removed: longer than a
/// NAT keeps a mapping.
const PEER_REFLEXIVE_TIMEOUT: Duration = Duration::from_secs(180);
/// The time between two checks for such routes.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The most routes to peer-reflexive addresses of one peer. One that is down gives way to another.
const MAX_PEER_REFLEXIVE: usize = 8;

/// Addresses that are being validated, and the expiry of routes to those that were.
#[derive(Default)]
pub(super) struct NatTraversal {
    path_validator: PathValidator,
    /// The next check for expired routes; `None` while there is no such route.
    next_expiry_check: Option<Time>,
}

impl Component for NatTraversal {
    fn next_wake(&self) -> Option<Time> {
        self.next_expiry_check
    }

    fn on_input(&mut self, now: Time, input: &Input<'_>, view: &View<'_>, actions: &mut Actions) {
        match *input {
            Input::RequestAccepted { peer, remote_route, sequence } => {
                self.path_validator.on_configured_path_heartbeat(peer, remote_route, sequence);
            }
            Input::PeerReflexive { peer, local, from, heartbeat } => {
                self.on_peer_reflexive(now, peer, (local, from), heartbeat, (view, actions));
            }
            Input::Challenge { peer, route, local, from, challenge } => {
                match challenge.message {
                    // Only where the route leads: a challenge that was carried elsewhere is not
                    // answered.
                    ChallengeMessage::Challenge if route == Some(RouteId(challenge.route)) => {
                        let challenge = challenge.to_response();
                        actions.push(Action::SendChallenge { peer, local, to: from, challenge });
                    }
                    ChallengeMessage::Challenge => {
                        actions.push(Action::CountDrop(DropReason::Misrouted));
                    }
                    ChallengeMessage::Response => {
                        let ends = (peer, local, from);
                        match self.path_validator.on_challenge_response(now, ends, &challenge) {
                            Some(proven) => self.learn_address(now, &proven, view, actions),
                            None => actions.push(Action::CountDrop(DropReason::Misrouted)),
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Removes routes to peer-reflexive addresses that were down for long.
    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if self.next_expiry_check.is_none_or(|due| due > now) {
            return;
        }
        let is_expired = |status: &RouteStatus| {
            status.state == RouteState::Down
                && now.since(status.last_change) >= PEER_REFLEXIVE_TIMEOUT
        };
        let (expired, left): (Vec<_>, Vec<_>) =
            peer_reflexive_routes(view).partition(|status| is_expired(status));
        for status in expired {
            tracing::debug!(route = %status.id, "learned address expired");
            actions.push(Action::RemoveRoute(status.id));
        }
        self.next_expiry_check = (!left.is_empty()).then_some(now + EXPIRY_CHECK_INTERVAL);
    }
}

impl NatTraversal {
    /// A heartbeat came from where no route of its sender leads: challenges that address, if a
    /// route could lead there.
    fn on_peer_reflexive(
        &mut self,
        now: Time,
        peer: PeerId,
        (local, from): (SocketAddr, SocketAddr),
        heartbeat: &Heartbeat,
        (view, actions): (&View<'_>, &mut Actions),
    ) {
        let named = RouteId(heartbeat.your_route);
        let known = view.routes.get(named).filter(|entry| entry.plan.spec.peer == peer);
        match known {
            // Its socket and the heartbeat must name the same route.
            Some(entry) if entry.is_relayed() || entry.plan.spec.real_local != local => return,
            Some(_) => {}
            None => {}
        }
        let key = (peer, local, from);
        if plan_unplanned(view, key, known.is_some()).is_none() {
            return;
        }
        let candidate = PeerReflexive {
            peer,
            remote_route: heartbeat.route,
            local_route: known.map(|_| named),
            sequence: heartbeat.sequence,
            local,
            from,
        };
        let challenge = self.path_validator.on_peer_reflexive(now, candidate, random_token);
        if let Some(challenge) = challenge {
            actions.push(Action::SendChallenge { peer, local, to: from, challenge });
        }
    }

    /// The peer has proven where it is.
    fn learn_address(
        &mut self,
        now: Time,
        source: &PeerReflexive,
        view: &View<'_>,
        actions: &mut Actions,
    ) {
        let PeerReflexive { peer, local, from, .. } = *source;
        // Listed since it was challenged, or another peer lists the same address: the one that
        // proves it has it.
        let mut known = view.routes.iter();
        if let Some((route, _)) =
            known.find(|(_, entry)| entry.plan.route_key() == (peer, local, from))
        {
            actions.push(Action::LearnRemote { route, remote: from });
            return;
        }
        if source.local_route.is_none() && !is_behind_nat(view, peer, from) {
            let plan = view.planner.plan_adopted(view.config, view.routes, (peer, local, from));
            plan.into_iter().for_each(|plan| actions.push(Action::AddLearnedRoute(plan)));
            return;
        }
        let moved = source.local_route.filter(|id| view.routes.contains(*id));
        let down = || {
            let mut down = peer_reflexive_routes(view).filter(|status| {
                (status.spec.peer, status.spec.real_local) == (peer, local)
                    && status.state == RouteState::Down
            });
            down.next().map(|status| status.id)
        };
        if let Some(route) = moved.or_else(down) {
            actions.push(Action::LearnRemote { route, remote: from });
            return;
        }
        let count = peer_reflexive_routes(view).filter(|status| status.spec.peer == peer).count();
        let plan = view.planner.plan_peer_reflexive(view.config, view.routes, (peer, local, from));
        if let Some(plan) = plan
            && count < MAX_PEER_REFLEXIVE
        {
            self.next_expiry_check.get_or_insert(now + EXPIRY_CHECK_INTERVAL);
            actions.push(Action::AddLearnedRoute(plan));
        }
    }
}

/// The engine's status of the routes to peer-reflexive addresses.
fn peer_reflexive_routes(view: &View<'_>) -> impl Iterator<Item = RouteStatus> {
    let routes = view.engine.route_statuses().into_iter();
    routes
        .filter(|status| view.routes.get(status.id).is_some_and(|entry| entry.is_peer_reflexive()))
}

/// The route to where a peer was heard without one: to a NAT's mapping, or between two addresses of
/// the interface lists, which the peer tries and this node did not plan.
fn plan_unplanned(view: &View<'_>, key: RouteKey, is_named: bool) -> Option<PlannedRoute> {
    let (config, routes) = (view.config, view.routes);
    if is_named || is_behind_nat(view, key.0, key.2) {
        view.planner.plan_peer_reflexive(config, routes, key)
    } else {
        view.planner.plan_adopted(config, routes, key)
    }
}

fn is_behind_nat(view: &View<'_>, peer: PeerId, from: SocketAddr) -> bool {
    view.planner.with_inputs(|inputs| topology::is_behind_nat(inputs, peer, from))
}

fn random_token() -> Option<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use netft_proto::wire::challenge::Challenge;

    use super::*;
    use crate::io::control::test_node::{LOCAL, TestNode, actions_of, due_actions, request};

    const NAT: &str = "192.0.2.7:4000";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn reflexive(heartbeat: &Heartbeat) -> Input<'_> {
        Input::PeerReflexive { peer: PeerId(0), local: addr(LOCAL), from: addr(NAT), heartbeat }
    }

    #[test]
    fn a_route_leads_to_an_address_that_answers_its_challenge() {
        let mut node = TestNode::new(1);
        let id = node.add_route(PeerId(0));
        let (mut nat, now) = (NatTraversal::default(), Time::from_millis(100));
        let heartbeat = request(id, 7);
        let sent = actions_of(&mut nat, now, &reflexive(&heartbeat), &node);
        let [Action::SendChallenge { to, challenge, .. }] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!(*to, addr(NAT));
        let response = |from: &str| Input::Challenge {
            peer: PeerId(0),
            route: None,
            local: addr(LOCAL),
            from: addr(from),
            challenge: challenge.to_response(),
        };
        let forged = actions_of(&mut nat, now, &response("192.0.2.8:4000"), &node);
        assert!(matches!(forged[..], [Action::CountDrop(DropReason::Misrouted)]), "{forged:?}");
        let proven = actions_of(&mut nat, now, &response(NAT), &node);
        assert!(
            matches!(proven[..], [Action::LearnRemote { route, remote }]
                if route == id && remote == addr(NAT)),
            "{proven:?}"
        );
    }

    #[test]
    fn a_newer_heartbeat_from_where_the_route_leads_closes_the_challenge() {
        let mut node = TestNode::new(1);
        let id = node.add_route(PeerId(0));
        let (mut nat, now) = (NatTraversal::default(), Time::from_millis(100));
        let heartbeat = request(id, 7);
        assert_eq!(actions_of(&mut nat, now, &reflexive(&heartbeat), &node).len(), 1);
        let accepted = Input::RequestAccepted { peer: PeerId(0), remote_route: 9, sequence: 8 };
        assert!(actions_of(&mut nat, now, &accepted, &node).is_empty());
        assert!(nat.path_validator.is_empty());
    }

    #[test]
    fn an_address_that_no_route_names_is_not_challenged_before_the_peer_advertised() {
        let node = TestNode::new(1);
        let mut nat = NatTraversal::default();
        let heartbeat = request(RouteId(99), 7);
        let now = Time::from_millis(100);
        assert!(actions_of(&mut nat, now, &reflexive(&heartbeat), &node).is_empty());
        assert!(due_actions(&mut nat, now, &node).is_empty() && nat.next_wake().is_none());
    }

    #[test]
    fn a_challenge_is_answered_only_on_its_own_route() {
        let node = TestNode::new(1);
        let mut nat = NatTraversal::default();
        let challenge = Challenge { message: ChallengeMessage::Challenge, route: 5, token: 1 };
        let on = |route| Input::Challenge {
            peer: PeerId(0),
            route,
            local: addr(LOCAL),
            from: addr(NAT),
            challenge,
        };
        let answered = actions_of(&mut nat, Time::ZERO, &on(Some(RouteId(5))), &node);
        assert!(
            matches!(answered[..], [Action::SendChallenge { challenge, .. }]
                if challenge.message == ChallengeMessage::Response),
            "{answered:?}"
        );
        for route in [None, Some(RouteId(6))] {
            let refused = actions_of(&mut nat, Time::ZERO, &on(route), &node);
            assert!(matches!(refused[..], [Action::CountDrop(_)]), "{refused:?}");
        }
    }
}

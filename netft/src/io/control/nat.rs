//! Peers behind a NAT: where they answer a challenge, a route leads.
//!
//! A route that interfaces make keeps the address it was planned with beside the one it leads to
//! ([`RouteEntry::configured_remote`]), so that a new plan finds it again. One that was made for an
//! address nobody listed is planned anew with every plan, until it was down for
//! [`PEER_REFLEXIVE_TIMEOUT`].

use std::{net::SocketAddr, os::fd::AsFd, time::Duration};

use netft_proto::{
    config::Config,
    engine::EngineInput,
    ids::{PeerId, RouteId},
    route::{
        Attributes, RouteSpec, RouteState, RouteStatus,
        path_validation::{PathValidator, PeerReflexive},
    },
    time::Time,
    topology,
    topology::{PlannedRoute, RoutePlan},
    wire::{
        DropReason,
        challenge::{Challenge, ChallengeMessage},
        header::FrameKind,
        heartbeat::Heartbeat,
    },
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::io::{
    control::driver::{Driver, PeerEntry, RouteEntry},
    counters::Counters,
    host_state::HostState,
    sys::{udp, udp::SendFault},
};

/// How long a route nobody listed may be down before it goes: longer than a NAT remembers.
const PEER_REFLEXIVE_TIMEOUT: Duration = Duration::from_secs(180);
/// How often to look for such routes.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The most routes to one peer that nobody listed. One that is down gives its place to another.
const MAX_PEER_REFLEXIVE: usize = 8;

/// What the driver knows of addresses that are not proven yet, and of routes nobody listed.
#[derive(Default)]
pub(super) struct NatState {
    path_validator: PathValidator,
    /// When to look whether a route nobody listed can go; `None` while there is none.
    next_expiry_check: Option<Time>,
}

impl NatState {
    /// When to look next, if ever.
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.next_expiry_check
    }
}

impl RouteEntry {
    /// Whether the route was made for an address nobody listed.
    pub(super) fn is_peer_reflexive(&self) -> bool {
        self.configured_remote.is_none() && self.plan.spec.attributes.0 & Attributes::LEARNED != 0
    }

    /// The route as it was planned, wherever it leads.
    pub(super) fn to_planned(&self) -> PlannedRoute {
        let mut plan = self.plan.clone();
        if let Some(configured_remote) = self.configured_remote {
            plan.spec.real_remote = configured_remote;
            plan.spec.attributes.0 &= !Attributes::LEARNED;
        }
        plan
    }

    /// What makes it the same route in another plan.
    pub(super) fn route_key(&self) -> (PeerId, SocketAddr, SocketAddr) {
        let (peer, local, remote) = self.plan.route_key();
        (peer, local, self.configured_remote.unwrap_or(remote))
    }

    /// Makes what is planned for this route say where it leads.
    pub(super) fn apply_learned_remote(&self, spec: &mut RouteSpec) {
        if self.configured_remote.is_some() {
            spec.real_remote = self.plan.spec.real_remote;
            spec.attributes.0 |= Attributes::LEARNED;
        }
    }
}

impl Driver {
    /// The routes that follow from a config and the interfaces, and those to addresses peers
    /// proved. `known` are those that run, as planned.
    pub(super) fn plan_routes(
        &self,
        config: &Config,
        host_state: &HostState,
        known: &[PlannedRoute],
    ) -> RoutePlan {
        let offers = &*self.advertisements.borrow();
        let around = host_state.plan_inputs(offers);
        let mut plan = topology::plan_routes(config, &around, known);
        let unlisted = self.routes.values().filter(|known| known.is_peer_reflexive());
        for known in unlisted {
            let key = known.route_key();
            let listed = plan.routes.iter().any(|route| route.route_key() == key);
            if !listed
                && let Some(route) =
                    topology::plan_learned_route(config, &around, key, Some(&known.plan))
            {
                plan.routes.push(route);
            }
        }
        plan
    }

    /// A heartbeat came from where its route leads.
    pub(super) fn on_heartbeat_from_route(
        &mut self,
        peer: PeerId,
        remote_route: u32,
        sequence: u32,
    ) {
        let challenges = &mut self.nat.path_validator;
        if !challenges.is_empty() {
            challenges.on_configured_path_heartbeat(peer, remote_route, sequence);
        }
    }

    /// A heartbeat came from where no route of its sender leads: asks there, if a route could.
    pub(super) fn on_peer_reflexive(
        &mut self,
        now: Time,
        peer: PeerId,
        (local, from): (SocketAddr, SocketAddr),
        heartbeat: &Heartbeat,
    ) {
        let known = self.routes.get(&RouteId(heartbeat.your_route));
        let known = known.filter(|known| known.plan.spec.peer == peer);
        match known {
            // Its socket and the heartbeat must speak of the same route.
            Some(known) if known.is_relayed() || known.plan.spec.real_local != local => return,
            Some(_) => {}
            None if !self.can_learn_address(peer, from) => return,
            None => {}
        }
        if self.plan_peer_reflexive(peer, local, from).is_none() {
            return;
        }
        let ours = known.map(|_| RouteId(heartbeat.your_route));
        let Heartbeat { route, sequence, .. } = *heartbeat;
        let stray =
            PeerReflexive { peer, remote_route: route, local_route: ours, sequence, local, from };
        let Some(question) = self.nat.path_validator.on_peer_reflexive(now, stray, random_token)
        else {
            return;
        };
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.challenges_sent, 1);
        }
        self.send_challenge(peer, (local, from), question);
    }

    /// Answers a challenge, or takes in the answer to one.
    pub(super) fn on_challenge(
        &mut self,
        now: Time,
        (peer, route): (PeerId, Option<RouteId>),
        (local, from): (SocketAddr, SocketAddr),
        challenge: Challenge,
    ) {
        match challenge.message {
            // Only where the route leads: a question that was carried elsewhere is not answered.
            ChallengeMessage::Challenge if route == Some(RouteId(challenge.route)) => {
                self.send_challenge(peer, (local, from), challenge.to_response());
            }
            ChallengeMessage::Challenge => self.count_drop(DropReason::Misrouted),
            ChallengeMessage::Response => {
                let ends = (peer, local, from);
                match self.nat.path_validator.on_challenge_response(now, ends, &challenge) {
                    Some(stray) => self.learn_address(now, stray),
                    None => self.count_drop(DropReason::Misrouted),
                }
            }
        }
    }

    /// Removes routes nobody listed that were down for long.
    pub(super) fn poll_nat(&mut self, now: Time) {
        if self.nat.next_expiry_check.is_none_or(|due| due > now) {
            return;
        }
        let spent = |status: &RouteStatus| {
            status.state == RouteState::Down
                && now.since(status.last_change) >= PEER_REFLEXIVE_TIMEOUT
        };
        let spent: Vec<_> =
            self.peer_reflexive_routes().filter(spent).map(|status| status.id).collect();
        for id in spent {
            self.routes.remove(&id);
            self.feed_engine(EngineInput::RemoveRoute(id));
            self.sync_sockets();
            self.dirty = true;
        }
        let left = self.routes.values().any(RouteEntry::is_peer_reflexive);
        self.nat.next_expiry_check = left.then_some(now + EXPIRY_CHECK_INTERVAL);
    }

    /// The engine's word on the routes nobody listed.
    fn peer_reflexive_routes(&self) -> impl Iterator<Item = RouteStatus> {
        let routes = self.engine.route_statuses().into_iter();
        routes
            .filter(|status| self.routes.get(&status.id).is_some_and(RouteEntry::is_peer_reflexive))
    }

    /// Whether a route may be made for an address nobody listed.
    fn can_learn_address(&self, peer: PeerId, from: SocketAddr) -> bool {
        topology::is_behind_nat(
            &self.host_state.plan_inputs(&self.advertisements.borrow()),
            peer,
            from,
        )
    }

    fn plan_peer_reflexive(
        &self,
        peer: PeerId,
        local: SocketAddr,
        from: SocketAddr,
    ) -> Option<PlannedRoute> {
        if self.removed_routes.contains(&(peer, local, from)) {
            return None;
        }
        let offers = &*self.advertisements.borrow();
        let around = self.host_state.plan_inputs(offers);
        topology::plan_learned_route(&self.config, &around, (peer, local, from), None)
    }

    /// The peer has proven where it is.
    fn learn_address(&mut self, now: Time, source: PeerReflexive) {
        let PeerReflexive { peer, local, from, .. } = source;
        // Listed since it was asked: the peer's news of its addresses came in between.
        if self.routes.values().any(|known| known.plan.route_key() == (peer, local, from)) {
            return;
        }
        let moved = source.local_route.filter(|id| self.routes.contains_key(id));
        let free = || {
            let mut places = self.peer_reflexive_routes().filter(|status| {
                (status.spec.peer, status.spec.real_local) == (peer, local)
                    && status.state == RouteState::Down
            });
            places.next().map(|status| status.id)
        };
        match moved.or_else(free) {
            Some(id) => self.set_route_remote(now, id, from),
            None => self.add_peer_reflexive(now, peer, local, from),
        }
    }

    fn set_route_remote(&mut self, now: Time, id: RouteId, to: SocketAddr) {
        let Some(known) = self.routes.get_mut(&id) else { return };
        known.learned_at = Some(now);
        self.dirty = true;
        if known.plan.spec.real_remote == to {
            return;
        }
        let before = std::mem::replace(&mut known.plan.spec.real_remote, to);
        if !known.is_peer_reflexive() {
            known.configured_remote.get_or_insert(before);
            known.plan.spec.attributes.0 |= Attributes::LEARNED;
        }
        self.feed_engine(EngineInput::RemoteLearned { route: id, remote: to });
        self.restart_connection(id, now);
    }

    fn add_peer_reflexive(&mut self, now: Time, peer: PeerId, local: SocketAddr, from: SocketAddr) {
        let count = self.peer_reflexive_routes().filter(|status| status.spec.peer == peer).count();
        let Some(plan) = self.plan_peer_reflexive(peer, local, from) else { return };
        if count >= MAX_PEER_REFLEXIVE {
            return;
        }
        let id = self.next_route_id();
        let spec = plan.spec.clone();
        self.routes.insert(id, RouteEntry { learned_at: Some(now), ..RouteEntry::new(plan) });
        self.feed_engine(EngineInput::AddRoute { id, spec });
        self.nat.next_expiry_check.get_or_insert(now + EXPIRY_CHECK_INTERVAL);
        self.sync_connections(now);
        self.sync_sockets();
        self.dirty = true;
    }

    fn send_challenge(
        &mut self,
        peer: PeerId,
        (local, to): (SocketAddr, SocketAddr),
        challenge: Challenge,
    ) {
        let Some(session) = self.peers.get(&peer).and_then(PeerEntry::preferred_session) else {
            return;
        };
        let Some(socket) = self.sockets.sockets_at(local).first() else { return };
        let mut frame = Vec::new();
        let write = |frame: &mut Vec<u8>| challenge.encode(frame);
        if let Err(reason) = session.seal_message(FrameKind::Challenge, 0, &mut frame, write) {
            return self.count_drop(reason);
        }
        match udp::send_control(socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)) {
            Ok(()) => self.count_tx_frame(),
            // The next heartbeat that strays asks again.
            Err(error) if udp::classify_send_error(&error, false) == SendFault::Transient => {}
            Err(_) => self.count_drop(DropReason::SendFailed),
        }
    }
}

fn random_token() -> Option<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u64::from_be_bytes(bytes))
}

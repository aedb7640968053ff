//! Peers behind a NAT: where they answer a challenge, a route leads.
//!
//! A route that interfaces make keeps the address it was planned with beside the one it leads to
//! ([`Known::home`]), so that a new plan finds it again. One that was made for an address nobody
//! listed is planned anew with every plan, until it was down for [`REST`].

use std::{net::SocketAddr, os::fd::AsFd, time::Duration};

use netft_proto::{
    config::Config,
    engine::Input,
    ids::{PeerId, RouteId},
    route::{
        Attributes, RouteSpec, RouteState, RouteStatus,
        path_validation::{Challenges, Stray},
    },
    time::Time,
    topology,
    topology::{Plan, Planned},
    wire::{
        DropReason,
        challenge::{Challenge, ChallengeMessage},
        header::Kind,
        heartbeat::{Heartbeat, Message},
    },
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::io::{
    control::driver::{Driver, Known, PeerSessions},
    counters::Counters,
    netlink_watcher::World,
    sys::{udp, udp::SendFault},
};

/// How long a route nobody listed may be down before it goes: longer than a NAT remembers.
const REST: Duration = Duration::from_secs(180);
/// How often to look for such routes.
const LOOK: Duration = Duration::from_secs(10);
/// The most routes to one peer that nobody listed. One that is down gives its place to another.
const MAX_ADOPTED: usize = 8;

/// What the driver knows of addresses that are not proven yet, and of routes nobody listed.
#[derive(Default)]
pub(super) struct Adoptions {
    challenges: Challenges,
    /// When to look whether a route nobody listed can go; `None` while there is none.
    due: Option<Time>,
}

impl Adoptions {
    /// When to look next, if ever.
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.due
    }
}

impl Known {
    /// Whether the route was made for an address nobody listed.
    pub(super) fn unlisted(&self) -> bool {
        self.home.is_none() && self.plan.spec.attributes.0 & Attributes::ADOPTED != 0
    }

    /// The route as it was planned, wherever it leads.
    pub(super) fn as_planned(&self) -> Planned {
        let mut plan = self.plan.clone();
        if let Some(home) = self.home {
            plan.spec.real_remote = home;
            plan.spec.attributes.0 &= !Attributes::ADOPTED;
        }
        plan
    }

    /// What makes it the same route in another plan.
    pub(super) fn key(&self) -> (PeerId, SocketAddr, SocketAddr) {
        let (peer, local, remote) = self.plan.key();
        (peer, local, self.home.unwrap_or(remote))
    }

    /// Makes what is planned for this route say where it leads.
    pub(super) fn lead(&self, spec: &mut RouteSpec) {
        if self.home.is_some() {
            spec.real_remote = self.plan.spec.real_remote;
            spec.attributes.0 |= Attributes::ADOPTED;
        }
    }
}

impl Driver {
    /// The routes that follow from a config and the interfaces, and those to addresses peers
    /// proved. `known` are those that run, as planned.
    pub(super) fn plan(&self, config: &Config, world: &World, known: &[Planned]) -> Plan {
        let offers = &*self.told.borrow();
        let around = world.around(offers);
        let mut plan = topology::plan(config, &around, known);
        let unlisted = self.routes.values().filter(|known| known.unlisted());
        for known in unlisted {
            let key = known.key();
            let listed = plan.routes.iter().any(|route| route.key() == key);
            if !listed
                && let Some(route) = topology::adopted(config, &around, key, Some(&known.plan))
            {
                plan.routes.push(route);
            }
        }
        plan
    }

    /// A heartbeat came from where its route leads.
    pub(super) fn found(&mut self, peer: PeerId, heartbeat: &Heartbeat) {
        let challenges = &mut self.adoptions.challenges;
        if !challenges.is_empty() && heartbeat.message == Message::Request {
            challenges.heard(peer, heartbeat.route, heartbeat.sequence);
        }
    }

    /// A heartbeat came from where no route of its sender leads: asks there, if a route could.
    pub(super) fn strayed(
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
            Some(known) if known.relayed() || known.plan.spec.real_local != local => return,
            Some(_) => {}
            None if !self.may_adopt(peer, from) => return,
            None => {}
        }
        if self.planned_to(peer, local, from).is_none() {
            return;
        }
        let ours = known.map(|_| RouteId(heartbeat.your_route));
        let Heartbeat { route, sequence, .. } = *heartbeat;
        let stray = Stray { peer, route, ours, sequence, local, from };
        let Some(question) = self.adoptions.challenges.stray(now, stray, random) else { return };
        if let Some(counters) = self.workers.counters().first() {
            Counters::add(&counters.challenges_sent, 1);
        }
        self.send_challenge(peer, (local, from), question);
    }

    /// Answers a challenge, or takes in the answer to one.
    pub(super) fn challenged(
        &mut self,
        now: Time,
        (peer, route): (PeerId, Option<RouteId>),
        (local, from): (SocketAddr, SocketAddr),
        challenge: Challenge,
    ) {
        match challenge.message {
            // Only where the route leads: a question that was carried elsewhere is not answered.
            ChallengeMessage::Question if route == Some(RouteId(challenge.route)) => {
                self.send_challenge(peer, (local, from), challenge.answer());
            }
            ChallengeMessage::Question => self.count(DropReason::Misrouted),
            ChallengeMessage::Answer => {
                let ends = (peer, local, from);
                match self.adoptions.challenges.answered(now, ends, &challenge) {
                    Some(stray) => self.adopt(now, stray),
                    None => self.count(DropReason::Misrouted),
                }
            }
        }
    }

    /// Removes routes nobody listed that were down for long.
    pub(super) fn mind_adopted(&mut self, now: Time) {
        if self.adoptions.due.is_none_or(|due| due > now) {
            return;
        }
        let spent = |status: &RouteStatus| {
            status.state == RouteState::Down && now.since(status.last_change) >= REST
        };
        let spent: Vec<_> = self.unlisted().filter(spent).map(|status| status.id).collect();
        for id in spent {
            self.routes.remove(&id);
            self.input(Input::RemoveRoute(id));
            self.follow_addresses();
            self.dirty = true;
        }
        let left = self.routes.values().any(Known::unlisted);
        self.adoptions.due = left.then_some(now + LOOK);
    }

    /// The engine's word on the routes nobody listed.
    fn unlisted(&self) -> impl Iterator<Item = RouteStatus> {
        let routes = self.engine.routes().into_iter();
        routes.filter(|status| self.routes.get(&status.id).is_some_and(Known::unlisted))
    }

    /// Whether a route may be made for an address nobody listed.
    fn may_adopt(&self, peer: PeerId, from: SocketAddr) -> bool {
        topology::is_mapped(&self.world.around(&self.told.borrow()), peer, from)
    }

    fn planned_to(&self, peer: PeerId, local: SocketAddr, from: SocketAddr) -> Option<Planned> {
        if self.removed.contains(&(peer, local, from)) {
            return None;
        }
        let offers = &*self.told.borrow();
        let around = self.world.around(offers);
        topology::adopted(&self.config, &around, (peer, local, from), None)
    }

    /// The peer has proven where it is.
    fn adopt(&mut self, now: Time, stray: Stray) {
        let Stray { peer, local, from, .. } = stray;
        // Listed since it was asked: the peer's news of its addresses came in between.
        if self.routes.values().any(|known| known.plan.key() == (peer, local, from)) {
            return;
        }
        let moved = stray.ours.filter(|id| self.routes.contains_key(id));
        let free = || {
            let mut places = self.unlisted().filter(|status| {
                (status.spec.peer, status.spec.real_local) == (peer, local)
                    && status.state == RouteState::Down
            });
            places.next().map(|status| status.id)
        };
        match moved.or_else(free) {
            Some(id) => self.readdress(now, id, from),
            None => self.add_unlisted(now, peer, local, from),
        }
    }

    fn readdress(&mut self, now: Time, id: RouteId, to: SocketAddr) {
        let Some(known) = self.routes.get_mut(&id) else { return };
        known.adopted_at = Some(now);
        self.dirty = true;
        if known.plan.spec.real_remote == to {
            return;
        }
        let before = std::mem::replace(&mut known.plan.spec.real_remote, to);
        if !known.unlisted() {
            known.home.get_or_insert(before);
            known.plan.spec.attributes.0 |= Attributes::ADOPTED;
        }
        self.input(Input::Readdress { route: id, remote: to });
        self.renew_connection(id, now);
    }

    fn add_unlisted(&mut self, now: Time, peer: PeerId, local: SocketAddr, from: SocketAddr) {
        let count = self.unlisted().filter(|status| status.spec.peer == peer).count();
        let Some(plan) = self.planned_to(peer, local, from) else { return };
        if count >= MAX_ADOPTED {
            return;
        }
        let id = self.next_route();
        let spec = plan.spec.clone();
        self.routes.insert(id, Known { adopted_at: Some(now), ..Known::new(plan) });
        self.input(Input::AddRoute { id, spec });
        self.adoptions.due.get_or_insert(now + LOOK);
        self.follow_connections(now);
        self.follow_addresses();
        self.dirty = true;
    }

    fn send_challenge(
        &mut self,
        peer: PeerId,
        (local, to): (SocketAddr, SocketAddr),
        challenge: Challenge,
    ) {
        let Some(session) = self.peers.get(&peer).and_then(PeerSessions::preferred) else { return };
        let Some(socket) = self.sockets.at(local).first() else { return };
        let mut frame = Vec::new();
        let write = |frame: &mut Vec<u8>| challenge.encode(frame);
        if let Err(reason) = session.message(Kind::Challenge, 0, &mut frame, write) {
            return self.count(reason);
        }
        match udp::send_one(socket.fd.as_fd(), &to, &frame, Some(udp::TOS_CONTROL)) {
            Ok(()) => self.count_sent(),
            // The next heartbeat that strays asks again.
            Err(error) if udp::classify(&error, false) == SendFault::Transient => {}
            Err(_) => self.count(DropReason::SendFailed),
        }
    }
}

fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(u64::from_be_bytes(bytes))
}

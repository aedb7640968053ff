//! What follows from what is known: states, selection, table, events.

use std::sync::Arc;

use super::{Engine, Output};
use crate::{
    id::{PeerId, RouteId},
    route::{
        event::{EventKind, Reason},
        machine::Route,
        select,
        status::RouteState,
        table::{PeerForwarding, Table},
    },
    time::Time,
};

impl Engine {
    /// Brings everything about one peer up to date.
    pub(super) fn settle(&mut self, now: Time, peer: PeerId) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let ids: Vec<_> = self.routes_of(peer).iter().map(|route| route.id).collect();
        let heard = self.routes_of(peer).iter().any(|route| route.rx);
        let mut came_up = false;
        for id in ids {
            came_up |= self.update_state(now, id, heard);
        }
        self.choose(now, peer);
        self.publish();
        if came_up {
            self.tell_ready(now, peer);
        }
        let state = self.peers.get_mut(&peer).expect("checked above");
        if std::mem::replace(&mut state.reachable, heard) && !heard {
            self.event(now, EventKind::RemoteUnreachable { peer });
        }
    }

    /// Derives one route's state. Returns whether it came up.
    fn update_state(&mut self, now: Time, id: RouteId, heard: bool) -> bool {
        let base = self.config.hold;
        let Some(route) = self.routes.get(&id) else { return false };
        let tx = self.weigh(route, heard) && !route.faulty();
        let Some(route) = self.routes.get_mut(&id) else { return false };
        route.tx = tx;
        let (from, to) = (route.state, route.derive());
        if from == to {
            return false;
        }
        route.state = to;
        route.suspect = None;
        route.last_change = now;
        route.reason = if to == RouteState::Up { Reason::BothWays } else { route.cause };
        let lost = from == RouteState::Up && to != RouteState::Up;
        let planned =
            matches!(route.reason, Reason::NewSession | Reason::Admin | Reason::PeerAdmin);
        if lost && !planned {
            route.hold.lost(now);
        }
        if to == RouteState::Up {
            route.hold.up(now, base);
        }
        let history = if lost { route.history.dump(now) } else { Vec::new() };
        let kind = EventKind::StateChanged {
            route: id,
            peer: route.spec.peer,
            from,
            to,
            reason: route.reason,
            last_heard: route.last_heard,
            history,
        };
        self.event(now, kind);
        to == RouteState::Up
    }

    fn choose(&mut self, now: Time, peer: PeerId) {
        let active = self.peers.get(&peer).and_then(|peer| peer.active);
        let routes = self.routes_of(peer);
        let choice = select::choose(&routes, active, now);
        #[cfg(feature = "sim")]
        if self.planted(super::Bug::NeverFailOver) && active.is_some() {
            return;
        }
        if choice.route == active {
            return;
        }
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.active = choice.route;
        if active.is_some() && choice.route.is_some() {
            state.failovers += 1;
        }
        let kind = EventKind::Moved { peer, from: active, to: choice.route, reason: choice.reason };
        self.event(now, kind);
    }

    /// NetFT's order (S3, C8): route up, ready, session established.
    fn tell_ready(&mut self, now: Time, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let Some(boot_id) = state.session.filter(|_| !state.told) else { return };
        state.told = true;
        let waited = now.since(state.session_at);
        self.event(now, EventKind::Ready { peer, waited });
        self.event(now, EventKind::SessionEstablished { peer, boot_id });
    }

    /// Publishes the table if it says something new.
    pub(super) fn publish(&mut self) {
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| {
                let mut candidates: Vec<_> = self
                    .routes_of(*id)
                    .into_iter()
                    .filter(|route| !route.faulty() && !route.admin_down)
                    .collect();
                candidates.sort_by_key(|route| (preference(route), select::rank(route)));
                let up =
                    |route: &&Route| route.state == RouteState::Up && Some(route.id) != peer.active;
                let backups: Vec<_> =
                    candidates.iter().copied().filter(up).map(|route| route.id).collect();
                let suspect = candidates
                    .iter()
                    .any(|route| Some(route.id) == peer.active && route.suspect.is_some());
                PeerForwarding {
                    peer: *id,
                    duplicate: if suspect { backups.first().copied() } else { None },
                    backups,
                    active: peer.active,
                    candidates: candidates.iter().map(|route| route.id).collect(),
                }
            })
            .collect();
        if peers == self.table.peers {
            return;
        }
        let generation = self.table.generation + 1;
        self.table = Arc::new(Table { generation, peers });
        self.outputs.push_back(Output::Publish(self.table.clone()));
    }
}

fn preference(route: &Route) -> u8 {
    match route.state {
        RouteState::Up => 0,
        RouteState::Init => 1,
        RouteState::Down | RouteState::AdminDown => 2,
    }
}

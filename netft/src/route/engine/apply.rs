//! One input at a time.

use super::{Engine, Input, Peer};
use crate::{
    id::{PeerId, RouteId},
    route::{
        event::{EventKind, Reason},
        machine::Route,
        spec::{RouteChange, RouteSpec},
        status::RouteState,
    },
    time::Time,
    wire::DropReason,
};

impl Engine {
    pub(super) fn apply(&mut self, now: Time, input: Input) -> Result<(), DropReason> {
        match input {
            Input::AddPeer(peer) => {
                self.peers.entry(peer).or_insert(Peer {
                    session: None,
                    session_at: now,
                    told: false,
                    active: None,
                    failovers: 0,
                    heard_serial: None,
                    serial: 0,
                    reachable: false,
                });
                self.settle(now, peer);
            }
            Input::RemovePeer(peer) => {
                let routes: Vec<_> = self.routes_of(peer).iter().map(|route| route.id).collect();
                for id in routes {
                    self.remove_route(now, id);
                }
                self.peers.remove(&peer);
                self.publish();
            }
            Input::AddRoute { id, spec } => self.add_route(now, id, spec),
            Input::RemoveRoute(id) => self.remove_route(now, id),
            Input::ChangeRoute { id, change } => self.change_route(now, id, change),
            Input::SessionUp { peer, boot_id } => self.session_up(now, peer, boot_id),
            Input::SessionDown(peer) => self.session_down(now, peer),
            Input::Heartbeat { peer, route, heartbeat } => {
                return self.hear(now, peer, route, &heartbeat);
            }
            Input::Suspect(route) => self.suspect(now, route),
            Input::Fault { route, reason } => {
                let Some(found) = self.routes.get_mut(&route) else { return Ok(()) };
                let peer = found.spec.peer;
                found.fault(reason);
                found.next_request = None;
                self.tell_others(now, peer, Some(route));
                self.settle(now, peer);
            }
            Input::FaultCleared { route, reason } => {
                let Some(found) = self.routes.get_mut(&route) else { return Ok(()) };
                let peer = found.spec.peer;
                if found.clear(reason) {
                    self.start(now, route);
                    self.tell_others(now, peer, None);
                }
                self.settle(now, peer);
            }
        }
        Ok(())
    }

    fn add_route(&mut self, now: Time, id: RouteId, spec: RouteSpec) {
        let peer = spec.peer;
        if self.routes.contains_key(&id) || !self.peers.contains_key(&peer) {
            return;
        }
        let route = Route::new(id, spec.clone(), now, self.config.history);
        self.routes.insert(id, route);
        self.event(now, EventKind::RouteAdded { route: id, spec });
        self.start(now, id);
        self.settle(now, peer);
    }

    fn remove_route(&mut self, now: Time, id: RouteId) {
        let Some(route) = self.routes.remove(&id) else { return };
        self.event(now, EventKind::RouteRemoved { route: id, spec: route.spec.clone() });
        self.tell_others(now, route.spec.peer, None);
        self.settle(now, route.spec.peer);
    }

    fn change_route(&mut self, now: Time, id: RouteId, change: RouteChange) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let peer = route.spec.peer;
        if let Some(timing) = change.timing {
            route.spec.timing = timing;
            if let Some(heard) = route.last_heard.filter(|_| route.rx) {
                route.arm(heard);
            }
            if route.next_request.is_some() {
                route.next_request = Some(now);
            }
        }
        if let Some(priority) = change.priority {
            route.spec.priority = priority;
        }
        if let Some(admin_down) = change.admin_down.filter(|down| *down != route.admin_down) {
            route.admin_down = admin_down;
            route.cause = Reason::Admin;
            // The peer learns it on every route, this one too: a single route has no other.
            self.tell_others(now, peer, None);
        }
        self.settle(now, peer);
    }

    fn session_up(&mut self, now: Time, peer: PeerId, boot_id: u64) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.session == Some(boot_id) {
            return;
        }
        state.session = Some(boot_id);
        state.session_at = now;
        state.told = false;
        state.heard_serial = None;
        let ids: Vec<_> = self.routes_of(peer).iter().map(|route| route.id).collect();
        for id in ids {
            if let Some(route) = self.routes.get_mut(&id) {
                route.reset(Reason::NewSession);
            }
            self.start(now, id);
        }
        self.settle(now, peer);
    }

    fn session_down(&mut self, now: Time, peer: PeerId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.session.take().is_none() {
            return;
        }
        for route in self.routes.values_mut().filter(|route| route.spec.peer == peer) {
            route.reset(Reason::SessionLost);
            route.next_request = None;
        }
        self.event(now, EventKind::SessionEnded { peer });
        self.settle(now, peer);
    }

    /// The packet path waits in vain for acknowledgements on a route. A heartbeat asks at once;
    /// its reply clears the suspicion, its absence is the detection time's business. Data goes
    /// both ways meanwhile, so at most for a detection time.
    fn suspect(&mut self, now: Time, id: RouteId) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let peer = route.spec.peer;
        if route.state != RouteState::Up || route.suspect.is_some() {
            return;
        }
        route.suspect = Some(now);
        route.next_request = route.next_request.map(|_| now);
        self.event(now, EventKind::Suspect { route: id, peer });
        self.settle(now, peer);
    }

    /// Begins to send requests on a route, if it may.
    fn start(&mut self, now: Time, id: RouteId) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let session = self.peers.get(&route.spec.peer).is_some_and(|peer| peer.session.is_some());
        route.next_request = (session && !route.faulty()).then_some(now);
    }

    /// Timers of one route that are due. Returns its peer if anything must be settled.
    pub(super) fn expire(&mut self, now: Time, id: RouteId) -> Option<PeerId> {
        let early = self.early_down();
        let route = self.routes.get_mut(&id)?;
        let peer = route.spec.peer;
        let deadline = if early { route.warning.or(route.deadline) } else { route.deadline };
        if deadline.is_some_and(|deadline| deadline <= now) {
            route.miss();
            self.tell_others(now, peer, Some(id));
            return Some(peer);
        }
        if route.warning.is_some_and(|warning| warning <= now) {
            route.warning = None;
            let threshold = route.spec.timing.threshold.get();
            let missed = (threshold * 2).div_ceil(5);
            let live = route.state == RouteState::Up || route.state == RouteState::Init;
            if live {
                self.event(now, EventKind::EarlyWarning { route: id, peer, missed, threshold });
            }
        }
        None
    }

    #[cfg(feature = "sim")]
    fn early_down(&self) -> bool {
        self.planted(super::Bug::EarlyDown)
    }

    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "the simulator's twin asks the engine")]
    fn early_down(&self) -> bool {
        false
    }
}

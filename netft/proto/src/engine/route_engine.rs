//! The engine of one node: peers, timers, the forwarding table and the self-stall guard.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "sim")]
use crate::engine::context::InjectedBug;
use crate::{
    cadence::reply_template::ReplyTemplate,
    engine::{
        context::EngineContext,
        forwarding::forwarding_row,
        heartbeat::route_reports,
        peer::Peer,
        peer_changes::{
            add_fault, add_route, change_route, clear_fault, remove_route, replace_spec,
            retry_unheard, session_down, session_up, set_learned_remote,
        },
        probes::{on_probe, on_probe_refused, set_datagram_limit},
        saved_peer::{SavedPeer, restore_peer, save_peer},
        status::{peer_status, route_statuses},
        types::{EngineConfig, EngineInput, EngineOutput},
    },
    failover::stall_histogram::StallHistogram,
    ids::{PeerId, RouteId},
    loss_detection::DataLoss,
    route::{
        event::EventKind,
        forwarding::PeerForwarding,
        params::ParamError,
        peer_route::Route,
        session_end::SessionEndCause,
        spec::RouteSpec,
        status::{PeerStatus, RouteStatus},
    },
    time::Time,
    wire::{DropReason, heartbeat::Heartbeat, probe::Probe},
};

/// Lateness of a wake-up up to which it is ordinary scheduling latency and no stall.
const MIN_SELF_STALL: Duration = Duration::from_millis(50);

/// Capacity of the output queue that is kept when it is empty.
const MAX_RETAINED_OUTPUTS: usize = 64;

/// The route engine of one node.
#[derive(Debug)]
pub struct Engine {
    pub(crate) context: EngineContext,
    pub(crate) peers: BTreeMap<PeerId, Peer>,
    /// The peer each route leads to.
    pub(crate) route_owners: BTreeMap<RouteId, PeerId>,
    /// The next wake of every peer that has one; `peer_wakes` holds the same by peer.
    timers: BTreeSet<(Time, PeerId)>,
    peer_wakes: BTreeMap<PeerId, Time>,
    /// The forwarding table.
    rows: BTreeMap<PeerId, PeerForwarding>,
    /// The next wake as of the last call: a later call means that this node was stalled.
    promised_wake: Option<Time>,
    /// The moment of the last call.
    now: Time,
}

impl Engine {
    /// Creates an engine without peers.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            context: EngineContext::new(config),
            peers: BTreeMap::new(),
            route_owners: BTreeMap::new(),
            timers: BTreeSet::new(),
            peer_wakes: BTreeMap::new(),
            rows: BTreeMap::new(),
            promised_wake: None,
            now: Time::ZERO,
        }
    }

    /// Injects a bug, to show that the simulator finds it.
    #[cfg(feature = "sim")]
    pub fn inject_bug(&mut self, bug: InjectedBug) {
        self.context.inject_bug(bug);
    }

    /// Applies an input.
    ///
    /// # Errors
    /// The reason a heartbeat or probe was refused for; nothing changed then.
    pub fn on_input(&mut self, now: Time, input: EngineInput) -> Result<(), DropReason> {
        self.now = now;
        self.guard_self_stall(now);
        let outcome = self.apply_input(now, input);
        // An overdue timer is left to the next `on_timer`: it is no new stall.
        self.promised_wake = self.next_wake().map(|wake| wake.max(now));
        outcome
    }

    /// Runs every timer that is due.
    pub fn on_timer(&mut self, now: Time) {
        self.now = now;
        self.guard_self_stall(now);
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<_> = due.map(|(_, peer)| *peer).collect();
        for id in due {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.on_timer(&mut self.context, now);
            }
            self.on_peer_changed(id);
        }
        self.promised_wake = self.next_wake();
        #[cfg(feature = "sim")]
        if self.context.has_bug(InjectedBug::ForgetDataLoss) {
            let routes = self.peers.values_mut().flat_map(|peer| peer.routes.values_mut());
            routes.for_each(|route| route.path_quality.data.acquit());
        }
    }

    /// The routes that the next [`on_timer`](Self::on_timer) takes down for their silence. The
    /// driver checks their sockets for unread datagrams first ([`EngineInput::UnreadData`]).
    pub fn overdue_routes(&self, now: Time) -> Vec<RouteId> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, peer)| self.peers.get(peer))
            .flat_map(|peer| peer.routes.values())
            .filter(|route| route.liveness.deadline.is_some_and(|at| at <= now))
            .map(|route| route.id)
            .collect()
    }

    /// The routes whose [`EngineInput::Tally`] the next [`on_timer`](Self::on_timer) needs.
    pub fn counted_routes(&self, now: Time) -> Vec<(PeerId, RouteId)> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        let peers = due.filter_map(|(_, id)| self.peers.get(id));
        let routes = |peer: &Peer| {
            let routes = peer.comparison.counted_routes(&peer.routes);
            routes.map(|route| (peer.id, route)).collect::<Vec<_>>()
        };
        peers.flat_map(routes).collect()
    }

    /// Number of the epoch that the evidence of a route's losses belongs to. Whoever sends on it
    /// passes the number on in [`UsablePath`](crate::loss_detection::UsablePath).
    pub fn loss_epoch(&self, id: RouteId) -> u32 {
        let peer = self.route_owners.get(&id).and_then(|peer| self.peers.get(peer));
        let route = peer.and_then(|peer| peer.routes.get(&id));
        route.map_or(0, |route| route.path_quality.data.epoch())
    }

    /// When [`on_timer`](Self::on_timer) is due; finite while a route may send.
    pub fn next_wake(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next output; to be drained after every call.
    pub fn poll_output(&mut self) -> Option<EngineOutput> {
        let outputs = &mut self.context.outputs;
        let next = outputs.pop_front();
        // All routes of a large mesh had outputs at once, which is rare.
        if next.is_none() && outputs.capacity() > MAX_RETAINED_OUTPUTS {
            outputs.shrink_to(0);
        }
        next
    }

    /// Makes a request due on every route, so that the peers' detection times start anew.
    pub fn request_on_all_routes(&mut self, now: Time) {
        for peer in self.peers.values_mut() {
            peer.routes.values_mut().for_each(|route| route.requests.request_by(now));
        }
        let ids: Vec<_> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.schedule_peer_wake(id));
    }

    /// The peer for a successor process; `None` without a session.
    pub fn save_peer(&self, id: PeerId) -> Option<SavedPeer> {
        self.peers.get(&id).and_then(save_peer)
    }

    /// Adds a peer with the state that a predecessor process left. No route changes its state by
    /// it, and none is reported as added.
    ///
    /// # Errors
    /// A parameter of a route is out of range; the peer has neither session nor routes then.
    pub fn restore_peer(
        &mut self,
        now: Time,
        id: PeerId,
        saved: SavedPeer,
    ) -> Result<(), ParamError> {
        self.now = now;
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(id, now));
        for route in restore_peer(peer, &mut self.context, now, saved)? {
            self.route_owners.insert(route, id);
        }
        self.on_peer_changed(id);
        Ok(())
    }

    /// The spec of a route, with the timing and priority in force.
    pub fn route_spec(&self, id: RouteId) -> Option<&RouteSpec> {
        let peer = self.peers.get(self.route_owners.get(&id)?)?;
        peer.routes.get(&id).map(|route| &route.spec)
    }

    /// Every route, by number, as of the last call.
    pub fn route_statuses(&self) -> Vec<RouteStatus> {
        let peers = self.peers.values();
        let mut routes: Vec<_> = peers.flat_map(|peer| route_statuses(peer, self.now)).collect();
        routes.sort_by_key(|route| route.id);
        routes
    }

    /// Every peer, by number.
    pub fn peer_statuses(&self) -> Vec<PeerStatus> {
        self.peers.values().map(peer_status).collect()
    }

    /// A peer's row of the forwarding table. Changes with every
    /// [`EngineOutput::ForwardingChanged`].
    pub fn forwarding(&self, peer: PeerId) -> Option<&PeerForwarding> {
        self.rows.get(&peer)
    }

    /// The reply template for requests of a peer; `None` while the engine has to see each of them.
    /// Changes with every [`EngineOutput::ReplyTemplateReady`].
    pub fn reply_template(&self, peer: PeerId) -> Option<&Arc<ReplyTemplate>> {
        self.peers.get(&peer)?.replies.current()
    }

    /// The moment of the last call.
    pub fn last_call(&self) -> Time {
        self.now
    }

    /// Stalls of data at failovers, over all peers.
    pub fn stall_histogram(&self) -> StallHistogram {
        self.context.stall_histogram
    }

    fn apply_input(&mut self, now: Time, input: EngineInput) -> Result<(), DropReason> {
        match input {
            EngineInput::AddPeer(id) => {
                self.peers.entry(id).or_insert_with(|| Peer::new(id, now));
                self.update_row(id);
            }
            EngineInput::RemovePeer(id) => self.remove_peer(now, id),
            EngineInput::AddRoute { id, spec } => {
                if !self.route_owners.contains_key(&id) && self.peers.contains_key(&spec.peer) {
                    self.route_owners.insert(id, spec.peer);
                    self.update_peer(now, spec.peer, |peer, context| {
                        add_route(peer, context, now, id, spec)
                    });
                }
            }
            EngineInput::RemoveRoute(id) => {
                self.update_peer_of_route(now, id, |peer, context| {
                    remove_route(peer, context, now, id)
                });
                self.route_owners.remove(&id);
            }
            EngineInput::ChangeRoute { id, change } => {
                self.update_peer_of_route(now, id, |peer, _| change_route(peer, now, id, change));
            }
            EngineInput::Configure { hold, history, mtu_raise } => {
                self.context.config.mtu_raise = mtu_raise;
                self.context.config.hold = hold;
                self.context.config.history = history;
                let routes = self.peers.values_mut().flat_map(|peer| peer.routes.values_mut());
                routes.for_each(|route| route.history.resize(history));
            }
            EngineInput::ReplaceSpec { id, spec } => {
                self.update_peer_of_route(now, id, |peer, _| replace_spec(peer, now, id, spec));
            }
            EngineInput::SessionUp { peer, boot_id } => {
                self.update_peer(now, peer, |peer, _| session_up(peer, now, boot_id));
            }
            EngineInput::SessionDown(peer, cause) => {
                self.update_peer(now, peer, |peer, context| {
                    session_down(peer, context, now, cause);
                });
            }
            EngineInput::Heartbeat { peer, route, heartbeat } => {
                self.on_heartbeat(now, now, (peer, route), &heartbeat, false)?;
            }
            EngineInput::DeferredHeartbeat { peer, route, heartbeat, arrived_at: at, answered } => {
                self.on_heartbeat(now, at.min(now), (peer, route), &heartbeat, answered)?;
            }
            EngineInput::Suspect(route) => {
                self.update_peer_of_route(now, route, |peer, context| {
                    peer.mark_suspect(context, now, route)
                });
            }
            #[cfg(feature = "sim")]
            EngineInput::DataLoss(_) | EngineInput::Silence { .. }
                if self.context.has_bug(InjectedBug::HeartbeatsDecide) => {}
            EngineInput::Silence { route, counts } => {
                self.update_route(now, route, |route, _, _| {
                    route.path_quality.data.audit.on_silence(now, counts);
                });
            }
            EngineInput::DataLoss(DataLoss { route, share }) => {
                self.update_peer_of_route(now, route, |peer, _| {
                    let routes = (&mut peer.routes, peer.active);
                    peer.comparison.on_data_loss(routes, now, (route, share));
                });
            }
            #[cfg(feature = "sim")]
            EngineInput::Tally { route, .. }
                if self.context.has_bug(InjectedBug::NeverReturn)
                    && self.peers.values().any(|peer| peer.comparison.is_return_of(route)) => {}
            EngineInput::Tally { route, tally } => {
                self.update_peer_of_route(now, route, |peer, _| {
                    let routes = (&mut peer.routes, peer.active);
                    peer.comparison.on_tally(routes, now, (route, tally));
                });
            }
            EngineInput::Resent { peer, from, to, frames, waited } => {
                self.update_peer(now, peer, |peer, context| {
                    let ends = (peer.id, from, to);
                    peer.costs.on_frames_resent(context, now, ends, frames, waited);
                });
            }
            EngineInput::LossCounters { peer, counters: tally } => {
                self.update_peer(now, peer, |peer, _| peer.costs.set_loss_counters(tally));
            }
            EngineInput::UnreadData(route) => {
                let Some(peer) = self.route_owners.get(&route).copied() else { return Ok(()) };
                let found = self.peers.get_mut(&peer).and_then(|peer| peer.routes.get_mut(&route));
                if let Some(found) = found {
                    found.liveness.extend_for_unread(now, found.spec.timing);
                }
                self.schedule_peer_wake(peer);
            }
            EngineInput::Fault { route, reason } => {
                self.update_peer_of_route(now, route, |peer, _| {
                    add_fault(peer, now, route, reason)
                });
            }
            EngineInput::FaultCleared { route, reason } => {
                self.update_peer_of_route(now, route, |peer, _| {
                    clear_fault(peer, now, route, reason)
                });
            }
            EngineInput::DatagramLimit { route, datagram, transport_overhead: added } => {
                self.update_route(now, route, |route, active, context| {
                    set_datagram_limit(route, active, context, now, (datagram, added));
                });
            }
            EngineInput::DataTooBig(route) => {
                self.update_route(now, route, |route, _, _| route.mtu.suspect_black_hole(now));
            }
            EngineInput::SegmentationChanged(route) => {
                self.update_route(now, route, |route, _, _| {
                    route.path_quality.data.void_evidence(now);
                    route.path_quality.data.reopen(now);
                });
            }
            EngineInput::RetryUnheard => {
                let peers: Vec<_> = self.peers.keys().copied().collect();
                for peer in peers {
                    self.update_peer(now, peer, |peer, _| retry_unheard(peer, now));
                }
            }
            EngineInput::RecheckPathMtu(route) => {
                self.update_route(now, route, |route, _, _| route.mtu.recheck_if_complete(now));
            }
            EngineInput::Probe { peer, route, probe } => {
                self.on_probe(now, (peer, route), &probe)?;
            }
            EngineInput::RemoteLearned { route, remote } => {
                self.update_peer_of_route(now, route, |peer, context| {
                    set_learned_remote(peer, context, now, route, remote);
                });
            }
            EngineInput::ProbeRefused { route, probe } => {
                self.update_route(now, route, |route, active, context| {
                    on_probe_refused(route, active, context, now, &probe);
                });
            }
        }
        Ok(())
    }

    /// As [`update_peer_of_route`](Self::update_peer_of_route), for the route alone and the number
    /// of the active one.
    fn update_route(
        &mut self,
        now: Time,
        id: RouteId,
        act: impl FnOnce(&mut Route, Option<RouteId>, &mut EngineContext),
    ) {
        self.update_peer_of_route(now, id, |peer, context| {
            let active = peer.active;
            if let Some(route) = peer.routes.get_mut(&id) {
                act(route, active, context);
            }
        });
    }

    fn on_probe(
        &mut self,
        now: Time,
        (peer, id): (PeerId, RouteId),
        probe: &Probe,
    ) -> Result<(), DropReason> {
        let Some(peer) = self.peers.get_mut(&peer) else { return Err(DropReason::Misrouted) };
        let (active, has_session) = (peer.active, peer.session.is_up());
        let Some(route) = peer.routes.get_mut(&id) else { return Err(DropReason::Misrouted) };
        on_probe(route, (active, has_session), &mut self.context, now, probe)
    }

    /// Applies a heartbeat that arrived at `at`; `answered` by a reply template or not.
    fn on_heartbeat(
        &mut self,
        now: Time,
        at: Time,
        (peer, route): (PeerId, RouteId),
        heartbeat: &Heartbeat,
        answered: bool,
    ) -> Result<(), DropReason> {
        let Some(found) = self.peers.get_mut(&peer) else { return Err(DropReason::Misrouted) };
        found.on_heartbeat(&mut self.context, (now, at), route, heartbeat, answered)?;
        if found.reevaluation_due.is_some() {
            self.schedule_peer_wake(peer);
        } else {
            self.on_peer_changed(peer);
        }
        Ok(())
    }

    fn remove_peer(&mut self, now: Time, id: PeerId) {
        let Some(mut peer) = self.peers.remove(&id) else { return };
        let routes: Vec<_> = peer.routes.keys().copied().collect();
        for route in routes {
            remove_route(&mut peer, &mut self.context, now, route);
            self.route_owners.remove(&route);
        }
        peer.reevaluate(&mut self.context, now);
        if peer.session.is_up() {
            self.context.push_event(
                now,
                EventKind::SessionEnded { peer: id, cause: SessionEndCause::PeerRemoved },
            );
        }
        self.on_peer_changed(id);
    }

    /// Changes a peer, if it exists, and evaluates the consequences.
    fn update_peer(
        &mut self,
        now: Time,
        id: PeerId,
        act: impl FnOnce(&mut Peer, &mut EngineContext),
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        act(peer, &mut self.context);
        peer.reevaluate(&mut self.context, now);
        self.on_peer_changed(id);
    }

    /// As [`update_peer`](Self::update_peer), for the peer of a route.
    fn update_peer_of_route(
        &mut self,
        now: Time,
        id: RouteId,
        act: impl FnOnce(&mut Peer, &mut EngineContext),
    ) {
        if let Some(peer) = self.route_owners.get(&id) {
            self.update_peer(now, *peer, act);
        }
    }

    /// Updates timer, table and reply template after a change of one peer.
    fn on_peer_changed(&mut self, id: PeerId) {
        self.schedule_peer_wake(id);
        self.update_row(id);
        self.refresh_reply_template(id);
    }

    fn schedule_peer_wake(&mut self, id: PeerId) {
        let wake = self.peers.get(&id).and_then(Peer::next_wake);
        let before = match wake {
            Some(wake) => self.peer_wakes.insert(id, wake),
            None => self.peer_wakes.remove(&id),
        };
        if before == wake {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, id));
        }
        self.timers.extend(wake.map(|wake| (wake, id)));
    }

    /// Updates a peer's row of the forwarding table.
    fn update_row(&mut self, id: PeerId) {
        let row = self.peers.get(&id).map(forwarding_row);
        if row.as_ref() == self.rows.get(&id) {
            return;
        }
        match row {
            Some(row) => drop(self.rows.insert(id, row)),
            None => drop(self.rows.remove(&id)),
        }
        self.context.outputs.push_back(EngineOutput::ForwardingChanged(id));
    }

    /// Publishes a reply template for a peer that has none while its reports are stable.
    fn refresh_reply_template(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(boot_id) = peer.session.boot_id() else { return };
        let stable = !peer.routes.is_empty() && peer.routes.values().all(has_stable_report);
        if peer.replies.current().is_some() || !stable || self.context.stalled_ms(self.now) > 0 {
            return;
        }
        let routes = peer.routes.values().map(|route| (route.id, route.remote.route)).collect();
        let reports = route_reports(peer);
        peer.replies.publish(boot_id, routes, reports);
        self.context.outputs.push_back(EngineOutput::ReplyTemplateReady(id));
    }

    /// Self-stall guard (reliability F-20, R-14): a node that was not scheduled has received
    /// nothing meanwhile, so every deadline is extended by one detection time.
    fn guard_self_stall(&mut self, now: Time) {
        let Some(late) = self.promised_wake.map(|promised| now.since(promised)) else { return };
        if late <= MIN_SELF_STALL {
            return;
        }
        // A working route was heard within one delay, which is at most half its detection time.
        let routes = || self.peers.values().flat_map(|peer| peer.routes.values());
        let shortest = routes().map(Route::detection_time).min().unwrap_or_default();
        let delay = routes().map(Route::delay).min().unwrap_or_default();
        if late <= (shortest / 2).min(delay * 2) {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.replies.revoke();
            let received = peer.routes.values_mut().filter(|route| route.liveness.rx);
            received.for_each(|route| route.liveness.arm_deadlines(now, route.spec.timing));
        }
        let ids: Vec<_> = self.peers.keys().copied().collect();
        ids.into_iter().for_each(|id| self.schedule_peer_wake(id));
        self.context.last_stall = Some((late, now));
        self.context.push_event(now, EventKind::Stalled { length: late });
    }
}

/// Returns whether nothing is about to change this node's report on the route.
fn has_stable_report(route: &Route) -> bool {
    route.is_up()
        && route.remote.route != 0
        && !route.suspicion.is_suspect()
        && !route.drain.is_ordered()
        && route.stats.inbound_loss.loss_permille() == 0
}

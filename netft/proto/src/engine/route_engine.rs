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
        status::{peer_status, route_statuses},
        types::{EngineConfig, EngineInput, EngineOutput},
    },
    failover::stall_histogram::StallHistogram,
    ids::{PeerId, RouteId},
    route::{
        event::EventKind,
        peer_route::Route,
        spec::RouteSpec,
        status::{PeerStatus, RouteStatus},
        table::ForwardingTable,
    },
    time::Time,
    wire::DropReason,
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
    pub(crate) table: Arc<ForwardingTable>,
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
            table: Arc::default(),
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

    /// The reply template for requests of a peer; `None` while the engine has to see each of them.
    /// Changes with every [`EngineOutput::ReplyTemplateReady`].
    pub fn reply_template(&self, peer: PeerId) -> Option<&Arc<ReplyTemplate>> {
        self.peers.get(&peer)?.replies.current()
    }

    /// Stalls of data at failovers, over all peers.
    pub fn stall_histogram(&self) -> StallHistogram {
        self.context.stall_histogram
    }

    /// Changes a peer, if it exists, and evaluates the consequences.
    pub(crate) fn update_peer(
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
    pub(crate) fn update_peer_of_route(
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
    pub(crate) fn on_peer_changed(&mut self, id: PeerId) {
        self.schedule_peer_wake(id);
        self.publish_table(id);
        self.refresh_reply_template(id);
    }

    pub(crate) fn schedule_peer_wake(&mut self, id: PeerId) {
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

    /// Publishes the table if one peer's row changed.
    pub(crate) fn publish_table(&mut self, id: PeerId) {
        let row = self.peers.get(&id).map(forwarding_row);
        let place = self.table.peers.binary_search_by_key(&id, |row| row.peer);
        if row.as_ref() == place.ok().map(|place| &self.table.peers[place]) {
            return;
        }
        let mut peers = self.table.peers.clone();
        match (place, row) {
            (Ok(place), Some(row)) => peers[place] = row,
            (Err(place), Some(row)) => peers.insert(place, row),
            (Ok(place), None) => drop(peers.remove(place)),
            (Err(_), None) => {}
        }
        let generation = self.table.generation + 1;
        self.table = Arc::new(ForwardingTable { generation, peers });
        self.context.outputs.push_back(EngineOutput::PublishTable(self.table.clone()));
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

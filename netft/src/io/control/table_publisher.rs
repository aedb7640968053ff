//! The forwarding state: the engine's rows, the sockets, the sessions and the queues made into
//! one immutable [`Fib`].

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    config::Config,
    ids::{PeerId, RouteId},
    packet::token_bucket::TokenBucket,
    session::fragment::FragmentLayout,
    wire::{header::FRAME_OVERHEAD, relay::NodeTag},
};
use tokio::sync::watch;

use crate::io::{
    adapter::repairs::DesiredState,
    control::{
        component::View, components::Components, sockets::max_datagram, steering::build_steering,
    },
    fib::{Fib, FibPeer, FibRoute, SharedFib},
    path::Path,
    quic::transport::CidTags,
    relays::FibRelays,
    socket::TunQueue,
};

/// The reason of a rebuild that only a reply template asks for: too frequent to be logged.
pub(super) const REPLY_TEMPLATE_READY: &str = "a reply template is ready";

/// Builds the forwarding table and publishes it to the workers.
pub(super) struct TablePublisher {
    fib: SharedFib,
    /// The adapter's queues, by worker.
    queues: Vec<Arc<TunQueue>>,
    /// Limits multicast and broadcast. Kept over tables, so that it is one limit.
    multicast_limit: Option<Arc<TokenBucket>>,
    /// Limits the datagrams this node relays.
    relay_limit: Option<Arc<TokenBucket>>,
    cid_tags: Option<CidTags>,
    /// The adapter's desired state; the MTU towards each peer follows from the table.
    desired_state: watch::Sender<DesiredState>,
    /// Why the table must be built anew, if it must.
    rebuild_reason: Option<&'static str>,
    generation: u64,
    /// Nodes may ask to join.
    joining: bool,
}

impl TablePublisher {
    pub(super) fn new(
        fib: SharedFib,
        desired_state: watch::Sender<DesiredState>,
        cid_tags: Option<CidTags>,
    ) -> Self {
        Self {
            fib,
            queues: Vec::new(),
            multicast_limit: None,
            relay_limit: None,
            cid_tags,
            desired_state,
            rebuild_reason: Some("start"),
            generation: 0,
            joining: false,
        }
    }

    /// Has the table built anew after the input that is being handled.
    pub(super) fn mark_dirty(&mut self, reason: &'static str) {
        if self.rebuild_reason.is_none_or(|before| before == REPLY_TEMPLATE_READY) {
            self.rebuild_reason = Some(reason);
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.rebuild_reason.is_some()
    }

    /// The table as last published.
    pub(super) fn fib(&self) -> Arc<Fib> {
        self.fib.load_full()
    }

    /// Takes QUIC from sources of no route while nodes may ask to join.
    pub(super) fn set_joining(&mut self, joining: bool) {
        self.joining = joining;
        self.mark_dirty("nodes may join, or not");
    }

    pub(super) fn set_queues(&mut self, queues: Vec<Arc<TunQueue>>) {
        self.queues = queues;
        self.mark_dirty("the adapter has new queues");
    }

    /// Limits multicast and relayed datagrams as the config says; a limit that stays is not filled
    /// anew.
    pub(super) fn set_rate_limits(&mut self, config: &Config) {
        let relay_limit = if config.relay.offer { config.relay.limit } else { 0 };
        for (bucket, per_second) in [
            (&mut self.multicast_limit, config.adapter.multicast),
            (&mut self.relay_limit, relay_limit),
        ] {
            if bucket.as_ref().map_or(0, |bucket| bucket.per_second()) != per_second {
                *bucket = TokenBucket::new(per_second).map(Arc::new);
            }
        }
    }

    /// Publishes a whole new table, if something it depends on changed. Returns whether it did.
    pub(super) fn publish(&mut self, view: &View<'_>, components: &Components) -> bool {
        let Some(reason) = self.rebuild_reason.take() else { return false };
        let fib = self.build_fib(view, components);
        self.generation += 1;
        if reason != REPLY_TEMPLATE_READY {
            tracing::debug!(self.generation, reason, "forwarding table published");
        }
        let (routes, speed) = (peer_mtus(view, &fib), active_speed(view, &fib));
        self.fib.store(Arc::new(fib));
        self.desired_state.send_if_modified(|desired| {
            let changed = desired.routes != routes || desired.speed != speed;
            (desired.routes, desired.speed) = (routes, speed);
            changed
        });
        true
    }

    /// Publishes an empty table: the node stops.
    pub(super) fn withdraw(&self) {
        self.fib.store(Arc::default());
    }

    fn build_fib(&self, view: &View<'_>, components: &Components) -> Fib {
        let mut fib = Fib {
            local_addrs: Some(view.config.adapter.addrs),
            queues: self.queues.clone(),
            multicast_limit: self.multicast_limit.clone(),
            sockets: view
                .sockets
                .iter_sockets()
                .map(|socket| (socket.id, socket.clone()))
                .collect(),
            transports: components
                .connections
                .all_transports()
                .map(|(id, transport)| (id, transport.clone()))
                .collect(),
            cid_tags: self.cid_tags,
            ..Fib::default()
        };
        let (paths, route_counts) = add_routes(&mut fib, view, components);
        for (peer, entry) in view.peers.iter() {
            let Some(config) = view.config.peer_of(peer) else { continue };
            let row = view.engine.forwarding(peer);
            let place = fib.peers.len();
            fib.by_v4.insert(config.addrs.v4, place);
            fib.by_v6.insert(config.addrs.v6, place);
            let candidates = row.map_or(&[][..], |row| &row.candidates);
            let backups = row.map_or(&[][..], |row| &row.backups);
            let is_routed = row.is_some_and(|row| row.active.is_some());
            let find = |id: Option<RouteId>| id.and_then(|id| paths.get(&id).cloned());
            fib.peers.push(FibPeer {
                is_unreachable: !is_routed && components.absent.is_unreachable(peer),
                peer,
                session: entry.preferred_session().cloned(),
                active: find(row.and_then(|row| row.active)),
                duplicate: find(row.and_then(|row| row.duplicate)),
                backups: backups.iter().filter_map(|id| paths.get(id).cloned()).collect(),
                steering: build_steering(view, config, row, &paths),
                candidates: candidates.iter().filter_map(|id| paths.get(id).cloned()).collect(),
            });
            let routes = route_counts.get(&peer).copied().unwrap_or_default();
            if row.is_some_and(|row| row.balance_set.len() == routes && row.suspects.is_empty()) {
                fib.healthy_peers.insert(peer);
                let template = view.engine.reply_template(peer).cloned();
                fib.reply_templates.extend(template.map(|template| (peer, (place, template))));
            }
            for session in entry.live_sessions() {
                fib.sessions.insert(session.local_id(), session.clone());
            }
        }
        fib.relays = self.build_relays(view, components, &fib);
        let mut fib = fib.with_reachability();
        fib.has_unreachable_peer |= self.joining;
        fib
    }

    fn build_relays(
        &self,
        view: &View<'_>,
        components: &Components,
        fib: &Fib,
    ) -> Option<FibRelays> {
        let (relay_limit, uses) = (self.relay_limit.clone(), view.config.relay.use_relays);
        if relay_limit.is_none() && !uses {
            return None;
        }
        let mut relays = FibRelays { relay_limit, uses, ..FibRelays::default() };
        for (place, entry) in fib.peers.iter().enumerate() {
            let Some(config) = view.config.peer_of(entry.peer) else { continue };
            let tag = NodeTag::from_key(&config.key);
            relays.peers.insert(tag, (entry.peer, place));
            relays.tags.insert(entry.peer, tag);
        }
        for (route, endpoint) in components.relay.endpoints() {
            relays.endpoints.insert((endpoint.via, endpoint.peer), endpoint.clone());
            relays.by_outer_socket.insert(endpoint.outer.id, endpoint.clone());
            relays.inner_sockets.insert(endpoint.inner.id);
            relays.relay_routes.insert(*route);
        }
        Some(relays)
    }
}

type PathsByRoute = HashMap<RouteId, Arc<Path>>;

/// Adds the routes to the table. Returns their paths, and how many routes each peer has.
fn add_routes(
    fib: &mut Fib,
    view: &View<'_>,
    components: &Components,
) -> (PathsByRoute, HashMap<PeerId, usize>) {
    let statuses = view.engine.route_statuses().into_iter();
    let rtts: HashMap<_, _> = statuses.map(|route| (route.id, route.quality.rtt)).collect();
    let (mut paths, mut counts) = (HashMap::new(), HashMap::<_, usize>::new());
    // Where two peers behind one NAT were at one address, the one that proved it last has it.
    let mut routes: Vec<_> = view.routes.iter().collect();
    routes.sort_by_key(|(_, entry)| entry.learned_at);
    for (id, entry) in routes {
        let spec = &entry.plan.spec;
        *counts.entry(spec.peer).or_default() += 1;
        for socket in view.sockets.sockets_at(spec.real_local) {
            let received = entry.received.clone();
            let route = FibRoute { peer: spec.peer, route: id, received };
            fib.routes.insert((socket.id, spec.real_remote), route);
        }
        if let Some(path) = build_path(view, components, id, rtts.get(&id).copied().flatten()) {
            paths.insert(id, Arc::new(path));
        }
    }
    (paths, counts)
}

fn build_path(
    view: &View<'_>,
    components: &Components,
    route: RouteId,
    rtt: Option<Duration>,
) -> Option<Path> {
    let entry = view.routes.get(route)?;
    let spec = &entry.plan.spec;
    let socket = view.sockets.sockets_at(spec.real_local).first()?.clone();
    let interface = view.planner.host_state().interface(entry.plan.ifindex)?;
    let remote = spec.real_remote;
    let datagram = max_datagram(interface.mtu, remote.ip());
    let (datagram, _) = components.connections.frame_limit(route, datagram);
    let plain_sends = components.segmented_sends.is_plain(route);
    let transport = components.connections.transport_of(route).cloned();
    if let Some(transport) = &transport {
        transport.set_plain_sends(plain_sends);
    }
    Some(Path {
        route,
        socket,
        remote,
        max_datagram: components.frame_limits.max_datagram(route, datagram, entry.is_relayed()),
        plain_sends,
        rtt,
        loss_epoch: view.engine.loss_epoch(route),
        counters: entry.counters.clone(),
        transport,
    })
}

/// The MTU towards each peer: the smallest of the routes that may carry its data, so that a
/// failover needs no smaller packets; of a fragmented packet, if the peer takes fragments.
fn peer_mtus(view: &View<'_>, fib: &Fib) -> BTreeMap<IpAddr, u32> {
    let whole = usize::from(view.config.adapter.mtu);
    let entries = fib.peers.iter();
    entries
        .filter_map(|entry| Some((view.config.peer_of(entry.peer)?, entry)))
        .flat_map(|(config, entry)| {
            let inner =
                entry.candidates.iter().map(|path| path.max_datagram - FRAME_OVERHEAD).min();
            let fragments = view.peers.get(entry.peer).is_some_and(|peer| peer.accepts_fragments);
            let carried = inner
                .map(|inner| if fragments { FragmentLayout::max_packet_len(inner) } else { inner });
            let mtu = carried.unwrap_or(whole).min(whole) as u32;
            let addrs: [IpAddr; 2] = [config.addrs.v4.into(), config.addrs.v6.into()];
            addrs.map(|addr| (addr, mtu))
        })
        .collect()
}

/// The speed of the fastest active route, Mbit/s, as far as the interfaces report one.
fn active_speed(view: &View<'_>, fib: &Fib) -> Option<u32> {
    let host_state = view.planner.host_state();
    let active = fib.peers.iter().filter_map(|entry| entry.active.as_ref());
    active.filter_map(|path| host_state.interface(path.socket.ifindex)?.speed).max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::io::control::test_node::TestNode;

    fn publisher(node: &TestNode) -> TablePublisher {
        let desired = DesiredState {
            name: "netft0".into(),
            addrs: node.config.adapter.addrs,
            mtu: 1420,
            routes: BTreeMap::new(),
            speed: None,
        };
        TablePublisher::new(SharedFib::default(), watch::channel(desired).0, None)
    }

    #[test]
    fn a_table_is_published_once_per_change() {
        let node = TestNode::new(2);
        let (mut publisher, components) = (publisher(&node), Components::default());
        assert!(publisher.publish(&node.view(), &components));
        assert!(!publisher.publish(&node.view(), &components));
        let fib = publisher.fib();
        assert_eq!(fib.peers.len(), 2);
        assert!(fib.has_unreachable_peer && fib.relays.is_none());
        let addr = node.config.peer_of(PeerId(1)).unwrap().addrs.v4;
        assert_eq!(fib.peer_at(addr.into()).unwrap().peer, PeerId(1));
        assert_eq!(publisher.desired_state.borrow().routes[&IpAddr::from(addr)], 1420);
        publisher.mark_dirty("test");
        assert!(publisher.publish(&node.view(), &components) && publisher.generation == 2);
    }

    #[test]
    fn a_limit_that_stays_is_not_filled_anew() {
        let mut node = TestNode::new(0);
        let mut publisher = publisher(&node);
        node.config.adapter.multicast = 50;
        publisher.set_rate_limits(&node.config);
        let before = publisher.multicast_limit.clone().unwrap();
        publisher.set_rate_limits(&node.config);
        assert!(Arc::ptr_eq(&before, publisher.multicast_limit.as_ref().unwrap()));
        node.config.adapter.multicast = 0;
        publisher.set_rate_limits(&node.config);
        assert!(publisher.multicast_limit.is_none());
    }
}

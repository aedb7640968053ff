//! The forwarding state: the engine's table, the sockets, the sessions and the queues made into
//! one immutable [`Fib`].

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    ids::RouteId,
    session::fragment::FragmentLayout,
    wire::{header::FRAME_OVERHEAD, relay::NodeTag},
};

use crate::io::{
    control::{driver::Driver, sockets::max_datagram, steering::build_steering},
    fib::{Fib, FibPeer},
    path::Path,
    relays::FibRelays,
};

/// Publishes a whole new version.
pub(super) fn publish_table(driver: &Driver) {
    let fib = build_fib(driver);
    let routes = peer_mtus(driver, &fib);
    driver.fib.store(Arc::new(fib));
    driver.manager.notify_fib_changed();
    driver.desired_state.send_if_modified(|wanted| {
        let changed = wanted.routes != routes;
        wanted.routes = routes;
        changed
    });
}

/// The MTU towards each peer: what every route that may carry its data carries, so that a move to
/// another route needs no smaller packets; in slices, if the peer takes them.
fn peer_mtus(driver: &Driver, fib: &Fib) -> BTreeMap<IpAddr, u32> {
    let whole = usize::from(driver.config.adapter.mtu);
    let entries = fib.peers.iter();
    entries
        .filter_map(|entry| Some((driver.config.peer_of(entry.peer)?, entry)))
        .flat_map(|(config, entry)| {
            let inner =
                entry.candidates.iter().map(|path| path.max_datagram - FRAME_OVERHEAD).min();
            let slices = driver.peers.get(&entry.peer).is_some_and(|known| known.accepts_fragments);
            let carried = inner
                .map(|inner| if slices { FragmentLayout::max_packet_len(inner) } else { inner });
            let mtu = carried.unwrap_or(whole).min(whole) as u32;
            let addrs: [IpAddr; 2] = [config.addrs.v4.into(), config.addrs.v6.into()];
            addrs.map(|addr| (addr, mtu))
        })
        .collect()
}

fn build_fib(driver: &Driver) -> Fib {
    let mut fib = Fib {
        local_addrs: Some(driver.config.adapter.addrs),
        queues: driver.queues.clone(),
        multicast_limit: driver.multicast_limit.clone(),
        sockets: driver.sockets.iter_sockets().map(|socket| (socket.id, socket.clone())).collect(),
        transports: driver
            .connections
            .all_transports()
            .map(|(id, held)| (id, held.clone()))
            .collect(),
        cid_tag: driver.cid_tag,
        ..Fib::default()
    };
    let mut paths = HashMap::new();
    let rtts: HashMap<_, _> = driver
        .engine
        .route_statuses()
        .into_iter()
        .map(|route| (route.id, route.quality.rtt))
        .collect();
    let mut counts = HashMap::<_, usize>::new();
    // Where two peers behind one NAT were at one address, the one that proved it last is.
    let mut routes: Vec<_> = driver.routes.iter().collect();
    routes.sort_by_key(|(_, known)| known.learned_at);
    for (id, known) in routes {
        *counts.entry(known.plan.spec.peer).or_default() += 1;
        for socket in driver.sockets.sockets_at(known.plan.spec.real_local) {
            fib.routes
                .insert((socket.id, known.plan.spec.real_remote), (known.plan.spec.peer, *id));
        }
        if let Some(path) = build_path(driver, *id, rtts.get(id).copied().flatten()) {
            paths.insert(*id, Arc::new(path));
        }
    }
    for (peer, sessions) in &driver.peers {
        let Some(config) = driver.config.peer_of(*peer) else { continue };
        let row = driver.table.peers.binary_search_by_key(peer, |row| row.peer);
        let row = row.ok().map(|place| &driver.table.peers[place]);
        let place = fib.peers.len();
        fib.by_v4.insert(config.addrs.v4, place);
        fib.by_v6.insert(config.addrs.v6, place);
        let candidates = row.map_or(&[][..], |row| &row.candidates);
        let backups = row.map_or(&[][..], |row| &row.backups);
        let find = |id: Option<RouteId>| id.and_then(|id| paths.get(&id).cloned());
        fib.peers.push(FibPeer {
            peer: *peer,
            session: sessions.preferred_session().cloned(),
            active: find(row.and_then(|row| row.active)),
            duplicate: find(row.and_then(|row| row.duplicate)),
            backups: backups.iter().filter_map(|id| paths.get(id).cloned()).collect(),
            steering: build_steering(driver, config, row, &paths),
            candidates: candidates.iter().filter_map(|id| paths.get(id).cloned()).collect(),
        });
        let routes = counts.get(peer).copied().unwrap_or_default();
        if row.is_some_and(|row| row.balance_set.len() == routes && row.suspects.is_empty()) {
            fib.healthy_peers.insert(*peer);
            let template = driver.engine.reply_template(*peer).cloned();
            fib.reply_templates.extend(template.map(|form| (*peer, (place, form))));
        }
        for session in &sessions.live {
            fib.sessions.insert(session.local_id(), session.clone());
        }
    }
    fib.relays = build_fib_relays(driver, &fib);
    fib.with_reachability()
}

fn build_fib_relays(driver: &Driver, fib: &Fib) -> Option<FibRelays> {
    let (relay_limit, uses) = (driver.relay_limit.clone(), driver.config.relay.use_relays);
    if relay_limit.is_none() && !uses {
        return None;
    }
    let mut relays = FibRelays { relay_limit, uses, ..FibRelays::default() };
    for (place, entry) in fib.peers.iter().enumerate() {
        let Some(config) = driver.config.peer_of(entry.peer) else { continue };
        let tag = NodeTag::from_key(&config.key);
        relays.peers.insert(tag, (entry.peer, place));
        relays.tags.insert(entry.peer, tag);
    }
    for (route, port) in &driver.relay_routes.endpoints {
        relays.endpoints.insert((port.via, port.peer), port.clone());
        relays.by_outer_socket.insert(port.outer.id, port.clone());
        relays.inner_sockets.insert(port.inner.id);
        relays.relay_routes.insert(*route);
    }
    Some(relays)
}

fn build_path(driver: &Driver, id: RouteId, rtt: Option<Duration>) -> Option<Path> {
    let known = driver.routes.get(&id)?;
    let socket = driver.sockets.sockets_at(known.plan.spec.real_local).first()?.clone();
    let interface = driver.host_state.interface(known.plan.ifindex)?;
    let remote = known.plan.spec.real_remote;
    // The interface's word is newer than the engine's when it just became smaller.
    let max_datagram = max_datagram(interface.mtu, remote.ip());
    let (max_datagram, _) = driver.connections.frame_limit(id, max_datagram);
    let transport = driver.connections.transport_of(id).cloned();
    let max_datagram = max_datagram.min(known.path_mtu.unwrap_or(max_datagram));
    // Of a relay's room the loopback interface says nothing.
    let room = known.reported_limit.filter(|_| known.is_relayed()).map(|(room, _)| room);
    let max_datagram = max_datagram.min(room.unwrap_or(max_datagram));
    let counters = known.counters.clone();
    Some(Path { route: id, socket, remote, max_datagram, rtt, counters, transport })
}

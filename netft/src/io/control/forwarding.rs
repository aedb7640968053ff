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
    session::fragment::Cut,
    wire::{header::OVERHEAD, relay::Tag},
};

use crate::io::{
    control::{driver::Driver, sockets::max_datagram, steering::steering},
    fib::{Fib, Path, PeerEntry},
    relays::Relays,
};

/// Publishes a whole new version.
pub(super) fn publish(driver: &Driver) {
    let fib = build(driver);
    let routes = sizes(driver, &fib);
    driver.fib.store(Arc::new(fib));
    driver.manager.fib_changed();
    driver.want.send_if_modified(|wanted| {
        let changed = wanted.routes != routes;
        wanted.routes = routes;
        changed
    });
}

/// The MTU towards each peer: what every route that may carry its data carries, so that a move to
/// another route needs no smaller packets; in slices, if the peer takes them.
fn sizes(driver: &Driver, fib: &Fib) -> BTreeMap<IpAddr, u32> {
    let whole = usize::from(driver.config.mtu);
    let entries = fib.peers.iter();
    entries
        .filter_map(|entry| Some((driver.config.peer_of(entry.peer)?, entry)))
        .flat_map(|(config, entry)| {
            let inner = entry.candidates.iter().map(|path| path.max_datagram - OVERHEAD).min();
            let slices = driver.peers.get(&entry.peer).is_some_and(|known| known.takes_slices);
            let carried = inner.map(|inner| if slices { Cut::reach(inner) } else { inner });
            let mtu = carried.unwrap_or(whole).min(whole) as u32;
            let addrs: [IpAddr; 2] = [config.addrs.v4.into(), config.addrs.v6.into()];
            addrs.map(|addr| (addr, mtu))
        })
        .collect()
}

fn build(driver: &Driver) -> Fib {
    let mut fib = Fib {
        local: Some(driver.config.addrs),
        queues: driver.queues.clone(),
        multicast: driver.multicast.clone(),
        sockets: driver.sockets.all().map(|socket| (socket.id, socket.clone())).collect(),
        carriers: driver.connections.all().map(|(id, held)| (id, held.clone())).collect(),
        marks: driver.marks,
        ..Fib::default()
    };
    let mut paths = HashMap::new();
    let rtts: HashMap<_, _> =
        driver.engine.routes().into_iter().map(|route| (route.id, route.rtt)).collect();
    let mut counts = HashMap::<_, usize>::new();
    // Where two peers behind one NAT were at one address, the one that proved it last is.
    let mut routes: Vec<_> = driver.routes.iter().collect();
    routes.sort_by_key(|(_, known)| known.adopted_at);
    for (id, known) in routes {
        *counts.entry(known.plan.spec.peer).or_default() += 1;
        for socket in driver.sockets.at(known.plan.spec.real_local) {
            fib.routes
                .insert((socket.id, known.plan.spec.real_remote), (known.plan.spec.peer, *id));
        }
        if let Some(path) = path(driver, *id, rtts.get(id).copied().flatten()) {
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
        fib.peers.push(PeerEntry {
            peer: *peer,
            session: sessions.preferred().cloned(),
            active: find(row.and_then(|row| row.active)),
            duplicate: find(row.and_then(|row| row.duplicate)),
            backups: backups.iter().filter_map(|id| paths.get(id).cloned()).collect(),
            steering: steering(driver, config, row, &paths),
            candidates: candidates.iter().filter_map(|id| paths.get(id).cloned()).collect(),
        });
        let routes = counts.get(peer).copied().unwrap_or_default();
        if row.is_some_and(|row| row.spread.len() == routes && row.suspects.is_empty()) {
            fib.calm.insert(*peer);
            let form = driver.engine.form(*peer).cloned();
            fib.forms.extend(form.map(|form| (*peer, (place, form))));
        }
        for session in &sessions.live {
            fib.sessions.insert(session.local(), session.clone());
        }
    }
    fib.relays = relays(driver, &fib);
    fib.noted()
}

fn relays(driver: &Driver, fib: &Fib) -> Option<Relays> {
    let (passes, uses) = (driver.passes.clone(), driver.config.relay.uses);
    if passes.is_none() && !uses {
        return None;
    }
    let mut relays = Relays { passes, uses, ..Relays::default() };
    for (place, entry) in fib.peers.iter().enumerate() {
        let Some(config) = driver.config.peer_of(entry.peer) else { continue };
        let tag = Tag::of(&config.key);
        relays.peers.insert(tag, (entry.peer, place));
        relays.tags.insert(entry.peer, tag);
    }
    for (route, port) in &driver.ways.ports {
        relays.ports.insert((port.via, port.peer), port.clone());
        relays.backs.insert(port.back.id, port.clone());
        relays.fronts.insert(port.front.id);
        relays.routes.insert(*route);
    }
    Some(relays)
}

fn path(driver: &Driver, id: RouteId, rtt: Option<Duration>) -> Option<Path> {
    let known = driver.routes.get(&id)?;
    let socket = driver.sockets.at(known.plan.spec.real_local).first()?.clone();
    let interface = driver.world.interface(known.plan.ifindex)?;
    let remote = known.plan.spec.real_remote;
    // The interface's word is newer than the engine's when it just became smaller.
    let max_datagram = max_datagram(interface.mtu, remote.ip());
    let (max_datagram, _) = driver.connections.limit(id, max_datagram);
    let carrier = driver.connections.of(id).cloned();
    let max_datagram = max_datagram.min(known.datagram.unwrap_or(max_datagram));
    // Of a relay's room the loopback interface says nothing.
    let room = known.limit.filter(|_| known.relayed()).map(|(room, _)| room);
    let max_datagram = max_datagram.min(room.unwrap_or(max_datagram));
    let sent = known.sent.clone();
    Some(Path { route: id, socket, remote, max_datagram, rtt, sent, carrier })
}

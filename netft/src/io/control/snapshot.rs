//! The operator's picture, taken between two decisions so that it is consistent.

use std::sync::atomic::Ordering::Relaxed;

use netft_proto::{
    route::{RouteState, RouteStatus, Transport},
    topology,
    topology::{NetworkInfo, RouteLink},
};

use crate::{
    api::snapshot::{AdapterInfo, NodeInfo, PeerInfo, RouteSent, Snapshot},
    io::{
        clock,
        control::driver::Driver,
        counters::{Counters, RouteCounters},
    },
};

pub(super) fn build_snapshot(driver: &Driver) -> Snapshot {
    let now = clock::now();
    let config = &driver.config;
    let device = driver.host_state.interfaces.iter().find(|i| i.name == config.adapter.name);
    let statuses = driver.engine.peer_statuses();
    Snapshot {
        now,
        node: NodeInfo {
            name: config.name.clone(),
            key: config.public_key,
            boot_id: driver.boot_id,
            uptime: now.since(driver.started_at),
        },
        adapter: AdapterInfo {
            name: config.adapter.name.clone(),
            ifindex: device.map_or(0, |device| device.index),
            up: device.is_some_and(|device| device.up),
            v4: config.adapter.addrs.v4,
            v6: config.adapter.addrs.v6,
            mtu: config.adapter.mtu,
            backend: config.adapter.backend,
        },
        peers: config
            .peers
            .iter()
            .filter_map(|peer| {
                Some(PeerInfo {
                    status: *statuses.iter().find(|status| status.peer == peer.id)?,
                    name: peer.name.clone(),
                    key: peer.key,
                    addrs: peer.addrs,
                    peer_adapter_up: driver.peers.get(&peer.id)?.adapter_up,
                    policies: peer.policies.clone(),
                })
            })
            .collect(),
        routes: route_statuses(driver),
        networks: network_inventory(driver),
        stalls: driver.engine.stall_histogram(),
        sent_by_route: driver
            .routes
            .iter()
            .map(|(id, known)| (*id, read_route_counters(&known.counters)))
            .collect(),
        relay_of: driver.relay_routes.endpoints.iter().map(|(id, port)| (*id, port.via)).collect(),
        counters: Counters::sum_blocks(
            driver
                .workers
                .counters()
                .iter()
                .chain([driver.manager.counters()])
                .map(|counters| &**counters),
        ),
    }
}

/// The engine's routes, with what their carriers make of them.
fn route_statuses(driver: &Driver) -> Vec<RouteStatus> {
    let mut routes = driver.engine.route_statuses();
    for status in &mut routes {
        status.spec.transport = Transport::Udp;
        if driver.connections.transport_of(status.id).is_some() {
            status.spec.transport = Transport::Quic;
        }
    }
    routes
}

/// The networks, with what the engine makes of the routes in them.
fn network_inventory(driver: &Driver) -> Vec<NetworkInfo> {
    let routes = driver.engine.route_statuses().into_iter();
    let own = routes.filter(|route| !driver.relay_routes.endpoints.contains_key(&route.id));
    let edges: Vec<_> = own
        .map(|route| RouteLink {
            peer: route.spec.peer,
            local: route.spec.real_local.ip(),
            remote: route.spec.real_remote.ip(),
            up: route.state == RouteState::Up,
        })
        .collect();
    let peers = driver.engine.peer_statuses().into_iter().filter(|peer| peer.session);
    let alive = peers.map(|peer| peer.peer).collect();
    let (interfaces, offers) = (&driver.host_state.interfaces, &*driver.advertisements.borrow());
    topology::build_inventory(
        &driver.config,
        interfaces,
        offers,
        (&edges, &alive),
        &driver.network_cache,
    )
}

fn read_route_counters(sent: &RouteCounters) -> RouteSent {
    RouteSent { frames: sent.frames.load(Relaxed), bytes: sent.bytes.load(Relaxed) }
}

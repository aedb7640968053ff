//! The snapshot of the API, taken between two inputs so that it is consistent.

use std::sync::atomic::Ordering::Relaxed;

use ipnet::IpNet;
use netft_proto::{
    route::{RouteStatus, Transport},
    topology::{Interface, LocalAddr},
};

use crate::{
    api::snapshot::{AdapterInfo, PeerInfo, RouteTraffic, Snapshot},
    io::{
        clock,
        control::{
            component::View, components::Components, control_sessions::ControlSessions,
            network_watch::network_inventory, session_problem::session_problem,
        },
        counters::{Counters, RouteCounters},
        datapath::workers::Workers,
    },
};

pub(super) fn build_snapshot(
    view: &View<'_>,
    components: &Components,
    sessions: &ControlSessions,
    workers: &Workers,
) -> Snapshot {
    let now = clock::now();
    let config = view.config;
    let mut interfaces = view.planner.host_state().interfaces.iter();
    let device = interfaces.find(|interface| interface.name == config.adapter.name);
    let statuses = view.engine.peer_statuses();
    Snapshot {
        now,
        node: sessions.node_info(config, now),
        adapter: AdapterInfo {
            name: config.adapter.name.clone(),
            ifindex: device.map_or(0, |device| device.index),
            up: device.is_some_and(|device| device.up),
            v4: config.adapter.addrs.v4,
            v6: config.adapter.addrs.v6,
            addrs: device.map_or_else(Vec::new, list_addresses),
            mtu: device.map_or(0, |device| device.mtu),
            queue_len: view.planner.host_state().adapter_queue_len,
            backend: config.adapter.backend,
            tunnel_offload: workers.has_tunnel_offload(),
        },
        peers: config
            .peers
            .iter()
            .filter_map(|peer| {
                let status = *statuses.iter().find(|status| status.peer == peer.id)?;
                Some(PeerInfo {
                    status,
                    overlay_problem: components.overlay_watch.problem_of(peer.id),
                    session_problem: session_problem(view, peer, &status, now),
                    name: peer.name.clone(),
                    key: peer.key,
                    addrs: peer.addrs,
                    is_gone: components.absent.is_gone(peer.id),
                    session_end: view.peers.get(peer.id)?.session_end,
                    version: view.peers.get(peer.id)?.version.clone(),
                    peer_adapter_up: view.peers.get(peer.id)?.adapter_up,
                    cipher: view.peers.get(peer.id)?.cipher(),
                    policies: peer.policies.clone(),
                })
            })
            .collect(),
        routes: route_statuses(view, components),
        networks: network_inventory(view),
        stalls: view.engine.stall_histogram(),
        sent_by_route: view
            .routes
            .iter()
            .map(|(id, entry)| (id, read_route_counters(&entry.counters)))
            .collect(),
        received_by_route: view
            .routes
            .iter()
            .map(|(id, entry)| (id, read_route_counters(&entry.received)))
            .collect(),
        plain_sends: components.segmented_sends.plain_routes().collect(),
        relay_of: components
            .relay
            .endpoints()
            .iter()
            .map(|(id, endpoint)| (*id, endpoint.via))
            .collect(),
        overrides: components.overrides.overrides().clone(),
        counters: Counters::sum_blocks(
            workers
                .counters()
                .iter()
                .chain([sessions.manager.counters()])
                .map(|counters| &**counters),
        ),
    }
}

fn list_addresses(device: &Interface) -> Vec<IpNet> {
    let net = |local: &LocalAddr| IpNet::new(local.addr, local.prefix.prefix_len()).ok();
    device.addrs.iter().filter_map(net).collect()
}

/// The engine's routes, with the transports they use.
fn route_statuses(view: &View<'_>, components: &Components) -> Vec<RouteStatus> {
    let mut routes = view.engine.route_statuses();
    for status in &mut routes {
        let quic = components.connections.transport_of(status.id).is_some();
        status.spec.transport = if quic { Transport::Quic } else { Transport::Udp };
    }
    routes
}

fn read_route_counters(data: &RouteCounters) -> RouteTraffic {
    RouteTraffic { frames: data.frames.load(Relaxed), bytes: data.bytes.load(Relaxed) }
}

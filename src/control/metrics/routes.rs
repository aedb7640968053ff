//! Metrics of the routes. Pure.
//!
//! A route is named by its peer, its network, its interface and its addresses: labels that stay the
//! same over restarts. Its number, which does not, is a label of `netft_route_info` alone.

use std::{fmt::Display, net::SocketAddr};

use netft::{
    PeerId,
    api::snapshot::Snapshot,
    route::{RouteState, RouteStatus, Transport},
};

use super::page::{MetricKind, MetricsPage};
use crate::control::local_interface::find_local_interface;

/// A figure of a route.
struct RouteFamily {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    /// `None` while it is unknown.
    value: fn(&Snapshot, &RouteStatus) -> Option<f64>,
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    value: fn(&Snapshot, &RouteStatus) -> Option<f64>,
) -> RouteFamily {
    RouteFamily { name, kind: MetricKind::Gauge, help, value }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    value: fn(&Snapshot, &RouteStatus) -> Option<f64>,
) -> RouteFamily {
    RouteFamily { name, kind: MetricKind::Counter, help, value }
}

const fn flag(value: bool) -> Option<f64> {
    Some(if value { 1.0 } else { 0.0 })
}

const ROUTE_FAMILIES: [RouteFamily; 21] = [
    gauge("netft_route_active", "1 if data to the peer is sent on it.", |_, route| {
        flag(route.active)
    }),
    gauge(
        "netft_route_suspect",
        "1 if the route is suspect: data on it stays unacknowledged.",
        |_, route| flag(route.suspect),
    ),
    gauge(
        "netft_route_brown_out",
        "1 if data left the route for its loss or latency and has not returned.",
        |_, route| flag(route.brown_out),
    ),
    gauge("netft_route_drained", "1 if an operator at either end drains the route.", |_, route| {
        flag(route.drain.is_some())
    }),
    gauge("netft_route_relayed", "1 if the route leads over a third node.", |snapshot, route| {
        flag(snapshot.relay_of.contains_key(&route.id))
    }),
    gauge(
        "netft_route_plain_sends",
        "1 if frames are sent one by one, because segmented sends vanish on the route.",
        |snapshot, route| flag(snapshot.plain_sends.contains(&route.id)),
    ),
    gauge("netft_route_hold_seconds", "Hold-down left after a failure.", |_, route| {
        Some(route.hold_down.left.as_secs_f64())
    }),
    gauge(
        "netft_route_flaps",
        "Recent failures; one is forgiven per stable minute.",
        |_, route| Some(route.hold_down.flaps.into()),
    ),
    gauge("netft_route_rtt_seconds", "Smoothed round-trip time of heartbeats.", |_, route| {
        route.quality.rtt.map(|rtt| rtt.as_secs_f64())
    }),
    gauge("netft_route_jitter_seconds", "Mean deviation of round-trip times.", |_, route| {
        route.quality.jitter.map(|jitter| jitter.as_secs_f64())
    }),
    gauge(
        "netft_route_loss_ratio",
        "Share of the peer's recent heartbeats that were lost, 0 to 1.",
        |_, route| Some(widen(route.quality.loss_in)),
    ),
    gauge(
        "netft_route_loss_out_ratio",
        "Share of this node's recent heartbeats that were lost, 0 to 1.",
        |_, route| Some(widen(route.quality.loss_out)),
    ),
    gauge(
        "netft_route_data_loss_ratio",
        "Share of recent data frames that the route lost, or that data left it for, 0 to 1.",
        |_, route| Some(widen(route.quality.data_loss)),
    ),
    gauge("netft_route_path_mtu_bytes", "Largest IP packet the route carries.", |_, route| {
        route.path_mtu.size.map(|size| size as f64)
    }),
    gauge("netft_route_path_mtu_limit_bytes", "MTU of the local interface.", |_, route| {
        route.path_mtu.limit.map(|limit| limit as f64)
    }),
    counter(
        "netft_route_sent_frames_total",
        "Data frames sent on the route, with duplicates and retransmissions.",
        |snapshot, route| snapshot.sent_by_route.get(&route.id).map(|sent| sent.frames as f64),
    ),
    counter(
        "netft_route_sent_bytes_total",
        "Bytes of these frames, as UDP payload.",
        |snapshot, route| snapshot.sent_by_route.get(&route.id).map(|sent| sent.bytes as f64),
    ),
    counter(
        "netft_route_received_frames_total",
        "Data frames received on the route, each once.",
        |snapshot, route| snapshot.received_by_route.get(&route.id).map(|got| got.frames as f64),
    ),
    counter(
        "netft_route_received_bytes_total",
        "Bytes of these frames, as UDP payload.",
        |snapshot, route| snapshot.received_by_route.get(&route.id).map(|got| got.bytes as f64),
    ),
    counter("netft_route_heartbeats_sent_total", "Heartbeat requests sent.", |_, route| {
        Some(route.heartbeats.sent as f64)
    }),
    counter(
        "netft_route_heartbeats_missed_total",
        "Expected heartbeats that did not arrive.",
        |_, route| Some(route.heartbeats.missed as f64),
    ),
];

/// A share of single precision without digits that it does not have.
fn widen(share: f32) -> f64 {
    (f64::from(share) * 1e6).round() / 1e6
}

/// Labels that name a route.
struct RouteLabels {
    peer: String,
    network: String,
    interface: String,
    local: SocketAddr,
    remote: SocketAddr,
}

impl RouteLabels {
    fn new(snapshot: &Snapshot, route: &RouteStatus) -> Self {
        let (local, remote) = (route.spec.real_local, route.spec.real_remote);
        let home = find_local_interface(snapshot, local.ip());
        Self {
            peer: peer_name(snapshot, route.spec.peer),
            network: home.map(|(network, _)| network.prefix.to_string()).unwrap_or_default(),
            interface: home.and_then(|(_, it)| it.name.clone()).unwrap_or_default(),
            local,
            remote,
        }
    }

    fn pairs(&self) -> Vec<(&'static str, &dyn Display)> {
        vec![
            ("peer", &self.peer),
            ("network", &self.network),
            ("interface", &self.interface),
            ("local", &self.local),
            ("remote", &self.remote),
        ]
    }
}

fn peer_name(snapshot: &Snapshot, id: PeerId) -> String {
    let known = snapshot.peers.iter().find(|peer| peer.status.peer == id);
    known.map_or_else(|| format!("#{id}"), |peer| peer.name.clone())
}

/// Writes every figure of every route.
pub(super) fn write_routes(page: &mut MetricsPage, snapshot: &Snapshot) {
    let labels = |route| RouteLabels::new(snapshot, route);
    let routes: Vec<_> = snapshot.routes.iter().map(|route| (route, labels(route))).collect();
    let help = "Always 1; the route's number and transport.";
    page.begin_family("netft_route_info", MetricKind::Gauge, help);
    for (route, labels) in &routes {
        let transport = match route.spec.transport {
            Transport::Udp => "udp",
            Transport::Quic => "quic",
        };
        let mut pairs = labels.pairs();
        pairs.extend([("route", &route.id as &dyn Display), ("transport", &transport)]);
        page.write_sample("", &pairs, 1);
    }
    let help = "1 for the state the route is in, else 0.";
    page.begin_family("netft_route_state", MetricKind::Gauge, help);
    for (route, labels) in &routes {
        use RouteState::{AdminDown, Down, Init, Up};
        for state in [Up, Init, Down, AdminDown] {
            let word = state.as_str();
            let mut pairs = labels.pairs();
            pairs.push(("state", &word));
            page.write_sample("", &pairs, u8::from(route.state == state));
        }
    }
    for family in &ROUTE_FAMILIES {
        page.begin_family(family.name, family.kind, family.help);
        for (route, labels) in &routes {
            if let Some(value) = (family.value)(snapshot, route) {
                page.write_sample("", &labels.pairs(), value);
            }
        }
    }
}

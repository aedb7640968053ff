//! The library's values → [`schema`](super::schema). Pure.

use std::{collections::BTreeSet, time::Duration};

use netft::{
    PeerId,
    config::Backend,
    route::{DrainStatus, EventKind, RouteSpec, RouteState, RouteStatus},
};

use super::{
    cause, policies,
    schema::{
        Adapter, Counters, EightFields, Node, Peer, PeerCounts, Peers, Route, RouteCounts, Routes,
        Status, What,
    },
};
use crate::daemon::{
    clock::WallClock,
    node::{CounterSnapshot, PeerInfo, Snapshot},
};

/// The names of the peers, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// `names[i]` is the name of peer `i`.
    pub const fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// The name of a peer.
    pub fn of(&self, peer: PeerId) -> String {
        self.0.get(usize::from(peer.0)).cloned().unwrap_or_else(|| format!("#{peer}"))
    }
}

impl Names {
    /// Takes in the peers of `snapshot`; those that are gone keep their names, for the last that
    /// is said of them.
    pub fn learn(&mut self, snapshot: &Snapshot) {
        for peer in &snapshot.peers {
            let place = usize::from(peer.status.peer.0);
            if self.0.len() <= place {
                self.0.resize(place + 1, String::new());
            }
            self.0[place].clone_from(&peer.name);
        }
    }
}

impl From<&Snapshot> for Names {
    fn from(snapshot: &Snapshot) -> Self {
        let mut names = Self::default();
        names.learn(snapshot);
        names
    }
}

/// The word of a backend.
pub const fn backend(backend: Backend) -> &'static str {
    match backend {
        Backend::Offload => "offload",
        Backend::Plain => "plain",
    }
}

/// `GET /v1/status`.
pub fn status(snapshot: &Snapshot) -> Status {
    let Snapshot { node, adapter, peers, routes, stalls, counters, .. } = snapshot;
    let count = |wanted: fn(&netft::route::PeerStatus) -> bool| {
        peers.iter().filter(|peer| wanted(&peer.status)).count()
    };
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: Node {
            name: node.name.clone(),
            key: node.key.to_string(),
            boot_id: hex(node.boot_id),
            uptime_ms: millis(node.uptime),
        },
        adapter: Adapter {
            name: adapter.name.clone(),
            ifindex: adapter.ifindex,
            up: adapter.up,
            v4: adapter.v4,
            v6: adapter.v6,
            mtu: adapter.mtu,
            backend: backend(adapter.backend).to_owned(),
        },
        peers: PeerCounts {
            configured: peers.len(),
            sessions: count(|peer| peer.session),
            reachable: count(|peer| peer.reachable),
        },
        routes: RouteCounts {
            total: routes.len(),
            up: routes.iter().filter(|route| route.state == RouteState::Up).count(),
        },
        failovers: peers.iter().map(|peer| peer.status.failovers).sum(),
        stalls: cause::stalls(stalls),
        policies: policies::count(peers),
        counters: counts(counters),
    }
}

fn counts(counters: &CounterSnapshot) -> Counters {
    Counters {
        adapter_reads: counters.adapter_reads,
        tx_bytes: counters.tx_bytes,
        tx_frames: counters.tx_frames,
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        adapter_writes: counters.adapter_writes,
        socket_overflow: counters.socket_overflow,
        resent_frames: counters.resent_frames,
        duplicated_frames: counters.duplicated_frames,
        acks_sent: counters.acks_sent,
        ring_overflow: counters.ring_overflow,
        relayed_frames: counters.relayed_frames,
        challenges_sent: counters.challenges_sent,
        drops: counters.drops.iter().map(|(why, n)| (why.name().to_owned(), *n)).collect(),
    }
}

/// `GET /v1/routes`.
pub fn routes(snapshot: &Snapshot, clock: &WallClock) -> Routes {
    let names = Names::from(snapshot);
    let mut routes: Vec<_> =
        snapshot.routes.iter().map(|status| route(status, snapshot, &names, clock)).collect();
    routes.sort_by_key(|route| route.id);
    Routes { routes }
}

/// One route.
pub fn route(status: &RouteStatus, snapshot: &Snapshot, names: &Names, clock: &WallClock) -> Route {
    let spec = &status.spec;
    let sent = snapshot.sent.get(&status.id).copied().unwrap_or_default();
    Route {
        id: status.id.0,
        peer: names.of(spec.peer),
        real_local: spec.real_local,
        real_remote: spec.real_remote,
        virtual_local: spec.virtual_local,
        virtual_remote: spec.virtual_remote,
        delay_ms: spec.timing.delay.as_millis(),
        threshold: spec.timing.threshold.get(),
        priority: spec.priority.0,
        attributes: spec.attributes.0,
        carrier: spec.carrier.to_string(),
        state: status.state.to_string(),
        tx: status.tx,
        rx: status.rx,
        active: status.active,
        suspect: status.suspect,
        hold_ms: millis(status.hold),
        flaps: status.flaps,
        drain: status.drain.map(|drain| drain.stage().name().to_owned()),
        drain_by: status.drain.map(drain_by),
        rtt_us: status.rtt.map(micros),
        jitter_us: status.jitter.map(micros),
        loss: share(status.loss),
        loss_out: share(status.loss_out),
        brown_out: status.brown_out,
        heartbeats_sent: status.heartbeats_sent,
        heartbeats_missed: status.heartbeats_missed,
        last_change: clock.rfc3339(status.last_change),
        reason: status.reason.to_string(),
        path_mtu: status.path_mtu,
        path_mtu_limit: status.path_mtu_status.limit,
        path_mtu_age_ms: status.path_mtu_status.proven.map(|at| millis(snapshot.now.since(at))),
        path_mtu_probing: status.path_mtu_status.probing,
        tx_frames: sent.frames,
        tx_bytes: sent.bytes,
        via: snapshot.vias.get(&status.id).map(|via| names.of(*via)),
    }
}

/// `GET /v1/peers`.
pub fn peers(snapshot: &Snapshot) -> Peers {
    Peers { peers: snapshot.peers.iter().map(|info| peer(info, snapshot)).collect() }
}

/// One peer.
pub fn peer(info: &PeerInfo, snapshot: &Snapshot) -> Peer {
    let own = |route: &&RouteStatus| !snapshot.vias.contains_key(&route.id);
    let routes = snapshot.routes.iter().filter(|route| route.spec.peer == info.status.peer);
    let routes = routes.filter(own);
    let addresses: BTreeSet<_> = routes.map(|route| route.spec.real_remote).collect();
    Peer {
        name: info.name.clone(),
        key: info.key.to_string(),
        v4: info.addrs.v4,
        v6: info.addrs.v6,
        addresses: addresses.into_iter().collect(),
        session: info.status.session,
        reachable: info.status.reachable,
        active: info.status.active.map(|route| route.0),
        failovers: info.status.failovers,
        adapter_up: info.peer_adapter_up,
        policy: info.policies.default_policy().to_string(),
        classes: policies::classes(&info.policies),
    }
}

/// An event.
pub fn event(event: &netft::route::Event, names: &Names) -> What {
    match &event.kind {
        EventKind::RouteAdded { route, spec } => {
            let (peer, carrier) = (names.of(spec.peer), spec.carrier.to_string());
            What::RouteAdded { route: route.0, peer, carrier, fields: eight(spec) }
        }
        EventKind::RouteRemoved { route, spec } => {
            What::RouteRemoved { route: route.0, peer: names.of(spec.peer), fields: eight(spec) }
        }
        EventKind::RemoteReachable { peer, route } => {
            What::RemoteReachable { route: route.0, peer: names.of(*peer) }
        }
        EventKind::RemoteUnreachable { peer } => What::RemoteUnreachable { peer: names.of(*peer) },
        EventKind::StateChanged { route, peer, from, to, reason, last_heard, history } => {
            What::StateChanged {
                route: route.0,
                peer: names.of(*peer),
                from: from.to_string(),
                to: to.to_string(),
                reason: reason.to_string(),
                last_heard_ms_ago: last_heard.map(|heard| millis(event.at.since(heard))),
                history: history.clone(),
            }
        }
        EventKind::EarlyWarning { route, peer, missed, threshold } => What::EarlyWarning {
            route: route.0,
            peer: names.of(*peer),
            missed: *missed,
            threshold: *threshold,
        },
        EventKind::Ready { peer, waited } => {
            What::Ready { peer: names.of(*peer), waited_ms: millis(*waited) }
        }
        EventKind::SessionEstablished { peer, boot_id } => {
            What::SessionEstablished { peer: names.of(*peer), boot_id: hex(*boot_id) }
        }
        EventKind::SessionEnded { peer } => What::SessionEnded { peer: names.of(*peer) },
        EventKind::Moved { peer, from, to, reason, cause } => What::Moved {
            peer: names.of(*peer),
            from: from.map(|route| route.0),
            to: to.map(|route| route.0),
            reason: reason.to_string(),
            cause: Box::new(cause::cause(cause, event.at)),
        },
        EventKind::Suspect { route, peer } => {
            What::Suspect { route: route.0, peer: names.of(*peer) }
        }
        EventKind::AdapterRestored { what } => What::AdapterRestored { what: what.clone() },
        EventKind::SessionRefused { peer, reason } => {
            What::SessionRefused { peer: names.of(*peer), reason: reason.clone() }
        }
        EventKind::NameFailed { peer, name, reason } => {
            What::NameFailed { peer: names.of(*peer), name: name.clone(), reason: reason.clone() }
        }
        EventKind::DuplicateNode { peer } => What::DuplicateNode { peer: names.of(*peer) },
        EventKind::Drain { route, peer, stage } => {
            What::Drain { route: route.0, peer: names.of(*peer), stage: stage.name().to_owned() }
        }
        EventKind::PathMtuChanged { route, peer, from, to } => {
            What::PathMtuChanged { route: route.0, peer: names.of(*peer), from: *from, to: *to }
        }
        EventKind::Stalled { length } => What::Stalled { length_ms: millis(*length) },
        EventKind::Cost { peer, from, to, cost } => What::Cost {
            peer: names.of(*peer),
            from: from.0,
            to: to.map(|route| route.0),
            cost: cause::cost(cost),
        },
        EventKind::Reconfigured => What::Reconfigured,
        EventKind::AddressAdopted { route, peer, from, to } => {
            What::AddressAdopted { route: route.0, peer: names.of(*peer), from: *from, to: *to }
        }
    }
}

fn drain_by(drain: DrainStatus) -> String {
    match (drain.here, drain.at_peer) {
        (true, true) => "both",
        (true, false) => "here",
        (false, _) => "peer",
    }
    .to_owned()
}

fn eight(spec: &RouteSpec) -> EightFields {
    EightFields {
        real_local: spec.real_local,
        real_remote: spec.real_remote,
        virtual_local: spec.virtual_local,
        virtual_remote: spec.virtual_remote,
        delay_ms: spec.timing.delay.as_millis(),
        threshold: spec.timing.threshold.get(),
        priority: spec.priority.0,
        attributes: spec.attributes.0,
    }
}

fn share(share: f32) -> f64 {
    (f64::from(share) * 10_000.0).round() / 10_000.0
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number too large for every JSON reader.
fn hex(number: u64) -> String {
    format!("{number:016x}")
}

//! Routes and peers as an operator sees them.

use crate::{
    engine::peer::Peer,
    route::{
        peer_route::Route,
        status::{HeartbeatCounters, HoldDownStatus, PeerStatus, RouteQuality, RouteStatus},
    },
    time::Time,
};

pub(crate) fn peer_status(peer: &Peer) -> PeerStatus {
    PeerStatus {
        peer: peer.id,
        session: peer.session.is_up(),
        reachable: peer.active.is_some(),
        active: peer.active,
        moves: peer.moves.counts,
        heard: peer.routes.values().any(|route| route.liveness.rx),
        last_heard: peer.routes.values().filter_map(|route| route.liveness.last_heard).max(),
    }
}

pub(crate) fn route_statuses(peer: &Peer, now: Time) -> impl Iterator<Item = RouteStatus> {
    peer.routes.values().map(move |route| route_status(peer, route, now))
}

fn route_status(peer: &Peer, route: &Route, now: Time) -> RouteStatus {
    let active = peer.active == Some(route.id);
    RouteStatus {
        id: route.id,
        spec: route.spec.clone(),
        state: route.state(),
        last_change: route.derived.since,
        reason: route.status_reason(now),
        tx: route.derived.tx,
        rx: route.liveness.rx,
        active,
        suspect: route.suspicion.is_suspect(),
        hold_down: HoldDownStatus {
            left: route.hold_down.time_left(now),
            flaps: route.hold_down.flaps(now),
        },
        drain: route.drain_status(active, peer.heard_on_any_route),
        brown_out: route.path_quality.browned_out,
        quality: RouteQuality {
            rtt: route.stats.requests.rtt(),
            jitter: route.stats.requests.jitter(),
            loss_in: f32::from(route.stats.inbound_loss.loss_permille()) / 1000.0,
            loss_out: f32::from(route.path_quality.loss_permille()) / 1000.0,
            data_loss: f32::from(route.path_quality.data.loss_permille(now)) / 1000.0,
        },
        heartbeats: HeartbeatCounters {
            sent: route.requests.sent,
            missed: route.liveness.missed,
            last_heard: route.liveness.last_heard,
            tried_since: route.requests.tried_since(),
        },
        path_mtu: route.mtu.status(),
    }
}

//! A peer and its routes as one process leaves them to the next.
//!
//! Everything that was proven or measured goes along. What is not: suspicions and heartbeat
//! histories, which are younger than a second, and local faults, which the driver reports anew. The
//! detection time starts anew with the hand-over: nothing was received meanwhile, as at a stall of
//! this node.

use std::net::{IpAddr, SocketAddr};

use crate::{
    engine::{context::EngineContext, peer::Peer, peer_session::PeerSession, types::EngineOutput},
    failover::move_counts::MoveRecorder,
    ids::{PeerId, RouteId},
    route::{
        brownout::PathQuality,
        drain_state::DrainState,
        hold_down::HoldDown,
        liveness::Liveness,
        mtu::PathMtu,
        params::{Attributes, Delay, ParamError, Priority, Threshold, Timing, Transport},
        peer_route::Route,
        report::RemoteEnd,
        route_stats::RouteStats,
        saved_liveness::SavedLiveness,
        spec::RouteSpec,
    },
    time::Time,
};

/// Serials of heartbeats that are left out at a hand-over: the peer ignores the reports of a lower
/// one.
const SERIAL_RESERVE: u32 = 64;

/// A peer with a session.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedPeer {
    /// The peer's boot id.
    boot_id: u64,
    session_started_at: Time,
    /// The session was reported as established.
    established_reported: bool,
    serial: u32,
    newest_serial: Option<u32>,
    active: Option<RouteId>,
    moves: MoveRecorder,
    /// Its routes.
    pub routes: Vec<SavedRoute>,
}

/// One route.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedRoute {
    /// This node's number of it.
    pub id: RouteId,
    /// Its description.
    pub spec: SavedSpec,
    remote: RemoteEnd,
    admin_down: bool,
    liveness: SavedLiveness,
    /// When it entered its state.
    state_since: Time,
    drain: DrainState,
    hold_down: HoldDown,
    requests_sent: u64,
    stats: RouteStats,
    path_quality: PathQuality,
    mtu: PathMtu,
}

/// The description of a route.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedSpec {
    real_local: SocketAddr,
    real_remote: SocketAddr,
    virtual_local: IpAddr,
    virtual_remote: IpAddr,
    delay_ms: u32,
    threshold: u16,
    priority: u32,
    attributes: u32,
    is_quic: bool,
}

impl SavedSpec {
    /// The description of a route, without its peer.
    pub fn new(spec: &RouteSpec) -> Self {
        Self {
            real_local: spec.real_local,
            real_remote: spec.real_remote,
            virtual_local: spec.virtual_local,
            virtual_remote: spec.virtual_remote,
            delay_ms: spec.timing.delay.as_millis(),
            threshold: spec.timing.threshold.get(),
            priority: spec.priority.0,
            attributes: spec.attributes.0,
            is_quic: spec.transport == Transport::Quic,
        }
    }

    /// The description of a route to `peer`.
    ///
    /// # Errors
    /// A parameter is out of range.
    pub fn to_spec(self, peer: PeerId) -> Result<RouteSpec, ParamError> {
        let timing = Timing {
            delay: Delay::from_millis(self.delay_ms.into())?,
            threshold: Threshold::new(self.threshold.into())?,
        };
        Ok(RouteSpec {
            peer,
            real_local: self.real_local,
            real_remote: self.real_remote,
            virtual_local: self.virtual_local,
            virtual_remote: self.virtual_remote,
            timing,
            priority: Priority(self.priority),
            attributes: Attributes(self.attributes),
            transport: if self.is_quic { Transport::Quic } else { Transport::Udp },
        })
    }
}

/// The peer for a successor process; `None` without a session.
pub(crate) fn save_peer(peer: &Peer) -> Option<SavedPeer> {
    let (boot_id, session_started_at, established_reported) = peer.session.to_parts()?;
    Some(SavedPeer {
        boot_id,
        session_started_at,
        established_reported,
        serial: peer.replies.last_serial(),
        newest_serial: peer.newest_serial,
        active: peer.active,
        moves: peer.moves,
        routes: peer.routes.values().map(save_route).collect(),
    })
}

fn save_route(route: &Route) -> SavedRoute {
    SavedRoute {
        id: route.id,
        spec: SavedSpec::new(&route.spec),
        remote: route.remote,
        admin_down: route.admin_down,
        liveness: route.liveness.to_saved(),
        state_since: route.derived.since,
        drain: route.drain,
        hold_down: route.hold_down,
        requests_sent: route.requests.sent,
        stats: route.stats.clone(),
        path_quality: route.path_quality,
        mtu: route.mtu.clone(),
    }
}

/// Gives a peer without routes the state that a predecessor process left. Returns its routes.
///
/// # Errors
/// A parameter of a route is out of range; the peer is as before.
pub(crate) fn restore_peer(
    peer: &mut Peer,
    context: &mut EngineContext,
    now: Time,
    saved: SavedPeer,
) -> Result<Vec<RouteId>, ParamError> {
    let specs = saved.routes.iter().map(|route| route.spec.to_spec(peer.id));
    let specs = specs.collect::<Result<Vec<_>, _>>()?;
    let SavedPeer { boot_id, session_started_at, established_reported, .. } = saved;
    peer.session = PeerSession::from_parts(boot_id, session_started_at, established_reported);
    peer.replies.resume_serial(saved.serial.wrapping_add(SERIAL_RESERVE));
    (peer.newest_serial, peer.moves) = (saved.newest_serial, saved.moves);
    let heard = saved.routes.iter().any(|route| route.liveness.rx);
    peer.heard_on_any_route = heard;
    let mut ids = Vec::new();
    for (saved, spec) in saved.routes.into_iter().zip(specs) {
        ids.push(saved.id);
        let route = restore_route(saved, spec, (now, context.config.history), heard);
        if let Some(datagram) = route.mtu.datagram_size() {
            context.outputs.push_back(EngineOutput::PathMtu { route: route.id, datagram });
        }
        peer.routes.insert(route);
    }
    let carries = |id: &RouteId| peer.routes.get(id).is_some_and(Route::can_carry_data);
    peer.active = saved.active.filter(carries);
    Ok(ids)
}

fn restore_route(
    saved: SavedRoute,
    spec: RouteSpec,
    (now, history): (Time, usize),
    heard: bool,
) -> Route {
    let timing = spec.timing;
    let mut route = Route::new(saved.id, spec, saved.state_since, history);
    route.remote = saved.remote;
    route.admin_down = saved.admin_down;
    route.liveness = Liveness::from_saved(saved.liveness, now, timing);
    route.drain = saved.drain;
    route.hold_down = saved.hold_down;
    route.stats = saved.stats;
    route.mtu = saved.mtu;
    route.requests.sent = saved.requests_sent;
    route.requests.start(now);
    // Its state was reported by the former process.
    route.update_state(saved.state_since, heard && route.remote.confirms_tx());
    // After that: a change of the state would void the evidence.
    route.path_quality = saved.path_quality;
    route
}

//! Changes of a peer by the driver and the operator: sessions, faults, routes and their parameters.

use std::net::SocketAddr;

use crate::{
    engine::{context::EngineContext, peer::Peer, peer_session::SessionStart},
    ids::RouteId,
    route::{
        event::EventKind,
        params::Attributes,
        peer_route::Route,
        session_end::SessionEndCause,
        spec::{RouteChange, RouteSpec},
        state::Reason,
    },
    time::Time,
};

pub(crate) fn add_fault(peer: &mut Peer, now: Time, id: RouteId, reason: Reason) {
    let Some(route) = peer.routes.get_mut(&id) else { return };
    route.add_fault(reason);
    route.requests.pause();
    peer.report_change_soon(now, Some(id));
}

pub(crate) fn clear_fault(peer: &mut Peer, now: Time, id: RouteId, reason: Reason) {
    let Some(route) = peer.routes.get_mut(&id) else { return };
    if route.clear_fault(reason) {
        let has_session = peer.session.is_up();
        // A refused send says nothing about the peer: a neighbour that does not exist refuses, too.
        match reason {
            Reason::SendError if has_session => route.requests.resume(now),
            _ => start_requests(peer, now, id),
        }
        peer.report_change_soon(now, None);
    }
}

/// Starts to send requests on a route, unless a fault or a missing session prevents it.
fn start_requests(peer: &mut Peer, now: Time, id: RouteId) {
    let has_session = peer.session.is_up();
    if let Some(route) = peer.routes.get_mut(&id)
        && has_session
        && !route.has_fault()
    {
        route.requests.start(now);
    }
}

/// Tries the routes on which the peer was never heard at full rate again: something changed.
pub(crate) fn retry_unheard(peer: &mut Peer, now: Time) {
    let waiting = peer.routes.values_mut().filter(|route| route.requests.backs_off());
    waiting.filter(|route| !route.has_fault()).for_each(|route| route.requests.start(now));
}

pub(crate) fn session_up(peer: &mut Peer, now: Time, boot_id: u64) {
    let Some(start) = peer.session.begin(now, boot_id) else { return };
    peer.replies.revoke();
    peer.newest_serial = None;
    for route in peer.routes.values_mut() {
        route.reset_session(Reason::NewSession);
        match start {
            SessionStart::Restarted => route.hold_down.forgive_loss(),
            SessionStart::Rekeyed => {}
        }
        route.requests.stop();
        if !route.has_fault() {
            route.requests.start(now);
        }
    }
}

pub(crate) fn session_down(
    peer: &mut Peer,
    context: &mut EngineContext,
    now: Time,
    cause: SessionEndCause,
) {
    if !peer.session.end() {
        return;
    }
    peer.replies.revoke();
    peer.costs.close(context, now, peer.id);
    for route in peer.routes.values_mut() {
        route.reset_session(Reason::SessionLost);
        route.requests.stop();
    }
    context.push_event(now, EventKind::SessionEnded { peer: peer.id, cause });
}

pub(crate) fn add_route(
    peer: &mut Peer,
    context: &mut EngineContext,
    now: Time,
    id: RouteId,
    spec: RouteSpec,
) {
    let route = Route::new(id, spec.clone(), now, context.config.history);
    peer.routes.insert(route);
    let (learned, to) = (spec.attributes.0 & Attributes::LEARNED != 0, spec.real_remote);
    context.push_event(now, EventKind::RouteAdded { route: id, spec });
    if learned {
        let (peer, from) = (peer.id, None);
        context.push_event(now, EventKind::AddressLearned { route: id, peer, from, to });
    }
    start_requests(peer, now, id);
}

pub(crate) fn remove_route(peer: &mut Peer, context: &mut EngineContext, now: Time, id: RouteId) {
    let Some(route) = peer.routes.remove(&id) else { return };
    context.push_event(now, EventKind::RouteRemoved { route: id, spec: route.spec });
    peer.report_change_soon(now, None);
}

pub(crate) fn change_route(peer: &mut Peer, now: Time, id: RouteId, change: RouteChange) {
    let Some(route) = peer.routes.get_mut(&id) else { return };
    if let Some(timing) = change.timing {
        route.set_timing(now, timing);
        route.requests.request_by(now);
    }
    let admin_down = change.admin_down.filter(|down| *down != route.admin_down);
    if let Some(down) = admin_down {
        route.admin_down = down;
    }
    let drained = change.drain.is_some_and(|on| route.drain.set_ordered(now, on));
    if let Some(priority) = change.priority {
        route.spec.priority = priority;
    }
    if drained || change.priority.is_some() {
        peer.routes.values_mut().for_each(|route| route.hold_down.clear_elapsed(now));
    }
    if drained || admin_down.is_some() {
        // The peer learns of it on every route, this one too: it may be the only one.
        peer.report_change_soon(now, None);
    }
}

/// Replaces the description of a route; fields that are equal in both stay undisturbed.
pub(crate) fn replace_spec(peer: &mut Peer, now: Time, id: RouteId, spec: RouteSpec) {
    let Some(route) = peer.routes.get(&id) else { return };
    let old = &route.spec;
    let change = RouteChange {
        timing: (old.timing != spec.timing).then_some(spec.timing),
        priority: (old.priority != spec.priority).then_some(spec.priority),
        admin_down: None,
        drain: None,
    };
    change_route(peer, now, id, change);
    if let Some(route) = peer.routes.get_mut(&id) {
        if route.spec.transport != spec.transport {
            route.path_quality.data.void_evidence(now);
            route.path_quality.data.reopen(now);
        }
        route.spec = spec;
    }
}

/// Points a route at another address of the peer. Its state stays: a NAT between changed its
/// mapping, the peer did not move. Its path MTU is confirmed anew.
pub(crate) fn set_learned_remote(
    peer: &mut Peer,
    context: &mut EngineContext,
    now: Time,
    id: RouteId,
    remote: SocketAddr,
) {
    let Some(route) = peer.routes.get_mut(&id) else { return };
    let from = std::mem::replace(&mut route.spec.real_remote, remote);
    route.spec.attributes.0 |= Attributes::LEARNED;
    route.mtu.suspect_black_hole(now);
    route.path_quality.data.void_evidence(now);
    // The peer has received nothing since its address changed.
    route.requests.request_by(now);
    let (peer, from) = (peer.id, Some(from));
    context.push_event(now, EventKind::AddressLearned { route: id, peer, from, to: remote });
}

//! Path MTU probes: the decisions of `route::mtu` as messages and events.

use crate::{
    engine::{context::EngineContext, types::EngineOutput},
    ids::RouteId,
    route::{
        event::EventKind,
        mtu::{MtuInputs, MtuProbe, PathMtu},
        peer_route::Route,
        routes::RouteMap,
    },
    time::Time,
    wire::{
        DropReason,
        probe::{Probe, ProbeMessage},
    },
};

/// Sends every probe that is due. Called with every heartbeat, so probes cause no wake-up.
pub(crate) fn send_due_probes(
    routes: &mut RouteMap,
    active: Option<RouteId>,
    context: &mut EngineContext,
    now: Time,
) {
    for route in routes.values_mut() {
        if route.mtu.has_work(now, route.is_up(), active == Some(route.id)) {
            probe_route(route, active, context, now);
        }
    }
}

fn probe_route(route: &mut Route, active: Option<RouteId>, context: &mut EngineContext, now: Time) {
    let is_up = route.is_up();
    let mut due = None;
    update_path_mtu(route, active, context, now, |mtu, inputs| {
        if is_up {
            due = mtu.poll_probe(now, inputs);
        } else {
            mtu.pause_probing();
        }
    });
    let Some(due) = due else { return };
    let Ok(size) = u16::try_from(due.size) else { return };
    let probe = Probe {
        message: ProbeMessage::Request,
        size,
        route: route.id.0,
        your_route: route.remote.route,
        sequence: due.sequence,
    };
    push_probe(context, route, probe);
}

/// Applies an authentic probe: a request is answered on the route it arrived on, an answer proves
/// its size.
pub(crate) fn on_probe(
    route: &mut Route,
    (active, has_session): (Option<RouteId>, bool),
    context: &mut EngineContext,
    now: Time,
    probe: &Probe,
) -> Result<(), DropReason> {
    // An authentic packet cannot speak for another route (W-12).
    if probe.your_route != 0 && probe.your_route != route.id.0 {
        return Err(DropReason::Misrouted);
    }
    if !has_session {
        return Err(DropReason::NoSession);
    }
    match probe.message {
        ProbeMessage::Request if route.has_fault() => {}
        ProbeMessage::Request => {
            let message = ProbeMessage::Answer;
            let (own, theirs) = (route.id.0, route.remote.route);
            push_probe(context, route, Probe { message, route: own, your_route: theirs, ..*probe });
        }
        ProbeMessage::Answer => {
            let answered = MtuProbe { size: probe.size.into(), sequence: probe.sequence };
            update_path_mtu(route, active, context, now, |mtu, inputs| {
                mtu.on_probe_answered(now, inputs, answered)
            });
            probe_route(route, active, context, now);
        }
    }
    Ok(())
}

/// The kernel refused a probe as too large.
pub(crate) fn on_probe_refused(
    route: &mut Route,
    active: Option<RouteId>,
    context: &mut EngineContext,
    now: Time,
    probe: &Probe,
) {
    let refused = MtuProbe { size: probe.size.into(), sequence: probe.sequence };
    update_path_mtu(route, active, context, now, |mtu, inputs| {
        mtu.on_probe_refused(now, inputs, refused)
    });
    probe_route(route, active, context, now);
}

/// Applies the largest frame the interface of a route takes, and the transport's overhead.
pub(crate) fn set_datagram_limit(
    route: &mut Route,
    active: Option<RouteId>,
    context: &mut EngineContext,
    now: Time,
    (datagram, overhead): (usize, usize),
) {
    update_path_mtu(route, active, context, now, |mtu, _| mtu.set_limit(now, datagram, overhead));
}

fn push_probe(context: &mut EngineContext, route: &Route, probe: Probe) {
    let peer = route.spec.peer;
    context.outputs.push_back(EngineOutput::Probe { peer, route: route.id, probe });
}

/// Changes the path MTU state of a route and reports a change of the size.
fn update_path_mtu(
    route: &mut Route,
    active: Option<RouteId>,
    context: &mut EngineContext,
    now: Time,
    change: impl FnOnce(&mut PathMtu, &MtuInputs),
) {
    let inputs = MtuInputs {
        delay: route.delay(),
        rtt: route.stats.requests.rtt(),
        carries_data: active == Some(route.id),
        raise_timer: context.config.mtu_raise,
    };
    let before = (route.mtu.datagram_size(), route.mtu.packet_size());
    change(&mut route.mtu, &inputs);
    let after = (route.mtu.datagram_size(), route.mtu.packet_size());
    // Frames of a size that the path does not carry were lost for their size.
    if after.0 < before.0 {
        route.path_quality.data.void_evidence(now);
    }
    let (id, peer) = (route.id, route.spec.peer);
    if let Some(datagram) = after.0.filter(|_| before.0 != after.0) {
        context.outputs.push_back(EngineOutput::PathMtu { route: id, datagram });
    }
    if let ((_, Some(from)), (_, Some(to))) = (before, after)
        && from != to
    {
        context.push_event(now, EventKind::PathMtuChanged { route: id, peer, from, to });
    }
}

//! Path MTU probes in and out: what `route::mtu` decides, as messages and events.

use crate::{
    engine::{EngineContext, EngineOutput, peer::Peer},
    ids::RouteId,
    route::{
        event::EventKind,
        mtu::{MtuInputs, MtuProbe, PathMtu},
        route_fsm::Route,
        status::RouteState,
    },
    time::Time,
    wire::{
        DropReason,
        probe::{Probe, ProbeMessage},
    },
};

impl Peer {
    /// Sends every probe that is due. Called with every heartbeat, so probes wake nobody up.
    pub(crate) fn send_due_probes(&mut self, context: &mut EngineContext, now: Time) {
        let stirs = |route: &&Route| {
            let up = route.state == RouteState::Up;
            route.mtu.has_work(now, up, self.active == Some(route.id))
        };
        let ids: Vec<_> = self.routes.values().filter(stirs).map(|route| route.id).collect();
        ids.into_iter().for_each(|id| self.probe_route(context, now, id));
    }

    fn probe_route(&mut self, context: &mut EngineContext, now: Time, id: RouteId) {
        let up = self.routes.get(&id).is_some_and(|route| route.state == RouteState::Up);
        let mut due = None;
        self.update_path_mtu(context, now, id, |mtu, inputs| {
            if up {
                due = mtu.poll_probe(now, inputs);
            } else {
                mtu.pause_probing();
            }
        });
        let Some((route, due)) = self.routes.get(&id).zip(due) else { return };
        let Ok(size) = u16::try_from(due.size) else { return };
        let probe = Probe {
            message: ProbeMessage::Request,
            size,
            route: id.0,
            your_route: route.remote_route,
            sequence: due.sequence,
        };
        context.outputs.push_back(EngineOutput::Probe { peer: self.id, route: id, probe });
    }

    /// Takes in an authentic probe: a request is answered on the route it came on, an answer
    /// proves its size.
    pub(crate) fn on_probe(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        probe: &Probe,
    ) -> Result<(), DropReason> {
        let Some(route) = self.routes.get(&id) else { return Err(DropReason::Misrouted) };
        // An authentic packet cannot speak for another route (W-12).
        if probe.your_route != 0 && probe.your_route != id.0 {
            return Err(DropReason::Misrouted);
        }
        if self.session.is_none() {
            return Err(DropReason::NoSession);
        }
        match probe.message {
            ProbeMessage::Request if route.has_fault() => {}
            ProbeMessage::Request => {
                let message = ProbeMessage::Answer;
                let answer =
                    Probe { message, route: id.0, your_route: route.remote_route, ..*probe };
                context.outputs.push_back(EngineOutput::Probe {
                    peer: self.id,
                    route: id,
                    probe: answer,
                });
            }
            ProbeMessage::Answer => {
                let due = MtuProbe { size: probe.size.into(), sequence: probe.sequence };
                self.update_path_mtu(context, now, id, |mtu, inputs| {
                    mtu.on_probe_answered(now, inputs, due)
                });
                self.probe_route(context, now, id);
            }
        }
        Ok(())
    }

    /// The kernel refused a probe as too large.
    pub(crate) fn on_probe_refused(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        probe: &Probe,
    ) {
        let due = MtuProbe { size: probe.size.into(), sequence: probe.sequence };
        self.update_path_mtu(context, now, id, |mtu, inputs| {
            mtu.on_probe_refused(now, inputs, due)
        });
        self.probe_route(context, now, id);
    }

    /// The largest frame the interface of a route takes, and what its carrier adds.
    pub(crate) fn set_datagram_limit(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        (datagram, added): (usize, usize),
    ) {
        self.update_path_mtu(context, now, id, |mtu, _| mtu.set_limit(now, datagram, added));
    }

    /// Data was refused as too large: a probe finds out with the next heartbeat.
    pub(crate) fn on_data_too_big(&mut self, now: Time, id: RouteId) {
        if let Some(route) = self.routes.get_mut(&id) {
            route.mtu.suspect_black_hole(now);
        }
    }

    /// Probes anew, with the next heartbeat.
    pub(crate) fn recheck_path_mtu(&mut self, now: Time, id: RouteId) {
        if let Some(route) = self.routes.get_mut(&id) {
            route.mtu.recheck_if_complete(now);
        }
    }

    /// Does something to what is known of a route's path MTU, and tells of a change.
    fn update_path_mtu(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        act: impl FnOnce(&mut PathMtu, &MtuInputs),
    ) {
        let carries = self.active == Some(id);
        let Some(route) = self.routes.get_mut(&id) else { return };
        let inputs = mtu_inputs(route, carries, context);
        let before = (route.mtu.datagram_size(), route.mtu.packet_size());
        act(&mut route.mtu, &inputs);
        let after = (route.mtu.datagram_size(), route.mtu.packet_size());
        if let Some(datagram) = after.0.filter(|_| before.0 != after.0) {
            context.outputs.push_back(EngineOutput::PathMtu { route: id, datagram });
        }
        if let ((_, Some(from)), (_, Some(to))) = (before, after)
            && from != to
        {
            let peer = self.id;
            context.push_event(now, EventKind::PathMtuChanged { route: id, peer, from, to });
        }
    }
}

fn mtu_inputs(route: &Route, carries: bool, context: &EngineContext) -> MtuInputs {
    MtuInputs {
        delay: route.delay(),
        rtt: route.request_stats.rtt(),
        carries_data: carries,
        raise_timer: context.config.mtu_raise,
    }
}

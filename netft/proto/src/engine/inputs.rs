//! Dispatch of inputs to the peer they concern.

use crate::{
    engine::{
        context::EngineContext,
        peer::Peer,
        peer_changes::{
            add_fault, add_route, change_route, clear_fault, remove_route, replace_spec,
            session_down, session_up, set_learned_remote,
        },
        probes::{on_probe, on_probe_refused, set_datagram_limit},
        route_engine::Engine,
        types::EngineInput,
    },
    ids::{PeerId, RouteId},
    route::{event::EventKind, peer_route::Route},
    time::Time,
    wire::{DropReason, heartbeat::Heartbeat, probe::Probe},
};

impl Engine {
    pub(crate) fn apply_input(&mut self, now: Time, input: EngineInput) -> Result<(), DropReason> {
        match input {
            EngineInput::AddPeer(id) => {
                self.peers.entry(id).or_insert_with(|| Peer::new(id, now));
                self.publish_table(id);
            }
            EngineInput::RemovePeer(id) => self.remove_peer(now, id),
            EngineInput::AddRoute { id, spec } => {
                if !self.route_owners.contains_key(&id) && self.peers.contains_key(&spec.peer) {
                    self.route_owners.insert(id, spec.peer);
                    self.update_peer(now, spec.peer, |peer, context| {
                        add_route(peer, context, now, id, spec)
                    });
                }
            }
            EngineInput::RemoveRoute(id) => {
                self.update_peer_of_route(now, id, |peer, context| {
                    remove_route(peer, context, now, id)
                });
                self.route_owners.remove(&id);
            }
            EngineInput::ChangeRoute { id, change } => {
                self.update_peer_of_route(now, id, |peer, _| change_route(peer, now, id, change));
            }
            EngineInput::Configure { hold, history, mtu_raise } => {
                self.context.config.mtu_raise = mtu_raise;
                self.context.config.hold = hold;
                self.context.config.history = history;
                let routes = self.peers.values_mut().flat_map(|peer| peer.routes.values_mut());
                routes.for_each(|route| route.history.resize(history));
            }
            EngineInput::ReplaceSpec { id, spec } => {
                self.update_peer_of_route(now, id, |peer, _| replace_spec(peer, now, id, spec));
            }
            EngineInput::SessionUp { peer, boot_id } => {
                self.update_peer(now, peer, |peer, _| session_up(peer, now, boot_id));
            }
            EngineInput::SessionDown(peer) => {
                self.update_peer(now, peer, |peer, context| session_down(peer, context, now));
            }
            EngineInput::Heartbeat { peer, route, heartbeat } => {
                self.on_heartbeat(now, now, (peer, route), &heartbeat, false)?;
            }
            EngineInput::DeferredHeartbeat { peer, route, heartbeat, arrived_at: at, answered } => {
                self.on_heartbeat(now, at.min(now), (peer, route), &heartbeat, answered)?;
            }
            EngineInput::Suspect(route) => {
                self.update_peer_of_route(now, route, |peer, context| {
                    peer.mark_suspect(context, now, route)
                });
            }
            EngineInput::Resent { peer, from, to, frames, waited } => {
                self.update_peer(now, peer, |peer, context| {
                    let ends = (peer.id, from, to);
                    peer.costs.on_frames_resent(context, now, ends, frames, waited);
                });
            }
            EngineInput::LossCounters { peer, counters: tally } => {
                self.update_peer(now, peer, |peer, _| peer.costs.set_loss_counters(tally));
            }
            EngineInput::UnreadData(route) => {
                let Some(peer) = self.route_owners.get(&route).copied() else { return Ok(()) };
                let found = self.peers.get_mut(&peer).and_then(|peer| peer.routes.get_mut(&route));
                if let Some(found) = found {
                    found.liveness.extend_for_unread(now, found.spec.timing);
                }
                self.schedule_peer_wake(peer);
            }
            EngineInput::Fault { route, reason } => {
                self.update_peer_of_route(now, route, |peer, _| {
                    add_fault(peer, now, route, reason)
                });
            }
            EngineInput::FaultCleared { route, reason } => {
                self.update_peer_of_route(now, route, |peer, _| {
                    clear_fault(peer, now, route, reason)
                });
            }
            EngineInput::DatagramLimit { route, datagram, transport_overhead: added } => {
                self.update_route(now, route, |route, active, context| {
                    set_datagram_limit(route, active, context, now, (datagram, added));
                });
            }
            EngineInput::DataTooBig(route) => {
                self.update_route(now, route, |route, _, _| route.mtu.suspect_black_hole(now));
            }
            EngineInput::RecheckPathMtu(route) => {
                self.update_route(now, route, |route, _, _| route.mtu.recheck_if_complete(now));
            }
            EngineInput::Probe { peer, route, probe } => {
                self.on_probe(now, (peer, route), &probe)?;
            }
            EngineInput::RemoteLearned { route, remote } => {
                self.update_peer_of_route(now, route, |peer, context| {
                    set_learned_remote(peer, context, now, route, remote);
                });
            }
            EngineInput::ProbeRefused { route, probe } => {
                self.update_route(now, route, |route, active, context| {
                    on_probe_refused(route, active, context, now, &probe);
                });
            }
        }
        Ok(())
    }

    /// As [`update_peer_of_route`](Self::update_peer_of_route), for the route alone and the number
    /// of the active one.
    fn update_route(
        &mut self,
        now: Time,
        id: RouteId,
        act: impl FnOnce(&mut Route, Option<RouteId>, &mut EngineContext),
    ) {
        self.update_peer_of_route(now, id, |peer, context| {
            let active = peer.active;
            if let Some(route) = peer.routes.get_mut(&id) {
                act(route, active, context);
            }
        });
    }

    fn on_probe(
        &mut self,
        now: Time,
        (peer, id): (PeerId, RouteId),
        probe: &Probe,
    ) -> Result<(), DropReason> {
        let Some(peer) = self.peers.get_mut(&peer) else { return Err(DropReason::Misrouted) };
        let (active, has_session) = (peer.active, peer.session.is_up());
        let Some(route) = peer.routes.get_mut(&id) else { return Err(DropReason::Misrouted) };
        on_probe(route, (active, has_session), &mut self.context, now, probe)
    }

    /// Applies a heartbeat that arrived at `at`; `answered` by a reply template or not.
    fn on_heartbeat(
        &mut self,
        now: Time,
        at: Time,
        (peer, route): (PeerId, RouteId),
        heartbeat: &Heartbeat,
        answered: bool,
    ) -> Result<(), DropReason> {
        let Some(found) = self.peers.get_mut(&peer) else { return Err(DropReason::Misrouted) };
        found.on_heartbeat(&mut self.context, (now, at), route, heartbeat, answered)?;
        if found.reevaluation_due.is_some() {
            self.schedule_peer_wake(peer);
        } else {
            self.on_peer_changed(peer);
        }
        Ok(())
    }

    fn remove_peer(&mut self, now: Time, id: PeerId) {
        let Some(mut peer) = self.peers.remove(&id) else { return };
        let routes: Vec<_> = peer.routes.keys().copied().collect();
        for route in routes {
            remove_route(&mut peer, &mut self.context, now, route);
            self.route_owners.remove(&route);
        }
        peer.reevaluate(&mut self.context, now);
        if peer.session.is_up() {
            self.context.push_event(now, EventKind::SessionEnded { peer: id });
        }
        self.on_peer_changed(id);
    }
}

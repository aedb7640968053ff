//! One input at a time: to the peer it concerns.

use crate::{
    engine::{Engine, EngineInput, peer::Peer},
    ids::{PeerId, RouteId},
    route::event::EventKind,
    time::Time,
    wire::{DropReason, heartbeat::Heartbeat},
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
                        peer.add_route(context, now, id, spec)
                    });
                }
            }
            EngineInput::RemoveRoute(id) => {
                self.update_peer_of_route(now, id, |peer, context| {
                    peer.remove_route(context, now, id)
                });
                self.route_owners.remove(&id);
            }
            EngineInput::ChangeRoute { id, change } => {
                self.update_peer_of_route(now, id, |peer, _| peer.change_route(now, id, change));
            }
            EngineInput::Configure { hold, history, mtu_raise } => {
                self.context.config.mtu_raise = mtu_raise;
                self.context.config.hold = hold;
                self.context.config.history = history;
                let routes = self.peers.values_mut().flat_map(|peer| peer.routes.values_mut());
                routes.for_each(|route| route.history.resize(history));
            }
            EngineInput::ReplaceSpec { id, spec } => {
                self.update_peer_of_route(now, id, |peer, _| peer.replace_spec(now, id, spec));
            }
            EngineInput::SessionUp { peer, boot_id } => {
                self.update_peer(now, peer, |peer, _| peer.session_up(now, boot_id));
            }
            EngineInput::SessionDown(peer) => {
                self.update_peer(now, peer, |peer, context| peer.session_down(context, now));
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
                    peer.on_frames_resent(context, now, (from, to), frames, waited);
                });
            }
            EngineInput::LossCounters { peer, counters: tally } => {
                self.update_peer(now, peer, |peer, _| peer.set_loss_counters(tally))
            }
            EngineInput::UnreadData(route) => {
                let Some(peer) = self.route_owners.get(&route).copied() else { return Ok(()) };
                let found = self.peers.get_mut(&peer).and_then(|peer| peer.routes.get_mut(&route));
                if let Some(found) = found {
                    found.extend_for_unread(now);
                }
                self.schedule_peer_wake(peer);
            }
            EngineInput::Fault { route, reason } => {
                self.update_peer_of_route(now, route, |peer, _| peer.add_fault(now, route, reason));
            }
            EngineInput::FaultCleared { route, reason } => {
                self.update_peer_of_route(now, route, |peer, _| {
                    peer.clear_fault(now, route, reason)
                });
            }
            EngineInput::DatagramLimit { route, datagram, transport_overhead: added } => {
                self.update_peer_of_route(now, route, |peer, context| {
                    peer.set_datagram_limit(context, now, route, (datagram, added));
                });
            }
            EngineInput::DataTooBig(route) => {
                self.update_peer_of_route(now, route, |peer, _| peer.on_data_too_big(now, route));
            }
            EngineInput::RecheckPathMtu(route) => {
                self.update_peer_of_route(now, route, |peer, _| peer.recheck_path_mtu(now, route));
            }
            EngineInput::Probe { peer, route, probe } => {
                let Some(found) = self.peers.get_mut(&peer) else {
                    return Err(DropReason::Misrouted);
                };
                found.on_probe(&mut self.context, now, route, &probe)?;
            }
            EngineInput::RemoteLearned { route, remote } => {
                self.update_peer_of_route(now, route, |peer, context| {
                    peer.set_learned_remote(context, now, route, remote);
                });
            }
            EngineInput::ProbeRefused { route, probe } => {
                self.update_peer_of_route(now, route, |peer, context| {
                    peer.on_probe_refused(context, now, route, &probe);
                });
            }
        }
        Ok(())
    }

    /// A heartbeat that arrived `at`, and whether it was answered.
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
            peer.remove_route(&mut self.context, now, route);
            self.route_owners.remove(&route);
        }
        peer.reevaluate(&mut self.context, now);
        if peer.session.is_some() {
            self.context.push_event(now, EventKind::SessionEnded { peer: id });
        }
        self.on_peer_changed(id);
    }
}

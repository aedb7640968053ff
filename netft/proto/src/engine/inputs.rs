//! One input at a time: to the peer it concerns.

use crate::{
    engine::{Engine, Input, peer::Peer},
    ids::{PeerId, RouteId},
    route::event::EventKind,
    time::Time,
    wire::{DropReason, heartbeat::Heartbeat},
};

impl Engine {
    pub(crate) fn apply(&mut self, now: Time, input: Input) -> Result<(), DropReason> {
        match input {
            Input::AddPeer(id) => {
                self.peers.entry(id).or_insert_with(|| Peer::new(id, now));
                self.publish(id);
            }
            Input::RemovePeer(id) => self.remove_peer(now, id),
            Input::AddRoute { id, spec } => {
                if !self.owners.contains_key(&id) && self.peers.contains_key(&spec.peer) {
                    self.owners.insert(id, spec.peer);
                    self.at(now, spec.peer, |peer, context| peer.add(context, now, id, spec));
                }
            }
            Input::RemoveRoute(id) => {
                self.at_route(now, id, |peer, context| peer.remove(context, now, id));
                self.owners.remove(&id);
            }
            Input::ChangeRoute { id, change } => {
                self.at_route(now, id, |peer, _| peer.change(now, id, change));
            }
            Input::Configure { hold, history, mtu_raise } => {
                self.context.config.mtu_raise = mtu_raise;
                self.context.config.hold = hold;
                self.context.config.history = history;
                let routes = self.peers.values_mut().flat_map(|peer| peer.routes.values_mut());
                routes.for_each(|route| route.history.resize(history));
            }
            Input::Describe { id, spec } => {
                self.at_route(now, id, |peer, _| peer.describe(now, id, spec));
            }
            Input::SessionUp { peer, boot_id } => {
                self.at(now, peer, |peer, _| peer.session_up(now, boot_id));
            }
            Input::SessionDown(peer) => {
                self.at(now, peer, |peer, context| peer.session_down(context, now));
            }
            Input::Heartbeat { peer, route, heartbeat } => {
                self.hear(now, now, (peer, route), &heartbeat, false)?;
            }
            Input::Late { peer, route, heartbeat, at, answered } => {
                self.hear(now, at.min(now), (peer, route), &heartbeat, answered)?;
            }
            Input::Suspect(route) => {
                self.at_route(now, route, |peer, context| peer.suspect(context, now, route));
            }
            Input::Resent { peer, from, to, frames, waited } => {
                self.at(now, peer, |peer, context| {
                    peer.resent(context, now, (from, to), frames, waited);
                });
            }
            Input::Tally { peer, tally } => self.at(now, peer, |peer, _| peer.count(tally)),
            Input::Unread(route) => {
                let Some(peer) = self.owners.get(&route).copied() else { return Ok(()) };
                let found = self.peers.get_mut(&peer).and_then(|peer| peer.routes.get_mut(&route));
                if let Some(found) = found {
                    found.unread(now);
                }
                self.schedule(peer);
            }
            Input::Fault { route, reason } => {
                self.at_route(now, route, |peer, _| peer.fault(now, route, reason));
            }
            Input::FaultCleared { route, reason } => {
                self.at_route(now, route, |peer, _| peer.clear(now, route, reason));
            }
            Input::Limit { route, datagram, added } => {
                self.at_route(now, route, |peer, context| {
                    peer.set_limit(context, now, route, (datagram, added));
                });
            }
            Input::TooBig(route) => {
                self.at_route(now, route, |peer, _| peer.too_big(now, route));
            }
            Input::Recheck(route) => {
                self.at_route(now, route, |peer, _| peer.recheck(now, route));
            }
            Input::Probe { peer, route, probe } => {
                let Some(found) = self.peers.get_mut(&peer) else {
                    return Err(DropReason::Misrouted);
                };
                found.hear_probe(&mut self.context, now, route, &probe)?;
            }
            Input::Readdress { route, remote } => {
                self.at_route(now, route, |peer, context| {
                    peer.readdress(context, now, route, remote);
                });
            }
            Input::ProbeRefused { route, probe } => {
                self.at_route(now, route, |peer, context| {
                    peer.probe_refused(context, now, route, &probe);
                });
            }
        }
        Ok(())
    }

    /// A heartbeat that arrived `at`, and whether it was answered.
    fn hear(
        &mut self,
        now: Time,
        at: Time,
        (peer, route): (PeerId, RouteId),
        heartbeat: &Heartbeat,
        answered: bool,
    ) -> Result<(), DropReason> {
        let Some(found) = self.peers.get_mut(&peer) else { return Err(DropReason::Misrouted) };
        found.hear(&mut self.context, (now, at), route, heartbeat, answered)?;
        if found.unsettled.is_some() {
            self.schedule(peer);
        } else {
            self.follow(peer);
        }
        Ok(())
    }

    fn remove_peer(&mut self, now: Time, id: PeerId) {
        let Some(mut peer) = self.peers.remove(&id) else { return };
        let routes: Vec<_> = peer.routes.keys().copied().collect();
        for route in routes {
            peer.remove(&mut self.context, now, route);
            self.owners.remove(&route);
        }
        peer.settle(&mut self.context, now);
        if peer.session.is_some() {
            self.context.event(now, EventKind::SessionEnded { peer: id });
        }
        self.follow(id);
    }
}

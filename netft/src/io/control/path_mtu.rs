//! Path MTU probes between the engine and the sockets, and what their outcome changes.

use std::{collections::BTreeMap, os::fd::AsFd};

use netft_proto::{
    engine::Input,
    ids::{PeerId, RouteId},
    wire::{
        header::Kind,
        probe::{Probe, ProbeMessage},
    },
};

use crate::io::{
    control::{
        driver::{Driver, PeerSessions},
        sockets::max_datagram,
    },
    sys::{
        udp,
        udp::{MAX_SEND, SendFault},
    },
};

impl Driver {
    /// Tells the engine what the interface of every route takes, if that is news.
    pub(super) fn tell_limits(&mut self) {
        let mut inputs = Vec::new();
        let relayed: BTreeMap<_, _> =
            self.ways.ports.keys().map(|id| (*id, self.relay_room(*id))).collect();
        for (id, known) in &mut self.routes {
            let Some(interface) = self.world.interface(known.plan.ifindex) else { continue };
            let remote = known.plan.spec.real_remote.ip();
            let most = relayed.get(id).copied().flatten().unwrap_or(MAX_SEND);
            let datagram = max_datagram(interface.mtu, remote).min(most);
            let (datagram, added) = self.connections.limit(*id, datagram);
            if known.limit.replace((datagram, added)) != Some((datagram, added)) {
                inputs.push(Input::Limit { route: *id, datagram, added });
            }
        }
        inputs.into_iter().for_each(|input| self.input(input));
    }

    /// Has every route probed anew.
    pub(super) fn recheck_paths(&mut self) {
        let routes: Vec<_> = self.routes.keys().copied().collect();
        routes.into_iter().for_each(|route| self.input(Input::Recheck(route)));
    }

    /// The engine found what the route carries.
    pub(super) fn set_path_mtu(&mut self, route: RouteId, datagram: usize) {
        if let Some(known) = self.routes.get_mut(&route) {
            known.datagram = Some(datagram);
            self.dirty = true;
        }
    }

    /// Sends a probe, or the answer to one.
    pub(super) fn send_probe(&mut self, peer: PeerId, route: RouteId, probe: Probe) {
        let Some(session) = self.peers.get(&peer).and_then(PeerSessions::preferred) else { return };
        let Some(known) = self.routes.get(&route) else { return };
        let Some(socket) = self.sockets.at(known.plan.spec.real_local).first() else { return };
        let mut frame = Vec::with_capacity(usize::from(probe.size));
        let write = |frame: &mut Vec<u8>| probe.encode(frame);
        if let Err(reason) = session.message(Kind::Probe, 0, &mut frame, write) {
            return self.count(reason);
        }
        let (remote, socket) = (known.plan.spec.real_remote, socket.clone());
        if let Some(outcome) = self.send_carried(route, &frame) {
            let kernel = matches!(outcome.fault, Some((SendFault::TooBig, _)));
            if (kernel || outcome.too_big > 0) && probe.message == ProbeMessage::Request {
                self.input(Input::ProbeRefused { route, probe });
            }
            return;
        }
        match udp::send_one(socket.fd.as_fd(), &remote, &frame, Some(udp::TOS_CONTROL)) {
            Ok(()) => self.count_sent(),
            // Refused that often, it is the kernel's own word and no forged message's.
            Err(error) if udp::classify(&error, false) == SendFault::TooBig => {
                if probe.message == ProbeMessage::Request {
                    self.input(Input::ProbeRefused { route, probe });
                }
            }
            // Heartbeats tell what else is wrong with the route.
            Err(_) => {}
        }
    }
}

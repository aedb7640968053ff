//! Path MTU probes between the engine and the sockets, and what their outcome changes.

use std::{collections::BTreeMap, os::fd::AsFd};

use netft_proto::{
    engine::EngineInput,
    ids::{PeerId, RouteId},
    wire::{
        header::FrameKind,
        probe::{Probe, ProbeMessage},
    },
};

use crate::io::{
    control::{
        driver::{Driver, PeerEntry},
        sockets::max_datagram,
    },
    sys::{
        udp,
        udp::{MAX_SEND, SendFault},
    },
};

impl Driver {
    /// Tells the engine what the interface of every route takes, if that is news.
    pub(super) fn report_frame_limits(&mut self) {
        let mut inputs = Vec::new();
        let relayed: BTreeMap<_, _> = self
            .relay_routes
            .endpoints
            .keys()
            .map(|id| (*id, self.relay_max_datagram(*id)))
            .collect();
        for (id, known) in &mut self.routes {
            let Some(interface) = self.host_state.interface(known.plan.ifindex) else { continue };
            let remote = known.plan.spec.real_remote.ip();
            let most = relayed.get(id).copied().flatten().unwrap_or(MAX_SEND);
            let datagram = max_datagram(interface.mtu, remote).min(most);
            let (datagram, added) = self.connections.frame_limit(*id, datagram);
            if known.reported_limit.replace((datagram, added)) != Some((datagram, added)) {
                inputs.push(EngineInput::DatagramLimit {
                    route: *id,
                    datagram,
                    transport_overhead: added,
                });
            }
        }
        inputs.into_iter().for_each(|input| self.feed_engine(input));
    }

    /// Has every route probed anew.
    pub(super) fn reprobe_path_mtu(&mut self) {
        let routes: Vec<_> = self.routes.keys().copied().collect();
        routes.into_iter().for_each(|route| self.feed_engine(EngineInput::RecheckPathMtu(route)));
    }

    /// The engine found what the route carries.
    pub(super) fn set_path_mtu(&mut self, route: RouteId, datagram: usize) {
        if let Some(known) = self.routes.get_mut(&route) {
            known.path_mtu = Some(datagram);
            self.dirty = true;
        }
    }

    /// Sends a probe, or the answer to one.
    pub(super) fn send_probe(&mut self, peer: PeerId, route: RouteId, probe: Probe) {
        let Some(session) = self.peers.get(&peer).and_then(PeerEntry::preferred_session) else {
            return;
        };
        let Some(known) = self.routes.get(&route) else { return };
        let Some(socket) = self.sockets.sockets_at(known.plan.spec.real_local).first() else {
            return;
        };
        let mut frame = Vec::with_capacity(usize::from(probe.size));
        let write = |frame: &mut Vec<u8>| probe.encode(frame);
        if let Err(reason) = session.seal_message(FrameKind::Probe, 0, &mut frame, write) {
            return self.count_drop(reason);
        }
        let (remote, socket) = (known.plan.spec.real_remote, socket.clone());
        if let Some(outcome) = self.send_over_quic(route, &frame) {
            let kernel = matches!(outcome.fault, Some((SendFault::TooBig, _)));
            if (kernel || outcome.too_big > 0) && probe.message == ProbeMessage::Request {
                self.feed_engine(EngineInput::ProbeRefused { route, probe });
            }
            return;
        }
        match udp::send_control(socket.fd.as_fd(), &remote, &frame, Some(udp::TOS_CONTROL)) {
            Ok(()) => self.count_tx_frame(),
            // Refused that often, it is the kernel's own word and no forged message's.
            Err(error) if udp::classify_send_error(&error, false) == SendFault::TooBig => {
                if probe.message == ProbeMessage::Request {
                    self.feed_engine(EngineInput::ProbeRefused { route, probe });
                }
            }
            // Heartbeats tell what else is wrong with the route.
            Err(_) => {}
        }
    }
}

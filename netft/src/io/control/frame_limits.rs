//! The largest datagram of each route: by its interface and transport, and by its path.

use std::collections::BTreeMap;

use netft_proto::{engine::EngineInput, ids::RouteId};

use crate::io::{
    control::{
        component::View, quic_connections::QuicConnections, relay::RelayRoutes,
        sockets::max_datagram,
    },
    fib::Fib,
    sys::udp::MAX_SEND,
};

/// The limits that the engine and the forwarding table go by.
#[derive(Default)]
pub(super) struct FrameLimits {
    /// The largest frame that a route's interface takes, and the bytes its transport adds, as last
    /// reported to the engine.
    reported: BTreeMap<RouteId, (usize, usize)>,
    /// The largest datagram that a route's path takes, as the engine found.
    path_mtu: BTreeMap<RouteId, usize>,
}

impl FrameLimits {
    /// The limits of interfaces and transports that changed, for the engine.
    pub(super) fn take_changed(
        &mut self,
        view: &View<'_>,
        connections: &QuicConnections,
        relays: &RelayRoutes,
        fib: &Fib,
    ) -> Vec<EngineInput> {
        self.reported.retain(|id, _| view.routes.contains(*id));
        self.path_mtu.retain(|id, _| view.routes.contains(*id));
        let mut changed = Vec::new();
        for (id, entry) in view.routes.iter() {
            let plan = &entry.plan;
            let Some(interface) = view.planner.host_state().interface(plan.ifindex) else {
                continue;
            };
            let most = relays.max_datagram(id, fib).unwrap_or(MAX_SEND);
            let datagram = max_datagram(interface.mtu, plan.spec.real_remote.ip()).min(most);
            let limit = connections.frame_limit(id, datagram);
            if self.reported.insert(id, limit) != Some(limit) {
                let (datagram, transport_overhead) = limit;
                tracing::debug!(route = %id, datagram, transport_overhead, "frame limit changed");
                changed.push(EngineInput::DatagramLimit {
                    route: id,
                    datagram,
                    transport_overhead,
                });
            }
        }
        changed
    }

    /// The engine found the path MTU of a route.
    pub(super) fn set_path_mtu(&mut self, route: RouteId, datagram: usize) {
        tracing::debug!(%route, datagram, "path MTU found");
        self.path_mtu.insert(route, datagram);
    }

    /// The largest datagram to send on a route whose interface takes `datagram` bytes: the
    /// interface may have become smaller since the engine was told.
    pub(super) fn max_datagram(&self, route: RouteId, datagram: usize, relayed: bool) -> usize {
        let path_mtu = self.path_mtu.get(&route).copied();
        // The loopback interface under a relayed route says nothing of the relay's path.
        let relay = self.reported.get(&route).filter(|_| relayed).map(|(datagram, _)| *datagram);
        [path_mtu, relay].into_iter().flatten().fold(datagram, usize::min)
    }
}

#[cfg(test)]
mod tests {
    use netft_proto::ids::PeerId;

    use super::*;
    use crate::io::control::test_node::TestNode;

    #[test]
    fn the_engine_is_told_of_a_limit_when_it_changes() {
        let mut node = TestNode::new(1);
        let route = node.add_route(PeerId(0));
        let mut limits = FrameLimits::default();
        let (connections, relays) = (QuicConnections::default(), RelayRoutes::default());
        let mut changed = |node: &TestNode| {
            limits.take_changed(&node.view(), &connections, &relays, &Fib::default())
        };
        let first = changed(&node);
        assert!(
            matches!(
                first[..],
                [EngineInput::DatagramLimit { datagram: 1472, transport_overhead: 0, .. }]
            ),
            "{first:?}"
        );
        assert!(changed(&node).is_empty());
        node.routes.remove(route);
        assert!(changed(&node).is_empty());
    }

    #[test]
    fn the_smallest_of_interface_path_and_relay_counts() {
        let mut limits = FrameLimits::default();
        let route = RouteId(1);
        assert_eq!(limits.max_datagram(route, 1472, false), 1472);
        limits.set_path_mtu(route, 1400);
        assert_eq!(limits.max_datagram(route, 1472, false), 1400);
        assert_eq!(limits.max_datagram(route, 1300, false), 1300);
        limits.reported.insert(route, (1200, 0));
        assert_eq!(limits.max_datagram(route, 1472, false), 1400);
        assert_eq!(limits.max_datagram(route, 1472, true), 1200);
    }
}

//! Scenarios: nodes, networks, timing, and faults at their moments.

use std::{net::SocketAddr, time::Duration};

use crate::{
    engine::InjectedBug,
    ids::{NodeKey, PeerId, RouteId, virtual_addrs::VirtualAddrs},
    route::{Attributes, Delay, Priority, RouteSpec, Threshold, Timing, Transport},
    time::Time,
};

/// Most nodes of a scenario; [`Scenario::nodes`] clamps to it.
pub const MAX_NODES: usize = 256;
/// Most networks of a scenario; [`Scenario::networks`] clamps to it.
pub const MAX_NETWORKS: usize = 8;

/// A fault, a repair or an operator action. Networks and nodes count from 0; a fault of one that
/// does not exist does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAction {
    /// Nothing passes on a network.
    Cut {
        /// The network.
        network: usize,
    },
    /// Nothing passes on a network from one node to another; the other direction works.
    CutOneWay {
        /// The network.
        network: usize,
        /// The sending node.
        from: usize,
        /// The receiving node.
        to: usize,
    },
    /// A network loses packets from one node to another.
    Loss {
        /// The network.
        network: usize,
        /// The sending node.
        from: usize,
        /// The receiving node.
        to: usize,
        /// Packets lost, per thousand.
        permille: u16,
    },
    /// A network harms full-size frames from one node to another: data, not heartbeats.
    DataFault {
        /// The network.
        network: usize,
        /// The sending node.
        from: usize,
        /// The receiving node.
        to: usize,
        /// The harm.
        fault: DataFault,
    },
    /// Every packet on a network takes longer.
    ExtraDelay {
        /// The network.
        network: usize,
        /// Added delay in each direction.
        by: Duration,
    },
    /// Cuts, losses, delays and carriers of a network are repaired.
    Heal {
        /// The network.
        network: usize,
    },
    /// A node's interface on a network loses its carrier; the node's kernel reports it.
    CarrierLost {
        /// The network.
        network: usize,
        /// The node.
        node: usize,
    },
    /// The carrier is back; the node's kernel reports it.
    CarrierRestored {
        /// The network.
        network: usize,
        /// The node.
        node: usize,
    },
    /// An operator takes a node's routes over a network out of use, or puts them back.
    Admin {
        /// The network.
        network: usize,
        /// The node.
        node: usize,
        /// Out of use.
        down: bool,
    },
    /// An operator drains a node's routes over a network, or ends that.
    Drain {
        /// The network.
        network: usize,
        /// The node.
        node: usize,
        /// Drained.
        on: bool,
    },
    /// An operator changes the priority of every route over a network, on every node.
    Priority {
        /// The network.
        network: usize,
        /// The new priority.
        priority: u32,
    },
    /// A node is not scheduled for a while; packets wait in its socket buffers.
    Pause {
        /// The node.
        node: usize,
        /// Length of the pause.
        length: Duration,
    },
    /// A node is not scheduled for a while; packets that arrive are lost (a paused virtual
    /// machine).
    PauseDroppingPackets {
        /// The node.
        node: usize,
        /// Length of the pause.
        length: Duration,
    },
    /// A node's worker is interrupted between the sockets and the engine, whose thread runs on.
    InterruptWorker {
        /// The node.
        node: usize,
        /// Length of the interruption.
        length: Duration,
    },
    /// A node dies and loses its state.
    Crash {
        /// The node.
        node: usize,
    },
    /// A dead node starts again, with a new boot id.
    Restart {
        /// The node.
        node: usize,
    },
    /// Everything is repaired, every node runs.
    HealAll,
}

/// Harm to full-size frames of one direction of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFault {
    /// Each is lost with this probability, per thousand (a dirty cable).
    Loss(u16),
    /// Each arrives corrupted with this probability, per thousand: it fails authentication.
    Corruption(u16),
    /// Bursts of ten are lost; this share in all, per thousand.
    Bursts(u16),
    /// Those above this many in 10 ms are lost (a policer).
    Policer(u16),
    /// Each takes this much longer.
    Delay(Duration),
    /// Those that leave in one segmented send are lost.
    SegmentedSends,
    /// Those of more bytes are lost, path MTU probes too (a black hole of large packets). Needs
    /// [`Scenario::datagram_limit`].
    MaxSize(u16),
}

impl FaultAction {
    /// Returns true when the network and the nodes it names exist.
    pub(crate) fn exists_in(&self, nodes: usize, networks: usize) -> bool {
        match *self {
            Self::Cut { network }
            | Self::ExtraDelay { network, .. }
            | Self::Heal { network }
            | Self::Priority { network, .. } => network < networks,
            Self::CutOneWay { network, from, to }
            | Self::Loss { network, from, to, .. }
            | Self::DataFault { network, from, to, .. } => {
                network < networks && from < nodes && to < nodes
            }
            Self::CarrierLost { network, node }
            | Self::CarrierRestored { network, node }
            | Self::Admin { network, node, .. }
            | Self::Drain { network, node, .. } => network < networks && node < nodes,
            Self::Pause { node, .. }
            | Self::PauseDroppingPackets { node, .. }
            | Self::InterruptWorker { node, .. }
            | Self::Crash { node }
            | Self::Restart { node } => node < nodes,
            Self::HealAll => true,
        }
    }

    /// Delay it adds to a network's model.
    pub(crate) fn extra_delay(&self) -> Duration {
        match *self {
            Self::ExtraDelay { by, .. } | Self::DataFault { fault: DataFault::Delay(by), .. } => by,
            Self::DataFault { .. }
            | Self::Cut { .. }
            | Self::CutOneWay { .. }
            | Self::Loss { .. }
            | Self::Heal { .. }
            | Self::CarrierLost { .. }
            | Self::CarrierRestored { .. }
            | Self::Admin { .. }
            | Self::Drain { .. }
            | Self::Priority { .. }
            | Self::Pause { .. }
            | Self::PauseDroppingPackets { .. }
            | Self::InterruptWorker { .. }
            | Self::Crash { .. }
            | Self::Restart { .. }
            | Self::HealAll => Duration::ZERO,
        }
    }
}

/// Behaviour of a network without faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkModel {
    /// One-way delay.
    pub delay: Duration,
    /// Maximum random addition to the delay.
    pub jitter: Duration,
    /// Packets that arrive twice, per thousand.
    pub duplicate_permille: u16,
    /// Packets held back by [`NetworkModel::reorder_by`], per thousand.
    pub reorder_permille: u16,
    /// Extra delay of such a packet.
    pub reorder_by: Duration,
}

impl NetworkModel {
    /// Longest one-way travel of a packet.
    pub(crate) fn max_travel(&self) -> Duration {
        self.delay + self.jitter + self.reorder_by
    }
}

/// One network of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkPlan {
    pub(crate) timing: Timing,
    pub(crate) priority: u32,
    pub(crate) model: NetworkModel,
}

/// A run to be made by [`run_scenario`](crate::sim::run_scenario): nodes, networks, faults, seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) networks: Vec<NetworkPlan>,
    pub(crate) hold: Duration,
    pub(crate) timer_slack: Duration,
    pub(crate) data_every: Duration,
    pub(crate) datagram_limit: Option<usize>,
    pub(crate) faults: Vec<(Time, FaultAction)>,
    pub(crate) length: Duration,
    pub(crate) then_converge: bool,
    pub(crate) defer_heartbeats: bool,
    pub(crate) check_invariants: bool,
    pub(crate) bug: Option<InjectedBug>,
    pub(crate) keep_text: bool,
}

impl Scenario {
    /// Two nodes and two networks of 30 ms × 5 for ten seconds, without faults.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 2,
            networks: (0..2).map(default_network).collect(),
            hold: Duration::from_secs(1),
            timer_slack: Duration::ZERO,
            data_every: Duration::from_millis(10),
            datagram_limit: None,
            faults: Vec::new(),
            length: Duration::from_secs(10),
            then_converge: false,
            defer_heartbeats: false,
            check_invariants: true,
            bug: None,
            keep_text: false,
        }
    }

    /// With this many nodes: 2–[`MAX_NODES`].
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes.clamp(2, MAX_NODES);
        self
    }

    /// With this many networks: 1–[`MAX_NETWORKS`]. Network n has priority 10 × (n + 1).
    #[must_use]
    pub fn networks(mut self, networks: usize) -> Self {
        self.networks = (0..networks.clamp(1, MAX_NETWORKS)).map(default_network).collect();
        self
    }

    /// With this timing on every network.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.networks.iter_mut().for_each(|network| network.timing = timing);
        self
    }

    /// With this timing on one network.
    #[must_use]
    pub fn timing_of(mut self, network: usize, timing: Timing) -> Self {
        self.change_network(network, |plan| plan.timing = timing);
        self
    }

    /// With this priority of the routes over one network.
    #[must_use]
    pub fn priority_of(mut self, network: usize, priority: u32) -> Self {
        self.change_network(network, |plan| plan.priority = priority);
        self
    }

    /// With this behaviour of one network.
    #[must_use]
    pub fn model_of(mut self, network: usize, model: NetworkModel) -> Self {
        self.change_network(network, |plan| plan.model = model);
        self
    }

    /// With this hold time before a failback (the engine doubles it per flap).
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// With timers that fire up to this late.
    #[must_use]
    pub fn timer_slack(mut self, slack: Duration) -> Self {
        self.timer_slack = slack;
        self
    }

    /// With a data packet from every node to every other this often; zero sends none.
    #[must_use]
    pub fn data_every(mut self, period: Duration) -> Self {
        self.data_every = period;
        self
    }

    /// With interfaces that take datagrams of so many bytes: the path MTU is probed, and frames
    /// have its size.
    #[must_use]
    pub fn datagram_limit(mut self, bytes: usize) -> Self {
        self.datagram_limit = Some(bytes);
        self
    }

    /// With a fault.
    #[must_use]
    pub fn with_fault(mut self, at: Time, fault: FaultAction) -> Self {
        self.faults.push((at, fault));
        self
    }

    /// For this long.
    #[must_use]
    pub fn run_for(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// With everything repaired at the end, after which every pair must return to its best route
    /// (rule 5). The run ends as soon as all have.
    #[must_use]
    pub fn then_converge(mut self) -> Self {
        self.then_converge = true;
        self
    }

    /// With heartbeats without news answered on the packet path and deferred until the engine
    /// wakes.
    #[must_use]
    pub fn defer_heartbeats(mut self, defer: bool) -> Self {
        self.defer_heartbeats = defer;
        self
    }

    /// Without invariants, whose cost per step grows with the number of routes: for meshes of
    /// dozens of nodes and more.
    #[must_use]
    pub fn without_invariants(mut self) -> Self {
        self.check_invariants = false;
        self
    }

    /// With a bug in every node, to show that the invariants find it.
    #[must_use]
    pub fn with_bug(mut self, bug: InjectedBug) -> Self {
        self.bug = Some(bug);
        self
    }

    /// With every step kept as text in [`SimReport::text`](crate::sim::SimReport::text).
    #[must_use]
    pub fn keep_text(mut self) -> Self {
        self.keep_text = true;
        self
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The faults, in the order they were added.
    pub fn faults(&self) -> &[(Time, FaultAction)] {
        &self.faults
    }

    /// The number of `node`'s route to `peer` over `network`. The two ends of a route have
    /// different numbers, as in a real cluster.
    pub fn route_id(&self, node: usize, peer: usize, network: usize) -> RouteId {
        let place = peer * self.networks.len() + network;
        RouteId((self.route_id_stride() * (node + 1) + place) as u32)
    }

    /// Numbers between the routes of two nodes.
    fn route_id_stride(&self) -> usize {
        (self.nodes * self.networks.len()).max(100)
    }

    /// The network of a node's route; `None` for a number no route has.
    pub fn network_of(&self, node: usize, route: RouteId) -> Option<usize> {
        self.peer_and_network(node, route).map(|(_, network)| network)
    }

    /// The peer and the network of a node's route; the inverse of [`Scenario::route_id`].
    pub(crate) fn peer_and_network(&self, node: usize, route: RouteId) -> Option<(usize, usize)> {
        let place = (route.0 as usize).checked_sub(self.route_id_stride() * (node + 1))?;
        let (peer, network) = (place / self.networks.len(), place % self.networks.len());
        (peer < self.nodes && peer != node).then_some((peer, network))
    }

    fn change_network(&mut self, network: usize, change: impl FnOnce(&mut NetworkPlan)) {
        if let Some(plan) = self.networks.get_mut(network) {
            change(plan);
        }
    }
}

/// Every ordered pair of nodes.
pub(crate) fn node_pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (0..nodes).map(move |b| (a, b))).filter(|(a, b)| a != b)
}

/// The peer id of a node, the same at every other node.
pub(crate) fn peer_id(node: usize) -> PeerId {
    PeerId(node as u16)
}

/// A timing of `delay` milliseconds × `threshold`, clamped to the allowed ranges.
pub(crate) fn clamped_timing(delay: u64, threshold: u64) -> Timing {
    Timing {
        delay: Delay::from_millis(delay.clamp(5, 60_000)).expect("clamped"),
        threshold: Threshold::new(threshold.clamp(2, 120)).expect("clamped"),
    }
}

/// A node's route to a peer over a network.
pub(crate) fn route_spec(
    (node, peer): (usize, usize),
    network: usize,
    timing: Timing,
    priority: u32,
) -> RouteSpec {
    let physical = |node: usize| {
        let [high, low] = (node as u16 + 1).to_be_bytes();
        SocketAddr::from(([10, network as u8, high, low], 3343))
    };
    let virtual_v4 =
        |node: usize| VirtualAddrs::derive_from_key(&NodeKey([node as u8; 32])).v4.into();
    RouteSpec {
        peer: peer_id(peer),
        real_local: physical(node),
        real_remote: physical(peer),
        virtual_local: virtual_v4(node),
        virtual_remote: virtual_v4(peer),
        timing,
        priority: Priority(priority),
        attributes: Attributes(Attributes::SAME_SUBNET),
        transport: Transport::Udp,
    }
}

fn default_network(number: usize) -> NetworkPlan {
    let model = NetworkModel { delay: Duration::from_micros(200), ..NetworkModel::default() };
    NetworkPlan { timing: clamped_timing(30, 5), priority: 10 * (number as u32 + 1), model }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_number_names_its_place() {
        for nodes in [2, 4, MAX_NODES] {
            check_route_numbers(&Scenario::new(0).nodes(nodes).networks(3));
        }
    }

    fn check_route_numbers(scenario: &Scenario) {
        for node in [0, 1, scenario.nodes - 1] {
            for (peer, network) in (0..scenario.nodes).flat_map(|p| (0..3).map(move |n| (p, n))) {
                let place = scenario.peer_and_network(node, scenario.route_id(node, peer, network));
                assert_eq!(place, (peer != node).then_some((peer, network)));
            }
            assert_eq!(scenario.peer_and_network(node, RouteId(1)), None);
        }
    }
}

//! Policies of a peer other than failover: which paths a packet takes.
//!
//! Built by the driver with every table, read by the workers for every packet to a peer that has
//! such a policy.

use std::sync::Arc;

use netft_proto::route::{PeerPolicies, Policy, balance::pick_route, policy::PacketFields};

use crate::io::path::Path;

/// The paths of one packet.
#[derive(Clone, Copy)]
pub struct Forwarding<'f> {
    /// The path it takes.
    pub path: &'f Path,
    /// The path a copy of it takes.
    pub duplicate: Option<&'f Path>,
}

impl Forwarding<'_> {
    /// Returns whether another packet takes the same paths.
    #[inline]
    pub fn is_same_path(&self, path: &Path, copy: Option<&Path>) -> bool {
        let route = |path: Option<&Path>| path.map(|path| path.route);
        self.path.route == path.route && route(self.duplicate) == route(copy)
    }
}

/// A path that may carry data, with its state in the engine.
#[derive(Clone)]
pub struct WeightedPath {
    /// The path.
    pub path: Arc<Path>,
    /// Its weight relative to the others, in any unit.
    pub weight: u32,
    /// Flows may be assigned to it; otherwise it takes copies only.
    pub in_balance_set: bool,
    /// Data on it stays unacknowledged.
    pub suspect: bool,
}

/// The policies of a peer, and the paths they select from.
pub struct TrafficSteering {
    policies: PeerPolicies,
    /// The path of copies of the active path's packets.
    duplicate_path: Option<Arc<Path>>,
    /// The paths that share the flows, the active one among them.
    balance_set: Vec<BalanceMember>,
}

struct BalanceMember {
    path: Arc<Path>,
    weight: u32,
    /// The path of copies while this one is suspect.
    duplicate: Option<Arc<Path>>,
}

impl TrafficSteering {
    /// The steering of `policies` over the paths, the active one first, then the best others.
    pub fn new(policies: PeerPolicies, weighted_paths: &[WeightedPath]) -> Self {
        let copy = |of: &WeightedPath| {
            let others = weighted_paths.iter().filter(|other| other.path.route != of.path.route);
            let best = others.min_by_key(|other| (other.suspect, !other.in_balance_set));
            best.map(|other| other.path.clone())
        };
        let active = weighted_paths.first().map(|active| active.path.route);
        let members = weighted_paths
            .iter()
            .filter(|member| member.in_balance_set || Some(member.path.route) == active);
        Self {
            policies,
            duplicate_path: weighted_paths.first().and_then(copy),
            balance_set: members
                .map(|member| BalanceMember {
                    path: member.path.clone(),
                    weight: member.weight,
                    duplicate: if member.suspect { copy(member) } else { None },
                })
                .collect(),
        }
    }

    /// Selects the paths of a packet; `failover` are those of the failover policy.
    #[inline]
    pub fn select_forwarding<'f>(
        &'f self,
        failover: Forwarding<'f>,
        fields: &PacketFields,
    ) -> Forwarding<'f> {
        match self.policies.policy_for(fields) {
            Policy::Failover => failover,
            Policy::Duplicate => {
                Forwarding { path: failover.path, duplicate: self.duplicate_path.as_deref() }
            }
            Policy::Balance => {
                let weights =
                    self.balance_set.iter().map(|member| (member.path.route, member.weight));
                let member = pick_route(fields.flow_hash(), weights)
                    .and_then(|place| self.balance_set.get(place));
                member.map_or(failover, |member| Forwarding {
                    path: &member.path,
                    duplicate: member.duplicate.as_deref(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft_proto::{
        ids::{PeerId, RouteId},
        route::{TrafficClass, policy::Dscp},
    };

    use super::*;
    use crate::io::{
        fib::FibPeer,
        socket::{SocketId, UdpSocket},
    };

    /// A peer with routes 1, 2, …, best first; per route: it is in the balance set, it is suspect.
    fn entry(policies: PeerPolicies, routes: &[(bool, bool)]) -> FibPeer {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        let id = SocketId(1);
        let fd = socket.into();
        let socket = UdpSocket { id, local, ifindex: 1, worker: 0, fd, fault: None };
        let socket = Arc::new(socket);
        let path = |n| {
            Arc::new(Path {
                route: RouteId(n),
                socket: socket.clone(),
                remote: local,
                max_datagram: 1472,
                plain_sends: false,
                counters: Arc::default(),
                rtt: None,
                loss_epoch: 0,
                transport: None,
            })
        };
        let paths: Vec<_> = (1..)
            .zip(routes)
            .map(|(n, (in_balance_set, suspect))| WeightedPath {
                path: path(n),
                weight: 1,
                in_balance_set: *in_balance_set,
                suspect: *suspect,
            })
            .collect();
        FibPeer {
            is_unreachable: false,
            peer: PeerId(0),
            session: None,
            active: paths.first().map(|first| first.path.clone()),
            duplicate: None,
            backups: Vec::new(),
            steering: Some(Box::new(TrafficSteering::new(policies, &paths))),
            candidates: Vec::new(),
        }
    }

    fn fields(port: u16, dscp: u8) -> PacketFields {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        PacketFields { src, dst, protocol: Some(6), ports: Some((port, 80)), dscp, size: 100 }
    }

    /// The route of a packet, and that of its copy.
    fn forwarding(entry: &FibPeer, fields: PacketFields) -> (u32, Option<u32>) {
        let selected = entry.select_forwarding(|| fields).unwrap();
        (selected.path.route.0, selected.duplicate.map(|copy| copy.route.0))
    }

    #[test]
    fn a_copy_takes_the_second_best_route_and_an_unsuspected_one_first() {
        let duplicate = || PeerPolicies::new(Policy::Duplicate);
        for (routes, expected) in [
            (vec![(true, false)], (1, None)),
            (vec![(true, false), (true, false), (true, false)], (1, Some(2))),
            (vec![(true, false), (true, true), (true, false)], (1, Some(3))),
            (vec![(true, false), (false, false), (true, false)], (1, Some(3))),
            (vec![(true, false), (false, false)], (1, Some(2))),
        ] {
            let entry = entry(duplicate(), &routes);
            assert_eq!(forwarding(&entry, fields(1, 0)), expected, "{routes:?}");
        }
    }

    #[test]
    fn flows_use_every_route_and_those_on_a_suspect_one_are_copied() {
        let balance = || PeerPolicies::new(Policy::Balance);
        let found = |routes: &[(bool, bool)]| {
            let entry = entry(balance(), routes);
            let selected = (0..200).map(|port| forwarding(&entry, fields(port, 0)));
            selected.collect::<std::collections::BTreeSet<_>>()
        };
        let all = found(&[(true, false); 3]);
        assert!(all.into_iter().eq([(1, None), (2, None), (3, None)]));
        let held = found(&[(false, false), (false, false), (true, false)]);
        assert!(held.into_iter().eq([(1, None), (3, None)]), "the active one carries anyway");
        let suspect = found(&[(true, false), (true, true)]);
        assert!(suspect.into_iter().eq([(1, None), (2, Some(1))]));
    }

    #[test]
    fn a_class_selects_the_policy_and_other_traffic_fails_over() {
        let class =
            TrafficClass { dscp: Dscp::from_name("ef"), ..TrafficClass::new(Policy::Duplicate) };
        let policies = PeerPolicies::default().with_classes(vec![class]).unwrap();
        let entry = entry(policies, &[(true, false), (true, false)]);
        assert_eq!(forwarding(&entry, fields(1, 46)), (1, Some(2)));
        assert_eq!(forwarding(&entry, fields(1, 0)), (1, None));
    }
}

//! How packets to one peer use its routes, where that is more than "all over the active one".
//!
//! Made by the driver with every table, read by the workers for every packet to a peer that has
//! such a policy.

use std::sync::Arc;

use netft_proto::route::{PeerPolicies, Policy, balance::pick_route, policy::PacketFields};

use crate::io::{fib::FibPeer, path::Path};

/// The way of one packet.
#[derive(Clone, Copy)]
pub struct Forwarding<'f> {
    /// The route it takes.
    pub path: &'f Path,
    /// The route a copy of it takes.
    pub duplicate: Option<&'f Path>,
}

impl Forwarding<'_> {
    /// Whether another packet's way is the same.
    #[inline]
    pub fn is_same_path(&self, path: &Path, copy: Option<&Path>) -> bool {
        let route = |path: Option<&Path>| path.map(|path| path.route);
        self.path.route == path.route && route(self.duplicate) == route(copy)
    }
}

/// A route that may carry data, as the driver knows it.
#[derive(Clone)]
pub struct WeightedPath {
    /// The route.
    pub path: Arc<Path>,
    /// Its share among the others', in any unit.
    pub weight: u32,
    /// Flows may be given to it; otherwise it takes copies only.
    pub in_balance_set: bool,
    /// Data on it stays unacknowledged.
    pub suspect: bool,
}

/// The policies of a peer, and the routes they choose from.
pub struct TrafficSteering {
    policies: PeerPolicies,
    /// Where copies of what the active route carries go.
    duplicate_path: Option<Arc<Path>>,
    /// The routes that share the flows, the active one among them.
    balance_set: Vec<BalanceMember>,
}

struct BalanceMember {
    path: Arc<Path>,
    weight: u32,
    /// Where a copy goes while the route is suspect.
    duplicate: Option<Arc<Path>>,
}

impl TrafficSteering {
    /// From the policies and the routes, the active one first, then the best others.
    pub fn new(policies: PeerPolicies, weighted_paths: &[WeightedPath]) -> Self {
        let copy = |of: &WeightedPath| {
            let others = weighted_paths.iter().filter(|lane| lane.path.route != of.path.route);
            let best = others.min_by_key(|lane| (lane.suspect, !lane.in_balance_set));
            best.map(|lane| lane.path.clone())
        };
        let active = weighted_paths.first().map(|lane| lane.path.route);
        let shares = weighted_paths
            .iter()
            .filter(|lane| lane.in_balance_set || Some(lane.path.route) == active);
        Self {
            policies,
            duplicate_path: weighted_paths.first().and_then(copy),
            balance_set: shares
                .map(|lane| BalanceMember {
                    path: lane.path.clone(),
                    weight: lane.weight,
                    duplicate: if lane.suspect { copy(lane) } else { None },
                })
                .collect(),
        }
    }
}

impl FibPeer {
    /// The way of a packet; `None` while no route is usable.
    #[inline]
    pub fn select_forwarding(
        &self,
        traffic: impl FnOnce() -> PacketFields,
    ) -> Option<Forwarding<'_>> {
        let path = self.active.as_deref()?;
        let plain = Forwarding { path, duplicate: self.duplicate.as_deref() };
        let Some(steering) = &self.steering else { return Some(plain) };
        let traffic = traffic();
        Some(match steering.policies.policy_for(&traffic) {
            Policy::Failover => plain,
            Policy::Duplicate => Forwarding { path, duplicate: steering.duplicate_path.as_deref() },
            Policy::Balance => {
                let lots =
                    steering.balance_set.iter().map(|share| (share.path.route, share.weight));
                let share = pick_route(traffic.flow_hash(), lots)
                    .and_then(|place| steering.balance_set.get(place));
                share.map_or(plain, |share| Forwarding {
                    path: &share.path,
                    duplicate: share.duplicate.as_deref(),
                })
            }
        })
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
    use crate::io::socket::{SocketId, UdpSocket};

    /// Route n of the best n, and whether flows may use it and it is suspect.
    fn entry(policies: PeerPolicies, lanes: &[(bool, bool)]) -> FibPeer {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = socket.local_addr().unwrap();
        let id = SocketId(1);
        let socket = Arc::new(UdpSocket { id, local, ifindex: 1, worker: 0, fd: socket.into() });
        let path = |n| {
            let (socket, sent) = (socket.clone(), Arc::default());
            Arc::new(Path {
                route: RouteId(n),
                socket,
                remote: local,
                max_datagram: 1472,
                counters: sent,
                rtt: None,
                transport: None,
            })
        };
        let lanes: Vec<_> = (1..)
            .zip(lanes)
            .map(|(n, (spread, suspect))| WeightedPath {
                path: path(n),
                weight: 1,
                in_balance_set: *spread,
                suspect: *suspect,
            })
            .collect();
        FibPeer {
            peer: PeerId(0),
            session: None,
            active: lanes.first().map(|lane| lane.path.clone()),
            duplicate: None,
            backups: Vec::new(),
            steering: Some(Box::new(TrafficSteering::new(policies, &lanes))),
            candidates: Vec::new(),
        }
    }

    fn traffic(port: u16, dscp: u8) -> PacketFields {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        PacketFields { src, dst, protocol: Some(6), ports: Some((port, 80)), dscp, size: 100 }
    }

    fn way(entry: &FibPeer, traffic: PacketFields) -> (u32, Option<u32>) {
        let course = entry.select_forwarding(|| traffic).unwrap();
        (course.path.route.0, course.duplicate.map(|copy| copy.route.0))
    }

    #[test]
    fn a_copy_takes_the_second_best_route_a_sound_one_first() {
        let duplicate = || PeerPolicies::new(Policy::Duplicate);
        for (lanes, expected) in [
            (vec![(true, false)], (1, None)),
            (vec![(true, false), (true, false), (true, false)], (1, Some(2))),
            (vec![(true, false), (true, true), (true, false)], (1, Some(3))),
            (vec![(true, false), (false, false), (true, false)], (1, Some(3))),
            (vec![(true, false), (false, false)], (1, Some(2))),
        ] {
            assert_eq!(way(&entry(duplicate(), &lanes), traffic(1, 0)), expected, "{lanes:?}");
        }
    }

    #[test]
    fn flows_use_every_sound_route_and_those_on_a_suspect_one_are_copied() {
        let balance = || PeerPolicies::new(Policy::Balance);
        let found = |lanes: &[(bool, bool)]| {
            let entry = entry(balance(), lanes);
            let ways = (0..200).map(|port| way(&entry, traffic(port, 0)));
            ways.collect::<std::collections::BTreeSet<_>>()
        };
        let all = found(&[(true, false); 3]);
        assert!(all.into_iter().eq([(1, None), (2, None), (3, None)]));
        let held = found(&[(false, false), (false, false), (true, false)]);
        assert!(held.into_iter().eq([(1, None), (3, None)]), "the active one carries anyway");
        let suspect = found(&[(true, false), (true, true)]);
        assert!(suspect.into_iter().eq([(1, None), (2, Some(1))]));
    }

    #[test]
    fn a_class_decides_and_what_it_leaves_fails_over() {
        let class =
            TrafficClass { dscp: Dscp::from_name("ef"), ..TrafficClass::new(Policy::Duplicate) };
        let policies = PeerPolicies::default().with_classes(vec![class]).unwrap();
        let entry = entry(policies, &[(true, false), (true, false)]);
        assert_eq!(way(&entry, traffic(1, 46)), (1, Some(2)));
        assert_eq!(way(&entry, traffic(1, 0)), (1, None));
    }
}

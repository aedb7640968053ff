//! How packets to one peer use its routes, where that is more than "all over the active one".
//!
//! Made by the driver with every table, read by the workers for every packet to a peer that has
//! such a policy.

use std::sync::Arc;

use netft_proto::route::{Policies, Policy, balance::pick, policy::Traffic};

use crate::io::fib::{Path, PeerEntry};

/// The way of one packet.
#[derive(Clone, Copy)]
pub struct Course<'f> {
    /// The route it takes.
    pub path: &'f Path,
    /// The route a copy of it takes.
    pub copy: Option<&'f Path>,
}

impl Course<'_> {
    /// Whether another packet's way is the same.
    #[inline]
    pub fn is(&self, path: &Path, copy: Option<&Path>) -> bool {
        let route = |path: Option<&Path>| path.map(|path| path.route);
        self.path.route == path.route && route(self.copy) == route(copy)
    }
}

/// A route that may carry data, as the driver knows it.
#[derive(Clone)]
pub struct Lane {
    /// The route.
    pub path: Arc<Path>,
    /// Its share among the others', in any unit.
    pub weight: u32,
    /// Flows may be given to it; otherwise it takes copies only.
    pub spread: bool,
    /// Data on it stays unacknowledged.
    pub suspect: bool,
}

/// The policies of a peer, and the routes they choose from.
pub struct Steering {
    policies: Policies,
    /// Where copies of what the active route carries go.
    second: Option<Arc<Path>>,
    /// The routes that share the flows, the active one among them.
    shares: Vec<Share>,
}

struct Share {
    path: Arc<Path>,
    weight: u32,
    /// Where a copy goes while the route is suspect.
    copy: Option<Arc<Path>>,
}

impl Steering {
    /// From the policies and the routes, the active one first, then the best others.
    pub fn new(policies: Policies, lanes: &[Lane]) -> Self {
        let copy = |of: &Lane| {
            let others = lanes.iter().filter(|lane| lane.path.route != of.path.route);
            let best = others.min_by_key(|lane| (lane.suspect, !lane.spread));
            best.map(|lane| lane.path.clone())
        };
        let active = lanes.first().map(|lane| lane.path.route);
        let shares = lanes.iter().filter(|lane| lane.spread || Some(lane.path.route) == active);
        Self {
            policies,
            second: lanes.first().and_then(copy),
            shares: shares
                .map(|lane| Share {
                    path: lane.path.clone(),
                    weight: lane.weight,
                    copy: if lane.suspect { copy(lane) } else { None },
                })
                .collect(),
        }
    }
}

impl PeerEntry {
    /// The way of a packet; `None` while no route is usable.
    #[inline]
    pub fn course(&self, traffic: impl FnOnce() -> Traffic) -> Option<Course<'_>> {
        let path = self.active.as_deref()?;
        let plain = Course { path, copy: self.duplicate.as_deref() };
        let Some(steering) = &self.steering else { return Some(plain) };
        let traffic = traffic();
        Some(match steering.policies.of(&traffic) {
            Policy::Failover => plain,
            Policy::Duplicate => Course { path, copy: steering.second.as_deref() },
            Policy::Balance => {
                let lots = steering.shares.iter().map(|share| (share.path.route, share.weight));
                let share = pick(traffic.flow(), lots).and_then(|place| steering.shares.get(place));
                share.map_or(plain, |share| Course {
                    path: &share.path,
                    copy: share.copy.as_deref(),
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
    use crate::io::fib::{SocketId, UdpSocket};

    /// Route n of the best n, and whether flows may use it and it is suspect.
    fn entry(policies: Policies, lanes: &[(bool, bool)]) -> PeerEntry {
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
                sent,
                rtt: None,
                carrier: None,
            })
        };
        let lanes: Vec<_> = (1..)
            .zip(lanes)
            .map(|(n, (spread, suspect))| Lane {
                path: path(n),
                weight: 1,
                spread: *spread,
                suspect: *suspect,
            })
            .collect();
        PeerEntry {
            peer: PeerId(0),
            session: None,
            active: lanes.first().map(|lane| lane.path.clone()),
            duplicate: None,
            backups: Vec::new(),
            steering: Some(Box::new(Steering::new(policies, &lanes))),
            candidates: Vec::new(),
        }
    }

    fn traffic(port: u16, dscp: u8) -> Traffic {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        Traffic { src, dst, protocol: Some(6), ports: Some((port, 80)), dscp, size: 100 }
    }

    fn way(entry: &PeerEntry, traffic: Traffic) -> (u32, Option<u32>) {
        let course = entry.course(|| traffic).unwrap();
        (course.path.route.0, course.copy.map(|copy| copy.route.0))
    }

    #[test]
    fn a_copy_takes_the_second_best_route_a_sound_one_first() {
        let duplicate = || Policies::new(Policy::Duplicate);
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
        let balance = || Policies::new(Policy::Balance);
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
            TrafficClass { dscp: Dscp::named("ef"), ..TrafficClass::new(Policy::Duplicate) };
        let policies = Policies::default().with_classes(vec![class]).unwrap();
        let entry = entry(policies, &[(true, false), (true, false)]);
        assert_eq!(way(&entry, traffic(1, 46)), (1, Some(2)));
        assert_eq!(way(&entry, traffic(1, 0)), (1, None));
    }
}

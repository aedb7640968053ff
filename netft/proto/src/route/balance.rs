//! Balancing of flows over routes by weighted rendezvous hashing. Pure.
//!
//! Every route has a score for every flow, from the flow's hash and the route's number, and the
//! lowest score wins. A score depends on nothing else, so a flow stays on its route as long as the
//! route exists (its packets keep their order), removing a route moves only its own flows, and a
//! new route takes flows from the others in proportion to the weights. The score `-ln(u) / weight`
//! gives each route exactly its share of the flows (Schindelhauer and Schomaker, "Weighted
//! distributed hash tables", 2005, the logarithmic method).

use std::net::IpAddr;

use crate::{ids::RouteId, route::policy::PacketFields};

impl PacketFields {
    /// Hash of the packet's flow: addresses, protocol and ports. Fragments of one datagram have no
    /// ports and share one hash, which differs from that of their flow's unfragmented packets.
    #[inline]
    pub fn flow_hash(&self) -> u64 {
        let addresses = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                mix_bits(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()))
            }
            (src, dst) => [src, dst].into_iter().fold(0, |hash, addr| {
                let bits = match addr {
                    IpAddr::V4(v4) => u128::from(v4.to_bits()),
                    IpAddr::V6(v6) => v6.to_bits(),
                };
                mix_bits(mix_bits(hash ^ bits as u64) ^ (bits >> 64) as u64)
            }),
        };
        let (src, dst) = self.ports.unwrap_or_default();
        let ends = u64::from(src) << 32 | u64::from(dst) << 8;
        // A fragment's protocol is left out: in IPv6 only the first one carries it.
        let protocol = self.ports.and(self.protocol).unwrap_or_default();
        mix_bits(addresses ^ ends ^ u64::from(protocol))
    }
}

/// Index of the route that carries the flow with this hash. A route is its number and its weight,
/// the capacity in any unit; 0 counts as 1. `None` without any route.
#[inline]
pub fn pick_route(flow: u64, routes: impl IntoIterator<Item = (RouteId, u32)>) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (place, (route, weight)) in routes.into_iter().enumerate() {
        let score = rendezvous_score(flow, route, weight);
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, place));
        }
    }
    best.map(|(_, place)| place)
}

/// Exponentially distributed with the weight as its rate: the smallest of several belongs to each
/// route with the probability of its share of all weights.
#[inline]
fn rendezvous_score(flow: u64, route: RouteId, weight: u32) -> f64 {
    let hash = mix_bits(flow ^ mix_bits(u64::from(route.0)));
    // 53 bits, in (0, 1].
    let uniform = ((hash >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -uniform.ln() / f64::from(weight.max(1))
}

/// The finalizer of SplitMix64: every input bit affects every output bit.
#[inline]
const fn mix_bits(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// A flow as applications make them: one address pair, one well-known port.
    fn flow(port: u16) -> PacketFields {
        PacketFields {
            src: [169, 254, 1, 1].into(),
            dst: [169, 254, 2, 2].into(),
            protocol: Some(6),
            ports: Some((port, 443)),
            dscp: 0,
            size: 1420,
        }
    }

    fn routes() -> impl Strategy<Value = Vec<(RouteId, u32)>> {
        prop::collection::btree_map(1u32..1000, 1u32..100_000, 1..6)
            .prop_map(|map| map.into_iter().map(|(id, weight)| (RouteId(id), weight)).collect())
    }

    fn route_of(traffic: &PacketFields, routes: &[(RouteId, u32)]) -> RouteId {
        routes[pick_route(traffic.flow_hash(), routes.iter().copied()).unwrap()].0
    }

    #[test]
    fn dscp_and_size_do_not_identify_a_flow() {
        let base = flow(1);
        for same in [PacketFields { dscp: 46, ..base }, PacketFields { size: 60, ..base }] {
            assert_eq!(same.flow_hash(), base.flow_hash());
        }
        for other in [flow(2), PacketFields { protocol: Some(17), ..base }] {
            assert_ne!(other.flow_hash(), base.flow_hash());
        }
        let first = PacketFields { ports: None, protocol: Some(17), ..base };
        let later = PacketFields { ports: None, protocol: None, ..base };
        assert_eq!(
            first.flow_hash(),
            later.flow_hash(),
            "the fragments of one datagram stay together"
        );
        assert_eq!(pick_route(1, []), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn flows_spread_by_weight(routes in routes()) {
            const FLOWS: u16 = 20_000;
            let mut counts = std::collections::BTreeMap::new();
            for port in 0..FLOWS {
                *counts.entry(route_of(&flow(port), &routes)).or_insert(0u32) += 1;
            }
            let total: f64 = routes.iter().map(|(_, weight)| f64::from(*weight)).sum();
            for (id, weight) in &routes {
                let share = f64::from(*weight) / total;
                let got = f64::from(counts.get(id).copied().unwrap_or(0)) / f64::from(FLOWS);
                // Six standard deviations.
                let tolerance = 6.0 * (share * (1.0 - share) / f64::from(FLOWS)).sqrt() + 1e-3;
                prop_assert!((got - share).abs() <= tolerance, "{id}: {got} for {share}");
            }
        }

        #[test]
        fn a_route_that_goes_moves_its_own_flows_only(routes in routes(), gone in 0usize..6) {
            let gone = routes[gone % routes.len()].0;
            let rest: Vec<_> = routes.iter().copied().filter(|(id, _)| *id != gone).collect();
            prop_assume!(!rest.is_empty());
            for port in 0..500 {
                let before = route_of(&flow(port), &routes);
                if before != gone {
                    prop_assert_eq!(route_of(&flow(port), &rest), before);
                }
            }
        }

        #[test]
        fn the_order_of_the_routes_does_not_matter(mut routes in routes(), port in any::<u16>()) {
            let before = route_of(&flow(port), &routes);
            routes.reverse();
            prop_assert_eq!(route_of(&flow(port), &routes), before);
        }

        #[test]
        fn a_route_with_more_capacity_takes_flows_and_gives_none(
            mut routes in routes(), place in 0usize..6, port in any::<u16>(),
        ) {
            let before = route_of(&flow(port), &routes);
            let place = place % routes.len();
            routes[place].1 *= 2;
            let after = route_of(&flow(port), &routes);
            prop_assert!(after == before || after == routes[place].0);
        }
    }
}

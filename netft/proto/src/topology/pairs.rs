//! The pairs of addresses of two nodes that form routes. Pure, and symmetric: a route that only one
//! end knows of carries nothing.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::wire::interfaces::AdvertisedEndpoint;

/// A pair of addresses: indices into the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AddressPair {
    pub(crate) local: usize,
    pub(crate) remote: usize,
    pub(crate) same_subnet: bool,
}

/// The pairs between two lists, in order.
///
/// * Addresses on one subnet: every interface of either end is used at least once, the first with
///   the first and so on (of several interfaces on one subnet none is ignored, U29).
/// * The others are paired across a router: the first with the first, by metric, as NetFT
///   without PlumbAllCrossSubnetRoutes (A1→A2, B1→B2, C1→C2); with `all`, every combination.
///
/// Two interfaces are paired once, over IPv4 if possible: its header is shorter.
pub(crate) fn pair_endpoints(
    own: &[AdvertisedEndpoint],
    far: &[AdvertisedEndpoint],
    all: bool,
) -> Vec<AddressPair> {
    let mut pairs =
        PairBuilder { local: own, remote: far, joined: BTreeSet::new(), pairs: Vec::new() };
    for v6 in [false, true] {
        pairs.pair_same_subnet(v6);
    }
    for v6 in [false, true] {
        if all { pairs.pair_all(v6) } else { pairs.pair_unmatched(v6) }
    }
    pairs.pairs
}

struct PairBuilder<'a> {
    local: &'a [AdvertisedEndpoint],
    remote: &'a [AdvertisedEndpoint],
    /// Pairs of interfaces.
    joined: BTreeSet<(u16, u16)>,
    pairs: Vec<AddressPair>,
}

impl PairBuilder<'_> {
    fn add_pair(&mut self, own: usize, far: usize, same_subnet: bool) {
        if self.joined.insert((self.local[own].interface, self.remote[far].interface)) {
            self.pairs.push(AddressPair { local: own, remote: far, same_subnet });
        }
    }

    /// The first with the first and so on; the shorter list starts again.
    fn pair_in_order(&mut self, own: &[usize], far: &[usize], same_subnet: bool) {
        if own.is_empty() || far.is_empty() {
            return;
        }
        for n in 0..own.len().max(far.len()) {
            self.add_pair(own[n % own.len()], far[n % far.len()], same_subnet);
        }
    }

    fn pair_same_subnet(&mut self, v6: bool) {
        let (own, far) = (by_subnet(self.local, v6), by_subnet(self.remote, v6));
        for (subnet, here) in &own {
            if let Some(there) = far.get(subnet) {
                self.pair_in_order(here, there, true);
            }
        }
    }

    /// Pairs the interfaces without a partner on their subnet.
    fn pair_unmatched(&mut self, v6: bool) {
        let (own, far): (BTreeSet<_>, BTreeSet<_>) = self.joined.iter().copied().unzip();
        let own = unjoined_endpoints(self.local, v6, &own);
        let far = unjoined_endpoints(self.remote, v6, &far);
        self.pair_in_order(&own, &far, false);
    }

    fn pair_all(&mut self, v6: bool) {
        let (own, far) = (
            unjoined_endpoints(self.local, v6, &[].into()),
            unjoined_endpoints(self.remote, v6, &[].into()),
        );
        for here in own {
            for there in &far {
                let same_subnet =
                    self.local[here].subnet_prefix() == self.remote[*there].subnet_prefix();
                self.add_pair(here, *there, same_subnet);
            }
        }
    }
}

/// Indices by subnet, in the order of their addresses.
fn by_subnet(list: &[AdvertisedEndpoint], v6: bool) -> BTreeMap<IpNet, Vec<usize>> {
    let mut subnets: BTreeMap<IpNet, Vec<usize>> = BTreeMap::new();
    for place in sorted_indices(list, v6, |endpoint| (0, endpoint.addr)) {
        subnets.entry(list[place].subnet_prefix()).or_default().push(place);
    }
    subnets
}

/// Indices of interfaces that are not in `joined`, by metric.
fn unjoined_endpoints(list: &[AdvertisedEndpoint], v6: bool, joined: &BTreeSet<u16>) -> Vec<usize> {
    let places = sorted_indices(list, v6, |endpoint| (endpoint.metric, endpoint.addr));
    places.into_iter().filter(|place| !joined.contains(&list[*place].interface)).collect()
}

fn sorted_indices<K: Ord>(
    list: &[AdvertisedEndpoint],
    v6: bool,
    key: impl Fn(&AdvertisedEndpoint) -> K,
) -> Vec<usize> {
    let mut places: Vec<_> = (0..list.len()).filter(|n| list[*n].addr.is_ipv6() == v6).collect();
    places.sort_by_key(|place| key(&list[*place]));
    places
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn list(addrs: &[&str]) -> Vec<AdvertisedEndpoint> {
        let mut interfaces = 0;
        addrs
            .iter()
            .map(|text| {
                // "+" puts an address on the interface of the one before.
                let on_the_same = text.starts_with('+');
                interfaces += u16::from(!on_the_same);
                let prefix: IpNet = text.trim_start_matches('+').parse().unwrap();
                AdvertisedEndpoint {
                    addr: prefix.addr(),
                    prefix_len: prefix.prefix_len(),
                    interface: interfaces,
                    metric: 1000,
                }
            })
            .collect()
    }

    fn joined(own: &[&str], far: &[&str], all: bool) -> Vec<String> {
        let (own, far) = (list(own), list(far));
        let name = |pair: &AddressPair| {
            let sign = if pair.same_subnet { "=" } else { "~" };
            format!("{}{sign}{}", own[pair.local].addr, far[pair.remote].addr)
        };
        let mut names: Vec<_> = pair_endpoints(&own, &far, all).iter().map(name).collect();
        names.sort();
        names
    }

    const A: [&str; 3] = ["10.1.0.1/24", "10.2.0.1/24", "10.3.0.1/24"];
    const B: [&str; 3] = ["10.1.0.2/24", "10.2.0.2/24", "10.3.0.2/24"];

    /// B15, and PlumbAllCrossSubnetRoutes 0 and 1.
    #[test]
    fn three_shared_networks_are_three_routes_and_nine_when_all_are_wanted() {
        let three = ["10.1.0.1=10.1.0.2", "10.2.0.1=10.2.0.2", "10.3.0.1=10.3.0.2"];
        assert_eq!(joined(&A, &B, false), three);
        let nine = joined(&A, &B, true);
        assert_eq!(nine.len(), 9);
        assert!(three.iter().all(|pair| nine.contains(&(*pair).to_owned())));
    }

    #[test]
    fn routed_networks_are_joined_first_with_first() {
        let far = ["10.11.0.2/24", "10.12.0.2/24", "10.13.0.2/24"];
        let three = ["10.1.0.1~10.11.0.2", "10.2.0.1~10.12.0.2", "10.3.0.1~10.13.0.2"];
        assert_eq!(joined(&A, &far, false), three);
    }

    #[test]
    fn unequal_numbers_use_every_interface() {
        assert_eq!(joined(&A[..1], &B, false), ["10.1.0.1=10.1.0.2"], "no partner is left");
        let far = ["10.9.0.2/24"];
        let three = ["10.1.0.1~10.9.0.2", "10.2.0.1~10.9.0.2", "10.3.0.1~10.9.0.2"];
        assert_eq!(joined(&A, &far, false), three);
        let one = ["10.2.0.1~10.9.0.2"];
        let both = joined(&A[..2], &["10.1.0.2/24", "10.9.0.2/24"], false);
        assert_eq!(both[1..], one);
    }

    /// U29.
    #[test]
    fn several_interfaces_on_one_subnet_are_all_used() {
        let own = ["10.1.0.1/24", "10.1.0.3/24"];
        let far = ["10.1.0.2/24", "10.1.0.4/24"];
        assert_eq!(joined(&own, &far, false), ["10.1.0.1=10.1.0.2", "10.1.0.3=10.1.0.4"]);
        let fewer = ["10.1.0.1=10.1.0.2", "10.1.0.3=10.1.0.2"];
        assert_eq!(joined(&own, &far[..1], false), fewer);
    }

    #[test]
    fn two_interfaces_with_both_families_are_one_route_over_ipv4() {
        let own = ["10.1.0.1/24", "+2001:db8:1::1/64", "2001:db8:2::1/64"];
        let far = ["10.1.0.2/24", "+2001:db8:1::2/64", "2001:db8:2::2/64"];
        let routes = ["10.1.0.1=10.1.0.2", "2001:db8:2::1=2001:db8:2::2"];
        assert_eq!(joined(&own, &far, false), routes);
    }

    prop_compose! {
        fn any_list()(
            entries in vec((any::<bool>(), 0..4u8, 0..4u16, 0..3u32), 0..8),
        ) -> Vec<AdvertisedEndpoint> {
            let mut list: Vec<_> = entries
                .into_iter()
                .enumerate()
                .map(|(host, (v6, subnet, interface, metric))| {
                    let host = host as u8;
                    let addr = if v6 {
                        std::net::Ipv6Addr::new(0x2001, 0, 0, subnet.into(), 0, 0, 0, host.into())
                            .into()
                    } else {
                        std::net::Ipv4Addr::new(10, subnet, 0, host).into()
                    };
                    let prefix_len = if v6 { 64 } else { 24 };
                    AdvertisedEndpoint { addr, prefix_len, interface, metric }
                })
                .collect();
            list.sort();
            list
        }
    }

    proptest! {
        /// The one thing both ends rely on.
        #[test]
        fn both_ends_find_the_same_pairs(own in any_list(), far in any_list(), all: bool) {
            let turn = |pair: AddressPair| {
                AddressPair { local: pair.remote, remote: pair.local, ..pair }
            };
            let here: BTreeSet<_> = pair_endpoints(&own, &far, all).into_iter().collect();
            let there = pair_endpoints(&far, &own, all).into_iter();
            let there: BTreeSet<_> = there.map(turn).collect();
            prop_assert_eq!(here, there);
        }

        #[test]
        fn families_never_mix(own in any_list(), far in any_list(), all: bool) {
            for pair in pair_endpoints(&own, &far, all) {
                prop_assert_eq!(own[pair.local].addr.is_ipv6(), far[pair.remote].addr.is_ipv6());
            }
        }
    }
}

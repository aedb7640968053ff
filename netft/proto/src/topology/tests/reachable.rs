//! Routes by reachability: which pairs are tried, which stay.

use proptest::{collection::vec, prelude::*};

use super::*;

/// Two nodes, each with its cards.
struct TwoNodes {
    config: Config,
    cards: [Vec<Interface>; 2],
    /// The ways of both kernels, each with its metric.
    ways: [KernelWays; 2],
    activities: RouteActivities,
    running: Vec<PlannedRoute>,
}

impl TwoNodes {
    fn new(own: &[&[&str]], far: &[&[&str]]) -> Self {
        let cards = |cards: &[&[&str]]| {
            let numbered = cards.iter().zip(2..);
            numbered.map(|(addrs, index)| interface(index, &format!("eth{index}"), addrs)).collect()
        };
        Self {
            config: config(&[&[]]),
            cards: [cards(own), cards(far)],
            ways: Default::default(),
            activities: RouteActivities::new(),
            running: Vec::new(),
        }
    }

    /// With a way both ways between two addresses.
    fn with_way(mut self, here: &str, there: &str) -> Self {
        self.ways[0].insert((ip(here), ip(there)), 0);
        self.ways[1].insert((ip(there), ip(here)), 0);
        self
    }

    /// With a way between any two addresses.
    fn with_all_ways(mut self) -> Self {
        let addrs = self.cards.clone().map(|cards| {
            cards.iter().flat_map(|card| &card.addrs).map(|own| own.addr).collect::<Vec<_>>()
        });
        for here in &addrs[0] {
            for there in &addrs[1] {
                self.ways[0].insert((*here, *there), 0);
                self.ways[1].insert((*there, *here), 0);
            }
        }
        self
    }

    /// The plan of a node.
    fn plan_of(&self, node: usize) -> Vec<PlannedRoute> {
        let other = 1 - node;
        let far = build_advertisement(&self.config, &self.cards[other], &[], &self.ways[other]);
        let inputs = PlanInputs {
            interfaces: &self.cards[node],
            sources: &SourceAddresses::new(),
            ways: &self.ways[node],
            activities: &self.activities,
            advertisements: &Advertisements::from([(PeerId(0), far)]),
            resolved: &ResolvedAddresses::new(),
        };
        plan_routes(&self.config, &inputs, &self.running).routes
    }

    /// The plan of the first node: `=` on one subnet, `~` across routers.
    fn pairs(&self) -> Vec<String> {
        let name = |route: &PlannedRoute| {
            let near = route.spec.attributes.0 & Attributes::SAME_SUBNET != 0;
            let sign = if near { "=" } else { "~" };
            format!("{}{sign}{}", route.spec.real_local.ip(), route.spec.real_remote.ip())
        };
        let mut names: Vec<_> = self.plan_of(0).iter().map(name).collect();
        names.sort();
        names
    }

    /// Runs the plan of the first node: the peer is heard where `connects` says so, and silent
    /// elsewhere for long.
    fn settle(&mut self, connects: &[(&str, &str)]) {
        self.running = self.plan_of(0);
        self.activities.clear();
        for route in &self.running {
            let ends = (route.spec.real_local.ip(), route.spec.real_remote.ip());
            let heard = connects.iter().any(|(here, there)| ends == (ip(here), ip(there)));
            let activity =
                if heard { RouteActivity::Up } else { RouteActivity::NeverHeard { long: false } };
            self.activities.insert(route.route_key(), activity);
        }
    }
}

const A: [&[&str]; 3] = [&["10.1.0.1/24"], &["10.2.0.1/24"], &["10.3.0.1/24"]];
const B: [&[&str]; 3] = [&["10.1.0.2/24"], &["10.2.0.2/24"], &["10.3.0.2/24"]];
const ROUTED: [&[&str]; 3] = [&["10.11.0.2/24"], &["10.12.0.2/24"], &["10.13.0.2/24"]];

/// B15, and PlumbAllCrossSubnetRoutes 0 and 1.
#[test]
fn shared_networks_are_a_route_each_and_all_pairs_when_all_are_wanted() {
    let three = ["10.1.0.1=10.1.0.2", "10.2.0.1=10.2.0.2", "10.3.0.1=10.3.0.2"];
    let mut nodes = TwoNodes::new(&A, &B);
    assert_eq!(nodes.pairs(), three);
    assert_eq!(TwoNodes::new(&A, &B).with_all_ways().pairs(), three, "ways add nothing to them");
    nodes.config.topology.all_cross_subnet = true;
    let nine = nodes.pairs();
    assert_eq!(nine.len(), 9);
    assert!(three.iter().all(|pair| nine.contains(&(*pair).to_owned())));
}

#[test]
fn routed_networks_are_joined_first_with_first() {
    let three = ["10.1.0.1~10.11.0.2", "10.2.0.1~10.12.0.2", "10.3.0.1~10.13.0.2"];
    assert_eq!(TwoNodes::new(&A, &ROUTED).with_all_ways().pairs(), three);
    let none: [&str; 0] = [];
    assert_eq!(TwoNodes::new(&A, &ROUTED).pairs(), none, "without a way");
}

#[test]
fn unequal_numbers_use_every_interface_that_has_a_way() {
    assert_eq!(TwoNodes::new(&A[..1], &B).pairs(), ["10.1.0.1=10.1.0.2"]);
    let three = ["10.1.0.1=10.1.0.2", "10.1.0.1~10.2.0.2", "10.1.0.1~10.3.0.2"];
    assert_eq!(TwoNodes::new(&A[..1], &B).with_all_ways().pairs(), three);
    let three = ["10.1.0.1~10.11.0.2", "10.2.0.1~10.11.0.2", "10.3.0.1~10.11.0.2"];
    assert_eq!(TwoNodes::new(&A, &ROUTED[..1]).with_all_ways().pairs(), three);
}

/// U29.
#[test]
fn several_interfaces_on_one_subnet_are_all_used() {
    let own: [&[&str]; 2] = [&["10.1.0.1/24"], &["10.1.0.3/24"]];
    let far: [&[&str]; 2] = [&["10.1.0.2/24"], &["10.1.0.4/24"]];
    let both = ["10.1.0.1=10.1.0.2", "10.1.0.3=10.1.0.4"];
    assert_eq!(TwoNodes::new(&own, &far).pairs(), both);
    let fewer = ["10.1.0.1=10.1.0.2", "10.1.0.3=10.1.0.2"];
    assert_eq!(TwoNodes::new(&own, &far[..1]).pairs(), fewer);
}

#[test]
fn two_interfaces_with_both_families_are_one_route_over_ipv4() {
    let own: [&[&str]; 2] = [&["10.1.0.1/24", "2001:db8:1::1/64"], &["2001:db8:2::1/64"]];
    let far: [&[&str]; 2] = [&["10.1.0.2/24", "2001:db8:1::2/64"], &["2001:db8:2::2/64"]];
    let routes = ["10.1.0.1=10.1.0.2", "2001:db8:2::1=2001:db8:2::2"];
    let mut nodes = TwoNodes::new(&own, &far);
    assert_eq!(nodes.pairs(), routes);
    // IPv4 does not pass: the other family is tried, and IPv4 stays to be tried.
    nodes.settle(&[("2001:db8:2::1", "2001:db8:2::2")]);
    let more = [routes[0], "2001:db8:1::1=2001:db8:1::2", routes[1]];
    assert_eq!(nodes.pairs(), more);
}

/// A node with a LAN and isolated cards: neither end pairs with what leads nowhere.
#[test]
fn isolated_cards_take_part_in_no_route() {
    let own: [&[&str]; 3] = [&["10.1.0.1/24"], &["192.168.51.1/24"], &["192.168.52.1/24"]];
    let far: [&[&str]; 2] = [&["10.2.0.2/24"], &["192.168.61.2/24"]];
    let mut nodes = TwoNodes::new(&own, &far).with_way("10.1.0.1", "10.2.0.2");
    // A default route leads everywhere, but the peer's card has no way back.
    nodes.ways[0].insert((ip("10.1.0.1"), ip("192.168.61.2")), 0);
    assert_eq!(nodes.pairs(), ["10.1.0.1~10.2.0.2"]);
    // While no route is up, what seems to lead nowhere is tried as well.
    nodes.settle(&[]);
    for activity in [RouteActivity::NeverHeard { long: false }, RouteActivity::Heard] {
        nodes.activities.values_mut().for_each(|it| *it = activity);
        assert_eq!(nodes.pairs(), ["10.1.0.1~10.2.0.2", "10.1.0.1~192.168.61.2"]);
    }
    nodes.activities.values_mut().for_each(|it| *it = RouteActivity::Up);
    assert_eq!(nodes.pairs(), ["10.1.0.1~10.2.0.2"]);
}

#[test]
fn fabrics_that_sort_crosswise_are_paired_by_their_ways() {
    let (own, far) = (&A[..2], [&["10.31.0.2/24"][..], &["10.30.0.2/24"]]);
    let nodes = TwoNodes::new(own, &far);
    let nodes = nodes.with_way("10.1.0.1", "10.31.0.2").with_way("10.2.0.1", "10.30.0.2");
    assert_eq!(nodes.pairs(), ["10.1.0.1~10.31.0.2", "10.2.0.1~10.30.0.2"]);
}

/// Both sites have the same private prefix, and IPv6 between them.
#[test]
fn a_prefix_that_both_sites_have_does_not_hide_the_way_between_them() {
    let own: [&[&str]; 1] = [&["192.168.1.10/24", "2001:db8:a::1/64"]];
    let far: [&[&str]; 1] = [&["192.168.1.20/24", "2001:db8:b::1/64"]];
    let mut nodes = TwoNodes::new(&own, &far).with_way("2001:db8:a::1", "2001:db8:b::1");
    assert_eq!(nodes.pairs(), ["192.168.1.10=192.168.1.20"], "at first");
    let works = [("2001:db8:a::1", "2001:db8:b::1")];
    for _ in 0..3 {
        nodes.settle(&works);
        let both = ["192.168.1.10=192.168.1.20", "2001:db8:a::1~2001:db8:b::1"];
        assert_eq!(nodes.pairs(), both);
    }
}

/// Cables from card to card in one prefix, none of them where the order of the addresses says.
#[test]
fn cables_that_sort_crosswise_are_all_found() {
    let own: [&[&str]; 3] = [&["10.0.0.1/24"], &["10.0.0.3/24"], &["10.0.0.5/24"]];
    let far: [&[&str]; 3] = [&["10.0.0.6/24"], &["10.0.0.4/24"], &["10.0.0.2/24"]];
    let cables = [("10.0.0.1", "10.0.0.6"), ("10.0.0.3", "10.0.0.4"), ("10.0.0.5", "10.0.0.2")];
    let mut nodes = TwoNodes::new(&own, &far);
    assert_eq!(nodes.pairs().len(), 3);
    nodes.settle(&cables);
    assert_eq!(nodes.pairs().len(), 9, "every pair of the cards that hear nothing");
    nodes.settle(&cables);
    let pairs = nodes.pairs();
    let named = |pair: &(&str, &str)| pairs.contains(&format!("{}={}", pair.0, pair.1));
    assert!(cables.iter().all(named), "{pairs:?}");
}

/// A route that may still come up lets its cards try nothing else.
#[test]
fn other_pairs_are_tried_when_the_first_choice_has_had_its_time() {
    let mut nodes = TwoNodes::new(&A[..2], &ROUTED[..2]).with_all_ways();
    let two = ["10.1.0.1~10.11.0.2", "10.2.0.1~10.12.0.2"];
    nodes.settle(&[]);
    nodes.activities.values_mut().for_each(|activity| *activity = RouteActivity::Fresh);
    assert_eq!(nodes.pairs(), two);
    nodes.activities.values_mut().for_each(|it| *it = RouteActivity::NeverHeard { long: false });
    assert_eq!(nodes.pairs().len(), 4);
    // What works stays, and what was tried in vain ends.
    nodes.settle(&[("10.1.0.1", "10.12.0.2"), ("10.2.0.1", "10.11.0.2")]);
    assert_eq!(nodes.pairs(), ["10.1.0.1~10.12.0.2", "10.2.0.1~10.11.0.2"]);
}

/// The order changes, by a default route that moves or by metrics: what is up stays.
#[test]
fn a_route_that_is_up_outlives_every_order() {
    let works = [("10.1.0.1", "10.11.0.2"), ("10.2.0.1", "10.12.0.2")];
    let mut nodes = TwoNodes::new(&A[..2], &ROUTED[..2]).with_all_ways();
    let two = ["10.1.0.1~10.11.0.2", "10.2.0.1~10.12.0.2"];
    nodes.settle(&works);
    let crosswise = || {
        KernelWays::from([
            ((ip("10.1.0.1"), ip("10.12.0.2")), 0),
            ((ip("10.2.0.1"), ip("10.11.0.2")), 0),
        ])
    };
    for (default_of, ways) in
        [(0, None), (1, None), (0, Some(crosswise())), (1, Some(KernelWays::new()))]
    {
        nodes.cards[0].iter_mut().for_each(|card| card.default_route = None);
        nodes.cards[0][default_of].default_route = Some(0);
        nodes.ways[0] = ways.unwrap_or_else(|| nodes.ways[0].clone());
        let pairs = nodes.pairs();
        assert!(two.iter().all(|pair| pairs.contains(&(*pair).to_owned())), "{pairs:?}");
    }
}

#[test]
fn two_default_routes_are_two_routes_in_the_order_of_their_metrics() {
    let mut nodes = TwoNodes::new(&A[..2], &[&["10.9.0.20/24"]]).with_all_ways();
    nodes.cards[0][0].default_route = Some(200);
    nodes.cards[0][1].default_route = Some(100);
    assert_eq!(nodes.pairs(), ["10.1.0.1~10.9.0.20", "10.2.0.1~10.9.0.20"]);
    let mut plan = nodes.plan_of(0);
    plan.sort_by_key(|route| route.spec.priority);
    assert_eq!(plan[0].spec.real_local.ip(), ip("10.2.0.1"));
    // The peer sees the same order.
    let mut far = nodes.plan_of(1);
    far.sort_by_key(|route| route.spec.priority);
    assert_eq!(far[0].spec.real_remote.ip(), ip("10.2.0.1"));
}

#[test]
fn the_routes_to_a_peer_are_bounded_and_those_that_are_up_come_first() {
    let cards = |from: u8, host: u8| -> Vec<Interface> {
        let addr = |card: u8| format!("10.{}.0.{host}/24", from + card);
        (0..10).map(|card| interface(2 + u32::from(card), "eth", &[&addr(card)])).collect()
    };
    let mut nodes = TwoNodes::new(&[], &[]);
    nodes.cards = [cards(1, 1), cards(101, 2)];
    let mut nodes = nodes.with_all_ways();
    assert_eq!(nodes.pairs().len(), 10, "distinct cards");
    nodes.settle(&[]);
    let tried = nodes.pairs();
    assert_eq!(tried.len(), MAX_ROUTES_PER_PEER);
    // Those tried for long give way; one that is up never does.
    nodes.settle(&[]);
    nodes.activities.values_mut().for_each(|it| *it = RouteActivity::NeverHeard { long: true });
    let up = nodes.running.last().unwrap().route_key();
    nodes.activities.insert(up, RouteActivity::Up);
    let plan = nodes.plan_of(0);
    assert_eq!(plan.len(), MAX_ROUTES_PER_PEER);
    assert_eq!(plan[0].route_key(), up);
    let is_new = |route: &&PlannedRoute| !nodes.activities.contains_key(&route.route_key());
    assert!(plan.iter().filter(is_new).count() >= 30);
}

/// A pair that the other end tries and this one did not plan.
#[test]
fn a_pair_of_listed_addresses_is_adopted_and_no_other() {
    let nodes = TwoNodes::new(&A, &ROUTED);
    let far = build_advertisement(&nodes.config, &nodes.cards[1], &[], &nodes.ways[1]);
    let adopt = |local: &str, remote: &str| {
        let inputs = PlanInputs {
            interfaces: &nodes.cards[0],
            sources: &SourceAddresses::new(),
            ways: &nodes.ways[0],
            activities: &nodes.activities,
            advertisements: &Advertisements::from([(PeerId(0), far.clone())]),
            resolved: &ResolvedAddresses::new(),
        };
        plan_adopted_route(&nodes.config, &inputs, (PeerId(0), end(local), end(remote)))
    };
    let adopted = adopt("10.1.0.1", "10.12.0.2").unwrap();
    assert_eq!(adopted.spec.attributes.0, Attributes::CROSS_SUBNET);
    assert_eq!((adopted.ifindex, adopted.spec.priority), (2, Priority(2000)));
    for (local, remote) in [
        ("10.1.0.1", "10.99.0.2"),
        ("10.1.0.1", "10.12.0.2:9"),
        ("10.1.0.1:9", "10.12.0.2"),
        ("10.9.0.1", "10.12.0.2"),
    ] {
        assert_eq!(adopt(local, remote), None, "{local} {remote}");
    }
}

prop_compose! {
    fn any_cards(host: u8)(
        cards in vec(vec((any::<bool>(), 0..4u8), 1..3), 0..5),
    ) -> Vec<Interface> {
        let numbered = cards.into_iter().zip(2u32..);
        numbered
            .map(|(addrs, index)| {
                let addrs: Vec<_> = addrs
                    .into_iter()
                    .map(|(v6, subnet)| match v6 {
                        true => format!("2001:db8:{subnet}::{index}:{host}/64"),
                        false => format!("10.{subnet}.{index}.{host}/16"),
                    })
                    .collect();
                let addrs: Vec<_> = addrs.iter().map(String::as_str).collect();
                interface(index, "eth", &addrs)
            })
            .collect()
    }
}

proptest! {
    /// Where both ends know the same ways, they begin with the same pairs, none of mixed families.
    #[test]
    fn both_ends_begin_with_the_same_pairs(own in any_cards(1), far in any_cards(2), all: bool) {
        let mut nodes = TwoNodes::new(&[], &[]);
        nodes.cards = [own, far];
        nodes.config.topology.all_cross_subnet = all;
        let nodes = nodes.with_all_ways();
        let ends = |node: usize| -> BTreeSet<_> {
            let routes = nodes.plan_of(node);
            let ends = routes.iter().map(|route| {
                let spec = &route.spec;
                let (local, remote) = (spec.real_local.ip(), spec.real_remote.ip());
                if node == 0 { (local, remote) } else { (remote, local) }
            });
            ends.collect()
        };
        let here = ends(0);
        prop_assert!(here.iter().all(|(local, remote)| local.is_ipv4() == remote.is_ipv4()));
        prop_assert_eq!(here, ends(1));
    }
}

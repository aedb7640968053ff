//! The routes to what a peer advertises: which pairs of cards are tried, and which stay. Pure.
//!
//! Metrics and roles rank; they do not decide which pairs exist. Three kinds of pairs are routes:
//!
//! * the [first choice](CandidateSet::choose_first): distinct cards at both ends;
//! * every pair on which the peer is heard: a route that is up is never removed because an order
//!   changed;
//! * for a card without a route that is up: all its pairs, until one is. While no route at all is
//!   up or may still come up, also those that its kernel seems to have no way back on.
//!
//! Neither end has to know what the other plans: a pair that one of them tries is adopted by the
//! other ([`plan_adopted_route`](crate::topology::plan_adopted_route)).

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::{
    config::PeerConfig,
    route::{Attributes, RouteClass},
    topology::{
        activity::RouteActivity,
        candidates::{Candidate, CandidateSet, RouteEnd, is_same_subnet},
        plan::{LocalEnd, RoutePlanner, matching_overrides, remote_addresses},
        types::{Interface, PlanInputs, PlannedRoute},
    },
    wire::interfaces::Advertisement,
};

/// The most routes to one peer beside those that the config names: fewer than a heartbeat carries
/// reports. Pairs that were never heard lose first.
pub const MAX_ROUTES_PER_PEER: usize = 48;

/// The first number of cards that only the config knows.
const FIRST_CONFIGURED_CARD: u32 = 1 << 16;

/// The ends of the routes to one peer.
struct PeerEnds<'a> {
    local: Vec<RouteEnd>,
    /// The interfaces of `local`.
    owners: Vec<&'a Interface>,
    remote: Vec<RouteEnd>,
    /// Advertised: the peer's kernel has a way out of that card.
    is_routed: Vec<bool>,
}

impl<'a> RoutePlanner<'a> {
    /// The routes to a peer beside `fixed`, which the config names.
    pub(crate) fn reachable_routes(
        &self,
        peer: &PeerConfig,
        inputs: &PlanInputs<'_>,
        fixed: &[PlannedRoute],
    ) -> Vec<PlannedRoute> {
        let far = inputs.advertisements.get(&peer.id);
        let ends = self.peer_ends(peer, inputs, far);
        let all = far.is_some_and(|far| far.all_cross_subnet)
            || self.own_advertisement.is_some_and(|own| own.all_cross_subnet);
        let activity_of = |candidate: &Candidate| {
            let (local, remote) = (&ends.local[candidate.local], &ends.remote[candidate.remote]);
            inputs.activities.get(&(peer.id, local.addr, remote.addr)).copied()
        };
        let candidates = self.find_candidates(&ends, inputs, (all, far.is_some()), activity_of);
        let set =
            CandidateSet { local: &ends.local, remote: &ends.remote, candidates: &candidates };
        let card_of =
            |ends: &[RouteEnd], addr| ends.iter().find(|end| end.addr == addr).map(|end| end.card);
        let named: Vec<_> = fixed
            .iter()
            .filter_map(|route| {
                let (local, remote) = (route.spec.real_local, route.spec.real_remote);
                let cards = (card_of(&ends.local, local)?, card_of(&ends.remote, remote)?);
                Some((cards, inputs.activities.get(&route.route_key()).copied()))
            })
            .collect();
        let first = set.choose_first(all, &named.iter().map(|(cards, _)| *cards).collect());
        let every = candidates.iter().map(|pair| (set.cards(pair), activity_of(pair)));
        let begun = first.iter().map(|pair| (set.cards(pair), activity_of(pair)));
        let coverage = Coverage::new(every.chain(named.clone()), begun.chain(named.clone()));
        let is_heard = |pair: &&Candidate| activity_of(pair).is_some_and(RouteActivity::is_heard);
        let mut chosen: Vec<Candidate> = candidates.iter().filter(is_heard).copied().collect();
        chosen.extend(first.iter().filter(|pair| {
            let is_superseded = coverage.is_superseded(set.cards(pair), activity_of(pair));
            all || pair.same_subnet || !is_superseded
        }));
        let mut running = self.running.iter().filter(|route| route.spec.peer == peer.id);
        let is_lost = coverage.fresh.is_empty() && running.all(|route| is_in_vain(route, inputs));
        let trials = candidates
            .iter()
            .filter(|pair| {
                let is_new = activity_of(pair) == Some(RouteActivity::Fresh);
                pair.is_likely || is_lost || is_new
            })
            .filter(|pair| coverage.wants_trial(set.cards(pair), activity_of(pair)))
            .filter(|pair| activity_of(pair).is_some() || ends.owners[pair.local].is_healthy())
            .copied()
            .collect();
        chosen.extend(set.spread_over_cards(trials, |pair| {
            activity_of(pair) == Some(RouteActivity::NeverHeard { long: true })
        }));
        let mut routes: Vec<PlannedRoute> = Vec::new();
        let mut seen: BTreeSet<_> = fixed.iter().map(PlannedRoute::route_key).collect();
        let mut add = |route: PlannedRoute| {
            if routes.len() < MAX_ROUTES_PER_PEER && seen.insert(route.route_key()) {
                routes.push(route);
            }
        };
        for route in self.heard_routes(peer, inputs, &ends) {
            add(route);
        }
        for candidate in chosen {
            let (owner, local) = (ends.owners[candidate.local], &ends.local[candidate.local]);
            let class = match candidate.same_subnet {
                true => RouteClass::SameSubnet,
                false => RouteClass::CrossSubnet,
            };
            let choice = LocalEnd::on_interface(owner, local.addr.ip(), class);
            add(self.build_route(peer, ends.remote[candidate.remote].addr, choice, far));
        }
        routes
    }

    /// The running routes on which the peer is heard, whatever is planned, as long as both ends are
    /// there.
    fn heard_routes(
        &self,
        peer: &PeerConfig,
        inputs: &PlanInputs<'_>,
        ends: &PeerEnds<'_>,
    ) -> Vec<PlannedRoute> {
        let is_heard = |route: &&PlannedRoute| {
            let spec = &route.spec;
            spec.peer == peer.id
                && spec.attributes.0 & Attributes::LEARNED == 0
                && inputs.activities.get(&route.route_key()).is_some_and(|it| it.is_heard())
                && ends.remote.iter().any(|end| end.addr == spec.real_remote)
        };
        let rebuilt = self.running.iter().filter(is_heard).filter_map(|route| {
            let (local, remote) = (route.spec.real_local.ip(), route.spec.real_remote);
            let owner = self.interfaces.iter().find(|interface| {
                interface.owns_address(local)
                    && self.is_eligible_source(interface, local, remote.ip())
            })?;
            let class = LocalEnd::from_planned(route).class();
            let choice = LocalEnd::on_interface(owner, local, class);
            Some(self.build_route(peer, remote, choice, inputs.advertisements.get(&peer.id)))
        });
        rebuilt.collect()
    }

    fn peer_ends(
        &self,
        peer: &PeerConfig,
        inputs: &PlanInputs<'_>,
        far: Option<&Advertisement>,
    ) -> PeerEnds<'a> {
        let mut ends = PeerEnds {
            local: Vec::new(),
            owners: Vec::new(),
            remote: Vec::new(),
            is_routed: Vec::new(),
        };
        for endpoint in self.own_advertisement.iter().flat_map(|own| &own.endpoints) {
            let mut owners = self.interfaces.iter();
            if let Some(owner) = owners.find(|owner| owner.owns_address(endpoint.addr)) {
                ends.owners.push(owner);
                ends.local.push(RouteEnd {
                    addr: SocketAddr::new(endpoint.addr, self.config.session.port),
                    subnet: Some(endpoint.subnet_prefix()),
                    card: owner.index,
                    metric: endpoint.metric,
                });
            }
        }
        // An override of the local address, or a network with the role none, takes precedence.
        let may_lead = |remote: SocketAddr| {
            self.check_remote(remote).is_ok()
                && !is_link_local(remote.ip())
                && !matching_overrides(peer, remote).any(|entry| entry.local.is_some())
        };
        for (far, endpoint) in
            far.iter().flat_map(|far| far.endpoints.iter().map(move |e| (far, e)))
        {
            let addr = SocketAddr::new(endpoint.addr, far.port);
            if may_lead(addr) {
                ends.is_routed.push(endpoint.is_routed);
                ends.remote.push(RouteEnd {
                    addr,
                    subnet: Some(endpoint.subnet_prefix()),
                    card: endpoint.interface.into(),
                    metric: endpoint.metric,
                });
            }
        }
        for (number, addr) in remote_addresses(peer, inputs.resolved).enumerate() {
            if may_lead(addr) && ends.remote.iter().all(|end| end.addr != addr) {
                let card = FIRST_CONFIGURED_CARD + number as u32;
                ends.is_routed.push(true);
                ends.remote.push(RouteEnd { addr, subnet: None, card, metric: 0 });
            }
        }
        ends
    }

    /// The pairs of one family that packets may pass between, as far as this node knows: on one
    /// subnet, or with a way of the kernel out of that very card; likely, if the peer has one
    /// there, too.
    fn find_candidates(
        &self,
        ends: &PeerEnds<'_>,
        inputs: &PlanInputs<'_>,
        (all, is_advertised): (bool, bool),
        activity_of: impl Fn(&Candidate) -> Option<RouteActivity>,
    ) -> Vec<Candidate> {
        let mut found = Vec::new();
        for (local, near) in ends.local.iter().enumerate() {
            for (remote, far) in ends.remote.iter().enumerate() {
                let owner = ends.owners[local];
                if !self.is_eligible_source(owner, near.addr.ip(), far.addr.ip()) {
                    continue;
                }
                let way = inputs.ways.get(&(near.addr.ip(), far.addr.ip())).copied();
                let same_subnet = is_same_subnet(near, far);
                let way_metric = way.unwrap_or(0);
                let mut candidate =
                    Candidate { local, remote, same_subnet, is_likely: true, way_metric };
                let activity = activity_of(&candidate);
                let was_heard = activity.is_some_and(RouteActivity::was_heard);
                let is_known = far.subnet.is_some() || is_advertised;
                // A running route stays while its interface is down.
                if (same_subnet && is_known)
                    || (all && is_advertised)
                    || (way.is_some() && (ends.is_routed[remote] || was_heard))
                    || (activity.is_some() && !owner.is_healthy())
                    || activity.is_some_and(RouteActivity::is_heard)
                {
                    found.push(candidate);
                } else if way.is_some() && is_advertised {
                    candidate.is_likely = false;
                    found.push(candidate);
                }
            }
        }
        found
    }
}

/// Which cards have a route that is up.
struct Coverage {
    /// Local (false) and remote cards with a route that is up.
    up: BTreeSet<(bool, u32)>,
    /// Those whose first choice may still come up.
    fresh: BTreeSet<(bool, u32)>,
}

/// The cards of a pair, and the activity of its route while it runs.
type CardsActivity = ((u32, u32), Option<RouteActivity>);

impl Coverage {
    /// `running` are all pairs, `begun` those that are tried before others.
    fn new(
        running: impl Iterator<Item = CardsActivity>,
        begun: impl Iterator<Item = CardsActivity>,
    ) -> Self {
        let up = running.filter(|(_, activity)| *activity == Some(RouteActivity::Up));
        let fresh =
            begun.filter(|(_, activity)| matches!(activity, None | Some(RouteActivity::Fresh)));
        let cards = |((local, remote), _): CardsActivity| [(false, local), (true, remote)];
        Self { up: up.flat_map(cards).collect(), fresh: fresh.flat_map(cards).collect() }
    }

    /// Returns whether a first choice that never came up has become needless.
    fn is_superseded(&self, cards: (u32, u32), activity: Option<RouteActivity>) -> bool {
        let mut both = [(false, cards.0), (true, cards.1)].into_iter();
        matches!(activity, None | Some(RouteActivity::NeverHeard { .. }))
            && both.all(|card| self.up.contains(&card))
    }

    /// Returns whether a pair is tried because one of its cards has no route that is up. One that
    /// is being tried stays until both have.
    fn wants_trial(&self, cards: (u32, u32), activity: Option<RouteActivity>) -> bool {
        [(false, cards.0), (true, cards.1)].iter().any(|card| {
            !self.up.contains(card) && (activity.is_some() || !self.fresh.contains(card))
        })
    }
}

/// Returns whether a route had its time, and is not up. That the peer is heard there is no contact:
/// it does not hear this node.
fn is_in_vain(route: &PlannedRoute, inputs: &PlanInputs<'_>) -> bool {
    match inputs.activities.get(&route.route_key()) {
        Some(RouteActivity::Silent | RouteActivity::NeverHeard { .. } | RouteActivity::Heard) => {
            true
        }
        Some(RouteActivity::Up | RouteActivity::Fresh) | None => false,
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

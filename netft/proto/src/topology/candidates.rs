//! The pairs of addresses that may form routes, and the first choice among them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

/// An address that a route may start from or lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteEnd {
    pub(crate) addr: SocketAddr,
    /// Its subnet; `None` for an address that only the config names.
    pub(crate) subnet: Option<IpNet>,
    /// Ends with the same number are on one interface.
    pub(crate) card: u32,
    pub(crate) metric: u32,
}

/// A pair of addresses that packets may pass between: indices into the two lists of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    pub(crate) local: usize,
    pub(crate) remote: usize,
    pub(crate) same_subnet: bool,
    /// Both kernels have a way, as far as is known; others are a last resort.
    pub(crate) is_likely: bool,
    /// The kernel's metric of the way.
    pub(crate) way_metric: u32,
}

/// The candidates between the ends of two nodes.
pub(crate) struct CandidateSet<'a> {
    pub(crate) local: &'a [RouteEnd],
    pub(crate) remote: &'a [RouteEnd],
    pub(crate) candidates: &'a [Candidate],
}

impl CandidateSet<'_> {
    /// The cards of a candidate.
    pub(crate) fn cards(&self, candidate: &Candidate) -> (u32, u32) {
        (self.local[candidate.local].card, self.remote[candidate.remote].card)
    }

    /// The candidates to begin with: as many distinct cards at both ends as possible, each pair of
    /// cards once, over IPv4 if possible, because its header is shorter. `joined` are the pairs of
    /// cards that have a route already.
    ///
    /// * On one subnet the first address is paired with the first and so on, and the shorter list
    ///   starts again (of several interfaces on one subnet none is ignored, U29).
    /// * Across routers the best pair of two unused cards comes first (A1→A2, B1→B2, C1→C2, as
    ///   NetFT without PlumbAllCrossSubnetRoutes), then the best pair of each card that is left.
    ///   With `all` every pair of cards is chosen.
    ///
    /// The order is the same at both ends, so that they choose alike where they know alike; where
    /// they do not, the pairs of both are tried.
    pub(crate) fn choose_first(&self, all: bool, joined: &BTreeSet<(u32, u32)>) -> Vec<Candidate> {
        let mut choice = FirstChoice { set: self, joined: joined.clone(), chosen: Vec::new() };
        for v6 in [false, true] {
            choice.zip_same_subnets(v6);
        }
        let likely = self.candidates.iter().filter(|candidate| candidate.is_likely);
        let mut ranked: Vec<_> = likely.copied().collect();
        ranked.sort_by_key(|candidate| self.rank(candidate));
        for wanted_new in [2, 1] {
            for candidate in &ranked {
                let (local, remote) = self.cards(candidate);
                let is_new = [
                    choice.joined.iter().all(|pair| pair.0 != local),
                    choice.joined.iter().all(|pair| pair.1 != remote),
                ];
                if is_new.into_iter().filter(|new| *new).count() >= wanted_new || all {
                    choice.add(*candidate);
                }
            }
        }
        choice.chosen
    }

    /// Order of preference, the same at both ends if both know the same ways.
    pub(crate) fn rank(&self, candidate: &Candidate) -> CandidateRank {
        let (local, remote) = (&self.local[candidate.local], &self.remote[candidate.remote]);
        let (here, there) = (local.addr, remote.addr);
        let metric = u64::from(local.metric) + u64::from(remote.metric);
        let ends = (here.min(there), here.max(there));
        (here.is_ipv6(), !candidate.same_subnet, metric, candidate.way_metric, ends)
    }

    /// `trials`, in the order in which they are worth their place: a candidate whose cards are in
    /// fewer others before it comes first; those that were tried for long come last.
    pub(crate) fn spread_over_cards(
        &self,
        mut trials: Vec<Candidate>,
        was_tried_long: impl Fn(&Candidate) -> bool,
    ) -> Vec<Candidate> {
        trials.sort_by_key(|candidate| {
            (was_tried_long(candidate), !candidate.is_likely, self.rank(candidate))
        });
        let mut uses: BTreeMap<(bool, u32), usize> = BTreeMap::new();
        let mut ordered: Vec<_> = trials
            .into_iter()
            .map(|candidate| {
                let (local, remote) = self.cards(&candidate);
                let mut round = 0;
                for card in [(false, local), (true, remote)] {
                    let uses = uses.entry(card).or_default();
                    *uses += 1;
                    round = round.max(*uses);
                }
                (was_tried_long(&candidate), round, candidate)
            })
            .collect();
        ordered.sort_by_key(|(long, round, _)| (*long, *round));
        ordered.into_iter().map(|(_, _, candidate)| candidate).collect()
    }
}

type CandidateRank = (bool, bool, u64, u32, (SocketAddr, SocketAddr));

struct FirstChoice<'a> {
    set: &'a CandidateSet<'a>,
    /// Pairs of cards.
    joined: BTreeSet<(u32, u32)>,
    chosen: Vec<Candidate>,
}

impl FirstChoice<'_> {
    fn add(&mut self, candidate: Candidate) {
        if self.joined.insert(self.set.cards(&candidate)) {
            self.chosen.push(candidate);
        }
    }

    fn zip_same_subnets(&mut self, v6: bool) {
        let (own, far) = (by_subnet(self.set.local, v6), by_subnet(self.set.remote, v6));
        for (subnet, here) in &own {
            let Some(there) = far.get(subnet) else { continue };
            for n in 0..here.len().max(there.len()) {
                let ends = (here[n % here.len()], there[n % there.len()]);
                let mut known = self.set.candidates.iter();
                if let Some(candidate) = known.find(|known| (known.local, known.remote) == ends) {
                    self.add(*candidate);
                }
            }
        }
    }
}

/// Indices by subnet, in the order of their addresses.
fn by_subnet(ends: &[RouteEnd], v6: bool) -> BTreeMap<IpNet, Vec<usize>> {
    let mut places: Vec<_> = (0..ends.len()).filter(|n| ends[*n].addr.is_ipv6() == v6).collect();
    places.sort_by_key(|place| ends[*place].addr);
    let mut subnets: BTreeMap<IpNet, Vec<usize>> = BTreeMap::new();
    for place in places {
        if let Some(subnet) = ends[place].subnet {
            subnets.entry(subnet).or_default().push(place);
        }
    }
    subnets
}

/// Returns whether `addr` is a neighbour of a local end on `subnet`: on the same subnet, as the
/// peer says, or in its prefix where only the config names it.
pub(crate) fn is_same_subnet(local: &RouteEnd, remote: &RouteEnd) -> bool {
    let within = |addr: IpAddr| local.subnet.is_some_and(|subnet| subnet.contains(&addr));
    match remote.subnet {
        Some(_) => local.subnet == remote.subnet,
        None => within(remote.addr.ip()),
    }
}

//! What lies between the nodes: for every network and direction, what passes and when.

use std::time::Duration;

use crate::{
    sim::{
        rng::Rng,
        scenario::{NetworkPlan, Shape},
    },
    time::Time,
};

/// One way over one network.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    cut: bool,
    loss_permille: u16,
}

/// One network between all nodes.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    shape: Shape,
    nodes: usize,
    ways: Vec<Way>,
    carrier: Vec<bool>,
    /// Added to the delay of every packet.
    slower: Duration,
    /// Per node: its routes over the network are out of use.
    out_of_use: Vec<bool>,
    /// Per node: since when its routes over the network are drained.
    drained: Vec<Option<Time>>,
    /// Of the routes over the network.
    pub(crate) priority: u32,
}

/// When a packet arrives: not at all, once, or twice.
pub(crate) type Arrivals = [Option<Duration>; 2];

impl Network {
    pub(crate) fn new(plan: &NetworkPlan, nodes: usize) -> Self {
        Self {
            shape: plan.shape,
            nodes,
            ways: vec![Way::default(); nodes * nodes],
            carrier: vec![true; nodes],
            slower: Duration::ZERO,
            out_of_use: vec![false; nodes],
            drained: vec![None; nodes],
            priority: plan.priority,
        }
    }

    /// Sends one packet. What is under way when a network is cut still arrives.
    pub(crate) fn send(&self, from: usize, to: usize, rng: &mut Rng) -> Arrivals {
        let way = self.ways[from * self.nodes + to];
        if self.blocked(from, to) || rng.chance(way.loss_permille) {
            return [None, None];
        }
        let first = self.travel(rng);
        let second = rng.chance(self.shape.duplicate_permille).then(|| self.travel(rng));
        [Some(first), second]
    }

    /// Whether nothing passes from one node to another.
    pub(crate) fn blocked(&self, from: usize, to: usize) -> bool {
        self.ways[from * self.nodes + to].cut || !self.carrier[from] || !self.carrier[to]
    }

    /// Whether everything passes from one node to another, and both use the network.
    pub(crate) fn clean(&self, from: usize, to: usize) -> bool {
        !self.blocked(from, to)
            && self.ways[from * self.nodes + to].loss_permille == 0
            && !self.out_of_use[from]
            && !self.out_of_use[to]
    }

    /// Returns whether that is news.
    pub(crate) fn set_out_of_use(&mut self, node: usize, out: bool) -> bool {
        std::mem::replace(&mut self.out_of_use[node], out) != out
    }

    /// Returns whether that is news.
    pub(crate) fn set_drained(&mut self, node: usize, now: Time, on: bool) -> bool {
        let since = self.drained[node].filter(|_| on).or(on.then_some(now));
        std::mem::replace(&mut self.drained[node], since) != since
    }

    /// Since when the routes of the pair are drained, by whoever ordered it first.
    pub(crate) fn drained(&self, a: usize, b: usize) -> Option<Time> {
        [self.drained[a], self.drained[b]].into_iter().flatten().min()
    }

    pub(crate) fn carrier(&self, node: usize) -> bool {
        self.carrier[node]
    }

    pub(crate) fn set_carrier(&mut self, node: usize, carrier: bool) {
        self.carrier[node] = carrier;
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.ways[from * self.nodes + to].cut = true;
    }

    pub(crate) fn cut_all(&mut self) {
        self.ways.iter_mut().for_each(|way| way.cut = true);
    }

    pub(crate) fn lose(&mut self, from: usize, to: usize, permille: u16) {
        self.ways[from * self.nodes + to].loss_permille = permille;
    }

    pub(crate) fn slow(&mut self, by: Duration) {
        self.slower = by;
    }

    /// Repairs the ways; carriers are the caller's, who must tell their nodes.
    pub(crate) fn heal(&mut self) {
        self.ways.fill(Way::default());
        self.slower = Duration::ZERO;
    }

    fn travel(&self, rng: &mut Rng) -> Duration {
        let held = rng.chance(self.shape.reorder_permille);
        let extra = if held { self.shape.reorder_by } else { Duration::ZERO };
        self.shape.delay + self.slower + rng.upto(self.shape.jitter) + extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::timing;

    fn network(shape: Shape) -> Network {
        Network::new(&NetworkPlan { timing: timing(30, 5), priority: 1, shape }, 2)
    }

    #[test]
    fn a_cut_one_way_leaves_the_other_way() {
        let mut network = network(Shape::default());
        let mut rng = Rng::new(0);
        network.cut(0, 1);
        assert_eq!(network.send(0, 1, &mut rng), [None, None]);
        assert_eq!(network.send(1, 0, &mut rng), [Some(Duration::ZERO), None]);
        network.heal();
        assert!(network.clean(0, 1));
    }

    #[test]
    fn a_lost_carrier_blocks_both_ways_and_healing_the_ways_leaves_it() {
        let mut network = network(Shape::default());
        network.set_carrier(1, false);
        network.heal();
        assert!(network.blocked(0, 1) && network.blocked(1, 0));
    }

    #[test]
    fn loss_and_duplicates_come_as_often_as_asked() {
        let mut network = network(Shape { duplicate_permille: 250, ..Shape::default() });
        network.lose(0, 1, 500);
        let mut rng = Rng::new(9);
        let arrivals: Vec<Arrivals> = (0..4000).map(|_| network.send(0, 1, &mut rng)).collect();
        let once = arrivals.iter().filter(|a| a[0].is_some()).count();
        let twice = arrivals.iter().filter(|a| a[1].is_some()).count();
        assert!((1800..2200).contains(&once), "{once}");
        assert!((400..600).contains(&twice), "{twice}");
        assert!(!network.clean(0, 1) && !network.blocked(0, 1));
    }
}

//! Networks between the nodes: for every direction, which packets pass and how long they take.

use std::time::Duration;

use crate::{
    sim::{
        rng::SplitMix64,
        scenario::{DataFault, NetworkModel, NetworkPlan},
    },
    time::Time,
};

/// Faults of one direction of one network.
#[derive(Clone, Copy, Debug, Default)]
struct DirectionFaults {
    cut: bool,
    loss_permille: u16,
    data_fault: Option<DataFault>,
    policer: PolicerState,
}

/// State of a fault that depends on earlier frames.
#[derive(Clone, Copy, Debug, Default)]
struct PolicerState {
    /// Frames of a burst that are still to be lost.
    burst_left: u16,
    /// The window of a policer and the frames in it.
    window: (Time, u16),
}

/// Frames lost in one burst.
const BURST_FRAMES: u16 = 10;
/// Loss from which data has to move, per mille.
const CLEAR_LOSS_PERMILLE: u16 = 30;
/// Loss in bursts from which data has to move, per mille. At 1 % there is a burst per 1,000 frames:
/// in a run there are too few for proof.
const CLEAR_BURST_PERMILLE: u16 = 30;
/// Loss in bursts that are rare, per mille: a comparison that waits for six takes this much longer.
const RARE_BURST_PERMILLE: u16 = 100;
const RARE_BURST_TIME: Duration = Duration::from_secs(2);
/// Window of a policer.
const POLICER_WINDOW: Duration = Duration::from_millis(10);

/// One network between all nodes.
#[derive(Clone, Debug)]
pub(crate) struct SimNetwork {
    model: NetworkModel,
    nodes: usize,
    directions: Vec<DirectionFaults>,
    /// Per node: its interface has carrier.
    carrier: Vec<bool>,
    /// Added to the delay of every packet.
    extra_delay: Duration,
    /// Per node: an operator takes its routes over the network out of use.
    out_of_use: Vec<bool>,
    /// Per node: since when its routes over the network are drained.
    drained_since: Vec<Option<Time>>,
    /// Priority of the routes over the network.
    pub(crate) priority: u32,
}

/// Delays of a packet's arrivals: none, one, or two when it is duplicated.
pub(crate) type ArrivalDelays = [Option<Duration>; 2];

impl SimNetwork {
    pub(crate) fn new(plan: &NetworkPlan, nodes: usize) -> Self {
        Self {
            model: plan.model,
            nodes,
            directions: vec![DirectionFaults::default(); nodes * nodes],
            carrier: vec![true; nodes],
            extra_delay: Duration::ZERO,
            out_of_use: vec![false; nodes],
            drained_since: vec![None; nodes],
            priority: plan.priority,
        }
    }

    /// Sends one packet. A packet in flight when the network is cut still arrives.
    pub(crate) fn send_packet(
        &self,
        from: usize,
        to: usize,
        rng: &mut SplitMix64,
    ) -> ArrivalDelays {
        let direction = self.directions[from * self.nodes + to];
        if self.is_blocked(from, to) || rng.chance_permille(direction.loss_permille) {
            return [None, None];
        }
        let first = self.draw_travel_time(rng);
        let second =
            rng.chance_permille(self.model.duplicate_permille).then(|| self.draw_travel_time(rng));
        [Some(first), second]
    }

    /// Sends one full-size frame of `size` bytes, which faults of data harm as well. `segmented`:
    /// it leaves in one send with others.
    pub(crate) fn send_data(
        &mut self,
        (from, to): (usize, usize),
        (size, segmented): (usize, bool),
        now: Time,
        rng: &mut SplitMix64,
    ) -> ArrivalDelays {
        let direction = &mut self.directions[from * self.nodes + to];
        let Some(fault) = direction.data_fault else { return self.send_packet(from, to, rng) };
        let mut extra = Duration::ZERO;
        let is_lost = match fault {
            DataFault::Loss(permille) | DataFault::Corruption(permille) => {
                rng.chance_permille(permille)
            }
            DataFault::Bursts(permille) => {
                let burst = &mut direction.policer.burst_left;
                // The start of a burst loses all of it.
                if *burst == 0 && rng.chance_permille(permille.div_ceil(BURST_FRAMES)) {
                    *burst = BURST_FRAMES;
                }
                let is_lost = *burst > 0;
                *burst = burst.saturating_sub(1);
                is_lost
            }
            DataFault::Policer(most) => {
                let (since, frames) = &mut direction.policer.window;
                if now.since(*since) >= POLICER_WINDOW {
                    (*since, *frames) = (now, 0);
                }
                *frames = frames.saturating_add(1);
                *frames > most
            }
            DataFault::Delay(by) => {
                extra = by;
                false
            }
            DataFault::SegmentedSends => segmented,
            DataFault::MaxSize(most) => size > usize::from(most),
        };
        if is_lost {
            return [None, None];
        }
        self.send_packet(from, to, rng).map(|arrival| arrival.map(|delay| delay + extra))
    }

    /// Returns true when nothing passes from one node to another.
    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.directions[from * self.nodes + to].cut || !self.carrier[from] || !self.carrier[to]
    }

    /// Returns true when everything passes from one node to another and both use the network.
    pub(crate) fn is_clean(&self, from: usize, to: usize) -> bool {
        // Taken apart, so that the compiler leads a new fault of a direction here.
        let DirectionFaults { cut: _, loss_permille, data_fault, policer: _ } =
            self.directions[from * self.nodes + to];
        !self.is_blocked(from, to)
            && loss_permille == 0
            && data_fault.is_none()
            && !self.out_of_use[from]
            && !self.out_of_use[to]
    }

    /// Returns true when that is a change.
    pub(crate) fn set_out_of_use(&mut self, node: usize, out: bool) -> bool {
        std::mem::replace(&mut self.out_of_use[node], out) != out
    }

    /// Returns true when that is a change.
    pub(crate) fn set_drained(&mut self, node: usize, now: Time, on: bool) -> bool {
        let since = self.drained_since[node].filter(|_| on).or(on.then_some(now));
        std::mem::replace(&mut self.drained_since[node], since) != since
    }

    /// Since when the routes of the pair are drained, by either end.
    pub(crate) fn pair_drained_since(&self, a: usize, b: usize) -> Option<Time> {
        [self.drained_since[a], self.drained_since[b]].into_iter().flatten().min()
    }

    pub(crate) fn has_carrier(&self, node: usize) -> bool {
        self.carrier[node]
    }

    pub(crate) fn set_carrier(&mut self, node: usize, carrier: bool) {
        self.carrier[node] = carrier;
    }

    pub(crate) fn cut_direction(&mut self, from: usize, to: usize) {
        self.directions[from * self.nodes + to].cut = true;
    }

    pub(crate) fn cut_all(&mut self) {
        self.directions.iter_mut().for_each(|direction| direction.cut = true);
    }

    pub(crate) fn set_loss(&mut self, from: usize, to: usize, permille: u16) {
        self.directions[from * self.nodes + to].loss_permille = permille;
    }

    pub(crate) fn set_data_fault(&mut self, from: usize, to: usize, fault: DataFault) {
        self.directions[from * self.nodes + to].data_fault = Some(fault);
    }

    /// Returns true when full-size frames from one node to another suffer loss that another network
    /// is clearly better than.
    pub(crate) fn loses_data(&self, from: usize, to: usize) -> bool {
        // A round trip that grew looks like a queue of the data's own.
        if !self.extra_delay.is_zero() {
            return false;
        }
        match self.directions[from * self.nodes + to].data_fault {
            Some(DataFault::Loss(permille) | DataFault::Corruption(permille)) => {
                permille >= CLEAR_LOSS_PERMILLE
            }
            Some(DataFault::Bursts(permille)) => permille >= CLEAR_BURST_PERMILLE,
            // What a policer loses depends on the data; a delay loses none. Of segmented sends rule
            // 19 speaks, and smaller frames pass a limit of the size.
            Some(
                DataFault::Policer(_)
                | DataFault::Delay(_)
                | DataFault::SegmentedSends
                | DataFault::MaxSize(_),
            )
            | None => false,
        }
    }

    /// How much longer it takes to find out about the loss of data, for its rarity.
    pub(crate) fn loss_rarity(&self, from: usize, to: usize) -> Duration {
        match self.directions[from * self.nodes + to].data_fault {
            Some(DataFault::Bursts(..RARE_BURST_PERMILLE)) => RARE_BURST_TIME,
            _ => Duration::ZERO,
        }
    }

    /// Returns true when segmented sends from one node to another vanish, and all else passes.
    pub(crate) fn loses_segments(&self, from: usize, to: usize) -> bool {
        let direction = self.directions[from * self.nodes + to];
        let back = self.directions[to * self.nodes + from];
        direction.data_fault == Some(DataFault::SegmentedSends)
            && direction.loss_permille == 0
            && back.loss_permille == 0
            && !self.is_blocked(from, to)
            && !self.is_blocked(to, from)
    }

    pub(crate) fn set_extra_delay(&mut self, by: Duration) {
        self.extra_delay = by;
    }

    /// Repairs cuts, losses and delays. Carriers are left to the caller, whose nodes see them.
    pub(crate) fn heal_directions(&mut self) {
        // Taken apart, so that the compiler leads a new fault here.
        let Self {
            directions,
            extra_delay,
            model: _,
            nodes: _,
            carrier: _,
            out_of_use: _,
            drained_since: _,
            priority: _,
        } = self;
        directions.fill(DirectionFaults::default());
        *extra_delay = Duration::ZERO;
    }

    fn draw_travel_time(&self, rng: &mut SplitMix64) -> Duration {
        let held_back = rng.chance_permille(self.model.reorder_permille);
        let extra = if held_back { self.model.reorder_by } else { Duration::ZERO };
        self.model.delay + self.extra_delay + rng.duration_up_to(self.model.jitter) + extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::clamped_timing;

    fn network(model: NetworkModel) -> SimNetwork {
        SimNetwork::new(&NetworkPlan { timing: clamped_timing(30, 5), priority: 1, model }, 2)
    }

    #[test]
    fn a_cut_in_one_direction_leaves_the_other() {
        let mut network = network(NetworkModel::default());
        let mut rng = SplitMix64::new(0);
        network.cut_direction(0, 1);
        assert_eq!(network.send_packet(0, 1, &mut rng), [None, None]);
        assert_eq!(network.send_packet(1, 0, &mut rng), [Some(Duration::ZERO), None]);
        network.heal_directions();
        assert!(network.is_clean(0, 1));
    }

    #[test]
    fn a_lost_carrier_blocks_both_directions_and_healing_directions_leaves_it() {
        let mut network = network(NetworkModel::default());
        network.set_carrier(1, false);
        network.heal_directions();
        assert!(network.is_blocked(0, 1) && network.is_blocked(1, 0));
    }

    #[test]
    fn loss_and_duplicates_come_as_often_as_asked() {
        let mut network =
            network(NetworkModel { duplicate_permille: 250, ..NetworkModel::default() });
        network.set_loss(0, 1, 500);
        let mut rng = SplitMix64::new(9);
        let arrivals: Vec<ArrivalDelays> =
            (0..4000).map(|_| network.send_packet(0, 1, &mut rng)).collect();
        let once = arrivals.iter().filter(|a| a[0].is_some()).count();
        let twice = arrivals.iter().filter(|a| a[1].is_some()).count();
        assert!((1800..2200).contains(&once), "{once}");
        assert!((400..600).contains(&twice), "{twice}");
        assert!(!network.is_clean(0, 1) && !network.is_blocked(0, 1));
    }
}

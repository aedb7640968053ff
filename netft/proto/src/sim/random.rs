//! Scenarios drawn from a seed.

use std::time::Duration;

use crate::{
    route::Timing,
    sim::{
        rng::Rng,
        scenario::{Fault, Scenario, Shape, timing},
    },
    time::Time,
};

/// The first faults come when everything is up.
const FIRST: u64 = 800;
/// The fault phase ends here; then everything is repaired.
const LENGTH: u64 = 5000;

impl Scenario {
    /// A scenario drawn from `seed`: 2–4 nodes, 1–4 networks, a few seconds of faults, and then a
    /// repair after which every pair must converge.
    pub fn random(seed: u64) -> Self {
        // The run itself draws from the seed too; the two must not be the same numbers.
        let mut rng = Rng::new(seed ^ 0x005c_e4a2_1000_0000);
        let nodes = rng.pick(&[2, 2, 2, 2, 3, 3, 4]);
        let networks = rng.pick(&[1, 2, 2, 2, 3, 3, 4]);
        let mut scenario = Self::new(seed)
            .nodes(nodes)
            .networks(networks)
            .hold(Duration::from_millis(rng.pick(&[50, 100, 200, 500, 1000])))
            .timer_slack(Duration::from_micros(rng.pick(&[0, 50, 500, 2000])))
            .data_every(Duration::from_millis(20))
            .leave_heartbeats(seed % 2 == 1)
            .run_for(Duration::from_millis(LENGTH))
            .then_converge();
        let one = draw_timing(&mut rng);
        let same = rng.chance(600);
        for network in 0..networks {
            let timing = if same { one } else { draw_timing(&mut rng) };
            let shape = draw_shape(&mut rng, timing);
            scenario = scenario.timing_of(network, timing).shape_of(network, shape);
            if rng.chance(300) {
                scenario = scenario.priority_of(network, rng.pick(&[5, 10, 20, 20]));
            }
        }
        let count = rng.range(2, 12);
        for _ in 0..count {
            let at = rng.range(FIRST, LENGTH - 200);
            scenario = draw_fault(scenario, &mut rng, at, (nodes, networks));
        }
        for _ in 0..rng.pick(&[0, 0, 1, 2, 3]) {
            let at = Time::from_millis(rng.range(FIRST, LENGTH - 200));
            scenario = draw_order(scenario, &mut rng, at, (nodes, networks));
        }
        scenario
    }
}

fn draw_timing(rng: &mut Rng) -> Timing {
    let (delay, threshold) =
        rng.pick(&[(30, 5), (30, 5), (50, 3), (100, 5), (20, 4), (100, 3), (10, 5)]);
    timing(delay, threshold)
}

/// Jitter and reordering stay well below the delay: a network that is meant to be good must not
/// look dead at a threshold of 3.
fn draw_shape(rng: &mut Rng, timing: Timing) -> Shape {
    let delay = timing.delay.duration();
    let far = rng.chance(150);
    Shape {
        delay: Duration::from_micros(50) + rng.upto(if far { delay * 2 } else { delay / 5 }),
        jitter: rng.upto(delay / 8),
        duplicate_permille: rng.pick(&[0, 0, 10, 200]),
        reorder_permille: rng.pick(&[0, 0, 10, 100]),
        reorder_by: rng.upto(delay / 4),
    }
}

fn draw_fault(
    scenario: Scenario,
    rng: &mut Rng,
    at: u64,
    (nodes, networks): (usize, usize),
) -> Scenario {
    let network = rng.below(networks as u64) as usize;
    let from = rng.below(nodes as u64) as usize;
    let to = (from + rng.range(1, nodes as u64 - 1) as usize) % nodes;
    let fault = match rng.below(100) {
        0..20 => Fault::Cut { network },
        20..45 => Fault::CutOneWay { network, from, to },
        45..60 => {
            let permille = rng.pick(&[10, 50, 200, 500, 900, 1000]);
            Fault::Loss { network, from, to, permille }
        }
        60..75 => Fault::CarrierLost { network, node: from },
        75..88 => {
            let length = Duration::from_millis(rng.pick(&[5, 20, 60, 150, 400, 1500]));
            match rng.chance(350) {
                true => Fault::Freeze { node: from, length },
                false => Fault::Pause { node: from, length },
            }
        }
        _ => Fault::Crash { node: from },
    };
    let repair = match fault {
        Fault::CarrierLost { network, node } if rng.chance(500) => {
            Some(Fault::CarrierBack { network, node })
        }
        Fault::Crash { node } => Some(Fault::Restart { node }),
        Fault::Pause { .. } | Fault::Freeze { .. } => None,
        _ => Some(Fault::Heal { network }),
    };
    let scenario = scenario.at(Time::from_millis(at), fault);
    // Some faults last until the final repair.
    match repair.filter(|_| rng.chance(750)) {
        Some(repair) => {
            let longest = rng.pick(&[40, 200, 800, 2000]);
            let after = Duration::from_micros(rng.range(1000, longest * 1000));
            scenario.at(Time::from_millis(at) + after, repair)
        }
        None => scenario,
    }
}

/// Something an operator orders.
fn draw_order(
    scenario: Scenario,
    rng: &mut Rng,
    at: Time,
    (nodes, networks): (usize, usize),
) -> Scenario {
    let network = rng.below(networks as u64) as usize;
    if rng.chance(400) {
        let priority = rng.pick(&[1, 10, 20, 30, 99]);
        return scenario.at(at, Fault::Priority { network, priority });
    }
    let node = rng.below(nodes as u64) as usize;
    let drain = rng.chance(500);
    let order = |on| match drain {
        true => Fault::Drain { network, node, on },
        false => Fault::Admin { network, node, down: on },
    };
    let scenario = scenario.at(at, order(true));
    if rng.chance(250) {
        return scenario;
    }
    let after = Duration::from_micros(rng.range(0, 1_500_000));
    scenario.at(at + after, order(false))
}

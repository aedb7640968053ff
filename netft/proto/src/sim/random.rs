//! Scenarios drawn from a seed.

use std::time::Duration;

use crate::{
    route::Timing,
    sim::{
        rng::SplitMix64,
        scenario::{DataFault, FaultAction, NetworkModel, Scenario, clamped_timing},
    },
    time::Time,
};

/// Start of the faults, milliseconds: every route is up by then.
const FIRST_FAULT_MS: u64 = 800;
/// The largest datagram that an Ethernet takes, bytes.
const ETHERNET_DATAGRAM: usize = 1472;
/// End of the faults, milliseconds: everything is repaired then.
const FAULT_PHASE_MS: u64 = 5000;

impl Scenario {
    /// A scenario drawn from `seed`: 2–4 nodes, 1–4 networks, a few seconds of faults, and then a
    /// repair after which every pair must converge.
    pub fn random(seed: u64) -> Self {
        // The run draws from the same seed; its numbers must be others.
        let mut rng = SplitMix64::new(seed ^ 0x005c_e4a2_1000_0000);
        let nodes = rng.pick_one(&[2, 2, 2, 2, 3, 3, 4]);
        let networks = rng.pick_one(&[1, 2, 2, 2, 3, 3, 4]);
        let mut scenario = Self::new(seed)
            .nodes(nodes)
            .networks(networks)
            .hold(Duration::from_millis(rng.pick_one(&[50, 100, 200, 500, 1000])))
            .timer_slack(Duration::from_micros(rng.pick_one(&[0, 50, 500, 2000])))
            .data_every(Duration::from_millis(20))
            .defer_heartbeats(seed % 2 == 1)
            .run_for(Duration::from_millis(FAULT_PHASE_MS))
            .then_converge();
        let common = draw_timing(&mut rng);
        let all_same = rng.chance_permille(600);
        for network in 0..networks {
            let timing = if all_same { common } else { draw_timing(&mut rng) };
            let model = draw_network_model(&mut rng, timing);
            scenario = scenario.timing_of(network, timing).model_of(network, model);
            if rng.chance_permille(300) {
                scenario = scenario.priority_of(network, rng.pick_one(&[5, 10, 20, 20]));
            }
        }
        let count = rng.next_in_range(2, 12);
        for _ in 0..count {
            let at = rng.next_in_range(FIRST_FAULT_MS, FAULT_PHASE_MS - 200);
            scenario = draw_fault(scenario, &mut rng, at, (nodes, networks));
        }
        for _ in 0..rng.pick_one(&[0, 0, 1, 2, 3]) {
            let at = Time::from_millis(rng.next_in_range(FIRST_FAULT_MS, FAULT_PHASE_MS - 200));
            scenario = draw_operator_action(scenario, &mut rng, at, (nodes, networks));
        }
        // Drawn last: the other faults of a seed do not depend on it.
        draw_interruption(scenario, &mut rng)
    }
}

impl Scenario {
    /// A scenario of bulk data drawn from `seed`: two nodes, two or three networks, and faults that
    /// only data suffers, or few frames besides. Every pair must converge afterwards.
    pub fn random_data_faults(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed ^ 0x00da_7a4a_17e0_0000);
        let networks = rng.pick_one(&[2, 3, 3]);
        let mut scenario = Self::new(seed)
            .networks(networks)
            .hold(Duration::from_millis(rng.pick_one(&[100, 500])))
            .timer_slack(Duration::from_micros(rng.pick_one(&[0, 200, 1000])))
            .data_every(Duration::from_millis(1))
            .run_for(Duration::from_secs(9))
            .then_converge();
        for network in 0..networks {
            let model = NetworkModel {
                delay: Duration::from_micros(rng.next_in_range(50, 2000)),
                jitter: rng.duration_up_to(Duration::from_millis(1)),
                duplicate_permille: rng.pick_one(&[0, 0, 10, 100]),
                reorder_permille: rng.pick_one(&[0, 0, 10, 200]),
                reorder_by: rng.duration_up_to(Duration::from_millis(5)),
            };
            scenario = scenario.model_of(network, model);
        }
        let spared = rng.next_below(networks as u64) as usize;
        for _ in 0..rng.next_in_range(1, 4) {
            let network = rng.next_below(networks as u64) as usize;
            let at = Time::from_millis(rng.next_in_range(1500, 4000));
            let from = rng.next_below(2) as usize;
            let fault = draw_data_fault(&mut rng);
            // One network stays good, mostly.
            if network != spared || rng.chance_permille(100) {
                let to = 1 - from;
                let fault = FaultAction::DataFault { network, from, to, fault };
                scenario = scenario.with_fault(at, fault);
            }
        }
        if rng.chance_permille(200) {
            let network = rng.next_below(networks as u64) as usize;
            let at = Time::from_millis(rng.next_in_range(5000, 8000));
            scenario = scenario.with_fault(at, FaultAction::Heal { network });
        }
        if rng.chance_permille(300) {
            let network = rng.next_below(networks as u64) as usize;
            let at = Time::from_millis(rng.next_in_range(1500, 6000));
            let most = Duration::from_millis(rng.pick_one(&[2, 10]));
            let by = rng.duration_up_to(most);
            if network != spared {
                scenario = scenario.with_fault(at, FaultAction::ExtraDelay { network, by });
            }
        }
        let limits_size = |fault: &FaultAction| {
            matches!(fault, FaultAction::DataFault { fault: DataFault::MaxSize(_), .. })
        };
        if scenario.faults().iter().any(|(_, fault)| limits_size(fault)) {
            scenario = scenario.datagram_limit(ETHERNET_DATAGRAM);
        }
        draw_interruption(scenario, &mut rng)
    }
}

/// Mostly adds nothing; or an interruption of the worker of a node that is never paused, for a
/// detection time at most: no route may go down for it (rule 4).
fn draw_interruption(scenario: Scenario, rng: &mut SplitMix64) -> Scenario {
    if !rng.chance_permille(250) {
        return scenario;
    }
    let node = rng.next_below(scenario.nodes as u64) as usize;
    let pauses = |fault: &FaultAction| {
        matches!(fault, FaultAction::Pause { node: paused, .. }
            | FaultAction::PauseDroppingPackets { node: paused, .. } if *paused == node)
    };
    if scenario.faults().iter().any(|(_, fault)| pauses(fault)) {
        return scenario;
    }
    let at = Time::from_millis(rng.next_in_range(FIRST_FAULT_MS, FAULT_PHASE_MS - 200));
    let detection_times = scenario.networks.iter().map(|plan| plan.timing.detection_time());
    let length = rng.duration_up_to(detection_times.min().unwrap_or_default());
    scenario.with_fault(at, FaultAction::InterruptWorker { node, length })
}

fn draw_data_fault(rng: &mut SplitMix64) -> DataFault {
    let permille = rng.pick_one(&[10, 30, 100, 300]);
    match rng.next_below(10) {
        0..5 => DataFault::Loss(permille),
        5..6 => DataFault::Corruption(permille),
        6..8 => DataFault::Bursts(permille),
        8..9 if permille == 10 => DataFault::SegmentedSends,
        8..9 if permille == 30 => DataFault::MaxSize(rng.pick_one(&[1250, 1400])),
        8..9 => DataFault::Policer(rng.pick_one(&[5, 10, 14])),
        _ => DataFault::Delay(Duration::from_millis(rng.pick_one(&[2, 10, 30]))),
    }
}

fn draw_timing(rng: &mut SplitMix64) -> Timing {
    let (delay, threshold) =
        rng.pick_one(&[(30, 5), (30, 5), (50, 3), (100, 5), (20, 4), (100, 3), (10, 5)]);
    clamped_timing(delay, threshold)
}

/// Jitter and reordering stay well below the heartbeat delay, so that a good network never reaches
/// a threshold of 3.
fn draw_network_model(rng: &mut SplitMix64, timing: Timing) -> NetworkModel {
    let delay = timing.delay.as_duration();
    let is_long = rng.chance_permille(150);
    NetworkModel {
        delay: Duration::from_micros(50)
            + rng.duration_up_to(if is_long { delay * 2 } else { delay / 5 }),
        jitter: rng.duration_up_to(delay / 8),
        duplicate_permille: rng.pick_one(&[0, 0, 10, 200]),
        reorder_permille: rng.pick_one(&[0, 0, 10, 100]),
        reorder_by: rng.duration_up_to(delay / 4),
    }
}

fn draw_fault(
    scenario: Scenario,
    rng: &mut SplitMix64,
    at: u64,
    (nodes, networks): (usize, usize),
) -> Scenario {
    let network = rng.next_below(networks as u64) as usize;
    let from = rng.next_below(nodes as u64) as usize;
    let to = (from + rng.next_in_range(1, nodes as u64 - 1) as usize) % nodes;
    let fault = match rng.next_below(100) {
        0..20 => FaultAction::Cut { network },
        20..45 => FaultAction::CutOneWay { network, from, to },
        45..60 => {
            let permille = rng.pick_one(&[10, 50, 200, 500, 900, 1000]);
            FaultAction::Loss { network, from, to, permille }
        }
        60..75 => FaultAction::CarrierLost { network, node: from },
        75..88 => {
            let length = Duration::from_millis(rng.pick_one(&[5, 20, 60, 150, 400, 1500]));
            match rng.chance_permille(350) {
                true => FaultAction::PauseDroppingPackets { node: from, length },
                false => FaultAction::Pause { node: from, length },
            }
        }
        88..94 => {
            // More at once is an outage while nothing arrives.
            let most = scenario.networks[network].timing.detection_time() / 4;
            FaultAction::ExtraDelay { network, by: rng.duration_up_to(most) }
        }
        _ => FaultAction::Crash { node: from },
    };
    let repair = match fault {
        FaultAction::CarrierLost { network, node } if rng.chance_permille(500) => {
            Some(FaultAction::CarrierRestored { network, node })
        }
        FaultAction::Crash { node } => Some(FaultAction::Restart { node }),
        FaultAction::Pause { .. }
        | FaultAction::PauseDroppingPackets { .. }
        | FaultAction::InterruptWorker { .. } => None,
        FaultAction::Cut { .. }
        | FaultAction::CutOneWay { .. }
        | FaultAction::Loss { .. }
        | FaultAction::DataFault { .. }
        | FaultAction::ExtraDelay { .. }
        | FaultAction::CarrierLost { .. } => Some(FaultAction::Heal { network }),
        // Repairs and operator actions are not drawn here.
        FaultAction::Heal { .. }
        | FaultAction::CarrierRestored { .. }
        | FaultAction::Restart { .. }
        | FaultAction::HealAll
        | FaultAction::Admin { .. }
        | FaultAction::Drain { .. }
        | FaultAction::Priority { .. } => None,
    };
    let scenario = scenario.with_fault(Time::from_millis(at), fault);
    // Some faults last until the final repair.
    match repair.filter(|_| rng.chance_permille(750)) {
        Some(repair) => {
            let longest = rng.pick_one(&[40, 200, 800, 2000]);
            let after = Duration::from_micros(rng.next_in_range(1000, longest * 1000));
            scenario.with_fault(Time::from_millis(at) + after, repair)
        }
        None => scenario,
    }
}

/// Adds an action of an operator, and mostly its end.
fn draw_operator_action(
    scenario: Scenario,
    rng: &mut SplitMix64,
    at: Time,
    (nodes, networks): (usize, usize),
) -> Scenario {
    let network = rng.next_below(networks as u64) as usize;
    if rng.chance_permille(400) {
        let priority = rng.pick_one(&[1, 10, 20, 30, 99]);
        return scenario.with_fault(at, FaultAction::Priority { network, priority });
    }
    let node = rng.next_below(nodes as u64) as usize;
    let is_drain = rng.chance_permille(500);
    let action = |on| match is_drain {
        true => FaultAction::Drain { network, node, on },
        false => FaultAction::Admin { network, node, down: on },
    };
    let scenario = scenario.with_fault(at, action(true));
    if rng.chance_permille(250) {
        return scenario;
    }
    let after = Duration::from_micros(rng.next_in_range(0, 1_500_000));
    scenario.with_fault(at + after, action(false))
}

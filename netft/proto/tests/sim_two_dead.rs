//! F-39: two of three networks die at the same instant. What was retransmitted on one of them and
//! stays silent goes on to the third within a probe timeout.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time, sim,
    sim::{FaultAction, Scenario, SimReport},
};

/// Longest delay of a packet sent around the fault, from one node to the other.
fn longest_stall(report: &SimReport, (from, to): (usize, usize), fault_at: Time) -> Duration {
    let span = fault_at..fault_at + Duration::from_secs(2);
    let packets = report.packets_between((from, to), span);
    packets.map(|packet| packet.arrived_at.unwrap().since(packet.sent_at)).max().unwrap()
}

#[test]
fn two_of_three_networks_that_die_together_stall_data_for_two_probe_timeouts() {
    let mut stalls = Vec::new();
    for seed in 0..200 {
        let fault_at = Time::from_millis(3000) + Duration::from_micros(seed * 337);
        let scenario = Scenario::new(seed)
            .networks(3)
            .data_every(Duration::from_millis([2, 20][seed as usize % 2]))
            .timer_slack(Duration::from_micros(500))
            .run_for(Duration::from_secs(6))
            .with_fault(fault_at, FaultAction::Cut { network: 0 })
            .with_fault(fault_at, FaultAction::Cut { network: 1 });
        let report = sim::run_scenario(&scenario);
        assert!(report.violations.is_empty(), "{}", report.failure_text(&scenario));
        stalls.push(longest_stall(&report, (0, 1), fault_at));
        stalls.push(longest_stall(&report, (1, 0), fault_at));
    }
    stalls.sort();
    let at = |permille: usize| stalls[(stalls.len() * permille / 1000).min(stalls.len() - 1)];
    println!("stall: median {:?}, p99 {:?}, longest {:?}", at(500), at(990), at(1000));
    assert!(at(990) <= Duration::from_millis(60), "{:?}", at(990));
}

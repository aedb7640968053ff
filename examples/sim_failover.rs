//! A failover on a virtual clock: two nodes, two networks, one cut, one repair.
//!
//! ```text
//! cargo run --example sim_failover            # the failover, step by step
//! cargo run --example sim_failover -- 42      # what the random scenario of seed 42 does
//! ```

use std::{env, process::ExitCode, time::Duration};

use netft_proto::{
    Time,
    route::{Event, EventKind},
    sim,
    sim::{FaultAction, Scenario, SimReport},
};

/// A line of the timeline.
type Line = (Time, String);

fn main() -> ExitCode {
    let scenario = match env::args().nth(1).map(|seed| seed.parse::<u64>()) {
        None => failover(),
        Some(Ok(seed)) => Scenario::random(seed),
        Some(Err(error)) => {
            eprintln!("sim_failover: the seed is a number: {error}");
            return ExitCode::from(2);
        }
    };
    let report = sim::run_scenario(&scenario);
    let mut lines: Vec<Line> = Vec::new();
    lines.extend(scenario.faults().iter().map(|(at, fault)| (*at, format!("FAULT  {fault:?}"))));
    lines.extend(report.events.iter().filter_map(|(node, event)| tell(&scenario, *node, event)));
    // Faults come first in their moment: the sort is stable.
    lines.sort_by_key(|(at, _)| *at);
    for (at, words) in &lines {
        println!("{:>10.3} ms  {words}", at.as_nanos() as f64 / 1e6);
    }
    summary(&report);
    if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        eprintln!("{}", report.failure_text(&scenario));
        ExitCode::FAILURE
    }
}

/// Network 0 dies between two heartbeats and comes back a second later.
fn failover() -> Scenario {
    Scenario::new(1)
        .nodes(2)
        .networks(2)
        .data_every(Duration::from_millis(5))
        .with_fault(Time::from_millis(1000), FaultAction::Cut { network: 0 })
        .with_fault(Time::from_millis(2000), FaultAction::Heal { network: 0 })
        .run_for(Duration::from_secs(4))
}

/// An event in words; `None` for those that only repeat another.
fn tell(scenario: &Scenario, node: usize, event: &Event) -> Option<Line> {
    let network =
        |route| scenario.network_of(node, route).map_or_else(|| "?".to_owned(), |n| n.to_string());
    let words = match &event.kind {
        EventKind::StateChanged { route, peer, from, to, reason, .. } => {
            format!("network {} to node {peer}: {from} -> {to} ({reason})", network(*route))
        }
        EventKind::EarlyWarning { route, peer, missed, threshold } => {
            let network = network(*route);
            format!("network {network} to node {peer}: {missed} of {threshold} heartbeats missed")
        }
        EventKind::Moved { peer, to: Some(to), reason, .. } => {
            format!("data to node {peer} moves to network {} ({reason})", network(*to))
        }
        EventKind::Moved { peer, to: None, reason, .. } => {
            format!("data to node {peer} has no way ({reason})")
        }
        EventKind::SessionEstablished { peer, boot_id } => {
            format!("session with node {peer} established (its start number {boot_id})")
        }
        EventKind::SessionEnded { peer } => format!("session with node {peer} ended"),
        EventKind::Stalled { length } => format!("was stopped for {length:?}; blames nobody"),
        _ => return None,
    };
    Some((event.at, format!("node {node} {words}")))
}

/// What it cost.
fn summary(report: &SimReport) {
    let sent = report.data.packets.len();
    let arrived = report.data.packets.iter().filter(|packet| packet.arrived_at.is_some()).count();
    let no_way = report.data.packets.iter().filter(|packet| packet.network.is_none()).count();
    println!();
    println!("virtual time   {:?} in {} steps", report.virtual_time, report.steps);
    println!("heartbeats     {} sent, {} heard", report.heartbeats, report.heartbeats_delivered);
    println!(
        "data packets   {sent} sent, {arrived} arrived, {} lost, {no_way} without a way",
        sent - arrived - no_way
    );
    if let Some(after) = report.converged_after {
        println!("converged      {after:?} after the last repair");
    }
    println!("trace          {:016x}", report.trace_hash);
}

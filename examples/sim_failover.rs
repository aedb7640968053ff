//! A failover on a virtual clock: two nodes, two networks, one cut, one repair.
//!
//! ```text
//! cargo run --example sim_failover            # the failover, step by step
//! cargo run --example sim_failover -- 42      # the random scenario of seed 42
//! ```

use std::{env, process::ExitCode, time::Duration};

use netft_proto::{
    Time,
    route::{Event, EventKind},
    sim,
    sim::{FaultAction, Scenario, SimReport},
};

/// A line of the timeline.
type TimelineLine = (Time, String);

fn main() -> ExitCode {
    let scenario = match env::args().nth(1).map(|seed| seed.parse::<u64>()) {
        None => failover_scenario(),
        Some(Ok(seed)) => Scenario::random(seed),
        Some(Err(error)) => {
            eprintln!("sim_failover: the seed is a number: {error}");
            return ExitCode::from(2);
        }
    };
    let report = sim::run_scenario(&scenario);
    let mut lines: Vec<TimelineLine> = Vec::new();
    lines.extend(scenario.faults().iter().map(|(at, fault)| (*at, format!("FAULT  {fault:?}"))));
    lines.extend(
        report.events.iter().filter_map(|(node, event)| event_line(&scenario, *node, event)),
    );
    // The sort is stable: a fault stays before the events of its moment.
    lines.sort_by_key(|(at, _)| *at);
    for (at, words) in &lines {
        println!("{:>10.3} ms  {words}", at.as_nanos() as f64 / 1e6);
    }
    print_summary(&report);
    if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        eprintln!("{}", report.failure_text(&scenario));
        ExitCode::FAILURE
    }
}

/// Network 0 fails between two heartbeats and is repaired a second later.
fn failover_scenario() -> Scenario {
    Scenario::new(1)
        .nodes(2)
        .networks(2)
        .data_every(Duration::from_millis(5))
        .with_fault(Time::from_millis(1000), FaultAction::Cut { network: 0 })
        .with_fault(Time::from_millis(2000), FaultAction::Heal { network: 0 })
        .run_for(Duration::from_secs(4))
}

/// A line for an event; `None` for events that another line implies.
fn event_line(scenario: &Scenario, node: usize, event: &Event) -> Option<TimelineLine> {
    let network =
        |route| scenario.network_of(node, route).map_or_else(|| "?".to_owned(), |n| n.to_string());
    let words = match &event.kind {
        EventKind::StateChanged { route, peer, from, to, reason, .. } => {
            format!("network {} to node {peer}: {from} -> {to} ({reason})", network(*route))
        }
        EventKind::EarlyWarning { route, peer, missed, threshold, .. } => {
            let network = network(*route);
            format!("network {network} to node {peer}: {missed} of {threshold} heartbeats missed")
        }
        EventKind::Moved { peer, to: Some(to), reason, .. } => {
            format!("data to node {peer} moves to network {} ({reason})", network(*to))
        }
        EventKind::Moved { peer, to: None, reason, .. } => {
            format!("data to node {peer} has no usable route ({reason})")
        }
        EventKind::SessionEstablished { peer, boot_id } => {
            format!("session with node {peer} established (boot id {boot_id})")
        }
        EventKind::SessionEnded { peer, cause } => {
            format!("session with node {peer} ended: {cause}")
        }
        EventKind::Stalled { length } => {
            format!("was not scheduled for {length:?}; every deadline is extended")
        }
        _ => return None,
    };
    Some((event.at, format!("node {node} {words}")))
}

/// Prints the totals of the run.
fn print_summary(report: &SimReport) {
    let sent = report.data.packets.len();
    let arrived = report.data.packets.iter().filter(|packet| packet.arrived_at.is_some()).count();
    let unroutable = report.data.packets.iter().filter(|packet| packet.network.is_none()).count();
    println!();
    println!("virtual time   {:?} in {} steps", report.virtual_time, report.steps);
    println!(
        "heartbeats     {} sent, {} delivered",
        report.heartbeats, report.heartbeats_delivered
    );
    println!(
        "data packets   {sent} sent, {arrived} arrived, {} lost, {unroutable} without a route",
        sent - arrived - unroutable
    );
    if let Some(after) = report.converged_after {
        println!("converged      {after:?} after the last repair");
    }
    println!("trace          {:016x}", report.trace_hash);
}

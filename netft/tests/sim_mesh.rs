//! Full meshes of 16, 64 and 256 nodes over three networks in the simulator: convergence and
//! detection within bounds, and what a node costs.
//!
//! 256 nodes are 195,840 ends of routes and take minutes:
//! `cargo test --release -p netft --features sim --test sim_mesh -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    route::RouteState,
    sim::{Mesh, MeshChange, MeshPlan},
};
use rustix::time::{ClockId, clock_gettime};

const NETWORKS: usize = 3;
const DELAY: Duration = Duration::from_millis(100);
const DETECTION: Duration = Duration::from_millis(500);
const TRAVEL: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Processor time of this thread.
fn spent() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Moments at which ends of routes stopped being up, checked to be `expected` many and no others
/// to have changed but over `network`.
fn lost(changes: &[MeshChange], network: usize, expected: usize) -> Vec<Time> {
    let mut left = Vec::new();
    for change in changes {
        match change {
            MeshChange::State { at, network: over, from, .. } => {
                assert_eq!(*over, network, "another network's route changed: {change:?}");
                left.extend((*from == RouteState::Up).then_some(*at));
            }
            MeshChange::Moved { from, to, .. } => {
                assert_eq!(*from, Some(network), "data left a route that works: {change:?}");
                assert!(to.is_some(), "data stopped although two networks work: {change:?}");
            }
        }
    }
    assert_eq!(left.len(), expected, "routes that stopped being up");
    left
}

/// Never before the last heartbeat is a detection time old, and never later than that.
fn in_time(left: &[Time], fault: Time) -> Duration {
    let (first, last) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(first.since(fault) + DELAY * 5 / 4 + TRAVEL >= DETECTION, "{:?}", first.since(fault));
    assert!(last.since(fault) <= DETECTION + TRAVEL * 2, "{:?}", last.since(fault));
    last.since(fault)
}

fn play(nodes: usize, loss_permille: u16) {
    let mut mesh = Mesh::new(MeshPlan {
        nodes,
        networks: NETWORKS,
        delay_ms: DELAY.as_millis() as u64,
        threshold: 5,
        one_way_delay: TRAVEL,
        loss_permille,
        seed: nodes as u64,
    });
    // Sessions begin within 100 ms; a route is up once both ends have heard and said so.
    let mut converged = None;
    while converged.is_none() && mesh.now() < Time::ZERO + SECOND * 2 {
        mesh.run_for(Duration::from_millis(5));
        converged = (mesh.routes_up() == mesh.route_end_count()).then(|| mesh.now());
    }
    let converged = converged.expect("every route comes up");
    if loss_permille == 0 {
        assert!(converged <= Time::ZERO + DELAY * 3, "all up only at {converged}");
    }
    mesh.take_changes();
    // Until the routes are steady.
    mesh.run_for(SECOND * 2);

    let (cpu, before) = (spent(), mesh.heartbeats_sent());
    let quiet = SECOND * 2;
    mesh.run_for(quiet);
    let (cpu, sent) = (spent() - cpu, mesh.heartbeats_sent() - before);
    assert!(mesh.take_changes().is_empty(), "something changed although nothing happened");
    let routes = (nodes - 1) * NETWORKS;
    let rate = sent as f64 / nodes as f64 / quiet.as_secs_f64();
    let per_route = rate / routes as f64 * DELAY.as_secs_f64();
    // A request and a reply of each end per 172–188 % of the delay, or half of that where some are
    // lost.
    let (least, most) = if loss_permille == 0 { (2.0 / 1.88, 2.0 / 1.72) } else { (1.2, 2.67) };
    assert!(per_route >= least * 0.98 && per_route <= most * 1.02, "{per_route}");

    let mut silent = None;
    if loss_permille == 0 {
        // One cable.
        let fault = mesh.now();
        mesh.unplug_node(nodes / 2, 0);
        mesh.run_for(SECOND);
        let left = lost(&mesh.take_changes(), 0, 2 * (nodes - 1));
        silent = Some(in_time(&left, fault));
        mesh.heal_networks();
        mesh.run_for(SECOND * 3);
        assert_eq!(mesh.routes_up(), mesh.route_end_count(), "every route is back");
        mesh.take_changes();
        // A whole network.
        let fault = mesh.now();
        mesh.cut_network(0);
        mesh.run_for(SECOND);
        let left = lost(&mesh.take_changes(), 0, nodes * (nodes - 1));
        in_time(&left, fault);
        mesh.heal_networks();
        mesh.run_for(SECOND);
        assert_eq!(mesh.routes_up(), mesh.route_end_count(), "every route is back");
    }
    println!(
        "| {nodes} | {routes} | {loss_permille} | {} | {rate:.0} | {:.3} ms | {:.2} µs | {} |",
        converged.as_millis(),
        cpu.as_secs_f64() * 1e3 / quiet.as_secs_f64() / nodes as f64,
        cpu.as_secs_f64() * 1e6 / sent as f64,
        silent.map_or_else(|| "–".to_owned(), |silent| format!("{} ms", silent.as_millis())),
    );
}

fn head() {
    println!(
        "| nodes | routes per node | loss ‰ | all up, ms | heartbeats/s per node, sent | CPU per \
         node and second, engine and simulator | per heartbeat | last route of a dead cable down |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

#[test]
fn sixteen_nodes_converge_and_detect_within_bounds() {
    head();
    play(16, 0);
}

#[test]
fn sixteen_nodes_bear_one_percent_of_loss() {
    head();
    play(16, 10);
}

#[test]
fn sixty_four_nodes_converge_and_detect_within_bounds() {
    head();
    play(64, 0);
}

#[test]
#[ignore = "minutes, and a gigabyte"]
fn two_hundred_and_fifty_six_nodes_converge_and_detect_within_bounds() {
    head();
    for nodes in [16, 64, 256] {
        play(nodes, 0);
    }
}

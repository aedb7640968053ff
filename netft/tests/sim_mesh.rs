//! Full meshes of 16, 64 and 256 nodes over three networks in the simulator: convergence and
//! detection within bounds, and processor time per node.
//!
//! 256 nodes are 195,840 ends of routes and take minutes:
//! `cargo test --release -p netft --test sim_mesh -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use netft_proto::{
    Time,
    route::{Delay, EventKind, RouteState, Threshold, Timing},
    sim::{FaultAction, NetworkModel, Scenario, Simulation},
};
use rustix::time::{ClockId, clock_gettime};

const NETWORKS: usize = 3;
const DELAY: Duration = Duration::from_millis(100);
const DETECTION: Duration = Duration::from_millis(500);
const TRAVEL: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Processor time of this thread.
fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn mesh_scenario(nodes: usize, loss_permille: u16) -> Scenario {
    let timing = Timing {
        delay: Delay::from_millis(DELAY.as_millis() as u64).unwrap(),
        threshold: Threshold::new(5).unwrap(),
    };
    let mut scenario = Scenario::new(nodes as u64)
        .nodes(nodes)
        .networks(NETWORKS)
        .timing(timing)
        .data_every(Duration::ZERO)
        .without_invariants();
    for network in 0..NETWORKS {
        let model = NetworkModel { delay: TRAVEL, ..NetworkModel::default() };
        scenario = scenario.model_of(network, model);
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
            if loss_permille > 0 && from != to {
                let loss = FaultAction::Loss { network, from, to, permille: loss_permille };
                scenario = scenario.with_fault(Time::ZERO, loss);
            }
        }
    }
    scenario
}

/// A mesh in progress, with the changes of routes and of data since the last look.
struct Mesh<'a> {
    simulation: Simulation<'a>,
    scenario: &'a Scenario,
    seen_events: usize,
    routes_up: usize,
}

/// Changes of one span of time.
#[derive(Debug, Default)]
struct MeshChanges {
    /// When an end of a route stopped being up, and its network.
    left_up: Vec<(Time, usize)>,
    /// Networks on which a route changed its state.
    changed_on: Vec<usize>,
    /// Networks that data left, and entered.
    moves: Vec<(Option<usize>, Option<usize>)>,
}

impl Mesh<'_> {
    fn run_for(&mut self, length: Duration) -> MeshChanges {
        self.simulation.run_until(self.simulation.now() + length);
        let mut changes = MeshChanges::default();
        let events = &self.simulation.report().events[self.seen_events..];
        self.seen_events += events.len();
        for (node, event) in events {
            let network = |route| self.scenario.network_of(*node, route).unwrap();
            if let EventKind::StateChanged { route, from, to, .. } = event.kind {
                changes.changed_on.push(network(route));
                self.routes_up += usize::from(to == RouteState::Up);
                if from == RouteState::Up {
                    self.routes_up -= 1;
                    changes.left_up.push((event.at, network(route)));
                }
            } else if let EventKind::Moved { from, to, .. } = event.kind {
                changes.moves.push((from.map(network), to.map(network)));
            }
        }
        changes
    }

    /// Cuts a node off a network, without a sign at its interface.
    fn unplug_node(&mut self, nodes: usize, node: usize, network: usize) {
        for peer in (0..nodes).filter(|peer| *peer != node) {
            for (from, to) in [(node, peer), (peer, node)] {
                self.simulation.apply_fault(FaultAction::CutOneWay { network, from, to });
            }
        }
    }
}

/// When routes stopped being up, after checking that there are `expected` of them, all over
/// `network`, and that data moved to a network that works.
fn lost_routes(changes: &MeshChanges, network: usize, expected: usize) -> Vec<Time> {
    assert!(changes.changed_on.iter().all(|on| *on == network), "another network's route changed");
    for (from, to) in &changes.moves {
        assert_eq!(*from, Some(network), "data left a route that works");
        assert!(to.is_some(), "data stopped although two networks work");
    }
    assert_eq!(changes.left_up.len(), expected, "routes that stopped being up");
    changes.left_up.iter().map(|(at, _)| *at).collect()
}

/// Checks that no route went down before its last heartbeat was a detection time old, and none
/// later; returns the longest detection.
fn check_detection(left: &[Time], fault: Time) -> Duration {
    let (first, last) = (left.iter().min().unwrap(), left.iter().max().unwrap());
    assert!(first.since(fault) + DELAY * 5 / 4 + TRAVEL >= DETECTION, "{:?}", first.since(fault));
    assert!(last.since(fault) <= DETECTION + TRAVEL * 2, "{:?}", last.since(fault));
    last.since(fault)
}

fn play(nodes: usize, loss_permille: u16) {
    let scenario = mesh_scenario(nodes, loss_permille);
    let mut mesh = Mesh {
        simulation: Simulation::new(&scenario),
        scenario: &scenario,
        seen_events: 0,
        routes_up: 0,
    };
    let route_ends = nodes * (nodes - 1) * NETWORKS;
    // Sessions begin within 15 ms; a route is up once both ends have received and reported it.
    let mut converged = None;
    while converged.is_none() && mesh.simulation.now() < Time::ZERO + SECOND * 2 {
        mesh.run_for(Duration::from_millis(5));
        converged = (mesh.routes_up == route_ends).then(|| mesh.simulation.now());
    }
    let converged = converged.expect("every route comes up");
    if loss_permille == 0 {
        assert!(converged <= Time::ZERO + DELAY * 3, "all up only at {converged}");
    }
    // Until the cadence is steady.
    mesh.run_for(SECOND * 2);

    let (cpu, before) = (thread_time(), mesh.simulation.report().heartbeats);
    let quiet = SECOND * 2;
    let changes = mesh.run_for(quiet);
    let (cpu, sent) = (thread_time() - cpu, mesh.simulation.report().heartbeats - before);
    let unchanged = changes.changed_on.is_empty() && changes.moves.is_empty();
    assert!(unchanged, "something changed although nothing happened");
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
        let fault = mesh.simulation.now();
        mesh.unplug_node(nodes, nodes / 2, 0);
        let left = lost_routes(&mesh.run_for(SECOND), 0, 2 * (nodes - 1));
        silent = Some(check_detection(&left, fault));
        mesh.simulation.apply_fault(FaultAction::Heal { network: 0 });
        mesh.run_for(SECOND * 3);
        assert_eq!(mesh.routes_up, route_ends, "every route is back");
        // A whole network.
        let fault = mesh.simulation.now();
        mesh.simulation.apply_fault(FaultAction::Cut { network: 0 });
        let left = lost_routes(&mesh.run_for(SECOND), 0, nodes * (nodes - 1));
        check_detection(&left, fault);
        mesh.simulation.apply_fault(FaultAction::Heal { network: 0 });
        mesh.run_for(SECOND);
        assert_eq!(mesh.routes_up, route_ends, "every route is back");
    }
    println!(
        "| {nodes} | {routes} | {loss_permille} | {} | {rate:.0} | {:.3} ms | {:.2} µs | {} |",
        converged.as_millis(),
        cpu.as_secs_f64() * 1e3 / quiet.as_secs_f64() / nodes as f64,
        cpu.as_secs_f64() * 1e6 / sent as f64,
        silent.map_or_else(|| "–".to_owned(), |silent| format!("{} ms", silent.as_millis())),
    );
}

fn print_head() {
    println!(
        "| nodes | routes per node | loss ‰ | all up, ms | heartbeats/s per node, sent | CPU per \
         node and second, engine and simulator | per heartbeat | last route of a dead cable down |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

#[test]
fn sixteen_nodes_converge_and_detect_within_bounds() {
    print_head();
    play(16, 0);
}

#[test]
fn sixteen_nodes_bear_one_percent_of_loss() {
    print_head();
    play(16, 10);
}

#[test]
fn sixty_four_nodes_converge_and_detect_within_bounds() {
    print_head();
    play(64, 0);
}

#[test]
#[ignore = "minutes, and a gigabyte"]
fn two_hundred_and_fifty_six_nodes_converge_and_detect_within_bounds() {
    print_head();
    for nodes in [16, 64, 256] {
        play(nodes, 0);
    }
}

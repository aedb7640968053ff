//! A full mesh of daemons in a real kernel: all pairs find each other, and no flow breaks under
//! random faults while a route lives.
//!
//! The long form has `NETFT_NODES` nodes (16) over three networks for `NETFT_MINUTES` (10):
//! `NETFTD=target/release/netftd NETFT=target/release/netft cargo test --test mesh -- --ignored
//! --nocapture`.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use common::{TEST_TIMEOUT, TRAFFIC_CHECK_TIME, faults::TestRng, number_from_env, programs};
use netft_lab::{
    Lab,
    daemon::{Daemon, Site, SiteSettings},
    in_namespace_for,
    transfer::Transfer,
};

const NETWORKS: usize = 3;
/// Faults fit between the heartbeats of a large mesh.
const TIMING: &str = "[heartbeat]\ndelay = 100\nthreshold = 5\n\n[failover]\nhold = 300\n";
const DETECTION: Duration = Duration::from_millis(500);
/// Of one flow, bytes per second.
const RATE: u64 = 50_000;

struct Mesh {
    // Daemons first: they end before their namespaces and files go.
    daemons: Vec<Daemon>,
    site: Site,
    lab: Lab,
}

impl Mesh {
    /// Starts every daemon and waits for every route; returns how long after the last start that
    /// took.
    fn up(nodes: usize) -> (Self, Duration) {
        let lab = Lab::new(nodes, NETWORKS).unwrap();
        let settings = SiteSettings { common: TIMING, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let daemons = (0..nodes).map(|node| site.start_daemon(&lab, node).unwrap()).collect();
        let started = Instant::now();
        let mut mesh = Self { daemons, site, lab };
        mesh.ready();
        (mesh, started.elapsed())
    }

    fn nodes(&self) -> usize {
        self.daemons.len()
    }

    fn ready(&mut self) {
        let routes = (self.nodes() - 1) * NETWORKS;
        self.daemons.iter_mut().for_each(|daemon| drop(daemon.wait_ready(routes).unwrap()));
    }

    fn endpoint(&self, node: usize) -> SocketAddr {
        self.site.virtual_endpoint(&self.lab, node, false).unwrap()
    }

    /// Every node sends its number to every other one until all have received all.
    fn all_reach_all(&self) {
        let open = |node: usize| {
            let endpoint = self.endpoint(node);
            let socket =
                self.lab.node_netns(node).run_inside(|| UdpSocket::bind(endpoint)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let sockets: Vec<UdpSocket> = (0..self.nodes()).map(open).collect();
        let ends: Vec<SocketAddr> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        let mut heard = vec![vec![false; self.nodes()]; self.nodes()];
        let deadline = Instant::now() + TEST_TIMEOUT;
        let missing = |heard: &[Vec<bool>]| {
            let pairs = (0..heard.len()).flat_map(|a| (0..heard.len()).map(move |b| (a, b)));
            pairs.filter(|(a, b)| a != b && !heard[*a][*b]).collect::<Vec<_>>()
        };
        while !missing(&heard).is_empty() {
            common::assert_before(deadline, || format!("not heard by: {:?}", missing(&heard)));
            for (to, from) in missing(&heard) {
                // A full queue is tried again.
                let _ = sockets[from].send_to(&[from as u8], ends[to]);
            }
            thread::sleep(TRAFFIC_CHECK_TIME / 10);
            for (node, socket) in sockets.iter().enumerate() {
                let mut word = [0; 8];
                while let Ok((length, from)) = socket.recv_from(&mut word) {
                    assert_eq!(length, 1);
                    let sender = usize::from(word[0]);
                    assert_eq!(from, ends[sender], "somebody else's address");
                    heard[node][sender] = true;
                }
            }
        }
    }

    /// Flows between random pairs.
    fn flows(&self, count: usize, dice: &mut TestRng) -> Vec<Transfer> {
        let nodes = self.nodes() as u64;
        let flow = |_| {
            let from = dice.between(0, nodes);
            let to = (from + dice.between(1, nodes)) % nodes;
            let [from, to] = [from as usize, to as usize];
            let ends = [from, to].map(|node| (self.lab.node_netns(node), self.endpoint(node)));
            Transfer::start(ends[0], ends[1], Some(RATE)).unwrap()
        };
        (0..count).map(flow).collect()
    }

    /// One network, or one node's part in it, fails for longer than it takes to notice, and comes
    /// back.
    fn fault(&mut self, dice: &mut TestRng) -> &'static str {
        let nodes = self.nodes() as u64;
        let network = dice.between(0, NETWORKS as u64) as usize;
        let node = dice.between(0, nodes) as usize;
        let other = (node + dice.between(1, nodes) as usize) % self.nodes();
        let what = match dice.between(0, 3) {
            0 => self.lab.black_hole(network).map(|_| "a network swallows everything"),
            1 => self.lab.cut_carrier(network, node).map(|_| "a node loses a carrier"),
            // With more than two nodes no frames reach `other` there.
            _ => self
                .lab
                .drop_one_way(network, node, other)
                .map(|_| "a node hears nothing on a network"),
        };
        let lasts = Duration::from_millis(dice.between(200, 1500));
        thread::sleep(lasts + DETECTION);
        self.lab.heal_network(network).unwrap();
        self.ready();
        what.unwrap()
    }

    /// Processor time per node over `span`, in percent of a core.
    fn cost(&self, span: Duration) -> Vec<f64> {
        let take = || -> Vec<Duration> {
            self.daemons.iter().map(|daemon| daemon.processor_time().unwrap()).collect()
        };
        let (before, start) = (take(), Instant::now());
        thread::sleep(span);
        let (after, elapsed) = (take(), start.elapsed().as_secs_f64());
        let spent = after.iter().zip(&before).map(|(after, before)| *after - *before);
        spent.map(|spent| spent.as_secs_f64() * 100.0 / elapsed).collect()
    }
}

/// No flow saw an error, and no byte changed.
fn all_alive(flows: Vec<Transfer>) {
    let mut bytes = 0;
    for (number, flow) in flows.into_iter().enumerate() {
        let outcome = flow.finish();
        assert_eq!(outcome.errors, Vec::<String>::new(), "flow {number}");
        assert!(outcome.hash_equal && outcome.bytes == outcome.received, "flow {number}");
        assert!(outcome.received > 0, "flow {number} carried nothing");
        bytes += outcome.received;
    }
    println!("0 resets, {bytes} bytes with equal hashes");
}

#[test]
fn four_nodes_reach_each_other_and_their_flows_outlive_faults() {
    let name = "four_nodes_reach_each_other_and_their_flows_outlive_faults";
    in_namespace_for(name, Duration::from_secs(120), || {
        let mut dice = TestRng(number_from_env("NETFT_SEED", 1));
        let (mut mesh, _) = Mesh::up(4);
        mesh.all_reach_all();
        let flows = mesh.flows(6, &mut dice);
        for _ in 0..3 {
            mesh.fault(&mut dice);
        }
        all_alive(flows);
        mesh.all_reach_all();
    });
}

#[test]
#[ignore = "takes NETFT_MINUTES"]
fn a_large_mesh_bears_random_faults() {
    let nodes = number_from_env("NETFT_NODES", 16) as usize;
    let span = Duration::from_secs(60 * number_from_env("NETFT_MINUTES", 10));
    let limit = span * 2 + Duration::from_secs(300);
    in_namespace_for("a_large_mesh_bears_random_faults", limit, || {
        let mut dice = TestRng(number_from_env("NETFT_SEED", 1));
        let (mut mesh, took) = Mesh::up(nodes);
        println!("{nodes} nodes: every route up {took:?} after the last start");
        assert!(took <= Duration::from_secs(10), "{took:?}");
        mesh.all_reach_all();
        thread::sleep(Duration::from_secs(5));
        // Other jobs come and go on the machine: the quietest of three spans.
        let mean = |cost: &[f64]| cost.iter().sum::<f64>() / nodes as f64;
        let spans: Vec<_> = (0..3).map(|_| mesh.cost(Duration::from_secs(10))).collect();
        let cost = spans.iter().min_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap();
        let (mean, most) = (mean(cost), cost.iter().copied().fold(0.0, f64::max));
        let memory: Vec<u64> =
            mesh.daemons.iter().map(|d| d.anonymous_memory().unwrap() >> 10).collect();
        println!(
            "idle: {mean:.2} % of a core per node, at most {most:.2} %; {} KiB of memory",
            memory.iter().max().unwrap(),
        );
        let flows = mesh.flows(nodes * 2, &mut dice);
        let start = Instant::now();
        let mut faults = std::collections::BTreeMap::<_, u32>::new();
        while start.elapsed() < span {
            *faults.entry(mesh.fault(&mut dice)).or_default() += 1;
        }
        println!("{:?}: {faults:?}", start.elapsed());
        all_alive(flows);
        mesh.all_reach_all();
        assert!(mean <= 3.0, "heartbeats cost {mean:.2} % of a core per node");
    });
}

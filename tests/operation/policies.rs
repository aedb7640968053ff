//! Policies in a real kernel: copies on two networks, flows over both, and classes apart.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::common::{NodePair, TEST_TIMEOUT, TRAFFIC_CHECK_TIME};
use netft_lab::{Lab, NetworkLayout, daemon::SiteSettings, in_namespace};

/// A detection time (600 ms) that a starved machine does not reach: what is in flight must be saved
/// long before it ends.
const SLOW: &str = "[failover]\nhold = 300\n[heartbeat]\ndelay = 50\nthreshold = 12\n";

/// Two networks, and these lines in the peer's table at both nodes.
fn pair(lines: &str) -> NodePair {
    let settings = SiteSettings { common: SLOW, ..SiteSettings::default() };
    let mut pair = NodePair::prepared(&[NetworkLayout::Flat; 2], settings);
    for node in [0, 1] {
        let path = pair.site.config_path(node);
        let text = std::fs::read_to_string(&path).unwrap();
        // The only peer's table is the last one.
        std::fs::write(path, format!("{text}{lines}\n")).unwrap();
        pair.start(node);
    }
    for node in [0, 1] {
        pair.wait_routes_up(node);
    }
    pair
}

/// Data frames node 0 sent on each network so far.
fn frames(pair: &mut NodePair) -> [u64; 2] {
    sent(pair, "tx_frames")
}

fn sent(pair: &mut NodePair, what: &str) -> [u64; 2] {
    let answer = pair.daemon(0).get_json("/v1/routes").unwrap();
    let mut sent = [0; 2];
    for route in answer["routes"].as_array().unwrap() {
        let local: SocketAddr = route["real_local"].as_str().unwrap().parse().unwrap();
        let network = pair.lab.network_of(0, local.ip()).unwrap();
        sent[network] += route[what].as_u64().unwrap();
    }
    sent
}

/// A span without retransmissions: on a busy machine a route may become suspect.
struct SteadySpan {
    start: Instant,
    end: Instant,
    /// Data frames node 0 sent on each network.
    frames: [u64; 2],
}

fn steady_span(pair: &mut NodePair) -> SteadySpan {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let resent = counter(pair, "resent_frames");
        let (before, start) = (frames(pair), Instant::now());
        thread::sleep(TRAFFIC_CHECK_TIME);
        let (end, frames) = (Instant::now(), since(before, frames(pair)));
        if counter(pair, "resent_frames") == resent {
            return SteadySpan { start, end, frames };
        }
        crate::common::assert_before(deadline, || "some route is suspect all the time".to_owned());
        thread::sleep(TRAFFIC_CHECK_TIME / 5);
    }
}

fn counter(pair: &mut NodePair, name: &str) -> u64 {
    pair.daemon(0).get_json("/v1/status").unwrap()["counters"][name].as_u64().unwrap()
}

fn since(before: [u64; 2], after: [u64; 2]) -> [u64; 2] {
    [after[0] - before[0], after[1] - before[1]]
}

/// Bytes node 0's kernel sent on each network so far.
fn wire_bytes(pair: &NodePair) -> [u64; 2] {
    let table =
        pair.lab.node_netns(0).run_inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.unwrap();
    [0, 1].map(|network| {
        let name = format!("{}:", Lab::nic_name(network));
        let line = table.lines().find(|line| line.trim_start().starts_with(&name)).unwrap();
        line.split_whitespace().nth(9).unwrap().parse().unwrap()
    })
}

/// As [`steady_span`]; compares netft's counters with the kernel's, network by network.
fn verified_span(pair: &mut NodePair) -> SteadySpan {
    let (wire, data) = (wire_bytes(pair), sent(pair, "tx_bytes"));
    let span = steady_span(pair);
    let data = since(data, sent(pair, "tx_bytes"));
    let wire = since(wire, wire_bytes(pair));
    assert!(wire[0] >= data[0] && wire[1] >= data[1], "{wire:?} bytes for {data:?} of data");
    span
}

/// Runs `netft` at node 0.
fn netft(pair: &NodePair, args: &[&str]) -> String {
    let output = pair.site.operator_command(&pair.lab, 0).unwrap().args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Swallows everything on node 0's active network, until its data has left.
fn kill_active(pair: &mut NodePair) -> usize {
    let (network, route) = pair.active(0);
    pair.lab.black_hole(network).unwrap();
    let left = |routes: &[netft_lab::daemon::RouteRow]| {
        routes.iter().any(|r| r.id == route.id && r.state != "up")
    };
    pair.daemon(0).wait_for("the dead route to be left", TEST_TIMEOUT, left).unwrap();
    network
}

/// Flows of numbered datagrams from node 0 to node 1, each from a port of its own. So slow that
/// neither the adapter's queue nor the receiver's socket overflows while a process waits for a
/// core: that would be lost, and nobody's fault.
struct Flows {
    stop: [Arc<AtomicBool>; 2],
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<BTreeMap<u8, Vec<u64>>>,
    count: u8,
    received: Arc<AtomicU64>,
}

/// When each round was sent, and the rounds that arrived of each flow, in their order.
struct Outcome {
    rounds: Vec<Instant>,
    arrived: BTreeMap<u8, Vec<u64>>,
}

impl Flows {
    /// `count` flows of this code point, all of which send every `pause`.
    fn start(pair: &NodePair, count: u8, dscp: u32, pause: Duration) -> Self {
        let bind = |node| {
            let end = pair.endpoint(node, false);
            pair.lab.node_netns(node).run_inside(|| UdpSocket::bind(end)).unwrap()
        };
        let (input, outputs) = (bind(1), (0..count).map(|_| bind(0)).collect::<Vec<_>>());
        for output in &outputs {
            socket2::SockRef::from(output).set_tos_v4(dscp << 2).unwrap();
        }
        let target = input.local_addr().unwrap();
        input.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let stop: [Arc<AtomicBool>; 2] = Default::default();
        let until = stop[0].clone();
        let sender = thread::spawn(move || {
            let mut rounds = Vec::new();
            while !until.load(Relaxed) {
                for (flow, socket) in (0..).zip(&outputs) {
                    let mut datagram = [flow; 200];
                    datagram[1..9].copy_from_slice(&(rounds.len() as u64).to_be_bytes());
                    socket.send_to(&datagram, target).unwrap();
                }
                rounds.push(Instant::now());
                thread::sleep(pause);
            }
            rounds
        });
        let (until, received) = (stop[1].clone(), Arc::<AtomicU64>::default());
        let seen = received.clone();
        let receiver = thread::spawn(move || {
            let mut flows: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            let mut datagram = [0; 200];
            while !until.load(Relaxed) {
                if input.recv(&mut datagram).is_ok() {
                    let number = u64::from_be_bytes(datagram[1..9].try_into().unwrap());
                    flows.entry(datagram[0]).or_default().push(number);
                    seen.fetch_add(1, Relaxed);
                }
            }
            flows
        });
        Self { stop, sender, receiver, count, received }
    }

    fn finish(self) -> Outcome {
        self.stop[0].store(true, Relaxed);
        let rounds = self.sender.join().unwrap();
        // Whatever comes twice comes soon after the first.
        let all = rounds.len() as u64 * u64::from(self.count);
        let deadline = Instant::now() + TEST_TIMEOUT;
        while self.received.load(Relaxed) < all && Instant::now() < deadline {
            thread::sleep(TRAFFIC_CHECK_TIME / 5);
        }
        thread::sleep(TRAFFIC_CHECK_TIME);
        self.stop[1].store(true, Relaxed);
        Outcome { rounds, arrived: self.receiver.join().unwrap() }
    }
}

impl Outcome {
    /// Everything arrived, and once.
    fn whole(&self, count: u8) {
        assert_eq!(self.arrived.len(), usize::from(count));
        for (flow, numbers) in &self.arrived {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            let all: Vec<_> = (0..self.rounds.len() as u64).collect();
            let missing: Vec<_> = all.iter().filter(|n| sorted.binary_search(n).is_err()).collect();
            let span = self.rounds.len();
            assert!(sorted == all, "flow {flow} of {span}: {missing:?} lost of {numbers:?}");
        }
    }

    /// Everything sent in the span arrived in the order of each flow.
    fn in_order(&self, span: &SteadySpan) {
        for (flow, numbers) in &self.arrived {
            let sent =
                |number: &&u64| (span.start..span.end).contains(&self.rounds[**number as usize]);
            let sent: Vec<_> = numbers.iter().filter(sent).collect();
            assert!(sent.len() > 1 && sent.is_sorted(), "flow {flow}: {sent:?}");
        }
    }
}

#[test]
fn what_is_duplicated_goes_over_both_networks_and_arrives_once() {
    in_namespace("what_is_duplicated_goes_over_both_networks_and_arrives_once", || {
        let mut pair = pair("policy = \"duplicate\"");
        let flows = Flows::start(&pair, 2, 0, TRAFFIC_CHECK_TIME / 50);
        let [first, second] = verified_span(&mut pair).frames;
        // A frame may have left on one network only when the counters are read.
        assert!(first > 0 && first.abs_diff(second) <= 2, "{first} and {second} data frames");
        kill_active(&mut pair);
        thread::sleep(TRAFFIC_CHECK_TIME);
        flows.finish().whole(2);
        assert!(counter(&mut pair, "duplicated_frames") >= second);
    });
}

#[test]
fn a_class_is_duplicated_while_the_rest_fails_over() {
    in_namespace("a_class_is_duplicated_while_the_rest_fails_over", || {
        let mut pair = pair("[[peer.class]]\npolicy = \"duplicate\"\ndscp = \"ef\"");
        let rest = Flows::start(&pair, 2, 0, TRAFFIC_CHECK_TIME / 50);
        let [first, second] = steady_span(&mut pair).frames;
        assert!(first > 0 && second == 0, "{first} and {second} frames of the rest");
        let urgent = Flows::start(&pair, 1, 46, TRAFFIC_CHECK_TIME / 50);
        let [first, second] = steady_span(&mut pair).frames;
        assert!(second > 0, "no copy of {first} frames");
        assert!(first > second, "the rest is on the active route only: {first} and {second}");
        kill_active(&mut pair);
        thread::sleep(TRAFFIC_CHECK_TIME);
        urgent.finish().whole(1);
        rest.finish().whole(2);
    });
}

#[test]
fn flows_use_both_networks_in_order_and_lose_nothing_with_one_of_them() {
    in_namespace("flows_use_both_networks_in_order_and_lose_nothing_with_one_of_them", || {
        let mut pair = pair("");
        let flows = Flows::start(&pair, 16, 0, TRAFFIC_CHECK_TIME / 8);
        assert_eq!(steady_span(&mut pair).frames[1], 0, "all of it on the active route");
        let shown = netft(&pair, &["peer", "set", "b", "--policy", "balance"]);
        assert!(shown.contains("balance"), "{shown}");
        thread::sleep(TRAFFIC_CHECK_TIME / 5);
        let both = verified_span(&mut pair);
        let data = both.frames;
        assert!(data[0] > 0 && data[1] > 0, "{data:?} data frames on the two networks");
        // The network that is not the active one: its flows are moved although nothing else is.
        pair.lab.black_hole(1).unwrap();
        pair.daemon(0)
            .wait_for("one route", TEST_TIMEOUT, |r| {
                r.iter().filter(|r| r.state == "up").count() == 1
            })
            .unwrap();
        thread::sleep(TRAFFIC_CHECK_TIME / 5);
        let one = steady_span(&mut pair);
        assert_eq!(one.frames[1], 0, "no data goes to the dead network");
        let outcome = flows.finish();
        outcome.whole(16);
        outcome.in_order(&both);
        outcome.in_order(&one);
    });
}

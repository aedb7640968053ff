//! Policies in a real kernel: copies on two networks, flows over both, and classes apart.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{HOLD, PATIENCE, Pair, WHILE, nothing_lost};
use netftd::lab::{Lab, Shape, daemon::Settings, in_namespace, probe::Probe};

/// Two networks, and these lines in the peer's table at both nodes.
fn pair(lines: &str) -> Pair {
    let settings = Settings { common: HOLD, ..Settings::default() };
    let mut pair = Pair::prepared(&[Shape::Flat; 2], settings);
    for node in [0, 1] {
        let path = pair.site.config(node);
        let text = std::fs::read_to_string(&path).unwrap();
        // The only peer's table is the last one.
        std::fs::write(path, format!("{text}{lines}\n")).unwrap();
        pair.start(node);
    }
    for node in [0, 1] {
        pair.ready(node);
    }
    pair
}

/// Data frames node 0 sent on each network so far.
fn frames(pair: &mut Pair) -> [u64; 2] {
    let answer = pair.daemon(0).get("/v1/routes").unwrap();
    let mut frames = [0; 2];
    for route in answer["routes"].as_array().unwrap() {
        let local: SocketAddr = route["real_local"].as_str().unwrap().parse().unwrap();
        let network = pair.lab.network_of(0, local.ip()).unwrap();
        frames[network] += route["tx_frames"].as_u64().unwrap();
    }
    frames
}

/// Data frames node 0 sent on each network in a span in which no route was suspect: a machine that
/// is busy elsewhere makes one so, and then data is sent again.
fn calm(pair: &mut Pair) -> [u64; 2] {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (before, resent) = (frames(pair), counter(pair, "resent_frames"));
        thread::sleep(WHILE);
        let sent = since(before, frames(pair));
        if counter(pair, "resent_frames") == resent {
            return sent;
        }
        assert!(Instant::now() < deadline, "some route is suspect all the time");
        thread::sleep(WHILE / 5);
    }
}

fn counter(pair: &mut Pair, name: &str) -> u64 {
    pair.daemon(0).get("/v1/status").unwrap()["counters"][name].as_u64().unwrap()
}

fn since(before: [u64; 2], after: [u64; 2]) -> [u64; 2] {
    [after[0] - before[0], after[1] - before[1]]
}

/// Packets node 0's kernel sent on each network so far.
fn packets(pair: &Pair) -> [u64; 2] {
    let table = pair.lab.node(0).run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.unwrap();
    [0, 1].map(|network| {
        let name = format!("{}:", Lab::nic(network));
        let line = table.lines().find(|line| line.trim_start().starts_with(&name)).unwrap();
        line.split_whitespace().nth(10).unwrap().parse().unwrap()
    })
}

/// Runs `netft` at node 0.
fn netft(pair: &Pair, args: &[&str]) -> String {
    let output = pair.site.operator(&pair.lab, 0).unwrap().args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Swallows everything on node 0's active network, until its data has left.
fn kill_active(pair: &mut Pair) -> usize {
    let (network, route) = pair.active(0);
    pair.lab.black_hole(network).unwrap();
    let left = |routes: &[netftd::lab::daemon::Route]| {
        routes.iter().any(|r| r.id == route.id && r.state != "up")
    };
    pair.daemon(0).wait_for("the dead route to be left", PATIENCE, left).unwrap();
    network
}

#[test]
fn what_is_duplicated_goes_over_both_networks_and_arrives_once() {
    in_namespace("what_is_duplicated_goes_over_both_networks_and_arrives_once", || {
        let mut pair = pair("policy = \"duplicate\"");
        let probe = pair.probe(0, false);
        let wire = packets(&pair);
        let [first, second] = calm(&mut pair);
        let wire = since(wire, packets(&pair));
        // A frame may have left on one network only when the counters are read.
        assert!(first > 0 && first.abs_diff(second) <= 2, "{first} and {second} data frames");
        assert!(wire[0] >= first && wire[1] >= second, "{wire:?} packets for {first} frames");
        kill_active(&mut pair);
        thread::sleep(WHILE);
        nothing_lost(&probe.finish());
        assert!(counter(&mut pair, "duplicated_frames") >= second);
    });
}

#[test]
fn a_class_is_duplicated_while_the_rest_fails_over() {
    in_namespace("a_class_is_duplicated_while_the_rest_fails_over", || {
        let mut pair = pair("[[peer.class]]\npolicy = \"duplicate\"\ndscp = \"ef\"");
        let ends = |pair: &Pair| [0, 1].map(|node| (node, pair.endpoint(node, false)));
        let [from, to] = ends(&pair);
        let plain = pair.probe(0, false);
        let [first, second] = calm(&mut pair);
        assert!(first > 0 && second == 0, "{first} and {second} frames of the rest");
        let ends = [(pair.lab.node(from.0), from.1), (pair.lab.node(to.0), to.1)];
        let urgent = Probe::marked(ends[0], ends[1], 46).unwrap();
        let [first, second] = calm(&mut pair);
        let sent = urgent.log().sent.len() as u64;
        assert!((1..=sent).contains(&second), "{second} copies of {sent}");
        assert!(first > second, "the rest is on the active route only: {first} and {second}");
        kill_active(&mut pair);
        thread::sleep(WHILE);
        nothing_lost(&urgent.finish());
        nothing_lost(&plain.finish());
    });
}

/// Flows of numbered datagrams from node 0 to node 1, each from a port of its own.
struct Flows {
    stop: [Arc<AtomicBool>; 2],
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<BTreeMap<u8, Vec<u64>>>,
}

const FLOWS: u8 = 16;
/// Between two rounds of all flows.
const ROUND: Duration = Duration::from_millis(4);

impl Flows {
    fn start(pair: &Pair) -> Self {
        let bind = |node| {
            let end = pair.endpoint(node, false);
            pair.lab.node(node).run(|| UdpSocket::bind(end)).unwrap()
        };
        let (input, outputs) = (bind(1), (0..FLOWS).map(|_| bind(0)).collect::<Vec<_>>());
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
                thread::sleep(ROUND);
            }
            rounds
        });
        let until = stop[1].clone();
        let receiver = thread::spawn(move || {
            let mut flows: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            let mut datagram = [0; 200];
            while !until.load(Relaxed) {
                if input.recv(&mut datagram).is_ok() {
                    let number = u64::from_be_bytes(datagram[1..9].try_into().unwrap());
                    flows.entry(datagram[0]).or_default().push(number);
                }
            }
            flows
        });
        Self { stop, sender, receiver }
    }

    /// When each round was sent, and what arrived of each flow.
    fn finish(self) -> (Vec<Instant>, BTreeMap<u8, Vec<u64>>) {
        self.stop[0].store(true, Relaxed);
        let rounds = self.sender.join().unwrap();
        thread::sleep(WHILE);
        self.stop[1].store(true, Relaxed);
        (rounds, self.receiver.join().unwrap())
    }
}

#[test]
fn flows_use_both_networks_in_order_and_lose_nothing_with_one_of_them() {
    in_namespace("flows_use_both_networks_in_order_and_lose_nothing_with_one_of_them", || {
        let mut pair = pair("");
        let flows = Flows::start(&pair);
        assert_eq!(calm(&mut pair)[1], 0, "all of it on the active route");
        let shown = netft(&pair, &["peer", "set", "b", "--policy", "balance"]);
        assert!(shown.contains("balance"), "{shown}");
        let changed = Instant::now();
        thread::sleep(WHILE / 5);
        let wire = packets(&pair);
        let data = calm(&mut pair);
        let wire = since(wire, packets(&pair));
        assert!(data[0] > 0 && data[1] > 0, "{data:?} data frames on the two networks");
        assert!(wire[0] >= data[0] && wire[1] >= data[1], "{wire:?} packets for {data:?} frames");
        // The network that is not the active one: its flows have nowhere to be moved by a move.
        let killed = Instant::now();
        pair.lab.black_hole(1).unwrap();
        pair.daemon(0)
            .wait_for("one route", PATIENCE, |r| r.iter().filter(|r| r.state == "up").count() == 1)
            .unwrap();
        thread::sleep(WHILE / 5);
        let (left, gone) = (Instant::now(), frames(&mut pair)[1]);
        thread::sleep(WHILE);
        assert_eq!(frames(&mut pair)[1], gone, "no data goes to the dead network");

        let (rounds, arrived) = flows.finish();
        assert_eq!(arrived.len(), usize::from(FLOWS));
        for (flow, numbers) in arrived {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..rounds.len() as u64), "flow {flow}: {numbers:?}");
            for (start, end) in [(changed + WHILE / 5, killed), (left, Instant::now())] {
                let sent = |number: &&u64| {
                    let at = rounds[**number as usize];
                    start <= at && at + ROUND < end
                };
                let span: Vec<_> = numbers.iter().filter(sent).collect();
                assert!(span.len() > 10 && span.is_sorted(), "flow {flow}: {span:?}");
            }
        }
    });
}

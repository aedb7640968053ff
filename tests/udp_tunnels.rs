//! UDP tunnels of the kernel through the adapter: VXLAN and Geneve, with TCP inside, over good and
//! bad networks, whatever the backend.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{net::SocketAddr, thread, time::Duration};

use common::{
    NodePair, TEST_TIMEOUT,
    commands::{has_programs, run_ip},
};
use netft_lab::{
    checksums::ChecksumInspector,
    daemon::{ADAPTER_NAME, SiteSettings},
    in_namespace,
    transfer::Transfer,
    wire::{ImpairedWire, WireImpairments},
};

const OFFLOAD_CONFIG: &str = "[failover]\nhold = 300\n";
const PLAIN_CONFIG: &str = "[failover]\nhold = 300\n[adapter]\nbackend = \"plain\"\n";
/// Bytes of a flow: enough for hundreds of super-packets.
const FLOW_BYTES: u64 = 24 << 20;
/// Fewest payload bytes of a packet inside that fills a frame.
const MIN_FULL_PAYLOAD: u64 = 1200;

/// Kinds of tunnel, as `ip link add NAME type` has them.
#[derive(Clone, Copy, Debug)]
enum Tunnel {
    Vxlan,
    VxlanWithoutChecksum,
    Geneve,
}

impl Tunnel {
    /// Sets the tunnel up between the adapters; false, with a line, where this kernel has none.
    fn set_up(self, pair: &NodePair) -> bool {
        for node in [0, 1] {
            let address = |node| pair.site.virtual_addrs(node).v4;
            let (local, remote) = (address(node), address(1 - node));
            let netns = pair.lab.node_netns(node);
            let kind = match self {
                Self::Vxlan => format!("vxlan id 42 dstport 4789 dev {ADAPTER_NAME} local {local}"),
                Self::VxlanWithoutChecksum => {
                    format!("vxlan id 42 dstport 4789 noudpcsum dev {ADAPTER_NAME} local {local}")
                }
                Self::Geneve => "geneve id 42 dstport 6081".to_owned(),
            };
            let line = format!("link add inside type {kind} remote {remote}");
            let mut command = netns.command_inside("ip").unwrap();
            let added = command.args(line.split(' ')).output().unwrap();
            if !added.status.success() {
                let error = String::from_utf8_lossy(&added.stderr).into_owned();
                assert!(error.contains("Unknown device type"), "{line}: {error}");
                println!("SKIP: this kernel has no {self:?}");
                return false;
            }
            run_ip(netns, &format!("addr add {} dev inside", inside(node, "/24")));
            run_ip(netns, "link set inside mtu 1366 up");
        }
        true
    }

    fn remove(pair: &NodePair) {
        for node in [0, 1] {
            run_ip(pair.lab.node_netns(node), "link del inside");
        }
    }
}

fn inside(node: usize, suffix: &str) -> String {
    format!("10.233.0.{}{suffix}", node + 1)
}

/// Sends a flow through the tunnel from each of `senders` until all have [`FLOW_BYTES`], and
/// compares the hashes and every checksum on the adapters.
fn carry_flows(pair: &NodePair, senders: &[usize], what: &str) {
    let inspect = |node| ChecksumInspector::start(pair.lab.node_netns(node), ADAPTER_NAME).unwrap();
    let inspectors = [inspect(0), inspect(1)];
    let end = |node: usize| {
        let address: SocketAddr = inside(node, ":0").parse().unwrap();
        (pair.lab.node_netns(node), address)
    };
    let start = |from: &usize| Transfer::start(end(*from), end(1 - from), None).unwrap();
    let flows: Vec<Transfer> = senders.iter().map(start).collect();
    while flows.iter().any(|flow| flow.bytes_received() < FLOW_BYTES) {
        assert!(!flows.iter().any(|flow| flow.is_broken()), "{what}: a flow broke");
        assert!(flows.iter().any(|flow| flow.silence() < TEST_TIMEOUT), "{what}: nothing moves");
        thread::sleep(Duration::from_millis(100));
    }
    for flow in flows {
        let outcome = flow.finish();
        assert_eq!(outcome.errors, Vec::<String>::new(), "{what}");
        assert!(outcome.hash_equal && outcome.bytes == outcome.received, "{what}: bytes changed");
    }
    for tally in inspectors.map(ChecksumInspector::finish) {
        assert_eq!((tally.wrong, &tally.errors[..]), (0, &[][..]), "{what}");
        assert!(tally.finished + tally.unfinished > 20, "{what}: next to nothing inspected");
    }
}

/// A node's counters of system calls on the adapter and of the bytes they moved so far.
fn adapter_calls(pair: &mut NodePair, node: usize, keys: [&str; 2]) -> [u64; 2] {
    let status = pair.daemon(node).get_json("/v1/status").unwrap();
    keys.map(|key| status["counters"][key].as_u64().unwrap())
}

fn has_tunnel_offload(pair: &mut NodePair, node: usize) -> bool {
    let status = pair.daemon(node).get_json("/v1/status").unwrap();
    status["adapter"]["tunnel_offload"].as_bool().unwrap()
}

#[test]
fn tcp_in_a_tunnel_arrives_unchanged_over_both_backends() {
    in_namespace("tcp_in_a_tunnel_arrives_unchanged_over_both_backends", || {
        if !has_programs(&["ip"]) {
            return;
        }
        for each in
            [[OFFLOAD_CONFIG; 2], [OFFLOAD_CONFIG, PLAIN_CONFIG], [PLAIN_CONFIG, PLAIN_CONFIG]]
        {
            let settings = SiteSettings { per_node: &each, ..SiteSettings::default() };
            let pair = NodePair::start_with(1, settings);
            if !Tunnel::Vxlan.set_up(&pair) {
                return;
            }
            carry_flows(&pair, &[0, 1], &format!("good network, {each:?}"));
            let wire = ImpairedWire::insert(&pair.lab, 0, 11).unwrap();
            wire.set_both_impairments(WireImpairments {
                loss: 0.01,
                duplicate: 0.01,
                reorder: 0.01,
                ..WireImpairments::default()
            });
            carry_flows(&pair, &[0, 1], &format!("bad network, {each:?}"));
            let lost = wire.lost_and_relayed(0).0 + wire.lost_and_relayed(1).0;
            assert!(lost > 0, "nothing was lost");
        }
    });
}

#[test]
fn super_packets_of_tunnels_cross_the_adapter_whole() {
    in_namespace("super_packets_of_tunnels_cross_the_adapter_whole", || {
        if !has_programs(&["ip"]) {
            return;
        }
        let settings = SiteSettings { common: OFFLOAD_CONFIG, ..SiteSettings::default() };
        let mut pair = NodePair::start_with(1, settings);
        if !has_tunnel_offload(&mut pair, 0) {
            println!("SKIP: tunnel offload needs Linux 6.17");
            return;
        }
        for tunnel in [Tunnel::Vxlan, Tunnel::Geneve, Tunnel::VxlanWithoutChecksum] {
            if !tunnel.set_up(&pair) {
                continue;
            }
            let sent = ["adapter_reads", "tx_bytes"];
            let before = adapter_calls(&mut pair, 0, sent);
            // One way only: acknowledgements are packets of their own.
            carry_flows(&pair, &[0], &format!("{tunnel:?}"));
            let after = adapter_calls(&mut pair, 0, sent);
            let [reads, bytes] = [after[0] - before[0], after[1] - before[1]];
            println!("{tunnel:?}: {reads} reads for {bytes} bytes");
            assert!(
                reads < bytes / MIN_FULL_PAYLOAD / 4,
                "{tunnel:?}: {reads} reads for {bytes} bytes"
            );
            Tunnel::remove(&pair);
        }
    });
}

//! Two real DHCP servers in a failover relationship over the adapter: routes die under their TCP
//! connection, and neither of them notices.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use netft_lab::{
    Lab,
    daemon::{Daemon, RouteRow, Site, SiteSettings},
    in_namespace,
};

use crate::common::{
    HOLD_CONFIG, programs,
    servers::{ServerProcess, has_servers},
};

/// The two nodes with a daemon and a server.
const SERVER_NODES: [usize; 2] = [0, 1];
const CLIENT_NODE: usize = 2;
/// The segment of the clients, which netft does not use.
const CLIENT_NETWORK: usize = 2;
/// A partner that says nothing for that long is interrupted, seconds.
const MAX_RESPONSE_DELAY: u64 = 4;
/// The port of DHCP failover (draft-ietf-dhc-failover-12).
const FAILOVER_PORT: u16 = 647;
/// Longest wait for what must happen; nothing is asserted about it.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
const INTERRUPTED_STATE: &str = "communications-interrupted";

/// Two servers, each other's partners.
struct FailoverPair {
    servers: [ServerProcess; 2],
}

impl FailoverPair {
    /// Starts both: partners at `addrs`, clients on `network`, by the DHCP port `port`.
    fn start(lab: &Lab, folder: &Path, name: &str, addrs: [IpAddr; 2], network: usize) -> Self {
        let servers = SERVER_NODES.map(|node| {
            let role = ["primary", "secondary"][node];
            let own = ["mclt 2; split 128;", ""][node];
            let (addr, partner) = (addrs[node], addrs[1 - node]);
            let subnet = format!("10.{}.0", network + 1);
            let text = format!(
                "authoritative;\nping-check false;\ndefault-lease-time 60;\nmax-lease-time 60;\n\
                 failover peer \"pair\" {{\n {role};\n address {addr};\n port {FAILOVER_PORT};\n \
                 peer address {partner};\n peer port {FAILOVER_PORT};\n \
                 max-response-delay {MAX_RESPONSE_DELAY};\n max-unacked-updates 10;\n \
                 load balance max seconds 3;\n {own}\n}}\n\
                 subnet {subnet}.0 netmask 255.255.255.0 {{\n pool {{\n  \
                 failover peer \"pair\";\n  \
                 range {subnet}.100 {subnet}.200;\n }}\n}}\n"
            );
            let file = |kind: &str| folder.join(format!("{name}{node}.{kind}"));
            fs::write(file("conf"), text).unwrap();
            fs::write(file("leases"), "").unwrap();
            let path = |kind: &str| file(kind).display().to_string();
            let (config, leases) = (path("conf"), path("leases"));
            let interface = Lab::nic_name(network);
            let mut words = vec!["-4", "-f", "-d", "--no-pid", "-cf", &config, "-lf", &leases];
            if name == "control" {
                // Beside the other server of this host.
                words.extend(["-p", "6700"]);
            }
            words.push(&interface);
            ServerProcess::start(lab.node_netns(node), "dhcpd", &words, &file("log"))
        });
        Self { servers }
    }

    fn says(&self, words: &str) -> bool {
        self.servers.iter().all(|server| server.log().contains(words))
    }

    fn wait_for(&self, words: &str) {
        let start = Instant::now();
        while !self.says(words) {
            let logs = self.servers.each_ref().map(ServerProcess::log);
            assert!(start.elapsed() < WAIT_LIMIT, "no {words:?}: {logs:#?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The partners' TCP connections at a node, between `addrs`: ports and inode of the socket.
fn connections(lab: &Lab, node: usize, addrs: [IpAddr; 2]) -> BTreeSet<String> {
    let table = lab.node_netns(node).run_inside(|| fs::read_to_string("/proc/thread-self/net/tcp"));
    let hex = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => format!("{:08X}", u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(_) => String::new(),
    };
    let ends = addrs.map(hex);
    let is_theirs = |columns: &[&str]| {
        let port = format!(":{FAILOVER_PORT:04X}");
        // State 01: established.
        columns[3] == "01"
            && ends.iter().any(|end| columns[1].starts_with(end.as_str()))
            && (columns[1].ends_with(&port) || columns[2].ends_with(&port))
    };
    let table = table.unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let theirs = rows.filter(|columns| is_theirs(columns));
    theirs.map(|row| format!("{} {} inode {}", row[1], row[2], row[9])).collect()
}

/// A new client gets a lease; its address.
fn take_lease(lab: &Lab, folder: &Path, number: &mut u32) -> String {
    *number += 1;
    let file = |kind: &str| -> PathBuf { folder.join(format!("client{number}.{kind}")) };
    fs::write(file("conf"), format!("send dhcp-client-identifier \"client{number}\";\n")).unwrap();
    let path = |kind: &str| file(kind).display().to_string();
    let (config, leases, pid) = (path("conf"), path("leases"), path("pid"));
    let interface = Lab::nic_name(CLIENT_NETWORK);
    let words = [
        "-d",
        "-1",
        "-v",
        "-cf",
        &config,
        "-lf",
        &leases,
        "-pf",
        &pid,
        "-sf",
        "/bin/true",
        &interface,
    ];
    let client =
        ServerProcess::start(lab.node_netns(CLIENT_NODE), "dhclient", &words, &file("log"));
    let start = Instant::now();
    loop {
        let log = client.log();
        if let Some((_, rest)) = log.split_once("bound to ") {
            return rest.split_whitespace().next().unwrap().to_owned();
        }
        assert!(start.elapsed() < WAIT_LIMIT, "client {number} gets no lease: {log}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Daemons of the two nodes, with routes over both networks.
fn start_daemons(lab: &Lab, site: &Site) -> Vec<Daemon> {
    let mut daemons: Vec<_> =
        SERVER_NODES.iter().map(|node| site.start_daemon(lab, *node).unwrap()).collect();
    for daemon in &mut daemons {
        wait_usable(daemon, 2);
    }
    daemons
}

fn wait_usable(daemon: &mut Daemon, count: usize) {
    let is_there = |routes: &[RouteRow]| {
        routes.iter().filter(|route| route.state == "up").count() >= count
            && routes.iter().any(|route| route.active)
    };
    daemon.wait_for("routes to the partner", WAIT_LIMIT, is_there).unwrap();
}

#[test]
fn partners_over_the_adapter_do_not_notice_that_routes_die() {
    in_namespace("partners_over_the_adapter_do_not_notice_that_routes_die", || {
        if !has_servers(&["dhcpd", "dhclient"]) {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new(3, 3).unwrap();
        let common = format!("{HOLD_CONFIG}[topology]\nexclude = [\"eth2\"]\n");
        let settings =
            SiteSettings { listed_networks: 2, common: &common, ..SiteSettings::default() };
        let site = Site::new(&lab, programs(), settings).unwrap();
        let mut daemons = start_daemons(&lab, &site);
        let adapters = SERVER_NODES.map(|node| IpAddr::from(site.virtual_addrs(node).v4));
        let physical = SERVER_NODES.map(|node| lab.node_address(0, node, false));
        let pair = FailoverPair::start(&lab, folder.path(), "pair", adapters, CLIENT_NETWORK);
        let control = FailoverPair::start(&lab, folder.path(), "control", physical, 1);
        for one in [&pair, &control] {
            one.wait_for("I move from recover-done to normal");
        }
        let before = SERVER_NODES.map(|node| connections(&lab, node, adapters));
        assert!(before.iter().all(|found| found.len() == 1), "{before:?}");
        let (mut number, mut leases) = (0, BTreeSet::new());
        leases.insert(take_lease(&lab, folder.path(), &mut number));
        for network in [0, 1] {
            lab.black_hole(network).unwrap();
            let start = Instant::now();
            // Longer than a partner may be silent.
            while start.elapsed() < Duration::from_secs(2 * MAX_RESPONSE_DELAY) {
                leases.insert(take_lease(&lab, folder.path(), &mut number));
            }
            lab.heal_network(network).unwrap();
            daemons.iter_mut().for_each(|daemon| wait_usable(daemon, 2));
            if network == 0 {
                // The same fault under partners at physical addresses: the test can see it.
                control.wait_for(INTERRUPTED_STATE);
            }
        }
        for node in SERVER_NODES {
            assert_eq!(connections(&lab, node, adapters), before[node], "another connection");
        }
        let logs = pair.servers.each_ref().map(ServerProcess::log);
        assert!(logs.iter().all(|log| !log.contains(INTERRUPTED_STATE)), "{logs:#?}");
        assert!(leases.len() > 4, "{leases:?}");
        println!("{} leases over 2 faults, connection {:?}", leases.len(), before[0]);
    });
}

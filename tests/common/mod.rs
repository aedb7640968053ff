//! Two nodes with a daemon each, and the questions kernel tests ask of them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

pub mod cluster;
pub mod commands;
pub mod faults;
pub mod owner_lab;
pub mod servers;
pub mod three_nodes;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use netft_lab::{
    KernelCounters, Lab, Moment, NetworkLayout,
    daemon::{ADAPTER_NAME, Daemon, EventFollower, ProgramPaths, RouteRow, Site, SiteSettings},
    interface_index,
    probe::{DatagramProbe, ProbeLog},
    scheduling,
    transfer::Transfer,
};
use rtnetlink::packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags},
};

/// Longest wait for a condition; it bounds the tests and is not asserted.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(8);
/// Long enough for traffic to show whether it flows.
pub const TRAFFIC_CHECK_TIME: Duration = Duration::from_millis(250);
/// Rate of test traffic, bytes per second: low enough for a small machine.
pub const TEST_RATE: u64 = 5_000_000;
/// Data returns soon, so that tests are short.
pub const HOLD_CONFIG: &str = "[failover]\nhold = 300\n";
/// The first address of each peer is configured, and no network.
pub const UNLISTED_NETWORKS: SiteSettings<'static> =
    SiteSettings { ipv6: false, listed_networks: 1, common: HOLD_CONFIG, per_node: &[] };

/// The binaries under test: those of this build, or for figures `NETFTD` and `NETFT`.
pub fn programs() -> ProgramPaths {
    let other = |variable, own: &str| std::env::var(variable).unwrap_or_else(|_| own.to_owned());
    ProgramPaths::new(
        other("NETFTD", env!("CARGO_BIN_EXE_netftd")),
        other("NETFT", env!("CARGO_BIN_EXE_netft")),
    )
}

/// A number from the environment, for long runs and figures; otherwise that of a short test.
pub fn number_from_env(variable: &str, short: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

/// Settings of nodes whose data returns soon.
pub fn hold_settings() -> SiteSettings<'static> {
    SiteSettings { common: HOLD_CONFIG, ..SiteSettings::default() }
}

/// Two nodes, their networks and their daemons.
pub struct NodePair {
    // Daemons first: they end before their namespaces and files go.
    pub daemons: [Option<Daemon>; 2],
    pub site: Site,
    pub lab: Lab,
}

impl NodePair {
    /// Both daemons up over `networks` flat networks.
    pub fn start_up(networks: usize) -> Self {
        Self::start_with(networks, hold_settings())
    }

    /// The same with other settings.
    pub fn start_with(networks: usize, settings: SiteSettings<'_>) -> Self {
        Self::start_over(&vec![NetworkLayout::Flat; networks], settings)
    }

    /// The same over networks of other shapes.
    pub fn start_over(shapes: &[NetworkLayout], settings: SiteSettings<'_>) -> Self {
        Self::prepared(shapes, settings).start_and_wait()
    }

    /// Starts both daemons and waits for every route.
    pub fn start_and_wait(mut self) -> Self {
        for node in [0, 1] {
            self.start(node);
        }
        for node in [0, 1] {
            self.wait_routes_up(node);
        }
        self
    }

    /// Everything but the daemons, over flat networks.
    pub fn prepared_for(networks: usize, settings: SiteSettings<'_>) -> Self {
        Self::prepared(&vec![NetworkLayout::Flat; networks], settings)
    }

    /// Everything but the daemons.
    pub fn prepared(shapes: &[NetworkLayout], settings: SiteSettings<'_>) -> Self {
        let lab = Lab::with_layouts(2, shapes).unwrap();
        let site = Site::new(&lab, programs(), settings).unwrap();
        Self { daemons: [None, None], site, lab }
    }

    pub fn start(&mut self, node: usize) {
        self.daemons[node] = Some(self.site.start_daemon(&self.lab, node).unwrap());
    }

    /// Waits until every network's route is up at the node.
    pub fn wait_routes_up(&mut self, node: usize) -> Vec<RouteRow> {
        let networks = self.lab.network_count();
        self.daemon(node).wait_ready(networks).unwrap()
    }

    pub fn daemon(&mut self, node: usize) -> &mut Daemon {
        self.daemons[node].as_mut().unwrap()
    }

    pub fn events(&self, node: usize) -> EventFollower {
        self.site.follow_events(&self.lab, node).unwrap()
    }

    /// The sum of a node's dropped-packet counters.
    pub fn all_drops(&mut self, node: usize) -> u64 {
        let status = self.daemon(node).get_json("/v1/status").unwrap();
        let drops = status["counters"]["drops"].as_object().unwrap();
        drops.values().filter_map(serde_json::Value::as_u64).sum()
    }

    /// Replaces a text in a node's config, which must be there.
    pub fn rewrite_config(&self, node: usize, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.site.config_path(node)).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        std::fs::write(self.site.config_path(node), text.replace(from, to)).unwrap();
    }

    pub fn network(&self, node: usize, route: &RouteRow) -> usize {
        self.lab.network_of(node, route.local_address().unwrap()).unwrap()
    }

    /// The network that carries the node's data, and the route there.
    pub fn active(&mut self, node: usize) -> (usize, RouteRow) {
        let what = |routes: &[RouteRow]| routes.iter().any(|r| r.active);
        let routes = self.daemon(node).wait_for("an active route", TEST_TIMEOUT, what).unwrap();
        let route = routes.into_iter().find(|r| r.active).unwrap();
        (self.network(node, &route), route)
    }

    /// Waits until the node's data goes out on `network`.
    pub fn wait_active(&mut self, node: usize, network: usize) {
        let local = self.addresses(network, node);
        self.daemon(node)
            .wait_for(&format!("data on network {network}"), TEST_TIMEOUT, |routes| {
                routes
                    .iter()
                    .any(|r| r.active && r.local_address().is_some_and(|l| local.contains(&l)))
            })
            .unwrap();
    }

    /// Makes `network` the node's best by changing its route's priority, and waits for its data.
    pub fn prefer_network(&mut self, node: usize, network: usize) {
        let routes = self.daemon(node).routes().unwrap();
        let best = routes.iter().map(|route| route.priority).min().unwrap();
        let route = routes.iter().find(|route| self.network(node, route) == network).unwrap();
        let priority = (best - 1).to_string();
        let mut command = self.site.operator_command(&self.lab, node).unwrap();
        command.args(["route", "set", &route.id.to_string(), "--priority", &priority]);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.wait_active(node, network);
    }

    fn addresses(&self, network: usize, node: usize) -> [IpAddr; 2] {
        [false, true].map(|six| self.lab.node_address(network, node, six))
    }

    /// The time of the node's first move off the route after `since`.
    pub fn time_to_move(&self, events: &EventFollower, route: u64, since: Moment) -> Duration {
        let event = events
            .wait_for("a move", since.wall, TEST_TIMEOUT, |event| {
                event.name == "moved" && event.u64_field("from") == Some(route)
            })
            .unwrap();
        event.at.duration_since(since.wall).unwrap_or_default()
    }

    /// A node's virtual address, in its own namespace.
    pub fn endpoint(&self, node: usize, six: bool) -> SocketAddr {
        self.site.virtual_endpoint(&self.lab, node, six).unwrap()
    }

    pub fn transfer(&self, from: usize, rate: Option<u64>, six: bool) -> Transfer {
        let to = 1 - from;
        Transfer::start(
            (self.lab.node_netns(from), self.endpoint(from, six)),
            (self.lab.node_netns(to), self.endpoint(to, six)),
            rate,
        )
        .unwrap()
    }

    pub fn probe(&self, from: usize, six: bool) -> DatagramProbe {
        let to = 1 - from;
        DatagramProbe::start(
            (self.lab.node_netns(from), self.endpoint(from, six)),
            (self.lab.node_netns(to), self.endpoint(to, six)),
        )
        .unwrap()
    }

    /// A probe of 10,000 packets per second.
    pub fn dense_probe(&self, from: usize) -> DatagramProbe {
        let to = 1 - from;
        DatagramProbe::start_with_period(
            (self.lab.node_netns(from), self.endpoint(from, false)),
            (self.lab.node_netns(to), self.endpoint(to, false)),
            Duration::from_micros(100),
        )
        .unwrap()
    }

    /// One dropped-packet counter of a node.
    pub fn drops(&mut self, node: usize, reason: &str) -> u64 {
        let status = self.daemon(node).get_json("/v1/status").unwrap();
        status["counters"]["drops"][reason].as_u64().unwrap()
    }

    /// The adapter as the node's kernel has it.
    pub fn adapter(&self, node: usize) -> Option<InterfaceInfo> {
        interface_info(&self.lab, node, ADAPTER_NAME)
    }
}

/// How long leaving a route may take: its detection time, and a fifth more. A self-stall extends
/// detection by another detection time (F-20), so every stall the nodes reported since `since` adds
/// its length and that.
pub fn max_failover_time(route: &RouteRow, events: &[EventFollower; 2], since: Moment) -> Duration {
    let detection = route.detection_time();
    let stalls = events
        .iter()
        .flat_map(EventFollower::events_so_far)
        .filter(|event| event.is_at_or_after(since.wall));
    let lengths = stalls.filter_map(|event| event.u64_field("length_ms"));
    detection.mul_f64(1.2)
        + lengths.map(|length| Duration::from_millis(length) + detection).sum::<Duration>()
}

/// Asserts that a route was left in time after a fault at `since`.
pub fn assert_left_in_time(
    took: Duration,
    route: &RouteRow,
    events: &[EventFollower; 2],
    since: Moment,
) {
    let bound = max_failover_time(route, events, since);
    scheduling::assert_within("leaving the route", took, bound, since.monotonic);
}

/// A flow that must live: asserts that it moves on, ends in order and that no byte changed.
pub fn assert_flow_alive(transfer: Transfer) {
    let before = transfer.bytes_received();
    // TCP's timer doubles, so it sends again after at most as long as it has stood still.
    let deadline = Instant::now() + TEST_TIMEOUT + transfer.silence();
    while transfer.bytes_received() <= before {
        assert!(!transfer.is_broken(), "the flow broke: {:?}", transfer.finish().errors);
        assert_before(deadline, || "the flow stands still".to_owned());
        thread::sleep(TRAFFIC_CHECK_TIME / 25);
    }
    let outcome = transfer.finish();
    assert_eq!(outcome.errors, Vec::<String>::new());
    assert!(outcome.hash_equal, "the bytes changed");
    assert_eq!(outcome.bytes, outcome.received);
}

/// A probe whose datagrams must arrive exactly once, where daemons are scheduled in time.
pub fn assert_nothing_lost(log: &ProbeLog) {
    let report = log.full_report();
    assert!(report.sent > 0 && report.duplicates == 0, "{report:?}");
    scheduling::assert_timely(report.lost == 0, log.sent[0], || format!("{report:?}"));
}

/// An interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    pub index: u32,
    pub up: bool,
    /// Somebody holds the other end: for a TUN device, a process.
    pub carrier: bool,
    pub mtu: u32,
    pub addresses: Vec<IpAddr>,
}

/// The interface `name` of a node, if there is one.
pub fn interface_info(lab: &Lab, node: usize, name: &str) -> Option<InterfaceInfo> {
    lab.node_netns(node)
        .run_netlink("look at an interface", |netlink| async move {
            let Ok(index) = interface_index(&netlink, name).await else { return Ok(None) };
            let found = netlink.link().get().match_index(index).execute().try_next().await?;
            let found = found.unwrap();
            let mtu = found.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            });
            let up = found.header.flags.contains(LinkFlags::Up);
            let carrier = found.header.flags.contains(LinkFlags::LowerUp);
            let mut addresses = Vec::new();
            let mut rows = netlink.address().get().set_link_index_filter(index).execute();
            while let Some(row) = rows.try_next().await? {
                addresses.extend(row.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                }));
                addresses.extend(row.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Address(address) if address.is_ipv6() => Some(*address),
                    _ => None,
                }));
            }
            addresses.sort();
            addresses.dedup();
            Ok(Some(InterfaceInfo { index, up, carrier, mtu: mtu.unwrap_or_default(), addresses }))
        })
        .unwrap()
}

/// Waits until `want` holds.
pub fn wait_until(what: &str, want: impl Fn() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !want() {
        assert_before(deadline, || what.to_owned());
        thread::sleep(TRAFFIC_CHECK_TIME / 25);
    }
}

/// Asserts that a wait is not over: after its `deadline` it was in vain.
pub fn assert_before(deadline: Instant, what: impl FnOnce() -> String) {
    let start = deadline.checked_sub(TEST_TIMEOUT).unwrap_or(deadline);
    assert!(
        Instant::now() < deadline,
        "{}",
        scheduling::blame_wait(start, TEST_TIMEOUT, format!("waited in vain: {}", what()))
    );
}

/// Counters of both daemons and both kernels, at one moment.
#[derive(Clone, Debug)]
pub struct PairCounters {
    daemons: [BTreeMap<String, u64>; 2],
    kernels: [KernelCounters; 2],
}

impl PairCounters {
    pub fn take_snapshot(pair: &mut NodePair) -> Self {
        let daemons = [0, 1].map(|node| {
            let status = pair.daemon(node).get_json("/v1/status").unwrap();
            let mut counts = BTreeMap::new();
            for (name, value) in status["counters"].as_object().unwrap() {
                counts.extend(value.as_u64().map(|value| (name.clone(), value)));
            }
            for (reason, value) in status["counters"]["drops"].as_object().unwrap() {
                counts.extend(value.as_u64().map(|value| (format!("drops.{reason}"), value)));
            }
            counts
        });
        let kernels = [0, 1].map(|node| pair.lab.node_netns(node).kernel_counters());
        Self { daemons, kernels }
    }

    /// Counts since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let daemons = [0, 1].map(|node| {
            let old = &before.daemons[node];
            let grown = self.daemons[node].iter().map(|(name, now)| {
                (name.clone(), now.saturating_sub(old.get(name).copied().unwrap_or_default()))
            });
            grown.filter(|(_, more)| *more > 0).collect()
        });
        let kernels = [0, 1].map(|node| self.kernels[node].since(&before.kernels[node]));
        Self { daemons, kernels }
    }

    /// A daemon's counter, both nodes together.
    pub fn daemon(&self, name: &str) -> u64 {
        self.daemons.iter().filter_map(|counts| counts.get(name)).sum()
    }

    /// A kernel's counter, both nodes together.
    pub fn kernel(&self, name: &str) -> u64 {
        self.kernels.iter().map(|counts| counts.get(name)).sum()
    }

    /// Packets that kernels dropped for want of room, at the sockets and at the adapter: no
    /// failover can bring those back.
    pub fn buffer_drops(&self) -> u64 {
        Self::BUFFER_DROP_COUNTERS.iter().map(|name| self.kernel(name)).sum()
    }

    /// The same in words.
    pub fn buffer_drop_details(&self) -> String {
        let parts = Self::BUFFER_DROP_COUNTERS.map(|name| (name, self.kernel(name)));
        let parts = parts.iter().filter(|(_, count)| *count > 0);
        parts.map(|(name, count)| format!(" {name} {count}")).collect()
    }

    const BUFFER_DROP_COUNTERS: [&str; 3] =
        ["UdpRcvbufErrors", "netft0 rx_dropped", "netft0 tx_dropped"];
}

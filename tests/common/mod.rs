//! Two nodes with a daemon each, and the questions kernel tests ask of them.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

pub mod faults;
pub mod three;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use netft_lab::{
    KernelCounters, Lab, Moment, Shape,
    daemon::{ADAPTER, Daemon, Events, Programs, Route, Settings, Site},
    interface_index,
    probe::{Log, Probe},
    transfer::Transfer,
};
use rtnetlink::packet_route::{
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags},
};

/// What is waited for at most; nothing is asserted about it but that it ends.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Long enough for traffic to show whether it flows.
pub const WHILE: Duration = Duration::from_millis(250);
/// A pace that leaves a small machine time for everything else, bytes per second.
pub const RATE: u64 = 5_000_000;
/// Data returns soon, so that tests are short.
pub const HOLD: &str = "[failover]\nhold = 300\n";

/// The binaries under test: those of this build, or for figures `NETFTD` and `NETFT`.
pub fn programs() -> Programs {
    let other = |variable, own: &str| std::env::var(variable).unwrap_or_else(|_| own.to_owned());
    Programs::new(
        other("NETFTD", env!("CARGO_BIN_EXE_netftd")),
        other("NETFT", env!("CARGO_BIN_EXE_netft")),
    )
}

/// A number from the environment, for long runs and figures; otherwise that of a short test.
pub fn number(variable: &str, short: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

/// Two nodes, their networks and their daemons.
pub struct Pair {
    // Daemons first: they end before their namespaces and files go.
    pub daemons: [Option<Daemon>; 2],
    pub site: Site,
    pub lab: Lab,
}

impl Pair {
    /// Both daemons up over `networks` flat networks.
    pub fn up(networks: usize) -> Self {
        Self::with(networks, Settings { common: HOLD, ..Settings::default() })
    }

    /// The same with other settings.
    pub fn with(networks: usize, settings: Settings<'_>) -> Self {
        Self::over(&vec![Shape::Flat; networks], settings)
    }

    /// The same over networks of other shapes.
    pub fn over(shapes: &[Shape], settings: Settings<'_>) -> Self {
        Self::prepared(shapes, settings).started()
    }

    /// Starts both daemons and waits for every route.
    pub fn started(mut self) -> Self {
        for node in [0, 1] {
            self.start(node);
        }
        for node in [0, 1] {
            self.ready(node);
        }
        self
    }

    /// Everything but the daemons, over flat networks.
    pub fn prepared_for(networks: usize, settings: Settings<'_>) -> Self {
        Self::prepared(&vec![Shape::Flat; networks], settings)
    }

    /// Everything but the daemons.
    pub fn prepared(shapes: &[Shape], settings: Settings<'_>) -> Self {
        let lab = Lab::with_shapes(2, shapes).unwrap();
        let site = Site::new(&lab, programs(), settings).unwrap();
        Self { daemons: [None, None], site, lab }
    }

    pub fn start(&mut self, node: usize) {
        self.daemons[node] = Some(self.site.start(&self.lab, node).unwrap());
    }

    /// Waits until every network's route is up at the node.
    pub fn ready(&mut self, node: usize) -> Vec<Route> {
        let networks = self.lab.networks();
        self.daemon(node).wait_ready(networks).unwrap()
    }

    pub fn daemon(&mut self, node: usize) -> &mut Daemon {
        self.daemons[node].as_mut().unwrap()
    }

    pub fn events(&self, node: usize) -> Events {
        self.site.events(&self.lab, node).unwrap()
    }

    /// The sum of a node's dropped-packet counters.
    pub fn all_drops(&mut self, node: usize) -> u64 {
        let status = self.daemon(node).get("/v1/status").unwrap();
        let drops = status["counters"]["drops"].as_object().unwrap();
        drops.values().filter_map(serde_json::Value::as_u64).sum()
    }

    /// Replaces a text in a node's config, which must be there.
    pub fn rewrite(&self, node: usize, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.site.config(node)).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        std::fs::write(self.site.config(node), text.replace(from, to)).unwrap();
    }

    pub fn network(&self, node: usize, route: &Route) -> usize {
        self.lab.network_of(node, route.local().unwrap()).unwrap()
    }

    /// The network that carries the node's data, and the route there.
    pub fn active(&mut self, node: usize) -> (usize, Route) {
        let what = |routes: &[Route]| routes.iter().any(|r| r.active);
        let routes = self.daemon(node).wait_for("an active route", PATIENCE, what).unwrap();
        let route = routes.into_iter().find(|r| r.active).unwrap();
        (self.network(node, &route), route)
    }

    /// Waits until the node's data goes out on `network`.
    pub fn wait_active(&mut self, node: usize, network: usize) {
        let local = self.addresses(network, node);
        self.daemon(node)
            .wait_for(&format!("data on network {network}"), PATIENCE, |routes| {
                routes.iter().any(|r| r.active && r.local().is_some_and(|l| local.contains(&l)))
            })
            .unwrap();
    }

    /// Makes `network` the node's best by changing its route's priority, and waits for its data.
    pub fn prefer(&mut self, node: usize, network: usize) {
        let routes = self.daemon(node).routes().unwrap();
        let best = routes.iter().map(|route| route.priority).min().unwrap();
        let route = routes.iter().find(|route| self.network(node, route) == network).unwrap();
        let priority = (best - 1).to_string();
        let mut command = self.site.operator(&self.lab, node).unwrap();
        command.args(["route", "set", &route.id.to_string(), "--priority", &priority]);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        self.wait_active(node, network);
    }

    fn addresses(&self, network: usize, node: usize) -> [IpAddr; 2] {
        [false, true].map(|six| self.lab.address(network, node, six))
    }

    /// The time of the node's first move off the route after `since`.
    pub fn moved(&self, events: &Events, route: u64, since: Moment) -> Duration {
        let event = events
            .wait_for("a move", since.wall, PATIENCE, |event| {
                event.name == "moved" && event.number("from") == Some(route)
            })
            .unwrap();
        event.at.duration_since(since.wall).unwrap_or_default()
    }

    /// A node's virtual address, in its own namespace.
    pub fn endpoint(&self, node: usize, six: bool) -> SocketAddr {
        self.site.endpoint(&self.lab, node, six).unwrap()
    }

    pub fn transfer(&self, from: usize, rate: Option<u64>, six: bool) -> Transfer {
        let to = 1 - from;
        Transfer::start(
            (self.lab.node(from), self.endpoint(from, six)),
            (self.lab.node(to), self.endpoint(to, six)),
            rate,
        )
        .unwrap()
    }

    pub fn probe(&self, from: usize, six: bool) -> Probe {
        let to = 1 - from;
        Probe::start(
            (self.lab.node(from), self.endpoint(from, six)),
            (self.lab.node(to), self.endpoint(to, six)),
        )
        .unwrap()
    }

    /// A probe of 10,000 packets per second.
    pub fn dense_probe(&self, from: usize) -> Probe {
        let to = 1 - from;
        Probe::paced(
            (self.lab.node(from), self.endpoint(from, false)),
            (self.lab.node(to), self.endpoint(to, false)),
            Duration::from_micros(100),
        )
        .unwrap()
    }

    /// One dropped-packet counter of a node.
    pub fn drops(&mut self, node: usize, reason: &str) -> u64 {
        let status = self.daemon(node).get("/v1/status").unwrap();
        status["counters"]["drops"][reason].as_u64().unwrap()
    }

    /// The adapter as the node's kernel has it.
    pub fn adapter(&self, node: usize) -> Option<Link> {
        link(&self.lab, node, ADAPTER)
    }
}

/// How long leaving a route may take: its detection time, a fifth more, and half of it again for a
/// busy machine. A node that was not scheduled blames nobody for another detection time (F-20), so
/// every stall the nodes told of since `since` adds its length and that.
pub fn bound(route: &Route, events: &[Events; 2], since: Moment) -> Duration {
    let detection = route.detection_time();
    let stalls = events.iter().flat_map(Events::seen).filter(|event| event.since(since.wall));
    let lengths = stalls.filter_map(|event| event.number("length_ms"));
    detection.mul_f64(1.7)
        + lengths.map(|length| Duration::from_millis(length) + detection).sum::<Duration>()
}

/// A flow that must live: asserts that it moves on, ends in order and that no byte changed.
pub fn alive(transfer: Transfer) {
    let before = transfer.received();
    let deadline = Instant::now() + PATIENCE;
    while transfer.received() <= before {
        assert!(!transfer.broken(), "the flow broke: {:?}", transfer.finish().errors);
        assert!(Instant::now() < deadline, "the flow stands still");
        thread::sleep(WHILE / 25);
    }
    let outcome = transfer.finish();
    assert_eq!(outcome.errors, Vec::<String>::new());
    assert!(outcome.hash_equal, "the bytes changed");
    assert_eq!(outcome.bytes, outcome.received);
}

/// A probe whose datagrams must arrive exactly once.
pub fn nothing_lost(log: &Log) {
    let report = log.report();
    assert!(report.sent > 0 && report.lost == 0 && report.duplicates == 0, "{report:?}");
}

/// An interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub up: bool,
    /// Somebody holds the other end: for a TUN device, a process.
    pub carrier: bool,
    pub mtu: u32,
    pub addresses: Vec<IpAddr>,
}

/// The interface `name` of a node, if there is one.
pub fn link(lab: &Lab, node: usize, name: &str) -> Option<Link> {
    lab.node(node)
        .netlink("look at an interface", |netlink| async move {
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
            Ok(Some(Link { index, up, carrier, mtu: mtu.unwrap_or_default(), addresses }))
        })
        .unwrap()
}

/// Waits until `want` holds.
pub fn eventually(what: &str, want: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !want() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(WHILE / 25);
    }
}

/// What both daemons and both kernels count, at one moment.
#[derive(Clone, Debug)]
pub struct Counts {
    daemons: [BTreeMap<String, u64>; 2],
    kernels: [KernelCounters; 2],
}

impl Counts {
    pub fn take(pair: &mut Pair) -> Self {
        let daemons = [0, 1].map(|node| {
            let status = pair.daemon(node).get("/v1/status").unwrap();
            let mut counts = BTreeMap::new();
            for (name, value) in status["counters"].as_object().unwrap() {
                counts.extend(value.as_u64().map(|value| (name.clone(), value)));
            }
            for (reason, value) in status["counters"]["drops"].as_object().unwrap() {
                counts.extend(value.as_u64().map(|value| (format!("drops.{reason}"), value)));
            }
            counts
        });
        let kernels = [0, 1].map(|node| pair.lab.node(node).counters());
        Self { daemons, kernels }
    }

    /// What was counted since `before`.
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
    pub fn no_room(&self) -> u64 {
        Self::NO_ROOM.iter().map(|name| self.kernel(name)).sum()
    }

    /// The same in words.
    pub fn no_room_where(&self) -> String {
        let parts = Self::NO_ROOM.map(|name| (name, self.kernel(name)));
        let parts = parts.iter().filter(|(_, count)| *count > 0);
        parts.map(|(name, count)| format!(" {name} {count}")).collect()
    }

    const NO_ROOM: [&str; 3] = ["UdpRcvbufErrors", "netft0 rx_dropped", "netft0 tx_dropped"];
}

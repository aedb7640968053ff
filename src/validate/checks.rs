//! The checks: each finds one kind of fault and names its place and its remedy. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use netft::{
    PeerId,
    api::host::StackedLink,
    config::AdapterBackend,
    topology::{PlannedRoute, RoutePlan, UnroutedReason},
    wire::header::FRAME_OVERHEAD,
};

use super::{
    addresses,
    facts::NodeFacts,
    firewall,
    firewall::{BlockingChain, FilterDatagram, FilterOutcome, FilterProtocol},
    links, nodes, overlay, overrides, sessions,
};
use crate::control::schema::{Finding, Severity};

/// A check.
pub type CheckFn = fn(&NodeFacts, &RoutePlan) -> Vec<Finding>;

/// Every check.
pub const ALL_CHECKS: &[CheckFn] = &[
    check_no_peers,
    check_networks,
    addresses::check_interface_list,
    addresses::check_link_local_interfaces,
    addresses::check_shared_subnets,
    check_shared_fate,
    check_duplicates,
    check_mtu,
    check_firewall,
    check_reverse_path,
    check_clock_sync,
    check_socket_buffers,
    check_backend,
    sessions::check_cloned_keys,
    check_port_in_use,
    check_forwarding,
    check_daemon,
    overrides::check_overrides,
    sessions::check_sessions,
    sessions::check_routes,
    sessions::check_netmasks,
    overlay::check_packet_filter,
    overlay::check_adapter_firewall,
    overlay::check_ways,
    overlay::check_echoes,
    nodes::check_unasked_peers,
    nodes::check_clock_skew,
    nodes::check_path_mtu,
    nodes::check_segmented_sends,
];

fn peer_name(facts: &NodeFacts, peer: PeerId) -> &str {
    facts.config.peers.iter().find(|known| known.id == peer).map_or("?", |known| &known.name)
}

fn route_place(facts: &NodeFacts, route: &PlannedRoute) -> String {
    let peer = peer_name(facts, route.spec.peer);
    format!("{peer}: {} → {} ({})", route.spec.real_local, route.spec.real_remote, route.ifname)
}

/// A config without peers: the adapter works and nothing can be reached through it.
fn check_no_peers(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    if !facts.config.peers.is_empty() {
        return Vec::new();
    }
    let what = "the configuration names no peer: nothing can be reached through the adapter";
    let remedy = "add the `[[peer]]` block that `netft init` printed on the other node, then run \
                  `netft reload`";
    vec![Finding::new(Severity::Warning, "no-peers", "this node", what, remedy)]
}

/// Number of common networks with each peer: one is no redundancy (NetFT's validation warns too).
fn check_networks(facts: &NodeFacts, plan: &RoutePlan) -> Vec<Finding> {
    let mut findings = Vec::new();
    for skipped in
        plan.unrouted.iter().filter(|skipped| skipped.reason != UnroutedReason::OwnAddress)
    {
        let at = format!("{}: {}", peer_name(facts, skipped.peer), skipped.remote);
        let what = format!("no route leads there: {}", skipped.reason);
        let remedy = "correct the address in the config, or the networks of this node";
        findings.push(Finding::new(Severity::Warning, "unreachable-address", at, what, remedy));
    }
    for peer in &facts.config.peers {
        let routes = plan.routes.iter().filter(|route| route.spec.peer == peer.id);
        let used: BTreeSet<_> = routes.map(|route| (route.ifindex, &route.ifname)).collect();
        let remedy = "connect both nodes by a second network with its own NIC and switch, and \
                      add the peer's address there to `addresses`";
        match used.len() {
            // The peer advertises its addresses once netftd runs.
            0 | 1 if facts.daemon.is_none() && peer.addresses.len() + peer.names.len() < 2 => {
                findings.push(Finding::new(
                    Severity::Note,
                    "one-network",
                    &peer.name,
                    "the config names fewer than two addresses of the peer, and netftd is not \
                     running to learn more",
                    "start netftd and run this again",
                ));
            }
            0 => findings.push(Finding::new(
                Severity::Error,
                "no-network",
                &peer.name,
                "no common network with the peer",
                remedy,
            )),
            1 => findings.push(Finding::new(
                Severity::Warning,
                "one-network",
                &peer.name,
                "only one common network with the peer: its failure separates both nodes",
                remedy,
            )),
            _ => {}
        }
    }
    findings
}

/// Shared fate: routes to one peer over one interface, bridge, bond or VLAN parent fail together.
fn check_shared_fate(facts: &NodeFacts, plan: &RoutePlan) -> Vec<Finding> {
    let mut reported = BTreeSet::new();
    let mut findings = Vec::new();
    for (number, one) in plan.routes.iter().enumerate() {
        for other in &plan.routes[number + 1..] {
            // Two routes on one interface are one network, which another check reports.
            let apart = one.ifindex != other.ifindex && one.ifindex != 0 && other.ifindex != 0;
            if one.spec.peer != other.spec.peer || !apart {
                continue;
            }
            let Some(shared) = links::shared_link(&facts.links, one.ifindex, other.ifindex) else {
                continue;
            };
            let pair = (one.ifname.as_str(), other.ifname.as_str());
            if !reported.insert((pair.0.min(pair.1), pair.0.max(pair.1))) {
                continue;
            }
            let shared = &shared.interface.name;
            findings.push(Finding::new(
                Severity::Warning,
                "shared-fate",
                format!("{}, {}", pair.0, pair.1),
                format!("both depend on {shared}: when it fails, both networks fail"),
                format!("move one of them to a NIC other than {shared}"),
            ));
        }
    }
    findings
}

/// Duplicate addresses and keys.
fn check_duplicates(facts: &NodeFacts, plan: &RoutePlan) -> Vec<Finding> {
    const FINDING_ID: &str = "duplicate-address";
    let mut findings = Vec::new();
    for skipped in
        plan.unrouted.iter().filter(|skipped| skipped.reason == UnroutedReason::OwnAddress)
    {
        findings.push(Finding::new(
            Severity::Error,
            FINDING_ID,
            peer_name(facts, skipped.peer),
            format!("the peer's address {} is this node's own", skipped.remote.ip()),
            "give one of the nodes another address, and the config the peer's",
        ));
    }
    let mut owners: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for link in facts.links.iter().filter(|link| !link.interface.loopback) {
        for local in &link.interface.addrs {
            owners.entry(local.addr).or_default().push(&link.interface.name);
        }
    }
    for (addr, owners) in owners {
        let config = &facts.config;
        let foreign = owners.iter().any(|owner| *owner != config.adapter.name);
        if config.adapter.addrs.contains(addr) && foreign {
            findings.push(Finding::new(
                Severity::Error,
                FINDING_ID,
                owners.join(", "),
                format!("{addr} is the adapter's virtual address, and another interface has it"),
                format!("remove {addr} from that interface, or choose another `address`"),
            ));
        } else if owners.len() > 1 && !is_link_local(addr) {
            findings.push(Finding::new(
                Severity::Warning,
                FINDING_ID,
                owners.join(", "),
                format!("{addr} is on more than one interface"),
                "leave it on one of them",
            ));
        }
    }
    let mut keys = BTreeMap::from([(facts.config.public_key, "this node")]);
    for peer in &facts.config.peers {
        if let Some(other) = keys.insert(peer.key, &peer.name) {
            findings.push(Finding::new(
                Severity::Error,
                "duplicate-identity",
                &peer.name,
                format!("{other} has the same key"),
                "give each node its own with `netft keygen`",
            ));
        }
    }
    findings
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Interfaces too small for the adapter's MTU: packets to the peer are smaller then.
fn check_mtu(facts: &NodeFacts, plan: &RoutePlan) -> Vec<Finding> {
    let mut findings = Vec::new();
    for route in &plan.routes {
        let Some(link) = facts.link_by_index(route.ifindex) else { continue };
        let headers = if route.spec.real_remote.is_ipv4() { 28 } else { 48 };
        let whole = headers + FRAME_OVERHEAD as u32;
        let (has, needs) = (link.interface.mtu, u32::from(facts.config.adapter.mtu) + whole);
        if has < needs {
            let adapter = has.saturating_sub(whole);
            findings.push(Finding::new(
                Severity::Warning,
                "mtu",
                route_place(facts, route),
                format!("the interface carries {has} bytes, the adapter's packets need {needs}"),
                format!(
                    "`ip link set {} mtu {needs}`, if the network carries it; otherwise packets \
                     to this peer have at most {adapter} bytes",
                    route.ifname
                ),
            ));
        }
    }
    findings
}

/// Packet filter rules of this node that block netft's datagrams.
fn check_firewall(facts: &NodeFacts, plan: &RoutePlan) -> Vec<Finding> {
    const FINDING_ID: &str = "firewall";
    let rules = match &facts.ruleset {
        Ok(rules) => rules,
        Err(why) => {
            let what = format!(
                "cannot tell whether UDP port {} is open: {why}",
                facts.config.session.port
            );
            let remedy = "run as root, with nft installed";
            return vec![Finding::new(Severity::Note, FINDING_ID, "this node", what, remedy)];
        }
    };
    let mut findings: Vec<Finding> = Vec::new();
    for route in &plan.routes {
        let (local, remote) = (route.spec.real_local, route.spec.real_remote);
        for (hook, source, destination) in [("input", remote, local), ("output", local, remote)] {
            let datagram = |established| FilterDatagram {
                protocol: FilterProtocol::Udp,
                hook,
                interface: &route.ifname,
                source,
                destination,
                established,
            };
            let fresh = firewall::filter_outcome(rules, datagram(false));
            let answer = firewall::filter_outcome(rules, datagram(true));
            let (severity, what, at) = match (fresh, answer) {
                (FilterOutcome::Passes, _) => continue,
                (FilterOutcome::Blocked(at), FilterOutcome::Blocked(_)) => {
                    (Severity::Error, "are blocked here", at)
                }
                // Both ends send from and to the port, so each one's heartbeats count as
                // replies until connection tracking expires.
                (FilterOutcome::Blocked(at), _) => {
                    (Severity::Warning, "pass only as replies, not when the peer sends first", at)
                }
                (FilterOutcome::Unsure(at), _) => {
                    (Severity::Note, "may be blocked: a rule could not be interpreted", at)
                }
            };
            let port = destination.port();
            let found = Finding::new(
                severity,
                FINDING_ID,
                route_place(facts, route),
                format!(
                    "datagrams to UDP port {port} {what}: {} (nftables table {} {})",
                    at.why, at.family, at.table
                ),
                firewall_remedy(hook, &at, port),
            );
            findings.push(found);
        }
    }
    findings
}

/// Command that adds the missing rule.
fn firewall_remedy(hook: &str, at: &BlockingChain, port: u16) -> String {
    let BlockingChain { family, table, chain, zone, .. } = at;
    let nft = format!("nft insert rule {family} {table} {chain} udp dport {port} accept");
    if hook == "output" {
        return format!("`{nft}`");
    }
    let zone = zone.as_ref().map_or_else(String::new, |zone| format!(" --zone={zone}"));
    let firewalld =
        format!("firewall-cmd --permanent{zone} --add-port={port}/udp && firewall-cmd --reload");
    match table.as_str() {
        // Only firewalld changes its own rules permanently.
        "firewalld" => format!("`{firewalld}`"),
        _ => format!("`{nft}`; with firewalld: `{firewalld}`"),
    }
}

/// Strict reverse path filters (RFC 3704): they drop packets on asymmetric paths, as behind routers
/// and with two interfaces on one subnet.
fn check_reverse_path(facts: &NodeFacts, plan: &RoutePlan) -> Vec<Finding> {
    let mut reported = BTreeSet::new();
    let mut findings = Vec::new();
    for route in plan.routes.iter().filter(|route| route.spec.real_local.is_ipv4()) {
        if !facts.strict_rp_filter.contains(&route.ifname) || !reported.insert(&route.ifname) {
            continue;
        }
        let remote = route.spec.real_remote.ip();
        let on_subnet = |link: &&StackedLink| {
            link.interface.addrs.iter().any(|own| own.prefix.contains(&remote))
        };
        let holders = facts.links.iter().filter(on_subnet).count();
        let (severity, when) = match holders {
            1 => (Severity::Note, "harmless while each network has one interface here"),
            0 => (Severity::Warning, "the peer is behind a router, the return path may differ"),
            _ => (Severity::Warning, "more than one interface is on this subnet"),
        };
        findings.push(Finding::new(
            severity,
            "rp-filter",
            &route.ifname,
            format!("the reverse path filter is strict: {when}"),
            format!(
                "`sysctl -w net.ipv4.conf.{0}.rp_filter=2 net.ipv4.conf.all.rp_filter=2`",
                route.ifname
            ),
        ));
    }
    findings
}

fn check_clock_sync(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    if facts.is_clock_synchronised != Some(false) {
        return Vec::new();
    }
    let what = "the clock is not synchronised: logs of several nodes cannot be compared";
    let remedy = "`timedatectl set-ntp true`, or install chrony";
    vec![Finding::new(Severity::Warning, "clock", "this node", what, remedy)]
}

fn check_socket_buffers(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((given, wanted)) = facts.receive_buffer.filter(|(given, wanted)| given < wanted) {
        findings.push(Finding::new(
            Severity::Warning,
            "buffers",
            "this node",
            format!("socket receive buffers get {given} of {wanted} bytes: bursts are dropped"),
            format!("`sysctl -w net.core.rmem_max={wanted}`, or run netftd with CAP_NET_ADMIN"),
        ));
    }
    findings
}

/// The backend in use, where it is not the fast one.
fn check_backend(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    if facts.config.adapter.backend == AdapterBackend::Offload {
        return Vec::new();
    }
    let what = "the adapter has the `plain` backend: one queue, one packet at a time";
    let remedy =
        "set `backend = \"offload\"` under [adapter], unless this kernel's offload is faulty";
    vec![Finding::new(Severity::Note, "backend", "this node", what, remedy)]
}

/// UDP port in use by another program.
fn check_port_in_use(facts: &NodeFacts, plan: &RoutePlan) -> Vec<Finding> {
    if facts.daemon.is_some() {
        return Vec::new();
    }
    let locals: BTreeSet<_> = plan.routes.iter().map(|route| route.spec.real_local).collect();
    let clashes = |bound: &SocketAddr, local: &SocketAddr| {
        let same = bound.ip() == local.ip();
        let any = bound.ip().is_unspecified() && (bound.is_ipv6() || local.is_ipv4());
        bound.port() == local.port() && (same || any)
    };
    locals
        .into_iter()
        .filter(|local| facts.bound_sockets.iter().any(|bound| clashes(bound, local)))
        .map(|local| {
            Finding::new(
                Severity::Error,
                "port",
                local.to_string(),
                "another program uses this UDP port, possibly another netftd",
                format!(
                    "`ss -ulpn sport = :{}` shows it: stop it, or give one of them another `port`",
                    local.port()
                ),
            )
        })
        .collect()
}

/// Link-local packets must not be forwarded (RFC 3927 section 7); the kernel forwards those of
/// IPv4 where it forwards at all.
fn check_forwarding(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    if !facts.forwarding || !facts.config.adapter.addrs.v4.is_link_local() {
        return Vec::new();
    }
    let adapter = &facts.config.adapter.name;
    let what = "this node forwards link-local packets of other machines into the adapter";
    let remedy = format!("`sysctl -w net.ipv4.conf.{adapter}.forwarding=0`");
    vec![Finding::new(Severity::Warning, "forwarding", adapter, what, remedy)]
}

/// State of the daemon; without one only the machine is checked.
fn check_daemon(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let Some(daemon) = &facts.daemon else {
        let what = "netftd is not running: sessions, routes and peers were not checked";
        let remedy = "start netftd and run this again";
        return vec![Finding::new(Severity::Note, "no-daemon", "this node", what, remedy)];
    };
    let mut findings = Vec::new();
    if let Some(refused) = &daemon.reload_refused {
        let what = format!("the configuration file cannot be applied: {refused}");
        let remedy = "correct the file; a change that needs a restart: `systemctl restart netftd`";
        findings.push(Finding::new(Severity::Warning, "not-applied", "this node", what, remedy));
    } else if !daemon.pending_changes.is_empty() {
        findings.push(Finding::new(
            Severity::Warning,
            "not-applied",
            "this node",
            format!(
                "the configuration file differs from the running configuration: {}",
                daemon.pending_changes[0]
            ),
            "`netft reload --dry-run` shows all of it, `netft reload` applies it",
        ));
    }
    if daemon.socket_overflow > 0 {
        let what = format!("{} datagrams were lost in full socket buffers", daemon.socket_overflow);
        let remedy = "find what keeps the CPUs of this node busy";
        findings.push(Finding::new(Severity::Warning, "buffers", "this node", what, remedy));
    }
    findings
}

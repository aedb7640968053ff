//! Checks of the overlay itself: the adapter's addresses, and packets on the adapter. Pure.

use std::net::{IpAddr, SocketAddr};

use netft::{api::host::PacketFilterState, topology::RoutePlan};

use super::{
    facts::NodeFacts,
    firewall,
    firewall::{FilterDatagram, FilterOutcome, FilterProtocol},
};
use crate::control::schema::{Finding, Severity};

/// A port that no service has: a rule that opens single ports does not open this one.
const UNUSED_PORT: u16 = 1;

/// The packet filter that closes the adapter's addresses to the physical networks.
pub(super) fn check_packet_filter(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let adapter = &facts.config.adapter.name;
    let what = match (&facts.packet_filter, &facts.daemon) {
        (Some(PacketFilterState::Unsupported(error)), _) => {
            format!("the kernel refuses nftables ({error})")
        }
        (Some(PacketFilterState::Missing), Some(_)) => {
            format!("the nftables tables netft_{adapter} are missing or incomplete")
        }
        // Without a daemon there is no adapter to close, or its crash left the tables.
        (Some(PacketFilterState::Missing), None)
        | (Some(PacketFilterState::Installed) | None, _) => return Vec::new(),
    };
    vec![Finding::new(
        Severity::Error,
        "exposed-adapter",
        adapter,
        format!("{what}: hosts on the physical networks reach this node's virtual addresses"),
        "enable nf_tables in the kernel (`modprobe nf_tables`), and remove what owns or deletes \
         these tables; `netft events` has the kernel's answer",
    )]
}

/// Packet filter rules of this node that drop what peers send through the adapter.
pub(super) fn check_adapter_firewall(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let Ok(rules) = &facts.ruleset else { return Vec::new() };
    let adapter = &facts.config.adapter;
    for peer in &facts.config.peers {
        let pairs: [(IpAddr, IpAddr); 2] = [
            (peer.addrs.v4.into(), adapter.addrs.v4.into()),
            (peer.addrs.v6.into(), adapter.addrs.v6.into()),
        ];
        for (source, destination) in pairs {
            let port = |addr| SocketAddr::new(addr, UNUSED_PORT);
            let outcome = |protocol| {
                let datagram = FilterDatagram {
                    protocol,
                    hook: "input",
                    interface: &adapter.name,
                    source: port(source),
                    destination: port(destination),
                    established: false,
                };
                firewall::filter_outcome(rules, datagram)
            };
            let outcomes = [FilterProtocol::Echo, FilterProtocol::Tcp, FilterProtocol::Udp];
            // A host that admits one of them decides on purpose what it takes.
            let [FilterOutcome::Blocked(at), FilterOutcome::Blocked(_), FilterOutcome::Blocked(_)] =
                outcomes.map(outcome)
            else {
                continue;
            };
            return vec![Finding::new(
                Severity::Warning,
                "adapter-firewall",
                &adapter.name,
                format!(
                    "the firewall drops what peers send through {}, but for the services it \
                     names: {} (nftables table {} {})",
                    adapter.name, at.why, at.family, at.table
                ),
                if at.table == "firewalld" {
                    format!(
                        "`firewall-cmd --permanent --zone=trusted --add-interface={}` and \
                         `firewall-cmd --reload`, or open each service in its zone",
                        adapter.name
                    )
                } else {
                    format!(
                        "`nft insert rule {} {} {} iifname {} accept`, or one rule for each \
                         service",
                        at.family, at.table, at.chain, adapter.name
                    )
                },
            )];
        }
    }
    Vec::new()
}

/// Ways to the peers' virtual addresses that do not lead through the adapter.
pub(super) fn check_ways(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let adapter = &facts.config.adapter.name;
    let away = facts.drawn_away.iter().map(|(addr, interface)| {
        Finding::new(
            Severity::Error,
            "overlay-route",
            adapter,
            format!("packets to {addr} would leave by {interface}, not {adapter}, and are dropped"),
            format!(
                "find the policy rule (`ip rule`) or the route (`ip route get {addr}`) that leads \
                 there, and remove it or give it a priority above 1"
            ),
        )
    });
    away.collect()
}

/// Peers with a usable route that do not answer through the adapter.
pub(super) fn check_echoes(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let adapter = &facts.config.adapter.name;
    let peers = facts.daemon.iter().flat_map(|daemon| &daemon.sessions);
    let found = peers.filter_map(|peer| {
        peer.overlay_problem.as_ref()?;
        Some(Finding::new(
            Severity::Error,
            "no-answer-through-adapter",
            &peer.name,
            format!("routes to it are up, and nothing comes back through {adapter}"),
            format!(
                "look for a firewall that drops on {adapter}: `netft validate` on {}, and here; \
                 admit the adapter, or the services that it has",
                peer.name
            ),
        ))
    });
    found.collect()
}

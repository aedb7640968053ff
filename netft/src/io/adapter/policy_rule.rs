//! A policy rule of netft's own, where a foreign one stands before the main table: with the foreign
//! rule alone packets to peers would take its routes (an exit node of another VPN) and not the
//! adapter.
//!
//! The rule leads to a table of the adapter's own with the same host routes as in the main table;
//! everything else falls through it. It is removed once no foreign rule stands there.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::io::{
    adapter::repairs::DesiredState,
    netlink::{HostRoute, MAIN_TABLE, Netlink, NetlinkError, PolicyRule, rules},
};

/// Priority of the own rule, unless a foreign one stands before it.
const PREFERRED_PRIORITY: u32 = 3343;
/// Priority of the rule that leads to the main table.
const MAIN_PRIORITY: u32 = 32_766;
/// The local table, whose rule has priority 0.
const LOCAL_TABLE: u32 = 255;
/// First of the tables of adapters; each has one by its name.
const FIRST_TABLE: u32 = 33_430_000;
const TABLE_COUNT: u32 = 10_000;

/// Result of a check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleReport {
    /// Rules that were set, in words.
    pub(crate) repairs: Vec<String>,
    /// Peers' addresses whose packets would leave by another interface than the adapter.
    pub(crate) drawn_away: Vec<IpAddr>,
    /// The first foreign rule before the main table.
    pub(crate) foreign: Option<PolicyRule>,
}

/// Routing table of an adapter: FNV-1a of its name.
pub(crate) fn table_of(adapter: &str) -> u32 {
    let hash = adapter
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    FIRST_TABLE + hash % TABLE_COUNT
}

/// Change of the own rule of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuleChange {
    None,
    /// Add it with this priority, and remove the present one, if any.
    Set(u32),
    Remove,
}

/// The first rule of another program before the main table that may apply to packets from the
/// adapter's addresses to peers: one for other sources or destinations, or for the packets of a
/// VRF, does not.
fn first_foreign_rule(rules: &[PolicyRule], desired: &DesiredState) -> Option<PolicyRule> {
    let takes_source = |prefix: IpNet| match prefix {
        IpNet::V4(prefix) => prefix.contains(&desired.addrs.v4),
        IpNet::V6(prefix) => prefix.contains(&desired.addrs.v6),
    };
    let takes_destination = |prefix: IpNet| desired.routes.keys().any(|addr| prefix.contains(addr));
    let is_foreign = |rule: &&PolicyRule| {
        !rule.is_own
            && !rule.is_for_vrf
            && rule.table != LOCAL_TABLE
            && rule.priority < MAIN_PRIORITY
            && rule.source.is_none_or(takes_source)
            && rule.destination.is_none_or(takes_destination)
    };
    rules.iter().filter(is_foreign).min_by_key(|rule| rule.priority).copied()
}

fn decide_change(foreign: Option<PolicyRule>, rules: &[PolicyRule], table: u32) -> RuleChange {
    let own = rules.iter().find(|rule| rule.is_own && rule.table == table);
    match (foreign, own) {
        (None, None) => RuleChange::None,
        (None, Some(_)) => RuleChange::Remove,
        (Some(foreign), Some(own)) if own.priority < foreign.priority => RuleChange::None,
        // Nothing goes before the rule of the local table.
        (Some(PolicyRule { priority: 0, .. }), _) => RuleChange::None,
        (Some(foreign), _) => RuleChange::Set(PREFERRED_PRIORITY.min(foreign.priority - 1)),
    }
}

/// Sets or removes the own rule of both families, and looks up the way to every peer.
pub(crate) async fn reconcile_rules(
    netlink: &Netlink,
    desired: &DesiredState,
    ifindex: u32,
) -> Result<RuleReport, NetlinkError> {
    let mut report = RuleReport::default();
    let table = table_of(&desired.name);
    for ipv6 in [false, true] {
        let present = rules::list_rules(netlink, ipv6).await?;
        let foreign = first_foreign_rule(&present, desired);
        report.foreign = report.foreign.or(foreign);
        let change = decide_change(foreign, &present, table);
        let own = present.iter().filter(|rule| rule.is_own && rule.table == table);
        if change == RuleChange::None {
            if own.count() > 0 {
                fill_table(netlink, desired, ifindex, (table, ipv6)).await?;
            }
            continue;
        }
        if let (RuleChange::Set(priority), Some(foreign)) = (change, foreign) {
            fill_table(netlink, desired, ifindex, (table, ipv6)).await?;
            rules::add_rule(netlink, ipv6, priority, table).await?;
            report.repairs.push(format!(
                "policy rule {} (table {}) comes before the main table and may redirect packets to \
                 peers: rule {priority} (table {table}) set before it",
                foreign.priority, foreign.table
            ));
        }
        for rule in own {
            rules::remove_rule(netlink, ipv6, rule.priority, table).await?;
        }
        if change == RuleChange::Remove {
            for route in routes_in(netlink, ifindex, (table, ipv6)).await? {
                netlink.remove_peer_route(ifindex, table, route.addr).await?;
            }
        }
    }
    // The host routes in the main table lead to the adapter; only a rule before it does not.
    let drawable = desired.routes.keys().filter(|_| report.foreign.is_some());
    for addr in drawable.collect::<Vec<_>>() {
        let way = netlink.source_for(*addr).await?;
        if way.is_some_and(|(_, out)| out != ifindex) {
            report.drawn_away.push(*addr);
        }
    }
    Ok(report)
}

/// Removes the rules of an adapter. Its routes go with the device.
pub(crate) async fn remove_rules(netlink: &Netlink, adapter: &str) -> Result<(), NetlinkError> {
    let table = table_of(adapter);
    for ipv6 in [false, true] {
        let present = rules::list_rules(netlink, ipv6).await?;
        for rule in present.iter().filter(|rule| rule.is_own && rule.table == table) {
            rules::remove_rule(netlink, ipv6, rule.priority, table).await?;
        }
    }
    Ok(())
}

async fn routes_in(
    netlink: &Netlink,
    ifindex: u32,
    (table, ipv6): (u32, bool),
) -> Result<Vec<HostRoute>, NetlinkError> {
    let routes = netlink.peer_routes(ifindex, table).await?;
    Ok(routes.into_iter().filter(|route| route.addr.is_ipv6() == ipv6).collect())
}

/// Makes the adapter's table the same as its routes in the main table.
async fn fill_table(
    netlink: &Netlink,
    desired: &DesiredState,
    ifindex: u32,
    (table, ipv6): (u32, bool),
) -> Result<(), NetlinkError> {
    let main = routes_in(netlink, ifindex, (MAIN_TABLE, ipv6)).await?;
    let present = routes_in(netlink, ifindex, (table, ipv6)).await?;
    let wanted: BTreeMap<_, _> = main.iter().map(|route| (route.addr, route)).collect();
    for route in present.iter().filter(|route| !wanted.contains_key(&route.addr)) {
        netlink.remove_peer_route(ifindex, table, route.addr).await?;
    }
    for route in main.iter().filter(|route| !present.contains(route)) {
        let own: IpAddr = if ipv6 { desired.addrs.v6.into() } else { desired.addrs.v4.into() };
        let mtu = route.mtu.unwrap_or_else(|| desired.mtu.into());
        netlink.replace_peer_route(ifindex, table, (route.addr, own), mtu).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft_proto::ids::virtual_addrs::VirtualAddrs;

    use super::*;

    const TABLE: u32 = FIRST_TABLE;

    fn rule(priority: u32, table: u32) -> PolicyRule {
        PolicyRule {
            priority,
            table,
            is_own: false,
            source: None,
            destination: None,
            is_for_vrf: false,
        }
    }

    fn own(priority: u32) -> PolicyRule {
        PolicyRule { is_own: true, ..rule(priority, TABLE) }
    }

    fn desired() -> DesiredState {
        let v4 = "169.254.3.4".parse().unwrap();
        DesiredState {
            name: "netft0".into(),
            addrs: VirtualAddrs { v4, v6: "fe80::1:2".parse().unwrap() },
            mtu: 1420,
            routes: [("169.254.9.9".parse().unwrap(), 1420)].into(),
            speed: None,
        }
    }

    #[test]
    fn a_rule_is_set_only_before_a_foreign_one() {
        let system = [rule(0, 255), rule(32_766, 254), rule(32_767, 253)];
        let cases: [(&[PolicyRule], RuleChange); 8] = [
            (&[], RuleChange::None),
            (&[rule(5270, 52)], RuleChange::Set(3343)),
            (&[rule(100, 52), rule(5270, 52)], RuleChange::Set(99)),
            (&[rule(5270, 52), own(3343)], RuleChange::None),
            (&[rule(100, 52), own(3343)], RuleChange::Set(99)),
            (&[own(3343)], RuleChange::Remove),
            (&[rule(0, 52)], RuleChange::None),
            // Another adapter's rule is neither foreign nor this one's.
            (&[PolicyRule { table: TABLE + 1, ..own(3343) }], RuleChange::None),
        ];
        for (rules, change) in cases {
            let all: Vec<_> = rules.iter().chain(&system).copied().collect();
            let foreign = first_foreign_rule(&all, &desired());
            assert_eq!(decide_change(foreign, &all, TABLE), change, "{rules:?}");
        }
    }

    #[test]
    fn a_rule_that_cannot_apply_to_packets_to_peers_is_not_foreign() {
        let is_foreign = |rule: PolicyRule| first_foreign_rule(&[rule], &desired()).is_some();
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        let one = rule(100, 52);
        assert!(is_foreign(one));
        // A card's own routes, as a host with two uplinks has them.
        assert!(!is_foreign(PolicyRule { source: net("10.1.0.5/32"), ..one }));
        assert!(is_foreign(PolicyRule { source: net("169.254.0.0/16"), ..one }));
        assert!(!is_foreign(PolicyRule { destination: net("10.0.0.0/8"), ..one }));
        assert!(is_foreign(PolicyRule { destination: net("169.254.9.0/24"), ..one }));
        assert!(!is_foreign(PolicyRule { is_for_vrf: true, table: 0, ..one }));
        // One that prohibits has no table and applies to all.
        assert!(is_foreign(rule(100, 0)));
    }

    #[test]
    fn adapters_have_tables_of_their_own() {
        assert_ne!(table_of("netft0"), table_of("netft1"));
        assert!((FIRST_TABLE..FIRST_TABLE + TABLE_COUNT).contains(&table_of("netft0")));
    }
}

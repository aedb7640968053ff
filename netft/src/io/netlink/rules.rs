//! Policy routing rules of the kernel (ip-rule(8)).

use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    IpVersion,
    packet_route::{
        AddressFamily,
        route::{RouteHeader, RouteProtocol},
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
    },
};

use crate::io::netlink::{
    Netlink, await_reply, none_if_missing,
    types::{NetlinkError, PolicyRule, ROUTE_PROTOCOL},
};

/// The rules of a family, in the order in which the kernel applies them; none where the kernel
/// has no policy routing.
///
/// # Errors
/// Of the kernel.
pub async fn list_rules(netlink: &Netlink, ipv6: bool) -> Result<Vec<PolicyRule>, NetlinkError> {
    let version = if ipv6 { IpVersion::V6 } else { IpVersion::V4 };
    let list = netlink.handle()?.rule().get(version).execute().try_collect::<Vec<_>>();
    let list = match await_reply(|| "list policy rules".into(), list).await {
        Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => Vec::new(),
        result => result?,
    };
    Ok(list.iter().map(to_policy_rule).collect())
}

/// Adds a rule of netft: every packet is looked up in `table` first.
///
/// # Errors
/// Of the kernel.
pub async fn add_rule(
    netlink: &Netlink,
    ipv6: bool,
    priority: u32,
    table: u32,
) -> Result<(), NetlinkError> {
    let mut request = netlink.handle()?.rule().add();
    *request.message_mut() = rule_message(ipv6, priority, table);
    let what = || format!("add policy rule {priority}");
    await_reply(what, request.execute()).await
}

/// Removes a rule of netft; a missing one is no error.
///
/// # Errors
/// Of the kernel.
pub async fn remove_rule(
    netlink: &Netlink,
    ipv6: bool,
    priority: u32,
    table: u32,
) -> Result<(), NetlinkError> {
    let request = netlink.handle()?.rule().del(rule_message(ipv6, priority, table)).execute();
    let what = || format!("remove policy rule {priority}");
    match await_reply(what, request).await {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        result => none_if_missing(result).map(drop),
    }
}

fn rule_message(ipv6: bool, priority: u32, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::Table(table),
        RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)),
    ];
    message
}

fn to_policy_rule(message: &RuleMessage) -> PolicyRule {
    let header = &message.header;
    let prefix = |addr: &IpAddr, len| IpNet::new(*addr, len).ok();
    let mut rule = PolicyRule {
        priority: 0,
        table: header.table.into(),
        is_own: false,
        source: None,
        destination: None,
        is_for_vrf: false,
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Source(addr) => rule.source = prefix(addr, header.src_len),
            RuleAttribute::Destination(addr) => rule.destination = prefix(addr, header.dst_len),
            RuleAttribute::L3MDev(on) => rule.is_for_vrf = *on,
            RuleAttribute::Protocol(protocol) => {
                rule.is_own = *protocol == RouteProtocol::Other(ROUTE_PROTOCOL);
            }
            _ => {}
        }
    }
    if header.flags.contains(RuleFlags::Invert) {
        // Applies to all that the prefixes leave out.
        (rule.source, rule.destination) = (None, None);
    }
    rule
}

//! Conversion of kernel messages to plain values. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use netft_proto::topology::{Interface, LocalAddr};
use rtnetlink::{
    packet_core::Nla,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
        link::{InfoData, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
    },
};

use crate::io::netlink::types::{AdapterAddr, DeviceInfo, DeviceKind, HostRoute, StackedLink};

pub(super) fn to_interface(message: &LinkMessage) -> Interface {
    let flags = message.header.flags;
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        kind: link_kind(message),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        mtu: 0,
        default_route: None,
        speed: None,
        addrs: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Carrier(carrier) => interface.carrier = *carrier != 0,
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            _ => {}
        }
    }
    interface
}

pub(super) fn to_stacked_link(message: &LinkMessage) -> StackedLink {
    let interface = to_interface(message);
    let find =
        |wanted: fn(&LinkAttribute) -> Option<u32>| message.attributes.iter().find_map(wanted);
    let master = find(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    });
    let below = find(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    });
    // The other end of a veth pair is no parent, and may be in another namespace.
    let rides = matches!(
        interface.kind.as_deref(),
        Some("vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "macsec")
    );
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let (parent, queue_len) = (below.filter(|_| rides), queue_len(message));
    StackedLink { interface, parent, master, ethernet, queue_len }
}

/// The transmit queue length of an interface, packets.
pub(super) fn queue_len(message: &LinkMessage) -> u32 {
    let len = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::TxQueueLen(len) => Some(*len),
        _ => None,
    });
    len.unwrap_or(0)
}

fn link_infos(message: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })
        .flatten()
}

fn link_kind(message: &LinkMessage) -> Option<String> {
    link_infos(message).find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// `enum` of `linux/if_link.h`.
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;
/// `IFF_TUN` in `IFLA_TUN_TYPE`; a TAP has 2.
const TYPE_TUN: u32 = 1;

pub(super) fn to_device(message: &LinkMessage) -> DeviceInfo {
    let Interface { index, name, kind, carrier, .. } = to_interface(message);
    let kind = if kind.as_deref() == Some("tun") {
        to_tun_kind(message, carrier)
    } else {
        DeviceKind::Other(kind.unwrap_or_else(|| "hardware".into()))
    };
    DeviceInfo { index, name, kind }
}

fn to_tun_kind(message: &LinkMessage, carrier: bool) -> DeviceKind {
    let number = |wanted: u16| {
        link_infos(message)
            .filter_map(|info| match info {
                LinkInfo::Data(InfoData::Tun(data)) => Some(data),
                _ => None,
            })
            .flatten()
            .find(|data| data.kind() == wanted)
            .map(number_of)
    };
    if number(IFLA_TUN_TYPE).is_some_and(|kind| kind != TYPE_TUN) {
        return DeviceKind::Other("tap".into());
    }
    let is_set = |wanted| number(wanted).is_some_and(|value| value != 0);
    let queues = number(IFLA_TUN_NUM_QUEUES)
        .map(|queues| queues + number(IFLA_TUN_NUM_DISABLED_QUEUES).unwrap_or(0));
    DeviceKind::Tun {
        multi_queue: is_set(IFLA_TUN_MULTI_QUEUE),
        vnet_hdr: is_set(IFLA_TUN_VNET_HDR),
        persistent: is_set(IFLA_TUN_PERSIST),
        // A device with one queue reports no count, but has a carrier exactly while it is open.
        in_use: queues.map_or(carrier, |queues| queues > 0),
    }
}

/// The value of an attribute of one or four bytes.
fn number_of(attribute: &InfoTun) -> u32 {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    match bytes[..] {
        [byte] => byte.into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// Local address, prefix length, and the address that the prefix applies to (the peer of a
/// point-to-point address).
fn local_and_prefix(message: &AddressMessage) -> Option<(IpAddr, u8, IpAddr)> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => address = Some(*addr),
            _ => {}
        }
    }
    let own = local.or(address)?;
    Some((own, message.header.prefix_len, address.unwrap_or(own)))
}

fn address_flags(message: &AddressMessage) -> AddressFlags {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        })
        .unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()))
}

/// An address that can be bound; `None` during or after a failed duplicate address detection.
pub(super) fn local_addr(message: &AddressMessage) -> Option<LocalAddr> {
    let flags = address_flags(message);
    let probing =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    if probing || flags.contains(AddressFlags::Dadfailed) {
        return None;
    }
    let (addr, prefix_len, on_link) = local_and_prefix(message)?;
    Some(LocalAddr {
        addr,
        prefix: IpNet::new(on_link, prefix_len).ok()?.trunc(),
        is_secondary: flags.intersects(AddressFlags::Secondary | AddressFlags::Deprecated),
    })
}

pub(super) fn adapter_addr(message: &AddressMessage) -> Option<AdapterAddr> {
    let (addr, prefix_len, _) = local_and_prefix(message)?;
    let is_deprecated = address_flags(message).contains(AddressFlags::Deprecated);
    let has_link_scope = addr.is_ipv4() && message.header.scope == AddressScope::Link;
    Some(AdapterAddr { addr, prefix_len, is_deprecated, has_link_scope })
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// Source address and interface of a route lookup's reply.
pub(super) fn route_source(message: &RouteMessage) -> Option<(IpAddr, u32)> {
    let mut source = None;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::PrefSource(addr) => source = address_of(addr),
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    source.zip(interface)
}

/// Returns whether an entry of the routing table passes packets on out of an interface.
pub(super) fn leads_out_of(message: &RouteMessage, ifindex: u32) -> bool {
    let leads = message.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::Oif(index) => *index == ifindex,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == ifindex),
        _ => false,
    });
    leads && message.header.kind == RouteType::Unicast
}

/// The metric of an entry of the routing table; lower is preferred.
pub(super) fn route_metric(message: &RouteMessage) -> u32 {
    let metric = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

/// The table of a route.
pub(super) fn route_table(message: &RouteMessage) -> u32 {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or_else(|| message.header.table.into())
}

/// A host route, with the interface it uses.
pub(super) fn host_route(message: &RouteMessage) -> Option<(u32, HostRoute)> {
    let mut addr = None;
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(destination) = attribute {
            addr = address_of(destination);
        }
    }
    let addr = addr?;
    if message.header.destination_prefix_length != if addr.is_ipv4() { 32 } else { 128 } {
        return None;
    }
    let mut interface = None;
    let mut route = HostRoute { addr, src: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::PrefSource(source) => route.src = address_of(source),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some((interface?, route))
}

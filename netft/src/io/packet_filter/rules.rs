//! The rules of the packet filter, and the nf_tables transaction that sets them. Pure.
//!
//! ```text
//! table inet netft_<adapter>
//!   inbound (prerouting, before connection tracking)
//!     from the adapter or lo: accept
//!     to the adapter's addresses, or from a peer's: drop         outside_adapter
//!     to a peer's address, not from a container bridge, unless
//!     `adapter.forward`: drop                                    not_forwarded
//!   outbound (postrouting, after source NAT)
//!     by lo: accept
//!     by the adapter: to a peer, not from its addresses: drop    foreign_source
//!                     else accept
//!     to a peer's address: drop                                  left_adapter
//! table arp netft_<adapter>
//!   inbound: requests for the adapter's IPv4 address: drop       outside_adapter
//! ```
//!
//! Every packet of the physical networks passes the chains: what most of them do not match stands
//! first in a rule, and the sets are constant, which the kernel looks up in a plain hash table.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use netft_proto::{config::Config, ids::virtual_addrs::VirtualAddrs, wire::DropReason};

use crate::io::nftables::{
    nfnetlink::BatchWriter,
    table::{
        HOOK_INBOUND, HOOK_OUTBOUND, IFNAME_LEN, IPV4_LAYOUT, IPV6_LAYOUT, IpLayout, META_IIFNAME,
        META_OIFNAME, PRIORITY_LAST, PRIORITY_RAW, SET_CONSTANT, TableWriter, VERDICT_ACCEPT,
        address_bytes, append_replacement, interface_bytes,
    },
};

/// Drop reasons that the inet table counts.
const INET_REASONS: [DropReason; 4] = [
    DropReason::OutsideAdapter,
    DropReason::NotForwarded,
    DropReason::LeftAdapter,
    DropReason::ForeignSource,
];
/// Counters of both tables together.
pub(super) const COUNTER_COUNT: usize = INET_REASONS.len() + 1;

/// The table's families.
pub(super) const TABLE_FAMILIES: [i32; 2] = [libc::NFPROTO_INET, libc::NFPROTO_ARP];

const CHAIN_INBOUND: &str = "inbound";
const CHAIN_OUTBOUND: &str = "outbound";
const SET_BRIDGES: &str = "bridges";

/// Lengths of hardware addresses whose ARP messages are understood: Ethernet, InfiniBand.
const ARP_HARDWARE_LENS: [u8; 2] = [6, 20];

/// The rules wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilterRules {
    pub(super) adapter: String,
    own: VirtualAddrs,
    peers: BTreeSet<IpAddr>,
    /// Interfaces of this host's containers, which may send to peers.
    bridges: BTreeSet<String>,
    forward: bool,
}

/// An IP family in the inet table.
#[derive(Clone, Copy)]
struct IpFamily {
    layout: IpLayout,
    own: &'static str,
    peers: &'static str,
}

const IP_FAMILIES: [IpFamily; 2] = [
    IpFamily { layout: IPV4_LAYOUT, own: "own4", peers: "peers4" },
    IpFamily { layout: IPV6_LAYOUT, own: "own6", peers: "peers6" },
];
/// Key type of interface names.
const KEY_TYPE_IFNAME: u32 = 41;

/// The name of an adapter's tables.
pub(super) fn table_name(adapter: &str) -> String {
    format!("netft_{adapter}")
}

impl FilterRules {
    /// The rules for this config on a host with these container bridges.
    pub(crate) fn new(config: &Config, bridges: BTreeSet<String>) -> Self {
        let peers = config.peers.iter().flat_map(|peer| {
            let both: [IpAddr; 2] = [peer.addrs.v4.into(), peer.addrs.v6.into()];
            both
        });
        Self {
            adapter: config.adapter.name.clone(),
            own: config.adapter.addrs,
            peers: peers.collect(),
            bridges,
            forward: config.adapter.forward,
        }
    }

    /// The transaction that replaces the adapter's tables by these.
    pub(super) fn encode_batch(&self) -> (Vec<u8>, u32) {
        let mut batch = BatchWriter::new();
        let table = table_name(&self.adapter);
        for family in TABLE_FAMILIES {
            append_replacement(&mut batch, family, &table);
        }
        self.write_inet_table(&mut TableWriter::new(&mut batch, libc::NFPROTO_INET, &table));
        self.write_arp_table(&mut TableWriter::new(&mut batch, libc::NFPROTO_ARP, &table));
        batch.finish()
    }

    fn write_inet_table(&self, table: &mut TableWriter<'_>) {
        INET_REASONS.into_iter().for_each(|reason| table.add_counter(reason));
        let own: [IpAddr; 2] = [self.own.v4.into(), self.own.v6.into()];
        for ip in IP_FAMILIES {
            let key = (ip.layout.key_type, ip.layout.address_len, SET_CONSTANT);
            let of_family = |addr: &Vec<u8>| addr.len() as u32 == ip.layout.address_len;
            table.add_set(ip.own, key, own.into_iter().map(address_bytes).filter(of_family));
            let peers = self.peers.iter().copied().map(address_bytes).filter(of_family);
            table.add_set(ip.peers, key, peers);
        }
        let bridges = self.bridges.iter().map(|name| interface_bytes(name).to_vec());
        table.add_set(SET_BRIDGES, (KEY_TYPE_IFNAME, IFNAME_LEN as u32, SET_CONSTANT), bridges);

        table.add_chain(CHAIN_INBOUND, HOOK_INBOUND, PRIORITY_RAW);
        for name in [self.adapter.as_str(), "lo"] {
            table.add_rule(CHAIN_INBOUND, |rule| {
                rule.match_meta(META_IIFNAME, &interface_bytes(name));
                rule.decide(VERDICT_ACCEPT);
            });
        }
        for ip in IP_FAMILIES {
            for (offset, set) in
                [(ip.layout.destination_offset, ip.own), (ip.layout.source_offset, ip.peers)]
            {
                table.add_rule(CHAIN_INBOUND, |rule| {
                    rule.match_address(ip.layout, offset, set, false);
                    rule.count_and_drop(DropReason::OutsideAdapter);
                });
            }
        }
        if !self.forward {
            for ip in IP_FAMILIES {
                table.add_rule(CHAIN_INBOUND, |rule| {
                    rule.match_address(ip.layout, ip.layout.destination_offset, ip.peers, false);
                    rule.load_meta(META_IIFNAME);
                    rule.look_up(SET_BRIDGES, true);
                    rule.count_and_drop(DropReason::NotForwarded);
                });
            }
        }

        table.add_chain(CHAIN_OUTBOUND, HOOK_OUTBOUND, PRIORITY_LAST);
        table.add_rule(CHAIN_OUTBOUND, |rule| {
            rule.match_meta(META_OIFNAME, &interface_bytes("lo"));
            rule.decide(VERDICT_ACCEPT);
        });
        let adapter = interface_bytes(&self.adapter);
        for ip in IP_FAMILIES {
            table.add_rule(CHAIN_OUTBOUND, |rule| {
                rule.match_meta(META_OIFNAME, &adapter);
                rule.match_address(ip.layout, ip.layout.destination_offset, ip.peers, false);
                rule.match_address(ip.layout, ip.layout.source_offset, ip.own, true);
                rule.count_and_drop(DropReason::ForeignSource);
            });
        }
        table.add_rule(CHAIN_OUTBOUND, |rule| {
            rule.match_meta(META_OIFNAME, &adapter);
            rule.decide(VERDICT_ACCEPT);
        });
        for ip in IP_FAMILIES {
            table.add_rule(CHAIN_OUTBOUND, |rule| {
                rule.match_address(ip.layout, ip.layout.destination_offset, ip.peers, false);
                rule.count_and_drop(DropReason::LeftAdapter);
            });
        }
    }

    /// RFC 826: the protocol's target address follows two pairs of hardware and IPv4 address.
    fn write_arp_table(&self, table: &mut TableWriter<'_>) {
        table.add_counter(DropReason::OutsideAdapter);
        table.add_chain(CHAIN_INBOUND, HOOK_INBOUND, 0);
        for hardware_len in ARP_HARDWARE_LENS {
            let ipv4_len = Ipv4Addr::LOCALHOST.octets().len() as u8;
            let target = 8 + 2 * u32::from(hardware_len) + u32::from(ipv4_len);
            table.add_rule(CHAIN_INBOUND, |rule| {
                rule.load_payload(4, 2);
                rule.compare(&[hardware_len, ipv4_len]);
                rule.load_payload(target, ipv4_len.into());
                rule.compare(&self.own.v4.octets());
                rule.count_and_drop(DropReason::OutsideAdapter);
            });
        }
    }
}

/// The drop reason of a counter.
pub(super) fn counted_reason(name: &str) -> Option<DropReason> {
    INET_REASONS.into_iter().find(|reason| reason.as_str() == name)
}

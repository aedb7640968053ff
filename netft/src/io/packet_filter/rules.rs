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

use super::nfnetlink::{AttributeWriter, BatchWriter, FLAG_APPEND, FLAG_CREATE, message};

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

/// `NF_INET_PRE_ROUTING` and `NF_ARP_IN`.
const HOOK_INBOUND: u32 = 0;
/// `NF_INET_POST_ROUTING`.
const HOOK_OUTBOUND: u32 = 4;
/// `NF_IP_PRI_RAW`: before connection tracking and destination NAT.
const PRIORITY_RAW: i32 = -300;
/// After source NAT (100), where a masqueraded packet has its final source.
const PRIORITY_LAST: i32 = 300;

/// `NFT_REG_1`, 16 bytes.
const MATCH_REGISTER: u32 = 1;
const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;
/// Length of an interface name in a rule (`IFNAMSIZ`).
const IFNAME_LEN: usize = 16;

/// `NFT_SET_CONSTANT`: no element is added once a rule uses the set.
const SET_CONSTANT: u32 = 2;
/// `NFT_META_*`.
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;

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
    nfproto: u8,
    address_len: u32,
    source_offset: u32,
    destination_offset: u32,
    own: &'static str,
    peers: &'static str,
    /// Key type that nft(8) shows.
    key_type: u32,
}

const IP_FAMILIES: [IpFamily; 2] = [
    IpFamily {
        nfproto: libc::NFPROTO_IPV4 as u8,
        address_len: 4,
        source_offset: 12,
        destination_offset: 16,
        own: "own4",
        peers: "peers4",
        key_type: 7,
    },
    IpFamily {
        nfproto: libc::NFPROTO_IPV6 as u8,
        address_len: 16,
        source_offset: 8,
        destination_offset: 24,
        own: "own6",
        peers: "peers6",
        key_type: 8,
    },
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
        for family in TABLE_FAMILIES {
            // Without the first a missing table could not be deleted.
            append_table(&mut batch, message::NEW_TABLE, family, &self.adapter);
            append_table(&mut batch, message::DELETE_TABLE, family, &self.adapter);
            append_table(&mut batch, message::NEW_TABLE, family, &self.adapter);
        }
        self.write_inet_table(&mut TableWriter::new(&mut batch, libc::NFPROTO_INET, &self.adapter));
        self.write_arp_table(&mut TableWriter::new(&mut batch, libc::NFPROTO_ARP, &self.adapter));
        batch.finish()
    }

    fn write_inet_table(&self, table: &mut TableWriter<'_>) {
        INET_REASONS.into_iter().for_each(|reason| table.add_counter(reason));
        let own: [IpAddr; 2] = [self.own.v4.into(), self.own.v6.into()];
        for ip in IP_FAMILIES {
            let octets = |addr: IpAddr| match addr {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let of_family = |addr: &Vec<u8>| addr.len() as u32 == ip.address_len;
            let own = own.into_iter().map(octets).filter(of_family);
            table.add_set(ip.own, (ip.key_type, ip.address_len), own);
            let peers = self.peers.iter().copied().map(octets).filter(of_family);
            table.add_set(ip.peers, (ip.key_type, ip.address_len), peers);
        }
        let bridges = self.bridges.iter().map(|name| interface_bytes(name).to_vec());
        table.add_set(SET_BRIDGES, (KEY_TYPE_IFNAME, IFNAME_LEN as u32), bridges);

        table.add_chain(CHAIN_INBOUND, HOOK_INBOUND, PRIORITY_RAW);
        for name in [self.adapter.as_str(), "lo"] {
            table.add_rule(CHAIN_INBOUND, |rule| {
                rule.match_meta(META_IIFNAME, &interface_bytes(name));
                rule.decide(VERDICT_ACCEPT);
            });
        }
        for ip in IP_FAMILIES {
            for (offset, set) in [(ip.destination_offset, ip.own), (ip.source_offset, ip.peers)] {
                table.add_rule(CHAIN_INBOUND, |rule| {
                    rule.match_address(ip, offset, set, false);
                    rule.count_and_drop(DropReason::OutsideAdapter);
                });
            }
        }
        if !self.forward {
            for ip in IP_FAMILIES {
                table.add_rule(CHAIN_INBOUND, |rule| {
                    rule.match_address(ip, ip.destination_offset, ip.peers, false);
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
                rule.match_address(ip, ip.destination_offset, ip.peers, false);
                rule.match_address(ip, ip.source_offset, ip.own, true);
                rule.count_and_drop(DropReason::ForeignSource);
            });
        }
        table.add_rule(CHAIN_OUTBOUND, |rule| {
            rule.match_meta(META_OIFNAME, &adapter);
            rule.decide(VERDICT_ACCEPT);
        });
        for ip in IP_FAMILIES {
            table.add_rule(CHAIN_OUTBOUND, |rule| {
                rule.match_address(ip, ip.destination_offset, ip.peers, false);
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

/// The transaction that removes an adapter's tables, whether they exist or not.
pub(super) fn encode_removal(adapter: &str, family: i32) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    append_table(&mut batch, message::NEW_TABLE, family, adapter);
    append_table(&mut batch, message::DELETE_TABLE, family, adapter);
    batch.finish()
}

/// The drop reason of a counter.
pub(super) fn counted_reason(name: &str) -> Option<DropReason> {
    INET_REASONS.into_iter().find(|reason| reason.as_str() == name)
}

fn append_table(batch: &mut BatchWriter, kind: u8, family: i32, adapter: &str) {
    let flags = if kind == message::NEW_TABLE { FLAG_CREATE } else { 0 };
    batch.append_message(kind, flags, family, |body| body.put_text(1, &table_name(adapter)));
}

fn interface_bytes(name: &str) -> [u8; IFNAME_LEN] {
    let mut bytes = [0; IFNAME_LEN];
    let len = name.len().min(IFNAME_LEN - 1);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

/// Appends the parts of one table to a transaction.
struct TableWriter<'a> {
    batch: &'a mut BatchWriter,
    family: i32,
    table: String,
    sets: u32,
}

impl<'a> TableWriter<'a> {
    fn new(batch: &'a mut BatchWriter, family: i32, adapter: &str) -> Self {
        Self { batch, family, table: table_name(adapter), sets: 0 }
    }

    fn append(&mut self, kind: u8, flags: u16, write: impl FnOnce(&mut AttributeWriter)) {
        let table = &self.table;
        self.batch.append_message(kind, flags, self.family, |body| {
            body.put_text(1, table);
            write(body);
        });
    }

    fn add_counter(&mut self, reason: DropReason) {
        self.append(message::NEW_OBJECT, FLAG_CREATE, |body| {
            body.put_text(2, reason.as_str());
            // NFT_OBJECT_COUNTER, from zero.
            body.put_number(3, 1);
            body.put_nested(4, |data| data.put_bytes(2, &[0; 8]));
        });
    }

    fn add_set(
        &mut self,
        name: &str,
        (key_type, key_len): (u32, u32),
        elements: impl Iterator<Item = Vec<u8>>,
    ) {
        self.sets += 1;
        let (id, elements) = (self.sets, elements.collect::<Vec<_>>());
        self.append(message::NEW_SET, FLAG_CREATE, |body| {
            body.put_text(2, name);
            body.put_number(3, SET_CONSTANT);
            body.put_number(4, key_type);
            body.put_number(5, key_len);
            if !elements.is_empty() {
                body.put_nested(9, |size| size.put_number(1, elements.len() as u32));
            }
            body.put_number(10, id);
        });
        if elements.is_empty() {
            return;
        }
        self.append(message::NEW_SET_ELEMENTS, FLAG_CREATE, |body| {
            body.put_text(2, name);
            body.put_nested(3, |list| {
                for key in elements {
                    list.put_nested(1, |element| {
                        element.put_nested(1, |data| data.put_bytes(1, &key));
                    });
                }
            });
        });
    }

    fn add_chain(&mut self, name: &str, hook: u32, priority: i32) {
        self.append(message::NEW_CHAIN, FLAG_CREATE, |body| {
            body.put_text(3, name);
            body.put_nested(4, |at| {
                at.put_number(1, hook);
                at.put_bytes(2, &priority.to_be_bytes());
            });
            body.put_number(5, VERDICT_ACCEPT);
            body.put_text(7, "filter");
        });
    }

    fn add_rule(&mut self, chain: &str, write: impl FnOnce(&mut RuleWriter)) {
        let mut rule = RuleWriter::default();
        write(&mut rule);
        self.append(message::NEW_RULE, FLAG_CREATE | FLAG_APPEND, |body| {
            body.put_text(2, chain);
            body.put_nested(4, |list| {
                for (name, data) in rule.expressions {
                    list.put_nested(1, |expression| {
                        expression.put_text(1, name);
                        expression.put_nested(2, data);
                    });
                }
            });
        });
    }
}

type ExpressionData = Box<dyn FnOnce(&mut AttributeWriter)>;

/// The expressions of one rule: each loads, compares or decides.
#[derive(Default)]
struct RuleWriter {
    expressions: Vec<(&'static str, ExpressionData)>,
}

impl RuleWriter {
    fn push(&mut self, name: &'static str, data: impl FnOnce(&mut AttributeWriter) + 'static) {
        self.expressions.push((name, Box::new(data)));
    }

    fn load_meta(&mut self, key: u32) {
        self.push("meta", move |data| {
            data.put_number(1, MATCH_REGISTER);
            data.put_number(2, key);
        });
    }

    /// Loads bytes of the network header.
    fn load_payload(&mut self, offset: u32, len: u32) {
        const NETWORK_HEADER: u32 = 1;
        self.push("payload", move |data| {
            data.put_number(1, MATCH_REGISTER);
            data.put_number(2, NETWORK_HEADER);
            data.put_number(3, offset);
            data.put_number(4, len);
        });
    }

    fn compare(&mut self, value: &[u8]) {
        const CMP_EQUAL: u32 = 0;
        let value = value.to_vec();
        self.push("cmp", move |data| {
            data.put_number(1, MATCH_REGISTER);
            data.put_number(2, CMP_EQUAL);
            data.put_nested(3, |nested| nested.put_bytes(1, &value));
        });
    }

    /// Matches what the set holds, or what it does not hold.
    fn look_up(&mut self, set: &'static str, inverted: bool) {
        self.push("lookup", move |data| {
            data.put_text(1, set);
            data.put_number(2, MATCH_REGISTER);
            data.put_number(5, inverted.into());
        });
    }

    fn match_meta(&mut self, key: u32, value: &[u8]) {
        self.load_meta(key);
        self.compare(value);
    }

    fn match_address(&mut self, ip: IpFamily, offset: u32, set: &'static str, inverted: bool) {
        self.match_meta(META_NFPROTO, &[ip.nfproto]);
        self.load_payload(offset, ip.address_len);
        self.look_up(set, inverted);
    }

    fn count_and_drop(&mut self, reason: DropReason) {
        self.push("objref", move |data| {
            data.put_number(1, 1);
            data.put_text(2, reason.as_str());
        });
        self.decide(VERDICT_DROP);
    }

    fn decide(&mut self, code: u32) {
        const VERDICT_REGISTER: u32 = 0;
        self.push("immediate", move |data| {
            data.put_number(1, VERDICT_REGISTER);
            data.put_nested(2, |nested| {
                nested.put_nested(2, |verdict| verdict.put_number(1, code))
            });
        });
    }
}

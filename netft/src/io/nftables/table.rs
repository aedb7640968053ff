//! The parts of a table as an nf_tables transaction: sets, chains, rules, counters. Pure.

use std::net::IpAddr;

use netft_proto::wire::DropReason;

use super::nfnetlink::{AttributeWriter, BatchWriter, FLAG_APPEND, FLAG_CREATE, message};

/// `NF_INET_PRE_ROUTING` and `NF_ARP_IN`.
pub(crate) const HOOK_INBOUND: u32 = 0;
/// `NF_INET_POST_ROUTING`.
pub(crate) const HOOK_OUTBOUND: u32 = 4;
/// `NF_INET_LOCAL_OUT`.
pub(crate) const HOOK_LOCAL_OUT: u32 = 3;
/// `NF_ARP_OUT`.
pub(crate) const HOOK_ARP_OUT: u32 = 1;
/// `NF_IP_PRI_RAW`: before connection tracking and destination NAT.
pub(crate) const PRIORITY_RAW: i32 = -300;
/// After source NAT (100), where a masqueraded packet has its final source.
pub(crate) const PRIORITY_LAST: i32 = 300;

/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `NFT_REG_1`, 16 bytes.
const MATCH_REGISTER: u32 = 1;
pub(crate) const VERDICT_DROP: u32 = 0;
pub(crate) const VERDICT_ACCEPT: u32 = 1;
/// `NFT_JUMP`.
const VERDICT_JUMP: u32 = (-3i32) as u32;
/// `NFT_DATA_VERDICT`.
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// Length of an interface name in a rule (`IFNAMSIZ`).
pub(crate) const IFNAME_LEN: usize = 16;

/// `NFT_SET_CONSTANT`: no element is added once a rule uses the set.
pub(crate) const SET_CONSTANT: u32 = 2;
/// `NFT_SET_MAP`.
const SET_IS_MAP: u32 = 8;
/// `NFT_META_*`.
pub(crate) const META_IIFNAME: u32 = 6;
pub(crate) const META_OIFNAME: u32 = 7;
pub(crate) const META_NFPROTO: u32 = 15;

/// A family of addresses in a packet's network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpLayout {
    pub(crate) nfproto: u8,
    pub(crate) address_len: u32,
    pub(crate) source_offset: u32,
    pub(crate) destination_offset: u32,
    /// Key type that nft(8) shows.
    pub(crate) key_type: u32,
}

/// IPv4.
pub(crate) const IPV4_LAYOUT: IpLayout = IpLayout {
    nfproto: libc::NFPROTO_IPV4 as u8,
    address_len: 4,
    source_offset: 12,
    destination_offset: 16,
    key_type: 7,
};

/// IPv6.
pub(crate) const IPV6_LAYOUT: IpLayout = IpLayout {
    nfproto: libc::NFPROTO_IPV6 as u8,
    address_len: 16,
    source_offset: 8,
    destination_offset: 24,
    key_type: 8,
};

/// The bytes of an address, as a set holds them.
pub(crate) fn address_bytes(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Appends a message that makes or removes a table.
pub(crate) fn append_table(batch: &mut BatchWriter, kind: u8, family: i32, table: &str) {
    let flags = if kind == message::NEW_TABLE { FLAG_CREATE } else { 0 };
    batch.append_message(kind, flags, family, |body| body.put_text(1, table));
}

/// Appends messages that replace a table by an empty one, whether it exists or not.
pub(crate) fn append_replacement(batch: &mut BatchWriter, family: i32, table: &str) {
    // Without the first a missing table could not be deleted.
    append_table(batch, message::NEW_TABLE, family, table);
    append_table(batch, message::DELETE_TABLE, family, table);
    append_table(batch, message::NEW_TABLE, family, table);
}

/// The transaction that removes a table, whether it exists or not.
pub(crate) fn encode_removal(table: &str, family: i32) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    append_table(&mut batch, message::NEW_TABLE, family, table);
    append_table(&mut batch, message::DELETE_TABLE, family, table);
    batch.finish()
}

/// An interface name, as a rule compares it.
pub(crate) fn interface_bytes(name: &str) -> [u8; IFNAME_LEN] {
    let mut bytes = [0; IFNAME_LEN];
    let len = name.len().min(IFNAME_LEN - 1);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

/// Appends the parts of one table to a transaction.
pub(crate) struct TableWriter<'a> {
    batch: &'a mut BatchWriter,
    family: i32,
    table: String,
    sets: u32,
}

impl<'a> TableWriter<'a> {
    pub(crate) fn new(batch: &'a mut BatchWriter, family: i32, table: &str) -> Self {
        Self { batch, family, table: table.to_owned(), sets: 0 }
    }

    fn append(&mut self, kind: u8, flags: u16, write: impl FnOnce(&mut AttributeWriter)) {
        let table = &self.table;
        self.batch.append_message(kind, flags, self.family, |body| {
            body.put_text(1, table);
            write(body);
        });
    }

    pub(crate) fn add_counter(&mut self, reason: DropReason) {
        self.append(message::NEW_OBJECT, FLAG_CREATE, |body| {
            body.put_text(2, reason.as_str());
            // NFT_OBJECT_COUNTER, from zero.
            body.put_number(3, 1);
            body.put_nested(4, |data| data.put_bytes(2, &[0; 8]));
        });
    }

    pub(crate) fn add_set(
        &mut self,
        name: &str,
        (key_type, key_len, flags): (u32, u32, u32),
        elements: impl Iterator<Item = Vec<u8>>,
    ) {
        self.sets += 1;
        let (id, elements) = (self.sets, elements.collect::<Vec<_>>());
        self.append(message::NEW_SET, FLAG_CREATE, |body| {
            body.put_text(2, name);
            body.put_number(3, flags);
            body.put_number(4, key_type);
            body.put_number(5, key_len);
            if flags & SET_CONSTANT != 0 && !elements.is_empty() {
                body.put_nested(9, |size| size.put_number(1, elements.len() as u32));
            }
            body.put_number(10, id);
        });
        self.add_elements(name, elements.into_iter(), None);
    }

    /// Adds an empty map from keys, with their type and length, to chains.
    pub(crate) fn add_verdict_map(&mut self, name: &str, (key_type, key_len): (u32, u32)) {
        self.sets += 1;
        let id = self.sets;
        self.append(message::NEW_SET, FLAG_CREATE, |body| {
            body.put_text(2, name);
            body.put_number(3, SET_IS_MAP);
            body.put_number(4, key_type);
            body.put_number(5, key_len);
            body.put_number(6, VERDICT_TYPE);
            body.put_number(10, id);
        });
    }

    /// Adds elements to a set; with a timeout, milliseconds, they end by themselves. An element
    /// that the set holds is kept with its own timeout.
    pub(crate) fn add_elements(
        &mut self,
        set: &str,
        keys: impl Iterator<Item = Vec<u8>>,
        timeout: Option<u64>,
    ) {
        self.put_elements(message::NEW_SET_ELEMENTS, FLAG_CREATE, set, keys, |element| {
            if let Some(millis) = timeout {
                element.put_bytes(4, &millis.to_be_bytes());
            }
        });
    }

    /// Leads keys, which the map must not hold, to a chain.
    pub(crate) fn add_jumps(
        &mut self,
        map: &str,
        keys: impl Iterator<Item = Vec<u8>>,
        chain: &str,
    ) {
        self.put_elements(message::NEW_SET_ELEMENTS, FLAG_CREATE, map, keys, |element| {
            element.put_nested(2, |data| {
                data.put_nested(2, |verdict| {
                    verdict.put_number(1, VERDICT_JUMP);
                    verdict.put_text(2, chain);
                });
            });
        });
    }

    /// Removes elements, which the set or map must hold.
    pub(crate) fn delete_elements(&mut self, set: &str, keys: impl Iterator<Item = Vec<u8>>) {
        self.put_elements(message::DELETE_SET_ELEMENTS, 0, set, keys, |_| {});
    }

    fn put_elements(
        &mut self,
        kind: u8,
        flags: u16,
        set: &str,
        keys: impl Iterator<Item = Vec<u8>>,
        write_rest: impl Fn(&mut AttributeWriter),
    ) {
        let mut keys = keys.peekable();
        if keys.peek().is_none() {
            return;
        }
        self.append(kind, flags, |body| {
            body.put_text(2, set);
            body.put_nested(3, |list| {
                for key in keys {
                    list.put_nested(1, |element| {
                        element.put_nested(1, |data| data.put_bytes(1, &key));
                        write_rest(element);
                    });
                }
            });
        });
    }

    pub(crate) fn add_chain(&mut self, name: &str, hook: u32, priority: i32) {
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

    /// Adds a chain that others lead to.
    pub(crate) fn add_jump_chain(&mut self, name: &str) {
        self.append(message::NEW_CHAIN, FLAG_CREATE, |body| body.put_text(3, name));
    }

    pub(crate) fn add_rule(&mut self, chain: &str, write: impl FnOnce(&mut RuleWriter)) {
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
pub(crate) struct RuleWriter {
    expressions: Vec<(&'static str, ExpressionData)>,
}

impl RuleWriter {
    fn push(&mut self, name: &'static str, data: impl FnOnce(&mut AttributeWriter) + 'static) {
        self.expressions.push((name, Box::new(data)));
    }

    pub(crate) fn load_meta(&mut self, key: u32) {
        self.push("meta", move |data| {
            data.put_number(1, MATCH_REGISTER);
            data.put_number(2, key);
        });
    }

    /// Loads bytes of the network header.
    pub(crate) fn load_payload(&mut self, offset: u32, len: u32) {
        const NETWORK_HEADER: u32 = 1;
        self.push("payload", move |data| {
            data.put_number(1, MATCH_REGISTER);
            data.put_number(2, NETWORK_HEADER);
            data.put_number(3, offset);
            data.put_number(4, len);
        });
    }

    pub(crate) fn compare(&mut self, value: &[u8]) {
        const CMP_EQUAL: u32 = 0;
        let value = value.to_vec();
        self.push("cmp", move |data| {
            data.put_number(1, MATCH_REGISTER);
            data.put_number(2, CMP_EQUAL);
            data.put_nested(3, |nested| nested.put_bytes(1, &value));
        });
    }

    /// Matches what the set holds, or what it does not hold.
    pub(crate) fn look_up(&mut self, set: impl Into<String>, inverted: bool) {
        let set = set.into();
        self.push("lookup", move |data| {
            data.put_text(1, &set);
            data.put_number(2, MATCH_REGISTER);
            data.put_number(5, inverted.into());
        });
    }

    /// Leads to the chain that the map has for the loaded value, and back if that decides nothing;
    /// the rule does not match without.
    pub(crate) fn decide_by(&mut self, map: &'static str) {
        self.push("lookup", move |data| {
            data.put_text(1, map);
            data.put_number(2, MATCH_REGISTER);
            data.put_number(3, VERDICT_REGISTER);
        });
    }

    pub(crate) fn match_meta(&mut self, key: u32, value: &[u8]) {
        self.load_meta(key);
        self.compare(value);
    }

    pub(crate) fn match_address(
        &mut self,
        ip: IpLayout,
        offset: u32,
        set: &'static str,
        inverted: bool,
    ) {
        self.load_address(ip, offset);
        self.look_up(set, inverted);
    }

    /// Loads an address of packets of its family.
    pub(crate) fn load_address(&mut self, ip: IpLayout, offset: u32) {
        self.match_meta(META_NFPROTO, &[ip.nfproto]);
        self.load_payload(offset, ip.address_len);
    }

    /// Matches packets whose source (or destination) is an address of this host.
    pub(crate) fn match_local(&mut self, is_source: bool) {
        const FIB_ADDRESS_TYPE: u32 = 3;
        const FIB_SOURCE: u32 = 1;
        const FIB_DESTINATION: u32 = 2;
        let flags = if is_source { FIB_SOURCE } else { FIB_DESTINATION };
        self.push("fib", move |data| {
            data.put_number(1, MATCH_REGISTER);
            data.put_number(2, FIB_ADDRESS_TYPE);
            data.put_number(3, flags);
        });
        // In the order of the host, unlike the fields of packets.
        self.compare(&u32::from(libc::RTN_LOCAL).to_ne_bytes());
    }

    pub(crate) fn count_and_drop(&mut self, reason: DropReason) {
        self.push("objref", move |data| {
            data.put_number(1, 1);
            data.put_text(2, reason.as_str());
        });
        self.decide(VERDICT_DROP);
    }

    pub(crate) fn decide(&mut self, code: u32) {
        self.push("immediate", move |data| {
            data.put_number(1, VERDICT_REGISTER);
            data.put_nested(2, |nested| {
                nested.put_nested(2, |verdict| verdict.put_number(1, code))
            });
        });
    }
}

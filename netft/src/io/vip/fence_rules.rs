//! The fence of the floating addresses as nf_tables transactions. Pure.
//!
//! ```text
//! table inet netft_vip_<adapter>
//!   inbound (prerouting, before connection tracking and destination NAT)
//!     to no floating address: accept
//!     to one whose lease runs: accept
//!     to one that this host has: drop                            lease_ended
//!   local (output)
//!     from one whose lease does not run: drop                    lease_ended
//!   outbound (postrouting, after source NAT)
//!     from one that this host has, whose lease does not run: drop   lease_ended
//! table arp netft_vip_<adapter>
//!   local (output)
//!     sender address is one whose lease does not run: drop       lease_ended
//! ```
//!
//! Addresses that are renewed together share a lease. The verdict maps `lease4` and `lease6` lead
//! each address to the chain of its lease. A lease has two slots; its chain accepts while the one
//! in use runs. A slot is in use while the set `usedN` has elements, and runs while the elements of
//! the set `runningN`, which have a timeout, live. The elements are the protocols, IPv4 and IPv6:
//! what a rule of nft(8) can look up that every packet has.
//!
//! A timeout counts from the moment when the kernel gets it, which may be any time after netftd
//! chose it: a process can be stopped in between. So a lease is set in two transactions. The first
//! puts the element of the slot that is not in use, which permits nothing; netftd reads the clock
//! again, and knows that the element ends in time whatever happens to it later. The second makes
//! that slot the one in use, which extends nothing.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use netft_proto::wire::DropReason;

use super::fence_leases::{LeaseChange, LeaseSetting, slots_of};
use crate::io::nftables::{
    nfnetlink::BatchWriter,
    socket::FENCE_TABLE_PREFIX,
    table::{
        HOOK_ARP_OUT, HOOK_INBOUND, HOOK_LOCAL_OUT, HOOK_OUTBOUND, IPV4_LAYOUT, IPV6_LAYOUT,
        IpLayout, META_NFPROTO, PRIORITY_LAST, PRIORITY_RAW, RuleWriter, TableWriter,
        VERDICT_ACCEPT, address_bytes, append_replacement,
    },
};

/// The table's families.
pub(super) const FENCE_FAMILIES: [i32; 2] = [libc::NFPROTO_INET, libc::NFPROTO_ARP];
/// Counters of both tables together.
pub(super) const FENCE_COUNTERS: usize = FENCE_FAMILIES.len();

const CHAIN_INBOUND: &str = "inbound";
const CHAIN_LOCAL: &str = "local";
const CHAIN_OUTBOUND: &str = "outbound";

/// `NFT_SET_TIMEOUT`.
const SET_HAS_TIMEOUT: u32 = 0x10;
/// Type and length of a protocol family, as `meta nfproto` loads it.
const PROTOCOL_KEY: (u32, u32) = (2, 1);

/// The objects of one family of addresses.
struct FamilySets {
    layout: IpLayout,
    /// Every floating address.
    vips: &'static str,
    /// The chain of each address's lease.
    leases: &'static str,
}

const FAMILY_SETS: [FamilySets; 2] = [
    FamilySets { layout: IPV4_LAYOUT, vips: "vips4", leases: "lease4" },
    FamilySets { layout: IPV6_LAYOUT, vips: "vips6", leases: "lease6" },
];

/// The name of the fence's tables.
pub(super) fn fence_table(adapter: &str) -> String {
    format!("{FENCE_TABLE_PREFIX}{adapter}")
}

/// The families of addresses in a table.
fn sets_of_table(family: i32) -> &'static [FamilySets] {
    if family == libc::NFPROTO_ARP { &FAMILY_SETS[..1] } else { &FAMILY_SETS }
}

fn keys<'a>(sets: &FamilySets, addrs: &'a [IpAddr]) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let len = sets.layout.address_len;
    let keys = addrs.iter().copied().map(address_bytes);
    keys.filter(move |key| key.len() as u32 == len)
}

/// The chain of a lease.
fn lease_chain(lease: u32) -> String {
    format!("lease{lease}")
}

/// The set that has elements while the slot is in use.
fn used_set(slot: u32) -> String {
    format!("used{slot}")
}

/// The set whose elements live while the slot runs.
fn running_set(slot: u32) -> String {
    format!("running{slot}")
}

/// The protocols of the packets in a table.
fn protocols(family: i32) -> impl Iterator<Item = Vec<u8>> {
    let protocols: &[i32] = match family {
        libc::NFPROTO_ARP => &[libc::NFPROTO_ARP],
        _ => &[libc::NFPROTO_IPV4, libc::NFPROTO_IPV6],
    };
    protocols.iter().map(|protocol| vec![*protocol as u8])
}

/// The transaction that sets both tables: every address is silent.
pub(super) fn encode_tables(table: &str, vips: &BTreeSet<IpAddr>) -> (Vec<u8>, u32) {
    let vips: Vec<_> = vips.iter().copied().collect();
    let mut batch = BatchWriter::new();
    for family in FENCE_FAMILIES {
        append_replacement(&mut batch, family, table);
    }
    for family in FENCE_FAMILIES {
        let mut writer = TableWriter::new(&mut batch, family, table);
        writer.add_counter(DropReason::LeaseEnded);
        for sets in sets_of_table(family) {
            let (key_type, key_len) = (sets.layout.key_type, sets.layout.address_len);
            writer.add_set(sets.vips, (key_type, key_len, 0), keys(sets, &vips));
            writer.add_verdict_map(sets.leases, (key_type, key_len));
        }
        if family == libc::NFPROTO_ARP {
            write_arp_chain(&mut writer);
        } else {
            write_inet_chains(&mut writer);
        }
    }
    batch.finish()
}

fn write_inet_chains(table: &mut TableWriter<'_>) {
    let chains = [
        (CHAIN_INBOUND, HOOK_INBOUND, PRIORITY_RAW),
        (CHAIN_LOCAL, HOOK_LOCAL_OUT, PRIORITY_RAW),
        (CHAIN_OUTBOUND, HOOK_OUTBOUND, PRIORITY_LAST),
    ];
    for (chain, hook, priority) in chains {
        table.add_chain(chain, hook, priority);
        let is_source = chain != CHAIN_INBOUND;
        for sets in &FAMILY_SETS {
            let layout = sets.layout;
            let offset = if is_source { layout.source_offset } else { layout.destination_offset };
            table.add_rule(chain, |rule| {
                rule.match_address(layout, offset, sets.vips, true);
                rule.decide(VERDICT_ACCEPT);
            });
            table.add_rule(chain, |rule| {
                rule.load_address(layout, offset);
                rule.decide_by(sets.leases);
            });
            table.add_rule(chain, |rule| {
                rule.match_address(layout, offset, sets.vips, false);
                // A node that forwards may pass the owner's packets on. One that sends itself must
                // not, even after it lost the address: IPv6 sockets keep it as their source.
                if chain != CHAIN_LOCAL {
                    rule.match_local(is_source);
                }
                rule.count_and_drop(DropReason::LeaseEnded);
            });
        }
    }
}

/// RFC 826: the sender's protocol address follows its hardware address. Messages of others are let
/// in, so that this node learns from the owner's announcements.
fn write_arp_chain(table: &mut TableWriter<'_>) {
    const ETHERNET_LENS: [u8; 2] = [6, 4];
    const SENDER_OFFSET: u32 = 14;
    let sets = &FAMILY_SETS[0];
    table.add_chain(CHAIN_LOCAL, HOOK_ARP_OUT, 0);
    let load_sender = |rule: &mut RuleWriter| {
        rule.load_payload(4, 2);
        rule.compare(&ETHERNET_LENS);
        rule.load_payload(SENDER_OFFSET, 4);
    };
    table.add_rule(CHAIN_LOCAL, |rule| {
        load_sender(rule);
        rule.decide_by(sets.leases);
    });
    table.add_rule(CHAIN_LOCAL, |rule| {
        load_sender(rule);
        rule.look_up(sets.vips, false);
        rule.count_and_drop(DropReason::LeaseEnded);
    });
}

/// The first transaction of a renewal: the slot, which is not in use, runs for `timeout`. Kernels
/// before 6.12 keep the timeout of an element that exists, so it is removed and added; without the
/// first addition a missing one could not be removed.
pub(super) fn encode_arming(
    table: &str,
    set: &LeaseSetting,
    is_new: bool,
    timeout: Duration,
) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    let (running, millis) = (running_set(set.slot), timeout.as_millis() as u64);
    for family in FENCE_FAMILIES {
        let mut writer = TableWriter::new(&mut batch, family, table);
        if is_new {
            write_lease_chain(&mut writer, set.lease);
        } else {
            writer.add_elements(&running, protocols(family), None);
            writer.delete_elements(&running, protocols(family));
        }
        writer.add_elements(&running, protocols(family), Some(millis));
    }
    batch.finish()
}

/// The second transaction of a renewal, or the one that ends leases.
pub(super) fn encode_change(table: &str, change: &LeaseChange) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    for family in FENCE_FAMILIES {
        let mut writer = TableWriter::new(&mut batch, family, table);
        for slot in &change.ended_slots {
            writer.delete_elements(&used_set(*slot), protocols(family));
        }
        for sets in sets_of_table(family) {
            writer.delete_elements(sets.leases, keys(sets, &change.ended_addrs));
        }
        let Some(set) = &change.set else { continue };
        writer.add_elements(&used_set(set.slot), protocols(family), None);
        for sets in sets_of_table(family) {
            writer.add_jumps(sets.leases, keys(sets, &set.addrs), &lease_chain(set.lease));
        }
    }
    batch.finish()
}

/// Accepts while one of the lease's slots is in use and runs.
fn write_lease_chain(table: &mut TableWriter<'_>, lease: u32) {
    let ((key_type, key_len), chain) = (PROTOCOL_KEY, lease_chain(lease));
    table.add_jump_chain(&chain);
    for slot in slots_of(lease) {
        let (used, running) = (used_set(slot), running_set(slot));
        table.add_set(&used, (key_type, key_len, 0), std::iter::empty());
        table.add_set(&running, (key_type, key_len, SET_HAS_TIMEOUT), std::iter::empty());
        table.add_rule(&chain, |rule| {
            rule.load_meta(META_NFPROTO);
            rule.look_up(used, false);
            rule.load_meta(META_NFPROTO);
            rule.look_up(running, false);
            rule.decide(VERDICT_ACCEPT);
        });
    }
}

/// The transaction that adds and removes floating addresses.
pub(super) fn encode_vips(table: &str, added: &[IpAddr], removed: &[IpAddr]) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    for family in FENCE_FAMILIES {
        let mut writer = TableWriter::new(&mut batch, family, table);
        for sets in sets_of_table(family) {
            writer.add_elements(sets.vips, keys(sets, added), None);
            writer.delete_elements(sets.vips, keys(sets, removed));
        }
    }
    batch.finish()
}

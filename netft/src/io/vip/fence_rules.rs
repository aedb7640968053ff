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
//! A lease runs while an element of a set with timeouts lives. A timeout counts from the moment
//! when the kernel gets it, which may be any time after netftd chose it: a process can be stopped
//! in between. So a lease is set in two transactions. The first puts the element into the set of
//! the slot that is not in use, which permits nothing; netftd reads the clock again, and knows that
//! the element ends in time whatever happens to it later. The second makes that slot the one in
//! use, which extends nothing.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use netft_proto::wire::DropReason;

use crate::io::nftables::{
    nfnetlink::BatchWriter,
    socket::FENCE_TABLE_PREFIX,
    table::{
        HOOK_ARP_OUT, HOOK_INBOUND, HOOK_LOCAL_OUT, HOOK_OUTBOUND, IPV4_LAYOUT, IPV6_LAYOUT,
        IpLayout, PRIORITY_LAST, PRIORITY_RAW, RuleWriter, TableWriter, VERDICT_ACCEPT,
        address_bytes, append_replacement,
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

/// One of the two places of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseSlot {
    First,
    Second,
}

impl LeaseSlot {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// The sets of one family.
struct FamilySets {
    layout: IpLayout,
    /// Every floating address.
    vips: &'static str,
    /// Elements with timeouts, by slot.
    leases: [&'static str; 2],
    /// Addresses whose slot this is.
    slots: [&'static str; 2],
}

const FAMILY_SETS: [FamilySets; 2] = [
    FamilySets {
        layout: IPV4_LAYOUT,
        vips: "vips4",
        leases: ["leased4a", "leased4b"],
        slots: ["slot4a", "slot4b"],
    },
    FamilySets {
        layout: IPV6_LAYOUT,
        vips: "vips6",
        leases: ["leased6a", "leased6b"],
        slots: ["slot6a", "slot6b"],
    },
];

/// The name of the fence's tables.
pub(super) fn fence_table(adapter: &str) -> String {
    format!("{FENCE_TABLE_PREFIX}{adapter}")
}

/// The families of addresses in a table.
fn sets_of_table(family: i32) -> &'static [FamilySets] {
    if family == libc::NFPROTO_ARP { &FAMILY_SETS[..1] } else { &FAMILY_SETS }
}

fn keys(sets: &FamilySets, addrs: &[IpAddr]) -> Vec<Vec<u8>> {
    let keys = addrs.iter().copied().map(address_bytes);
    keys.filter(|key| key.len() as u32 == sets.layout.address_len).collect()
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
            let key = |flags| (sets.layout.key_type, sets.layout.address_len, flags);
            writer.add_set(sets.vips, key(0), keys(sets, &vips).into_iter());
            for name in sets.slots {
                writer.add_set(name, key(0), std::iter::empty());
            }
            for name in sets.leases {
                writer.add_set(name, key(SET_HAS_TIMEOUT), std::iter::empty());
            }
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
            for slot in [0, 1] {
                table.add_rule(chain, |rule| {
                    rule.match_address(layout, offset, sets.slots[slot], false);
                    rule.look_up(sets.leases[slot], false);
                    rule.decide(VERDICT_ACCEPT);
                });
            }
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
    for slot in [0, 1] {
        table.add_rule(CHAIN_LOCAL, |rule| {
            load_sender(rule);
            rule.look_up(sets.slots[slot], false);
            rule.look_up(sets.leases[slot], false);
            rule.decide(VERDICT_ACCEPT);
        });
    }
    table.add_rule(CHAIN_LOCAL, |rule| {
        load_sender(rule);
        rule.look_up(sets.vips, false);
        rule.count_and_drop(DropReason::LeaseEnded);
    });
}

/// Calls `write` for each table, and each family of addresses in it.
fn for_each_set(
    batch: &mut BatchWriter,
    table: &str,
    mut write: impl FnMut(&mut TableWriter<'_>, &FamilySets),
) {
    for family in FENCE_FAMILIES {
        let mut writer = TableWriter::new(batch, family, table);
        for sets in sets_of_table(family) {
            write(&mut writer, sets);
        }
    }
}

/// Removes elements, whether the set holds them or not: without the addition, a missing one could
/// not be removed.
fn clear_elements(table: &mut TableWriter<'_>, set: &str, keys: &[Vec<u8>]) {
    table.add_elements(set, keys.iter().cloned(), None);
    table.delete_elements(set, keys.iter().cloned());
}

/// The first transaction of a renewal: elements that end after `timeout`, in slots that are made
/// sure not to be in use. Kernels before 6.12 keep the timeout of an element that exists, so it is
/// removed and added.
pub(super) fn encode_arming(
    table: &str,
    leases: &[(IpAddr, LeaseSlot)],
    timeout: Duration,
) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    for_each_set(&mut batch, table, |writer, sets| {
        for slot in [LeaseSlot::First, LeaseSlot::Second] {
            let keys = keys(sets, &in_slot(leases, slot));
            clear_elements(writer, sets.slots[slot as usize], &keys);
            clear_elements(writer, sets.leases[slot as usize], &keys);
            let millis = Some(timeout.as_millis() as u64);
            writer.add_elements(sets.leases[slot as usize], keys.into_iter(), millis);
        }
    });
    batch.finish()
}

/// The second transaction: these slots are in use, and no others.
pub(super) fn encode_switch(table: &str, leases: &[(IpAddr, LeaseSlot)]) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    for_each_set(&mut batch, table, |writer, sets| {
        for slot in [LeaseSlot::First, LeaseSlot::Second] {
            let keys = keys(sets, &in_slot(leases, slot));
            writer.add_elements(sets.slots[slot as usize], keys.iter().cloned(), None);
            clear_elements(writer, sets.slots[slot.other() as usize], &keys);
        }
    });
    batch.finish()
}

/// The transaction that ends leases at once.
pub(super) fn encode_forbid(table: &str, addrs: &[IpAddr]) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    for_each_set(&mut batch, table, |writer, sets| {
        let keys = keys(sets, addrs);
        for name in sets.slots.into_iter().chain(sets.leases) {
            clear_elements(writer, name, &keys);
        }
    });
    batch.finish()
}

/// The transaction that adds and removes floating addresses.
pub(super) fn encode_vips(table: &str, added: &[IpAddr], removed: &[IpAddr]) -> (Vec<u8>, u32) {
    let mut batch = BatchWriter::new();
    for_each_set(&mut batch, table, |writer, sets| {
        writer.add_elements(sets.vips, keys(sets, added).into_iter(), None);
        clear_elements(writer, sets.vips, &keys(sets, removed));
    });
    batch.finish()
}

fn in_slot(leases: &[(IpAddr, LeaseSlot)], slot: LeaseSlot) -> Vec<IpAddr> {
    leases.iter().filter(|(_, own)| *own == slot).map(|(addr, _)| *addr).collect()
}

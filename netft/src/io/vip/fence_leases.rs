//! Leases in the fence: which addresses share one. Pure.
//!
//! Addresses that are renewed together share a lease, so that a renewal costs the same however many
//! they are. A lease has two slots, of which one is in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netft_proto::time::Time;

/// A lease that addresses share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SharedLease {
    addrs: BTreeSet<IpAddr>,
    /// The slot in use.
    slot: u32,
    /// No address of the lease answers after that.
    until: Time,
}

/// Leases that the kernel holds.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseTable {
    leases: BTreeMap<u32, SharedLease>,
    /// Leases whose chains the kernel has: those below.
    chains: u32,
}

/// A change of what the kernel holds. What is removed is there, and what is added is not, once the
/// rest is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeaseChange {
    /// Slots that go out of use.
    pub(super) ended_slots: Vec<u32>,
    /// Addresses that lose their lease.
    pub(super) ended_addrs: Vec<IpAddr>,
    /// The lease that is set.
    pub(super) set: Option<LeaseSetting>,
}

/// A lease that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseSetting {
    pub(super) lease: u32,
    /// The slot that comes into use.
    pub(super) slot: u32,
    /// Addresses that get the lease.
    pub(super) addrs: Vec<IpAddr>,
}

/// The two slots of a lease.
pub(super) const fn slots_of(lease: u32) -> [u32; 2] {
    [lease.wrapping_mul(2), lease.wrapping_mul(2).wrapping_add(1)]
}

impl LeaseTable {
    /// The change that puts these addresses under one lease.
    pub(super) fn plan_renewal(&self, addrs: &BTreeSet<IpAddr>) -> LeaseChange {
        let whole = self.leases.iter().filter(|(_, lease)| lease.addrs.is_subset(addrs));
        let kept = whole.max_by_key(|(_, lease)| lease.addrs.len());
        let free = || (0..=u32::MAX).find(|number| !self.leases.contains_key(number));
        let lease = kept.map(|(number, _)| *number).or_else(free).unwrap_or_default();
        let stays = |addr: &IpAddr| kept.is_some_and(|(_, lease)| lease.addrs.contains(addr));
        let moving: BTreeSet<_> = addrs.iter().copied().filter(|addr| !stays(addr)).collect();
        let used = kept.map(|(_, lease)| lease.slot);
        let unused = slots_of(lease).into_iter().find(|slot| Some(*slot) != used);
        let mut change = self.plan_removal(&moving);
        change.ended_slots.extend(used);
        change.set = Some(LeaseSetting {
            lease,
            slot: unused.unwrap_or_default(),
            addrs: moving.into_iter().collect(),
        });
        change
    }

    /// The change that takes these addresses out of their leases.
    pub(super) fn plan_removal(&self, addrs: &BTreeSet<IpAddr>) -> LeaseChange {
        let left = self.leases.values().filter(|lease| lease.addrs.is_subset(addrs));
        let held = self.leases.values().flat_map(|lease| lease.addrs.intersection(addrs));
        LeaseChange {
            ended_slots: left.map(|lease| lease.slot).collect(),
            ended_addrs: held.copied().collect(),
            set: None,
        }
    }

    /// The kernel made the change; a lease that was set ends at `until`.
    pub(super) fn apply_change(&mut self, change: &LeaseChange, until: Time) {
        for lease in self.leases.values_mut() {
            lease.addrs.retain(|addr| !change.ended_addrs.contains(addr));
        }
        if let Some(set) = &change.set {
            let empty = || SharedLease { addrs: BTreeSet::new(), slot: set.slot, until };
            let lease = self.leases.entry(set.lease).or_insert_with(empty);
            lease.addrs.extend(&set.addrs);
            (lease.slot, lease.until) = (set.slot, until);
        }
        self.leases.retain(|_, lease| !lease.addrs.is_empty());
    }

    /// The kernel has no chain for the lease.
    pub(super) const fn lacks_chain(&self, lease: u32) -> bool {
        lease >= self.chains
    }

    /// The kernel has a chain for the lease.
    pub(super) fn add_chain(&mut self, lease: u32) {
        self.chains = self.chains.max(lease + 1);
    }

    /// Forgets everything: the kernel holds no lease. Returns those that run at `now`.
    pub(super) fn take_running(&mut self, now: Time) -> Vec<(BTreeSet<IpAddr>, Time)> {
        self.chains = 0;
        let leases = std::mem::take(&mut self.leases).into_values();
        leases.filter(|lease| lease.until > now).map(|lease| (lease.addrs, lease.until)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel holds: it refuses to remove what is missing, and to add what is there.
    #[derive(Default)]
    struct KernelFence {
        chains: BTreeSet<u32>,
        leases: BTreeMap<IpAddr, u32>,
        used: BTreeSet<u32>,
        ends: BTreeMap<u32, u64>,
    }

    impl KernelFence {
        fn arm(&mut self, set: &LeaseSetting, table: &mut LeaseTable, end: u64) {
            assert!(!self.used.contains(&set.slot), "slot {} is in use", set.slot);
            if table.lacks_chain(set.lease) {
                assert!(self.chains.insert(set.lease), "{set:?}");
                table.add_chain(set.lease);
            }
            self.ends.insert(set.slot, end);
        }

        fn apply(&mut self, change: &LeaseChange) {
            for slot in &change.ended_slots {
                assert!(self.used.remove(slot), "{change:?}");
            }
            for addr in &change.ended_addrs {
                assert!(self.leases.remove(addr).is_some(), "{change:?}");
            }
            let Some(set) = &change.set else { return };
            assert!(self.chains.contains(&set.lease), "{change:?}");
            assert!(self.used.insert(set.slot), "{change:?}");
            for addr in &set.addrs {
                assert!(self.leases.insert(*addr, set.lease).is_none(), "{change:?}");
            }
        }

        fn end_of(&self, addr: &IpAddr) -> Option<u64> {
            let lease = *self.leases.get(addr)?;
            let used: Vec<_> =
                slots_of(lease).into_iter().filter(|slot| self.used.contains(slot)).collect();
            assert!(used.len() < 2, "both slots of {lease}");
            self.ends.get(used.first()?).copied()
        }
    }

    fn addr_of(number: u8) -> IpAddr {
        match number % 2 {
            0 => IpAddr::from([10, 1, 0, number]),
            _ => IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, u16::from(number)]),
        }
    }

    proptest! {
        #[test]
        fn every_address_ends_with_its_own_last_renewal(
            steps in prop::collection::vec(
                (prop::collection::btree_set(0u8..7, 1..7), any::<bool>()), 1..60
            ),
        ) {
            let (mut table, mut kernel) = (LeaseTable::default(), KernelFence::default());
            let mut expected = BTreeMap::new();
            for (at, (numbers, is_renewal)) in (1..).zip(steps) {
                let addrs: BTreeSet<_> = numbers.into_iter().map(addr_of).collect();
                let change = if is_renewal {
                    expected.extend(addrs.iter().map(|addr| (*addr, at)));
                    let change = table.plan_renewal(&addrs);
                    if let Some(set) = &change.set {
                        kernel.arm(set, &mut table, at);
                    }
                    change
                } else {
                    expected.retain(|addr, _| !addrs.contains(addr));
                    table.plan_removal(&addrs)
                };
                kernel.apply(&change);
                table.apply_change(&change, Time::from_millis(at));
                for addr in (0..7).map(addr_of) {
                    prop_assert_eq!(kernel.end_of(&addr), expected.get(&addr).copied());
                }
            }
            let running = table.take_running(Time::ZERO);
            let kept: BTreeMap<_, _> = running
                .into_iter()
                .flat_map(|(addrs, until)| addrs.into_iter().map(move |addr| (addr, until)))
                .map(|(addr, until)| (addr, until.as_millis()))
                .collect();
            prop_assert_eq!(kept, expected);
        }
    }

    #[test]
    fn a_renewal_of_the_same_addresses_changes_one_entry() {
        let mut table = LeaseTable::default();
        let addrs: BTreeSet<_> = (0..100).map(addr_of).collect();
        let first = table.plan_renewal(&addrs);
        assert_eq!(first.set.as_ref().map(|set| set.addrs.len()), Some(100));
        table.apply_change(&first, Time::from_millis(400));
        let again = table.plan_renewal(&addrs);
        let set = LeaseSetting { lease: 0, slot: 1, addrs: Vec::new() };
        let expected = LeaseChange { ended_slots: vec![0], set: Some(set), ..Default::default() };
        assert_eq!(again, expected);
        let more = (0..101).map(addr_of).collect();
        let joined = table.plan_renewal(&more).set.map(|set| set.addrs);
        assert_eq!(joined, Some(vec![addr_of(100)]));
    }
}

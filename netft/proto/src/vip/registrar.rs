//! Registration of names in DNS: which records this node keeps, and when it updates them. Pure.
//!
//! A name stands for a group of floating addresses. The node that has an address adds its record,
//! and repeats that now and then; the node that let it go removes it, unless another one has it by
//! then. Records of an address that nobody owns are removed by any node that knows so.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{time::Time, vip::timing::SmallRandom};

/// An address that was let go is unregistered after that: another node may be about to have it.
const REMOVAL_DELAY: Duration = Duration::from_secs(5);
/// An address that nobody owns is unregistered after that by a node that did not register it.
const ABANDONED_DELAY: Duration = Duration::from_secs(30);
/// A new record is added again after that: its former owner may have removed it late.
const FIRST_REFRESH: Duration = Duration::from_secs(15);
/// Records are added again after that: the zone may have been restored or edited.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// Pause after a failed update; doubled by each that follows.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(64);
/// Most changes of records in one update.
const MAX_CHANGES: usize = 64;

/// Who has an address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It is registered whoever has it.
    Always,
    /// This node answers for it.
    Here,
    /// Another node owns it.
    Elsewhere,
    /// Nobody owns it.
    Nobody,
    /// This node does not know.
    Unknown,
}

/// State of a name: its members are joined by OR. A member that no interface of this node fits is
/// offline here and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// This node answers for at least one member.
    Online,
    /// Other nodes do.
    Elsewhere,
    /// No member is known to be online.
    Offline,
}

impl GroupState {
    /// The state of a name with these members.
    pub fn of_members(members: impl IntoIterator<Item = MemberState>) -> Self {
        members.into_iter().fold(Self::Offline, |state, member| match (state, member) {
            (Self::Online, _) | (_, MemberState::Here) => Self::Online,
            (Self::Elsewhere, _) | (_, MemberState::Elsewhere) => Self::Elsewhere,
            (Self::Offline, MemberState::Always | MemberState::Nobody | MemberState::Unknown) => {
                Self::Offline
            }
        })
    }

    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Elsewhere => "elsewhere",
            Self::Offline => "offline",
        }
    }
}

/// A record: a name, and the address that it leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsRecord {
    /// The whole name, without a dot at its end.
    pub name: String,
    /// The address.
    pub addr: IpAddr,
}

/// One update of the zone (RFC 2136).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsUpdate {
    /// Records to add; those that are there stay.
    pub added: Vec<DnsRecord>,
    /// Records to remove; those that are missing are no error.
    pub removed: Vec<DnsRecord>,
}

/// State of a record, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// The server has it.
    Registered,
    /// It is to be added.
    Registering,
    /// It is to be removed.
    Removing,
    /// The server does not have it.
    Removed,
    /// Another node sees to it.
    Unmanaged,
}

impl RecordState {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Registering => "registering",
            Self::Removing => "removing",
            Self::Removed => "removed",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// The wish for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordWish {
    Present,
    /// From this time on.
    AbsentAt(Time),
    Unmanaged,
}

#[derive(Clone, Copy, Debug)]
struct KnownRecord {
    wish: RecordWish,
    /// As the server last confirmed to this node.
    is_registered: Option<bool>,
    /// When a record that is there is added again.
    refresh_at: Time,
    refreshes: u32,
}

/// The records of all names, on one node.
#[derive(Debug)]
pub struct DnsRegistrar {
    records: BTreeMap<DnsRecord, KnownRecord>,
    in_flight: Option<DnsUpdate>,
    failures: u32,
    retry_at: Time,
    random: SmallRandom,
}

impl DnsRegistrar {
    /// A registrar that knows of no record; `seed` for the random part of its pauses.
    pub const fn new(seed: u64) -> Self {
        Self {
            records: BTreeMap::new(),
            in_flight: None,
            failures: 0,
            retry_at: Time::ZERO,
            random: SmallRandom(seed),
        }
    }

    /// Takes in the members of every name: an address, and who has it.
    pub fn set_members(&mut self, now: Time, members: &[(DnsRecord, MemberState)]) {
        let wanted: BTreeSet<_> = members.iter().map(|(record, _)| record).collect();
        for (record, state) in members.iter().filter(|(record, _)| is_registrable(record.addr)) {
            let fresh = KnownRecord {
                wish: RecordWish::Unmanaged,
                is_registered: None,
                refresh_at: now,
                refreshes: 0,
            };
            let known = self.records.entry(record.clone()).or_insert(fresh);
            known.wish = known.next_wish(now, *state);
            if *state == MemberState::Elsewhere && known.is_registered == Some(false) {
                // Its owner adds it again: a removal by this node says nothing any longer.
                known.is_registered = None;
            }
        }
        for (record, known) in &mut self.records {
            // The config does not name it any longer.
            if !wanted.contains(record) {
                known.wish = known.next_wish(now, MemberState::Nobody);
            }
        }
        self.records.retain(|record, known| {
            wanted.contains(record) || known.state() != RecordState::Removed
        });
    }

    /// When the next update is due; `None` while one is under way, or without one.
    pub fn next_wake(&self) -> Option<Time> {
        if self.in_flight.is_some() {
            return None;
        }
        let due = self.records.values().filter_map(KnownRecord::due_at).min()?;
        Some(due.max(self.retry_at))
    }

    /// The update that is due. Its end is told by [`on_result`](Self::on_result).
    pub fn poll_update(&mut self, now: Time) -> Option<DnsUpdate> {
        if self.next_wake().is_none_or(|wake| now < wake) {
            return None;
        }
        let mut update = DnsUpdate::default();
        let due =
            self.records.iter().filter(|(_, known)| known.due_at().is_some_and(|at| at <= now));
        for (record, known) in due.take(MAX_CHANGES) {
            match known.wish {
                RecordWish::Present => update.added.push(record.clone()),
                RecordWish::AbsentAt(_) => update.removed.push(record.clone()),
                RecordWish::Unmanaged => {}
            }
        }
        self.in_flight = Some(update.clone());
        Some(update)
    }

    /// The update under way was done, or failed.
    pub fn on_result(&mut self, now: Time, is_done: bool) {
        let Some(update) = self.in_flight.take() else { return };
        if !is_done {
            self.failures = self.failures.saturating_add(1);
            let pause = (MIN_RETRY * (1 << (self.failures - 1).min(8))).min(MAX_RETRY);
            self.retry_at = now + pause / 2 + self.random.duration_below(pause / 2);
            return;
        }
        self.failures = 0;
        let done = update.added.into_iter().map(|record| (record, true));
        for (record, is_there) in done.chain(update.removed.into_iter().map(|one| (one, false))) {
            let Some(known) = self.records.get_mut(&record) else { continue };
            known.is_registered = Some(is_there);
            let pause = if known.refreshes == 0 { FIRST_REFRESH } else { REFRESH_INTERVAL };
            known.refresh_at = now + pause;
            known.refreshes += 1;
        }
    }

    /// Updates that failed one after the other.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// State of a record; `None` if no name has it.
    pub fn state(&self, record: &DnsRecord) -> Option<RecordState> {
        self.records.get(record).map(KnownRecord::state)
    }

    /// Every record with its state.
    pub fn states(&self) -> impl Iterator<Item = (&DnsRecord, RecordState)> {
        self.records.iter().map(|(record, known)| (record, known.state()))
    }
}

impl KnownRecord {
    fn next_wish(&self, now: Time, state: MemberState) -> RecordWish {
        let delay = match (state, self.is_registered) {
            (MemberState::Here | MemberState::Always, _) => return RecordWish::Present,
            (MemberState::Elsewhere, _) => return RecordWish::Unmanaged,
            (MemberState::Nobody | MemberState::Unknown, Some(true)) => REMOVAL_DELAY,
            (MemberState::Nobody, None) => ABANDONED_DELAY,
            // It stays removed.
            (MemberState::Nobody, Some(false)) => return RecordWish::AbsentAt(now),
            // Whoever registered it may still have it.
            (MemberState::Unknown, _) => return RecordWish::Unmanaged,
        };
        match self.wish {
            RecordWish::AbsentAt(at) => RecordWish::AbsentAt(at),
            RecordWish::Present | RecordWish::Unmanaged => RecordWish::AbsentAt(now + delay),
        }
    }

    fn due_at(&self) -> Option<Time> {
        match (self.wish, self.is_registered) {
            (RecordWish::Present, Some(true)) => Some(self.refresh_at),
            (RecordWish::Present, _) => Some(Time::ZERO),
            (RecordWish::AbsentAt(_), Some(false)) | (RecordWish::Unmanaged, _) => None,
            (RecordWish::AbsentAt(at), _) => Some(at),
        }
    }

    const fn state(&self) -> RecordState {
        match (self.wish, self.is_registered) {
            (RecordWish::Present, Some(true)) => RecordState::Registered,
            (RecordWish::Present, _) => RecordState::Registering,
            (RecordWish::AbsentAt(_), Some(false)) => RecordState::Removed,
            (RecordWish::AbsentAt(_), _) => RecordState::Removing,
            (RecordWish::Unmanaged, _) => RecordState::Unmanaged,
        }
    }
}

/// An address that clients can reach: link-local ones, such as those of the adapter, lead nowhere
/// from another host.
pub const fn is_registrable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_loopback() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(addr: &str) -> DnsRecord {
        DnsRecord { name: "web.example".to_owned(), addr: addr.parse().expect("an address") }
    }

    fn at(secs: u64) -> Time {
        Time::from_millis(secs * 1000)
    }

    struct TestNode(DnsRegistrar, Time);

    impl TestNode {
        fn new() -> Self {
            Self(DnsRegistrar::new(7), at(100))
        }

        fn set(&mut self, members: &[(&str, MemberState)]) {
            let members: Vec<_> =
                members.iter().map(|(addr, state)| (record(addr), *state)).collect();
            self.0.set_members(self.1, &members);
        }

        /// Runs for a time with a server that answers; the changes with their seconds.
        fn run(&mut self, secs: u64, answers: bool) -> Vec<(u64, bool, IpAddr)> {
            let (start, end) = (self.1, self.1 + Duration::from_secs(secs));
            let mut done = Vec::new();
            while let Some(wake) = self.0.next_wake().filter(|wake| *wake <= end) {
                self.1 = self.1.max(wake);
                let update = self.0.poll_update(self.1).expect("due");
                assert_eq!(self.0.next_wake(), None, "one at a time");
                let after = self.1.since(start).as_secs();
                done.extend(update.added.iter().map(|one| (after, true, one.addr)));
                done.extend(update.removed.iter().map(|one| (after, false, one.addr)));
                self.0.on_result(self.1, answers);
            }
            self.1 = end;
            done
        }
    }

    #[test]
    fn the_owner_adds_its_record_and_repeats_that() {
        let mut node = TestNode::new();
        node.set(&[("10.1.0.80", MemberState::Here), ("10.2.0.80", MemberState::Elsewhere)]);
        assert_eq!(node.0.state(&record("10.1.0.80")), Some(RecordState::Registering));
        let addr = record("10.1.0.80").addr;
        let times = [0, 15, 315, 615].map(|secs| (secs, true, addr));
        assert_eq!(node.run(700, true), times);
        assert_eq!(node.0.state(&record("10.1.0.80")), Some(RecordState::Registered));
        assert_eq!(node.0.state(&record("10.2.0.80")), Some(RecordState::Unmanaged));
    }

    #[test]
    fn an_address_that_was_let_go_is_removed_unless_another_node_has_it() {
        for unknown in [MemberState::Unknown, MemberState::Nobody] {
            let mut node = TestNode::new();
            node.set(&[("10.1.0.80", MemberState::Here)]);
            node.run(20, true);
            node.set(&[("10.1.0.80", unknown)]);
            assert_eq!(node.run(4, true), [], "it may be on its way");
            node.set(&[("10.1.0.80", unknown)]);
            assert_eq!(node.run(60, true), [(1, false, record("10.1.0.80").addr)]);
            assert_eq!(node.0.state(&record("10.1.0.80")), Some(RecordState::Removed));
        }
        let mut node = TestNode::new();
        node.set(&[("10.1.0.80", MemberState::Here)]);
        node.run(20, true);
        node.set(&[("10.1.0.80", MemberState::Unknown)]);
        node.run(3, true);
        node.set(&[("10.1.0.80", MemberState::Elsewhere)]);
        assert_eq!(node.run(600, true), [], "the other node sees to it");
    }

    #[test]
    fn an_address_that_nobody_owns_is_removed_by_those_who_know() {
        let mut node = TestNode::new();
        node.set(&[("10.1.0.80", MemberState::Nobody)]);
        assert_eq!(node.run(100, true), [(30, false, record("10.1.0.80").addr)]);
        let mut node = TestNode::new();
        node.set(&[("10.1.0.80", MemberState::Unknown)]);
        assert_eq!(node.run(1000, true), [], "another node may have it");
        // This node removed it once; its next owner added it again, and is gone.
        let mut node = TestNode::new();
        for state in [MemberState::Here, MemberState::Nobody, MemberState::Elsewhere] {
            node.set(&[("10.1.0.80", state)]);
            node.run(60, true);
        }
        node.set(&[("10.1.0.80", MemberState::Nobody)]);
        assert_eq!(node.run(100, true), [(30, false, record("10.1.0.80").addr)]);
    }

    #[test]
    fn a_name_that_registers_all_and_one_that_is_gone() {
        let mut node = TestNode::new();
        node.set(&[("10.1.0.80", MemberState::Always), ("fd01::80", MemberState::Always)]);
        assert_eq!(node.run(0, true).len(), 2);
        node.set(&[("10.1.0.80", MemberState::Always)]);
        let removed = node.run(14, true);
        assert_eq!(removed, [(5, false, record("fd01::80").addr)]);
        node.set(&[("10.1.0.80", MemberState::Always)]);
        assert_eq!(node.0.state(&record("fd01::80")), None, "forgotten");
    }

    #[test]
    fn a_server_that_fails_is_asked_ever_more_seldom_and_not_for_ever_the_same() {
        let mut node = TestNode::new();
        node.set(&[("10.1.0.80", MemberState::Here)]);
        let tries = node.run(600, false);
        assert!((10..40).contains(&tries.len()), "{tries:?}");
        assert!(node.0.failures() > 5);
        // What changed meanwhile counts: the record was never added.
        node.set(&[("10.1.0.80", MemberState::Unknown)]);
        assert_eq!(node.run(600, true), []);
        node.set(&[("10.1.0.80", MemberState::Here)]);
        assert_eq!(node.run(0, true).len(), 1);
        assert_eq!(node.0.failures(), 0);
    }

    #[test]
    fn link_local_addresses_are_never_registered() {
        let mut node = TestNode::new();
        let members = ["169.254.7.7", "fe80::7", "127.0.0.1", "::1", "0.0.0.0", "::"];
        node.set(&members.map(|addr| (addr, MemberState::Always)));
        assert_eq!(node.run(600, true), []);
        assert_eq!(node.0.states().count(), 0);
    }

    #[test]
    fn many_records_are_changed_in_bounded_updates() {
        let mut registrar = DnsRegistrar::new(1);
        let members: Vec<_> =
            (0..200).map(|host| (record(&format!("10.1.0.{host}")), MemberState::Always)).collect();
        registrar.set_members(at(1), &members);
        let mut sizes = Vec::new();
        while let Some(update) = registrar.poll_update(at(1)) {
            sizes.push(update.added.len());
            registrar.on_result(at(1), true);
        }
        assert_eq!(sizes, [64, 64, 64, 8]);
    }

    #[test]
    fn a_name_is_online_if_any_member_is() {
        use MemberState::{Always, Elsewhere, Here, Nobody, Unknown};
        for (members, state) in [
            (&[Nobody, Here][..], GroupState::Online),
            (&[Elsewhere, Here], GroupState::Online),
            (&[Nobody, Elsewhere], GroupState::Elsewhere),
            (&[Nobody, Unknown, Always], GroupState::Offline),
            (&[], GroupState::Offline),
        ] {
            assert_eq!(GroupState::of_members(members.iter().copied()), state);
        }
    }
}

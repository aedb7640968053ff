//! Resolution of the peers' host names: lookup schedule and results. Pure.
//!
//! A name is resolved at the start and every [`REFRESH_INTERVAL`] (the system resolver reports no
//! time to live); when no route to its peer is usable, at once and then every
//! [`MIN_LOOKUP_INTERVAL`]. A name that fails keeps its addresses and is retried after
//! [`MIN_LOOKUP_INTERVAL`], twice that, … at most [`MAX_RETRY_INTERVAL`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use crate::{
    config::{Config, HostName},
    ids::PeerId,
    time::Time,
    topology::types::Interface,
};

/// The addresses behind the names of each peer.
pub type ResolvedAddresses = BTreeMap<PeerId, Vec<SocketAddr>>;

/// The peers' link-local addresses that the config gives with an interface (`fe80::1%eth0`), for
/// the interfaces that exist. An interface may be given by its number, too.
pub fn link_local_addresses(config: &Config, interfaces: &[Interface]) -> ResolvedAddresses {
    let mut found = ResolvedAddresses::new();
    for peer in &config.peers {
        for name in &peer.names {
            let Some((addr, wanted)) = name.link_local() else { continue };
            let number = wanted.parse().ok();
            let owner = interfaces.iter().find(|interface| interface.name == wanted);
            let owner = owner.or_else(|| interfaces.iter().find(|it| Some(it.index) == number));
            if let Some(owner) = owner {
                let remote = SocketAddrV6::new(addr, name.port, 0, owner.index);
                found.entry(peer.id).or_default().push(remote.into());
            }
        }
    }
    found
}

/// Interval between two lookups of a name that resolves.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest interval between two lookups of a name.
pub const MIN_LOOKUP_INTERVAL: Duration = Duration::from_secs(5);
/// The longest interval between two lookups of a name that fails.
pub const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(300);
/// The most addresses taken of one name.
pub const MAX_ADDRS_PER_NAME: usize = 8;
/// The most concurrent lookups.
pub const MAX_PENDING_LOOKUPS: usize = 8;

/// A name of a peer.
pub type PeerHostName = (PeerId, HostName);

/// The effect of a lookup result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupChange {
    /// The addresses changed.
    pub changed: bool,
    /// The error of a name that did not fail before.
    pub failure: Option<String>,
}

/// Every name of every peer.
#[derive(Debug, Default)]
pub struct NameCache {
    entries: BTreeMap<PeerHostName, NameEntry>,
}

#[derive(Debug, Default)]
struct NameEntry {
    addrs: Vec<SocketAddr>,
    next_lookup: Time,
    last_lookup: Option<Time>,
    is_pending: bool,
    /// The interval after the next failure; `None` while it resolves.
    retry_interval: Option<Duration>,
    is_unreachable: bool,
}

impl NameCache {
    /// Replaces the set of names; a new one is due at once. Returns whether addresses were removed
    /// with the others.
    pub fn set_names(&mut self, now: Time, wanted: impl IntoIterator<Item = PeerHostName>) -> bool {
        let mut old = std::mem::take(&mut self.entries);
        for key in wanted {
            let entry = old
                .remove(&key)
                .unwrap_or_else(|| NameEntry { next_lookup: now, ..NameEntry::default() });
            self.entries.insert(key, entry);
        }
        old.values().any(|entry| !entry.addrs.is_empty())
    }

    /// Updates which peers no usable route leads to.
    pub fn update_reachability(&mut self, now: Time, peer: impl Fn(PeerId) -> bool) {
        for ((id, _), entry) in &mut self.entries {
            let unreached = peer(*id);
            if unreached && !entry.is_unreachable && entry.retry_interval.is_none() {
                let soonest = entry.last_lookup.map_or(now, |asked| asked + MIN_LOOKUP_INTERVAL);
                entry.next_lookup = entry.next_lookup.min(soonest.max(now));
            }
            entry.is_unreachable = unreached;
        }
    }

    /// The names to resolve, each to be followed by
    /// [`on_lookup_result`](Self::on_lookup_result).
    pub fn take_due_lookups(&mut self, now: Time) -> Vec<PeerHostName> {
        let pending = self.entries.values().filter(|entry| entry.is_pending).count();
        let mut keys = Vec::new();
        for (key, entry) in &mut self.entries {
            if pending + keys.len() < MAX_PENDING_LOOKUPS
                && !entry.is_pending
                && entry.next_lookup <= now
            {
                (entry.is_pending, entry.last_lookup) = (true, Some(now));
                keys.push(key.clone());
            }
        }
        keys
    }

    /// Applies the addresses of a name, or the error.
    pub fn on_lookup_result(
        &mut self,
        now: Time,
        key: &PeerHostName,
        answer: Result<Vec<IpAddr>, String>,
    ) -> LookupChange {
        let Some(entry) = self.entries.get_mut(key) else { return LookupChange::default() };
        entry.is_pending = false;
        let answer = answer.and_then(|addrs| match addrs.is_empty() {
            true => Err("it has no address".to_owned()),
            false => Ok(addrs),
        });
        match answer {
            Ok(addrs) => {
                let mut addrs: Vec<_> =
                    addrs.into_iter().map(|addr| SocketAddr::new(addr, key.1.port)).collect();
                addrs.sort();
                addrs.dedup();
                addrs.truncate(MAX_ADDRS_PER_NAME);
                entry.retry_interval = None;
                entry.next_lookup =
                    now + if entry.is_unreachable { MIN_LOOKUP_INTERVAL } else { REFRESH_INTERVAL };
                let changed = std::mem::replace(&mut entry.addrs, addrs.clone()) != addrs;
                LookupChange { changed, failure: None }
            }
            Err(why) => {
                let is_new_failure = entry.retry_interval.is_none();
                let pause = entry.retry_interval.unwrap_or(MIN_LOOKUP_INTERVAL);
                entry.retry_interval = Some((2 * pause).min(MAX_RETRY_INTERVAL));
                entry.next_lookup = now + pause;
                LookupChange { changed: false, failure: is_new_failure.then_some(why) }
            }
        }
    }

    /// Returns whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The addresses of every peer.
    pub fn resolved_addresses(&self) -> ResolvedAddresses {
        let mut resolved = ResolvedAddresses::new();
        for ((peer, _), entry) in &self.entries {
            resolved.entry(*peer).or_default().extend(&entry.addrs);
        }
        resolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(3);

    fn key() -> PeerHostName {
        (PEER, HostName { host: "b.example".to_owned(), port: 3343 })
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(1000 * seconds)
    }

    fn addrs(last: &[u8]) -> Vec<IpAddr> {
        last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect()
    }

    fn names() -> NameCache {
        let mut names = NameCache::default();
        names.set_names(at(0), [key()]);
        names
    }

    /// The seconds at which the name is looked up, given the result of each lookup.
    fn lookups(
        names: &mut NameCache,
        seconds: std::ops::Range<u64>,
        find: impl Fn(u64) -> Result<Vec<IpAddr>, String>,
        unreached: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let mut found = Vec::new();
        for second in seconds {
            names.update_reachability(at(second), |_| unreached(second));
            for key in names.take_due_lookups(at(second)) {
                assert!(names.take_due_lookups(at(second)).is_empty(), "it is being looked up");
                names.on_lookup_result(at(second), &key, find(second));
                found.push(second);
            }
        }
        found
    }

    #[test]
    fn a_name_is_looked_up_at_once_every_minute_and_when_its_peer_is_lost() {
        let mut names = names();
        let fine = |_| Ok(addrs(&[1]));
        let lost = |second| (100..113).contains(&second);
        assert_eq!(lookups(&mut names, 0..200, fine, lost), [0, 60, 100, 105, 110, 115, 175]);
        // Not twice within the gap.
        let mut names = self::names();
        assert_eq!(lookups(&mut names, 0..9, fine, |second| second == 2), [0, 5]);
    }

    #[test]
    fn a_name_that_fails_keeps_its_addresses_and_is_retried_with_backoff() {
        let mut names = names();
        let find = |second| if second == 0 { Ok(addrs(&[1])) } else { Err("timeout".to_owned()) };
        let seen = lookups(&mut names, 0..2000, find, |_| true);
        assert_eq!(seen, [0, 5, 10, 20, 40, 80, 160, 320, 620, 920, 1220, 1520, 1820]);
        assert_eq!(names.resolved_addresses()[&PEER], [SocketAddr::new(addrs(&[1])[0], 3343)]);
    }

    #[test]
    fn a_result_is_a_change_when_it_differs_and_a_failure_when_it_begins() {
        let mut names = names();
        let mut answer = |answer| {
            let LookupChange { changed, failure: failed } =
                names.on_lookup_result(at(1), &key(), answer);
            (changed, failed.is_some())
        };
        assert_eq!(answer(Ok(addrs(&[2, 1, 2]))), (true, false));
        assert_eq!(answer(Ok(addrs(&[1, 2]))), (false, false));
        assert_eq!(answer(Ok(Vec::new())), (false, true), "no address");
        assert_eq!(answer(Err("timeout".to_owned())), (false, false));
        assert_eq!(answer(Ok(addrs(&[2]))), (true, false));
        assert_eq!(answer(Err("timeout".to_owned())), (false, true));
        assert_eq!(answer(Ok((0..200).map(|n| addrs(&[n])[0]).collect())), (true, false));
        assert_eq!(names.resolved_addresses()[&PEER].len(), MAX_ADDRS_PER_NAME);
        let unknown = (PeerId(9), key().1);
        assert_eq!(
            names.on_lookup_result(at(2), &unknown, Ok(addrs(&[1]))),
            LookupChange::default()
        );
        assert!(names.set_names(at(3), []) && names.is_empty());
        assert!(!names.set_names(at(3), [key()]) && names.take_due_lookups(at(3)) == [key()]);
    }

    #[test]
    fn concurrent_lookups_are_bounded() {
        let mut names = NameCache::default();
        let host = |n: u16| HostName { host: format!("n{n}"), port: 1 };
        names.set_names(at(0), (0..100).map(|n| (PeerId(n), host(n))));
        let first = names.take_due_lookups(at(0));
        assert_eq!((first.len(), names.take_due_lookups(at(0)).len()), (MAX_PENDING_LOOKUPS, 0));
        names.on_lookup_result(at(0), &first[0], Ok(addrs(&[1])));
        assert_eq!(names.take_due_lookups(at(1)).len(), 1);
    }
}

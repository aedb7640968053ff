//! Peers behind names: when each is looked up, and what becomes of the answers. Pure.
//!
//! A name is looked up at the start and every [`REFRESH`] (the system's resolver tells no time to
//! live). When no route to its peer is usable, at once, and then every [`GAP`]. One that fails
//! keeps the addresses it had, and is tried again after [`GAP`], twice that, … at most
//! [`PATIENCE`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::{config::HostName, ids::PeerId, time::Time};

/// The addresses behind the names of each peer.
pub type Resolved = BTreeMap<PeerId, Vec<SocketAddr>>;

/// The time between two looks at a name that is fine.
pub const REFRESH: Duration = Duration::from_secs(60);
/// The least time between two looks at a name.
pub const GAP: Duration = Duration::from_secs(5);
/// The most time between two looks at a name that fails.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// The most addresses taken of one name.
pub const MAX_ADDRS: usize = 8;
/// The most lookups under way.
pub const MAX_PENDING: usize = 8;

/// A name of a peer.
pub type Key = (PeerId, HostName);

/// What an answer changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// There are other addresses.
    pub changed: bool,
    /// The name fails, and did not before: why.
    pub failed: Option<String>,
}

/// Every name of every peer.
#[derive(Debug, Default)]
pub struct Names {
    entries: BTreeMap<Key, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    addrs: Vec<SocketAddr>,
    due: Time,
    asked: Option<Time>,
    pending: bool,
    /// The pause after the next failure; `None` while it does not fail.
    failing: Option<Duration>,
    unreached: bool,
}

impl Names {
    /// Takes in which names there are; a new one is due. Returns whether addresses went with the
    /// others.
    pub fn follow(&mut self, now: Time, wanted: impl IntoIterator<Item = Key>) -> bool {
        let mut old = std::mem::take(&mut self.entries);
        for key in wanted {
            let entry = old.remove(&key).unwrap_or_else(|| Entry { due: now, ..Entry::default() });
            self.entries.insert(key, entry);
        }
        old.values().any(|entry| !entry.addrs.is_empty())
    }

    /// Takes in which peers no usable route leads to.
    pub fn unreached(&mut self, now: Time, peer: impl Fn(PeerId) -> bool) {
        for ((id, _), entry) in &mut self.entries {
            let unreached = peer(*id);
            if unreached && !entry.unreached && entry.failing.is_none() {
                let soonest = entry.asked.map_or(now, |asked| asked + GAP);
                entry.due = entry.due.min(soonest.max(now));
            }
            entry.unreached = unreached;
        }
    }

    /// The names to look up, which then count as being looked up: [`answer`](Self::answer) each.
    pub fn due(&mut self, now: Time) -> Vec<Key> {
        let pending = self.entries.values().filter(|entry| entry.pending).count();
        let mut keys = Vec::new();
        for (key, entry) in &mut self.entries {
            if pending + keys.len() < MAX_PENDING && !entry.pending && entry.due <= now {
                (entry.pending, entry.asked) = (true, Some(now));
                keys.push(key.clone());
            }
        }
        keys
    }

    /// Takes in the addresses of a name, or why there are none.
    pub fn answer(&mut self, now: Time, key: &Key, answer: Result<Vec<IpAddr>, String>) -> News {
        let Some(entry) = self.entries.get_mut(key) else { return News::default() };
        entry.pending = false;
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
                addrs.truncate(MAX_ADDRS);
                entry.failing = None;
                entry.due = now + if entry.unreached { GAP } else { REFRESH };
                let changed = std::mem::replace(&mut entry.addrs, addrs.clone()) != addrs;
                News { changed, failed: None }
            }
            Err(why) => {
                let news = entry.failing.is_none();
                let pause = entry.failing.unwrap_or(GAP);
                entry.failing = Some((2 * pause).min(PATIENCE));
                entry.due = now + pause;
                News { changed: false, failed: news.then_some(why) }
            }
        }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known.
    pub fn resolved(&self) -> Resolved {
        let mut resolved = Resolved::new();
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

    fn key() -> Key {
        (PEER, HostName { host: "b.example".to_owned(), port: 3343 })
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(1000 * seconds)
    }

    fn addrs(last: &[u8]) -> Vec<IpAddr> {
        last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect()
    }

    fn names() -> Names {
        let mut names = Names::default();
        names.follow(at(0), [key()]);
        names
    }

    /// When the name is looked up within `seconds`, given what each look finds.
    fn looks(
        names: &mut Names,
        seconds: std::ops::Range<u64>,
        find: impl Fn(u64) -> Result<Vec<IpAddr>, String>,
        unreached: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let mut found = Vec::new();
        for second in seconds {
            names.unreached(at(second), |_| unreached(second));
            for key in names.due(at(second)) {
                assert!(names.due(at(second)).is_empty(), "it is being looked up");
                names.answer(at(second), &key, find(second));
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
        assert_eq!(looks(&mut names, 0..200, fine, lost), [0, 60, 100, 105, 110, 115, 175]);
        // Not twice within the gap.
        let mut names = self::names();
        assert_eq!(looks(&mut names, 0..9, fine, |second| second == 2), [0, 5]);
    }

    #[test]
    fn a_name_that_fails_keeps_its_addresses_and_is_asked_ever_more_rarely() {
        let mut names = names();
        let find = |second| if second == 0 { Ok(addrs(&[1])) } else { Err("timeout".to_owned()) };
        let seen = looks(&mut names, 0..2000, find, |_| true);
        assert_eq!(seen, [0, 5, 10, 20, 40, 80, 160, 320, 620, 920, 1220, 1520, 1820]);
        assert_eq!(names.resolved()[&PEER], [SocketAddr::new(addrs(&[1])[0], 3343)]);
    }

    #[test]
    fn an_answer_is_news_when_it_differs_and_a_failure_when_it_begins() {
        let mut names = names();
        let mut answer = |answer| {
            let News { changed, failed } = names.answer(at(1), &key(), answer);
            (changed, failed.is_some())
        };
        assert_eq!(answer(Ok(addrs(&[2, 1, 2]))), (true, false));
        assert_eq!(answer(Ok(addrs(&[1, 2]))), (false, false));
        assert_eq!(answer(Ok(Vec::new())), (false, true), "no address");
        assert_eq!(answer(Err("timeout".to_owned())), (false, false));
        assert_eq!(answer(Ok(addrs(&[2]))), (true, false));
        assert_eq!(answer(Err("timeout".to_owned())), (false, true));
        assert_eq!(answer(Ok((0..200).map(|n| addrs(&[n])[0]).collect())), (true, false));
        assert_eq!(names.resolved()[&PEER].len(), MAX_ADDRS);
        let stranger = (PeerId(9), key().1);
        assert_eq!(names.answer(at(2), &stranger, Ok(addrs(&[1]))), News::default());
        assert!(names.follow(at(3), []) && names.is_empty());
        assert!(!names.follow(at(3), [key()]) && names.due(at(3)) == [key()]);
    }

    #[test]
    fn only_so_many_are_under_way() {
        let mut names = Names::default();
        let host = |n: u16| HostName { host: format!("n{n}"), port: 1 };
        names.follow(at(0), (0..100).map(|n| (PeerId(n), host(n))));
        let first = names.due(at(0));
        assert_eq!((first.len(), names.due(at(0)).len()), (MAX_PENDING, 0));
        names.answer(at(0), &first[0], Ok(addrs(&[1])));
        assert_eq!(names.due(at(1)).len(), 1);
    }
}

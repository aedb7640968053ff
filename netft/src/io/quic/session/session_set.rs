//! Which of a peer's sessions to send on, and when the others end. Pure: no clock, no socket.
//!
//! Both ends see the same sessions and rank them by what both know of them: the boot of the peer,
//! the generation the dialer announced, and whether the node with the smaller key dialled. So both
//! come to the same choice, whatever the order in which messages arrived. Called by the peer's
//! task; at most [`MAX_LIVE`] entries, so every call is short.

use std::time::{Duration, Instant};

/// The most sessions a peer has at once; beyond it the lowest ranked ends at once.
pub(in crate::io) const MAX_LIVE: usize = 4;
/// How long a superseded session still receives: longer than any packet stays in a network.
pub(in crate::io) const RETIRE: Duration = Duration::from_secs(10);
/// How long a new session waits before data moves to it while an older one serves: both packet
/// paths must have it in their tables by then.
pub(in crate::io) const SWITCH: Duration = Duration::from_millis(200);
/// How long the dialer of a new session waits for the last word before it dials again.
const CONFIRM: Duration = Duration::from_secs(1);

/// One session, as far as choosing goes.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct Entry {
    /// This node's number of the session.
    pub(in crate::io) local: u32,
    /// The boot id of the peer's process.
    pub(in crate::io) boot_id: u64,
    /// Announced by the dialer: one more than any it knew.
    pub(in crate::io) generation: u32,
    /// Whether the node with the smaller key dialled.
    pub(in crate::io) by_smaller: bool,
    /// When both ends had accepted each other.
    pub(in crate::io) since: Instant,
    /// From when on data may go: the peer is known to receive. `None` until then.
    usable_at: Option<Instant>,
    /// The peer knows that this node receives, so it sends here too.
    settled: bool,
    superseded_at: Option<Instant>,
}

impl Entry {
    pub(in crate::io) fn new(
        local: u32,
        boot_id: u64,
        generation: u32,
        by_smaller: bool,
        since: Instant,
    ) -> Self {
        Self {
            local,
            boot_id,
            generation,
            by_smaller,
            since,
            usable_at: None,
            settled: false,
            superseded_at: None,
        }
    }

    fn rank(&self) -> (u32, bool) {
        (self.generation, self.by_smaller)
    }
}

/// What follows from a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum Change {
    /// Data goes on this session from here on.
    Prefer(u32),
    /// This session is over.
    End(u32),
}

/// The sessions with one peer.
#[derive(Debug, Default)]
pub(in crate::io) struct Standing {
    /// Oldest first; all of one boot of the peer.
    entries: Vec<Entry>,
    preferred: Option<u32>,
}

impl Standing {
    /// Adds a session both ends have accepted. A new boot of the peer ends every session with the
    /// former one: the process that knew their keys is gone.
    pub(in crate::io) fn add(&mut self, entry: Entry) -> Vec<Change> {
        let mut changes = Vec::new();
        let boot_id = entry.boot_id;
        self.entries.retain(|old| {
            let keep = old.boot_id == boot_id;
            if !keep {
                changes.push(Change::End(old.local));
            }
            keep
        });
        self.forget_preferred();
        self.entries.push(entry);
        while self.entries.len() > MAX_LIVE {
            let spare = self.entries[..MAX_LIVE]
                .iter()
                .enumerate()
                .filter(|(_, old)| Some(old.local) != self.preferred)
                .min_by_key(|(_, old)| old.rank());
            let Some((place, _)) = spare else { break };
            changes.push(Change::End(self.entries.remove(place).local));
        }
        changes
    }

    /// The peer is known to receive on `local`.
    pub(in crate::io) fn usable(&mut self, local: u32, now: Instant) {
        let wait = if self.preferred.is_some() { SWITCH } else { Duration::ZERO };
        if let Some(entry) = self.get_mut(local) {
            entry.usable_at.get_or_insert(now + wait);
        }
    }

    /// The peer knows that this node receives on `local`.
    pub(in crate::io) fn settled(&mut self, local: u32) {
        if let Some(entry) = self.get_mut(local) {
            entry.settled = true;
        }
    }

    /// Removes a session the peer has ended.
    pub(in crate::io) fn remove(&mut self, local: u32) {
        self.entries.retain(|entry| entry.local != local);
        self.forget_preferred();
    }

    /// What is due at `now`.
    pub(in crate::io) fn review(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let ready = |entry: &&Entry| entry.usable_at.is_some_and(|at| at <= now);
        let best =
            self.entries.iter().filter(ready).max_by_key(|entry| entry.rank()).or_else(|| {
                // Nothing serves, so there is nothing to wait for.
                let usable = self.entries.iter().filter(|entry| entry.usable_at.is_some());
                usable.max_by_key(|entry| entry.rank())
            });
        let Some(best) = best.copied() else { return changes };
        if self.preferred != Some(best.local) {
            self.preferred = Some(best.local);
            changes.push(Change::Prefer(best.local));
        }
        self.entries.retain_mut(|entry| {
            // Until the peer knows it may send on the better session, it sends on this one.
            if !best.settled || entry.rank() >= best.rank() {
                entry.superseded_at = None;
                return true;
            }
            let since = *entry.superseded_at.get_or_insert(now);
            let keep = now < since + RETIRE;
            if !keep {
                changes.push(Change::End(entry.local));
            }
            keep
        });
        changes
    }

    /// When [`review`](Self::review) has something to do next.
    pub(in crate::io) fn next(&self, now: Instant) -> Option<Instant> {
        let switch = self.entries.iter().filter_map(|e| e.usable_at).filter(|at| *at > now);
        let retire = self.entries.iter().filter_map(|e| e.superseded_at.map(|at| at + RETIRE));
        let confirm = self.entries.iter().map(|e| e.since + CONFIRM).filter(|at| *at > now);
        switch.chain(retire).chain(confirm).min()
    }

    /// The session data goes on.
    pub(in crate::io) fn preferred(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| Some(entry.local) == self.preferred)
    }

    /// Every session, oldest first.
    pub(in crate::io) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether there is nothing to send on, and nothing about to be.
    pub(in crate::io) fn wants_session(&self, now: Instant) -> bool {
        self.preferred().is_none() && self.entries.iter().all(|entry| entry.since + CONFIRM <= now)
    }

    fn get_mut(&mut self, local: u32) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.local == local)
    }

    fn forget_preferred(&mut self) {
        if self.preferred().is_none() {
            self.preferred = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: u64 = 7;

    fn up(standing: &mut Standing, local: u32, rank: (u32, bool), now: Instant) -> Vec<Change> {
        let mut changes = standing.add(Entry::new(local, BOOT, rank.0, rank.1, now));
        standing.usable(local, now);
        standing.settled(local);
        changes.extend(standing.review(now));
        changes
    }

    #[test]
    fn two_nodes_that_dial_at_once_choose_the_same_session_in_either_order() {
        let now = Instant::now();
        let mut one = Standing::default();
        up(&mut one, 1, (1, true), now);
        up(&mut one, 2, (1, false), now);
        one.review(now + SWITCH);
        let mut other = Standing::default();
        up(&mut other, 2, (1, false), now);
        up(&mut other, 1, (1, true), now);
        other.review(now + SWITCH);
        assert_eq!(one.preferred().map(|e| e.local), Some(1));
        assert_eq!(other.preferred().map(|e| e.local), Some(1));
    }

    #[test]
    fn a_newer_generation_takes_over_after_the_switch_time_and_the_old_ends_later() {
        let now = Instant::now();
        let mut standing = Standing::default();
        assert_eq!(up(&mut standing, 1, (1, true), now), [Change::Prefer(1)]);
        assert_eq!(up(&mut standing, 2, (2, false), now), []);
        assert_eq!(standing.next(now), Some(now + SWITCH));
        let switched = now + SWITCH;
        assert_eq!(standing.review(switched), [Change::Prefer(2)]);
        assert_eq!(standing.review(switched + RETIRE - Duration::from_millis(1)), []);
        assert_eq!(standing.review(switched + RETIRE), [Change::End(1)]);
        assert_eq!(standing.preferred().map(|e| e.local), Some(2));
    }

    #[test]
    fn the_old_session_stays_until_the_peer_knows_it_may_leave_it() {
        let now = Instant::now();
        let mut standing = Standing::default();
        up(&mut standing, 1, (1, true), now);
        standing.add(Entry::new(2, BOOT, 2, true, now));
        standing.usable(2, now);
        let late = now + SWITCH + 10 * RETIRE;
        assert_eq!(standing.review(late), [Change::Prefer(2)]);
        assert_eq!(standing.review(late + 10 * RETIRE), []);
        standing.settled(2);
        assert_eq!(standing.review(late + 10 * RETIRE), []);
        assert_eq!(standing.review(late + 11 * RETIRE), [Change::End(1)]);
    }

    #[test]
    fn a_restarted_peer_ends_every_session_of_its_former_process_at_once() {
        let now = Instant::now();
        let mut standing = Standing::default();
        up(&mut standing, 1, (40, true), now);
        up(&mut standing, 2, (41, true), now);
        let changes = standing.add(Entry::new(3, BOOT + 1, 1, false, now));
        assert_eq!(changes, [Change::End(1), Change::End(2)]);
        standing.usable(3, now);
        assert_eq!(standing.review(now), [Change::Prefer(3)]);
    }

    #[test]
    fn when_the_preferred_session_ends_the_next_serves_without_waiting() {
        let now = Instant::now();
        let mut standing = Standing::default();
        up(&mut standing, 1, (1, true), now);
        up(&mut standing, 2, (2, true), now);
        standing.remove(1);
        assert_eq!(standing.review(now), [Change::Prefer(2)]);
    }

    #[test]
    fn at_most_four_live_and_never_the_preferred_one_is_given_up() {
        let now = Instant::now();
        let mut standing = Standing::default();
        up(&mut standing, 9, (9, true), now);
        for local in 1..=3 {
            assert_eq!(up(&mut standing, local, (local, true), now), []);
        }
        assert_eq!(up(&mut standing, 4, (4, true), now), [Change::End(1)]);
        assert_eq!(standing.entries().len(), MAX_LIVE);
        assert_eq!(standing.preferred().map(|e| e.local), Some(9));
    }

    #[test]
    fn an_unconfirmed_session_gets_a_second_before_the_next_dial() {
        let now = Instant::now();
        let mut standing = Standing::default();
        assert!(standing.wants_session(now));
        standing.add(Entry::new(1, BOOT, 1, true, now));
        assert!(!standing.wants_session(now));
        assert!(standing.wants_session(now + CONFIRM));
        standing.usable(1, now + CONFIRM);
        standing.review(now + CONFIRM);
        assert!(!standing.wants_session(now + CONFIRM));
    }
}

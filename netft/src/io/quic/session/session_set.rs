//! Which of a peer's sessions to send on, and when the others end. Pure: no clock, no socket.
//!
//! Both ends see the same sessions and rank them by what both know of them: the boot of the peer,
//! the generation the dialer announced, and whether the node with the smaller key dialled. So both
//! come to the same choice, whatever the order in which messages arrived. Called by the peer's
//! task; at most [`MAX_SESSIONS`] entries, so every call is short.

use std::time::{Duration, Instant};

/// The most sessions a peer has at once; beyond it the lowest ranked ends at once.
pub(in crate::io) const MAX_SESSIONS: usize = 4;
/// How long a superseded session still receives: longer than any packet stays in a network.
pub(in crate::io) const RETIRE_DELAY: Duration = Duration::from_secs(10);
/// How long a new session waits before data moves to it while an older one serves: both packet
/// paths must have it in their tables by then.
pub(in crate::io) const SWITCH_DELAY: Duration = Duration::from_millis(200);
/// How long the dialer of a new session waits for the last word before it dials again.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// One session, as far as choosing goes.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct SessionEntry {
    /// This node's number of the session.
    pub(in crate::io) local_session: u32,
    /// The boot id of the peer's process.
    pub(in crate::io) boot_id: u64,
    /// Announced by the dialer: one more than any it knew.
    pub(in crate::io) generation: u32,
    /// Whether the node with the smaller key dialled.
    pub(in crate::io) dialled_by_smaller_key: bool,
    /// When both ends had accepted each other.
    pub(in crate::io) established_at: Instant,
    /// From when on data may go: the peer is known to receive. `None` until then.
    usable_at: Option<Instant>,
    /// The peer knows that this node receives, so it sends here too.
    is_confirmed: bool,
    superseded_at: Option<Instant>,
}

impl SessionEntry {
    pub(in crate::io) fn new(
        local_session: u32,
        boot_id: u64,
        generation: u32,
        dialled_by_smaller_key: bool,
        established_at: Instant,
    ) -> Self {
        Self {
            local_session,
            boot_id,
            generation,
            dialled_by_smaller_key,
            established_at,
            usable_at: None,
            is_confirmed: false,
            superseded_at: None,
        }
    }

    fn rank(&self) -> (u32, bool) {
        (self.generation, self.dialled_by_smaller_key)
    }
}

/// What follows from a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum SessionChange {
    /// Data goes on this session from here on.
    Prefer(u32),
    /// This session is over.
    End(u32),
}

/// The sessions with one peer.
#[derive(Debug, Default)]
pub(in crate::io) struct SessionSet {
    /// Oldest first; all of one boot of the peer.
    entries: Vec<SessionEntry>,
    preferred: Option<u32>,
}

impl SessionSet {
    /// Adds a session both ends have accepted. A new boot of the peer ends every session with the
    /// former one: the process that knew their keys is gone.
    pub(in crate::io) fn add_session(&mut self, entry: SessionEntry) -> Vec<SessionChange> {
        let mut changes = Vec::new();
        let boot_id = entry.boot_id;
        self.entries.retain(|old| {
            let keep = old.boot_id == boot_id;
            if !keep {
                changes.push(SessionChange::End(old.local_session));
            }
            keep
        });
        self.clear_stale_preferred();
        self.entries.push(entry);
        while self.entries.len() > MAX_SESSIONS {
            let spare = self.entries[..MAX_SESSIONS]
                .iter()
                .enumerate()
                .filter(|(_, old)| Some(old.local_session) != self.preferred)
                .min_by_key(|(_, old)| old.rank());
            let Some((place, _)) = spare else { break };
            changes.push(SessionChange::End(self.entries.remove(place).local_session));
        }
        changes
    }

    /// The peer is known to receive on `local`.
    pub(in crate::io) fn mark_usable(&mut self, local: u32, now: Instant) {
        let wait = if self.preferred.is_some() { SWITCH_DELAY } else { Duration::ZERO };
        if let Some(entry) = self.get_mut(local) {
            entry.usable_at.get_or_insert(now + wait);
        }
    }

    /// The peer knows that this node receives on `local`.
    pub(in crate::io) fn mark_confirmed(&mut self, local: u32) {
        if let Some(entry) = self.get_mut(local) {
            entry.is_confirmed = true;
        }
    }

    /// Removes a session the peer has ended.
    pub(in crate::io) fn remove_session(&mut self, local: u32) {
        self.entries.retain(|entry| entry.local_session != local);
        self.clear_stale_preferred();
    }

    /// What is due at `now`.
    pub(in crate::io) fn poll_changes(&mut self, now: Instant) -> Vec<SessionChange> {
        let mut changes = Vec::new();
        let ready = |entry: &&SessionEntry| entry.usable_at.is_some_and(|at| at <= now);
        let best =
            self.entries.iter().filter(ready).max_by_key(|entry| entry.rank()).or_else(|| {
                // Nothing serves, so there is nothing to wait for.
                let usable = self.entries.iter().filter(|entry| entry.usable_at.is_some());
                usable.max_by_key(|entry| entry.rank())
            });
        let Some(best) = best.copied() else { return changes };
        if self.preferred != Some(best.local_session) {
            self.preferred = Some(best.local_session);
            changes.push(SessionChange::Prefer(best.local_session));
        }
        self.entries.retain_mut(|entry| {
            // Until the peer knows it may send on the better session, it sends on this one.
            if !best.is_confirmed || entry.rank() >= best.rank() {
                entry.superseded_at = None;
                return true;
            }
            let since = *entry.superseded_at.get_or_insert(now);
            let keep = now < since + RETIRE_DELAY;
            if !keep {
                changes.push(SessionChange::End(entry.local_session));
            }
            keep
        });
        changes
    }

    /// When [`poll_changes`](Self::poll_changes) has something to do next.
    pub(in crate::io) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let switch = self.entries.iter().filter_map(|e| e.usable_at).filter(|at| *at > now);
        let retire =
            self.entries.iter().filter_map(|e| e.superseded_at.map(|at| at + RETIRE_DELAY));
        let confirm =
            self.entries.iter().map(|e| e.established_at + CONFIRM_TIMEOUT).filter(|at| *at > now);
        switch.chain(retire).chain(confirm).min()
    }

    /// The session data goes on.
    pub(in crate::io) fn preferred(&self) -> Option<&SessionEntry> {
        self.entries.iter().find(|entry| Some(entry.local_session) == self.preferred)
    }

    /// Every session, oldest first.
    pub(in crate::io) fn entries(&self) -> &[SessionEntry] {
        &self.entries
    }

    /// Whether there is nothing to send on, and nothing about to be.
    pub(in crate::io) fn wants_session(&self, now: Instant) -> bool {
        self.preferred().is_none()
            && self.entries.iter().all(|entry| entry.established_at + CONFIRM_TIMEOUT <= now)
    }

    fn get_mut(&mut self, local: u32) -> Option<&mut SessionEntry> {
        self.entries.iter_mut().find(|entry| entry.local_session == local)
    }

    fn clear_stale_preferred(&mut self) {
        if self.preferred().is_none() {
            self.preferred = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: u64 = 7;

    fn up(
        standing: &mut SessionSet,
        local: u32,
        rank: (u32, bool),
        now: Instant,
    ) -> Vec<SessionChange> {
        let mut changes = standing.add_session(SessionEntry::new(local, BOOT, rank.0, rank.1, now));
        standing.mark_usable(local, now);
        standing.mark_confirmed(local);
        changes.extend(standing.poll_changes(now));
        changes
    }

    #[test]
    fn two_nodes_that_dial_at_once_choose_the_same_session_in_either_order() {
        let now = Instant::now();
        let mut one = SessionSet::default();
        up(&mut one, 1, (1, true), now);
        up(&mut one, 2, (1, false), now);
        one.poll_changes(now + SWITCH_DELAY);
        let mut other = SessionSet::default();
        up(&mut other, 2, (1, false), now);
        up(&mut other, 1, (1, true), now);
        other.poll_changes(now + SWITCH_DELAY);
        assert_eq!(one.preferred().map(|e| e.local_session), Some(1));
        assert_eq!(other.preferred().map(|e| e.local_session), Some(1));
    }

    #[test]
    fn a_newer_generation_takes_over_after_the_switch_time_and_the_old_ends_later() {
        let now = Instant::now();
        let mut standing = SessionSet::default();
        assert_eq!(up(&mut standing, 1, (1, true), now), [SessionChange::Prefer(1)]);
        assert_eq!(up(&mut standing, 2, (2, false), now), []);
        assert_eq!(standing.next_wake(now), Some(now + SWITCH_DELAY));
        let switched = now + SWITCH_DELAY;
        assert_eq!(standing.poll_changes(switched), [SessionChange::Prefer(2)]);
        assert_eq!(standing.poll_changes(switched + RETIRE_DELAY - Duration::from_millis(1)), []);
        assert_eq!(standing.poll_changes(switched + RETIRE_DELAY), [SessionChange::End(1)]);
        assert_eq!(standing.preferred().map(|e| e.local_session), Some(2));
    }

    #[test]
    fn the_old_session_stays_until_the_peer_knows_it_may_leave_it() {
        let now = Instant::now();
        let mut standing = SessionSet::default();
        up(&mut standing, 1, (1, true), now);
        standing.add_session(SessionEntry::new(2, BOOT, 2, true, now));
        standing.mark_usable(2, now);
        let late = now + SWITCH_DELAY + 10 * RETIRE_DELAY;
        assert_eq!(standing.poll_changes(late), [SessionChange::Prefer(2)]);
        assert_eq!(standing.poll_changes(late + 10 * RETIRE_DELAY), []);
        standing.mark_confirmed(2);
        assert_eq!(standing.poll_changes(late + 10 * RETIRE_DELAY), []);
        assert_eq!(standing.poll_changes(late + 11 * RETIRE_DELAY), [SessionChange::End(1)]);
    }

    #[test]
    fn a_restarted_peer_ends_every_session_of_its_former_process_at_once() {
        let now = Instant::now();
        let mut standing = SessionSet::default();
        up(&mut standing, 1, (40, true), now);
        up(&mut standing, 2, (41, true), now);
        let changes = standing.add_session(SessionEntry::new(3, BOOT + 1, 1, false, now));
        assert_eq!(changes, [SessionChange::End(1), SessionChange::End(2)]);
        standing.mark_usable(3, now);
        assert_eq!(standing.poll_changes(now), [SessionChange::Prefer(3)]);
    }

    #[test]
    fn when_the_preferred_session_ends_the_next_serves_without_waiting() {
        let now = Instant::now();
        let mut standing = SessionSet::default();
        up(&mut standing, 1, (1, true), now);
        up(&mut standing, 2, (2, true), now);
        standing.remove_session(1);
        assert_eq!(standing.poll_changes(now), [SessionChange::Prefer(2)]);
    }

    #[test]
    fn at_most_four_live_and_never_the_preferred_one_is_given_up() {
        let now = Instant::now();
        let mut standing = SessionSet::default();
        up(&mut standing, 9, (9, true), now);
        for local in 1..=3 {
            assert_eq!(up(&mut standing, local, (local, true), now), []);
        }
        assert_eq!(up(&mut standing, 4, (4, true), now), [SessionChange::End(1)]);
        assert_eq!(standing.entries().len(), MAX_SESSIONS);
        assert_eq!(standing.preferred().map(|e| e.local_session), Some(9));
    }

    #[test]
    fn an_unconfirmed_session_gets_a_second_before_the_next_dial() {
        let now = Instant::now();
        let mut standing = SessionSet::default();
        assert!(standing.wants_session(now));
        standing.add_session(SessionEntry::new(1, BOOT, 1, true, now));
        assert!(!standing.wants_session(now));
        assert!(standing.wants_session(now + CONFIRM_TIMEOUT));
        standing.mark_usable(1, now + CONFIRM_TIMEOUT);
        standing.poll_changes(now + CONFIRM_TIMEOUT);
        assert!(!standing.wants_session(now + CONFIRM_TIMEOUT));
    }
}

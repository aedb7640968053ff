//! Selection among a peer's sessions: the one to send on, and the end of the others. Pure.
//!
//! Both ends rank the sessions by values that both know: the boot id of the peer, the generation
//! that the dialer announced, and whether the node with the smaller key dialled. So both select the
//! same session, whatever the order of the messages. Called by the peer's task; at most
//! [`MAX_SESSIONS`] entries.

use std::time::{Duration, Instant};

/// Maximum number of sessions of a peer; beyond it the lowest ranked ends at once.
pub(in crate::io) const MAX_SESSIONS: usize = 4;
/// Time that a superseded session still receives: longer than a packet stays in a network.
pub(in crate::io) const RETIRE_DELAY: Duration = Duration::from_secs(10);
/// Delay before data moves from one session to the next: both packet paths must have installed it
/// by then.
pub(in crate::io) const SWITCH_DELAY: Duration = Duration::from_millis(200);
/// Timeout of a session that is established but not usable, before the next dial.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// State of one session.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct SessionEntry {
    /// This node's id of the session.
    pub(in crate::io) local_session: u32,
    /// The boot id of the peer's process.
    pub(in crate::io) boot_id: u64,
    /// Announced by the dialer: one more than any it knew.
    pub(in crate::io) generation: u32,
    /// True if the node with the smaller key dialled.
    pub(in crate::io) dialled_by_smaller_key: bool,
    /// When both ends had accepted each other.
    pub(in crate::io) established_at: Instant,
    /// Time from which data may be sent; `None` until the peer is known to receive.
    usable_at: Option<Instant>,
    /// The peer knows that this node receives, so it sends on the session too.
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

/// Consequence of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum SessionChange {
    /// Data moves to this session.
    Prefer(u32),
    /// This session ends.
    End(u32),
}

/// The sessions with one peer.
#[derive(Debug, Default)]
pub(in crate::io) struct SessionSet {
    /// Oldest first; all of one boot id of the peer.
    entries: Vec<SessionEntry>,
    preferred: Option<u32>,
}

impl SessionSet {
    /// Adds an established session. A new boot id of the peer ends all sessions of the former one:
    /// the process that held their keys is gone.
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

    /// Adds a session that a predecessor process used; the first one is in use at once.
    pub(in crate::io) fn resume_session(&mut self, entry: SessionEntry, now: Instant) {
        let local = entry.local_session;
        self.entries.push(entry);
        self.mark_usable(local, now);
        self.mark_confirmed(local);
        self.preferred.get_or_insert(local);
    }

    /// Records that the peer receives on `local`.
    pub(in crate::io) fn mark_usable(&mut self, local: u32, now: Instant) {
        let wait = if self.preferred.is_some() { SWITCH_DELAY } else { Duration::ZERO };
        if let Some(entry) = self.get_mut(local) {
            entry.usable_at.get_or_insert(now + wait);
        }
    }

    /// Records that the peer knows that this node receives on `local`.
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

    /// Changes due at `now`.
    pub(in crate::io) fn poll_changes(&mut self, now: Instant) -> Vec<SessionChange> {
        let mut changes = Vec::new();
        let ready = |entry: &&SessionEntry| entry.usable_at.is_some_and(|at| at <= now);
        let best =
            self.entries.iter().filter(ready).max_by_key(|entry| entry.rank()).or_else(|| {
                // No session is in use, so there is no reason to delay.
                let usable = self.entries.iter().filter(|entry| entry.usable_at.is_some());
                usable.max_by_key(|entry| entry.rank())
            });
        let Some(best) = best.copied() else { return changes };
        if self.preferred != Some(best.local_session) {
            self.preferred = Some(best.local_session);
            changes.push(SessionChange::Prefer(best.local_session));
        }
        self.entries.retain_mut(|entry| {
            // The peer sends on this session until it knows that the better one is usable.
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

    /// Time of the next due change of [`poll_changes`](Self::poll_changes).
    pub(in crate::io) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let switch = self.entries.iter().filter_map(|e| e.usable_at).filter(|at| *at > now);
        let retire =
            self.entries.iter().filter_map(|e| e.superseded_at.map(|at| at + RETIRE_DELAY));
        let confirm =
            self.entries.iter().map(|e| e.established_at + CONFIRM_TIMEOUT).filter(|at| *at > now);
        switch.chain(retire).chain(confirm).min()
    }

    /// The session that data is sent on.
    pub(in crate::io) fn preferred(&self) -> Option<&SessionEntry> {
        self.entries.iter().find(|entry| Some(entry.local_session) == self.preferred)
    }

    /// Every session, oldest first.
    pub(in crate::io) fn entries(&self) -> &[SessionEntry] {
        &self.entries
    }

    /// Returns whether a dial is needed: no session is usable or about to be.
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
        sessions: &mut SessionSet,
        local: u32,
        rank: (u32, bool),
        now: Instant,
    ) -> Vec<SessionChange> {
        let mut changes = sessions.add_session(SessionEntry::new(local, BOOT, rank.0, rank.1, now));
        sessions.mark_usable(local, now);
        sessions.mark_confirmed(local);
        changes.extend(sessions.poll_changes(now));
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
        let mut sessions = SessionSet::default();
        assert_eq!(up(&mut sessions, 1, (1, true), now), [SessionChange::Prefer(1)]);
        assert_eq!(up(&mut sessions, 2, (2, false), now), []);
        assert_eq!(sessions.next_wake(now), Some(now + SWITCH_DELAY));
        let switched = now + SWITCH_DELAY;
        assert_eq!(sessions.poll_changes(switched), [SessionChange::Prefer(2)]);
        assert_eq!(sessions.poll_changes(switched + RETIRE_DELAY - Duration::from_millis(1)), []);
        assert_eq!(sessions.poll_changes(switched + RETIRE_DELAY), [SessionChange::End(1)]);
        assert_eq!(sessions.preferred().map(|e| e.local_session), Some(2));
    }

    #[test]
    fn the_old_session_stays_until_the_peer_knows_it_may_leave_it() {
        let now = Instant::now();
        let mut sessions = SessionSet::default();
        up(&mut sessions, 1, (1, true), now);
        sessions.add_session(SessionEntry::new(2, BOOT, 2, true, now));
        sessions.mark_usable(2, now);
        let late = now + SWITCH_DELAY + 10 * RETIRE_DELAY;
        assert_eq!(sessions.poll_changes(late), [SessionChange::Prefer(2)]);
        assert_eq!(sessions.poll_changes(late + 10 * RETIRE_DELAY), []);
        sessions.mark_confirmed(2);
        assert_eq!(sessions.poll_changes(late + 10 * RETIRE_DELAY), []);
        assert_eq!(sessions.poll_changes(late + 11 * RETIRE_DELAY), [SessionChange::End(1)]);
    }

    #[test]
    fn a_restarted_peer_ends_every_session_of_its_former_process_at_once() {
        let now = Instant::now();
        let mut sessions = SessionSet::default();
        up(&mut sessions, 1, (40, true), now);
        up(&mut sessions, 2, (41, true), now);
        let changes = sessions.add_session(SessionEntry::new(3, BOOT + 1, 1, false, now));
        assert_eq!(changes, [SessionChange::End(1), SessionChange::End(2)]);
        sessions.mark_usable(3, now);
        assert_eq!(sessions.poll_changes(now), [SessionChange::Prefer(3)]);
    }

    #[test]
    fn when_the_preferred_session_ends_the_next_serves_without_waiting() {
        let now = Instant::now();
        let mut sessions = SessionSet::default();
        up(&mut sessions, 1, (1, true), now);
        up(&mut sessions, 2, (2, true), now);
        sessions.remove_session(1);
        assert_eq!(sessions.poll_changes(now), [SessionChange::Prefer(2)]);
    }

    #[test]
    fn at_most_four_live_and_never_the_preferred_one_is_given_up() {
        let now = Instant::now();
        let mut sessions = SessionSet::default();
        up(&mut sessions, 9, (9, true), now);
        for local in 1..=3 {
            assert_eq!(up(&mut sessions, local, (local, true), now), []);
        }
        assert_eq!(up(&mut sessions, 4, (4, true), now), [SessionChange::End(1)]);
        assert_eq!(sessions.entries().len(), MAX_SESSIONS);
        assert_eq!(sessions.preferred().map(|e| e.local_session), Some(9));
    }

    #[test]
    fn an_unconfirmed_session_gets_a_second_before_the_next_dial() {
        let now = Instant::now();
        let mut sessions = SessionSet::default();
        assert!(sessions.wants_session(now));
        sessions.add_session(SessionEntry::new(1, BOOT, 1, true, now));
        assert!(!sessions.wants_session(now));
        assert!(sessions.wants_session(now + CONFIRM_TIMEOUT));
        sessions.mark_usable(1, now + CONFIRM_TIMEOUT);
        sessions.poll_changes(now + CONFIRM_TIMEOUT);
        assert!(!sessions.wants_session(now + CONFIRM_TIMEOUT));
    }
}

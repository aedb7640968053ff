//! The session with a peer, as the engine knows it: the peer's run and what was reported of it.

use std::time::Duration;

use crate::time::Time;

/// Session with a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSession {
    /// The peer's boot id while a session exists.
    boot_id: Option<u64>,
    /// The boot id of the last session.
    last_boot_id: Option<u64>,
    started_at: Time,
    /// The events ready and session-established were emitted for this session.
    established_reported: bool,
}

/// Relation of a new session to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionStart {
    /// The same run of the peer, with fresh keys; or its first session.
    Rekeyed,
    /// The peer restarted.
    Restarted,
}

impl PeerSession {
    pub(crate) fn new(now: Time) -> Self {
        Self { boot_id: None, last_boot_id: None, started_at: now, established_reported: false }
    }

    /// Boot id, start, and whether it was reported, for a successor process; `None` without one.
    pub(crate) fn to_parts(self) -> Option<(u64, Time, bool)> {
        Some((self.boot_id?, self.started_at, self.established_reported))
    }

    /// The session that a predecessor process left.
    pub(crate) fn from_parts(boot_id: u64, started_at: Time, established_reported: bool) -> Self {
        let boot_id = Some(boot_id);
        Self { boot_id, last_boot_id: boot_id, started_at, established_reported }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.boot_id.is_some()
    }

    pub(crate) fn boot_id(&self) -> Option<u64> {
        self.boot_id
    }

    /// Begins a session; `None` if it is the one that exists.
    pub(crate) fn begin(&mut self, now: Time, boot_id: u64) -> Option<SessionStart> {
        if self.boot_id == Some(boot_id) {
            return None;
        }
        let last = self.last_boot_id.replace(boot_id);
        self.boot_id = Some(boot_id);
        self.started_at = now;
        self.established_reported = false;
        let restarted = last.is_some_and(|last| last != boot_id);
        Some(if restarted { SessionStart::Restarted } else { SessionStart::Rekeyed })
    }

    /// Ends the session. Returns whether there was one.
    pub(crate) fn end(&mut self) -> bool {
        self.boot_id.take().is_some()
    }

    /// The boot id and the time since the keys existed, once per session: to be called when a
    /// route came up.
    pub(crate) fn take_established(&mut self, now: Time) -> Option<(u64, Duration)> {
        let boot_id = self.boot_id.filter(|_| !self.established_reported)?;
        self.established_reported = true;
        Some((boot_id, now.since(self.started_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_established_once_and_a_restart_differs_from_new_keys() {
        let at = Time::from_millis;
        let mut session = PeerSession::new(at(1));
        assert_eq!(session.take_established(at(2)), None);
        assert_eq!(session.begin(at(3), 7), Some(SessionStart::Rekeyed));
        assert_eq!(session.begin(at(4), 7), None, "the same");
        assert_eq!(session.take_established(at(5)), Some((7, Duration::from_millis(2))));
        assert_eq!(session.take_established(at(6)), None);
        assert!(session.end() && !session.end());
        assert_eq!(session.begin(at(7), 7), Some(SessionStart::Rekeyed));
        assert_eq!(session.begin(at(8), 8), Some(SessionStart::Restarted));
        assert_eq!(session.take_established(at(8)), Some((8, Duration::ZERO)));
    }
}

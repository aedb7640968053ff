//! Time of the next rekey: a fresh handshake that replaces the session in use. Pure: the caller
//! passes the time.

use std::time::{Duration, Instant};

use crate::io::quic::session::session_id::random_fraction;

/// Time to the next attempt after a rekey that led to no usable session.
const REKEY_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// When the session with a peer is to be replaced by a fresh one.
#[derive(Debug)]
pub(in crate::io) struct RekeySchedule {
    /// The node with the smaller key rekeys; the other one only if that did not happen.
    has_smaller_key: bool,
    due_at: Option<Instant>,
    is_requested: bool,
}

impl RekeySchedule {
    pub(in crate::io) fn new(has_smaller_key: bool) -> Self {
        Self { has_smaller_key, due_at: None, is_requested: false }
    }

    /// One of the two keys was replaced.
    pub(in crate::io) fn set_smaller_key(&mut self, has_smaller_key: bool) {
        self.has_smaller_key = has_smaller_key;
    }

    /// Requests a fresh session now.
    pub(in crate::io) fn request_rekey(&mut self) {
        self.is_requested = true;
    }

    /// Returns whether a fresh session is requested although one may be in use.
    pub(in crate::io) fn is_requested(&self) -> bool {
        self.is_requested
    }

    /// A session was established: the request is served.
    pub(in crate::io) fn on_established(&mut self, now: Instant) {
        self.is_requested = false;
        self.due_at.get_or_insert(now + REKEY_RETRY_INTERVAL);
    }

    /// Data moves to a session: the interval starts anew, with ±10 % of jitter.
    pub(in crate::io) fn on_preferred(&mut self, now: Instant, interval: Duration) {
        let jittered = interval.mul_f64(0.9 + 0.2 * random_fraction());
        let delay = if self.has_smaller_key { jittered } else { jittered.mul_f64(1.5) };
        self.due_at = Some(now + delay);
    }

    /// The configured interval changed.
    pub(in crate::io) fn on_interval_changed(&mut self, now: Instant, interval: Duration) {
        if self.due_at.is_some() {
            self.on_preferred(now, interval);
        }
    }

    /// Requests the rekey if it is due. Returns when to call this again.
    pub(in crate::io) fn poll(&mut self, now: Instant) -> Option<Instant> {
        let due_at = self.due_at?;
        if due_at <= now {
            self.due_at = Some(now + REKEY_RETRY_INTERVAL);
            self.is_requested = true;
        }
        Some(due_at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_rekey_is_requested_once_and_retried_until_a_session_is_established() {
        let (mut rekey, now) = (RekeySchedule::new(true), Instant::now());
        assert_eq!(rekey.poll(now), None);
        rekey.on_preferred(now, Duration::from_secs(100));
        assert!(rekey.poll(now + Duration::from_secs(89)).is_some() && !rekey.is_requested());
        let due = now + Duration::from_secs(111);
        assert_eq!(rekey.poll(due), Some(due));
        assert!(rekey.is_requested());
        rekey.on_established(due);
        assert!(!rekey.is_requested());
        assert_eq!(rekey.poll(due), Some(due + REKEY_RETRY_INTERVAL));
    }

    #[test]
    fn the_node_with_the_larger_key_rekeys_half_an_interval_later() {
        let (mut rekey, now) = (RekeySchedule::new(false), Instant::now());
        rekey.on_preferred(now, Duration::from_secs(100));
        let due = rekey.poll(now);
        assert!(due.is_some_and(|due| due >= now + Duration::from_secs(135)));
    }
}

//! Suspicion: data on a route stays unacknowledged while its heartbeats still arrive. Pure.
//!
//! A suspect route keeps its state. Its data is duplicated on another route until a reply to a
//! heartbeat sent after the suspicion began clears it, the state changes, or one detection time is
//! over.

use crate::time::Time;

/// Suspicion of one route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Suspicion {
    since: Option<Time>,
    expires_at: Option<Time>,
}

impl Suspicion {
    /// Begins; `expires_at` bounds it.
    pub(crate) fn begin(&mut self, now: Time, expires_at: Option<Time>) {
        (self.since, self.expires_at) = (Some(now), expires_at);
    }

    /// Ends the suspicion.
    pub(crate) fn clear(&mut self) {
        self.since = None;
    }

    /// Data on the route stays unacknowledged.
    pub(crate) fn is_suspect(&self) -> bool {
        self.since.is_some()
    }

    /// When it began.
    pub(crate) fn since(&self) -> Option<Time> {
        self.since
    }

    /// When it expires by itself.
    pub(crate) fn expiry(&self) -> Option<Time> {
        self.since.and(self.expires_at)
    }

    /// Clears it when a heartbeat sent at `sent`, after it began, was answered. A reply to a
    /// request from the future is a forgery or a clock error and proves nothing.
    pub(crate) fn on_reply(&mut self, now: Time, sent: Time) {
        if self.since.is_some_and(|since| sent >= since && sent <= now) {
            self.clear();
        }
    }

    /// Clears it once it has expired.
    pub(crate) fn expire(&mut self, now: Time) {
        if self.expiry().is_some_and(|expiry| expiry <= now) {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn a_reply_clears_it_only_when_its_request_was_sent_after_it_began() {
        let mut suspicion = Suspicion::default();
        suspicion.begin(at(100), Some(at(250)));
        suspicion.on_reply(at(110), at(99));
        suspicion.on_reply(at(110), at(111));
        assert_eq!((suspicion.since(), suspicion.expiry()), (Some(at(100)), Some(at(250))));
        suspicion.on_reply(at(110), at(100));
        assert_eq!((suspicion.is_suspect(), suspicion.expiry()), (false, None));
    }

    #[test]
    fn it_expires_by_itself_unless_it_is_unbounded() {
        let mut suspicion = Suspicion::default();
        suspicion.begin(at(100), Some(at(250)));
        suspicion.expire(at(249));
        assert!(suspicion.is_suspect());
        suspicion.expire(at(250));
        assert!(!suspicion.is_suspect());
        suspicion.begin(at(300), None);
        suspicion.expire(at(9000));
        assert!(suspicion.is_suspect());
    }
}

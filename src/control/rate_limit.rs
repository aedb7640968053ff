//! Rate limit per cause, for the log and the event history. Pure: the caller passes the time.
//!
//! Each cause has a token bucket of [`CAUSE_BURST`] and one token per [`CAUSE_INTERVAL`]. What is
//! left out is counted; the number is due [`NOTICE_INTERVAL`] after the first one. Bound:
//! [`MAX_CAUSES`] causes; beyond it, new causes share one bucket.

use std::{collections::HashMap, hash::Hash, time::Duration};

use netft::{Time, packet::token_bucket::TokenBucket};

/// Lines of one cause at once.
pub const CAUSE_BURST: u64 = 20;
/// Time between two lines of a cause after its burst.
pub const CAUSE_INTERVAL: Duration = Duration::from_millis(250);
/// Time from the first line left out to its notice.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(10);
/// Causes that are told apart.
pub const MAX_CAUSES: usize = 1024;

/// A bucket of one cause.
pub fn cause_bucket() -> TokenBucket {
    TokenBucket::with_interval(CAUSE_INTERVAL, CAUSE_BURST)
}

/// Buckets of the causes.
#[derive(Debug)]
pub struct CauseLimiter<K> {
    causes: HashMap<K, CauseState>,
    /// Shared by the causes beyond [`MAX_CAUSES`].
    others: CauseState,
}

#[derive(Debug)]
struct CauseState {
    bucket: TokenBucket,
    last_seen: Time,
    /// Number left out and the time of the first.
    left_out: Option<(u64, Time)>,
}

impl CauseState {
    fn new() -> Self {
        Self { bucket: cause_bucket(), last_seen: Time::ZERO, left_out: None }
    }

    fn admit(&mut self, now: Time) -> bool {
        self.last_seen = now;
        let passes = self.bucket.try_take(now, 1);
        if !passes {
            self.left_out.get_or_insert((0, now)).0 += 1;
        }
        passes
    }

    fn take_notice(&mut self, now: Time) -> Option<u64> {
        let due = self.left_out.filter(|(_, since)| now >= *since + NOTICE_INTERVAL)?;
        self.left_out = None;
        Some(due.0)
    }

    /// True when a new state would behave alike.
    fn is_idle(&self, now: Time) -> bool {
        let refill = CAUSE_INTERVAL * u32::try_from(CAUSE_BURST).unwrap_or(u32::MAX);
        self.left_out.is_none() && now >= self.last_seen + refill
    }
}

impl<K> Default for CauseLimiter<K> {
    fn default() -> Self {
        Self { causes: HashMap::new(), others: CauseState::new() }
    }
}

impl<K: Clone + Eq + Hash> CauseLimiter<K> {
    /// True if a line of this cause passes; otherwise it is counted.
    pub fn admit(&mut self, cause: &K, now: Time) -> bool {
        if let Some(state) = self.causes.get_mut(cause) {
            return state.admit(now);
        }
        if self.causes.len() >= MAX_CAUSES {
            self.causes.retain(|_, state| !state.is_idle(now));
        }
        if self.causes.len() >= MAX_CAUSES {
            return self.others.admit(now);
        }
        self.causes.entry(cause.clone()).or_insert_with(CauseState::new).admit(now)
    }

    /// Causes whose notice is due, with the number of lines left out; `None` names the causes
    /// beyond [`MAX_CAUSES`].
    pub fn take_notices(&mut self, now: Time) -> Vec<(Option<K>, u64)> {
        let causes = self.causes.iter_mut();
        let due = causes.filter_map(|(cause, state)| {
            state.take_notice(now).map(|count| (Some(cause.clone()), count))
        });
        let mut notices: Vec<_> = due.collect();
        notices.extend(self.others.take_notice(now).map(|count| (None, count)));
        notices
    }

    /// Time of the next notice; `None` while nothing is left out.
    pub fn next_notice(&self) -> Option<Time> {
        let states = self.causes.values().chain([&self.others]);
        states.filter_map(|state| state.left_out).map(|(_, since)| since + NOTICE_INTERVAL).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(at: u64) -> Time {
        Time::from_millis(at)
    }

    #[test]
    fn one_cause_passes_ten_lines_a_second_at_most_and_the_rest_is_counted() {
        let mut limiter = CauseLimiter::default();
        let mut passed = [0u64; 60];
        let mut noticed = 0;
        for ms in 0..60_000 {
            let now = millis(5000 + ms);
            // 3,500 a second.
            for _ in 0..3 + ms % 2 {
                passed[(ms / 1000) as usize] += u64::from(limiter.admit(&"flood", now));
            }
            noticed += limiter.take_notices(now).iter().map(|(_, count)| count).sum::<u64>();
        }
        for window in passed.windows(5) {
            let total: u64 = window.iter().sum();
            assert!(total <= 50, "{total} lines in 5 s");
        }
        noticed += limiter.take_notices(millis(80_000)).iter().map(|(_, n)| n).sum::<u64>();
        assert_eq!(passed.iter().sum::<u64>() + noticed, 210_000);
        assert_eq!(limiter.next_notice(), None);
    }

    #[test]
    fn a_flood_of_one_cause_takes_nothing_from_another() {
        let mut limiter = CauseLimiter::default();
        let flood = (0..10_000).filter(|_| limiter.admit(&1, millis(7))).count();
        assert_eq!(flood as u64, CAUSE_BURST);
        assert!(limiter.admit(&2, millis(7)));
        assert_eq!(limiter.next_notice(), Some(millis(7) + NOTICE_INTERVAL));
        let due = limiter.take_notices(millis(7) + NOTICE_INTERVAL);
        assert_eq!(due, [(Some(1), 10_000 - CAUSE_BURST)]);
    }

    #[test]
    fn causes_without_end_share_a_bucket_and_idle_ones_leave() {
        let mut limiter = CauseLimiter::default();
        let passed = (0..100_000).filter(|cause| limiter.admit(cause, millis(7))).count();
        assert_eq!(passed as u64, MAX_CAUSES as u64 + CAUSE_BURST);
        assert_eq!(limiter.causes.len(), MAX_CAUSES);
        assert!(limiter.admit(&100_001, millis(60_000)));
        assert_eq!(limiter.causes.len(), 1);
    }
}

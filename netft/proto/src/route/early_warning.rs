//! Rate of early warnings. Pure.
//!
//! A node that is not scheduled in time misses heartbeats of every route again and again, and each
//! silence would be a warning. A few pass at once, then one per interval; it says how many were
//! withheld.

use std::time::Duration;

use crate::time::Time;

/// Warnings that pass at once.
const WARNING_BURST: u8 = 4;
/// Interval of further ones.
const WARNING_INTERVAL: Duration = Duration::from_secs(30);

/// Limiter of a node's early warnings: a token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WarningLimiter {
    tokens: u8,
    refilled_at: Time,
    withheld: u32,
}

impl Default for WarningLimiter {
    fn default() -> Self {
        Self { tokens: WARNING_BURST, refilled_at: Time::ZERO, withheld: 0 }
    }
}

impl WarningLimiter {
    /// Returns the number of warnings withheld before this one; `None` withholds it too.
    pub(crate) fn admit(&mut self, now: Time) -> Option<u32> {
        let intervals = now.since(self.refilled_at).as_nanos() / WARNING_INTERVAL.as_nanos();
        if self.tokens == WARNING_BURST || intervals >= u128::from(WARNING_BURST) {
            (self.tokens, self.refilled_at) = (WARNING_BURST, now);
        } else {
            let due = intervals as u8;
            self.tokens = (self.tokens + due).min(WARNING_BURST);
            self.refilled_at = self.refilled_at + WARNING_INTERVAL * u32::from(due);
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Some(std::mem::take(&mut self.withheld))
            }
            None => {
                self.withheld = self.withheld.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 61 warnings in 120 idle seconds of a busy host.
    #[test]
    fn t_05_a_busy_host_warns_a_few_times_and_says_how_often_it_did_not() {
        let mut limiter = WarningLimiter::default();
        let start = Time::from_millis(77_000);
        let warnings = (0..61).map(|number| start + Duration::from_secs(2) * number);
        let passed: Vec<_> = warnings.filter_map(|at| limiter.admit(at)).collect();
        assert_eq!(passed[..4], [0; 4]);
        assert!(passed.len() <= 8, "{passed:?}");
        assert!(passed[4..].iter().all(|withheld| *withheld > 5), "{passed:?}");
        // A quiet time later a failure is warned of at once.
        let later = start + Duration::from_secs(600);
        assert!((0..4).all(|_| limiter.admit(later).is_some()));
        assert_eq!(limiter.admit(later), None);
    }
}

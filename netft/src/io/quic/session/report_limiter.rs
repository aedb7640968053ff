//! Rate limit of repeated log lines and reports. Pure: the caller passes the time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Lets one report of a kind pass per interval. Kinds are string literals, so the map is bounded.
#[derive(Debug, Default)]
pub(in crate::io) struct ReportLimiter {
    last_reported: BTreeMap<(&'static str, &'static str), Instant>,
}

impl ReportLimiter {
    /// Returns whether a report of this `kind` may pass at `now`: the first one, or the last one
    /// that passed in the same `scope` is at least `interval` old.
    pub(in crate::io) fn try_report(
        &mut self,
        scope: &'static str,
        kind: &'static str,
        interval: Duration,
        now: Instant,
    ) -> bool {
        let last = self.last_reported.get(&(scope, kind));
        let is_due = last.is_none_or(|last| now >= *last + interval);
        if is_due {
            self.last_reported.insert((scope, kind), now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_report_of_a_kind_passes_per_interval() {
        let (mut limiter, now) = (ReportLimiter::default(), Instant::now());
        let minute = Duration::from_secs(60);
        assert!(limiter.try_report("refused", "version", minute, now));
        assert!(!limiter.try_report("refused", "version", minute, now + minute / 2));
        assert!(limiter.try_report("refused", "duplicate", minute, now));
        assert!(limiter.try_report("accepted", "version", minute, now));
        assert!(limiter.try_report("refused", "version", minute, now + minute));
    }
}

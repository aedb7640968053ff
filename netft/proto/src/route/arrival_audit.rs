//! Loss on a route that fell silent for longer than a probe timeout while its heartbeats passed.
//! Pure.
//!
//! Frames outstanding there are sent again on another route, and new data on both for a while, so
//! no acknowledgement shows what became of a single frame (Karn). The counts of the route do: a
//! frame that was sent there and is acknowledged, but missing among those that arrived there, was
//! lost there. The counts are compared from the moment of the retransmission until copies have
//! ceased for a while, so that neither frames on their way nor those that a network duplicates at
//! other times count. A stall of the peer or late frames leave nothing missing.
//!
//! Such a loss is one event, however many frames it took. Events that follow each other are lasting
//! loss ([`DataQuality`](crate::route::data_loss::DataQuality)).

use std::time::Duration;

use crate::{
    loss_detection::{DeliveryCounts, LossShare},
    time::Time,
};

/// Interval of the counts during an audit.
const COUNT_INTERVAL: Duration = Duration::from_millis(5);
/// From the last copy until what is on its way has arrived and is acknowledged, beside two round
/// trips.
pub(crate) const SETTLE_TIME: Duration = Duration::from_millis(15);
/// Shortest audit, beside two round trips: frames may be late by reordering.
const MIN_AUDIT_TIME: Duration = Duration::from_millis(35);
/// An audit that is not over by then, as copies do not cease, shows nothing.
const MAX_AUDIT_TIME: Duration = Duration::from_secs(2);
/// Frames that the share of a loss is of at least: few events that happen to be close to each other
/// prove no high share.
const MIN_SHARE_FRAMES: u64 = 1000;
/// Time between two events that follow each other.
const MAX_EVENT_GAP: Duration = Duration::from_secs(2);

/// Lasting loss of a route that fell silent again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SilentLoss {
    /// Share of the frames since the first event, or of a thousand.
    pub(crate) share: LossShare,
    /// Events that followed each other.
    pub(crate) events: u32,
}

/// The audit of one route, if one is under way, and the results of those before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ArrivalAudit {
    episode: Option<Episode>,
    series: Option<EventSeries>,
}

/// An audit under way.
#[derive(Clone, Copy, Debug)]
struct Episode {
    since: Time,
    /// Counts at the retransmission.
    before: DeliveryCounts,
    /// Since when copies have ceased, and the fewest frames missing since.
    quiet: Option<(Time, i64)>,
    next_count: Time,
}

/// Events that followed each other.
#[derive(Clone, Copy, Debug)]
struct EventSeries {
    /// Acknowledged before the first.
    acknowledged: u64,
    lost: u64,
    events: u32,
    last: Time,
}

impl ArrivalAudit {
    /// Data of the route was retransmitted on another one. `counts`: at that moment.
    pub(crate) fn on_silence(&mut self, now: Time, counts: DeliveryCounts) {
        // A peer may not count the route.
        if self.episode.is_none() && counts.arrived > 0 {
            let next_count = now + COUNT_INTERVAL;
            self.episode = Some(Episode { since: now, before: counts, quiet: None, next_count });
        }
    }

    /// When [`on_counts`](Self::on_counts) is due.
    pub(crate) fn next_count(&self) -> Option<Time> {
        self.episode.map(|episode| episode.next_count)
    }

    /// Postpones counts that did not come.
    pub(crate) fn poll(&mut self, now: Time) {
        if let Some(episode) = self.episode.as_mut().filter(|episode| episode.next_count <= now) {
            episode.next_count = now + COUNT_INTERVAL;
            if now.since(episode.since) > MAX_AUDIT_TIME {
                self.episode = None;
            }
        }
    }

    /// Applies the newest counts. `is_copied`: data leaves on two routes; `rtt`: the longest
    /// round-trip time. Returns the loss since the first event, if this was another one.
    pub(crate) fn on_counts(
        &mut self,
        now: Time,
        counts: DeliveryCounts,
        is_copied: bool,
        rtt: Duration,
    ) -> Option<SilentLoss> {
        let episode = self.episode.as_mut()?;
        let before = episode.before;
        // A new session counts from 0.
        if counts.acknowledged < before.acknowledged || counts.arrived < before.arrived {
            *self = Self::default();
            return None;
        }
        if is_copied {
            episode.quiet = None;
            return None;
        }
        let missing = counts.missing();
        let (since, fewest) = episode.quiet.map_or((now, missing), |(at, n)| (at, n.min(missing)));
        episode.quiet = Some((since, fewest));
        let is_over = now.since(since) >= SETTLE_TIME + rtt * 2
            && now.since(episode.since) >= MIN_AUDIT_TIME + rtt * 2;
        if !is_over {
            return None;
        }
        self.episode = None;
        let lost =
            u64::try_from(fewest.saturating_sub(before.missing())).ok().filter(|lost| *lost > 0)?;
        Some(self.count_event(now, (before, counts), lost))
    }

    fn count_event(
        &mut self,
        now: Time,
        (before, counts): (DeliveryCounts, DeliveryCounts),
        lost: u64,
    ) -> SilentLoss {
        let follows = |series: &EventSeries| {
            now.since(series.last) <= MAX_EVENT_GAP && series.acknowledged <= counts.acknowledged
        };
        let acknowledged = before.acknowledged;
        let first = EventSeries { acknowledged, lost: 0, events: 0, last: now };
        let mut series = self.series.filter(follows).unwrap_or(first);
        series.lost += lost;
        series.events += 1;
        series.last = now;
        self.series = Some(series);
        let all = counts.acknowledged.saturating_sub(series.acknowledged).max(MIN_SHARE_FRAMES);
        let share = LossShare::new(series.lost, series.events.into(), all);
        SilentLoss { share, events: series.events }
    }

    /// Returns whether the last event is so recent that another one would follow it.
    pub(crate) fn is_recent(&self, now: Time) -> bool {
        self.series.is_some_and(|series| now.since(series.last) <= MAX_EVENT_GAP)
    }

    /// Forgets the events: they were judged, or prove nothing.
    pub(crate) fn forget_events(&mut self) {
        self.series = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(1);

    /// Silence every `gap` ms for ten times: each time ten frames of 100 are sent again, and
    /// `arrive` of them arrive on the route after all, late. Then `duplicates` arrive twice.
    fn audits(gap: u64, arrive: u64, duplicates: u64) -> Vec<SilentLoss> {
        let mut audit = ArrivalAudit::default();
        let mut counts = DeliveryCounts { acknowledged: 1000, arrived: 1000 };
        let mut found = Vec::new();
        for start in (0..10).map(|n| 1000 + n * gap) {
            audit.on_silence(Time::from_millis(start), counts);
            for ms in 1..=60 {
                let now = Time::from_millis(start + ms);
                if ms == 8 {
                    counts.acknowledged += 10;
                }
                if ms == 25 {
                    counts.arrived += arrive;
                }
                if audit.next_count().is_some_and(|at| at <= now) {
                    audit.poll(now);
                    found.extend(audit.on_counts(now, counts, ms < 12, RTT));
                }
            }
            assert!(audit.next_count().is_none(), "over after 60 ms");
            (counts.acknowledged, counts.arrived) =
                (counts.acknowledged + 90, counts.arrived + 90 + duplicates);
        }
        found
    }

    #[test]
    fn frames_of_which_only_the_copy_arrived_are_lost() {
        let found = audits(200, 0, 0);
        assert_eq!(found.len(), 10);
        let SilentLoss { share, events } = found[9];
        assert_eq!((share.burst, events), (10, 10));
        assert!((100..=110).contains(&share.permille), "{share:?}");
    }

    #[test]
    fn late_frames_are_not_lost() {
        assert_eq!(audits(200, 10, 0), []);
    }

    #[test]
    fn what_a_network_duplicates_hides_no_loss() {
        let found = audits(200, 0, 40);
        assert_eq!(found.last().map(|loss| (loss.share.burst, loss.events)), Some((10, 10)));
    }

    #[test]
    fn events_far_apart_do_not_follow_each_other() {
        assert!(audits(2200, 0, 0).iter().all(|loss| loss.events == 1));
    }

    #[test]
    fn a_peer_that_does_not_count_and_a_new_session_prove_nothing() {
        let at = Time::from_millis;
        let mut audit = ArrivalAudit::default();
        audit.on_silence(at(0), DeliveryCounts { acknowledged: 10, arrived: 0 });
        assert_eq!(audit.next_count(), None);
        audit.on_silence(at(0), DeliveryCounts { acknowledged: 10, arrived: 10 });
        let new = DeliveryCounts { acknowledged: 9, arrived: 3 };
        assert_eq!((audit.on_counts(at(90), new, false, RTT), audit.next_count()), (None, None));
    }

    #[test]
    fn an_audit_without_counts_or_quiet_ends() {
        let mut audit = ArrivalAudit::default();
        let counts = DeliveryCounts { acknowledged: 10, arrived: 10 };
        audit.on_silence(Time::from_millis(0), counts);
        for ms in 0..3000 {
            audit.poll(Time::from_millis(ms));
            audit.on_counts(Time::from_millis(ms), counts, true, RTT);
        }
        assert_eq!(audit.next_count(), None);
    }
}

//! Loss that only data suffers on a route: evidence, verdict, and how long it holds. Pure.
//!
//! Heartbeats are small and few, so a dirty cable, a policer, a full queue or a broken offload may
//! spare them. Acknowledgements show what share of its data a route loses alone, and an audit what
//! it lost while it was silent. Lasting loss is followed by a comparison with another route
//! (`engine/data_comparison.rs`); one that is lost convicts the route, and only a comparison
//! acquits it, after a time that doubles.
//!
//! A change that explains losses voids the evidence before it, and with it a comparison under way:
//! the path MTU fell, the route went down or came up, its remote address or its transport changed,
//! or its frames leave in another way. Evidence counts by epochs; every such change begins one,
//! here and in loss detection, where frames in flight belong to the epoch they were sent in.

use std::time::Duration;

use crate::{
    loss_detection::LossShare,
    route::arrival_audit::{ArrivalAudit, SilentLoss},
    time::Time,
};

/// Loss from which a route is lossy, per mille.
pub(crate) const LOSSY_PERMILLE: u16 = 5;
/// Reports of more loss in a row, [`MAX_REPORT_GAP`] apart at most: a burst is over by then.
const LASTING_REPORTS: u8 = 4;
const MAX_REPORT_GAP: Duration = Duration::from_millis(400);
/// Events of loss while the route was silent that follow each other.
const LASTING_EVENTS: u32 = 3;
/// How long the last report describes the route.
const REPORT_LIFETIME: Duration = Duration::from_secs(1);
/// First rest after a comparison that showed no better route; it doubles.
const FIRST_REST: Duration = Duration::from_secs(1);
const MAX_REST: Duration = Duration::from_secs(60);
/// First time before a convicted route is tried again; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// Time until the next attempt, when the active route loses as much or a route went down.
const DEFERRED_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(640);

/// Quality of a route for data.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct DataQuality {
    /// The last report: share of frames lost, per mille, and when.
    reported: Option<(u16, Time)>,
    lasting: u8,
    /// Events of loss while it was silent, in a row.
    silent_events: u32,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) audit: ArrivalAudit,
    conviction: Option<Conviction>,
    /// Convictions in a row: each doubles the time before a retry.
    convictions: u32,
    /// Comparisons that decided nothing, in a row.
    fruitless: u32,
    rest_until: Option<Time>,
    /// Number of the epoch: evidence of those before is void.
    epoch: u32,
    /// When the epoch began.
    #[cfg_attr(feature = "serde", serde(skip))]
    epoch_began: Time,
}

/// The route lost a comparison.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Conviction {
    share: LossShare,
    /// No comparison has shown it yet.
    is_probation: bool,
    retry_at: Time,
}

impl DataQuality {
    /// Applies a report that more data was lost. `is_congested`: the route's queue grows, so the
    /// loss may be of this node's own making.
    pub(crate) fn on_report(&mut self, now: Time, permille: u16, is_congested: bool) {
        let follows = self.has_report_to_follow(now);
        self.reported = Some((permille, now));
        self.lasting = match permille >= LOSSY_PERMILLE && !is_congested {
            true if follows => self.lasting.saturating_add(1),
            true => 1,
            false => 0,
        };
    }

    /// Applies the result of an audit. `is_congested` as in [`on_report`](Self::on_report).
    pub(crate) fn on_silent_loss(&mut self, now: Time, loss: SilentLoss, is_congested: bool) {
        if is_congested {
            return self.audit.forget_events();
        }
        if !self.has_report_to_follow(now) {
            self.lasting = 0;
        }
        let permille = loss.share.permille;
        let reported = self.recent_permille(now).max(permille);
        self.reported = Some((reported, now));
        self.silent_events = if permille >= LOSSY_PERMILLE { loss.events } else { 0 };
    }

    fn has_report_to_follow(&self, now: Time) -> bool {
        self.reported.is_some_and(|(_, at)| now.since(at) <= MAX_REPORT_GAP)
    }

    /// Recent loss, or that of the conviction, per mille.
    pub(crate) fn loss_permille(&self, now: Time) -> u16 {
        self.recent_permille(now).max(self.conviction.map_or(0, |it| it.share.permille))
    }

    /// Recent loss, per mille.
    pub(crate) fn recent_permille(&self, now: Time) -> u16 {
        let recent = self.reported.filter(|(_, at)| now.since(*at) <= REPORT_LIFETIME);
        recent.map_or(0, |(permille, _)| permille)
    }

    /// Returns whether the loss lasts and a comparison may begin.
    pub(crate) fn wants_comparison(&self, now: Time) -> bool {
        let events_last = self.silent_events >= LASTING_EVENTS && self.audit.is_recent(now);
        (self.lasting >= LASTING_REPORTS || events_last) && !self.is_resting(now)
    }

    /// Returns whether a comparison with the route was fruitless lately.
    pub(crate) fn is_resting(&self, now: Time) -> bool {
        self.rest_until.is_some_and(|until| now < until)
    }

    /// A comparison decided nothing, or not for this route.
    pub(crate) fn rest(&mut self, now: Time) {
        self.forget_evidence();
        self.rest_until = Some(now + (FIRST_REST * (1 << self.fruitless.min(10))).min(MAX_REST));
        self.fruitless += 1;
    }

    fn forget_evidence(&mut self) {
        (self.lasting, self.silent_events) = (0, 0);
        self.audit.forget_events();
    }

    /// Number of the epoch.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Returns whether the epoch is older than a report can be: no loss is none then.
    pub(crate) fn is_observed(&self, now: Time) -> bool {
        now.since(self.epoch_began) >= REPORT_LIFETIME
    }

    /// Begins an epoch: a change explains what was lost before.
    pub(crate) fn void_evidence(&mut self, now: Time) {
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch_began = now;
        self.reported = None;
        self.forget_evidence();
        self.audit = ArrivalAudit::default();
    }

    /// The verdicts rest on losses that a change explains: they are examined at once.
    pub(crate) fn reopen(&mut self, now: Time) {
        (self.fruitless, self.rest_until) = (0, None);
        if let Some(conviction) = &mut self.conviction {
            conviction.retry_at = now;
        }
    }

    /// The route lost a comparison: it loses this share of its data, the other one far less.
    pub(crate) fn convict(&mut self, now: Time, share: LossShare) {
        let retry = (FIRST_RETRY * (1 << self.convictions.min(10))).min(MAX_RETRY);
        self.convictions += 1;
        self.forget_evidence();
        let retry_at = now + retry;
        self.conviction = Some(Conviction { share, is_probation: false, retry_at });
    }

    /// Convicts the route until a comparison, which may begin at once. Another probation waits for
    /// twice as long each time one ends in an acquittal.
    pub(crate) fn begin_probation(&mut self, now: Time, share: LossShare) {
        self.rest(now);
        self.conviction = Some(Conviction { share, is_probation: true, retry_at: now });
    }

    /// A comparison of the convicted route had too little data: no reason to wait longer each time.
    pub(crate) fn retry_later(&mut self, now: Time) {
        if let Some(conviction) = &mut self.conviction {
            conviction.retry_at = now + FIRST_RETRY;
        }
    }

    /// A comparison of the convicted route could not be made.
    pub(crate) fn defer_retry(&mut self, now: Time) {
        if let Some(conviction) = &mut self.conviction {
            conviction.retry_at = now + DEFERRED_RETRY;
        }
    }

    /// The loss the route was convicted for.
    pub(crate) fn convicted_share(&self) -> Option<LossShare> {
        self.conviction.map(|it| it.share)
    }

    /// As [`convicted_share`](Self::convicted_share), per mille.
    pub(crate) fn convicted_permille(&self) -> Option<u16> {
        self.convicted_share().map(|share| share.permille)
    }

    /// When a convicted route may be compared again.
    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.conviction.map(|it| it.retry_at)
    }

    /// The route lost no data in a comparison. What it did before still counts if it fails again.
    pub(crate) fn acquit(&mut self) {
        if !self.conviction.take().is_some_and(|it| it.is_probation) {
            (self.fruitless, self.rest_until) = (0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss_detection::DeliveryCounts;

    fn at(ms: u64) -> Time {
        Time::from_millis(1000 + ms)
    }

    #[test]
    fn loss_has_to_last_and_congestion_does_not_count() {
        let mut quality = DataQuality::default();
        [0, 10, 20].into_iter().for_each(|ms| quality.on_report(at(ms), 100, false));
        assert!(!quality.wants_comparison(at(20)), "a burst");
        quality.on_report(at(600), 100, false);
        assert!(!quality.wants_comparison(at(600)), "another burst");
        [700, 710, 720].into_iter().for_each(|ms| quality.on_report(at(ms), 100, false));
        assert!(quality.wants_comparison(at(720)));
        quality.on_report(at(730), 100, true);
        assert!(!quality.wants_comparison(at(730)), "the queue grows");
        for ms in 0..20 {
            quality.on_report(at(800 + ms * 10), LOSSY_PERMILLE - 1, false);
        }
        assert!(!quality.wants_comparison(at(1000)), "too little");
        assert_eq!((quality.loss_permille(at(1000)), quality.loss_permille(at(2100))), (4, 0));
    }

    #[test]
    fn silence_of_long_ago_is_no_evidence() {
        let mut quality = DataQuality::default();
        for n in 0..3 {
            let counts =
                |lost| DeliveryCounts { acknowledged: 1000 + n * 10 + lost, arrived: 1000 };
            quality.audit.on_silence(at(n * 200), counts(0));
            for ms in [n * 200 + 40, n * 200 + 60] {
                if let Some(loss) =
                    quality.audit.on_counts(at(ms), counts(10), false, Duration::ZERO)
                {
                    quality.on_silent_loss(at(ms), loss, false);
                }
            }
        }
        assert!(quality.wants_comparison(at(460)));
        quality.on_report(at(60_000), LOSSY_PERMILLE, false);
        assert!(!quality.wants_comparison(at(60_000)), "one report");
    }

    #[test]
    fn rests_and_retries_double_and_are_bounded() {
        let mut quality = DataQuality::default();
        let mut rests = Vec::new();
        let mut retries = Vec::new();
        for _ in 0..9 {
            quality.rest(at(0));
            rests.push(quality.rest_until.map(|until| until.since(at(0)).as_secs()));
            quality.convict(at(0), LossShare { permille: 50, burst: 1 });
            retries.push(quality.retry_at().map(|retry| retry.since(at(0)).as_secs()));
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Some));
        assert_eq!(retries, [10, 20, 40, 80, 160, 320, 640, 640, 640].map(Some));
        assert_eq!(quality.loss_permille(at(9000)), 50, "remembered");
        quality.acquit();
        assert_eq!((quality.convicted_permille(), quality.is_resting(at(0))), (None, false));
    }
}

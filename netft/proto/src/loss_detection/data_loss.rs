//! Share of the data frames that one path lost alone: later ones of their size arrived.
//!
//! A frame counts as lost when three later batches of its path arrived, of its size or larger, and
//! it has been outstanding for longer than reordering lasts (RFC 9002 section 6.1). One that
//! arrives after that is taken back. Frames sent twice or retransmitted count for no path (Karn),
//! and those in flight when an epoch of the evidence began count for none before it.

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{path::PathState, sent_frame::SentBatch},
    time::Time,
};

/// Frames after which older ones weigh half.
const WINDOW_FRAMES: u32 = 1024;
/// Shortest interval between two reports on one path.
const REPORT_INTERVAL: Duration = Duration::from_millis(10);
/// Time a frame may be late by reordering.
const REORDER_TIME: Duration = Duration::from_millis(30);
/// Later batches that have to arrive (RFC 9002 section 6.1.1).
const LATER_BATCHES: u64 = 3;

/// Later batches on the path that have to be delivered before a batch counts as lost (RFC 9002
/// section 6.1.1 has 3): until then an exclusion of the path still retransmits it.
const REORDER_THRESHOLD: u64 = 64;

/// Data lost alone on a path, since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLoss {
    /// The route.
    pub route: RouteId,
    /// Share of its last frames.
    pub share: LossShare,
}

/// Share of frames lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LossShare {
    /// Per mille.
    pub permille: u16,
    /// Frames lost in a row, on average, rounded up: in bursts the same loss has fewer causes.
    pub burst: u16,
}

impl LossShare {
    /// The share of `lost` frames, in `runs` of neighbours, among `all`.
    pub(crate) fn new(lost: u64, runs: u64, all: u64) -> Self {
        let permille = (lost * 1000 / all.max(1)).min(1000) as u16;
        let burst = lost.div_ceil(runs.max(1)).clamp(1, u16::MAX.into()) as u16;
        Self { permille, burst }
    }
}

/// Frames of a path that arrived and that were lost alone, the last [`WINDOW_FRAMES`] or so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DataLossCounter {
    delivered: u32,
    lost: u32,
    /// Runs of neighbours among those lost.
    runs: u32,
    /// Send number of the last batch that was lost whole: one that follows belongs to its run.
    lost_whole: u64,
    /// Frames were lost since the last report.
    has_news: bool,
    reported_at: Time,
    /// The epoch of the evidence, and when it began here.
    epoch: u32,
    began: Time,
}

impl PathState {
    /// Returns whether a batch has been outstanding for longer than reordering lasts.
    pub(crate) fn is_late<P>(&self, batch: &SentBatch<P>, now: Time) -> bool {
        now.since(batch.last_sent_at) >= REORDER_TIME + self.max_transit_time()
    }

    /// Returns whether a batch is lost: later ones on the path were delivered, and it has been
    /// outstanding for longer than reordering lasts. At high rates 64 batches pass in a few
    /// milliseconds.
    pub(crate) fn is_lost<P>(&self, batch: &SentBatch<P>, now: Time) -> bool {
        let at_once = batch.sent_while_suspect;
        let later = if at_once { 0 } else { REORDER_THRESHOLD };
        (at_once || self.is_late(batch, now))
            && self.delivered.covers(batch.send_number + later, batch.largest_missing())
    }

    /// Counts a batch as lost on the way that is not yet declared lost.
    pub(crate) fn count_if_overtaken<P>(&mut self, batch: &mut SentBatch<P>, now: Time) {
        let counts = !batch.is_acked() && batch.counted_lost == 0 && !batch.is_ambiguous();
        if counts
            && self.data_loss.counts(batch)
            && self.is_late(batch, now)
            && self.delivered.covers(batch.send_number + LATER_BATCHES, batch.largest_missing())
        {
            batch.counted_lost = batch.missing_count();
            self.data_loss.count_runs(batch);
            self.data_loss.add(0, batch.counted_lost);
            if batch.layout.count > 1 && batch.acked == 0 {
                self.segments.on_lost(batch.send_number, batch.wire_bytes());
            }
        }
    }
}

impl DataLossCounter {
    pub(crate) fn new(epoch: u32) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Begins anew in another epoch of the evidence.
    #[inline]
    pub(crate) fn enter_epoch(&mut self, epoch: u32, now: Time) {
        if epoch != self.epoch {
            *self = Self { epoch, began: now, ..Self::default() };
        }
    }

    /// Returns whether a batch was sent in the present epoch.
    #[inline]
    pub(crate) fn counts<P>(&self, batch: &SentBatch<P>) -> bool {
        batch.first_sent_at >= self.began
    }

    /// Counts a batch that is acknowledged or declared lost.
    pub(crate) fn on_finished<P>(&mut self, batch: &SentBatch<P>) {
        if batch.is_ambiguous() || !self.counts(batch) {
            return;
        }
        let missing = batch.missing_count();
        if missing > batch.counted_lost {
            self.count_runs(batch);
        }
        self.add(batch.layout.count - missing, missing.saturating_sub(batch.counted_lost));
        self.lost = self.lost.saturating_sub(batch.counted_lost.saturating_sub(missing));
    }

    /// The share of lost frames, if more were lost since the last report.
    pub(crate) fn take_report(&mut self, now: Time) -> Option<LossShare> {
        if !self.has_news || now.since(self.reported_at) < REPORT_INTERVAL {
            return None;
        }
        (self.has_news, self.reported_at) = (false, now);
        let [lost, runs, all] = [self.lost, self.runs, self.lost + self.delivered].map(u64::from);
        Some(LossShare::new(lost, runs, all))
    }

    fn count_runs<P>(&mut self, batch: &SentBatch<P>) {
        let is_whole = batch.acked == 0;
        let before = self.lost_whole;
        let continues = is_whole && before != 0 && before + 1 == batch.send_number;
        self.runs += batch.missing_runs().count() as u32 - u32::from(continues);
        if is_whole {
            self.lost_whole = batch.send_number;
        }
    }

    fn add(&mut self, delivered: u32, lost: u32) {
        self.delivered += delivered;
        self.lost += lost;
        self.has_news |= lost > 0;
        if self.delivered + self.lost >= WINDOW_FRAMES {
            self.delivered /= 2;
            (self.lost, self.runs) = (self.lost / 2, self.runs.div_ceil(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        loss_detection::{BatchLayout, RetransmitLimits, SentFrames, UsablePath},
        wire::ack::{Ack, AckRange},
    };

    /// Batches of one frame, one a millisecond, acknowledged 1 ms later but for those that `late`
    /// delays: `None` loses a frame, another is acknowledged so many milliseconds later.
    fn loss_after(count: u64, late: impl Fn(u64) -> Option<u64>) -> Option<LossShare> {
        let mut sent = SentFrames::new(RetransmitLimits::default());
        let path = UsablePath { route: RouteId(1), rtt: None, loss_epoch: 0 };
        let mut last = None;
        for now in 0..count {
            let layout =
                BatchLayout { first: now, last: now, count: 1, bytes: 1, stride: 1400, tail: 1400 };
            sent.on_sent(now, layout, path, None, Time::from_millis(now));
            let arrived = |counter: &u64| late(*counter).is_some_and(|ms| counter + ms < now);
            let ranges = (0..now).rev().filter(arrived);
            let ranges: Vec<_> = ranges.map(|n| AckRange { first: n, last: n }).collect();
            if let Some(highest) = ranges.first().map(|range| range.last) {
                let ack = Ack { highest, ranges, ..Ack::default() };
                sent.on_ack_received(Time::from_millis(now), &ack, |first, _| *first, |_| {});
            }
            last = sent.take_data_loss(Time::from_millis(now)).map(|loss| loss.share).or(last);
        }
        last
    }

    #[test]
    fn the_share_is_that_of_the_frames_that_later_ones_overtook() {
        assert_eq!(loss_after(400, |_| Some(1)), None, "nothing is lost");
        let lost = loss_after(800, |n| (n % 10 != 0).then_some(1)).unwrap_or_default();
        assert!((80..=120).contains(&lost.permille) && lost.burst == 1, "{lost:?}");
    }

    #[test]
    fn neighbours_that_are_lost_are_one_burst() {
        let lost = loss_after(800, |n| (n % 100 >= 10).then_some(1)).unwrap_or_default();
        assert!((70..=130).contains(&lost.permille), "{lost:?}");
        assert!((8..=10).contains(&lost.burst), "{lost:?}");
    }

    #[test]
    fn reordering_is_no_loss() {
        assert_eq!(loss_after(400, |n| Some(if n % 5 == 0 { 25 } else { 1 })), None);
        let lost = loss_after(800, |n| Some(if n == 100 { 50 } else { 1 })).unwrap_or_default();
        assert!(lost.permille < 10, "one of all before it: {lost:?}");
    }
}

//! Brown-outs: routes that are up and clearly worse than another. Pure.
//!
//! The outbound direction is measured, as this node selects only that: the loss of its own
//! heartbeats as the peer reports it, and the round-trip time. A brown-out never takes a route
//! down. Its data moves, and returns after a hold-down once the route is as good as the active one.
//!
//! Routes are compared with each other, never with a fixed limit alone, because a loaded host
//! delays the heartbeats of all of them. Round-trip times are compared by the minimum of a window,
//! because scheduling latency only adds to them, and with the route's own minimum, because a route
//! that was longer from the start was preferred by the operator.

use std::time::Duration;

use crate::{
    route::{data_loss::DataQuality, state::Reason},
    time::Time,
};

/// Loss from which a route is lossy, per mille.
const LOSSY_PERMILLE: u16 = 20;
/// Loss that counts as none, per mille.
const CLEAN_PERMILLE: u16 = 10;
/// How long loss has to last before data moves.
const MIN_TROUBLE_DURATION: Duration = Duration::from_secs(2);
/// The window of the peer's loss count, plus a tenth: a single burst has left the count by then.
const LOSS_WINDOW_HEARTBEATS: u32 = 70;
/// Upper bound of remembered loss, per mille; it halves with every [`LOSS_HALF_LIFE`]. Without the
/// memory, data would alternate between two routes of equal loss.
const MAX_REMEMBERED_PERMILLE: u16 = 50;
const LOSS_HALF_LIFE: Duration = Duration::from_secs(10);
/// A round-trip time is better if it is shorter by at least this, and by a fifth.
const MIN_RTT_GAIN: Duration = Duration::from_millis(5);
/// Delay that a queue adds at least before it overflows; scheduling adds less.
const MIN_QUEUE_DELAY: Duration = Duration::from_millis(2);
/// Half of the round-trip time window.
const RTT_HALF_WINDOW: Duration = Duration::from_millis(1500);
/// Samples that half a window needs to count.
const MIN_RTT_SAMPLES: u32 = 8;

/// Outbound quality of a route.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct PathQuality {
    /// Loss of this node's heartbeats as the peer reports it, per mille.
    loss_permille: u16,
    /// Since when every report has shown loss.
    lossy_since: Option<Time>,
    /// The highest remembered loss, and when it was last reported.
    peak_loss: (u16, Time),
    min_rtt: WindowedMinRtt,
    /// The lowest round-trip time since the route came up.
    best_rtt: Option<Duration>,
    /// Data left for a better route, and the route has not been as good for a hold-down since.
    pub(crate) browned_out: bool,
    /// Loss that only data suffers.
    pub(crate) data: DataQuality,
}

impl PathQuality {
    /// Applies the peer's report on the loss of this node's heartbeats.
    pub(crate) fn on_loss_report(&mut self, now: Time, loss: u16) {
        if loss >= self.remembered_loss(now) {
            self.peak_loss = (loss, now);
        }
        self.loss_permille = loss;
        self.lossy_since = self.lossy_since.or(Some(now)).filter(|_| loss > 0);
    }

    /// Applies a round-trip time; `delay` is the route's heartbeat interval.
    pub(crate) fn add_rtt_sample(&mut self, now: Time, rtt: Duration, delay: Duration) {
        self.min_rtt.add_sample(now, rtt, RTT_HALF_WINDOW.max(delay * MIN_RTT_SAMPLES * 2));
        self.best_rtt = Some(self.best_rtt.map_or(rtt, |best| best.min(rtt)));
    }

    /// Discards the measurements when receipt on the route begins anew.
    pub(crate) fn reset_measurements(&mut self) {
        *self = Self {
            peak_loss: self.peak_loss,
            browned_out: self.browned_out,
            data: self.data,
            ..Self::default()
        };
    }

    /// Outbound loss, per mille.
    pub(crate) fn loss_permille(&self) -> u16 {
        self.loss_permille
    }

    fn remembered_loss(&self, now: Time) -> u16 {
        let (peak, at) = self.peak_loss;
        let halvings = (now.since(at).as_secs() / LOSS_HALF_LIFE.as_secs()).min(15) as u32;
        if halvings == 0 { peak } else { peak.min(MAX_REMEMBERED_PERMILLE) >> halvings }
            .max(self.loss_permille)
    }

    /// Returns whether `other` has been clearly better for long enough; `delay` is this route's,
    /// `jitter` the larger of both.
    pub(crate) fn is_worse_than(
        &self,
        other: &Self,
        now: Time,
        delay: Duration,
        jitter: Duration,
    ) -> bool {
        let sustained = MIN_TROUBLE_DURATION.max(delay * LOSS_WINDOW_HEARTBEATS);
        let long = self.lossy_since.is_some_and(|since| now.since(since) >= sustained);
        let less = u32::from(other.remembered_loss(now)) * 3 + u32::from(CLEAN_PERMILLE);
        let lossier =
            long && self.loss_permille >= LOSSY_PERMILLE && u32::from(self.loss_permille) >= less;
        // Loss outweighs latency, so two routes are never each worse than the other.
        let clean = other.remembered_loss(now) <= self.loss_permille.max(CLEAN_PERMILLE);
        lossier || (clean && self.is_slower_than_best() && self.is_slower_than(other, jitter))
    }

    /// Returns whether data may return from `other`: the comparison without the margins.
    pub(crate) fn is_as_good_as(&self, other: Option<&Self>, now: Time) -> bool {
        if self.data.convicted_permille().is_some() {
            return false;
        }
        let loss = other.map_or(0, |other| other.remembered_loss(now)).max(CLEAN_PERMILLE);
        self.remembered_loss(now) <= loss
            && !(self.is_slower_than_best()
                && other.is_none_or(|other| {
                    let (Some(here), Some(there)) =
                        (self.min_rtt.window_min(), other.min_rtt.window_min())
                    else {
                        return false;
                    };
                    here > there + MIN_RTT_GAIN / 2
                }))
    }

    /// Why data left a route that is browned out.
    pub(crate) fn leave_reason(&self) -> Reason {
        self.data.convicted_permille().map_or(Reason::BrownOut, |_| Reason::DataLoss)
    }

    /// Returns whether the round-trip time grew as a queue does that this node's data fills.
    pub(crate) fn is_queue_growing(&self, rtt: Option<Duration>) -> bool {
        let (Some(rtt), Some(best)) = (rtt, self.best_rtt) else { return false };
        rtt >= best + best / 2 + MIN_QUEUE_DELAY
    }

    fn is_slower_than_best(&self) -> bool {
        let (Some(rtt), Some(best)) = (self.min_rtt.window_min(), self.best_rtt) else {
            return false;
        };
        rtt >= best + MIN_RTT_GAIN && rtt >= best + best / 4
    }

    fn is_slower_than(&self, other: &Self, jitter: Duration) -> bool {
        let (Some(here), Some(there)) =
            (self.min_rtt.window_min(), other.min_rtt.conservative_min())
        else {
            return false;
        };
        here >= there + MIN_RTT_GAIN.max(jitter) && there <= here - here / 5
    }
}

/// Minimum of a sliding window, in two halves.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct WindowedMinRtt {
    previous_half: Option<Duration>,
    /// The half being filled: its start, sample count and minimum.
    since: Option<Time>,
    count: u32,
    lowest: Option<Duration>,
    last: Duration,
}

impl WindowedMinRtt {
    fn add_sample(&mut self, now: Time, rtt: Duration, half: Duration) {
        let age = self.since.map(|since| now.since(since));
        if age.is_none_or(|age| age >= half) {
            let whole = self.count >= MIN_RTT_SAMPLES && age.is_some_and(|age| age < half * 2);
            let before = self.lowest.filter(|_| whole);
            *self =
                Self { previous_half: before, since: Some(now), count: 0, lowest: None, last: rtt };
        }
        self.count += 1;
        self.last = rtt;
        self.lowest = Some(self.lowest.map_or(rtt, |lowest| lowest.min(rtt)));
    }

    /// Minimum of at least half a window.
    fn window_min(&self) -> Option<Duration> {
        let before = self.previous_half?;
        Some(self.lowest.map_or(before, |lowest| lowest.min(before)))
    }

    /// The minimum, or the newest sample if that is above it: the windows of two routes end at
    /// different moments, so a common delay shows on one of them first.
    fn conservative_min(&self) -> Option<Duration> {
        Some(self.window_min()?.max(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(30);

    fn at(ms: u64) -> Time {
        Time::from_millis(1000 + ms)
    }

    /// The peer reports `loss` from `from` to `to`, every 30 ms.
    fn report(quality: &mut PathQuality, from: u64, to: u64, loss: u16) {
        (from..to).step_by(30).for_each(|ms| quality.on_loss_report(at(ms), loss));
    }

    fn worse(quality: &PathQuality, other: &PathQuality, ms: u64) -> bool {
        quality.is_worse_than(other, at(ms), DELAY, Duration::ZERO)
    }

    fn rtts(quality: &mut PathQuality, from: u64, to: u64, rtt: u64) {
        for ms in (from..to).step_by(30) {
            quality.add_rtt_sample(at(ms), Duration::from_millis(rtt), DELAY);
        }
    }

    #[test]
    fn loss_counts_when_it_lasts_and_one_burst_does_not() {
        let (mut lossy, clean) = (PathQuality::default(), PathQuality::default());
        report(&mut lossy, 0, 1800, 60);
        report(&mut lossy, 1800, 2400, 0);
        assert!(!worse(&lossy, &clean, 2400), "a burst that left the peer's window");
        report(&mut lossy, 2400, 4410, 60);
        assert!(!worse(&lossy, &clean, 4410));
        report(&mut lossy, 4410, 4530, 60);
        assert!(worse(&lossy, &clean, 4530));
        report(&mut lossy, 4530, 9000, 16);
        assert!(!worse(&lossy, &clean, 9000), "one of 64 is no brown-out");
    }

    #[test]
    fn equal_loss_is_no_reason_to_move_even_while_the_other_shows_none() {
        let (mut here, mut there) = (PathQuality::default(), PathQuality::default());
        report(&mut there, 0, 1000, 50);
        report(&mut there, 1000, 6000, 0);
        report(&mut here, 0, 6000, 60);
        assert!(!worse(&here, &there, 6000));
        report(&mut here, 6000, 40_000, 60);
        assert!(worse(&here, &there, 40_000), "forgotten");
    }

    #[test]
    fn a_route_is_good_again_when_its_loss_is_forgotten() {
        let (mut quality, clean) = (PathQuality::default(), PathQuality::default());
        report(&mut quality, 0, 3000, 500);
        report(&mut quality, 3000, 33_000, 0);
        let good = |ms| quality.is_as_good_as(Some(&clean), at(ms));
        assert!(!good(3000) && !good(20_000) && good(33_000));
        assert!(quality.is_as_good_as(
            Some(&PathQuality { loss_permille: 600, ..PathQuality::default() }),
            at(3000)
        ));
    }

    #[test]
    fn a_latency_that_rises_by_20_ms_counts_and_one_that_always_was_does_not() {
        let (mut here, mut there) = (PathQuality::default(), PathQuality::default());
        rtts(&mut there, 0, 9000, 10);
        rtts(&mut here, 0, 3000, 30);
        assert!(!worse(&here, &there, 3000), "always was the longer one");
        rtts(&mut here, 3000, 4500, 50);
        assert!(!worse(&here, &there, 4500), "not yet for long");
        rtts(&mut here, 4500, 6100, 50);
        assert!(worse(&here, &there, 6100));
        assert!(!here.is_worse_than(&there, at(6100), DELAY, Duration::from_millis(60)), "jitter");
        assert!(!here.is_as_good_as(Some(&there), at(6100)));
        rtts(&mut here, 6100, 6200, 30);
        assert!(here.is_as_good_as(Some(&there), at(6200)));
    }

    #[test]
    fn a_slow_route_is_not_left_for_a_lossy_one() {
        let (mut slow, mut lossy) = (PathQuality::default(), PathQuality::default());
        rtts(&mut slow, 0, 3000, 10);
        rtts(&mut slow, 3000, 9000, 60);
        rtts(&mut lossy, 0, 9000, 10);
        assert!(worse(&slow, &lossy, 9000));
        report(&mut lossy, 0, 9000, 40);
        assert!(!worse(&slow, &lossy, 9000) && worse(&lossy, &slow, 9000));
    }

    #[test]
    fn late_replies_between_good_ones_count_for_nothing() {
        let (mut here, mut there) = (PathQuality::default(), PathQuality::default());
        rtts(&mut here, 0, 3000, 1);
        for ms in (3000..9000).step_by(30) {
            let late = if ms % 600 == 0 { 1 } else { 80 };
            here.add_rtt_sample(at(ms), Duration::from_millis(late), DELAY);
        }
        rtts(&mut there, 0, 9000, 1);
        assert!(!worse(&here, &there, 9000));
    }
}

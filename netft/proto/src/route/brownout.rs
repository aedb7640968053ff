//! Brown-outs: a route that is up and clearly worse than another. Pure.
//!
//! What is judged is the way out, because that is what this node may choose: the loss of its own
//! heartbeats as the peer counts them, and the round-trip time. A route is never down for it; its
//! data moves, and returns through the hold once the route is as good as the one that serves.
//!
//! Routes are compared with each other, never with a fixed figure alone: what a busy machine does
//! to heartbeats it does to all of them. Round-trip times are compared by the lowest of a window,
//! because a late process only ever adds to them; and with the route's own lowest, because a route
//! that always was the longer one is what the operator preferred.

use std::time::Duration;

use crate::time::Time;

/// Loss from which a route is lossy, per mille.
const LOSSY: u16 = 20;
/// Loss that is taken for none, per mille: one heartbeat in a window of 64 is below it after a
/// quiet while.
const CLEAN: u16 = 10;
/// Trouble lasts at least this long before data moves for it.
const SUSTAINED: Duration = Duration::from_secs(2);
/// Heartbeats the peer counts loss over, a tenth more: one burst must have left the count.
const LOSS_WINDOW: u32 = 70;
/// Loss that is over is remembered at most as this, per mille, and at half of it after every
/// [`FORGET`]: two routes of equal loss take turns in being clean for a while.
const REMEMBERED: u16 = 50;
const FORGET: Duration = Duration::from_secs(10);
/// A round-trip time is better by at least this, and by a fifth.
const RTT_STEP: Duration = Duration::from_millis(5);
/// Half a window of round-trip times.
const RTT_HALF: Duration = Duration::from_millis(1500);
/// Samples without which half a window says nothing.
const RTT_SAMPLES: u32 = 8;

/// How good a route is for what this node sends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    /// Loss of this node's heartbeats as the peer says, per mille.
    loss: u16,
    /// The peer has spoken of loss without a break since then.
    lossy: Option<Time>,
    /// The highest loss that is still remembered, and when it was last seen.
    peak: (u16, Time),
    rtt: Lowest,
    /// The lowest round-trip time since the route came up.
    best: Option<Duration>,
    /// Data left for a better route, and the route has not been good for a hold since.
    pub(crate) brown: bool,
}

impl Health {
    /// The peer's word on what it loses of this node's heartbeats.
    pub(crate) fn word(&mut self, now: Time, loss: u16) {
        if loss >= self.remembered(now) {
            self.peak = (loss, now);
        }
        self.loss = loss;
        self.lossy = self.lossy.or(Some(now)).filter(|_| loss > 0);
    }

    /// A measured round-trip time; `delay` is the route's.
    pub(crate) fn sample(&mut self, now: Time, rtt: Duration, delay: Duration) {
        self.rtt.add(now, rtt, RTT_HALF.max(delay * RTT_SAMPLES * 2));
        self.best = Some(self.best.map_or(rtt, |best| best.min(rtt)));
    }

    /// The route is heard again: what was measured before says nothing.
    pub(crate) fn afresh(&mut self) {
        *self = Self { peak: self.peak, brown: self.brown, ..Self::default() };
    }

    /// Loss of what this node sends, per mille.
    pub(crate) fn loss(&self) -> u16 {
        self.loss
    }

    fn remembered(&self, now: Time) -> u16 {
        let (peak, at) = self.peak;
        let halvings = (now.since(at).as_secs() / FORGET.as_secs()).min(15) as u32;
        if halvings == 0 { peak } else { peak.min(REMEMBERED) >> halvings }.max(self.loss)
    }

    /// Whether `other` has been clearly better for long enough; `delay` is this route's, `jitter`
    /// the larger of both.
    pub(crate) fn worse_than(
        &self,
        other: &Self,
        now: Time,
        delay: Duration,
        jitter: Duration,
    ) -> bool {
        let sustained = SUSTAINED.max(delay * LOSS_WINDOW);
        let long = self.lossy.is_some_and(|since| now.since(since) >= sustained);
        let less = u32::from(other.remembered(now)) * 3 + u32::from(CLEAN);
        let lossier = long && self.loss >= LOSSY && u32::from(self.loss) >= less;
        // Latency is no reason to take loss: so no two routes are each worse than the other.
        let clean = other.remembered(now) <= self.loss.max(CLEAN);
        lossier || (clean && self.slower_than_ever() && self.slower(other, jitter))
    }

    /// Whether data may return from a route as good as `other`: without the margins it left by.
    pub(crate) fn as_good_as(&self, other: Option<&Self>, now: Time) -> bool {
        let loss = other.map_or(0, |other| other.remembered(now)).max(CLEAN);
        self.remembered(now) <= loss
            && !(self.slower_than_ever()
                && other.is_none_or(|other| {
                    let (Some(here), Some(there)) = (self.rtt.lowest(), other.rtt.lowest()) else {
                        return false;
                    };
                    here > there + RTT_STEP / 2
                }))
    }

    fn slower_than_ever(&self) -> bool {
        let (Some(rtt), Some(best)) = (self.rtt.lowest(), self.best) else { return false };
        rtt >= best + RTT_STEP && rtt >= best + best / 4
    }

    fn slower(&self, other: &Self, jitter: Duration) -> bool {
        let (Some(here), Some(there)) = (self.rtt.lowest(), other.rtt.surest()) else {
            return false;
        };
        here >= there + RTT_STEP.max(jitter) && there <= here - here / 5
    }
}

/// The lowest of a sliding window, in two halves.
#[derive(Clone, Copy, Debug, Default)]
struct Lowest {
    before: Option<Duration>,
    /// The half being filled: since when, how many, and the lowest.
    since: Option<Time>,
    count: u32,
    lowest: Option<Duration>,
    last: Duration,
}

impl Lowest {
    fn add(&mut self, now: Time, rtt: Duration, half: Duration) {
        let age = self.since.map(|since| now.since(since));
        if age.is_none_or(|age| age >= half) {
            let whole = self.count >= RTT_SAMPLES && age.is_some_and(|age| age < half * 2);
            let before = self.lowest.filter(|_| whole);
            *self = Self { before, since: Some(now), count: 0, lowest: None, last: rtt };
        }
        self.count += 1;
        self.last = rtt;
        self.lowest = Some(self.lowest.map_or(rtt, |lowest| lowest.min(rtt)));
    }

    /// The lowest of at least half a window.
    fn lowest(&self) -> Option<Duration> {
        let before = self.before?;
        Some(self.lowest.map_or(before, |lowest| lowest.min(before)))
    }

    /// The lowest, unless the newest sample is above it: windows of two routes end at different
    /// moments, so what slows both down shows on one of them first.
    fn surest(&self) -> Option<Duration> {
        Some(self.lowest()?.max(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(30);

    fn at(ms: u64) -> Time {
        Time::from_millis(1000 + ms)
    }

    /// The peer says so from `from` to `to`, every 30 ms.
    fn says(health: &mut Health, from: u64, to: u64, loss: u16) {
        (from..to).step_by(30).for_each(|ms| health.word(at(ms), loss));
    }

    fn worse(health: &Health, other: &Health, ms: u64) -> bool {
        health.worse_than(other, at(ms), DELAY, Duration::ZERO)
    }

    fn rtts(health: &mut Health, from: u64, to: u64, rtt: u64) {
        for ms in (from..to).step_by(30) {
            health.sample(at(ms), Duration::from_millis(rtt), DELAY);
        }
    }

    #[test]
    fn loss_counts_when_it_lasts_and_one_burst_does_not() {
        let (mut lossy, clean) = (Health::default(), Health::default());
        says(&mut lossy, 0, 1800, 60);
        says(&mut lossy, 1800, 2400, 0);
        assert!(!worse(&lossy, &clean, 2400), "a burst that left the peer's window");
        says(&mut lossy, 2400, 4410, 60);
        assert!(!worse(&lossy, &clean, 4410));
        says(&mut lossy, 4410, 4530, 60);
        assert!(worse(&lossy, &clean, 4530));
        says(&mut lossy, 4530, 9000, 16);
        assert!(!worse(&lossy, &clean, 9000), "one of 64 is no brown-out");
    }

    #[test]
    fn equal_loss_is_no_reason_to_move_even_while_the_other_looks_clean() {
        let (mut here, mut there) = (Health::default(), Health::default());
        says(&mut there, 0, 1000, 50);
        says(&mut there, 1000, 6000, 0);
        says(&mut here, 0, 6000, 60);
        assert!(!worse(&here, &there, 6000));
        says(&mut here, 6000, 40_000, 60);
        assert!(worse(&here, &there, 40_000), "forgotten");
    }

    #[test]
    fn a_route_is_good_again_when_its_loss_is_forgotten() {
        let (mut health, clean) = (Health::default(), Health::default());
        says(&mut health, 0, 3000, 500);
        says(&mut health, 3000, 33_000, 0);
        let good = |ms| health.as_good_as(Some(&clean), at(ms));
        assert!(!good(3000) && !good(20_000) && good(33_000));
        assert!(health.as_good_as(Some(&Health { loss: 600, ..Health::default() }), at(3000)));
    }

    #[test]
    fn a_latency_that_rises_by_20_ms_counts_and_one_that_always_was_does_not() {
        let (mut here, mut there) = (Health::default(), Health::default());
        rtts(&mut there, 0, 9000, 10);
        rtts(&mut here, 0, 3000, 30);
        assert!(!worse(&here, &there, 3000), "always was the longer one");
        rtts(&mut here, 3000, 4500, 50);
        assert!(!worse(&here, &there, 4500), "not yet for long");
        rtts(&mut here, 4500, 6100, 50);
        assert!(worse(&here, &there, 6100));
        assert!(!here.worse_than(&there, at(6100), DELAY, Duration::from_millis(60)), "jitter");
        assert!(!here.as_good_as(Some(&there), at(6100)));
        rtts(&mut here, 6100, 6200, 30);
        assert!(here.as_good_as(Some(&there), at(6200)));
    }

    #[test]
    fn a_slow_route_is_not_left_for_a_lossy_one() {
        let (mut slow, mut lossy) = (Health::default(), Health::default());
        rtts(&mut slow, 0, 3000, 10);
        rtts(&mut slow, 3000, 9000, 60);
        rtts(&mut lossy, 0, 9000, 10);
        assert!(worse(&slow, &lossy, 9000));
        says(&mut lossy, 0, 9000, 40);
        assert!(!worse(&slow, &lossy, 9000) && worse(&lossy, &slow, 9000));
    }

    #[test]
    fn late_replies_between_good_ones_count_for_nothing() {
        let (mut here, mut there) = (Health::default(), Health::default());
        rtts(&mut here, 0, 3000, 1);
        for ms in (3000..9000).step_by(30) {
            let late = if ms % 600 == 0 { 1 } else { 80 };
            here.sample(at(ms), Duration::from_millis(late), DELAY);
        }
        rtts(&mut there, 0, 9000, 1);
        assert!(!worse(&here, &there, 9000));
    }
}

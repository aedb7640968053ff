//! Routes that go down although their network only loses packets: how often, for a delay and a
//! threshold, and the smallest threshold that keeps to a budget. Pure.

use std::time::Duration;

use crate::route::params::{THRESHOLD_RANGE, Threshold, Timing};

const SECONDS_PER_YEAR: f64 = 365.25 * 24.0 * 3600.0;

/// Share of packets that a route loses, each independently of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacketLoss {
    /// Towards this node, 0.0–1.0.
    pub inbound: f64,
    /// Towards the peer, 0.0–1.0.
    pub outbound: f64,
}

impl PacketLoss {
    /// Share of delays in which one end receives neither the request of the other nor the reply to
    /// its own. Both ends ask once per delay while anything is amiss.
    fn silent_delays(self) -> f64 {
        let lost_reply = 1.0 - (1.0 - self.inbound) * (1.0 - self.outbound);
        self.inbound * lost_reply
    }

    const fn reversed(self) -> Self {
        Self { inbound: self.outbound, outbound: self.inbound }
    }
}

/// Times a year that one of the ends takes the route down for loss alone: an upper estimate.
///
/// A silence may begin with every heartbeat, and lasts for `threshold` delays. The simulator sees a
/// quarter to two thirds of it, because requests are jittered and a detection time holds more than
/// `threshold` of them. Loss in bursts is no part of it: a network that is silent for a detection
/// time is down, whatever the reason.
pub fn false_alarms_per_year(timing: Timing, loss: PacketLoss) -> f64 {
    let threshold = i32::from(timing.threshold.get());
    let runs = SECONDS_PER_YEAR / timing.delay.as_duration().as_secs_f64();
    [loss, loss.reversed()].iter().map(|loss| runs * loss.silent_delays().powi(threshold)).sum()
}

/// The smallest threshold at this delay that takes the route down at most `budget` times a year for
/// loss, and not for a heartbeat that is `delayed` on its way; `None` if no threshold does.
pub fn smallest_threshold(
    timing: Timing,
    loss: PacketLoss,
    delayed: Duration,
    budget: f64,
) -> Option<Threshold> {
    let counts = THRESHOLD_RANGE.0..=THRESHOLD_RANGE.1;
    let candidates = counts.filter_map(|count| Threshold::new(count).ok());
    candidates.map(|threshold| Timing { threshold, ..timing }).find_map(|timing| {
        // A request that left one delay after the last must be answered in time.
        let in_time = timing.detection_time() >= timing.delay.as_duration() + delayed;
        (in_time && false_alarms_per_year(timing, loss) <= budget).then_some(timing.threshold)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::route::Delay;

    fn timing(delay: u64, threshold: u64) -> Timing {
        Timing {
            delay: Delay::from_millis(delay).unwrap(),
            threshold: Threshold::new(threshold).unwrap(),
        }
    }

    fn both(loss: f64) -> PacketLoss {
        PacketLoss { inbound: loss, outbound: loss }
    }

    #[test]
    fn alarms_grow_with_loss_and_fall_with_the_threshold() {
        let alarms = |threshold, loss| false_alarms_per_year(timing(30, threshold), both(loss));
        assert_eq!(alarms(5, 0.0), 0.0);
        assert!(alarms(5, 0.1) > 1000.0 * alarms(5, 0.01));
        assert!(alarms(2, 0.1) > 10.0 * alarms(3, 0.1));
        // All is lost: a silence begins with every heartbeat.
        let per_second = alarms(2, 1.0) / SECONDS_PER_YEAR;
        assert!((per_second - 2.0 / 0.03).abs() < 1e-6, "{per_second}");
        let one_way = PacketLoss { inbound: 0.0, outbound: 0.1 };
        assert!(false_alarms_per_year(timing(30, 2), one_way) < alarms(2, 0.1));
    }

    #[test]
    fn the_smallest_threshold_keeps_to_budget_and_delay() {
        let smallest = |loss, delayed, budget| {
            let delayed = Duration::from_millis(delayed);
            smallest_threshold(timing(30, 5), both(loss), delayed, budget).map(Threshold::get)
        };
        assert_eq!(smallest(0.0, 1, 1.0), Some(2));
        assert_eq!(smallest(0.0, 100, 1.0), Some(5), "30 ms and 100 ms take five delays");
        let at_one_percent = smallest(0.01, 1, 1.0).unwrap();
        assert!(false_alarms_per_year(timing(30, at_one_percent.into()), both(0.01)) <= 1.0);
        assert!(false_alarms_per_year(timing(30, u64::from(at_one_percent) - 1), both(0.01)) > 1.0);
        assert!(smallest(0.3, 1, 1.0) > smallest(0.1, 1, 1.0));
        assert_eq!(smallest(1.0, 1, 1.0), None);
    }
}

//! When the lookout asks the interfaces for their carrier (`ETHTOOL_GLINK`), and what follows:
//! netlink alone can be 0.8 s late (reliability finding 2).
//!
//! While data goes out, every 10 ms if the driver is awake anyway, and it wakes up for it after
//! 20 ms. A node without data asks every two fifths of its shortest detection time, and at once
//! when something speaks against a route. A node without routes does not ask.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use netft_proto::time::Time;

use crate::io::{carrier_monitor::CarrierStates, control::driver::Driver};

/// The least time between two looks, unless something is wrong.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// When the interfaces are asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CarrierPoll {
    last_poll: Time,
    interval: Duration,
    /// Data frames that had been sent at the last look.
    frames_at_last_poll: u64,
    is_urgent: bool,
}

impl CarrierPoll {
    /// Something speaks against a route: the next look is at once.
    pub(super) const fn poll_immediately(&mut self) {
        self.is_urgent = true;
    }

    /// Whether no data went out between the last two looks, and nothing speaks against a route.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_urgent && self.interval > MIN_POLL_INTERVAL
    }

    /// When the driver wakes up for a look, if nothing else wakes it before.
    pub(super) fn next_wake(&self) -> Time {
        if self.is_urgent { self.last_poll } else { self.last_poll + self.interval * 2 }
    }

    fn is_due(&self, now: Time) -> bool {
        self.is_urgent || now.since(self.last_poll) >= self.interval
    }

    /// Notes a look: `frames` of data were sent until then, and the shortest detection time is
    /// `detection`.
    fn record_poll(&mut self, now: Time, frames: u64, detection: Duration) {
        let busy = frames != self.frames_at_last_poll;
        let rest =
            if busy { MIN_POLL_INTERVAL } else { (detection * 2 / 5).max(MIN_POLL_INTERVAL) };
        *self =
            Self { last_poll: now, interval: rest, frames_at_last_poll: frames, is_urgent: false };
    }
}

impl Driver {
    /// Has every used interface asked for its carrier, when it is time.
    pub(super) fn poll_carriers(&mut self, now: Time) {
        if !self.carrier_poll.is_due(now) {
            return;
        }
        let routes = || self.routes.values();
        let frames = routes().map(|known| known.counters.frames.load(Relaxed)).sum();
        let detection = routes().map(|known| known.plan.spec.timing.detection_time()).min();
        self.carrier_poll.record_poll(now, frames, detection.unwrap_or(Duration::from_secs(4)));
        let used = |index| self.routes.values().any(|known| known.plan.ifindex == index);
        let interfaces = self.host_state.interfaces.iter();
        let known = interfaces.map(|interface| (interface.index, interface.carrier));
        let known: CarrierStates = known.filter(|(index, _)| used(*index)).collect();
        if !known.is_empty() {
            self.carrier_monitor.request_poll(known);
        }
    }

    /// The lookout saw other carriers. What the keeper saw since then may be newer; the next look
    /// tells.
    pub(super) fn on_carrier_states(&mut self, seen: &CarrierStates) {
        let mut changed = false;
        for interface in &mut self.host_state.interfaces {
            for (_, carrier) in seen.iter().filter(|(index, _)| *index == interface.index) {
                changed |= *carrier != interface.carrier;
                interface.carrier = *carrier;
            }
        }
        if changed {
            self.sync_sockets();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DETECTION: Duration = Duration::from_millis(300);

    #[test]
    fn an_idle_node_asks_seldom_a_busy_one_often_and_a_doubt_at_once() {
        let at = Time::from_millis;
        let mut pace = CarrierPoll::default();
        assert!(pace.is_due(at(1000)));
        pace.record_poll(at(1000), 0, DETECTION);
        assert!(!pace.is_due(at(1119)) && pace.is_due(at(1120)));
        assert_eq!(pace.next_wake(), at(1240), "four fifths of the detection time at most");
        pace.record_poll(at(1120), 5, DETECTION);
        assert!(!pace.is_due(at(1129)) && pace.is_due(at(1130)));
        assert_eq!(pace.next_wake(), at(1140));
        pace.poll_immediately();
        assert!(pace.is_due(at(1121)) && pace.next_wake() <= at(1121));
        pace.record_poll(at(1121), 5, DETECTION);
        assert!(!pace.is_due(at(1240)));
    }

    #[test]
    fn a_short_detection_time_is_no_reason_to_ask_all_the_time() {
        let mut pace = CarrierPoll::default();
        pace.record_poll(Time::ZERO, 0, Duration::from_millis(30));
        assert!(!pace.is_due(Time::from_millis(9)));
    }
}

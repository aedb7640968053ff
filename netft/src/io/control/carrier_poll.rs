//! When the carrier monitor asks the interfaces for their carrier (`ETHTOOL_GLINK`): netlink alone
//! can be 0.8 s late (reliability finding 2).
//!
//! While data goes out, every 10 ms if the driver is awake anyway, and it wakes up for it after
//! 20 ms. A node without data asks every two fifths of its shortest detection time, and at once
//! when a send fails or data stays unacknowledged. A node without routes does not ask.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use netft_proto::time::Time;

use crate::io::{
    carrier_monitor::CarrierStates,
    control::component::{Action, Actions, Component, Input, View},
};

/// The shortest time between two polls, unless a route is suspect.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The detection time assumed while there is no route.
const IDLE_DETECTION_TIME: Duration = Duration::from_secs(4);

/// The schedule of the carrier polls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CarrierPoll {
    last_poll: Time,
    interval: Duration,
    /// Data frames that had been sent at the last poll.
    frames_at_last_poll: u64,
    is_urgent: bool,
}

impl CarrierPoll {
    fn is_due(&self, now: Time) -> bool {
        self.is_urgent || now.since(self.last_poll) >= self.interval
    }

    /// Notes a poll: `frames` of data were sent until then, and the shortest detection time is
    /// `detection`.
    fn record_poll(&mut self, now: Time, frames: u64, detection: Duration) {
        let busy = frames != self.frames_at_last_poll;
        let interval =
            if busy { MIN_POLL_INTERVAL } else { (detection * 2 / 5).max(MIN_POLL_INTERVAL) };
        *self = Self { last_poll: now, interval, frames_at_last_poll: frames, is_urgent: false };
    }
}

impl Component for CarrierPoll {
    /// The next poll, if nothing else wakes the driver before.
    fn next_wake(&self) -> Option<Time> {
        Some(if self.is_urgent { self.last_poll } else { self.last_poll + self.interval * 2 })
    }

    fn on_input(&mut self, _: Time, input: &Input<'_>, _: &View<'_>, _: &mut Actions) {
        if matches!(input, Input::RouteSuspect | Input::SendFailed(_)) {
            self.is_urgent = true;
        }
    }

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if !self.is_due(now) {
            return;
        }
        let frames = view.routes.entries().map(|entry| entry.counters.frames.load(Relaxed)).sum();
        let specs = view.routes.ids().filter_map(|id| view.engine.route_spec(id));
        let detection = specs.map(|spec| spec.timing.detection_time()).min();
        self.record_poll(now, frames, detection.unwrap_or(IDLE_DETECTION_TIME));
        let used = |index| view.routes.entries().any(|entry| entry.plan.ifindex == index);
        let interfaces = view.planner.host_state().interfaces.iter();
        let known = interfaces.map(|interface| (interface.index, interface.carrier));
        let known: CarrierStates = known.filter(|(index, _)| used(*index)).collect();
        if !known.is_empty() {
            actions.push(Action::PollCarriers(known));
        }
    }
}

#[cfg(test)]
mod tests {
    use netft_proto::ids::{PeerId, RouteId};

    use super::*;
    use crate::io::control::test_node::{TestNode, actions_of, due_actions};

    const DETECTION: Duration = Duration::from_millis(300);

    #[test]
    fn an_idle_node_asks_seldom_a_busy_one_often_and_a_doubt_at_once() {
        let at = Time::from_millis;
        let mut schedule = CarrierPoll::default();
        assert!(schedule.is_due(at(1000)));
        schedule.record_poll(at(1000), 0, DETECTION);
        assert!(!schedule.is_due(at(1119)) && schedule.is_due(at(1120)));
        let latest = "four fifths of the detection time at most";
        assert_eq!(schedule.next_wake(), Some(at(1240)), "{latest}");
        schedule.record_poll(at(1120), 5, DETECTION);
        assert!(!schedule.is_due(at(1129)) && schedule.is_due(at(1130)));
        assert_eq!(schedule.next_wake(), Some(at(1140)));
        let node = TestNode::new(0);
        actions_of(&mut schedule, at(1121), &Input::RouteSuspect, &node);
        assert!(schedule.is_due(at(1121)) && schedule.next_wake() <= Some(at(1121)));
        schedule.record_poll(at(1121), 5, DETECTION);
        assert!(!schedule.is_due(at(1240)));
    }

    #[test]
    fn a_short_detection_time_is_no_reason_to_ask_all_the_time() {
        let mut schedule = CarrierPoll::default();
        schedule.record_poll(Time::ZERO, 0, Duration::from_millis(30));
        assert!(!schedule.is_due(Time::from_millis(9)));
    }

    #[test]
    fn interfaces_with_routes_are_asked_and_others_are_not() {
        let mut node = TestNode::new(1);
        let mut schedule = CarrierPoll::default();
        let at = Time::from_millis;
        assert!(due_actions(&mut schedule, at(5000), &node).is_empty(), "no route, no question");
        node.add_route(PeerId(0));
        actions_of(&mut schedule, at(5000), &Input::SendFailed(RouteId(1)), &node);
        let due = due_actions(&mut schedule, at(5000), &node);
        assert!(
            matches!(&due[..], [Action::PollCarriers(known)] if *known == [(2, true)]),
            "{due:?}"
        );
        assert!(due_actions(&mut schedule, at(5001), &node).is_empty());
    }
}

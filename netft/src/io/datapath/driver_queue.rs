//! A worker's words to the driver: bounded, and send errors no more often than useful.

use std::time::Duration;

use netft_proto::{
    ids::{PeerId, RouteId},
    loss_detection::Reroute,
    time::Time,
    wire::DropReason,
};
use tokio::sync::mpsc;

use crate::io::{clock, counters::Counters, datapath::report::FromWorker};

/// How often the same error of the same route is repeated.
const ERROR_REPEAT_INTERVAL: Duration = Duration::from_millis(10);
/// How many errors are remembered; the oldest is forgotten (and may be repeated early).
const MAX_REMEMBERED_ERRORS: usize = 16;

/// The way to the driver.
pub(super) struct DriverQueue {
    to_driver: mpsc::Sender<FromWorker>,
    to_driver_deferred: mpsc::Sender<FromWorker>,
    recent_errors: [Option<(RouteId, i32, Time)>; MAX_REMEMBERED_ERRORS],
}

impl DriverQueue {
    pub(super) fn new(
        to_driver: mpsc::Sender<FromWorker>,
        to_driver_deferred: mpsc::Sender<FromWorker>,
    ) -> Self {
        Self { to_driver, to_driver_deferred, recent_errors: [None; MAX_REMEMBERED_ERRORS] }
    }

    /// Leaves a message where the driver finds it when it wakes up anyway; told at once when there
    /// is no more room for it.
    pub(super) fn send_deferred(&self, message: FromWorker, counters: &Counters) {
        if let Err(full) = self.to_driver_deferred.try_send(message) {
            self.send(full.into_inner(), counters);
        }
    }

    /// Tells the driver, or counts that its queue is full. Returns whether it was told.
    pub(super) fn send(&self, message: FromWorker, counters: &Counters) -> bool {
        let is_queued = self.to_driver.try_send(message).is_ok();
        if !is_queued {
            counters.count_drop(DropReason::QueueFull);
        }
        is_queued
    }

    /// Tells that a send failed.
    pub(super) fn report_send_error(&mut self, route: RouteId, errno: i32, counters: &Counters) {
        if self.is_report_due(route, errno, clock::now()) {
            self.send(FromWorker::SendError { route, errno }, counters);
        }
    }

    /// Tells that data on a route stays unacknowledged.
    pub(super) fn report_suspect(&mut self, route: RouteId, counters: &Counters) {
        // No errno is 0.
        if self.is_report_due(route, 0, clock::now()) {
            self.send(FromWorker::Suspect(route), counters);
        }
    }

    /// Tells that frames were sent again, and what route is to be judged for it.
    pub(super) fn report_reroute(
        &mut self,
        peer: PeerId,
        moved: &Reroute,
        frames: u64,
        counters: &Counters,
    ) {
        if moved.suspect {
            self.report_suspect(moved.from, counters);
        }
        let Reroute { from, to, waited, .. } = *moved;
        self.send(FromWorker::Resent { peer, from, to, frames, waited }, counters);
    }

    fn is_report_due(&mut self, route: RouteId, errno: i32, now: Time) -> bool {
        let known = |told: &Option<(RouteId, i32, Time)>| {
            told.is_some_and(|(of, error, _)| (of, error) == (route, errno))
        };
        let place = self.recent_errors.iter().position(known).unwrap_or_else(|| {
            let oldest =
                |(_, told): &(usize, &Option<(RouteId, i32, Time)>)| told.map(|(_, _, at)| at);
            self.recent_errors.iter().enumerate().min_by_key(oldest).map_or(0, |(place, _)| place)
        });
        if let Some((of, error, at)) = self.recent_errors[place]
            && (of, error) == (route, errno)
            && now.since(at) < ERROR_REPEAT_INTERVAL
        {
            return false;
        }
        self.recent_errors[place] = Some((route, errno, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_repeated_after_a_while_and_others_are_told_at_once() {
        let mut reports = DriverQueue::new(mpsc::channel(1).0, mpsc::channel(1).0);
        let at = Time::from_millis;
        assert!(reports.is_report_due(RouteId(1), 5, at(100)));
        assert!(!reports.is_report_due(RouteId(1), 5, at(105)));
        assert!(reports.is_report_due(RouteId(2), 5, at(105)));
        assert!(reports.is_report_due(RouteId(1), 6, at(105)));
        assert!(reports.is_report_due(RouteId(1), 5, at(110)));
        for route in 10..10 + MAX_REMEMBERED_ERRORS as u32 {
            assert!(reports.is_report_due(RouteId(route), 5, at(111)));
            assert!(!reports.is_report_due(RouteId(route), 5, at(112)));
        }
        assert!(reports.is_report_due(RouteId(1), 5, at(112)));
    }

    #[test]
    fn a_full_queue_is_counted() {
        let (to_driver, _held) = mpsc::channel(1);
        let reports = DriverQueue::new(to_driver, mpsc::channel(1).0);
        let counters = Counters::default();
        for _ in 0..3 {
            reports.send(FromWorker::AdapterError { worker: 0 }, &counters);
        }
        let dropped = &counters.drops[DropReason::QueueFull as usize];
        assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
    }

    #[test]
    fn what_is_left_for_later_is_told_at_once_when_there_is_no_room() {
        let (to_driver, mut now) = mpsc::channel(4);
        let (leave, mut later) = mpsc::channel(1);
        let reports = DriverQueue::new(to_driver, leave);
        let counters = Counters::default();
        reports.send_deferred(FromWorker::AdapterError { worker: 1 }, &counters);
        reports.send_deferred(FromWorker::AdapterError { worker: 2 }, &counters);
        assert!(matches!(later.try_recv(), Ok(FromWorker::AdapterError { worker: 1 })));
        assert!(matches!(now.try_recv(), Ok(FromWorker::AdapterError { worker: 2 })));
    }
}

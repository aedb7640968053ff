//! A worker's queue to the driver: bounded, with repeated send errors suppressed.

use std::time::Duration;

use netft_proto::{
    ids::{PeerId, RouteId},
    loss_detection::{DataLoss, DeliveryCounts, Reroute},
    time::Time,
    wire::DropReason,
};
use tokio::sync::mpsc;

use crate::io::{clock, counters::Counters, datapath::report::FromWorker};

/// Interval after which the same error of the same route is reported again.
const ERROR_REPEAT_INTERVAL: Duration = Duration::from_millis(10);
/// Limit of remembered errors; the oldest is forgotten, and may be reported again early.
const MAX_REMEMBERED_ERRORS: usize = 16;

/// The sending half of the queues to the driver.
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

    /// Queues a message that the driver reads when it next wakes up, without waking it. With that
    /// queue full, the message goes through the other one.
    pub(super) fn send_deferred(&self, message: FromWorker, counters: &Counters) {
        if let Err(full) = self.to_driver_deferred.try_send(message) {
            self.send(full.into_inner(), counters);
        }
    }

    /// Queues a message and wakes the driver, or counts that the queue is full. Returns whether the
    /// message was queued.
    pub(super) fn send(&self, message: FromWorker, counters: &Counters) -> bool {
        let is_queued = self.to_driver.try_send(message).is_ok();
        if !is_queued {
            counters.count_drop(DropReason::QueueFull);
        }
        is_queued
    }

    /// Reports a failed send.
    pub(super) fn report_send_error(&mut self, route: RouteId, errno: i32, counters: &Counters) {
        if self.is_report_due(route, errno, clock::now()) {
            self.send(FromWorker::SendError { route, errno }, counters);
        }
    }

    /// Reports that data on a route stays unacknowledged.
    pub(super) fn report_suspect(&mut self, route: RouteId, counters: &Counters) {
        // No errno is 0.
        if self.is_report_due(route, 0, clock::now()) {
            self.send(FromWorker::Suspect(route), counters);
        }
    }

    /// Reports that a route lost data alone.
    pub(super) fn report_data_loss(&self, loss: DataLoss, counters: &Counters) {
        self.send(FromWorker::DataLoss(loss), counters);
    }

    /// Reports a retransmission on another route, and whether it makes the first one suspect.
    pub(super) fn report_reroute(
        &mut self,
        peer: PeerId,
        reroute: &Reroute,
        (frames, counts): (u64, DeliveryCounts),
        counters: &Counters,
    ) {
        let Reroute { from, to, waited, suspect, .. } = *reroute;
        tracing::debug!(%peer, %from, %to, frames, ?waited, suspect, "frames retransmitted");
        if suspect {
            self.report_suspect(from, counters);
        }
        let silent = suspect.then_some(counts);
        self.send(FromWorker::Resent { peer, from, to, frames, waited, silent }, counters);
    }

    fn is_report_due(&mut self, route: RouteId, errno: i32, now: Time) -> bool {
        let is_same = |reported: &Option<(RouteId, i32, Time)>| {
            reported.is_some_and(|(of, error, _)| (of, error) == (route, errno))
        };
        let place = self.recent_errors.iter().position(is_same).unwrap_or_else(|| {
            let times = self.recent_errors.iter().map(|reported| reported.map(|(_, _, at)| at));
            times.enumerate().min_by_key(|(_, at)| *at).map_or(0, |(place, _)| place)
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
    fn an_error_is_repeated_after_a_while_and_others_are_reported_at_once() {
        let mut queue = DriverQueue::new(mpsc::channel(1).0, mpsc::channel(1).0);
        let at = Time::from_millis;
        assert!(queue.is_report_due(RouteId(1), 5, at(100)));
        assert!(!queue.is_report_due(RouteId(1), 5, at(105)));
        assert!(queue.is_report_due(RouteId(2), 5, at(105)));
        assert!(queue.is_report_due(RouteId(1), 6, at(105)));
        assert!(queue.is_report_due(RouteId(1), 5, at(110)));
        for route in 10..10 + MAX_REMEMBERED_ERRORS as u32 {
            assert!(queue.is_report_due(RouteId(route), 5, at(111)));
            assert!(!queue.is_report_due(RouteId(route), 5, at(112)));
        }
        assert!(queue.is_report_due(RouteId(1), 5, at(112)));
    }

    #[test]
    fn a_full_queue_is_counted() {
        let (to_driver, _held) = mpsc::channel(1);
        let queue = DriverQueue::new(to_driver, mpsc::channel(1).0);
        let counters = Counters::default();
        for _ in 0..3 {
            queue.send(FromWorker::AdapterError { worker: 0 }, &counters);
        }
        let dropped = &counters.drops[DropReason::QueueFull as usize];
        assert_eq!(dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
    }

    #[test]
    fn a_deferred_message_wakes_the_driver_when_the_deferred_queue_is_full() {
        let (to_driver, mut waking) = mpsc::channel(4);
        let (to_driver_deferred, mut deferred) = mpsc::channel(1);
        let queue = DriverQueue::new(to_driver, to_driver_deferred);
        let counters = Counters::default();
        queue.send_deferred(FromWorker::AdapterError { worker: 1 }, &counters);
        queue.send_deferred(FromWorker::AdapterError { worker: 2 }, &counters);
        assert!(matches!(deferred.try_recv(), Ok(FromWorker::AdapterError { worker: 1 })));
        assert!(matches!(waking.try_recv(), Ok(FromWorker::AdapterError { worker: 2 })));
    }
}

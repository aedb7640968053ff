//! The driver's queues, read without a runtime: its thread parks on a futex, which costs half of an
//! event loop's wake-up and keeps its timers to the microsecond.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    thread::Thread,
};

use netft_proto::time::Time;
use tokio::sync::mpsc;

use crate::io::{clock, datapath::report::FromWorker, messages::DriverMessage};

/// The reason of a wake-up.
pub(super) enum Wakeup {
    /// A message of a worker.
    Worker(FromWorker),
    /// A message of any other thread.
    Message(DriverMessage),
    /// The deadline.
    Timer,
    /// Every sender is gone.
    Closed,
}

/// The queues that wake the driver, and the one (`deferred`) that it reads only when it is awake.
/// To be used by the thread that made it.
pub(super) struct Mailbox {
    from_workers: mpsc::Receiver<FromWorker>,
    deferred: mpsc::Receiver<FromWorker>,
    messages: mpsc::Receiver<DriverMessage>,
    waker: Waker,
}

impl Mailbox {
    pub(super) fn new(
        from_workers: mpsc::Receiver<FromWorker>,
        deferred: mpsc::Receiver<FromWorker>,
        messages: mpsc::Receiver<DriverMessage>,
    ) -> Self {
        Self {
            from_workers,
            deferred,
            messages,
            waker: Arc::new(UnparkWaker(thread::current())).into(),
        }
    }

    /// Sleeps until a message arrives, at most until `until`. Messages that already arrived are
    /// read before any timer declares a route down (F-20), heartbeats first.
    pub(super) fn wait_until(&mut self, until: Time) -> Wakeup {
        let mut context = Context::from_waker(&self.waker);
        loop {
            if let Poll::Ready(message) = self.from_workers.poll_recv(&mut context) {
                return message.map_or(Wakeup::Closed, Wakeup::Worker);
            }
            if let Poll::Ready(message) = self.messages.poll_recv(&mut context) {
                return message.map_or(Wakeup::Closed, Wakeup::Message);
            }
            let left = until.since(clock::now());
            if left.is_zero() {
                return Wakeup::Timer;
            }
            thread::park_timeout(left);
        }
    }

    /// The next message that the workers have sent already, deferred ones first.
    pub(super) fn next_worker_message(&mut self) -> Option<FromWorker> {
        self.deferred.try_recv().or_else(|_| self.from_workers.try_recv()).ok()
    }
}

struct UnparkWaker(Thread);

impl Wake for UnparkWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use netft_proto::{ids::RouteId, route::EventKind};

    use super::*;

    type Ends =
        (Mailbox, mpsc::Sender<FromWorker>, mpsc::Sender<FromWorker>, mpsc::Sender<DriverMessage>);

    fn inbox() -> Ends {
        let (to_driver, workers) = mpsc::channel(4);
        let (leave, left) = mpsc::channel(4);
        let (driver, messages) = mpsc::channel(4);
        (Mailbox::new(workers, left, messages), to_driver, leave, driver)
    }

    fn far() -> Time {
        clock::now() + Duration::from_secs(3600)
    }

    #[test]
    fn what_arrived_is_heard_before_the_timer_and_workers_first() {
        let (mut inbox, to_driver, leave, driver) = inbox();
        leave.try_send(FromWorker::Suspect(RouteId(3))).unwrap();
        driver.try_send(DriverMessage::Event(EventKind::Reconfigured)).unwrap();
        to_driver.try_send(FromWorker::Suspect(RouteId(1))).unwrap();
        to_driver.try_send(FromWorker::Suspect(RouteId(2))).unwrap();
        assert!(matches!(
            inbox.wait_until(Time::ZERO),
            Wakeup::Worker(FromWorker::Suspect(RouteId(1)))
        ));
        assert!(matches!(inbox.next_worker_message(), Some(FromWorker::Suspect(RouteId(3)))));
        assert!(matches!(inbox.next_worker_message(), Some(FromWorker::Suspect(RouteId(2)))));
        assert!(inbox.next_worker_message().is_none());
        assert!(matches!(inbox.wait_until(Time::ZERO), Wakeup::Message(_)));
        leave.try_send(FromWorker::Suspect(RouteId(4))).unwrap();
        assert!(matches!(inbox.wait_until(Time::ZERO), Wakeup::Timer), "nobody wakes up for that");
    }

    #[test]
    fn a_sleeper_is_woken_from_another_thread() {
        let (mut inbox, to_driver, _leave, _driver) = inbox();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            to_driver.try_send(FromWorker::Suspect(RouteId(1))).unwrap();
            to_driver
        });
        assert!(matches!(inbox.wait_until(far()), Wakeup::Worker(_)));
        drop(other.join().unwrap());
        assert!(matches!(inbox.wait_until(far()), Wakeup::Closed));
    }
}

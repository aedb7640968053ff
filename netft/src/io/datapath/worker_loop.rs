//! The loop of one worker.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use netft_proto::{
    loss_detection::rtt_estimator, packet::busy_poll::BusyPoller, time::Time, wire::DropReason,
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        acks::AckSender,
        driver_queue::DriverQueue,
        registration::{QUEUE_TOKEN, WAKE_TOKEN, WorkerShared, socket_of},
        report::{FromWorker, WorkerIo},
        rx::RxPipeline,
        rx_context::RxContext,
        tx::{TxOutcome, TxPipeline},
        tx_context::TxContext,
    },
    fib::Fib,
    handover::ResumedSend,
    socket::{SocketId, TunQueue, UdpSocket},
    sys::epoll::EpollEvents,
};

/// Limit of consecutive temporary failures of a queue, after which it counts as dead.
const MAX_FAILURES: u32 = 16;
/// Limit of ready descriptors in one turn; the others come with the next wait.
const MAX_EVENTS: usize = 32;

/// One worker, before and while it runs.
pub(super) struct Worker {
    index: usize,
    shared: Arc<WorkerShared>,
    counters: Arc<Counters>,
    io: WorkerIo,
    driver_queue: DriverQueue,
    acks: AckSender,
    tx: TxPipeline,
    rx: RxPipeline,
    registration_version: u64,
    queue: Option<Arc<TunQueue>>,
    /// The registered sockets, each with its last count of lost datagrams.
    sockets: Vec<(Arc<UdpSocket>, u32)>,
    failures: u32,
    busy_poll: BusyPoller,
    /// End of the last turn that moved packets.
    last_traffic_at: Time,
    /// The driver has not been informed yet that the queue died.
    queue_death_unreported: bool,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        shared: Arc<WorkerShared>,
        counters: Arc<Counters>,
        io: WorkerIo,
    ) -> Self {
        let queue_id = index as u8;
        Self {
            index,
            shared,
            counters,
            driver_queue: DriverQueue::new(io.to_driver.clone(), io.to_driver_deferred.clone()),
            acks: AckSender::new(queue_id),
            tx: TxPipeline::new(queue_id, io.retransmit_limits),
            rx: RxPipeline::new(),
            busy_poll: BusyPoller::new(io.busy_poll),
            last_traffic_at: Time::ZERO,
            io,
            registration_version: 0,
            queue: None,
            sockets: Vec::new(),
            failures: 0,
            queue_death_unreported: false,
        }
    }

    /// Takes over what the same worker of a predecessor process left unacknowledged.
    pub(super) fn resume_sends(&mut self, sends: &[ResumedSend]) {
        for (session, send) in sends {
            self.tx.resume_send(session, send);
        }
    }

    /// Serves the registered descriptors until stopped. Returns the unacknowledged frames.
    pub(super) fn run(mut self) -> TxPipeline {
        tracing::debug!(worker = self.index, "worker started");
        self.serve_until_stopped();
        tracing::debug!(worker = self.index, "worker stopped");
        self.tx
    }

    fn serve_until_stopped(&mut self) {
        let mut events = EpollEvents::with_capacity(MAX_EVENTS);
        let shared = self.shared.clone();
        let mut due = self.next_deadline();
        while self.wait_for_events(&shared, &mut events, due).is_ok() {
            let woken = clock::now();
            shared.begin_turn(woken);
            let before = self.traffic_totals();
            let late = due.map_or(Duration::ZERO, |due| woken.since(due));
            // The eventfd is cleared before the state it announces is read: a change in between
            // writes it again, so none is missed.
            if events.tokens().any(|token| token == WAKE_TOKEN) {
                shared.clear_wake();
            }
            if shared.is_stopped() {
                return;
            }
            self.refresh_registrations();
            // Held for the turn only: an idle worker keeps no replaced table, and no socket, alive.
            let shared_fib = self.io.fib.clone();
            let fib = shared_fib.load();
            for id in events.tokens().filter_map(socket_of) {
                self.poll_socket(&fib, id);
            }
            let drained = self.rx.take_drained();
            self.acks.send_due_acks(&fib, &self.counters, clock::now(), drained);
            // After a late wake-up the sockets are read once more before silence counts as loss.
            let can_judge_silence = drained && late < rtt_estimator::MIN_PTO;
            let Self { tx, counters, driver_queue, acks, .. } = self;
            let mut context = TxContext { counters, driver_queue };
            tx.poll_loss_detection(&fib, &mut context, acks, can_judge_silence);
            // Retransmissions go before new data.
            if events.tokens().any(|token| token == QUEUE_TOKEN) {
                self.poll_adapter(&fib);
            }
            drop(fib);
            self.report_queue_death();
            // A late timer or a long turn means that this worker was not scheduled.
            let now = clock::now();
            self.record_traffic(before, woken, now);
            let stalled = late.max(now.since(woken));
            if stalled >= rtt_estimator::MIN_PTO {
                self.acks.record_stall(stalled, now);
            }
            shared.end_turn();
            due = self.next_deadline();
        }
    }

    /// Waits until a descriptor is ready or `due`: by busy polling at first, where the traffic is
    /// worth it.
    fn wait_for_events(
        &self,
        shared: &WorkerShared,
        events: &mut EpollEvents,
        due: Option<Time>,
    ) -> io::Result<()> {
        let spin_duration = self.busy_poll.poll_duration();
        if !spin_duration.is_zero() {
            let end = self.last_traffic_at + spin_duration;
            let end = due.map_or(end, |due| due.min(end));
            while clock::now() < end {
                shared.epoll.wait(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    return Ok(());
                }
                // The process that is waited for may need this core.
                std::thread::yield_now();
            }
        }
        shared.epoll.wait(events, due.map(|due| due.since(clock::now())))
    }

    /// Inner packets and bytes read and written so far.
    fn traffic_totals(&self) -> (u64, u64) {
        let Counters { adapter_reads, adapter_writes, tx_bytes, rx_bytes, .. } = &*self.counters;
        let sum = |one: &AtomicU64, other: &AtomicU64| one.load(Relaxed) + other.load(Relaxed);
        (sum(adapter_reads, adapter_writes), sum(tx_bytes, rx_bytes))
    }

    fn record_traffic(&mut self, before: (u64, u64), woken: Time, now: Time) {
        let (packets, bytes) = self.traffic_totals();
        if packets > before.0 {
            let waited = woken.since(self.last_traffic_at);
            self.busy_poll.on_traffic(packets - before.0, bytes - before.1, waited);
            self.last_traffic_at = now;
        }
    }

    /// Time of the next acknowledgement or loss detection timeout.
    fn next_deadline(&self) -> Option<Time> {
        let now = clock::now();
        let wait =
            [self.acks.ack_timeout(now), self.tx.loss_timeout()].into_iter().flatten().min()?;
        Some(now + wait)
    }

    fn refresh_registrations(&mut self) {
        let Some(registered) = self.shared.changed_since(&mut self.registration_version) else {
            return;
        };
        let known = std::mem::take(&mut self.sockets);
        let overflow = |id: SocketId| {
            known.iter().find(|(socket, _)| socket.id == id).map_or(0, |(_, count)| *count)
        };
        self.sockets = registered
            .sockets
            .into_iter()
            .map(|socket| {
                let count = overflow(socket.id);
                (socket, count)
            })
            .collect();
        self.queue = registered.queue;
        self.failures = 0;
        self.queue_death_unreported &= self.queue.is_none();
    }

    fn poll_adapter(&mut self, fib: &Fib) {
        let Some(queue) = &self.queue else { return };
        match self.tx.read_adapter(fib, queue, &self.counters, &mut self.driver_queue) {
            TxOutcome::Fine => self.failures = 0,
            TxOutcome::Failed => {
                Counters::count_drop(&self.counters, DropReason::AdapterFailed);
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    self.abandon_queue();
                }
            }
            TxOutcome::Dead => self.abandon_queue(),
        }
    }

    fn poll_socket(&mut self, fib: &Fib, id: SocketId) {
        let found = self.sockets.iter_mut().find(|(socket, _)| socket.id == id);
        let Some((socket, overflow)) = found else { return };
        let mut context = RxContext {
            fib,
            io: &self.io,
            queue: self.queue.as_deref(),
            counters: &self.counters,
            driver_queue: &mut self.driver_queue,
            acks: &mut self.acks,
        };
        if self.rx.read_socket(socket, overflow, &mut context) {
            self.abandon_queue();
        }
    }

    /// Deregisters a dead queue, which epoll would report as ready for ever.
    fn abandon_queue(&mut self) {
        self.failures = 0;
        let Some(queue) = self.queue.take() else { return };
        self.queue_death_unreported = self.shared.abandon_queue(&queue);
    }

    /// Reports the death of the queue to the driver once; the next turn retries when the driver
    /// queue is full.
    fn report_queue_death(&mut self) {
        if self.queue_death_unreported {
            let message = FromWorker::AdapterError { worker: self.index };
            self.queue_death_unreported = !self.driver_queue.send(message, &self.counters);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use netft_proto::loss_detection::RetransmitLimits;
    use tokio::sync::mpsc;

    use super::*;

    /// The number of times this thread has slept.
    fn voluntary_switches() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    }

    /// Waits like a worker that has just moved a packet, 10 µs after another one. Returns whether
    /// an event arrived, and how often the thread slept.
    fn wait_after_packet(
        busy_poll: Duration,
        arrival: Option<Duration>,
        due: Duration,
    ) -> (bool, u64) {
        let shared = Arc::new(WorkerShared::new().unwrap());
        let (to_driver, _driver) = mpsc::channel(1);
        let (to_quic, _quic) = mpsc::channel(1);
        let io = WorkerIo {
            fib: Arc::default(),
            to_driver_deferred: to_driver.clone(),
            to_driver,
            to_quic,
            retransmit_limits: RetransmitLimits::default(),
            busy_poll,
        };
        let mut worker = Worker::new(0, shared.clone(), Arc::default(), io);
        worker.busy_poll.on_traffic(1, 60, Duration::from_micros(10));
        let now = clock::now();
        worker.last_traffic_at = now;
        let waker = arrival.map(|after| {
            let shared = shared.clone();
            thread::spawn(move || {
                thread::sleep(after);
                shared.wake_worker();
            })
        });
        let mut events = EpollEvents::with_capacity(MAX_EVENTS);
        let before = voluntary_switches();
        worker.wait_for_events(&shared, &mut events, Some(now + due)).unwrap();
        let slept = voluntary_switches() - before;
        waker.into_iter().for_each(|waker| waker.join().unwrap());
        (!events.is_empty(), slept)
    }

    #[test]
    fn an_event_that_arrives_soon_is_polled_for_and_others_are_slept_for() {
        let ms = Duration::from_millis;
        let far = Duration::from_secs(60);
        assert_eq!(wait_after_packet(far, Some(ms(5)), far), (true, 0));
        let (arrived, slept) = wait_after_packet(Duration::ZERO, Some(ms(5)), far);
        assert!(arrived && slept > 0, "{slept}");
        // Long: a thread that is not scheduled until the deadline does not sleep either.
        let (arrived, slept) = wait_after_packet(ms(2), None, ms(500));
        assert!(!arrived && slept > 0, "polled no longer than that: {slept}");
        assert_eq!(wait_after_packet(far, None, ms(20)), (false, 0), "a deadline ends the polling");
    }
}

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
    loss_detection::rtt_estimator, packet::busy_poll::Patience, time::Time, wire::DropReason,
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        FromWorker, WorkerIo,
        acks::Acks,
        driver_queue::Reports,
        registration::{QUEUE, Shared, WAKE, socket_of},
        rx::{Lent, Rx},
        tx::{Outcome, Tx},
        tx_batch::Context,
    },
    fib::{Fib, SocketId, TunQueue, UdpSocket},
    sys::epoll::Events,
};

/// How often in a row a queue may fail in a way that may pass, before it counts as dead.
const MAX_FAILURES: u32 = 16;
/// The most ready descriptors taken at once; the others come with the next wait.
const MAX_EVENTS: usize = 32;

/// One worker, before and while it runs.
pub(super) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    io: WorkerIo,
    reports: Reports,
    acks: Acks,
    tx: Tx,
    rx: Rx,
    seen: u64,
    queue: Option<Arc<TunQueue>>,
    /// The sockets, each with its last count of lost datagrams.
    sockets: Vec<(Arc<UdpSocket>, u32)>,
    failures: u32,
    patience: Patience,
    /// When a turn last ended that moved packets.
    moved_at: Time,
    /// The driver has not been told yet that the queue died.
    error_due: bool,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        io: WorkerIo,
    ) -> Self {
        let lane = index as u8;
        Self {
            index,
            shared,
            counters,
            reports: Reports::new(io.to_driver.clone(), io.later.clone()),
            acks: Acks::new(lane),
            tx: Tx::new(lane, io.resend),
            rx: Rx::new(),
            patience: Patience::new(io.busy_poll),
            moved_at: Time::ZERO,
            io,
            seen: 0,
            queue: None,
            sockets: Vec::new(),
            failures: 0,
            error_due: false,
        }
    }

    /// Works until stopped.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(MAX_EVENTS);
        let shared = self.shared.clone();
        let mut due = self.due();
        while self.wait(&shared, &mut events, due).is_ok() {
            let woken = clock::now();
            let before = self.traffic();
            let late = due.map_or(Duration::ZERO, |due| woken.since(due));
            // The wake-up goes first, then what it may have announced is read: a change after the
            // drain wakes again, so none is slept through.
            if events.iter().any(|ready| ready.token == WAKE) {
                shared.drain_wake();
            }
            if shared.stopped() {
                return;
            }
            self.refresh();
            // Held for the turn only: an idle worker keeps no old table, hence no socket, alive.
            let shared_fib = self.io.fib.clone();
            let fib = shared_fib.load();
            for ready in events.iter() {
                if let Some(id) = socket_of(ready.token) {
                    self.socket_turn(&fib, id, ready.error);
                }
            }
            let drained = self.rx.drained();
            self.acks.pay(&fib, &self.counters, clock::now(), drained);
            // Whoever slept looks once more before it blames anyone.
            let quiet = drained && late < rtt_estimator::FLOOR;
            let Self { tx, counters, reports, acks, .. } = &mut self;
            tx.service(&fib, &mut Context { counters, reports }, acks, quiet);
            // New data goes after what is sent again.
            if events.iter().any(|ready| ready.token == QUEUE) {
                self.adapter_turn(&fib);
            }
            drop(fib);
            self.report_death();
            // Late timers and long turns: this worker was not scheduled.
            let now = clock::now();
            self.note_traffic(before, woken, now);
            let stalled = late.max(now.since(woken));
            if stalled >= rtt_estimator::FLOOR {
                self.acks.stalled(stalled, now);
            }
            due = self.due();
        }
    }

    /// Waits until something is ready, awake at first where that is worth it.
    fn wait(&self, shared: &Shared, events: &mut Events, due: Option<Time>) -> io::Result<()> {
        let look = self.patience.look();
        if !look.is_zero() {
            let end = self.moved_at + look;
            let end = due.map_or(end, |due| due.min(end));
            while clock::now() < end {
                shared.epoll.wait(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    return Ok(());
                }
                // Whoever has something to do on this core may be the one that is waited for.
                std::thread::yield_now();
            }
        }
        shared.epoll.wait(events, due.map(|due| due.since(clock::now())))
    }

    /// Inner packets and bytes moved so far.
    fn traffic(&self) -> (u64, u64) {
        let Counters { adapter_reads, adapter_writes, tx_bytes, rx_bytes, .. } = &*self.counters;
        let sum = |one: &AtomicU64, other: &AtomicU64| one.load(Relaxed) + other.load(Relaxed);
        (sum(adapter_reads, adapter_writes), sum(tx_bytes, rx_bytes))
    }

    fn note_traffic(&mut self, before: (u64, u64), woken: Time, now: Time) {
        let (packets, bytes) = self.traffic();
        if packets > before.0 {
            let waited = woken.since(self.moved_at);
            self.patience.moved(packets - before.0, bytes - before.1, waited);
            self.moved_at = now;
        }
    }

    /// When an acknowledgement or a resend is due.
    fn due(&self) -> Option<Time> {
        let now = clock::now();
        let wait = [self.acks.wait(now), self.tx.wait()].into_iter().flatten().min()?;
        Some(now + wait)
    }

    fn refresh(&mut self) {
        let Some(watched) = self.shared.news(&mut self.seen) else { return };
        let known = std::mem::take(&mut self.sockets);
        let overflow = |id: SocketId| {
            known.iter().find(|(socket, _)| socket.id == id).map_or(0, |(_, count)| *count)
        };
        self.sockets = watched
            .sockets
            .into_iter()
            .map(|socket| {
                let count = overflow(socket.id);
                (socket, count)
            })
            .collect();
        self.queue = watched.queue;
        self.failures = 0;
        self.error_due &= self.queue.is_none();
    }

    fn adapter_turn(&mut self, fib: &Fib) {
        let Some(queue) = &self.queue else { return };
        match self.tx.turn(fib, queue, &self.counters, &mut self.reports) {
            Outcome::Fine => self.failures = 0,
            Outcome::Failed => {
                Counters::count(&self.counters, DropReason::AdapterFailed);
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    self.give_up();
                }
            }
            Outcome::Dead => self.give_up(),
        }
    }

    fn socket_turn(&mut self, fib: &Fib, id: SocketId, error: bool) {
        let found = self.sockets.iter_mut().find(|(socket, _)| socket.id == id);
        let Some((socket, overflow)) = found else { return };
        let mut lent = Lent {
            fib,
            io: &self.io,
            queue: self.queue.as_deref(),
            counters: &self.counters,
            reports: &mut self.reports,
            acks: &mut self.acks,
        };
        if error {
            self.rx.errors(socket, &mut lent);
        }
        if self.rx.turn(socket, overflow, &mut lent) {
            self.give_up();
        }
    }

    /// Stops watching a dead queue, which would be ready for ever, and tells the driver once.
    fn give_up(&mut self) {
        self.failures = 0;
        let Some(queue) = self.queue.take() else { return };
        self.error_due = self.shared.give_up(&queue);
    }

    /// Tells the driver once that the queue died; again next turn when its own queue is full.
    fn report_death(&mut self) {
        if self.error_due {
            let message = FromWorker::AdapterError { worker: self.index };
            self.error_due = !self.reports.send(message, &self.counters);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use netft_proto::loss_detection::Limits;
    use tokio::sync::mpsc;

    use super::*;

    /// How often this thread has gone to sleep.
    fn sleeps() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    }

    /// Waits like a worker that moved a packet just before, 10 µs after another one. Returns
    /// whether something came, and how often it slept.
    fn wait(busy_poll: Duration, comes: Option<Duration>, due: Duration) -> (bool, u64) {
        let shared = Arc::new(Shared::new().unwrap());
        let (to_driver, _driver) = mpsc::channel(1);
        let (to_quic, _quic) = mpsc::channel(1);
        let (fib, later, resend) = (Arc::default(), to_driver.clone(), Limits::default());
        let io = WorkerIo { fib, to_driver, later, to_quic, resend, busy_poll };
        let mut worker = Worker::new(0, shared.clone(), Arc::default(), io);
        worker.patience.moved(1, 60, Duration::from_micros(10));
        let now = clock::now();
        worker.moved_at = now;
        let waker = comes.map(|after| {
            let shared = shared.clone();
            thread::spawn(move || {
                thread::sleep(after);
                shared.wake();
            })
        });
        let mut events = Events::with_capacity(MAX_EVENTS);
        let before = sleeps();
        worker.wait(&shared, &mut events, Some(now + due)).unwrap();
        let slept = sleeps() - before;
        waker.into_iter().for_each(|waker| waker.join().unwrap());
        (!events.is_empty(), slept)
    }

    #[test]
    fn what_comes_soon_is_waited_for_awake_and_the_rest_asleep() {
        let ms = Duration::from_millis;
        let far = Duration::from_secs(60);
        assert_eq!(wait(far, Some(ms(5)), far), (true, 0));
        let (came, slept) = wait(Duration::ZERO, Some(ms(5)), far);
        assert!(came && slept > 0, "{slept}");
        let (came, slept) = wait(ms(2), None, ms(20));
        assert!(!came && slept > 0, "no longer than that: {slept}");
        assert_eq!(wait(far, None, ms(20)), (false, 0), "whatever else is due is not forgotten");
    }
}

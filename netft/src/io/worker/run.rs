//! The loop of one worker.

use std::{sync::Arc, time::Duration};

use super::{
    FromWorker, WorkerIo,
    acks::Acks,
    out::Context,
    report::Reports,
    rx::{Lent, Rx},
    tx::{Outcome, Tx},
    watch::{QUEUE, Shared, WAKE, socket_of},
};
use crate::io::{
    clock,
    counters::Counters,
    fib::{Fib, SocketId, TunQueue, UdpSocket},
    sys::epoll::Events,
};
use crate::{route::recovery, time::Time, wire::DropReason};

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
        while shared.epoll.wait(&mut events, due.map(|due| due.since(clock::now()))).is_ok() {
            let woken = clock::now();
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
            let quiet = drained && late < recovery::FLOOR;
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
            let stalled = late.max(now.since(woken));
            if stalled >= recovery::FLOOR {
                self.acks.stalled(stalled, now);
            }
            due = self.due();
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

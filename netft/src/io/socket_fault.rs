//! The fault of a drill at a socket: it drops, delays or passes datagrams from and to some remote
//! ends.
//!
//! It lives in this process alone. A socket with a fault has a timer in the place of its
//! descriptor: every send and receive fails at once with `ENOTSOCK`, and the path of errors leads
//! here. The kernel's socket stays open and registered, so nothing that arrives is lost by the
//! change, and the end of the process is the end of the fault.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use netft_proto::{
    drill::{DatagramDice, DrillFault},
    time::Time,
    wire::DropReason,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::io::{
    clock,
    counters::Counters,
    sys::{udp, udp::ReceivedBatch},
};

/// Most bytes that a fault holds back in each direction of a socket; what comes beyond is dropped.
const MAX_HELD_BYTES: usize = 32 << 20;
/// Receives of one call that may leave nothing to deliver.
const MAX_RECEIVES: usize = 64;

/// The fault of a drill, shared by its sockets.
pub(in crate::io) struct FaultSwitch {
    fault: DrillFault,
    is_lifted: AtomicBool,
    dropped: AtomicU64,
    counters: Arc<Counters>,
}

impl FaultSwitch {
    /// A fault that is there; what it drops is counted in `counters`, too.
    pub(in crate::io) fn new(fault: DrillFault, counters: Arc<Counters>) -> Self {
        let (is_lifted, dropped) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { fault, is_lifted, dropped, counters }
    }

    /// Passes everything from here on.
    pub(in crate::io) fn lift(&self) {
        self.is_lifted.store(true, Relaxed);
    }

    fn is_lifted(&self) -> bool {
        self.is_lifted.load(Relaxed)
    }

    /// Datagrams dropped so far.
    pub(in crate::io) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    fn count_dropped(&self, datagrams: usize) {
        self.dropped.fetch_add(datagrams as u64, Relaxed);
        self.counters.count_drops(DropReason::DrillFault, datagrams as u64);
    }
}

/// One send.
pub(in crate::io) struct OutgoingDatagrams<'a> {
    pub(in crate::io) remote: SocketAddr,
    pub(in crate::io) bytes: &'a [u8],
    /// Bytes of each datagram but the last; `None` for one datagram.
    pub(in crate::io) segment: Option<u16>,
    pub(in crate::io) tos: Option<u8>,
}

impl OutgoingDatagrams<'_> {
    /// Bytes of each datagram but the last.
    fn stride(&self) -> usize {
        self.segment.map_or(self.bytes.len(), usize::from).max(1)
    }

    fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.stride()).max(1)
    }

    fn send_on(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        udp::send_to(socket, &self.remote, self.bytes, self.segment, self.tos)
    }
}

/// Datagrams held back until they are due.
struct HeldDatagrams {
    due: Time,
    remote: SocketAddr,
    bytes: Vec<u8>,
    stride: usize,
    tos: Option<u8>,
}

/// Datagrams held back in one direction, the first to be due in front.
#[derive(Default)]
struct HeldQueue {
    queue: VecDeque<HeldDatagrams>,
    bytes: usize,
}

impl HeldQueue {
    /// Takes datagrams; false if there is no room.
    fn push(&mut self, held: HeldDatagrams) -> bool {
        let has_room = self.bytes + held.bytes.len() <= MAX_HELD_BYTES;
        if has_room {
            self.bytes += held.bytes.len();
            self.queue.push_back(held);
        }
        has_room
    }

    /// The next datagrams, if they are due.
    fn pop_due(&mut self, now: Time) -> Option<HeldDatagrams> {
        let held = self.queue.pop_front_if(|held| held.due <= now)?;
        self.bytes -= held.bytes.len();
        Some(held)
    }

    fn next_due(&self) -> Option<Time> {
        self.queue.front().map(|held| held.due)
    }
}

struct FaultState {
    dice: DatagramDice,
    outgoing: HeldQueue,
    incoming: HeldQueue,
}

/// The descriptors of a socket with a fault.
#[derive(Clone, Copy)]
pub(in crate::io) struct FaultDescriptors<'a> {
    /// The kernel's socket.
    pub(in crate::io) socket: BorrowedFd<'a>,
    /// The timer.
    pub(in crate::io) timer: BorrowedFd<'a>,
}

/// A fault between a socket and some remote ends.
pub(in crate::io) struct SocketFault {
    remotes: BTreeSet<SocketAddr>,
    switch: Arc<FaultSwitch>,
    state: Mutex<FaultState>,
}

impl SocketFault {
    pub(in crate::io) fn new(remotes: BTreeSet<SocketAddr>, switch: Arc<FaultSwitch>) -> Self {
        let dice = DatagramDice::new(clock::now().as_nanos());
        let (outgoing, incoming) = (HeldQueue::default(), HeldQueue::default());
        let state = Mutex::new(FaultState { dice, outgoing, incoming });
        Self { remotes, switch, state }
    }

    fn lock_state(&self) -> MutexGuard<'_, FaultState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_harmed(&self, remote: &SocketAddr) -> bool {
        !self.switch.is_lifted() && self.remotes.contains(remote)
    }

    /// Sends datagrams as the fault lets them pass.
    pub(in crate::io) fn send(
        &self,
        datagrams: &OutgoingDatagrams<'_>,
        fds: FaultDescriptors<'_>,
    ) -> io::Result<()> {
        if !self.is_harmed(&datagrams.remote) {
            return datagrams.send_on(fds.socket);
        }
        match self.switch.fault {
            DrillFault::Blackhole | DrillFault::OneWay | DrillFault::Carrier => {
                self.switch.count_dropped(datagrams.count());
                Ok(())
            }
            DrillFault::Loss(percent) => {
                let stride = datagrams.stride();
                let (mut bytes, mut kept) = (Vec::with_capacity(datagrams.bytes.len()), 0);
                let dice = &mut self.lock_state().dice;
                for datagram in datagrams.bytes.chunks(stride) {
                    if !dice.loses(percent) {
                        bytes.extend_from_slice(datagram);
                        kept += 1;
                    }
                }
                self.switch.count_dropped(datagrams.count() - kept);
                let segment = datagrams.segment.filter(|_| kept > 1);
                match kept {
                    0 => Ok(()),
                    _ => OutgoingDatagrams { bytes: &bytes, segment, ..*datagrams }
                        .send_on(fds.socket),
                }
            }
            DrillFault::Delay(by) => {
                let held = HeldDatagrams {
                    due: clock::now() + by,
                    remote: datagrams.remote,
                    bytes: datagrams.bytes.to_vec(),
                    stride: datagrams.segment.map_or(0, usize::from),
                    tos: datagrams.tos,
                };
                let mut state = self.lock_state();
                if !state.outgoing.push(held) {
                    self.switch.count_dropped(datagrams.count());
                }
                arm_timer(fds.timer, &state);
                Ok(())
            }
        }
    }

    /// Receives one batch as the fault lets it pass.
    pub(in crate::io) fn receive(
        &self,
        buf: &mut [u8],
        fds: FaultDescriptors<'_>,
    ) -> io::Result<Option<ReceivedBatch>> {
        let mut state = self.lock_state();
        self.send_due(&mut state, fds);
        for _ in 0..MAX_RECEIVES {
            if let Some(held) = state.incoming.pop_due(self.due_until())
                && let Some(place) = buf.get_mut(..held.bytes.len())
            {
                place.copy_from_slice(&held.bytes);
                let (len, from) = (held.bytes.len(), held.remote);
                let segment = held.stride;
                return Ok(Some(ReceivedBatch { len, segment, from, dropped_total: None }));
            }
            let Some(batch) = udp::recv_batch(fds.socket, buf)? else { break };
            if !self.is_harmed(&batch.from) {
                return Ok(Some(batch));
            }
            if let Some(batch) = self.let_pass(&mut state, buf, batch) {
                return Ok(Some(batch));
            }
        }
        arm_timer(fds.timer, &state);
        Ok(None)
    }

    /// Returns what the fault leaves of a batch at once.
    fn let_pass(
        &self,
        state: &mut FaultState,
        buf: &mut [u8],
        batch: ReceivedBatch,
    ) -> Option<ReceivedBatch> {
        let stride = batch.segment.max(1);
        let count = batch.len.div_ceil(stride).max(1);
        match self.switch.fault {
            DrillFault::OneWay => return Some(batch),
            DrillFault::Blackhole | DrillFault::Carrier => self.switch.count_dropped(count),
            DrillFault::Loss(percent) => {
                let (mut len, mut kept) = (0, 0);
                for start in (0..batch.len.max(1)).step_by(stride) {
                    if !state.dice.loses(percent) {
                        let end = (start + stride).min(batch.len);
                        buf.copy_within(start..end, len);
                        len += end - start;
                        kept += 1;
                    }
                }
                self.switch.count_dropped(count - kept);
                return (kept > 0).then_some(ReceivedBatch { len, ..batch });
            }
            DrillFault::Delay(by) => {
                let held = HeldDatagrams {
                    due: clock::now() + by,
                    remote: batch.from,
                    bytes: buf[..batch.len].to_vec(),
                    stride: batch.segment,
                    tos: None,
                };
                if !state.incoming.push(held) {
                    self.switch.count_dropped(count);
                }
            }
        }
        None
    }

    /// Held datagrams are due until then: all of them once the fault is lifted.
    fn due_until(&self) -> Time {
        if self.switch.is_lifted() { Time::from_nanos(u64::MAX) } else { clock::now() }
    }

    fn send_due(&self, state: &mut FaultState, fds: FaultDescriptors<'_>) {
        while let Some(held) = state.outgoing.pop_due(self.due_until()) {
            let segment = u16::try_from(held.stride).ok().filter(|stride| *stride > 0);
            let HeldDatagrams { remote, bytes, tos, .. } = &held;
            let datagrams = OutgoingDatagrams { remote: *remote, bytes, segment, tos: *tos };
            if datagrams.send_on(fds.socket).is_err() {
                self.switch.count_dropped(datagrams.count());
            }
        }
    }

    /// Sends what is held once the fault is lifted, and has the worker read the rest.
    pub(in crate::io) fn release_held(&self, fds: FaultDescriptors<'_>) {
        let mut state = self.lock_state();
        self.send_due(&mut state, fds);
        if state.incoming.next_due().is_some() {
            set_timer(fds.timer, Some(Duration::ZERO));
        }
    }
}

impl Drop for SocketFault {
    fn drop(&mut self) {
        let held = {
            let state = self.lock_state();
            state.outgoing.queue.len() + state.incoming.queue.len()
        };
        if held > 0 {
            self.switch.count_dropped(held);
        }
    }
}

/// A timer that is not armed.
///
/// # Errors
/// No descriptor is left.
pub(in crate::io) fn open_timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

/// Has the timer expire when something held is due; a former expiry is cleared.
fn arm_timer(timer: BorrowedFd<'_>, state: &FaultState) {
    let due = [state.outgoing.next_due(), state.incoming.next_due()].into_iter().flatten().min();
    set_timer(timer, due.map(|due| due.since(clock::now())));
}

/// Sets the timer; `None` disarms it.
fn set_timer(timer: BorrowedFd<'_>, wait: Option<Duration>) {
    // Zero would disarm it.
    let wait = wait.map_or(Duration::ZERO, |wait| wait.max(Duration::from_nanos(1)));
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() };
    let spec = Itimerspec { it_interval: zero, it_value: value };
    // A valid time on an open timer is never refused.
    let _ = timerfd_settime(timer, TimerfdTimerFlags::empty(), &spec);
}

//! Packet loss and interruption as an application sees them: numbered datagrams at a fixed rate.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::{error::LabError, netns::Netns, transfer};

/// Time between two datagrams.
pub const PROBE_PERIOD: Duration = Duration::from_millis(1);
/// Backlog a sender makes up for after it was not scheduled; a larger burst would overflow queues
/// by itself.
const MAX_CATCH_UP: Duration = Duration::from_millis(5);
/// Receive buffer of the receiver's socket, bytes; the system's limit applies.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Bytes of a datagram.
const DATAGRAM_SIZE: usize = 64;
/// Wait for late datagrams after the last one was sent.
const STRAGGLER_WAIT: Duration = Duration::from_millis(300);

/// A stream of numbered datagrams in one direction at a fixed rate, until finished.
#[derive(Debug)]
pub struct DatagramProbe {
    shared: Arc<SharedLog>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct SharedLog {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    log: Mutex<ProbeLog>,
}

/// Times of sending and arrival of every datagram. Memory grows by 24 bytes per datagram.
#[derive(Clone, Debug, Default)]
pub struct ProbeLog {
    /// Time of sending, by number.
    pub sent: Vec<Instant>,
    /// Sends that the kernel refused because a queue was full; the same number is sent again later.
    pub refused: u64,
    /// Number and time of every arrival, in order of arrival.
    pub received: Vec<(u64, Instant)>,
}

/// Figures of one span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Of these, arrivals beyond the first.
    pub duplicates: u64,
    /// The longest time without an arrival.
    pub longest_gap: Duration,
}

impl DatagramProbe {
    /// Starts a probe from `local` in `from` to `remote` in `to`, one datagram per
    /// [`PROBE_PERIOD`]; port 0 means any.
    ///
    /// # Errors
    /// When a socket cannot be bound (the address is not there).
    pub fn start(from: (&Netns, SocketAddr), to: (&Netns, SocketAddr)) -> Result<Self, LabError> {
        Self::start_with_period(from, to, PROBE_PERIOD)
    }

    /// The same with one datagram per `period`.
    ///
    /// # Errors
    /// As [`DatagramProbe::start`].
    pub fn start_with_period(
        (from, local): (&Netns, SocketAddr),
        (to, remote): (&Netns, SocketAddr),
        period: Duration,
    ) -> Result<Self, LabError> {
        let bind = |netns: &Netns, address: SocketAddr| {
            netns
                .run_inside(|| UdpSocket::bind(address))
                .map_err(LabError::io_error(format!("bind a probe to {address}")))
        };
        let (output, input) = (bind(from, local)?, bind(to, remote)?);
        // Port 0: the kernel chose one. The scope of `remote` stays.
        let mut target = remote;
        target.set_port(input.local_addr().map_err(LabError::io_error("ask for a port"))?.port());
        input
            .set_read_timeout(Some(Duration::from_millis(20)))
            .map_err(LabError::io_error("set a timeout"))?;
        // A blocking sender would stop measuring while the queue of a neighbour in resolution is
        // full.
        output.set_nonblocking(true).map_err(LabError::io_error("unblock a probe"))?;
        SockRef::from(&input)
            .set_recv_buffer_size(RECEIVE_BUFFER)
            .map_err(LabError::io_error("set a buffer"))?;
        let shared = Arc::new(SharedLog::default());
        let receiver = thread::spawn({
            let shared = Arc::clone(&shared);
            move || receive_datagrams(&input, &shared)
        });
        let sender = thread::spawn({
            let shared = Arc::clone(&shared);
            move || send_datagrams(&output, with_local_scope(target, local), period, &shared)
        });
        Ok(Self { shared, sender, receiver })
    }

    /// The log so far. The last datagrams may still be in flight.
    pub fn log_so_far(&self) -> ProbeLog {
        self.shared.lock_log().clone()
    }

    /// Stops, waits for late datagrams and returns the log.
    pub fn finish(self) -> ProbeLog {
        self.shared.stop_sending.store(true, Relaxed);
        // A thread that panicked has printed why; its log ends early.
        let _ = self.sender.join();
        thread::sleep(STRAGGLER_WAIT);
        self.shared.stop_receiving.store(true, Relaxed);
        let _ = self.receiver.join();
        std::mem::take(&mut *self.shared.lock_log())
    }
}

/// A link-local target needs the scope of the sending side's interface.
fn with_local_scope(target: SocketAddr, local: SocketAddr) -> SocketAddr {
    match (target, local) {
        (SocketAddr::V6(mut target), SocketAddr::V6(local)) if local.scope_id() != 0 => {
            target.set_scope_id(local.scope_id());
            target.into()
        }
        _ => target,
    }
}

impl SharedLog {
    fn lock_log(&self) -> MutexGuard<'_, ProbeLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_datagrams(socket: &UdpSocket, target: SocketAddr, period: Duration, shared: &SharedLog) {
    let mut datagram = [0; DATAGRAM_SIZE];
    let mut due = Instant::now();
    let mut number = 0u64;
    while !shared.stop_sending.load(Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due = due.max(Instant::now() - MAX_CATCH_UP.max(period)) + period;
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        let at = Instant::now();
        let full = |error: &io::Error| {
            error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
        };
        match socket.send_to(&datagram, target) {
            Err(error) if full(&error) => shared.lock_log().refused += 1,
            // Any other error counts as sent and lost, as it is for the application.
            _ => {
                shared.lock_log().sent.push(at);
                number += 1;
            }
        }
    }
}

fn receive_datagrams(socket: &UdpSocket, shared: &SharedLog) {
    let mut datagram = [0; DATAGRAM_SIZE];
    while !shared.stop_receiving.load(Relaxed) {
        match socket.recv(&mut datagram) {
            Ok(DATAGRAM_SIZE) => {
                let number = datagram.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                shared.lock_log().received.push((number, Instant::now()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The address may be deleted and added again while the probe runs.
            Err(_) => thread::sleep(PROBE_PERIOD),
        }
    }
}

impl ProbeLog {
    /// Figures of the whole log.
    pub fn full_report(&self) -> ProbeReport {
        match (self.sent.first(), self.sent.last()) {
            (Some(first), Some(last)) => self.report_between(*first, *last + PROBE_PERIOD),
            _ => ProbeReport::default(),
        }
    }

    /// Figures of the datagrams sent from `start` (included) to `end` (excluded).
    pub fn report_between(&self, start: Instant, end: Instant) -> ProbeReport {
        let arrivals = self.arrival_counts();
        let mut report =
            ProbeReport { longest_gap: self.longest_gap(start, end), ..ProbeReport::default() };
        for (sent, arrivals) in self.sent.iter().zip(arrivals) {
            if (start..end).contains(sent) {
                report.sent += 1;
                report.lost += u64::from(arrivals == 0);
                report.duplicates += u64::from(arrivals.saturating_sub(1));
            }
        }
        report
    }

    /// The longest time from sending to arriving among what was sent from `start` (included) to
    /// `end` (excluded), and arrived.
    pub fn max_delay(&self, start: Instant, end: Instant) -> Duration {
        let delay = |(number, at): &(u64, Instant)| {
            let sent = self.sent.get(usize::try_from(*number).ok()?)?;
            (start..end).contains(sent).then(|| at.saturating_duration_since(*sent))
        };
        self.received.iter().filter_map(delay).max().unwrap_or_default()
    }

    /// Times of sending of lost datagrams.
    pub fn lost_send_times(&self) -> Vec<Instant> {
        let lost =
            self.sent.iter().zip(self.arrival_counts()).filter(|(_, arrivals)| *arrivals == 0);
        lost.map(|(sent, _)| *sent).collect()
    }

    fn arrival_counts(&self) -> Vec<u32> {
        let mut arrivals = vec![0; self.sent.len()];
        for (number, _) in &self.received {
            if let Some(count) = usize::try_from(*number).ok().and_then(|n| arrivals.get_mut(n)) {
                *count += 1;
            }
        }
        arrivals
    }

    fn longest_gap(&self, start: Instant, end: Instant) -> Duration {
        transfer::longest_gap(self.received.iter().map(|(_, at)| *at), start, end)
    }
}

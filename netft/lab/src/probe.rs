//! What an application feels, packet by packet: numbered datagrams at a fixed pace.

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

use super::{LabError, Netns};

/// Time between two datagrams.
pub const PROBE_PERIOD: Duration = Duration::from_millis(1);
/// A sender that was not scheduled makes up for this much; more would be a burst that measures
/// itself.
const CATCH_UP: Duration = Duration::from_millis(5);
/// What the receiver's socket holds while nobody reads: 4 MiB, or the system's limit.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Bytes of a datagram.
const DATAGRAM_SIZE: usize = 64;
/// How long the receiver waits for stragglers after the last datagram was sent.
const STRAGGLER_WAIT: Duration = Duration::from_millis(300);

/// A stream of numbered datagrams in one direction at a fixed pace, until finished.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<ProbeState>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct ProbeState {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    log: Mutex<ProbeLog>,
}

/// When each datagram was sent and received. Memory grows by 24 bytes per datagram.
#[derive(Clone, Debug, Default)]
pub struct ProbeLog {
    /// When the datagram of that number was sent.
    pub sent: Vec<Instant>,
    /// How often the kernel asked the sender to wait (its queue was full). A datagram it did not
    /// take is no datagram: the same number is sent again later.
    pub refused: u64,
    /// Number and time of every arrival, in order of arrival.
    pub received: Vec<(u64, Instant)>,
}

/// What a log says about one span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Of these, those that never arrived.
    pub lost: u64,
    /// Of these, arrivals beyond the first.
    pub duplicates: u64,
    /// The longest time without an arrival.
    pub longest_gap: Duration,
}

impl Probe {
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
    /// As [`Probe::start`].
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
        // A port chosen by the kernel has to be asked for; the rest of `remote` (its scope) stays.
        let mut target = remote;
        target.set_port(input.local_addr().map_err(LabError::io_error("ask for a port"))?.port());
        input
            .set_read_timeout(Some(Duration::from_millis(20)))
            .map_err(LabError::io_error("set a timeout"))?;
        // While a neighbour is being resolved its queue holds what is sent; a sender that waits for
        // room there would stop measuring.
        output.set_nonblocking(true).map_err(LabError::io_error("unblock a probe"))?;
        SockRef::from(&input)
            .set_recv_buffer_size(RECEIVE_BUFFER)
            .map_err(LabError::io_error("set a buffer"))?;
        let shared = Arc::new(ProbeState::default());
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

    /// What happened so far. The last datagrams may still be under way.
    pub fn log_so_far(&self) -> ProbeLog {
        self.shared.lock_log().clone()
    }

    /// Stops, waits for stragglers and tells all.
    pub fn finish(self) -> ProbeLog {
        self.shared.stop_sending.store(true, Relaxed);
        // A panicked thread has told its story on stderr; its log ends early.
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

impl ProbeState {
    fn lock_log(&self) -> MutexGuard<'_, ProbeLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_datagrams(socket: &UdpSocket, target: SocketAddr, period: Duration, shared: &ProbeState) {
    let mut datagram = [0; DATAGRAM_SIZE];
    let mut due = Instant::now();
    let mut number = 0u64;
    while !shared.stop_sending.load(Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due = due.max(Instant::now() - CATCH_UP.max(period)) + period;
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        let at = Instant::now();
        let full = |error: &io::Error| {
            error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
        };
        match socket.send_to(&datagram, target) {
            Err(error) if full(&error) => shared.lock_log().refused += 1,
            // Any other error counts as sent and lost: that is what it is to its user.
            _ => {
                shared.lock_log().sent.push(at);
                number += 1;
            }
        }
    }
}

fn receive_datagrams(socket: &UdpSocket, shared: &ProbeState) {
    let mut datagram = [0; DATAGRAM_SIZE];
    while !shared.stop_receiving.load(Relaxed) {
        match socket.recv(&mut datagram) {
            Ok(DATAGRAM_SIZE) => {
                let number = datagram.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                shared.lock_log().received.push((number, Instant::now()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The address may vanish and come back under a running probe.
            Err(_) => thread::sleep(PROBE_PERIOD),
        }
    }
}

impl ProbeLog {
    /// The whole span.
    pub fn full_report(&self) -> ProbeReport {
        match (self.sent.first(), self.sent.last()) {
            (Some(first), Some(last)) => self.report_between(*first, *last + PROBE_PERIOD),
            _ => ProbeReport::default(),
        }
    }

    /// What was sent from `start` (included) to `end` (excluded), and what became of it.
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

    /// When the datagrams that never arrived were sent.
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
        super::transfer::longest_gap(self.received.iter().map(|(_, at)| *at), start, end)
    }
}

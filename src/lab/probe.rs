//! What an application feels, packet by packet: numbered datagrams at a fixed pace.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{LabError, Netns};

/// Time between two datagrams.
pub const PERIOD: Duration = Duration::from_millis(1);
/// Bytes of a datagram.
const SIZE: usize = 64;
/// How long the receiver waits for stragglers after the last datagram was sent.
const GRACE: Duration = Duration::from_millis(300);

/// A stream of numbered datagrams in one direction, one per [`PERIOD`], until finished.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    log: Mutex<Log>,
}

/// When each datagram was sent and received. Memory grows by 24 bytes per datagram.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// When the datagram of that number was sent.
    pub sent: Vec<Instant>,
    /// Number and time of every arrival, in order of arrival.
    pub received: Vec<(u64, Instant)>,
}

/// What a log says about one span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
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
    /// Starts a probe from `local` in `from` to `remote` in `to`; port 0 means any.
    ///
    /// # Errors
    /// When a socket cannot be bound (the address is not there).
    pub fn start(
        (from, local): (&Netns, SocketAddr),
        (to, remote): (&Netns, SocketAddr),
    ) -> Result<Self, LabError> {
        let bind = |netns: &Netns, address: SocketAddr| {
            netns
                .run(|| UdpSocket::bind(address))
                .map_err(LabError::io(format!("bind a probe to {address}")))
        };
        let (output, input) = (bind(from, local)?, bind(to, remote)?);
        // A port chosen by the kernel has to be asked for; the rest of `remote` (its scope) stays.
        let mut target = remote;
        target.set_port(input.local_addr().map_err(LabError::io("ask for a port"))?.port());
        input
            .set_read_timeout(Some(Duration::from_millis(20)))
            .map_err(LabError::io("set a timeout"))?;
        // While a neighbour is being resolved its queue holds what is sent; a sender that waits for
        // room there would stop measuring.
        output.set_nonblocking(true).map_err(LabError::io("unblock a probe"))?;
        let shared = Arc::new(Shared::default());
        let receiver = thread::spawn({
            let shared = Arc::clone(&shared);
            move || receive(&input, &shared)
        });
        let sender = thread::spawn({
            let shared = Arc::clone(&shared);
            move || send(&output, retarget(target, local), &shared)
        });
        Ok(Self { shared, sender, receiver })
    }

    /// What happened so far. The last datagrams may still be under way.
    pub fn log(&self) -> Log {
        self.shared.log().clone()
    }

    /// Stops, waits for stragglers and tells all.
    pub fn finish(self) -> Log {
        self.shared.stop_sending.store(true, Relaxed);
        // A panicked thread has told its story on stderr; its log ends early.
        let _ = self.sender.join();
        thread::sleep(GRACE);
        self.shared.stop_receiving.store(true, Relaxed);
        let _ = self.receiver.join();
        std::mem::take(&mut *self.shared.log())
    }
}

/// A link-local target needs the scope of the sending side's interface.
fn retarget(target: SocketAddr, local: SocketAddr) -> SocketAddr {
    match (target, local) {
        (SocketAddr::V6(mut target), SocketAddr::V6(local)) if local.scope_id() != 0 => {
            target.set_scope_id(local.scope_id());
            target.into()
        }
        _ => target,
    }
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(socket: &UdpSocket, target: SocketAddr, shared: &Shared) {
    let mut datagram = [0; SIZE];
    let mut due = Instant::now();
    for number in 0u64.. {
        if shared.stop_sending.load(Relaxed) {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A sender that was not scheduled goes on from here: a burst would measure itself.
        due = due.max(Instant::now() - PERIOD) + PERIOD;
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        shared.log().sent.push(Instant::now());
        // A datagram the kernel refuses counts as sent and lost: that is what it is to its user.
        let _ = socket.send_to(&datagram, target);
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) {
    let mut datagram = [0; SIZE];
    while !shared.stop_receiving.load(Relaxed) {
        match socket.recv(&mut datagram) {
            Ok(SIZE) => {
                let number = datagram.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                shared.log().received.push((number, Instant::now()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The address may vanish and come back under a running probe.
            Err(_) => thread::sleep(PERIOD),
        }
    }
}

impl Log {
    /// The whole span.
    pub fn report(&self) -> Report {
        match (self.sent.first(), self.sent.last()) {
            (Some(first), Some(last)) => self.between(*first, *last + PERIOD),
            _ => Report::default(),
        }
    }

    /// What was sent from `start` (included) to `end` (excluded), and what became of it.
    pub fn between(&self, start: Instant, end: Instant) -> Report {
        let arrivals = self.arrivals();
        let mut report = Report { longest_gap: self.gap(start, end), ..Report::default() };
        for (sent, arrivals) in self.sent.iter().zip(arrivals) {
            if (start..end).contains(sent) {
                report.sent += 1;
                report.lost += u64::from(arrivals == 0);
                report.duplicates += u64::from(arrivals.saturating_sub(1));
            }
        }
        report
    }

    /// When the datagrams that never arrived were sent.
    pub fn losses(&self) -> Vec<Instant> {
        let lost = self.sent.iter().zip(self.arrivals()).filter(|(_, arrivals)| *arrivals == 0);
        lost.map(|(sent, _)| *sent).collect()
    }

    fn arrivals(&self) -> Vec<u32> {
        let mut arrivals = vec![0; self.sent.len()];
        for (number, _) in &self.received {
            if let Some(count) = usize::try_from(*number).ok().and_then(|n| arrivals.get_mut(n)) {
                *count += 1;
            }
        }
        arrivals
    }

    fn gap(&self, start: Instant, end: Instant) -> Duration {
        super::transfer::longest_gap(self.received.iter().map(|(_, at)| *at), start, end)
    }
}

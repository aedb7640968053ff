//! Throughput and stalls as an application sees them: one TCP flow, hashed at both ends.

use std::{
    io,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{error::LabError, netns::Netns};

/// Bytes written at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// Socket timeout: longer than any fault of a test.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes of a flow.
#[derive(Clone, Copy, Debug)]
pub struct SendPattern<'a> {
    /// Bytes written at once, at least 8.
    pub chunk: usize,
    /// Bytes per second; `None`: unlimited.
    pub rate: Option<u64>,
    /// The congestion control, as the kernel calls it.
    pub congestion: &'a str,
}

/// An unlimited rate.
const BULK_PATTERN: SendPattern<'static> =
    SendPattern { chunk: CHUNK_BYTES, rate: None, congestion: "cubic" };

/// A bulk transfer in one direction, until finished.
#[derive(Debug)]
pub struct Transfer {
    shared: Arc<TransferState>,
    sender: JoinHandle<io::Result<SendResult>>,
    receiver: JoinHandle<io::Result<()>>,
}

#[derive(Debug, Default)]
struct TransferState {
    stop: AtomicBool,
    reads: Mutex<Vec<(Instant, usize)>>,
}

#[derive(Debug)]
struct SendResult {
    bytes: u64,
    hash_equal: bool,
}

/// Result of a transfer.
#[derive(Clone, Debug)]
pub struct TransferOutcome {
    /// Bytes written by the sender; 0 when the flow broke.
    pub bytes: u64,
    /// Bytes read by the receiver.
    pub received: u64,
    /// Ends of the flow that saw an error (a reset, a time-out): 0, 1 or 2.
    pub resets: u32,
    /// Both ends computed the same SHA-256.
    pub hash_equal: bool,
    /// The errors as text.
    pub errors: Vec<String>,
    /// Time and size of every read of the receiver.
    pub reads: Vec<(Instant, usize)>,
}

impl Transfer {
    /// Starts a flow from `local` in `from` to `remote` in `to`; port 0 means any. `rate` is in
    /// bytes per second, `None` unlimited.
    ///
    /// # Errors
    /// When the sockets cannot be bound or connected.
    pub fn start(
        from: (&Netns, SocketAddr),
        to: (&Netns, SocketAddr),
        rate: Option<u64>,
    ) -> Result<Self, LabError> {
        Self::start_with_pattern(from, to, SendPattern { rate, ..BULK_PATTERN })
    }

    /// The same with a given write pattern.
    ///
    /// # Errors
    /// As [`Transfer::start`], and when the kernel has no such congestion control.
    pub fn start_with_pattern(
        (from, local): (&Netns, SocketAddr),
        (to, remote): (&Netns, SocketAddr),
        pattern: SendPattern<'_>,
    ) -> Result<Self, LabError> {
        let failed = |what: &str| LabError::io_error(format!("{what} {local} → {remote}"));
        let listener = to.run_inside(|| TcpListener::bind(remote)).map_err(failed("listen for"))?;
        let mut target = remote;
        target.set_port(listener.local_addr().map_err(failed("listen for"))?.port());
        if let (SocketAddr::V6(target), SocketAddr::V6(local)) = (&mut target, local)
            && local.scope_id() != 0
        {
            target.set_scope_id(local.scope_id());
        }
        let output = from
            .run_inside(|| connect_from(local, target, pattern.congestion))
            .map_err(failed("connect"))?;
        let (input, _) = listener.accept().map_err(failed("accept"))?;
        for socket in [&output, &input] {
            socket.set_read_timeout(Some(STALL_TIMEOUT)).map_err(failed("limit"))?;
            socket.set_write_timeout(Some(STALL_TIMEOUT)).map_err(failed("limit"))?;
        }
        let shared = Arc::new(TransferState::default());
        let receiver = thread::spawn({
            let shared = Arc::clone(&shared);
            move || receive_stream(input, &shared)
        });
        let (chunk, rate) = (pattern.chunk, pattern.rate);
        let sender = thread::spawn({
            let shared = Arc::clone(&shared);
            move || send_stream(output, chunk, rate, &shared)
        });
        Ok(Self { shared, sender, receiver })
    }

    /// Bytes read by the receiver so far.
    pub fn bytes_received(&self) -> u64 {
        self.shared.lock_reads().iter().map(|(_, bytes)| *bytes as u64).sum()
    }

    /// Time since the receiver's last read.
    pub fn silence(&self) -> Duration {
        self.shared.lock_reads().last().map_or(Duration::ZERO, |(at, _)| at.elapsed())
    }

    /// The longest time from `start` to `end` in which the receiver read nothing.
    pub fn longest_stall(&self, start: Instant, end: Instant) -> Duration {
        longest_gap(self.shared.lock_reads().iter().map(|(at, _)| *at), start, end)
    }

    /// Returns true when an end of the flow failed.
    pub fn is_broken(&self) -> bool {
        self.sender.is_finished() || self.receiver.is_finished()
    }

    /// Closes the flow, compares the hashes and returns the result.
    pub fn finish(self) -> TransferOutcome {
        self.shared.stop.store(true, Relaxed);
        let panicked = |_| Err(io::Error::other("the thread panicked"));
        let sent = self.sender.join().unwrap_or_else(panicked);
        let panicked = |_| Err(io::Error::other("the thread panicked"));
        let received = self.receiver.join().unwrap_or_else(panicked);
        let mut errors = Vec::new();
        if let Err(error) = &sent {
            errors.push(format!("sender: {error}"));
        }
        if let Err(error) = &received {
            errors.push(format!("receiver: {error}"));
        }
        let reads = std::mem::take(&mut *self.shared.lock_reads());
        TransferOutcome {
            bytes: sent.as_ref().map_or(0, |sent| sent.bytes),
            received: reads.iter().map(|(_, bytes)| *bytes as u64).sum(),
            resets: errors.len() as u32,
            hash_equal: sent.is_ok_and(|sent| sent.hash_equal),
            errors,
            reads,
        }
    }
}

impl TransferOutcome {
    /// The longest time from `start` to `end` in which the receiver read nothing.
    pub fn longest_stall(&self, start: Instant, end: Instant) -> Duration {
        longest_gap(self.reads.iter().map(|(at, _)| *at), start, end)
    }
}

impl TransferState {
    fn lock_reads(&self) -> MutexGuard<'_, Vec<(Instant, usize)>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest time between two neighbours among `times` (rising) that touches `start..end`.
///
/// A gap that began before `start` counts in full, one still open at `end` counts up to `end`.
pub(crate) fn longest_gap(
    times: impl Iterator<Item = Instant>,
    start: Instant,
    end: Instant,
) -> Duration {
    let mut longest = Duration::ZERO;
    let mut before = start;
    for at in times {
        if at > start {
            longest = longest.max(at.saturating_duration_since(before));
        }
        before = at;
        if at >= end {
            return longest;
        }
    }
    longest.max(end.saturating_duration_since(before))
}

fn connect_from(local: SocketAddr, target: SocketAddr, congestion: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    // One congestion control on every machine, so that figures can be compared.
    match socket.set_tcp_congestion(congestion.as_bytes()) {
        Err(_) if congestion == BULK_PATTERN.congestion => socket.set_tcp_congestion(b"reno")?,
        result => result?,
    }
    socket.set_tcp_nodelay(true)?;
    socket.bind(&local.into())?;
    socket.connect_timeout(&target.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}

fn send_stream(
    mut socket: TcpStream,
    size: usize,
    rate: Option<u64>,
    shared: &TransferState,
) -> io::Result<SendResult> {
    let mut hash = Context::new(&SHA256);
    let mut chunk: Vec<u8> = (0..size.max(8)).map(|place| (place % 251) as u8).collect();
    let mut bytes = 0u64;
    let mut due = Instant::now();
    while !shared.stop.load(Relaxed) {
        // Every chunk differs, so that one delivered twice or out of place changes the hash.
        chunk[..8].copy_from_slice(&bytes.to_be_bytes());
        socket.write_all(&chunk)?;
        hash.update(&chunk);
        bytes += chunk.len() as u64;
        if let Some(rate) = rate {
            // Time lost in a stall is not made up for: the rate is an upper limit.
            due = due.max(Instant::now() - Duration::from_millis(20));
            due += Duration::from_nanos(chunk.len() as u64 * 1_000_000_000 / rate.max(1));
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    socket.shutdown(Shutdown::Write)?;
    let mut theirs = [0; SHA256_OUTPUT_LEN];
    socket.read_exact(&mut theirs)?;
    Ok(SendResult { bytes, hash_equal: hash.finish().as_ref() == theirs })
}

fn receive_stream(mut socket: TcpStream, shared: &TransferState) -> io::Result<()> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 4 * CHUNK_BYTES];
    loop {
        let read = socket.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        shared.lock_reads().push((Instant::now(), read));
        hash.update(&buffer[..read]);
    }
    socket.write_all(hash.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_from_before_the_window_and_up_to_its_end() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let gap = |times: &[u64], start, end| {
            longest_gap(times.iter().map(|ms| at(*ms)), at(start), at(end)).as_millis()
        };
        assert_eq!(gap(&[0, 10, 20, 30], 0, 30), 10);
        assert_eq!(gap(&[0, 10, 200, 210], 50, 300), 190, "the gap began before the window");
        assert_eq!(gap(&[0, 10], 5, 100), 90, "nothing arrives after 10 ms");
        assert_eq!(gap(&[], 5, 100), 95, "nothing ever arrived");
        assert_eq!(gap(&[0, 500], 100, 200), 500, "the gap spans the window");
    }
}

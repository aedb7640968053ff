//! Datagrams at the highest rate a source can make, or at a given one: the generator and the
//! sink behind `scripts/bench`.
//!
//!     cargo run --release --example blast -- receive 10.0.0.2:7118
//!     cargo run --release --example blast -- send LOCAL REMOTE SECONDS [PER_SECOND [BYTES]]
//!
//! The sender hands the kernel 64 datagrams of 64 bytes, or of BYTES, per `sendmmsg` and prints how
//! many it took in how many seconds. The receiver prints the same once nothing has come for half a
//! second; its time runs from the first datagram to the last.

use std::{
    env, io,
    io::{ErrorKind, IoSlice},
    net::{SocketAddr, UdpSocket},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags};

/// UDP payload, bytes: unless told, and at most.
const DEFAULT_SIZE: &str = "64";
const MAX_SIZE: usize = 2048;
/// Datagrams handed to the kernel at once.
const BATCH_SIZE: usize = 64;
/// The receiver gives up after this long without a datagram, and before the first one.
const SILENCE_TIMEOUT: Duration = Duration::from_millis(500);
const FIRST_DATAGRAM_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a paced sender looks at what is due.
const PACING_INTERVAL: Duration = Duration::from_micros(200);
/// Buffer that both ends ask the kernel for, bytes.
const BUFFER_BYTES: usize = 4 << 20;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["receive", local] => parse(local).and_then(receive),
        ["send", local, remote, seconds] => send(local, remote, seconds, "0", DEFAULT_SIZE),
        ["send", local, remote, seconds, rate] => send(local, remote, seconds, rate, DEFAULT_SIZE),
        ["send", local, remote, seconds, rate, size] => send(local, remote, seconds, rate, size),
        _ => {
            Err(io::Error::other("receive LOCAL | send LOCAL REMOTE SECONDS [PER_SECOND [BYTES]]"))
        }
    };
    match result {
        Ok((datagrams, seconds)) => {
            println!("{datagrams} {seconds:.6}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("blast: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| io::Error::new(ErrorKind::InvalidInput, format!("bad value {word:?}")))
}

fn socket(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    // Best effort: the limit of the machine applies.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket2::SockRef::from(&socket).set_send_buffer_size(BUFFER_BYTES);
    Ok(socket)
}

fn receive(local: SocketAddr) -> io::Result<(u64, f64)> {
    let socket = socket(local)?;
    let mut buffer = [0; MAX_SIZE];
    socket.set_read_timeout(Some(FIRST_DATAGRAM_TIMEOUT))?;
    socket.recv(&mut buffer)?;
    let first = Instant::now();
    let (mut datagrams, mut last) = (1, first);
    socket.set_read_timeout(Some(SILENCE_TIMEOUT))?;
    while socket.recv(&mut buffer).is_ok() {
        datagrams += 1;
        // The clock costs as much as a tenth of a receive: looked at rarely.
        if datagrams % 64 == 0 {
            last = Instant::now();
        }
    }
    Ok((datagrams, last.duration_since(first).as_secs_f64()))
}

fn send(
    local: &str,
    remote: &str,
    seconds: &str,
    rate: &str,
    size: &str,
) -> io::Result<(u64, f64)> {
    let payload = vec![0x5a; parse::<usize>(size)?.min(MAX_SIZE)];
    let socket = socket(parse(local)?)?;
    socket.connect(parse::<SocketAddr>(remote)?)?;
    let (length, rate) = (Duration::from_secs_f64(parse(seconds)?), parse::<f64>(rate)?);
    let start = Instant::now();
    let mut datagrams = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= length {
            return Ok((datagrams, elapsed.as_secs_f64()));
        }
        let due = (elapsed.as_secs_f64() * rate) as u64;
        let count = if rate == 0.0 {
            BATCH_SIZE
        } else {
            (due - datagrams).min(BATCH_SIZE as u64) as usize
        };
        if count == 0 {
            thread::sleep(PACING_INTERVAL);
        } else {
            datagrams += send_batch(&socket, &payload, count)?;
        }
    }
}

fn send_batch(socket: &UdpSocket, payload: &[u8], count: usize) -> io::Result<u64> {
    let slices = [IoSlice::new(payload)];
    let mut controls: [_; BATCH_SIZE] = std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: Vec<_> =
        controls[..count].iter_mut().map(|control| MMsgHdr::new(&slices, control)).collect();
    match rustix::net::sendmmsg(socket, &mut messages, SendFlags::empty()) {
        Ok(sent) => Ok(sent as u64),
        // The receiver is not there yet, or full buffers: the source is unlimited.
        Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOBUFS) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

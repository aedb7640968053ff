//! Steering of datagrams among the sockets of one address (`SO_REUSEPORT`): by queue, not by
//! address.
//!
//! The kernel hashes the address pair, which would steer all frames of one route to one worker, and
//! the acknowledgements of a worker's data to any.

#![expect(unsafe_code, reason = "SO_ATTACH_REUSEPORT_CBPF has no safe wrapper")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use netft_proto::wire::header::{QUEUE_OFFSET, QUIC_FIXED_BIT};

/// Offset of the destination connection id in a QUIC packet with a short header. A long header has
/// the version there, whose first byte is 0 (RFC 9000 section 17).
const CID_OFFSET: u32 = 1;

/// Steers the frames of queue n to the socket n modulo `count` of those that share an address; the
/// first one opened has index 0. QUIC packets go to one of them by their connection id. `fd`: any
/// of them, bound.
///
/// # Errors
/// The kernel has no classic BPF for sockets that share an address (before 4.5).
pub fn attach_queue_filter(fd: BorrowedFd<'_>, count: usize) -> io::Result<()> {
    let count = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    let load = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let is_quic = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let modulo = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    let accumulator = libc::BPF_RET | libc::BPF_A;
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        step(load, 0),
        libc::sock_filter { jt: 3, ..step(is_quic, QUIC_FIXED_BIT.into()) },
        // A datagram too short for this goes to the first socket.
        step(load, QUEUE_OFFSET as u32),
        step(modulo, count),
        step(accumulator, 0),
        step(load, CID_OFFSET),
        step(modulo, count),
        step(accumulator, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and the program it points to live through the call, which copies both.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{net::UdpSocket, os::fd::AsFd};

    use netft_proto::wire::header::{FRAME_OVERHEAD, FrameHeader, FrameKind};

    use super::*;
    use crate::io::sys::udp;

    const NONE: u8 = 77;

    fn arrived(socket: &UdpSocket) -> Vec<u8> {
        let mut queues = Vec::new();
        let mut buf = [0; 2048];
        while let Ok(len) = socket.recv(&mut buf) {
            let frame = &buf[..len];
            queues.push(frame.get(QUEUE_OFFSET).copied().unwrap_or(NONE));
        }
        queues
    }

    #[test]
    fn each_queue_and_each_quic_connection_has_its_socket() {
        let first = udp::open_socket("127.0.0.1:0".parse().unwrap(), 1, true).unwrap();
        let local = std::net::SocketAddr::try_from(rustix::net::getsockname(&first).unwrap());
        let local = local.unwrap();
        let mut sockets = vec![first];
        sockets.extend((1..3).map(|_| udp::open_socket(local, 1, true).unwrap()));
        attach_queue_filter(sockets[0].as_fd(), 3).unwrap();
        let sockets: Vec<_> = sockets.into_iter().map(UdpSocket::from).collect();

        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |queue| {
            let header =
                FrameHeader { kind: FrameKind::Data, flags: 0, queue, session_id: 1, counter: 1 };
            let mut frame = [0; FRAME_OVERHEAD];
            frame[..16].copy_from_slice(&header.encode());
            sender.send_to(&frame, local).unwrap();
        };
        (0..9).for_each(send);
        sender.send_to(&[1], local).unwrap();
        assert_eq!(arrived(&sockets[0]), [0, 3, 6, NONE]);
        assert_eq!(arrived(&sockets[1]), [1, 4, 7]);
        assert_eq!(arrived(&sockets[2]), [2, 5, 8]);

        let quic = |connection| {
            sender.send_to(&[QUIC_FIXED_BIT | 3, connection, 1, 0], local).unwrap();
        };
        (0..=255).for_each(quic);
        let counts: Vec<_> = sockets.iter().map(|socket| arrived(socket).len()).collect();
        assert_eq!(counts, [86, 85, 85]);
    }
}

#![allow(clippy::unwrap_used)]

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// The loopback interface is always the first.
const LOOPBACK: u32 = 1;

fn pair(local: &str) -> (OwnedFd, SocketAddr, OwnedFd, SocketAddr) {
    let local: SocketAddr = local.parse().unwrap();
    let one = open_socket(local, LOOPBACK, false).unwrap();
    let two = open_socket(local, LOOPBACK, false).unwrap();
    let addr = |fd: &OwnedFd| SocketAddr::try_from(rustix::net::getsockname(fd).unwrap()).unwrap();
    let (a, b) = (addr(&one), addr(&two));
    (one, a, two, b)
}

fn wait(fd: &OwnedFd) {
    poll(&mut [PollFd::new(fd, PollFlags::IN)], None).unwrap();
}

#[test]
fn segmented_sends_arrive_whole_and_in_order_on_both_families() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let (one, from, two, to) = pair(local);
        let sent: Vec<u8> = (0..4500u32).map(|i| i as u8).collect();
        send_to(one.as_fd(), &to, &sent, Some(1000), Some(TOS_CONTROL)).unwrap();
        let mut got = Vec::new();
        let mut buf = vec![0; 65_535];
        while got.len() < sent.len() {
            wait(&two);
            let received = recv_batch(two.as_fd(), &mut buf).unwrap().unwrap();
            assert_eq!(received.from, from);
            assert!(received.segment == 1000 || received.segment == received.len);
            got.extend_from_slice(&buf[..received.len]);
        }
        assert_eq!(got, sent);
        assert_eq!(recv_batch(two.as_fd(), &mut buf).unwrap(), None);
    }
}

#[test]
fn the_largest_sends_are_accepted_and_larger_ones_are_too_big() {
    let (one, _, _two, to) = pair("127.0.0.1:0");
    let bytes = vec![0; MAX_SEND + 1];
    send_to(one.as_fd(), &to, &bytes[..MAX_SEND], None, None).unwrap();
    send_to(one.as_fd(), &to, &bytes[..1000 * MAX_SEGMENTS], Some(1000), None).unwrap();
    let error = send_to(one.as_fd(), &to, &bytes, None, None).unwrap_err();
    assert_eq!(classify_send_error(&error, false), SendFault::TooBig);
}

/// F-35. A closed port answers each datagram with an ICMP error.
#[test]
fn icmp_errors_fail_no_send_and_wake_no_reader() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let (one, _, two, to) = pair(local);
        let (_, _, _open, other) = pair(local);
        drop(two);
        for _ in 0..100 {
            send_to(one.as_fd(), &to, b"nobody", None, None).unwrap();
            send_to(one.as_fd(), &other, b"somebody", Some(4), None).unwrap();
        }
        let ready = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let mut fds = [PollFd::new(&one, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&ready)).unwrap(), 0, "{:?}", fds[0].revents());
    }
}

#[test]
fn a_short_buffer_is_an_error_not_a_short_datagram() {
    let (one, _, two, to) = pair("127.0.0.1:0");
    send_to(one.as_fd(), &to, &[1; 200], None, None).unwrap();
    wait(&two);
    let error = recv_batch(two.as_fd(), &mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_socket_is_pinned_to_its_interface_and_large_in_both_directions() {
    let (one, ..) = pair("127.0.0.1:0");
    let socket = socket2::SockRef::from(&one);
    assert_eq!(socket.device().unwrap(), Some(b"lo".to_vec()));
    // At least what an unprivileged process gets by default, doubled by the kernel's bookkeeping.
    assert!(socket.recv_buffer_size().unwrap() >= 400_000);
    assert!(socket.send_buffer_size().unwrap() >= 400_000);
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    let error = open_socket("192.0.2.1:0".parse().unwrap(), LOOPBACK, false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    assert_eq!(classify_send_error(&error, false), SendFault::Route);
}

#[test]
fn link_local_addresses_get_the_scope_of_their_interface() {
    let bare: SocketAddr = "[fe80::1]:3343".parse().unwrap();
    let SocketAddr::V6(scoped) = with_scope(bare, 7) else { panic!("family") };
    assert_eq!(scoped.scope_id(), 7);
    let global: SocketAddr = "[2001:db8::1]:3343".parse().unwrap();
    assert_eq!(with_scope(global, 7), global);
}

#[test]
fn errors_are_told_apart() {
    let fault =
        |errno, segmented| classify_send_error(&io::Error::from_raw_os_error(errno), segmented);
    assert_eq!(fault(libc::EIO, true), SendFault::NoOffload);
    assert_eq!(fault(libc::EIO, false), SendFault::Transient);
    assert_eq!(fault(libc::ENOBUFS, true), SendFault::Transient);
    assert_eq!(fault(libc::EPERM, false), SendFault::Transient);
    assert_eq!(fault(libc::ENODEV, false), SendFault::Route);
    assert_eq!(fault(libc::EINVAL, true), SendFault::SegmentsRefused, "no broken route");
    assert_eq!(fault(libc::EINVAL, false), SendFault::Route, "a blackhole route");
}

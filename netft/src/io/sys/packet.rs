//! Packet sockets: whole frames of one protocol on one interface.

#![expect(unsafe_code, reason = "packet(7) addresses and memberships have no safe wrapper")]

use std::{io, mem::zeroed, os::fd::AsRawFd, ptr};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use tokio::io::unix::AsyncFd;

use crate::io::sys::tun::check_syscall;

/// Opens a socket for the frames of `protocol` (`ETH_P_*`) that arrive at the interface and pass
/// `filter`, and for sending there.
///
/// # Errors
/// Of the kernel: no such interface, no `CAP_NET_RAW`.
pub fn open_packet_socket(
    ifindex: u32,
    protocol: u16,
    filter: &[SockFilter],
) -> io::Result<Socket> {
    // Without a protocol nothing is received before the filter is attached.
    let kind = Type::RAW.cloexec().nonblocking();
    let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
    socket.attach_filter(filter)?;
    // SAFETY: `sockaddr_ll` is plain data, for which zeros are valid.
    let mut at: libc::sockaddr_ll = unsafe { zeroed() };
    at.sll_family = libc::AF_PACKET as u16;
    at.sll_protocol = protocol.to_be();
    at.sll_ifindex = ifindex as libc::c_int;
    let mut storage = SockAddrStorage::zeroed();
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `sockaddr_storage` is larger than every socket address, and has room for this one.
    let addr = unsafe {
        *storage.view_as::<libc::sockaddr_ll>() = at;
        SockAddr::new(storage, len)
    };
    socket.bind(&addr)?;
    Ok(socket)
}

/// Registers a socket with the runtime.
///
/// # Errors
/// Of the kernel.
pub fn register_socket(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the result owns the socket, which keeps its descriptor as long as it lives.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

/// Has the interface receive frames to a multicast hardware address while the socket lives.
///
/// # Errors
/// Of the kernel.
pub fn join_multicast(socket: &Socket, ifindex: u32, group: [u8; 6]) -> io::Result<()> {
    // SAFETY: `packet_mreq` is plain data, for which zeros are valid.
    let mut request: libc::packet_mreq = unsafe { zeroed() };
    request.mr_ifindex = ifindex as libc::c_int;
    request.mr_type = libc::PACKET_MR_MULTICAST as u16;
    request.mr_alen = group.len() as u16;
    request.mr_address[..6].copy_from_slice(&group);
    // SAFETY: setsockopt reads the request, which outlives the call.
    check_syscall(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            ptr::from_ref(&request).cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    })
    .map(drop)
}

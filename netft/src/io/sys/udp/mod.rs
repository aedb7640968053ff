//! UDP sockets with segmentation offload: open, send, receive.
//!
//! A socket is bound to one interface (the source address alone does not select one: Linux uses the
//! weak host model) and never fragments. Every call is non-blocking.
//!
//! ICMP has no effect on a socket, because anyone can forge it (F-35). `IP_PMTUDISC_PROBE` ignores
//! path MTU updates. `IP_RECVERR` stays off: with it, each ICMP error would fail the next send on
//! the socket, to whatever destination, and wake its reader. So the error of a send is always this
//! kernel's own. The price: the kernel reports a packet that its queueing discipline dropped
//! (`ENOBUFS`) as sent; the peer's acknowledgements show the loss.
#![expect(unsafe_code, reason = "sendmsg, recvmsg and setsockopt with control messages")]

use std::{
    io, mem,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use libc::{c_int, c_void, cmsghdr, msghdr, sockaddr_storage, socklen_t};

/// Maximum payload of one send, bytes, segmented or not.
pub const MAX_SEND: usize = 65_507;
/// Maximum number of segments of one send: the limit of kernels before 6.9.
pub const MAX_SEGMENTS: usize = 64;
/// Type-of-service byte of heartbeats: DSCP CS6, network control.
pub const TOS_CONTROL: u8 = 0xc0;

/// Requested receive buffer, bytes.
pub const RECEIVE_BUFFER: c_int = 8 << 20;
/// Requested send buffer, bytes.
const SEND_BUFFER: c_int = 4 << 20;

/// Buffer for control messages, aligned for `cmsghdr`.
#[repr(C, align(8))]
struct ControlBuffer([u8; 256]);

impl ControlBuffer {
    const fn new() -> Self {
        Self([0; 256])
    }
}

/// Result of one receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedBatch {
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter; equals `len` for a single one.
    pub segment: usize,
    /// The sender. A link-local IPv6 one carries its scope; the flow label is always 0.
    pub from: SocketAddr,
    /// Datagrams this socket has lost to a full buffer so far (wraps), if reported.
    pub dropped_total: Option<u32>,
}

/// Effect of a failed send on the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// Buffers are full or a filter refused the packet: only counted.
    Transient,
    /// The interface, the address or the kernel route is gone.
    Route,
    /// A segment is larger than the MTU of the interface.
    TooBig,
    /// The interface cannot segment: the datagrams are to be sent one by one.
    NoOffload,
    /// The kernel refused this segmented send only. Kernels before 6.10 say so of segments larger
    /// than the MTU. Sent one by one, each datagram tells its own error.
    SegmentsRefused,
}

/// Opens a socket bound to `local` and to the interface `ifindex`. A link-local IPv6 address needs
/// no scope: it is that interface. `reuse_port`: several sockets share the address.
///
/// # Errors
/// The address is in use or not on this machine, the interface is gone, or the kernel lacks an
/// option without which packets would be fragmented or leave on another interface.
pub fn open_socket(local: SocketAddr, ifindex: u32, reuse_port: bool) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(local),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    let owned = OwnedFd::from(socket);
    let fd = &owned;
    let index = c_int::try_from(ifindex).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index)?;
    if reuse_port {
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    if local.is_ipv4() {
        set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
    } else {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
    }
    // Optional: performance and drop counting only.
    let _ = set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER))?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER))?;
    rustix::net::bind(fd, &with_scope(local, ifindex))?;
    Ok(owned)
}

/// `addr` with the scope id that a link-local IPv6 address needs; others unchanged.
pub fn with_scope(addr: SocketAddr, ifindex: u32) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, ifindex).into()
        }
        other => other,
    }
}

/// Sends `bytes` to `remote`, segmented by the kernel every `segment` bytes if given, with the
/// type-of-service byte `tos` if given.
///
/// # Errors
/// See [`classify_send_error`].
#[inline]
pub fn send_to(
    fd: BorrowedFd<'_>,
    remote: &SocketAddr,
    bytes: &[u8],
    segment: Option<u16>,
    tos: Option<u8>,
) -> io::Result<()> {
    let (mut name, name_len) = encode_addr(remote);
    let mut control = ControlBuffer::new();
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is plain data; all zeroes is a valid value.
    let mut msg: msghdr = unsafe { mem::zeroed() };
    msg.msg_name = ptr::from_mut(&mut name).cast();
    msg.msg_namelen = name_len;
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    let mut used = 0;
    if let Some(segment) = segment {
        used = push_control(&mut control, used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    if let Some(tos) = tos {
        let (level, kind) = match remote {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        used = push_control(&mut control, used, level, kind, c_int::from(tos));
    }
    if used > 0 {
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = used as _;
    }
    // SAFETY: every pointer in `msg` is to a local or to `bytes`, which outlive the call, with its
    // length; the kernel only reads them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &msg, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends one control datagram: a heartbeat, a QUIC packet.
///
/// # Errors
/// See [`classify_send_error`].
pub fn send_control(
    fd: BorrowedFd<'_>,
    remote: &SocketAddr,
    bytes: &[u8],
    tos: Option<u8>,
) -> io::Result<()> {
    send_to(fd, remote, bytes, None, tos)
}

/// Classifies the error of a send; `segmented`: it requested segmentation.
pub fn classify_send_error(error: &io::Error, segmented: bool) -> SendFault {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => SendFault::TooBig,
        Some(libc::EIO | libc::EOPNOTSUPP) if segmented => SendFault::NoOffload,
        Some(libc::EINVAL) if segmented => SendFault::SegmentsRefused,
        Some(
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::ENODEV
            | libc::ENXIO
            | libc::EADDRNOTAVAIL
            | libc::EINVAL,
        ) => SendFault::Route,
        _ => SendFault::Transient,
    }
}

/// Receives one batch of datagrams of one sender into `buf`, which should hold 65,535 bytes.
/// `None`: the socket is empty.
///
/// # Errors
/// The batch or its control messages did not fit (`InvalidData`), or an administrator destroyed the
/// socket.
#[inline]
pub fn recv_batch(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<Option<ReceivedBatch>> {
    // SAFETY: `sockaddr_storage` and `msghdr` are plain data; all zeroes is a valid value.
    let (mut name, mut msg): (sockaddr_storage, msghdr) = unsafe { mem::zeroed() };
    let mut control = ControlBuffer::new();
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let result = recv_message(fd, &mut msg, &mut name, &mut iov, &mut control);
    let len = match result {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    };
    if msg.msg_flags & (libc::MSG_CTRUNC | libc::MSG_TRUNC) != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut received = ReceivedBatch {
        len,
        segment: len,
        from: decode_addr(&name).ok_or(io::ErrorKind::InvalidData)?,
        dropped_total: None,
    };
    each_control(&msg, |level, kind, data| match (level, kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            let segment = read_plain::<c_int>(data).and_then(|size| usize::try_from(size).ok());
            received.segment = segment.filter(|size| *size > 0).unwrap_or(len);
        }
        (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => received.dropped_total = read_plain::<u32>(data),
        _ => {}
    });
    Ok(Some(received))
}

#[inline]
fn recv_message(
    fd: BorrowedFd<'_>,
    msg: &mut msghdr,
    name: &mut sockaddr_storage,
    iov: &mut libc::iovec,
    control: &mut ControlBuffer,
) -> io::Result<usize> {
    msg.msg_name = ptr::from_mut(name).cast();
    msg.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
    msg.msg_iov = iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.0.as_mut_ptr().cast();
    msg.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in `msg` is to something the caller holds exclusively for the whole
    // call, with its length; `iov` describes the caller's buffer.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), msg, libc::MSG_DONTWAIT) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

fn set_option(fd: &OwnedFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    let value = ptr::from_ref(&value).cast::<c_void>();
    // SAFETY: `value` points to a `c_int` that lives through the call; its size is passed.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Appends a control message at `used`; returns the offset of the next one.
#[inline]
fn push_control<T: Copy>(
    control: &mut ControlBuffer,
    used: usize,
    level: c_int,
    kind: c_int,
    value: T,
) -> usize {
    let size = size_of::<T>() as u32;
    // SAFETY: both only compute.
    let (space, len) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size)) };
    assert!(used + space as usize <= control.0.len(), "two small messages fit");
    let at = control.0[used..].as_mut_ptr().cast::<cmsghdr>();
    // SAFETY: `at` is inside `control` with `space` bytes behind it (asserted), and aligned for
    // `cmsghdr`: the buffer is, and `used` is a sum of `CMSG_SPACE`s. The value is written
    // unaligned.
    unsafe {
        (*at).cmsg_level = level;
        (*at).cmsg_type = kind;
        (*at).cmsg_len = len as _;
        libc::CMSG_DATA(at).cast::<T>().write_unaligned(value);
    }
    used + space as usize
}

/// Calls `each` with level, type and data of every control message received.
#[inline]
fn each_control(msg: &msghdr, mut each: impl FnMut(c_int, c_int, &[u8])) {
    // SAFETY: `msg` describes the control buffer as the kernel filled it; the macros keep inside
    // `msg_controllen`, and `cmsg_len` covers header and data of each message.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(msg);
        while let Some(header) = at.as_ref() {
            // Its type is that of the C library.
            let whole: usize = header.cmsg_len as _;
            let len = whole.saturating_sub(libc::CMSG_LEN(0) as usize);
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(at), len);
            each(header.cmsg_level, header.cmsg_type, data);
            at = libc::CMSG_NXTHDR(msg, at);
        }
    }
}

/// Plain kernel data, valid for any bytes.
trait PlainData: Copy {}
impl PlainData for c_int {}
impl PlainData for u32 {}
impl PlainData for libc::timespec {}

/// The `T` at the start of `data`.
#[inline]
fn read_plain<T: PlainData>(data: &[u8]) -> Option<T> {
    if data.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, and `Plain` types have no invalid value.
    Some(unsafe { data.as_ptr().cast::<T>().read_unaligned() })
}

#[inline]
fn encode_addr(addr: &SocketAddr) -> (sockaddr_storage, socklen_t) {
    // SAFETY: plain data; all zeroes is a valid value.
    let mut storage: sockaddr_storage = unsafe { mem::zeroed() };
    let at = ptr::from_mut(&mut storage);
    let len = match addr {
        SocketAddr::V4(v4) => {
            // SAFETY: `sockaddr_storage` is large and aligned enough for every address.
            let out = unsafe { &mut *at.cast::<libc::sockaddr_in>() };
            out.sin_family = libc::AF_INET as _;
            out.sin_port = v4.port().to_be();
            out.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let out = unsafe { &mut *at.cast::<libc::sockaddr_in6>() };
            out.sin6_family = libc::AF_INET6 as _;
            out.sin6_port = v6.port().to_be();
            out.sin6_addr.s6_addr = v6.ip().octets();
            out.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as socklen_t)
}

#[inline]
fn decode_addr(storage: &sockaddr_storage) -> Option<SocketAddr> {
    let at = ptr::from_ref(storage);
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which address it is; the storage is large enough for it.
            let addr = unsafe { &*at.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(addr.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(addr.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let addr = unsafe { &*at.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
            let port = u16::from_be(addr.sin6_port);
            Some(SocketAddrV6::new(ip, port, 0, addr.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

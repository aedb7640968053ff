//! Open descriptors that the packet path reads and writes: UDP sockets and adapter queues.

use std::{net::SocketAddr, os::fd::OwnedFd};

use netft_proto::packet::virtio_net::VnetFormat;

/// The number of a socket, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// An open UDP socket, pinned to one interface and one local address.
pub struct UdpSocket {
    /// Its number.
    pub id: SocketId,
    /// The local address.
    pub local: SocketAddr,
    /// The interface it is pinned to.
    pub ifindex: u32,
    /// The worker that receives on it: workers share a local address through `SO_REUSEPORT`.
    pub worker: usize,
    /// The descriptor, non-blocking.
    pub fd: OwnedFd,
}

/// One queue of the adapter.
pub struct TunQueue {
    /// The descriptor, non-blocking.
    pub fd: OwnedFd,
    /// The `virtio_net_hdr` that reads and writes begin with.
    pub format: VnetFormat,
}

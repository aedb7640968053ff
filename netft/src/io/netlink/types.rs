//! Plain results and errors of the netlink requests, without a socket.

use std::{io, net::IpAddr, time::Duration};

use netft_proto::topology::Interface;

/// The kernel answers in microseconds; this only bounds the wait for an answer that never comes.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// A request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("{what}: {source}{}", permission_hint(source))]
    Refused {
        /// What was asked.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No answer.
    #[error("{what}: no answer from the kernel within {} s", REQUEST_TIMEOUT.as_secs())]
    NoAnswer {
        /// What was asked.
        what: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Open(source) => source.raw_os_error(),
            Self::NoAnswer { .. } => None,
        }
    }
}

fn permission_hint(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EPERM) {
        "; run as root or grant CAP_NET_ADMIN"
    } else {
        ""
    }
}

/// The adapter after `Netlink::configure_adapter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfiguredAdapter {
    /// Its number.
    pub ifindex: u32,
    /// Whether it has its IPv6 address; without it the host has IPv6 disabled.
    pub has_ipv6: bool,
}

/// The adapter as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterState {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Whether it is set up.
    pub up: bool,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Whether it can have IPv6 addresses.
    pub can_have_ipv6: bool,
    /// Its addresses, in the kernel's order.
    pub addrs: Vec<AdapterAddr>,
}

/// An address of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdapterAddr {
    /// The address.
    pub addr: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
}

impl AdapterAddr {
    /// One address without a network around it: `/32` or `/128`.
    pub fn host_addr(addr: impl Into<IpAddr>) -> Self {
        let addr = addr.into();
        Self { addr, prefix_len: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

/// An interface and its place in the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackedLink {
    /// As routes see it.
    pub interface: Interface,
    /// The interface it rides on, as a VLAN does on its parent.
    pub parent: Option<u32>,
    /// The bridge, bond or team it belongs to.
    pub master: Option<u32>,
    /// Its link layer is Ethernet.
    pub ethernet: bool,
}

/// A device that has, or might have, the adapter's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The kernel's number of it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A TUN device.
    Tun {
        /// It can have several queues.
        multi_queue: bool,
        /// Its packets have a `virtio_net_hdr`.
        vnet_hdr: bool,
        /// It stays when nobody has it open.
        persistent: bool,
        /// Somebody has it open.
        in_use: bool,
    },
    /// Anything else, in the kernel's word (`tap`, `veth`, `bridge`, …) or `hardware`.
    Other(String),
}

/// Marks the routes that are ours, so that leftovers of a crash can be told from an operator's
/// own; shown as `proto 194` by ip(8). No routing daemon uses it.
pub const ROUTE_PROTOCOL: u8 = 194;

/// A host route on the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The peer's virtual address.
    pub addr: IpAddr,
    /// The preferred source address.
    pub src: Option<IpAddr>,
    /// The MTU towards the peer, bytes; `None`: the interface's.
    pub mtu: Option<u32>,
}

/// What changed since the last call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetlinkChanges {
    /// An interface: added, removed, renamed, up, down, carrier, MTU.
    pub links: bool,
    /// An address.
    pub addresses: bool,
    /// A kernel route.
    pub routes: bool,
    /// Notices were lost: anything may have changed.
    pub resync: bool,
}

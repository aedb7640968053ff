//! Plain results and errors of the netlink requests, without a socket.

use std::{io, net::IpAddr, time::Duration};

use ipnet::IpNet;
use netft_proto::topology::Interface;

/// Timeout of a request. The kernel replies in microseconds; this bounds the wait for a lost reply.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Error of a netlink request.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused the request.
    #[error("{what}: {source}{}", permission_hint(source))]
    Refused {
        /// The request.
        what: String,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The kernel did not reply.
    #[error("{what}: no answer from the kernel within {} s", REQUEST_TIMEOUT.as_secs())]
    NoAnswer {
        /// The request.
        what: String,
    },
}

impl NetlinkError {
    /// Error number of the kernel, if any.
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
    /// Interface index.
    pub ifindex: u32,
    /// True if it has its IPv6 address; if not, IPv6 is disabled on the host.
    pub has_ipv6: bool,
}

/// Transmit queue length of the adapter, packets; beyond it the kernel drops. 20 ms at 200,000
/// packets per second, so that a worker may be descheduled for a few time slices.
pub const TX_QUEUE_LEN: u32 = 4000;

/// Present state of the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterState {
    /// Interface index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// True if it is set up.
    pub up: bool,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Its transmit queue length, packets.
    pub queue_len: u32,
    /// IPv6 on it.
    pub ipv6: Ipv6State,
    /// Its addresses, in the kernel's order.
    pub addrs: Vec<AdapterAddr>,
}

/// IPv6 on an interface (`disable_ipv6`, ip-sysctl).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6State {
    /// It can have addresses.
    Enabled,
    /// Disabled on this interface alone.
    DisabledHere,
    /// Disabled on every interface, or on every new one.
    DisabledOnHost,
    /// The kernel has no IPv6, or none on an interface of this MTU.
    Absent,
}

/// An address of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdapterAddr {
    /// The address.
    pub addr: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
    /// The kernel and the resolver prefer every other address of the host.
    pub is_deprecated: bool,
    /// An IPv4 address of link scope, which no masquerading takes as the source.
    pub has_link_scope: bool,
}

impl AdapterAddr {
    /// One of the adapter's own, as it must be: a host address (`/32` or `/128`) of global scope,
    /// and deprecated: only the routes to the peers, which name it as the source, lead to its use.
    pub fn own_addr(addr: impl Into<IpAddr>) -> Self {
        let addr = addr.into();
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        Self { addr, prefix_len, is_deprecated: true, has_link_scope: false }
    }
}

/// An interface and its position in the stack of interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackedLink {
    /// The interface.
    pub interface: Interface,
    /// Index of the lower interface, such as the parent of a VLAN.
    pub parent: Option<u32>,
    /// Index of the bridge, bond or team it is a port of.
    pub master: Option<u32>,
    /// True if the link layer is Ethernet.
    pub ethernet: bool,
    /// Its transmit queue length, packets.
    pub queue_len: u32,
}

/// A device with a given name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Type of the device.
    pub kind: DeviceKind,
}

/// Type of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A TUN device.
    Tun {
        /// The device has several queues.
        multi_queue: bool,
        /// Its packets carry a `virtio_net_hdr`.
        vnet_hdr: bool,
        /// It remains when no process has it open.
        persistent: bool,
        /// A process has it open.
        in_use: bool,
    },
    /// Anything else: the kernel's link type (`tap`, `veth`, `bridge`, …) or `hardware`.
    Other(String),
}

/// Routing protocol number of netft's host routes (`proto 194` in ip(8)): distinguishes leftovers
/// of a crash from routes of the operator. No routing daemon uses it.
pub const ROUTE_PROTOCOL: u8 = 194;

/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = 254;

/// A policy routing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Rules of a lower number come first.
    pub priority: u32,
    /// Table that it leads to; 0 for a rule that leads to none.
    pub table: u32,
    /// It carries netft's protocol number.
    pub is_own: bool,
    /// Sources of the packets that it applies to; `None`: all.
    pub source: Option<IpNet>,
    /// Their destinations; `None`: all.
    pub destination: Option<IpNet>,
    /// It leads to the table of a VRF, and applies to packets of one alone.
    pub is_for_vrf: bool,
}

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

/// Changes since the last call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetlinkChanges {
    /// An interface: added, removed, renamed, up, down, carrier, MTU.
    pub links: bool,
    /// An address.
    pub addresses: bool,
    /// A kernel route.
    pub routes: bool,
    /// Notifications were lost: anything may have changed.
    pub resync: bool,
}

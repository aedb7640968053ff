//! Messages, states and actions of the DHCP client of a floating address.

use std::net::Ipv4Addr;

use crate::{time::Time, vip::types::MacAddress};

/// A lease of an address. Its times count from the request, not from the answer (RFC 2131
/// section 4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpLease {
    /// The address.
    pub addr: Ipv4Addr,
    /// The server that assigned it.
    pub server: Ipv4Addr,
    /// Hardware address on the way to the server: its own, or a relay's. `None` until this node
    /// heard it.
    pub server_mac: Option<MacAddress>,
    /// When it was last asked for.
    pub obtained: Time,
    /// T1: when the server is asked to renew it.
    pub renew_at: Option<Time>,
    /// T2: when any server is asked to.
    pub rebind_at: Option<Time>,
    /// Its end; `None`, as T1 and T2: it has none.
    pub expires: Option<Time>,
}

impl DhcpLease {
    /// Its addresses are such as hosts can have.
    pub fn is_usable(&self) -> bool {
        is_host_address(&self.addr) && is_host_address(&self.server)
    }

    /// It has not ended.
    pub fn is_running(&self, now: Time) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

/// A unicast address that a host can have, and that is not of one interface only.
pub(super) fn is_host_address(addr: &Ipv4Addr) -> bool {
    let is_special = addr.is_unspecified()
        || addr.is_loopback()
        || addr.is_multicast()
        || addr.is_broadcast()
        || addr.is_link_local();
    // 0.0.0.0/8 and 240.0.0.0/4.
    !is_special && !matches!(addr.octets()[0], 0 | 240..=255)
}

/// Kind of a server's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpReplyKind {
    /// DHCPOFFER.
    Offer,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
}

/// A server's message, as it came in: nothing of it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpReply {
    /// Its kind.
    pub kind: DhcpReplyKind,
    /// Transaction that it answers.
    pub xid: u32,
    /// `yiaddr`.
    pub addr: Ipv4Addr,
    /// Server identifier (option 54).
    pub server: Option<Ipv4Addr>,
    /// Lease time, seconds (option 51).
    pub lease_secs: Option<u32>,
    /// T1, seconds (option 58).
    pub renew_secs: Option<u32>,
    /// T2, seconds (option 59).
    pub rebind_secs: Option<u32>,
    /// Hardware address that it came from.
    pub from: MacAddress,
}

/// Kind of a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpRequestKind {
    /// DHCPDISCOVER.
    Discover,
    /// DHCPREQUEST.
    Request,
    /// DHCPDECLINE.
    Decline,
    /// DHCPRELEASE.
    Release,
}

/// A client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DhcpRequest {
    /// Its kind.
    pub kind: DhcpRequestKind,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// `ciaddr`: the address in use, or 0.0.0.0.
    pub client_addr: Ipv4Addr,
    /// Requested address (option 50).
    pub requested: Option<Ipv4Addr>,
    /// Server identifier (option 54).
    pub server: Option<Ipv4Addr>,
    /// Hardware and IP address of the server; `None`: broadcast.
    pub to: Option<(MacAddress, Ipv4Addr)>,
}

/// State of the client (RFC 2131 section 4.4, figure 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DhcpState {
    /// This node does not have the address.
    Stopped,
    /// Waits after a refusal or a conflict.
    Waiting,
    /// Looks for a server (SELECTING).
    Selecting,
    /// Took an offer (REQUESTING).
    Requesting,
    /// Uses the remembered address, and asks whether it may (REBOOTING).
    Rebooting,
    /// Has a lease (BOUND).
    Bound,
    /// Asks its server for more time (RENEWING).
    Renewing,
    /// Asks any server for more time (REBINDING).
    Rebinding,
}

impl DhcpState {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Selecting => "selecting",
            Self::Requesting => "requesting",
            Self::Rebooting => "rebooting",
            Self::Bound => "bound",
            Self::Renewing => "renewing",
            Self::Rebinding => "rebinding",
        }
    }
}

/// Why a server's message was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IgnoreReason {
    /// It answers no request of this client.
    Transaction,
    /// This state of the client expects no such message.
    Unexpected,
    /// It comes from another server than the one that was asked.
    OtherServer,
    /// It names no usable server.
    NoServer,
    /// Its address cannot be used, or is not the one that was asked for.
    Address,
    /// Its lease time is missing or too short.
    LeaseTime,
    /// The host has the address for another purpose.
    Taken,
}

impl IgnoreReason {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Unexpected => "unexpected",
            Self::OtherServer => "other_server",
            Self::NoServer => "no_server",
            Self::Address => "address",
            Self::LeaseTime => "lease_time",
            Self::Taken => "taken",
        }
    }
}

/// An input of a [`DhcpClient`](super::DhcpClient).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DhcpInput {
    /// This node is to have the address. The lease that the cluster remembers.
    Start(Option<DhcpLease>),
    /// This node lets the address go; the lease goes on at another node.
    Stop,
    /// A server's message; `is_taken`: the host has its address for another purpose.
    Reply {
        /// The message.
        reply: DhcpReply,
        /// The host has the address for another purpose.
        is_taken: bool,
    },
    /// Another host has the address.
    Conflict,
    /// Nobody needs the address any longer.
    Release,
    /// Time passed.
    Timer,
}

/// An action of a [`DhcpClient`](super::DhcpClient), carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DhcpAction {
    /// Send a message.
    Send(DhcpRequest),
    /// The address may be used under this lease.
    Assigned(DhcpLease),
    /// The address must not be used any longer; why. The client goes on asking.
    Lost(String),
    /// No server assigns an address; why. The client goes on asking.
    Unserved(String),
}

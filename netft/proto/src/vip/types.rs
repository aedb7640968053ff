//! Inputs, actions and states of a floating address on one node.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::{time::Time, vip::token::FencingToken};

/// A hardware address; displayed as `02:00:00:00:00:07`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// State of a floating address on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VipState {
    /// The interfaces were not read yet.
    Unknown,
    /// This node does not have it; the reason.
    Offline(String),
    /// It is probed for.
    Starting,
    /// This node answers for it.
    Online,
    /// This node should have it and cannot; the reason.
    Failed(String),
}

impl VipState {
    /// The word in output.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Offline(_) => "offline",
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Failed(_) => "failed",
        }
    }

    /// The reason, if the state has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Offline(reason) | Self::Failed(reason) => Some(reason),
            Self::Unknown | Self::Starting | Self::Online => None,
        }
    }
}

/// Permission to answer for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipGrant {
    /// The decision that gave it.
    pub token: FencingToken,
    /// End of the lease, by this node's clock.
    pub until: Time,
    /// No other node of the cluster can have it: it is announced before it is probed for.
    pub is_proven: bool,
}

/// The interface that carries an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipLink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: MacAddress,
}

/// Meaning of an ARP packet or a neighbor message about one of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighborKind {
    /// The sender says that the address is its own (ARP sender address; neighbor advertisement).
    Claim,
    /// The sender asks whether anybody has it, to use it (ARP probe; solicitation from `::`).
    Probe,
}

/// An ARP packet or a neighbor message about one of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborMessage {
    /// The address.
    pub addr: IpAddr,
    /// Hardware address of the sender.
    pub mac: MacAddress,
    /// Its meaning.
    pub kind: NeighborKind,
}

/// An input of a [`VipMachine`](super::VipMachine).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VipInput {
    /// The engine granted or renewed the lease.
    Grant(VipGrant),
    /// The engine takes the address away; the reason.
    Revoke(FencingToken, String),
    /// The interface that carries the address, or why none does.
    Link(Result<VipLink, String>),
    /// Those of the address's addresses that the interface has.
    Present(BTreeSet<IpAddr>),
    /// A message of a neighbor.
    Heard(NeighborMessage),
    /// Health of the service behind the address; why it is not healthy.
    Health(Result<(), String>),
    /// Why the engine cannot decide well; `None`: it can.
    Engine(Option<String>),
    /// The kernel refused an action, or no server assigns an address.
    Refused(String),
    /// The addresses that a server assigned.
    Assigned(Vec<IpAddr>),
    /// The assigned addresses must not be used any longer; others are asked for. The reason.
    Unassigned(String),
    /// Something may have made neighbors forget: announce again.
    Announce,
    /// Time passed.
    Timer,
}

/// An action of a [`VipMachine`](super::VipMachine), carried out in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VipAction {
    /// The kernel lets the addresses answer until then.
    Permit(Time),
    /// The kernel stops them from answering.
    Forbid,
    /// Configure an address on the interface.
    AddAddress(IpAddr),
    /// Remove an address from the interface; a missing one is no error.
    RemoveAddress(IpAddr),
    /// Ask whether anybody has it: ARP from 0.0.0.0, solicitation from `::`.
    Probe(IpAddr),
    /// Announce it: ARP request and reply, unsolicited neighbor advertisement with Override.
    Announce(IpAddr),
    /// Another host claims it: announce it in defence.
    Defend(NeighborMessage),
    /// Another program removed it: it is put back.
    Restored(IpAddr),
    /// Another host has an address: it is let go.
    Conflict(IpAddr),
    /// Tell the engine that this node has stopped answering.
    Released(FencingToken),
    /// Tell the engine that this node can, or cannot, carry it.
    Able(Result<(), String>),
    /// The state changed.
    Report(VipState),
}

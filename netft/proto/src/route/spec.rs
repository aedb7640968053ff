//! The description of a route, apart from its state: the eight fields of NetFT's
//! `FaultTolerantRoute`.

use std::net::{IpAddr, SocketAddr};

use crate::{
    ids::PeerId,
    route::params::{Attributes, Priority, Timing, Transport},
};

/// One physical path to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RouteSpec {
    /// The peer.
    pub peer: PeerId,
    /// The physical address here.
    pub real_local: SocketAddr,
    /// The physical address there.
    pub real_remote: SocketAddr,
    /// The virtual address here.
    pub virtual_local: IpAddr,
    /// The virtual address there.
    pub virtual_remote: IpAddr,
    /// Heartbeat delay and threshold.
    pub timing: Timing,
    /// Lower is preferred.
    pub priority: Priority,
    /// Properties.
    pub attributes: Attributes,
    /// Transport of its packets.
    pub transport: Transport,
}

/// A change to a running route; `None` leaves a field unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteChange {
    /// New delay and threshold.
    pub timing: Option<Timing>,
    /// New priority.
    pub priority: Option<Priority>,
    /// Take the route out of use, or put it back.
    pub admin_down: Option<bool>,
    /// Drain the route, or use it again.
    pub drain: Option<bool>,
}

//! What a route is, apart from its state: the eight fields of NetFT's `FaultTolerantRoute`.

use std::net::{IpAddr, SocketAddr};

use crate::{
    ids::PeerId,
    route::params::{Attributes, Priority, Timing, Transport},
};

/// One physical way to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Delay and threshold.
    pub timing: Timing,
    /// Lower is preferred.
    pub priority: Priority,
    /// Properties.
    pub attributes: Attributes,
    /// How packets travel.
    pub transport: Transport,
}

/// A change to a route while it runs; `None` leaves a field.
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

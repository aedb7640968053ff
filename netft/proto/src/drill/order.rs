//! The order of a drill: where, which failure, how long.

use std::{fmt, time::Duration};

use ipnet::IpNet;

use crate::ids::RouteId;

/// Shortest drill: longer than the longest default detection time of a route in one site.
pub const MIN_DRILL_LENGTH: Duration = Duration::from_secs(1);
/// Longest drill.
pub const MAX_DRILL_LENGTH: Duration = Duration::from_secs(60);
/// Longest delay that a drill adds in one direction.
pub const MAX_INJECTED_DELAY: Duration = Duration::from_secs(1);

/// A drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillOrder {
    /// The routes that fail.
    pub target: DrillTarget,
    /// How it fails.
    pub fault: DrillFault,
    /// How long.
    pub length: Duration,
}

/// The routes of a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrillTarget {
    /// One route.
    Route(RouteId),
    /// Every route that begins in a network.
    Network(IpNet),
    /// Every route over an interface of this node.
    Interface(String),
}

impl fmt::Display for DrillTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(id) => write!(f, "route {id}"),
            Self::Network(prefix) => write!(f, "network {}", prefix.trunc()),
            Self::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

/// A failure, as the sockets of the routes suffer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillFault {
    /// Nothing leaves and nothing arrives.
    Blackhole,
    /// Nothing leaves; what the peer sends arrives.
    OneWay,
    /// Each datagram is lost with this probability, in a hundred, in both directions.
    Loss(u8),
    /// The interface has no carrier, and nothing passes.
    Carrier,
    /// Each datagram takes this much longer, in both directions.
    Delay(Duration),
}

impl DrillFault {
    /// The word in orders and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::OneWay => "one-way",
            Self::Loss(_) => "loss",
            Self::Carrier => "carrier",
            Self::Delay(_) => "delay",
        }
    }

    /// Returns whether the route fails for certain. Loss and delay may be what it can bear.
    pub const fn is_total(self) -> bool {
        match self {
            Self::Blackhole | Self::OneWay | Self::Carrier => true,
            Self::Loss(percent) => percent >= 100,
            Self::Delay(_) => false,
        }
    }

    /// Returns whether every datagram that leaves is dropped.
    pub const fn stops_sending(self) -> bool {
        matches!(self, Self::Blackhole | Self::OneWay | Self::Carrier)
    }

    /// Returns whether every datagram that arrives is dropped.
    pub const fn stops_receiving(self) -> bool {
        matches!(self, Self::Blackhole | Self::Carrier)
    }
}

impl fmt::Display for DrillFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blackhole | Self::OneWay | Self::Carrier => f.write_str(self.as_str()),
            Self::Loss(percent) => write!(f, "loss {percent} %"),
            Self::Delay(by) => write!(f, "delay {} ms", by.as_millis()),
        }
    }
}

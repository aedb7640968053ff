//! The parameters of a route, each a type that cannot hold a value out of range.

use std::{fmt, time::Duration};

/// A parameter out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} = {value} is out of range: {min}–{max} {unit}")]
pub struct ParamError {
    /// The parameter.
    pub name: &'static str,
    /// The value given.
    pub value: u64,
    /// The smallest value allowed.
    pub min: u64,
    /// The largest value allowed.
    pub max: u64,
    /// The unit of the three.
    pub unit: &'static str,
}

fn check_range(
    name: &'static str,
    value: u64,
    (min, max): (u64, u64),
    unit: &'static str,
) -> Result<u64, ParamError> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ParamError { name, value, min, max, unit })
    }
}

/// Range of [`Delay`], milliseconds.
pub(crate) const DELAY_RANGE: (u64, u64) = (5, 60_000);
/// Range of [`Threshold`], heartbeats.
pub(crate) const THRESHOLD_RANGE: (u64, u64) = (2, 120);

/// Time between two heartbeats on a route: 5–60,000 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Delay(u32);

impl Delay {
    /// A delay of `ms` milliseconds.
    ///
    /// # Errors
    /// Outside 5–60,000.
    pub fn from_millis(ms: u64) -> Result<Self, ParamError> {
        check_range("delay", ms, DELAY_RANGE, "ms").map(|ms| Self(ms as u32))
    }

    /// In milliseconds.
    pub const fn as_millis(self) -> u32 {
        self.0
    }

    /// As a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// Heartbeats missed before a route is down: 2–120 (NetFT: 3–120).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Threshold(u16);

impl Threshold {
    /// A threshold of `count` heartbeats.
    ///
    /// # Errors
    /// Outside 2–120.
    pub fn new(count: u64) -> Result<Self, ParamError> {
        check_range("threshold", count, THRESHOLD_RANGE, "heartbeats")
            .map(|count| Self(count as u16))
    }

    /// The count.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Delay and threshold together; the detection time is derived, never configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Timing {
    /// Time between heartbeats.
    pub delay: Delay,
    /// Heartbeats missed before the route is down.
    pub threshold: Threshold,
}

impl Timing {
    /// NetFT's own figures since 2008: one a second, five missed.
    pub const WINDOWS_PROFILE: Self = Self { delay: Delay(1000), threshold: Threshold(5) };

    /// Heartbeats missed in a row before the early warning: two fifths of the threshold, rounded up
    /// (NetFT: NetftTwoFifthMissedHeartbeats).
    pub const fn early_warning_misses(self) -> u16 {
        (self.threshold.0 * 2).div_ceil(5)
    }

    /// Delay × threshold.
    pub const fn detection_time(self) -> Duration {
        Duration::from_millis(self.delay.0 as u64 * self.threshold.0 as u64)
    }
}

/// Location of the two ends relative to each other; it selects the default [`Timing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteClass {
    /// Both ends have an address in one prefix.
    SameSubnet,
    /// A router is between the ends.
    CrossSubnet,
    /// The ends are on different sites.
    CrossSite,
}

impl RouteClass {
    /// The default timing: 30 ms × 5, 100 ms × 5, 250 ms × 8.
    pub const fn default_timing(self) -> Timing {
        let (delay, threshold) = match self {
            Self::SameSubnet => (30, 5),
            Self::CrossSubnet => (100, 5),
            Self::CrossSite => (250, 8),
        };
        Timing { delay: Delay(delay), threshold: Threshold(threshold) }
    }
}

/// Preference of a route; lower is preferred. By default the sum of the metrics of the two end
/// networks, as NetFT's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Priority(pub u32);

/// Bit mask of a route's properties. Unknown bits are kept and shown in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Attributes(pub u32);

impl Attributes {
    /// Both ends are in one prefix. NetFT shows 1 for such a route.
    pub const SAME_SUBNET: u32 = 0x1;
    /// The route came from the config, not from pairing.
    pub const PINNED: u32 = 0x2;
    /// The ends are on different sites.
    pub const CROSS_SITE: u32 = 0x4;
    /// The route leads through a third node.
    pub const RELAYED: u32 = 0x8;
    /// The remote address was learned by path validation, as behind a NAT; it is not configured.
    pub const LEARNED: u32 = 0x10;
    /// A router is between the ends. NetFT sets bit 31 on such a route.
    pub const CROSS_SUBNET: u32 = 0x8000_0000;
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BIT_NAMES: [(u32, &str); 6] = [
            (Attributes::SAME_SUBNET, "same-subnet"),
            (Attributes::CROSS_SUBNET, "cross-subnet"),
            (Attributes::CROSS_SITE, "cross-site"),
            (Attributes::PINNED, "pinned"),
            (Attributes::RELAYED, "relayed"),
            (Attributes::LEARNED, "learned"),
        ];
        let mut rest = self.0;
        let mut first = true;
        for (bit, name) in BIT_NAMES {
            if self.0 & bit != 0 {
                if !first {
                    f.write_str(",")?;
                }
                f.write_str(name)?;
                first = false;
                rest &= !bit;
            }
        }
        if rest != 0 || first {
            if !first {
                f.write_str(",")?;
            }
            write!(f, "{rest:#x}")?;
        }
        Ok(())
    }
}

/// Transport of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Sealed netft frames in UDP datagrams.
    #[default]
    Udp,
    /// The same frames in DATAGRAM frames of a QUIC connection (RFC 9221) of the route's own.
    Quic,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp => f.write_str("udp"),
            Self::Quic => f.write_str("quic"),
        }
    }
}

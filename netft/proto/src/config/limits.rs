//! Ranges and defaults of the settings, each of them once: the config file, the builder, their
//! errors and docs/config.md read them from here.
//!
//! Delay, threshold and DSCP have types that enforce their own range; the retransmission buffer
//! and the path MTU search keep their defaults beside their algorithms.

use std::{fmt, time::Duration};

use crate::route::{DELAY_RANGE, THRESHOLD_RANGE};

/// The default UDP port, as NetFT's.
pub const DEFAULT_PORT: u16 = 3343;
/// The default adapter name.
pub const DEFAULT_ADAPTER: &str = "netft0";
/// The default MTU of the adapter: fits a 1500-byte underlay over IPv4 and IPv6.
pub const DEFAULT_MTU: u16 = 1420;
/// The default rate limit of multicast and broadcast, packets per second.
pub const DEFAULT_MULTICAST: u32 = 1000;
/// The default busy-polling time: one round trip over netft between hosts that block in epoll.
pub const DEFAULT_BUSY_POLL: Duration = Duration::from_micros(100);
/// The default hold-down before data returns to a better route.
pub const DEFAULT_HOLD_DOWN: Duration = Duration::from_secs(1);
/// The default number of heartbeats in the dump of a route that goes down.
pub const DEFAULT_HISTORY: usize = 10;
/// The default longest time between two handshakes.
pub const DEFAULT_REKEY_INTERVAL: Duration = Duration::from_secs(3600);
/// The default rate limit of a relay, datagrams per second.
pub const DEFAULT_RELAY_LIMIT: u32 = 20_000;
/// The default directory of the lock and the control socket.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/netft";
/// The default metric of a cluster network (as the 2008 R2 AutoMetric base).
pub const DEFAULT_METRIC: u32 = 1000;
/// The default metric of a cluster-and-client network: used after pure cluster networks.
pub const CLIENT_METRIC: u32 = 10_000;

/// Nodes one node can know.
pub const MAX_PEERS: usize = 256;
/// Physical addresses and names in the config of one peer.
pub const MAX_PEER_ADDRESSES: usize = 32;
/// Pinned routes in the config of one peer.
pub const MAX_PEER_ROUTES: usize = 64;

/// Floating addresses one node can know.
pub const MAX_VIPS: usize = 256;

/// Most names of floating addresses in DNS.
pub const MAX_DNS_NAMES: usize = 64;
/// Time to live of a record in DNS, seconds.
pub const DEFAULT_DNS_TTL: u32 = 300;

/// Range and unit of a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberLimits {
    /// Smallest value allowed.
    pub min: u64,
    /// Largest value allowed.
    pub max: u64,
    /// Unit of both; empty: a plain number.
    pub unit: &'static str,
}

impl NumberLimits {
    /// From `min` to `max`, both allowed.
    pub const fn new(min: u64, max: u64, unit: &'static str) -> Self {
        Self { min, max, unit }
    }

    /// True when `value` is in the range.
    pub const fn contains(self, value: u64) -> bool {
        self.min <= value && value <= self.max
    }
}

impl fmt::Display for NumberLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max, unit } = self;
        let space = if unit.is_empty() { "" } else { " " };
        write!(f, "a whole number from {min} to {max}{space}{unit}")
    }
}

/// The longest lease of a floating address.
pub const MAX_LEASE: Duration = Duration::from_secs(60);
/// The default lease of a floating address.
pub const DEFAULT_LEASE: Duration = Duration::from_millis(400);
/// The same where a cluster manager renews it, by a program that runs once in seconds.
pub const DEFAULT_EXTERNAL_LEASE: Duration = Duration::from_secs(15);
/// `ownership.etcd.prefix`.
pub const DEFAULT_ETCD_PREFIX: &str = "/netft/";
/// `ownership.etcd.ttl`.
pub const DEFAULT_ETCD_TTL: Duration = Duration::from_secs(2);
/// The default time limit of a check, and the time between two.
pub const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// The default number of passes in a row that make a failed service healthy.
pub const DEFAULT_CHECK_RISE: u32 = 2;
/// The default number of failures in a row that make a healthy service failed.
pub const DEFAULT_CHECK_FALL: u32 = 3;
/// The default HTTP status of a healthy service.
pub const DEFAULT_CHECK_STATUS: u16 = 200;
/// The default time limit of a hook.
pub const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const MTU_LIMITS: NumberLimits = NumberLimits::new(1280, 65_535, "bytes");
pub(super) const MULTICAST_LIMITS: NumberLimits =
    NumberLimits::new(0, 1_000_000, "packets per second");
/// The number of the sender's queue is one byte of the header, and no machine gains from so many.
pub(super) const WORKER_LIMITS: NumberLimits =
    NumberLimits::new(0, 16, "threads (0: from the number of cores)");
pub(super) const BUSY_POLL_LIMITS: NumberLimits = NumberLimits::new(0, 1000, "µs (0: never)");
pub(super) const PORT_LIMITS: NumberLimits = NumberLimits::new(1, 65_535, "");
pub(super) const REKEY_LIMITS: NumberLimits = NumberLimits::new(60, 86_400, "seconds");
pub(super) const HISTORY_LIMITS: NumberLimits = NumberLimits::new(0, 40, "heartbeats");
pub(super) const HOLD_DOWN_LIMITS: NumberLimits = NumberLimits::new(0, 600_000, "ms");
pub(super) const PMTU_RAISE_LIMITS: NumberLimits = NumberLimits::new(1000, 3_600_000, "ms");
pub(super) const UNREACHABLE_LIMITS: NumberLimits = NumberLimits::new(0, 3_600_000, "ms");
pub(super) const GONE_LIMITS: NumberLimits = NumberLimits::new(500, 3_600_000, "ms");
pub(super) const OBJECTIVE_TIME_LIMITS: NumberLimits = NumberLimits::new(1, 600_000, "ms");
pub(super) const OBJECTIVE_LOST_LIMITS: NumberLimits =
    NumberLimits::new(0, 1_000_000_000, "frames");
pub(super) const RETRANSMIT_BYTES_LIMITS: NumberLimits = NumberLimits::new(0, 1 << 32, "bytes");
pub(super) const RETRANSMIT_AGE_LIMITS: NumberLimits = NumberLimits::new(10, 60_000, "ms");
pub(super) const RELAY_LIMITS: NumberLimits =
    NumberLimits::new(1, 10_000_000, "datagrams per second");
pub(super) const METRIC_LIMITS: NumberLimits = NumberLimits::new(1, 1_000_000_000, "");
pub(super) const CAPACITY_LIMITS: NumberLimits = NumberLimits::new(1, 10_000_000, "Mbit/s");
pub(super) const PRIORITY_LIMITS: NumberLimits = NumberLimits::new(0, u32::MAX as u64, "");
pub(super) const DSCP_LIMITS: NumberLimits = NumberLimits::new(0, 63, "");
/// The total length field of IPv4 is 16 bits.
pub(super) const PACKET_SIZE_LIMITS: NumberLimits = NumberLimits::new(1, 65_535, "bytes");
pub(super) const DELAY_LIMITS: NumberLimits = NumberLimits::new(DELAY_RANGE.0, DELAY_RANGE.1, "ms");
pub(super) const THRESHOLD_LIMITS: NumberLimits =
    NumberLimits::new(THRESHOLD_RANGE.0, THRESHOLD_RANGE.1, "heartbeats");
pub(super) const ETCD_TTL_LIMITS: NumberLimits = NumberLimits::new(1, 60, "s");
pub(super) const LEASE_LIMITS: NumberLimits =
    NumberLimits::new(100, MAX_LEASE.as_millis() as u64, "ms");
pub(super) const FAILBACK_LIMITS: NumberLimits = NumberLimits::new(0, 86_400_000, "ms");
pub(super) const CHECK_TIME_LIMITS: NumberLimits = NumberLimits::new(10, 600_000, "ms");
pub(super) const CHECK_COUNT_LIMITS: NumberLimits = NumberLimits::new(1, 100, "runs in a row");
pub(super) const DNS_TTL_LIMITS: NumberLimits = NumberLimits::new(0, 604_800, "seconds");
pub(super) const HTTP_STATUS_LIMITS: NumberLimits = NumberLimits::new(100, 599, "");

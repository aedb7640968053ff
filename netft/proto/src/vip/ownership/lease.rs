//! Arithmetic of leases between clocks that drift.

use std::time::Duration;

use crate::time::Time;

/// Bounds on clocks and on the kernel's enforcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRules {
    /// Largest error of a node's clock rate, parts per million of real time.
    pub drift_ppm: u32,
    /// How late the kernel ends an enforced lease, at most.
    pub fence_delay: Duration,
}

impl LeaseRules {
    /// Quartz keeps within 100 ppm and the kernel slews by 500 ppm at most (adjtimex(2)); the
    /// time-out of a set element was measured to be honoured within 10 ms.
    pub const DEFAULT: Self = Self { drift_ppm: 1000, fence_delay: Duration::from_millis(20) };

    /// Time on the leader's clock after which a lease that it granted has ended on every clock:
    /// the lease and the kernel's delay, times (1 + e) / (1 - e), which is at most 1 + 3 e.
    pub fn wait_after_grant(&self, lease: Duration) -> Duration {
        let bound = lease + self.fence_delay;
        bound + bound.mul_f64(3.0 * f64::from(self.drift_ppm) / 1e6)
    }

    /// The longest lease that has ended on every clock once a server has waited for `wait`: the
    /// inverse of [`wait_after_grant`](Self::wait_after_grant).
    pub fn lease_within(&self, wait: Duration) -> Duration {
        let drift = 1.0 + 3.0 * f64::from(self.drift_ppm) / 1e6;
        wait.div_f64(drift).saturating_sub(self.fence_delay)
    }

    /// End of a lease on the clock of the node that asked for it at `asked`: counted from the
    /// request, because the leader's wait begins after it.
    pub fn lease_end(asked: Time, lease: Duration) -> Time {
        asked + lease
    }

    /// The latest moment, on the clock of a node that hears of it at `heard`, at which something
    /// happened that the teller says was `age` ago.
    pub fn latest_moment(&self, heard: Time, age: Duration) -> Time {
        let sure = age.saturating_sub(age.mul_f64(2.0 * f64::from(self.drift_ppm) / 1e6));
        let nanos = u64::try_from(sure.as_nanos()).unwrap_or(u64::MAX);
        Time::from_nanos(heard.as_nanos().saturating_sub(nanos))
    }
}

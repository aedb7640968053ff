//! Heartbeat jitter: a small deterministic generator. Pure.

use std::time::Duration;

use crate::time::Time;

/// xorshift64*: enough to spread heartbeats, never used for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        // The generator has one bad state, 0.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next_random(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// After `first`, at `last` at the latest.
    pub(crate) fn time_between(&mut self, first: Time, last: Time) -> Time {
        let nanos = u64::try_from(last.since(first).as_nanos()).unwrap_or(u64::MAX);
        let back = Duration::from_nanos(self.next_random() % nanos.max(1));
        first + last.since(first).saturating_sub(back)
    }
}

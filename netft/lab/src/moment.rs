//! Moments on two clocks.

use std::time::{Instant, SystemTime};

/// One moment on both clocks: the monotonic one of this process, and the one of event timestamps.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For intervals inside this process.
    pub monotonic: Instant,
    /// For comparison with timestamps of other processes on this machine.
    pub wall: SystemTime,
}

impl Moment {
    /// The moment of the call.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }
}

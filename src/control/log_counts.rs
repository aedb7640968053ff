//! Lines and events that did not reach the log, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Counters of the log, shared by its writers and its readers.
#[derive(Debug, Default)]
pub struct LogCounts {
    lost: AtomicU64,
    limited: AtomicU64,
}

impl LogCounts {
    /// Counts lines that standard error refused or did not take in time.
    pub fn add_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Relaxed);
    }

    /// Counts lines and events beyond the rate limit of their cause.
    pub fn add_limited(&self, lines: u64) {
        self.limited.fetch_add(lines, Relaxed);
    }

    /// The counters at this moment.
    pub fn read_counts(&self) -> LogCountsView {
        LogCountsView {
            lost_lines: self.lost.load(Relaxed),
            limited_lines: self.limited.load(Relaxed),
        }
    }
}

/// The counters in `GET /v1/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogCountsView {
    /// Lines that standard error refused (disk full, reader gone) or did not take in time.
    pub lost_lines: u64,
    /// Lines and events left out because one cause produced too many.
    pub limited_lines: u64,
}

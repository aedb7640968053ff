//! The last heartbeats of a route, part of the event when it goes down (NetFT: RouteHistoryLength).
//! Pure.

use std::collections::VecDeque;

use crate::{time::Time, wire::heartbeat::HeartbeatMessage};

/// A bounded queue of heartbeats; the oldest entry is dropped first.
#[derive(Clone, Debug)]
pub(crate) struct HeartbeatHistory {
    length: usize,
    entries: VecDeque<HistoryEntry>,
}

#[derive(Clone, Copy, Debug)]
struct HistoryEntry {
    at: Time,
    sent: bool,
    message: HeartbeatMessage,
    sequence: u32,
}

impl HeartbeatHistory {
    pub(crate) fn new(length: usize) -> Self {
        Self { length, entries: VecDeque::with_capacity(length) }
    }

    /// Changes the bound; the oldest entries are dropped.
    pub(crate) fn resize(&mut self, length: usize) {
        self.length = length;
        self.entries.drain(..self.entries.len().saturating_sub(length));
    }

    pub(crate) fn record(
        &mut self,
        at: Time,
        sent: bool,
        message: HeartbeatMessage,
        sequence: u32,
    ) {
        if self.length == 0 {
            return;
        }
        if self.entries.len() == self.length {
            self.entries.pop_front();
        }
        self.entries.push_back(HistoryEntry { at, sent, message, sequence });
    }

    /// One line per heartbeat, oldest first, with its age.
    pub(crate) fn to_lines(&self, now: Time) -> Vec<String> {
        self.entries
            .iter()
            .map(|entry| {
                let verb = if entry.sent { "sent" } else { "received" };
                let message = match entry.message {
                    HeartbeatMessage::Request => "request",
                    HeartbeatMessage::Reply => "reply",
                };
                let age = now.since(entry.at).as_micros() as f64 / 1000.0;
                format!("{age:.1} ms ago: {verb} {message} {}", entry.sequence)
            })
            .collect()
    }
}

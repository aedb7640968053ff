//! Leases by the word of a cluster manager (`ownership = "external"`). Its agent proves, on the
//! node and for each lease, that the manager wants the address there, and says since when that is
//! known. Pure.
//!
//! A node that the manager has lost may hold its last lease. So a start waits until that has ended,
//! unless every other node says that it holds none. The manager's part: it has a node start an
//! address only once the last proof of the former owner lies in the past, which a quorum gives.
//! A former owner that is back with a running lease proves anew, so it asks the others, too, and a
//! node that is about to start says so; one that was paused meanwhile waits anew.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::{time::Time, vip::ownership::lease::LeaseRules};

/// Longest time between two tries of one start; after it the wait begins anew.
const START_RETRY: Duration = Duration::from_secs(5);
/// A node that gave no answer for that long is silent.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time from the question of a start to its end. An owner whose own question found this
/// node silent meanwhile has waited longer.
const START_LIMIT: Duration = Duration::from_millis(1900);
/// How often a node that is about to start notes that it runs.
const RUN_NOTE_INTERVAL: Duration = Duration::from_millis(500);
/// Time for which a start waits for answers.
pub const START_ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);

/// A lease that a manager's agent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalOrder {
    /// A moment, on this node's clock, before the agent asked the manager.
    pub asked: Time,
    /// Length, counted from then; the same on every node.
    pub lease: Duration,
}

/// Another node's word on the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExternalAnswer {
    /// It holds no lease, and takes none.
    Free,
    /// It holds a lease, or is about to: its name.
    Busy(String),
    /// Nothing: its name.
    Silent(String),
}

/// Answer to a try to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAnswer {
    /// The node has the address until then.
    Granted(Time),
    /// It is to be tried again; the reason.
    Wait(String),
    /// The order came too late; the reason.
    Refused(String),
}

#[derive(Clone, Copy, Debug)]
struct PendingStart {
    /// From when an earlier owner's last lease is counted.
    first: Time,
    last: Time,
    /// When this node last noted that it runs.
    ran: Time,
}

impl PendingStart {
    const fn new(now: Time) -> Self {
        Self { first: now, last: now, ran: now }
    }
}

/// The lease of one address on one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExternalLease {
    pending: Option<PendingStart>,
    until: Option<Time>,
}

impl ExternalLease {
    /// The node neither holds a lease, nor is about to take one; its kernel is silent.
    pub fn is_free(&self, now: Time) -> bool {
        let delay = LeaseRules::DEFAULT.fence_delay;
        let is_silent = self.until.is_none_or(|until| now >= until + delay);
        is_silent && self.pending_at(now).is_none()
    }

    fn running(&self, now: Time) -> Option<Time> {
        self.until.filter(|until| now < *until)
    }

    fn pending_at(&self, now: Time) -> Option<PendingStart> {
        self.pending.filter(|pending| now < pending.last + START_RETRY)
    }

    /// Notes that this node runs. While it did not, an owner that was back may have found it silent
    /// and renewed its lease: the wait for that begins anew.
    pub fn note_running(&mut self, now: Time) {
        if let Some(pending) = &mut self.pending {
            if now >= pending.ran + START_LIMIT {
                pending.first = now;
            }
            pending.ran = now;
        }
    }

    /// When [`note_running`](Self::note_running) is due.
    pub fn next_wake(&self) -> Option<Time> {
        let pending = self.pending?;
        let due = pending.ran + RUN_NOTE_INTERVAL;
        (due < pending.last + START_RETRY).then_some(due)
    }

    /// Begins a try to start, before the other nodes are asked: of two nodes that try at once, at
    /// least one hears of the other.
    pub fn begin_start(&mut self, now: Time) {
        self.note_running(now);
        let first = self.pending_at(now).map_or(now, |pending| pending.first);
        self.pending = Some(PendingStart { first, ..PendingStart::new(now) });
    }

    /// Ends a try to start with the answers of all other nodes.
    pub fn on_start(
        &mut self,
        now: Time,
        order: ExternalOrder,
        others: &[ExternalAnswer],
    ) -> StartAnswer {
        self.note_running(now);
        let end = order.asked + order.lease;
        if end <= now {
            return StartAnswer::Refused("the order is older than a lease".to_owned());
        }
        if self.running(now).is_some() {
            return match self.on_renewal(now, order, others) {
                Ok(until) => StartAnswer::Granted(until),
                Err(reason) => StartAnswer::Wait(reason),
            };
        }
        let fresh = self.pending.filter(|pending| now < pending.last + START_LIMIT);
        let Some(pending) = fresh else {
            return StartAnswer::Wait("the answers of the other nodes came too late".to_owned());
        };
        let mut silent = Vec::new();
        for other in others {
            match other {
                ExternalAnswer::Free => {}
                ExternalAnswer::Busy(name) => {
                    // It may be silent at the next try, and hold what it holds.
                    self.pending = Some(PendingStart::new(now));
                    return StartAnswer::Wait(format!("{name} has it, or is about to take it"));
                }
                ExternalAnswer::Silent(name) => silent.push(name.as_str()),
            }
        }
        let free_at = pending.first + LeaseRules::DEFAULT.wait_after_grant(order.lease);
        if !silent.is_empty() && now < free_at {
            let seconds = free_at.since(now).as_secs_f64();
            return StartAnswer::Wait(format!(
                "{} does not answer, and may hold a lease for {seconds:.1} s",
                silent.join(", ")
            ));
        }
        self.pending = None;
        self.until = Some(end);
        StartAnswer::Granted(end)
    }

    /// Renews a lease with the answers of all other nodes; its end.
    ///
    /// # Errors
    /// No lease runs, or another node is about to take the address.
    pub fn on_renewal(
        &mut self,
        now: Time,
        order: ExternalOrder,
        others: &[ExternalAnswer],
    ) -> Result<Time, String> {
        let running = self.running(now).ok_or("no lease runs on this node")?;
        if let Some(ExternalAnswer::Busy(name)) =
            others.iter().find(|other| matches!(other, ExternalAnswer::Busy(_)))
        {
            return Err(format!("{name} has it, or is about to take it"));
        }
        let until = running.max(order.asked + order.lease);
        self.until = Some(until);
        Ok(until)
    }

    /// The node lets the address go.
    pub fn on_stop(&mut self) {
        *self = Self::default();
    }
}

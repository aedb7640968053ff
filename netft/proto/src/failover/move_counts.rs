//! Moves of data to another route, counted by cause. Pure.

use crate::{failover::cost::is_route_failure, ids::RouteId, route::state::Reason};

/// Cause of a move, in the terms of `netft why`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveCause {
    /// The route failed, or carried data badly.
    Failover,
    /// A preferred route is good again.
    Failback,
    /// An operator's order at either end: a drain, admin-down, a removed route.
    Drain,
    /// The first route of a session, and better ones as they come up.
    StartUp,
}

impl MoveCause {
    /// Every cause.
    pub const ALL: [Self; 4] = [Self::Failover, Self::Failback, Self::Drain, Self::StartUp];

    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Failback => "failback",
            Self::Drain => "drain",
            Self::StartUp => "start-up",
        }
    }

    /// Cause of a move for `reason`.
    pub const fn of_reason(reason: Reason) -> Self {
        match reason {
            Reason::BrownOut | Reason::DataLoss => Self::Failover,
            reason if is_route_failure(reason) => Self::Failover,
            Reason::Failback => Self::Failback,
            Reason::Draining
            | Reason::PeerDraining
            | Reason::Admin
            | Reason::PeerAdmin
            | Reason::Removed => Self::Drain,
            _ => Self::StartUp,
        }
    }
}

/// Moves of data to one peer since it was added, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MoveCounts {
    /// See [`MoveCause::Failover`].
    pub failovers: u64,
    /// See [`MoveCause::Failback`].
    pub failbacks: u64,
    /// See [`MoveCause::Drain`].
    pub drains: u64,
    /// See [`MoveCause::StartUp`].
    pub start_ups: u64,
}

impl MoveCounts {
    /// Number of moves for `cause`.
    pub const fn count_of(&self, cause: MoveCause) -> u64 {
        match cause {
            MoveCause::Failover => self.failovers,
            MoveCause::Failback => self.failbacks,
            MoveCause::Drain => self.drains,
            MoveCause::StartUp => self.start_ups,
        }
    }

    /// Counts one move.
    pub const fn record(&mut self, cause: MoveCause) {
        let count = match cause {
            MoveCause::Failover => &mut self.failovers,
            MoveCause::Failback => &mut self.failbacks,
            MoveCause::Drain => &mut self.drains,
            MoveCause::StartUp => &mut self.start_ups,
        };
        *count = count.saturating_add(1);
    }

    /// The sum of two counts.
    #[must_use]
    pub const fn plus(mut self, other: Self) -> Self {
        self.failovers = self.failovers.saturating_add(other.failovers);
        self.failbacks = self.failbacks.saturating_add(other.failbacks);
        self.drains = self.drains.saturating_add(other.drains);
        self.start_ups = self.start_ups.saturating_add(other.start_ups);
        self
    }
}

/// Counts the moves of data to one peer.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct MoveRecorder {
    pub(crate) counts: MoveCounts,
    /// The failed route that data left for none.
    failed_route: Option<RouteId>,
}

impl MoveRecorder {
    /// Counts one move. An outage that another route ends is one failover, as if data had moved at
    /// once; one that the same route ends is none.
    pub(crate) fn on_moved(&mut self, from: Option<RouteId>, to: Option<RouteId>, reason: Reason) {
        let cause = MoveCause::of_reason(reason);
        let Some(to) = to else {
            self.failed_route = from.filter(|_| cause == MoveCause::Failover);
            return;
        };
        match (from, self.failed_route.take()) {
            (Some(_), _) => self.counts.record(cause),
            (None, Some(failed)) if failed == to => {}
            (None, Some(_)) => self.counts.record(MoveCause::Failover),
            (None, None) => self.counts.record(MoveCause::StartUp),
        }
    }
}

//! The cost of leaving a route: frames retransmitted, duplicated and lost, and the stall. Pure.
//!
//! A cost is opened when a route becomes suspect or data leaves it, and closed once it is final:
//! unacknowledged frames are kept for a second at most.

use std::time::Duration;

use crate::{
    failover::stall_histogram::{FailoverStall, StallSource},
    ids::RouteId,
    route::state::Reason,
    time::Time,
};

/// How long a cost stays open after the move or the end of the suspicion: retransmitted frames are
/// acknowledged or discarded by then.
pub const COST_SETTLE_TIME: Duration = Duration::from_millis(1500);

/// Frames duplicated and lost towards one peer since the start; both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounters {
    /// Frames sent on a second route while the first was suspect.
    pub duplicated: u64,
    /// Frames discarded unacknowledged: the retransmit buffer was full, or they were too old.
    pub lost: u64,
}

/// The cost of leaving a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailoverCost {
    /// Frames retransmitted on another route.
    pub resent: u64,
    /// Frames duplicated on a second route while the first was suspect.
    pub duplicated: u64,
    /// Frames discarded before they were acknowledged. They may have arrived.
    pub lost: u64,
    /// The stall of data; `None` for a planned move without one.
    pub stall: Option<FailoverStall>,
}

/// The cost of leaving one route, while it is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CostAccumulator {
    /// The route that is suspect, or that data left.
    pub(crate) from: RouteId,
    /// The route that carries the retransmission, or all data.
    pub(crate) to: Option<RouteId>,
    /// Start of the last suspicion.
    pub(crate) suspect_since: Option<Time>,
    /// Data moved because the route failed.
    pub(crate) failover: bool,
    /// When it is closed, unless something is added or the route is suspect.
    pub(crate) closes_at: Time,
    baseline: LossCounters,
    resent: u64,
    longest_wait: Option<Duration>,
    silence: Option<Duration>,
}

impl CostAccumulator {
    /// Opens the cost of leaving `from`; `baseline` holds the counters before.
    pub(crate) fn new(now: Time, from: RouteId, baseline: LossCounters) -> Self {
        let closes_at = now + COST_SETTLE_TIME;
        let (to, suspect_since, failover) = (None, None, false);
        let (resent, longest_wait, silence) = (0, None, None);
        Self {
            from,
            to,
            suspect_since,
            failover,
            closes_at,
            baseline,
            resent,
            longest_wait,
            silence,
        }
    }

    /// Adds frames retransmitted on `to`; the oldest had waited for `waited`.
    pub(crate) fn on_resent(&mut self, now: Time, to: RouteId, frames: u64, waited: Duration) {
        self.closes_at = now + COST_SETTLE_TIME;
        self.to = self.to.or(Some(to));
        self.resent += frames;
        self.longest_wait = self.longest_wait.max(Some(waited));
    }

    /// Data left the route for `reason`; a heartbeat on it was last answered `silent` ago.
    pub(crate) fn on_moved(
        &mut self,
        now: Time,
        to: Option<RouteId>,
        reason: Reason,
        silent: Option<Duration>,
    ) {
        self.to = to;
        let failed = is_route_failure(reason);
        self.failover = failed && to.is_some();
        self.silence = silent.filter(|_| self.failover);
        self.closes_at = now + COST_SETTLE_TIME;
    }

    /// The cost so far, given the present counters.
    pub(crate) fn current_cost(&self, counters: LossCounters) -> FailoverCost {
        let data = |length| FailoverStall { length, source: StallSource::Data };
        let heartbeats = |length| FailoverStall { length, source: StallSource::Heartbeats };
        FailoverCost {
            resent: self.resent,
            duplicated: counters.duplicated.saturating_sub(self.baseline.duplicated),
            lost: counters.lost.saturating_sub(self.baseline.lost),
            stall: self.longest_wait.map(data).or(self.silence.map(heartbeats)),
        }
    }
}

/// Returns whether `reason` is a failure of the route. Other moves are planned: the old route works
/// until the new one carries data.
pub(crate) const fn is_route_failure(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::HeartbeatsMissed
            | Reason::PeerDoesNotHear
            | Reason::HeardNowhere
            | Reason::PeerLocalDown
            | Reason::CarrierLost
            | Reason::InterfaceDown
            | Reason::InterfaceGone
            | Reason::AddressGone
            | Reason::SendError
            | Reason::NoConnection
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waiting_data_is_the_stall_and_heartbeats_are_the_fallback() {
        let mut cost =
            CostAccumulator::new(Time::ZERO, RouteId(1), LossCounters { duplicated: 5, lost: 1 });
        let now = Time::from_millis(1000);
        cost.on_moved(now, Some(RouteId(2)), Reason::CarrierLost, Some(MS * 30));
        let heartbeats = FailoverStall { length: MS * 30, source: StallSource::Heartbeats };
        let idle = cost.current_cost(LossCounters { duplicated: 5, lost: 1 });
        assert_eq!(idle, FailoverCost { stall: Some(heartbeats), ..FailoverCost::default() });
        cost.on_resent(now, RouteId(2), 7, MS * 12);
        cost.on_resent(now, RouteId(2), 2, MS * 3);
        let data = FailoverStall { length: MS * 12, source: StallSource::Data };
        let total = cost.current_cost(LossCounters { duplicated: 8, lost: 3 });
        assert_eq!(total, FailoverCost { resent: 9, duplicated: 3, lost: 2, stall: Some(data) });
        assert!(cost.failover && cost.closes_at == now + COST_SETTLE_TIME);
    }

    #[test]
    fn a_planned_move_and_the_loss_of_the_last_route_are_no_failovers() {
        for (to, reason) in [(Some(RouteId(2)), Reason::Failback), (None, Reason::CarrierLost)] {
            let mut cost = CostAccumulator::new(Time::ZERO, RouteId(1), LossCounters::default());
            cost.on_moved(Time::ZERO, to, reason, Some(MS));
            assert!(!cost.failover);
            assert_eq!(cost.current_cost(LossCounters::default()), FailoverCost::default());
        }
    }
}

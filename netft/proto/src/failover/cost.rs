//! What leaving a route cost: packets sent again, sent twice, given up, and the stall. Pure.
//!
//! An account is opened when a route becomes suspect or data leaves it, and closed once nothing
//! can be added to it: unacknowledged frames are kept for a second at most.

use std::time::Duration;

use crate::{
    failover::stall_histogram::{FailoverStall, StallSource},
    ids::RouteId,
    route::state::Reason,
    time::Time,
};

/// How long after the move, or after the suspicion ended, an account stays open: what was sent
/// again at that moment is acknowledged or forgotten by then.
pub const COST_SETTLE_TIME: Duration = Duration::from_millis(1500);

/// Frames sent twice and given up towards one peer since the start; both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounters {
    /// Frames sent on a second route while the first was suspect.
    pub duplicated: u64,
    /// Frames forgotten unacknowledged: the resend ring was full, or they were too old.
    pub lost: u64,
}

/// What leaving a route cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailoverCost {
    /// Frames sent again on another route.
    pub resent: u64,
    /// Frames sent on two routes while the first was suspect.
    pub duplicated: u64,
    /// Frames forgotten before anybody acknowledged them. They may have arrived.
    pub lost: u64,
    /// How long data stood still; `None` for a planned move that nothing waited for.
    pub stall: Option<FailoverStall>,
}

/// The cost of leaving one route, while it grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CostAccumulator {
    /// The route that is suspect, or was left.
    pub(crate) from: RouteId,
    /// Where what was in flight, or all data, went.
    pub(crate) to: Option<RouteId>,
    /// Since when the route was suspect last.
    pub(crate) suspect_since: Option<Time>,
    /// Data moved from the one to the other because the one failed.
    pub(crate) failover: bool,
    /// Closed then, unless something is added, or the route is suspect.
    pub(crate) closes_at: Time,
    baseline: LossCounters,
    resent: u64,
    longest_wait: Option<Duration>,
    silence: Option<Duration>,
}

impl CostAccumulator {
    /// An account of leaving `from`, with the tally as it stands before.
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

    /// Frames were sent again on `to`; the oldest had waited for this long.
    pub(crate) fn on_resent(&mut self, now: Time, to: RouteId, frames: u64, waited: Duration) {
        self.closes_at = now + COST_SETTLE_TIME;
        self.to = self.to.or(Some(to));
        self.resent += frames;
        self.longest_wait = self.longest_wait.max(Some(waited));
    }

    /// Data left the route for a reason; heartbeats on it were answered `silent` ago.
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

    /// What it says with the tally as it is at present.
    pub(crate) fn current_cost(&self, tally: LossCounters) -> FailoverCost {
        let data = |length| FailoverStall { length, source: StallSource::Data };
        let heartbeats = |length| FailoverStall { length, source: StallSource::Heartbeats };
        FailoverCost {
            resent: self.resent,
            duplicated: tally.duplicated.saturating_sub(self.baseline.duplicated),
            lost: tally.lost.saturating_sub(self.baseline.lost),
            stall: self.longest_wait.map(data).or(self.silence.map(heartbeats)),
        }
    }
}

/// Whether a route that is left for this reason failed: other moves are planned, and the old
/// route works until the new one does.
const fn is_route_failure(reason: Reason) -> bool {
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
    fn data_that_waited_is_the_stall_and_heartbeats_stand_in_for_it() {
        let mut account =
            CostAccumulator::new(Time::ZERO, RouteId(1), LossCounters { duplicated: 5, lost: 1 });
        let now = Time::from_millis(1000);
        account.on_moved(now, Some(RouteId(2)), Reason::CarrierLost, Some(MS * 30));
        let heartbeats = FailoverStall { length: MS * 30, source: StallSource::Heartbeats };
        let idle = account.current_cost(LossCounters { duplicated: 5, lost: 1 });
        assert_eq!(idle, FailoverCost { stall: Some(heartbeats), ..FailoverCost::default() });
        account.on_resent(now, RouteId(2), 7, MS * 12);
        account.on_resent(now, RouteId(2), 2, MS * 3);
        let data = FailoverStall { length: MS * 12, source: StallSource::Data };
        let cost = account.current_cost(LossCounters { duplicated: 8, lost: 3 });
        assert_eq!(cost, FailoverCost { resent: 9, duplicated: 3, lost: 2, stall: Some(data) });
        assert!(account.failover && account.closes_at == now + COST_SETTLE_TIME);
    }

    #[test]
    fn a_planned_move_and_the_loss_of_the_last_route_are_no_failovers() {
        for (to, reason) in [(Some(RouteId(2)), Reason::Failback), (None, Reason::CarrierLost)] {
            let mut account = CostAccumulator::new(Time::ZERO, RouteId(1), LossCounters::default());
            account.on_moved(Time::ZERO, to, reason, Some(MS));
            assert!(!account.failover);
            assert_eq!(account.current_cost(LossCounters::default()), FailoverCost::default());
        }
    }
}

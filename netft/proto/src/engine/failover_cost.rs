//! The account of what leaving a route costs: opened, added to and closed by what happens.

use std::time::Duration;

use crate::{
    engine::{EngineContext, peer::Peer},
    failover::{
        cost::{COST_SETTLE_TIME, CostAccumulator, FailoverCost, LossCounters},
        report::{FailoverReport, failover_report},
    },
    ids::RouteId,
    route::event::{EventKind, Reason},
    time::Time,
};

impl Peer {
    /// Frames in flight on `from` were sent again on `to`; the oldest had waited this long.
    pub(crate) fn on_frames_resent(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        (from, to): (RouteId, RouteId),
        frames: u64,
        waited: Duration,
    ) {
        let account = self.open_cost(context, now, from);
        account.on_resent(now, to, frames, waited);
    }

    /// What was sent twice and given up since the start.
    pub(crate) fn set_loss_counters(&mut self, tally: LossCounters) {
        self.loss_counters = tally;
    }

    /// Takes down what is known as data moves, and what it has cost so far.
    pub(crate) fn build_failover_report(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        (from, to): (Option<RouteId>, Option<RouteId>),
        reason: Reason,
    ) -> FailoverReport {
        let mut cause = failover_report(&self.routes, from, to, now);
        cause.outage = self.outage_since.take().map(|since| now.since(since));
        let Some(from) = from else { return cause };
        if to.is_none() {
            self.outage_since = Some(now);
        }
        // Without a session nothing is sent again.
        if self.session.is_none() {
            return cause;
        }
        let through =
            cause.previous.as_ref().and_then(|left| left.last_answered.or(left.last_heard));
        let tally = self.loss_counters;
        let account = self.open_cost(context, now, from);
        account.on_moved(now, to, reason, through.map(|at| now.since(at)));
        cause.cost = account.current_cost(tally);
        if let Some(left) = &mut cause.previous {
            left.suspect_since = account.suspect_since;
        }
        cause
    }

    /// The account of leaving `from`; one of leaving another route is closed.
    pub(crate) fn open_cost(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        from: RouteId,
    ) -> &mut CostAccumulator {
        if self.open_cost.is_some_and(|account| account.from != from) {
            self.close_cost(context, now);
        }
        let tally = self.loss_counters;
        self.open_cost.get_or_insert_with(|| CostAccumulator::new(now, from, tally))
    }

    /// Closes the account if it is due. The suspicion that opened one ends before it does.
    pub(crate) fn close_due_cost(&mut self, context: &mut EngineContext, now: Time) {
        let Some(account) = self.open_cost.as_mut().filter(|account| account.closes_at <= now)
        else {
            return;
        };
        if self.routes.get(&account.from).is_some_and(|route| route.suspect_since.is_some()) {
            account.closes_at = now + COST_SETTLE_TIME;
        } else {
            self.close_cost(context, now);
        }
    }

    /// Tells what leaving a route has cost.
    pub(crate) fn close_cost(&mut self, context: &mut EngineContext, now: Time) {
        let Some(account) = self.open_cost.take() else { return };
        let cost = account.current_cost(self.loss_counters);
        if let Some(stall) = cost.stall.filter(|_| account.failover) {
            context.stall_histogram.record(stall.length);
        }
        let (peer, from, to) = (self.id, account.from, account.to);
        if cost != FailoverCost::default() {
            context.push_event(now, EventKind::FailoverCost { peer, from, to, cost });
        }
    }
}

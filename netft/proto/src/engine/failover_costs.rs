//! The cost of leaving a peer's routes: opened by a suspicion or a move, closed when nothing can be
//! added to it.

use std::time::Duration;

use crate::{
    engine::context::EngineContext,
    failover::{
        cost::{COST_SETTLE_TIME, CostAccumulator, FailoverCost, LossCounters},
        report::FailoverReport,
        stall_histogram::{FailoverStall, StallSource},
    },
    ids::{PeerId, RouteId},
    route::{event::EventKind, state::Reason},
    time::Time,
};

/// Failover costs of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FailoverCosts {
    /// The cost that still grows.
    open: Option<CostAccumulator>,
    counters: LossCounters,
    /// When the last usable route was lost, while none is.
    outage_since: Option<Time>,
}

impl FailoverCosts {
    /// Stores the loss counters of the packet path.
    pub(crate) fn set_loss_counters(&mut self, counters: LossCounters) {
        self.counters = counters;
    }

    /// Adds frames retransmitted on `to` that were outstanding on `from`; the oldest had waited
    /// for `waited`.
    pub(crate) fn on_frames_resent(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        (peer, from, to): (PeerId, RouteId, RouteId),
        frames: u64,
        waited: Duration,
    ) {
        self.open_for(context, now, peer, from).on_resent(now, to, frames, waited);
    }

    /// Notes that `from` became suspect.
    pub(crate) fn on_suspect(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        peer: PeerId,
        from: RouteId,
    ) {
        self.open_for(context, now, peer, from).suspect_since = Some(now);
    }

    /// Completes the report of a move with the outage it ends and the cost so far. Without a
    /// session no frame is retransmitted, so no cost is opened.
    pub(crate) fn on_moved(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        (peer, has_session): (PeerId, bool),
        (from, to): (Option<RouteId>, Option<RouteId>),
        reason: Reason,
        report: &mut FailoverReport,
    ) {
        report.outage = self.outage_since.take().map(|since| now.since(since));
        let Some(from) = from else { return };
        if to.is_none() {
            self.outage_since = Some(now);
        }
        if !has_session {
            return;
        }
        let last_proof =
            report.previous.as_ref().and_then(|left| left.last_answered.or(left.last_heard));
        let counters = self.counters;
        let cost = self.open_for(context, now, peer, from);
        cost.on_moved(now, to, reason, last_proof.map(|at| now.since(at)));
        report.cost = cost.current_cost(counters);
        if let Some(left) = &mut report.previous {
            left.suspect_since = cost.suspect_since;
        }
    }

    /// When the open cost is due to be closed.
    pub(crate) fn next_close(&self) -> Option<Time> {
        self.open.map(|cost| cost.closes_at)
    }

    /// Closes the cost if it is due and its route is not suspect.
    pub(crate) fn close_due(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        peer: PeerId,
        is_suspect: impl FnOnce(RouteId) -> bool,
    ) {
        let Some(cost) = self.open.as_mut().filter(|cost| cost.closes_at <= now) else { return };
        if is_suspect(cost.from) {
            cost.closes_at = now + COST_SETTLE_TIME;
        } else {
            self.close(context, now, peer);
        }
    }

    /// Closes the open cost and reports it.
    pub(crate) fn close(&mut self, context: &mut EngineContext, now: Time, peer: PeerId) {
        let Some(closed) = self.open.take() else { return };
        let cost = closed.current_cost(self.counters);
        // Only data can stand still: the bound by heartbeats of an idle peer is no stall.
        let of_data = |stall: &FailoverStall| stall.source == StallSource::Data;
        if let Some(stall) = cost.stall.filter(|stall| closed.failover && of_data(stall)) {
            context.stall_histogram.record(stall.length);
        }
        let (from, to) = (closed.from, closed.to);
        if cost != FailoverCost::default() {
            context.push_event(now, EventKind::FailoverCost { peer, from, to, cost });
        }
    }

    /// The cost of leaving `from`; that of leaving another route is closed first.
    fn open_for(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        peer: PeerId,
        from: RouteId,
    ) -> &mut CostAccumulator {
        if self.open.is_some_and(|cost| cost.from != from) {
            self.close(context, now, peer);
        }
        let counters = self.counters;
        self.open.get_or_insert_with(|| CostAccumulator::new(now, from, counters))
    }
}

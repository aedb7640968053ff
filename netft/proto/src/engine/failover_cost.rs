//! The account of what leaving a route costs: opened, added to and closed by what happens.

use std::time::Duration;

use crate::{
    engine::{Context, peer::Peer},
    failover::{
        cost::{Account, Cost, OPEN, Tally},
        report::{Cause, cause},
    },
    ids::RouteId,
    route::event::{EventKind, Reason},
    time::Time,
};

impl Peer {
    /// Frames in flight on `from` were sent again on `to`; the oldest had waited this long.
    pub(crate) fn resent(
        &mut self,
        context: &mut Context,
        now: Time,
        (from, to): (RouteId, RouteId),
        frames: u64,
        waited: Duration,
    ) {
        let account = self.open(context, now, from);
        account.resent(now, to, frames, waited);
    }

    /// What was sent twice and given up since the start.
    pub(crate) fn count(&mut self, tally: Tally) {
        self.tally = tally;
    }

    /// Takes down what is known as data moves, and what it has cost so far.
    pub(crate) fn account(
        &mut self,
        context: &mut Context,
        now: Time,
        (from, to): (Option<RouteId>, Option<RouteId>),
        reason: Reason,
    ) -> Cause {
        let mut cause = cause(&self.routes, from, to, now);
        cause.dark = self.dark.take().map(|since| now.since(since));
        let Some(from) = from else { return cause };
        if to.is_none() {
            self.dark = Some(now);
        }
        // Without a session nothing is sent again.
        if self.session.is_none() {
            return cause;
        }
        let through = cause.left.as_ref().and_then(|left| left.last_answered.or(left.last_heard));
        let tally = self.tally;
        let account = self.open(context, now, from);
        account.moved(now, to, reason, through.map(|at| now.since(at)));
        cause.cost = account.cost(tally);
        if let Some(left) = &mut cause.left {
            left.suspect = account.suspect;
        }
        cause
    }

    /// The account of leaving `from`; one of leaving another route is closed.
    pub(crate) fn open(&mut self, context: &mut Context, now: Time, from: RouteId) -> &mut Account {
        if self.account.is_some_and(|account| account.from != from) {
            self.close(context, now);
        }
        let tally = self.tally;
        self.account.get_or_insert_with(|| Account::new(now, from, tally))
    }

    /// Closes the account if it is due. The suspicion that opened one ends before it does.
    pub(crate) fn close_due(&mut self, context: &mut Context, now: Time) {
        let Some(account) = self.account.as_mut().filter(|account| account.due <= now) else {
            return;
        };
        if self.routes.get(&account.from).is_some_and(|route| route.suspect.is_some()) {
            account.due = now + OPEN;
        } else {
            self.close(context, now);
        }
    }

    /// Tells what leaving a route has cost.
    pub(crate) fn close(&mut self, context: &mut Context, now: Time) {
        let Some(account) = self.account.take() else { return };
        let cost = account.cost(self.tally);
        if let Some(stall) = cost.stall.filter(|_| account.failover) {
            context.stalls.record(stall.length);
        }
        let (peer, from, to) = (self.id, account.from, account.to);
        if cost != Cost::default() {
            context.event(now, EventKind::Cost { peer, from, to, cost });
        }
    }
}

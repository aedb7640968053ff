//! Comparison of two routes by the same data: for a moment the frames of the active route leave on
//! another one as well, and the peer counts what arrives there.
//!
//! * *Leave*: the active route loses data for longer than a burst. The best route that is up, and
//!   not known to be lossy, carries copies until a route that loses as much would have lost twelve.
//!   If it loses less than a quarter of that, the active route is convicted and data moves.
//! * *Return*: a convicted route carries copies of the active one's data for a second at least,
//!   once its time is over. If it loses less than a quarter of what it was convicted for it is
//!   acquitted, and the hold-down of its return begins; otherwise the time doubles.
//! * *Probation*: another route that carries data, as flows are balanced or policies steer them,
//!   loses it for longer than a burst, and the active one far less. Its own data would blur a
//!   comparison, so it leaves the balance set first, and a return follows at once.
//!
//! A comparison that has no data, or whose copies the peer does not count, ends undecided.
//!
//! The cost is bounded in frames: the lower the loss in question the more, 2,400 at 0.5 %, or those
//! of 20 ms (a second for a return). Loss of this node's own making, which would follow the data,
//! shows on the other route too, as the copies load it alike, and decides nothing.

use std::time::Duration;

use crate::{
    ids::RouteId,
    route::{data_loss::LOSSY_PERMILLE, peer_route::Route, routes::RouteMap, select::route_rank},
    time::Time,
};

/// Frames that a route with the loss in question would lose, before it is judged.
const MIN_EXPECTED_LOST: u64 = 12;
/// The better route loses at most one in so many of them.
const CLEARLY_BETTER: u64 = 4;
/// Shortest and longest copying to leave a route.
const LEAVE_COPYING: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(2)];
/// Shortest and longest copying to return to one.
const RETURN_COPYING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How often a comparison looks at the first copies.
const REFRESH_INTERVAL: Duration = Duration::from_millis(2);
/// From the last copy to its acknowledgement, beside the round trip.
const SETTLE_TIME: Duration = Duration::from_millis(15);

/// Data frames sent on a route, and those that arrived as the peer reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTally {
    /// Sent since the start, copies too.
    pub sent: u64,
    /// Arrived under the present session.
    pub arrived: u64,
}

impl RouteTally {
    fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            arrived: self.arrived.saturating_sub(before.arrived),
        }
    }
}

/// A comparison under way.
#[derive(Clone, Copy, Debug)]
struct Comparison {
    /// The active route, whose data is copied.
    active: RouteId,
    /// The route that carries the copies.
    candidate: RouteId,
    /// The loss in question, per mille.
    permille: u16,
    /// The candidate is a convicted route.
    is_return: bool,
    phase: Phase,
    /// The candidate's newest counts.
    latest: Option<RouteTally>,
    next_check: Time,
    /// Without a result by then it ends undecided.
    give_up_at: Time,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Copies leave until one was sent: its acknowledgement brings the peer's count up to date,
    /// which nothing has carried since the candidate last had data. `sent`: before them.
    Refreshing {
        sent: Option<u64>,
    },
    /// The refreshed count is on its way; it is the baseline.
    Awaiting(QuietTime),
    Copying {
        since: Time,
        before: RouteTally,
    },
    /// The last copies and their acknowledgement are on their way.
    Settling {
        copies: u64,
        before: RouteTally,
        quiet: QuietTime,
    },
}

/// Since when nothing was sent on a route: what is on its way is not lost. Data is retransmitted on
/// the candidate while the active route is suspect.
#[derive(Clone, Copy, Debug)]
struct QuietTime {
    sent: u64,
    since: Time,
}

impl QuietTime {
    const fn new(tally: RouteTally, now: Time) -> Self {
        Self { sent: tally.sent, since: now }
    }

    /// Returns whether nothing was sent for as long as `settle`.
    fn is_over(&mut self, tally: RouteTally, now: Time, settle: Duration) -> bool {
        if tally.sent != self.sent {
            *self = Self::new(tally, now);
        }
        now.since(self.since) >= settle
    }
}

/// The comparison of a peer's routes, if one is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DataComparison(Option<Comparison>);

impl DataComparison {
    /// Applies a report that a route lost data alone.
    pub(crate) fn on_data_loss(
        &mut self,
        (routes, active): (&mut RouteMap, Option<RouteId>),
        now: Time,
        (id, permille): (RouteId, u16),
    ) {
        let Some(route) = routes.get_mut(&id) else { return };
        let is_congested = route.path_quality.is_queue_growing(route.stats.requests.rtt());
        let data = &mut route.path_quality.data;
        data.on_report(now, permille, is_congested);
        if active != Some(id) {
            return put_on_probation((routes, active), now, (id, permille));
        }
        if self.0.is_some_and(|it| !it.is_return) {
            return;
        }
        if data.wants_comparison(now)
            && let Some(candidate) = leave_candidate(routes, now, (id, permille))
        {
            self.0 = Some(Comparison::new(now, (id, candidate), permille, false));
        }
    }

    /// Applies the newest counts of a route.
    pub(crate) fn on_tally(&mut self, id: RouteId, tally: RouteTally) {
        let Some(comparison) = self.0.as_mut().filter(|it| it.candidate == id) else { return };
        // A new session counts from 0.
        if comparison.latest.is_some_and(|before| tally.arrived < before.arrived) {
            self.0 = None;
            return;
        }
        comparison.latest = Some(tally);
    }

    /// A convicted route is being compared.
    #[cfg(feature = "sim")]
    pub(crate) fn is_return(&self) -> bool {
        self.0.is_some_and(|comparison| comparison.is_return)
    }

    /// The route whose counts are needed.
    pub(crate) fn compared_route(&self) -> Option<RouteId> {
        self.0.map(|comparison| comparison.candidate)
    }

    /// The route that carries copies of the active one's data at the moment.
    pub(crate) fn copy_route(&self, active: Option<RouteId>) -> Option<RouteId> {
        let comparison = self.0.filter(|it| active == Some(it.active))?;
        let copies = match comparison.phase {
            Phase::Refreshing { sent } => sent.is_some(),
            Phase::Copying { .. } => true,
            Phase::Awaiting(_) | Phase::Settling { .. } => false,
        };
        copies.then_some(comparison.candidate)
    }

    /// When [`poll`](Self::poll) is due.
    pub(crate) fn next_wake(&self, routes: &RouteMap, active: Option<RouteId>) -> Option<Time> {
        let retries = || {
            let others = routes.values().filter(|route| route.is_up());
            let others = others.filter(|route| active.is_some_and(|id| id != route.id));
            others.filter_map(|route| route.path_quality.data.retry_at()).min()
        };
        self.0.map(|it| it.next_check).or_else(retries)
    }

    /// Advances the comparison, or begins that of a convicted route.
    pub(crate) fn poll(&mut self, routes: &mut RouteMap, active: Option<RouteId>, now: Time) {
        if let Some(comparison) = self.0.take_if(|it| it.next_check <= now) {
            self.0 = advance(comparison, routes, active, now);
        }
        if self.0.is_some() || self.next_wake(routes, active).is_none_or(|at| at > now) {
            return;
        }
        match return_candidate(routes, active, now) {
            // Its counts are asked for before the next timer.
            Some((active, route, permille)) => {
                self.0 = Some(Comparison::new(now, (active, route), permille, true));
            }
            None => postpone_returns(routes, now),
        }
    }
}

/// Takes the data off a route other than the active one, until a comparison acquits it, if its loss
/// lasts and the active one is clearly better.
fn put_on_probation(
    (routes, active): (&mut RouteMap, Option<RouteId>),
    now: Time,
    (id, permille): (RouteId, u16),
) {
    let active = active.and_then(|active| routes.get(&active)).filter(|route| route.is_up());
    let here = active.map(|active| u64::from(active.path_quality.data.loss_permille(now)));
    let is_better = here.is_some_and(|here| here * CLEARLY_BETTER <= u64::from(permille));
    let Some(route) = routes.get_mut(&id).filter(|route| route.is_up() && is_better) else {
        return;
    };
    let data = &mut route.path_quality.data;
    if data.convicted_permille().is_none() && data.wants_comparison(now) {
        data.begin_probation(now, permille);
        route.path_quality.browned_out = true;
        route.hold_down.restart_hold();
    }
}

/// Advances a comparison and applies its verdict. Returns it while it goes on.
fn advance(
    mut comparison: Comparison,
    routes: &mut RouteMap,
    active: Option<RouteId>,
    now: Time,
) -> Option<Comparison> {
    let is_up = routes.get(&comparison.candidate).is_some_and(Route::is_up);
    if active != Some(comparison.active) || !is_up {
        return None;
    }
    let settle = SETTLE_TIME + round_trips(routes, &comparison);
    match comparison.advance(now, settle) {
        // Nothing sent on the candidate was ever counted: no evidence, as of a peer that counts
        // other routes.
        Some(lost) if comparison.latest.is_some_and(|tally| tally.arrived > 0) => {
            conclude(routes, now, &comparison, lost);
            None
        }
        None if now < comparison.give_up_at => Some(comparison),
        _ => {
            end_undecided(routes, now, &comparison);
            None
        }
    }
}

/// Ends a comparison that showed nothing.
fn end_undecided(routes: &mut RouteMap, now: Time, comparison: &Comparison) {
    let Some(route) = routes.get_mut(&comparison.candidate) else { return };
    match comparison.is_return {
        true => route.path_quality.data.retry_later(now),
        false => route.path_quality.data.rest(now),
    }
}

/// The best route that may be better for data than the active one.
fn leave_candidate(
    routes: &RouteMap,
    now: Time,
    (id, permille): (RouteId, u16),
) -> Option<RouteId> {
    let active = routes.get(&id)?;
    let may_be_better = |route: &&Route| {
        let data = &route.path_quality.data;
        let convicted = data.convicted_permille().map_or(0, u64::from);
        route.id != id
            && route.is_up()
            && !route.suspicion.is_suspect()
            && route.hold_down.is_over(now)
            && (!route.is_drained() || active.is_drained())
            && !data.is_resting(now)
            && (convicted * CLEARLY_BETTER <= u64::from(permille)
                || data.retry_at().is_some_and(|at| at <= now))
    };
    routes.values().filter(may_be_better).min_by_key(|it| route_rank(it)).map(|it| it.id)
}

/// The convicted route whose time is over, while the active one loses nothing comparable.
fn return_candidate(
    routes: &RouteMap,
    active: Option<RouteId>,
    now: Time,
) -> Option<(RouteId, RouteId, u16)> {
    let active = routes.get(&active?).filter(|route| route.is_up())?;
    let here = u64::from(active.path_quality.data.loss_permille(now)) * CLEARLY_BETTER;
    let due = routes.values().filter(|route| {
        let data = &route.path_quality.data;
        route.is_up() && route.id != active.id && data.retry_at().is_some_and(|at| at <= now)
    });
    let route = due.min_by_key(|route| route_rank(route))?;
    let permille = route.path_quality.data.convicted_permille()?;
    (here <= u64::from(permille)).then_some((active.id, route.id, permille))
}

/// Twice the longer round trip of both routes.
fn round_trips(routes: &RouteMap, comparison: &Comparison) -> Duration {
    let ends = [comparison.active, comparison.candidate].map(|id| routes.get(&id));
    let rtts = ends.into_iter().flatten().filter_map(|route| route.stats.requests.rtt());
    rtts.max().unwrap_or_default() * 2
}

/// Puts off returns that cannot be decided at the moment.
fn postpone_returns(routes: &mut RouteMap, now: Time) {
    for route in routes.values_mut() {
        let data = &mut route.path_quality.data;
        if data.retry_at().is_some_and(|at| at <= now) {
            data.defer_retry(now);
        }
    }
}

/// Applies the verdict: what the candidate lost of how many copies.
fn conclude(routes: &mut RouteMap, now: Time, comparison: &Comparison, (lost, copies): (u64, u64)) {
    let expected_milli = copies * u64::from(comparison.permille);
    let is_judged = expected_milli >= MIN_EXPECTED_LOST * 1000;
    let is_better = is_judged && lost * 1000 * CLEARLY_BETTER <= expected_milli;
    let Comparison { active, candidate, permille, is_return, .. } = *comparison;
    if is_return && !is_judged {
        return end_undecided(routes, now, comparison);
    }
    if is_return {
        let Some(route) = routes.get_mut(&candidate) else { return };
        match is_better {
            true => route.path_quality.data.acquit(),
            false => route.path_quality.data.convict(now, permille),
        }
        return;
    }
    let own_permille = u16::try_from(lost * 1000 / copies.max(1)).unwrap_or(u16::MAX);
    if is_better {
        if let Some(better) = routes.get_mut(&candidate) {
            better.path_quality.data.acquit();
            better.path_quality.browned_out = false;
        }
        if let Some(left) = routes.get_mut(&active) {
            convict(left, now, permille);
            left.hold_down.on_lost(now);
        }
    } else if let Some(worse) = routes.get_mut(&candidate) {
        worse.path_quality.data.rest(now);
        // Data must not move there for its rank when it leaves for a third.
        if is_judged && own_permille >= LOSSY_PERMILLE {
            convict(worse, now, own_permille);
            worse.hold_down.restart_hold();
        }
    }
}

/// Marks a route as lossy: it ranks behind those that are not.
fn convict(route: &mut Route, now: Time, permille: u16) {
    route.path_quality.data.convict(now, permille);
    route.path_quality.browned_out = true;
}

impl Comparison {
    fn new(
        now: Time,
        (active, candidate): (RouteId, RouteId),
        permille: u16,
        is_return: bool,
    ) -> Self {
        let [_, longest] = if is_return { RETURN_COPYING } else { LEAVE_COPYING };
        Self {
            active,
            candidate,
            permille,
            is_return,
            phase: Phase::Refreshing { sent: None },
            latest: None,
            next_check: now + REFRESH_INTERVAL,
            give_up_at: now + 2 * longest,
        }
    }

    /// Advances to the next phase. Returns what the candidate lost, and of how many copies, at the
    /// end.
    fn advance(&mut self, now: Time, settle: Duration) -> Option<(u64, u64)> {
        let [shortest, longest] = if self.is_return { RETURN_COPYING } else { LEAVE_COPYING };
        self.next_check = now + shortest / 4;
        match (self.phase, self.latest) {
            (Phase::Refreshing { sent: None }, Some(latest)) => {
                self.phase = Phase::Refreshing { sent: Some(latest.sent) };
                self.next_check = now + REFRESH_INTERVAL;
            }
            (Phase::Refreshing { sent: Some(before) }, Some(latest)) => {
                if latest.sent > before {
                    self.phase = Phase::Awaiting(QuietTime::new(latest, now));
                    self.next_check = now + settle / 4;
                }
            }
            (Phase::Awaiting(mut quiet), Some(before)) => {
                if quiet.is_over(before, now, settle) {
                    self.phase = Phase::Copying { since: now, before };
                } else {
                    self.phase = Phase::Awaiting(quiet);
                    self.next_check = now + settle / 4;
                }
            }
            (Phase::Copying { since, before }, Some(latest)) => {
                let copies = latest.since(before).sent;
                let is_enough = copies * u64::from(self.permille) >= MIN_EXPECTED_LOST * 1000;
                let copied_for = now.since(since);
                if copied_for >= longest || (is_enough && copied_for >= shortest) {
                    let quiet = QuietTime::new(latest, now);
                    self.phase = Phase::Settling { copies, before, quiet };
                    self.next_check = now + settle / 4;
                }
            }
            (Phase::Settling { copies, before, mut quiet }, Some(latest)) => {
                if quiet.is_over(latest, now, settle) {
                    // Copies that left until the table without them was in force count as well.
                    let RouteTally { sent, arrived } = latest.since(before);
                    return Some((sent.saturating_sub(arrived), sent.max(copies)));
                }
                self.phase = Phase::Settling { copies, before, quiet };
                self.next_check = now + settle / 4;
            }
            (_, None) => {}
        }
        None
    }
}

//! Comparison of two routes by the same data: for a moment the frames of the active route leave on
//! another one as well, and the peer counts what arrives there.
//!
//! * *Evidence*: reports of loss alone, and audits of the arrivals on a route that was silent.
//! * *Leave*: the active route loses data for longer than a burst. The best route that is up, and
//!   not known to be lossy, carries copies until a route that loses as much would have lost twelve,
//!   and six times in bursts as long; sooner if the active one has lost as many of those frames, by
//!   the same counts. If it loses less than a quarter of that, the active route is convicted and
//!   data moves.
//! * *Return*: a convicted route carries copies of the active one's data for a second at least,
//!   once its time is over. If it loses less than a quarter of what it was convicted for it is
//!   acquitted, and the hold-down of its return begins; otherwise the time doubles.
//! * *Probation*: another route that carries data, as flows are balanced or policies steer them,
//!   loses it for longer than a burst, and the active one far less. Its own data would blur a
//!   comparison, so it leaves the balance set first, and a return follows at once.
//!
//! A comparison that has no data, whose copies the peer does not count, or whose other route goes
//! down, ends undecided. One whose evidence is void ends without a trace. A verdict waits while the
//! path MTU of either route is being confirmed: a black hole of large frames loses all of them, and
//! smaller ones will pass.
//!
//! The cost is bounded in frames: the lower the loss in question the more, 2,400 at 0.5 %, or those
//! of 20 ms (a second for a return); in bursts more, and 20,000 at most. Loss of this node's own
//! making, which would follow the data, shows on the other route too, as the copies load it alike,
//! and decides nothing.

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{DeliveryCounts, LossShare},
    route::{
        arrival_audit::SETTLE_TIME, data_loss::LOSSY_PERMILLE, peer_route::Route, routes::RouteMap,
        select::route_rank,
    },
    time::Time,
};

/// Frames that a route with the loss in question would lose, before it is judged.
const MIN_EXPECTED_LOST: u64 = 12;
/// Bursts that it would suffer: of two routes that lose alike, one suffers at most a quarter of six
/// in 1.7 % of comparisons.
const MIN_EXPECTED_BURSTS: u64 = 6;
/// The better route loses at most one in so many of them.
const CLEARLY_BETTER: u64 = 4;
/// Shortest and longest copying to leave a route: a thin flow has few frames.
const LEAVE_COPYING: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(10)];
/// Copies that decide on a return once the longest time is over.
const MIN_RETURN_COPIES: u64 = 200;
/// Time for copying to begin, and for its end.
const LEAVE_SETTLING: Duration = Duration::from_secs(2);
/// The most copies to leave a route; without a verdict by then there is none.
const MAX_COPIES: u64 = 20_000;
/// Shortest and longest copying to return to one.
const RETURN_COPYING: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How often a comparison looks at the first copies.
const REFRESH_INTERVAL: Duration = Duration::from_millis(2);

/// Data frames sent on a route, and those that arrived as the peer reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTally {
    /// Sent since the start, copies too.
    pub sent: u64,
    /// Acknowledged and arrived under the present session.
    pub counts: DeliveryCounts,
}

impl RouteTally {
    fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            counts: self.counts.since(before.counts),
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
    /// The loss in question.
    share: LossShare,
    /// The candidate is a convicted route.
    is_return: bool,
    phase: Phase,
    /// The candidate's newest counts.
    latest: Option<RouteTally>,
    /// The active route's newest counts, and those before the copies.
    active_counts: [Option<DeliveryCounts>; 2],
    /// Losses of the active route that end the copying: more than are needed once some were only
    /// late, as the copies were faster.
    awaited_losses: u64,
    began: Time,
    next_check: Time,
    /// Without a result by then it ends undecided.
    give_up_at: Time,
    /// Epochs of the evidence of both routes.
    epochs: [Option<u32>; 2],
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
        since: Time,
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
        (id, share): (RouteId, LossShare),
    ) {
        let Some(route) = routes.get_mut(&id) else { return };
        let is_congested = route.path_quality.is_queue_growing(route.stats.requests.rtt());
        route.path_quality.data.on_report(now, share.permille, is_congested);
        self.act_on_evidence((routes, active), now, (id, share));
    }

    /// Begins a comparison, or puts a route on probation, if it loses data for long enough.
    fn act_on_evidence(
        &mut self,
        (routes, active): (&mut RouteMap, Option<RouteId>),
        now: Time,
        (id, share): (RouteId, LossShare),
    ) {
        if active != Some(id) {
            return put_on_probation((routes, active), now, (id, share));
        }
        let lasts = routes.get(&id).is_some_and(|it| it.path_quality.data.wants_comparison(now));
        if lasts
            && self.0.is_none_or(|it| it.is_return)
            && let Some(candidate) = leave_candidate(routes, now, (id, share.permille))
        {
            self.0 = Some(Comparison::new(routes, now, (id, candidate), share, false));
        }
    }

    /// Applies the newest counts of a route.
    pub(crate) fn on_tally(
        &mut self,
        (routes, active): (&mut RouteMap, Option<RouteId>),
        now: Time,
        (id, tally): (RouteId, RouteTally),
    ) {
        if let Some(comparison) = self.0.as_mut().filter(|it| it.candidate == id) {
            let before = comparison.latest.map_or(0, |before| before.counts.arrived);
            comparison.latest = Some(tally);
            // A new session counts from 0.
            if tally.counts.arrived < before {
                self.0 = None;
            }
        }
        if let Some(comparison) = self.0.as_mut().filter(|it| it.active == id) {
            comparison.active_counts[0] = Some(tally.counts);
        }
        let is_copied = self.copy_route(active).is_some()
            || routes.values().any(|route| route.suspicion.is_suspect());
        let rtts = routes.values().filter_map(|route| route.stats.requests.rtt());
        let rtt = rtts.max().unwrap_or_default();
        let Some(route) = routes.get_mut(&id) else { return };
        let is_congested = route.path_quality.is_queue_growing(route.stats.requests.rtt());
        let data = &mut route.path_quality.data;
        if let Some(loss) = data.audit.on_counts(now, tally.counts, is_copied, rtt) {
            data.on_silent_loss(now, loss, is_congested);
            self.act_on_evidence((routes, active), now, (id, loss.share));
        }
    }

    /// A convicted route is being compared.
    #[cfg(feature = "sim")]
    pub(crate) fn is_return_of(&self, route: RouteId) -> bool {
        self.0.is_some_and(|comparison| comparison.is_return && comparison.candidate == route)
    }

    /// The routes whose counts are needed: those audited, and both of a comparison.
    pub(crate) fn counted_routes<'r>(
        &self,
        routes: &'r RouteMap,
    ) -> impl Iterator<Item = RouteId> + 'r {
        let compared = self.0.map(|comparison| comparison.ends());
        let is_compared = move |id| compared.is_some_and(|compared| compared.contains(&id));
        let audited = |route: &Route| route.path_quality.data.audit.next_count().is_some();
        let wanted = move |route: &&Route| is_compared(route.id) || audited(route);
        routes.values().filter(wanted).map(|route| route.id)
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
        let next = self.0.map(|it| it.next_check).or_else(retries);
        let audits = routes.values().filter_map(|it| it.path_quality.data.audit.next_count());
        audits.chain(next).min()
    }

    /// Advances the comparison, or begins that of a convicted route.
    pub(crate) fn poll(&mut self, routes: &mut RouteMap, active: Option<RouteId>, now: Time) {
        routes.values_mut().for_each(|route| route.path_quality.data.audit.poll(now));
        if let Some(comparison) = self.0.take_if(|it| it.next_check <= now) {
            self.0 = advance(comparison, routes, active, now);
        }
        if self.0.is_some() {
            return;
        }
        match return_candidate(routes, active, now) {
            // Its counts are asked for before the next timer.
            Some((active, route, share)) => {
                self.0 = Some(Comparison::new(routes, now, (active, route), share, true));
            }
            // Of routes that are not up, too: they may come up with this timer.
            None => postpone_returns(routes, now),
        }
    }
}

/// Takes the data off a route other than the active one, until a comparison acquits it, if its loss
/// lasts and the active one is clearly better.
fn put_on_probation(
    (routes, active): (&mut RouteMap, Option<RouteId>),
    now: Time,
    (id, share): (RouteId, LossShare),
) {
    let active = active.and_then(|active| routes.get(&active)).filter(|route| route.is_up());
    // Soon after a void it is not known what it loses.
    let active = active.filter(|active| active.path_quality.data.is_observed(now));
    let here = active.map(|active| u64::from(active.path_quality.data.loss_permille(now)));
    let is_better = here.is_some_and(|here| here * CLEARLY_BETTER <= u64::from(share.permille));
    let Some(route) = routes.get_mut(&id).filter(|route| route.is_up() && is_better) else {
        return;
    };
    let in_doubt = route.mtu.is_in_doubt();
    let data = &mut route.path_quality.data;
    if data.convicted_permille().is_none() && data.wants_comparison(now) && !in_doubt {
        data.begin_probation(now, share);
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
    if active != Some(comparison.active) {
        return None;
    }
    // One that flaps would carry copies again and again: only a hold-down would keep it from that.
    let stays_up = |route: &Route| route.is_up() && route.derived.since <= comparison.began;
    if !routes.get(&comparison.candidate).is_some_and(stays_up) {
        end_undecided(routes, now, &comparison);
        return None;
    }
    let ends = comparison.ends();
    if comparison.epochs != epochs(routes, ends) {
        return None;
    }
    let settle = SETTLE_TIME + round_trips(routes, &comparison);
    let result = comparison.advance(now, settle);
    let in_doubt = |id: &RouteId| routes.get(id).is_some_and(|route| route.mtu.is_in_doubt());
    if result.is_some() && now < comparison.give_up_at && ends.iter().any(in_doubt) {
        comparison.next_check = now + settle / 4;
        return Some(comparison);
    }
    match result {
        // Nothing sent on the candidate was ever counted: no evidence, as of a peer that counts
        // other routes.
        Some(lost) if comparison.latest.is_some_and(|tally| tally.counts.arrived > 0) => {
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
) -> Option<(RouteId, RouteId, LossShare)> {
    let active = routes.get(&active?).filter(|route| route.is_up())?;
    let here = u64::from(active.path_quality.data.loss_permille(now)) * CLEARLY_BETTER;
    let due = routes.values().filter(|route| {
        let data = &route.path_quality.data;
        route.is_up() && route.id != active.id && data.retry_at().is_some_and(|at| at <= now)
    });
    let route = due.min_by_key(|route| route_rank(route))?;
    let share = route.path_quality.data.convicted_share()?;
    (here <= u64::from(share.permille)).then_some((active.id, route.id, share))
}

/// Twice the longer round trip of both routes.
fn round_trips(routes: &RouteMap, comparison: &Comparison) -> Duration {
    let ends = comparison.ends().map(|id| routes.get(&id));
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
    let Comparison { active, candidate, share, is_return, .. } = *comparison;
    // A thin flow has few copies even in the longest time, and a wrong return is soon undone.
    let is_thin_return = is_return && copies >= MIN_RETURN_COPIES;
    let is_judged = comparison.is_paired() || comparison.has_enough(copies) || is_thin_return;
    let expected_milli = match comparison.is_paired() {
        true => comparison.lost_on_active() * 1000,
        false => copies * u64::from(comparison.share.permille),
    };
    let is_better = is_judged && lost * 1000 * CLEARLY_BETTER <= expected_milli;
    if is_return && !is_judged {
        return end_undecided(routes, now, comparison);
    }
    if is_return {
        let Some(route) = routes.get_mut(&candidate) else { return };
        match is_better {
            true => route.path_quality.data.acquit(),
            false => route.path_quality.data.convict(now, share),
        }
        return;
    }
    let own_permille = u16::try_from(lost * 1000 / copies.max(1)).unwrap_or(u16::MAX);
    if is_better {
        if let Some(better) = routes.get_mut(&candidate) {
            better.path_quality.data.acquit();
            better.path_quality.browned_out = false;
            // It may have begun during the comparison, with the end of a delay.
            better.hold_down.end();
        }
        if let Some(left) = routes.get_mut(&active) {
            convict(left, now, share);
            left.hold_down.on_lost(now);
        }
    } else if let Some(worse) = routes.get_mut(&candidate) {
        worse.path_quality.data.rest(now);
        // Data must not move there for its rank when it leaves for a third.
        if is_judged && own_permille >= LOSSY_PERMILLE {
            convict(worse, now, LossShare { permille: own_permille, ..share });
            worse.hold_down.restart_hold();
        }
    }
}

/// Marks a route as lossy: it ranks behind those that are not.
fn convict(route: &mut Route, now: Time, share: LossShare) {
    route.path_quality.data.convict(now, share);
    route.path_quality.browned_out = true;
}

/// Frames that a route with the loss in question has to lose before the other is judged.
fn needed_losses(share: LossShare) -> u64 {
    MIN_EXPECTED_LOST.max(MIN_EXPECTED_BURSTS * u64::from(share.burst))
}

fn epochs(routes: &RouteMap, ends: [RouteId; 2]) -> [Option<u32>; 2] {
    ends.map(|id| routes.get(&id).map(|route| route.path_quality.data.epoch()))
}

impl Comparison {
    fn new(
        routes: &mut RouteMap,
        now: Time,
        (active, candidate): (RouteId, RouteId),
        share: LossShare,
        is_return: bool,
    ) -> Self {
        // A route without data has a size that is known from long before.
        if let Some(candidate) = routes.get_mut(&candidate) {
            candidate.mtu.suspect_black_hole(now);
        }
        let give_up = 2 * if is_return { RETURN_COPYING[1] } else { LEAVE_SETTLING };
        Self {
            active,
            candidate,
            share,
            is_return,
            phase: Phase::Refreshing { sent: None },
            latest: None,
            active_counts: [None; 2],
            awaited_losses: needed_losses(share),
            began: now,
            next_check: now + REFRESH_INTERVAL,
            give_up_at: now + give_up,
            epochs: epochs(routes, [active, candidate]),
        }
    }

    fn ends(&self) -> [RouteId; 2] {
        [self.active, self.candidate]
    }

    /// Returns whether so many copies are enough for a verdict.
    fn has_enough(&self, copies: u64) -> bool {
        copies * u64::from(self.share.permille) >= needed_losses(self.share) * 1000
    }

    fn is_costly(&self, copies: u64) -> bool {
        !self.is_return && copies >= MAX_COPIES
    }

    /// Returns whether the active route lost enough of the same frames for a verdict.
    fn is_paired(&self) -> bool {
        self.lost_on_active() * 4 >= needed_losses(self.share) * 3
    }

    /// Frames that the active route lost while they were copied: only the copy arrived.
    fn lost_on_active(&self) -> u64 {
        let [latest, before] = self.active_counts.map(|counts| counts.map(DeliveryCounts::missing));
        let lost = latest.zip(before).map_or(0, |(latest, before)| latest.saturating_sub(before));
        if self.is_return { 0 } else { u64::try_from(lost).unwrap_or_default() }
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
                    self.active_counts[1] = self.active_counts[0];
                    self.give_up_at = self.give_up_at.max(now + longest + LEAVE_SETTLING);
                } else {
                    self.phase = Phase::Awaiting(quiet);
                    self.next_check = now + settle / 4;
                }
            }
            (Phase::Copying { since, before }, Some(latest)) => {
                let copies = latest.since(before).sent;
                let is_enough = self.has_enough(copies)
                    || self.lost_on_active() >= self.awaited_losses
                    || self.is_costly(copies);
                let copied_for = now.since(since);
                if copied_for >= longest || (is_enough && copied_for >= shortest) {
                    let quiet = QuietTime::new(latest, now);
                    self.phase = Phase::Settling { since, copies, before, quiet };
                    self.next_check = now + settle / 4;
                }
            }
            (Phase::Settling { since, copies, before, mut quiet }, Some(latest)) => {
                // Copies that left until the table without them was in force count as well.
                let RouteTally { sent, counts } = latest.since(before);
                if !quiet.is_over(latest, now, settle) {
                    self.phase = Phase::Settling { since, copies, before, quiet };
                    self.next_check = now + settle / 4;
                } else if self.is_paired()
                    || self.has_enough(copies)
                    || self.is_costly(copies)
                    || now.since(since) >= longest
                {
                    return Some((sent.saturating_sub(counts.arrived), sent.max(copies)));
                } else {
                    self.awaited_losses += needed_losses(self.share);
                    self.phase = Phase::Copying { since, before };
                }
            }
            (_, None) => {}
        }
        None
    }
}

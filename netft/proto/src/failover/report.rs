//! The report of a failover: the state of the route that data left, and of every candidate, at the
//! moment of the decision. Plain values, copied out of the engine. Pure.

use std::time::Duration;

use crate::{
    failover::cost::FailoverCost,
    ids::RouteId,
    route::{
        params::Priority,
        peer_route::Route,
        report::RemoteReport,
        routes::RouteMap,
        select::route_rank,
        state::{Reason, RouteState},
    },
    time::Time,
};

/// Candidates listed; the worst are counted only.
pub const MAX_CANDIDATES: usize = 8;

/// The state of the routes when data moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailoverReport {
    /// The route that data left; `None` when there was none, or it was removed.
    pub previous: Option<PreviousRoute>,
    /// The other routes, best first.
    pub candidates: Vec<RouteCandidate>,
    /// The number of further ones.
    pub omitted: usize,
    /// How long no route carried data before this move.
    pub outage: Option<Duration>,
    /// The cost so far; [`EventKind::FailoverCost`](crate::route::EventKind::FailoverCost) has the
    /// final one.
    pub cost: FailoverCost,
}

/// The route that data left.
#[derive(Clone, Debug, PartialEq)]
pub struct PreviousRoute {
    /// Its number.
    pub route: RouteId,
    /// Its state.
    pub state: RouteState,
    /// When a heartbeat last arrived on it.
    pub last_heard: Option<Time>,
    /// When a request was last answered: both directions worked.
    pub last_answered: Option<Time>,
    /// Start of its suspicion.
    pub suspect_since: Option<Time>,
    /// The peer's last report on it.
    pub remote_report: Option<RemoteReportSummary>,
    /// The last heartbeats in both directions, oldest first, one per line.
    pub heartbeats: Vec<String>,
}

/// The peer's last report on its end of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteReportSummary {
    /// This node's heartbeats arrive there.
    pub heard: bool,
    /// Its end has a local fault.
    pub local_down: bool,
    /// Its operator took the route out of use.
    pub admin_down: bool,
}

/// A route that could have been chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteCandidate {
    /// Its number.
    pub route: RouteId,
    /// Its state.
    pub state: RouteState,
    /// Why it was in this state.
    pub reason: Reason,
    /// Its priority; lower is preferred.
    pub priority: Priority,
    /// Its data stays unacknowledged.
    pub suspect: bool,
    /// Time until data may return to it.
    pub hold_down_left: Option<Duration>,
    /// The decision about it.
    pub outcome: SelectionOutcome,
}

/// The decision about a route, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SelectionOutcome {
    /// It carries data.
    Chosen,
    /// It is up, and another one ranks higher: by priority, then by its addresses.
    LowerRank,
    /// It is up, and held down after a recent failure.
    HeldDown,
    /// Only one direction is proven.
    HalfProven,
    /// It is down, or this node may not send there.
    NotUp,
    /// An operator took it out of use.
    AdminDown,
    /// It is up, and an operator at either end drains it.
    Drained,
    /// It is up, and browned out.
    BrownOut,
}

impl SelectionOutcome {
    /// The text in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::LowerRank => "behind another",
            Self::HeldDown => "held",
            Self::HalfProven => "half proven",
            Self::NotUp => "not up",
            Self::AdminDown => "admin-down",
            Self::Drained => "drained",
            Self::BrownOut => "brown-out",
        }
    }
}

/// Builds the report of a move of data from one route to another.
pub(crate) fn failover_report(
    routes: &RouteMap,
    from: Option<RouteId>,
    to: Option<RouteId>,
    now: Time,
) -> FailoverReport {
    let chosen = to.and_then(|id| routes.get(&id));
    let mut others: Vec<_> = routes.values().filter(|route| Some(route.id) != from).collect();
    others.sort_by_key(|route| (Some(route.id) != to, state_order(route), route_rank(route)));
    let candidates = others.iter().take(MAX_CANDIDATES);
    FailoverReport {
        previous: from.and_then(|id| routes.get(&id)).map(|route| previous_route(route, now)),
        candidates: candidates.map(|route| route_candidate(route, chosen, now)).collect(),
        omitted: others.len().saturating_sub(MAX_CANDIDATES),
        outage: None,
        cost: FailoverCost::default(),
    }
}

fn state_order(route: &Route) -> u8 {
    match route.state() {
        RouteState::Up => 0,
        RouteState::Init => 1,
        RouteState::Down => 2,
        RouteState::AdminDown => 3,
    }
}

fn previous_route(route: &Route, now: Time) -> PreviousRoute {
    PreviousRoute {
        route: route.id,
        state: route.state(),
        last_heard: route.liveness.last_heard,
        last_answered: route.stats.last_answered,
        suspect_since: route.suspicion.since(),
        remote_report: route.remote.report.map(
            |RemoteReport { heard, local_down, admin_down, .. }| RemoteReportSummary {
                heard,
                local_down,
                admin_down,
            },
        ),
        heartbeats: route.history.to_lines(now),
    }
}

fn route_candidate(route: &Route, chosen: Option<&Route>, now: Time) -> RouteCandidate {
    let held =
        route.hold_down.hold_end().map(|until| until.since(now)).filter(|left| !left.is_zero());
    let outcome = match route.state() {
        _ if chosen.is_some_and(|chosen| chosen.id == route.id) => SelectionOutcome::Chosen,
        RouteState::AdminDown => SelectionOutcome::AdminDown,
        // A route that is held down carries data when no other is up.
        RouteState::Up if held.is_some() && chosen.is_some_and(|it| it.hold_down.is_over(now)) => {
            SelectionOutcome::HeldDown
        }
        RouteState::Up if route.is_drained() => SelectionOutcome::Drained,
        RouteState::Up if route.path_quality.browned_out => SelectionOutcome::BrownOut,
        RouteState::Up => SelectionOutcome::LowerRank,
        RouteState::Init if route.can_carry_data() => SelectionOutcome::HalfProven,
        RouteState::Init | RouteState::Down => SelectionOutcome::NotUp,
    };
    RouteCandidate {
        route: route.id,
        state: route.state(),
        reason: route.derived.reason,
        priority: route.spec.priority,
        suspect: route.suspicion.is_suspect(),
        hold_down_left: held,
        outcome,
    }
}

//! Failover reports and costs in JSON, converted from the library's. Pure.

use std::time::Duration;

use netft::{
    Time,
    failover::{
        report::SelectionOutcome,
        stall_histogram::{BUCKET_BOUNDS_MS, StallHistogram, StallSource},
    },
    route,
    route::RouteState,
};
use serde::{Deserialize, Serialize};

use super::words;

/// Route states at the moment data moved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailoverReportView {
    /// The route that was left; null when there was none, or it was removed.
    pub left: Option<LeftRoute>,
    /// The other routes, best first.
    pub candidates: Vec<CandidateRoute>,
    /// Number of further candidates.
    pub more: usize,
    /// Milliseconds without any usable route before this move; null if there was one.
    pub dark_ms: Option<u64>,
    /// Cost up to that moment.
    pub cost: FailoverCostView,
}

/// Former route at that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftRoute {
    /// Its number.
    pub route: u32,
    /// Its state.
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<RouteState>"))]
    pub state: RouteState,
    /// Milliseconds since a heartbeat was last received on it; null if none was.
    pub last_heard_ms_ago: Option<u64>,
    /// Milliseconds since a heartbeat of this node was last answered; null if none was.
    pub last_answered_ms_ago: Option<u64>,
    /// Milliseconds it had been suspect; null if it was not.
    pub suspect_ms: Option<u64>,
    /// Last report of the peer on it; null without one.
    pub remote_report: Option<RemoteReportView>,
    /// The last heartbeats in both directions, oldest first.
    pub heartbeats: Vec<String>,
}

/// Last report of a peer on its end of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RemoteReportView {
    /// It receives from this node.
    pub heard: bool,
    /// Its end is down.
    pub local_down: bool,
    /// Its operator disabled the route.
    pub admin_down: bool,
}

/// A route that could have been chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CandidateRoute {
    /// Its number.
    pub route: u32,
    /// Its state.
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<RouteState>"))]
    pub state: RouteState,
    /// Reason of the state.
    pub reason: String,
    /// Its priority; lower is preferred.
    pub priority: u32,
    /// Suspect: its data was unacknowledged.
    pub suspect: bool,
    /// Milliseconds of hold-down left; null without.
    pub held_ms: Option<u64>,
    /// `chosen`, `behind another`, `held`, `half proven`, `not up`, `admin-down`, `drained` or
    /// `brown-out`.
    #[serde(with = "words")]
    #[cfg_attr(test, schemars(with = "words::WordSchema<SelectionOutcome>"))]
    pub verdict: SelectionOutcome,
}

/// Cost of leaving a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailoverCostView {
    /// Frames retransmitted on another route.
    pub resent: u64,
    /// Frames duplicated while the first route was suspect.
    pub duplicated: u64,
    /// Frames dropped from the retransmit buffer unacknowledged; they may have arrived.
    pub lost: u64,
    /// Data stall, microseconds; null for a planned move without one.
    pub stall_us: Option<u64>,
    /// Measured by `data` (packets that waited), or bounded by `heartbeats` when no data was in
    /// flight.
    #[serde(with = "words::optional")]
    #[cfg_attr(test, schemars(with = "Option<words::WordSchema<StallSource>>"))]
    pub stall_by: Option<StallSource>,
}

/// Data stalls at failovers since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StallSummary {
    /// Failovers.
    pub count: u64,
    /// Median, microseconds; null without failovers.
    pub p50_us: Option<u64>,
    /// 99th percentile, microseconds; null without failovers.
    pub p99_us: Option<u64>,
    /// Longest, microseconds.
    pub max_us: u64,
    /// Sum, microseconds.
    pub sum_us: u64,
    /// Upper bounds of the buckets, milliseconds.
    pub bounds_ms: Vec<u64>,
    /// Stalls per bucket; the last counts those above the last bound.
    pub buckets: Vec<u64>,
}

/// Converts a report made at `at`.
pub fn to_failover_report(cause: &route::FailoverReport, at: Time) -> FailoverReportView {
    FailoverReportView {
        left: cause.previous.as_ref().map(|it| to_left_route(it, at)),
        candidates: cause.candidates.iter().map(to_candidate_route).collect(),
        more: cause.omitted,
        dark_ms: cause.outage.map(saturating_millis),
        cost: to_failover_cost(&cause.cost),
    }
}

fn to_left_route(left: &route::PreviousRoute, at: Time) -> LeftRoute {
    let ago = |then: Option<Time>| then.map(|then| saturating_millis(at.since(then)));
    LeftRoute {
        route: left.route.0,
        state: left.state,
        last_heard_ms_ago: ago(left.last_heard),
        last_answered_ms_ago: ago(left.last_answered),
        suspect_ms: ago(left.suspect_since),
        remote_report: left.remote_report.map(|said| RemoteReportView {
            heard: said.heard,
            local_down: said.local_down,
            admin_down: said.admin_down,
        }),
        heartbeats: left.heartbeats.clone(),
    }
}

fn to_candidate_route(candidate: &route::RouteCandidate) -> CandidateRoute {
    CandidateRoute {
        route: candidate.route.0,
        state: candidate.state,
        reason: candidate.reason.to_string(),
        priority: candidate.priority.0,
        suspect: candidate.suspect,
        held_ms: candidate.hold_down_left.map(saturating_millis),
        verdict: candidate.outcome,
    }
}

/// Converts a cost.
pub fn to_failover_cost(cost: &route::FailoverCost) -> FailoverCostView {
    FailoverCostView {
        resent: cost.resent,
        duplicated: cost.duplicated,
        lost: cost.lost,
        stall_us: cost.stall.map(|stall| saturating_micros(stall.length)),
        stall_by: cost.stall.map(|stall| stall.source),
    }
}

/// Converts the stall histogram.
pub fn to_stall_summary(stalls: &StallHistogram) -> StallSummary {
    StallSummary {
        count: stalls.count(),
        p50_us: stalls.quantile_permille(500).map(saturating_micros),
        p99_us: stalls.quantile_permille(990).map(saturating_micros),
        max_us: saturating_micros(stalls.max),
        sum_us: saturating_micros(stalls.sum),
        bounds_ms: BUCKET_BOUNDS_MS.to_vec(),
        buckets: stalls.buckets.to_vec(),
    }
}

fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn saturating_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

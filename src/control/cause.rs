//! Causes and costs in JSON, and how they are made from the library's. Pure.

use std::time::Duration;

use netft::{
    Time,
    failover::stall_histogram::{BUCKET_BOUNDS_MS, StallHistogram},
    route,
};
use serde::{Deserialize, Serialize};

/// What was known when data moved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// The route that was left; null when there was none, or it was removed.
    pub left: Option<LeftRoute>,
    /// The other routes, best first.
    pub candidates: Vec<CandidateRoute>,
    /// How many more there were.
    pub more: usize,
    /// For how long no route carried data before this move; null if one did.
    pub dark_ms: Option<u64>,
    /// What it had cost at that moment.
    pub cost: FailoverCost,
}

/// The route that was left, as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftRoute {
    /// Its number.
    pub route: u32,
    /// Its state.
    pub state: String,
    /// How long before a heartbeat was last heard on it; null if never.
    pub last_heard_ms_ago: Option<u64>,
    /// How long before a heartbeat of this node was last answered; null if never.
    pub last_answered_ms_ago: Option<u64>,
    /// For how long its data had stayed unacknowledged; null if it was not suspect.
    pub suspect_ms: Option<u64>,
    /// What the peer last said of it; null if nothing.
    pub remote_report: Option<RemoteReport>,
    /// The last heartbeats both ways, oldest first.
    pub heartbeats: Vec<String>,
}

/// What a peer last said of its end of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteReport {
    /// It hears this node there.
    pub heard: bool,
    /// Its end is broken.
    pub local_down: bool,
    /// Its operator took the route out of use.
    pub admin_down: bool,
}

/// A route that could have been chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateRoute {
    /// Its number.
    pub route: u32,
    /// Its state.
    pub state: String,
    /// Why it was in this state.
    pub reason: String,
    /// Its priority; lower is preferred.
    pub priority: u32,
    /// Its data stayed unacknowledged.
    pub suspect: bool,
    /// How much longer data was not to return to it; null if it was not held.
    pub held_ms: Option<u64>,
    /// `chosen`, `behind another`, `held`, `half proven`, `not up`, `admin-down`, `drained` or
    /// `brown-out`.
    pub verdict: String,
}

/// What leaving a route cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverCost {
    /// Frames sent again on another route.
    pub resent: u64,
    /// Frames sent on two routes while the first was suspect.
    pub duplicated: u64,
    /// Frames forgotten before anybody acknowledged them; they may have arrived.
    pub lost: u64,
    /// How long data stood still, microseconds; null for a planned move nothing waited for.
    pub stall_us: Option<u64>,
    /// What the stall is measured by: `data` (packets that waited) or `heartbeats` (the most it
    /// can have been, for want of data).
    pub stall_by: Option<String>,
}

/// How long data stood still at failovers, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallSummary {
    /// Failovers.
    pub count: u64,
    /// Half of them took at most this, microseconds; null while there were none.
    pub p50_us: Option<u64>,
    /// 99 of 100 took at most this, microseconds; null while there were none.
    pub p99_us: Option<u64>,
    /// The longest, microseconds.
    pub max_us: u64,
    /// All together, microseconds.
    pub sum_us: u64,
    /// Upper bounds of the buckets, milliseconds.
    pub bounds_ms: Vec<u64>,
    /// Stalls in each bucket, and at the end those above the last bound.
    pub buckets: Vec<u64>,
}

/// A cause that was taken down at the moment `at`.
pub fn to_failover_report(cause: &route::FailoverReport, at: Time) -> FailoverReport {
    FailoverReport {
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
        state: left.state.to_string(),
        last_heard_ms_ago: ago(left.last_heard),
        last_answered_ms_ago: ago(left.last_answered),
        suspect_ms: ago(left.suspect_since),
        remote_report: left.remote_report.map(|said| RemoteReport {
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
        state: candidate.state.to_string(),
        reason: candidate.reason.to_string(),
        priority: candidate.priority.0,
        suspect: candidate.suspect,
        held_ms: candidate.hold_down_left.map(saturating_millis),
        verdict: candidate.outcome.as_str().to_owned(),
    }
}

/// A cost.
pub fn to_failover_cost(cost: &route::FailoverCost) -> FailoverCost {
    FailoverCost {
        resent: cost.resent,
        duplicated: cost.duplicated,
        lost: cost.lost,
        stall_us: cost.stall.map(|stall| saturating_micros(stall.length)),
        stall_by: cost.stall.map(|stall| stall.source.as_str().to_owned()),
    }
}

/// The histogram of stalls.
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

//! `POST /v1/drain`: starts or ends a drain, with a bounded wait for completion.

use std::time::Duration;

use netft::{
    RouteId, Time,
    api::{
        drain::{DrainError, DrainOrder, DrainReport, DrainTarget},
        overrides::{MAX_LIMIT, MIN_LIMIT, TimeLimit},
        snapshot::Snapshot,
    },
};

use super::{
    convert::{PeerNames, to_route},
    schema::{DrainRequest, DrainResponse, DrainWaitView},
};
use crate::clock::{WallClock, wall_clock_ms};

/// Longest wait of a request: below the listener's client timeout.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(4);

/// The order for the node, and the time to wait for its completion.
pub(super) fn to_drain_order(
    request: DrainRequest,
) -> Result<(DrainOrder, Duration), &'static str> {
    let target = match (request.route, request.interface) {
        (Some(id), None) => DrainTarget::Route(RouteId(id)),
        (None, Some(name)) => DrainTarget::Interface(name),
        _ => return Err("give either a route or an interface"),
    };
    let wait = Duration::from_millis(request.wait_ms);
    if wait > MAX_WAIT {
        return Err("wait_ms is out of range: 0–4000 ms");
    }
    let limit = request.limit_ms.map(Duration::from_millis);
    if limit.is_some_and(|limit| !request.on || !(MIN_LIMIT..=MAX_LIMIT).contains(&limit)) {
        return Err("limit_ms is for a drain that begins: 1000–7776000000 ms (90 days)");
    }
    let limit = limit.map(|limit| TimeLimit::new(Time::ZERO, wall_clock_ms(), limit));
    Ok((DrainOrder { target, on: request.on, force: request.force, limit }, wait))
}

/// Converts the outcome.
pub(super) fn to_drain_response(
    report: &DrainReport,
    snapshot: &Snapshot,
    clock: &WallClock,
    overrides_unsaved: Option<String>,
) -> DrainResponse {
    let names = PeerNames::from(snapshot);
    let status = |id: &RouteId| snapshot.routes.iter().find(|route| route.id == *id);
    let routes = report.routes.iter().filter_map(status);
    let routes: Vec<_> = routes.map(|it| to_route(it, snapshot, &names, clock)).collect();
    let waits = report.waits.iter().filter_map(|(id, wait)| {
        let peer = names.name_of(status(id)?.spec.peer);
        Some(DrainWaitView { route: id.0, peer, reason: wait.as_str().to_owned() })
    });
    DrainResponse {
        done: report.waits.is_empty(),
        waits: waits.collect(),
        routes,
        overrides_unsaved,
    }
}

/// True for a refusal because of the node's state, not of the request.
pub(super) const fn is_conflict(error: &DrainError) -> bool {
    matches!(error, DrainError::LastRoute { .. } | DrainError::TooMany)
}

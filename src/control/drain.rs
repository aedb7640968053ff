//! `POST /v1/drain`: an order, and a bounded wait until it is done.

use std::time::Duration;

use netft::{
    RouteId,
    api::{
        drain::{DrainError, DrainOrder, DrainReport, DrainTarget},
        snapshot::Snapshot,
    },
};

use super::{
    convert::{PeerNames, to_route},
    schema::{DrainRequest, DrainResponse, DrainWait},
};
use crate::clock::WallClock;

/// The longest a request waits: below the listener's patience with a silent client.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(4);

/// What the request asks of the node, and how long it waits.
pub(super) fn to_drain_order(
    request: DrainRequest,
) -> Result<(DrainOrder, Duration), &'static str> {
    let target = match (request.route, request.interface) {
        (Some(id), None) => DrainTarget::Route(RouteId(id)),
        (None, Some(name)) => DrainTarget::Interface(name),
        _ => return Err("give a route or an interface, one of them"),
    };
    let wait = Duration::from_millis(request.wait_ms);
    if wait > MAX_WAIT {
        return Err("wait_ms is out of range: 0–4000 ms");
    }
    Ok((DrainOrder { target, on: request.on, force: request.force }, wait))
}

/// What became of it.
pub(super) fn to_drain_response(
    report: &DrainReport,
    snapshot: &Snapshot,
    clock: &WallClock,
) -> DrainResponse {
    let names = PeerNames::from(snapshot);
    let status = |id: &RouteId| snapshot.routes.iter().find(|route| route.id == *id);
    let routes = report.routes.iter().filter_map(status);
    let routes: Vec<_> = routes.map(|it| to_route(it, snapshot, &names, clock)).collect();
    let waits = report.waits.iter().filter_map(|(id, wait)| {
        let peer = names.name_of(status(id)?.spec.peer);
        Some(DrainWait { route: id.0, peer, reason: wait.as_str().to_owned() })
    });
    DrainResponse { done: report.waits.is_empty(), waits: waits.collect(), routes }
}

/// Whether a refusal is about what is there, not about what was asked for.
pub(super) const fn is_conflict(error: &DrainError) -> bool {
    matches!(error, DrainError::LastRoute { .. })
}

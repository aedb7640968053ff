//! Explanation of one event, from the events that are kept. Pure.
//!
//! Bounds: at most [`MAX_EVENTS_BEFORE`] events before and [`MAX_EVENTS_AFTER`] after; those before
//! not older than [`EXPLANATION_WINDOW_MS`] and later than the previous move.

use std::ops::Range;

use netft::{failover::cost::COST_SETTLE_TIME, route::RouteState};
use serde::{Deserialize, Serialize};

use super::{
    cause::FailoverCostView,
    schema::{EventDetail, EventView},
};
use crate::clock::parse_rfc3339_millis;

/// Most events before the explained one.
const MAX_EVENTS_BEFORE: usize = 24;
/// Most events after it.
const MAX_EVENTS_AFTER: usize = 12;
/// Oldest event that can explain a move, milliseconds: longer than any default detection time.
const EXPLANATION_WINDOW_MS: i64 = 10_000;

/// `GET /v1/why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventExplanation {
    /// The explained event.
    pub event: EventView,
    /// Events that led to it, oldest first.
    pub before: Vec<EventView>,
    /// Events that followed, oldest first, up to the next move.
    pub after: Vec<EventView>,
    /// Cost; null where no route was left, or where data had none to move to.
    pub cost: Option<FailoverCostView>,
    /// Where no route could carry data: how long, milliseconds; null while none can.
    #[serde(default)]
    pub outage_ms: Option<u64>,
    /// The cost cannot grow further.
    pub cost_final: bool,
    /// Endpoints of the named routes that still exist.
    pub routes: Vec<RouteEndpoints>,
    /// The event is of an earlier run of netftd, whose route numbers are not those of this one.
    #[serde(default)]
    pub earlier_run: bool,
    /// Oldest event that is kept.
    pub oldest: u64,
    /// Newest event.
    pub newest: u64,
}

/// The two ends of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RouteEndpoints {
    /// Its number.
    pub route: u32,
    /// The physical address and port here.
    pub real_local: std::net::SocketAddr,
    /// The physical address and port there.
    pub real_remote: std::net::SocketAddr,
}

/// The event to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSelector {
    /// The last move.
    Last,
    /// The event of this number.
    Event(u64),
    /// The last move from or to this route, else its last state change.
    Route(u32),
}

/// Explains an event, as of the time `at` (RFC 3339).
///
/// # Errors
/// There is no such event; in one line.
pub fn explain_event(
    events: &[EventView],
    subject: EventSelector,
    at: &str,
) -> Result<EventExplanation, String> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else {
        return Err("no events yet".to_owned());
    };
    let (oldest, newest) = (first.seq, last.seq);
    let kept = format!("events {oldest} to {newest} are kept");
    let found = match subject {
        EventSelector::Event(seq) => events.iter().position(|event| event.seq == seq),
        EventSelector::Last => events.iter().rposition(|event| is_move(&event.detail)),
        EventSelector::Route(route) => {
            // The number meant another route in an earlier run.
            let start = run_bounds(events, events.len()).start;
            let of = |event: &EventView| is_about_route(&event.detail, route);
            let moved = |event: &EventView| is_move(&event.detail) && of(event);
            let run = &events[start..];
            let found = run.iter().rposition(moved).or_else(|| run.iter().rposition(of));
            found.map(|place| start + place)
        }
    };
    let place = found.ok_or_else(|| match subject {
        EventSelector::Event(seq) if seq > newest => format!("there is no event {seq} yet: {kept}"),
        EventSelector::Event(seq) => format!("event {seq} is discarded: {kept}"),
        EventSelector::Last if oldest > 1 => format!("no move is kept: {kept}; see `netft events`"),
        EventSelector::Last => format!("no data has moved yet: {kept}; see `netft events`"),
        EventSelector::Route(route) => format!("no event about route {route} is kept: {kept}"),
    })?;
    let event = events[place].clone();
    let run = run_bounds(events, place);
    let earlier_run = run.end < events.len();
    let before = events_before(&events[run.start..place], &event);
    let after = events_after(&events[place + 1..run.end], &event);
    let reported_cost = cost_after(&events[place + 1..run.end], &event);
    let age = parse_rfc3339_millis(at).zip(parse_rfc3339_millis(&event.at));
    let age = age.map_or(0, |(now, at)| u128::try_from(now - at).unwrap_or_default());
    let cost_final = reported_cost.is_some()
        || earlier_run
        || after.iter().any(|event| is_move(&event.detail))
        || age > COST_SETTLE_TIME.as_millis();
    let outage_ms = outage_after(&after, &event);
    let cost = match is_outage(&event.detail) {
        true => None,
        false => reported_cost.or_else(|| own_cost(&event.detail)),
    };
    Ok(EventExplanation {
        event,
        before,
        after,
        cost,
        outage_ms,
        cost_final,
        routes: Vec::new(),
        earlier_run,
        oldest,
        newest,
    })
}

/// The events of the run that the one at `place` belongs to. A run begins with
/// [`EventDetail::Restarted`], the first one without.
fn run_bounds(events: &[EventView], place: usize) -> Range<usize> {
    let is_start = |event: &EventView| matches!(event.detail, EventDetail::Restarted { .. });
    let until = events.len().min(place + 1);
    let start = events[..until].iter().rposition(is_start).unwrap_or_default();
    let next = events[until..].iter().position(is_start);
    start..next.map_or(events.len(), |next| until + next)
}

const fn is_move(what: &EventDetail) -> bool {
    matches!(what, EventDetail::Moved { .. })
}

/// True if data left a route and had none to move to.
const fn is_outage(what: &EventDetail) -> bool {
    matches!(what, EventDetail::Moved { to: None, .. })
}

/// Length of the outage that an event began, by the move that ended it.
fn outage_after(after: &[EventView], event: &EventView) -> Option<u64> {
    let mut moves = after.iter().filter(|_| is_outage(&event.detail));
    moves.find_map(|other| match &other.detail {
        EventDetail::Moved { cause, to: Some(_), .. } => cause.dark_ms,
        _ => None,
    })
}

/// True if an event is about a route, not merely as a candidate.
fn is_about_route(what: &EventDetail, wanted: u32) -> bool {
    match what {
        EventDetail::Moved { from, to, .. } => [*from, *to].contains(&Some(wanted)),
        other => other.routes().contains(&wanted),
    }
}

/// True if two events may be related: same peer, or about this node.
fn is_related(one: &EventDetail, other: &EventDetail) -> bool {
    one.peer().zip(other.peer()).is_none_or(|(one, other)| one == other)
}

fn events_before(events: &[EventView], event: &EventView) -> Vec<EventView> {
    let now = parse_rfc3339_millis(&event.at).unwrap_or_default();
    let young = |event: &&EventView| {
        parse_rfc3339_millis(&event.at)
            .is_some_and(|at| now.saturating_sub(at) <= EXPLANATION_WINDOW_MS)
    };
    let mut found: Vec<_> = events
        .iter()
        .rev()
        .take_while(young)
        .filter(|other| is_related(&event.detail, &other.detail))
        .take_while(|other| !is_move(&other.detail))
        // The cost of an earlier move explains nothing here.
        .filter(|other| !matches!(other.detail, EventDetail::Cost { .. }))
        .take(MAX_EVENTS_BEFORE)
        .cloned()
        .collect();
    found.reverse();
    found
}

fn events_after(events: &[EventView], event: &EventView) -> Vec<EventView> {
    let mut found = Vec::new();
    for other in events.iter().filter(|other| other.detail.peer().is_some()) {
        if !is_related(&event.detail, &other.detail) {
            continue;
        }
        let last = is_move(&other.detail);
        // Events over the limit are left out, but for the move that ends the explanation.
        if last || found.len() < MAX_EVENTS_AFTER {
            found.push(other.clone());
        }
        if last {
            break;
        }
    }
    found
}

/// The cost event that belongs to an event.
fn cost_after(events: &[EventView], event: &EventView) -> Option<FailoverCostView> {
    let wanted = left_route(&event.detail)?;
    let until = parse_rfc3339_millis(&event.at)? + EXPLANATION_WINDOW_MS;
    let young = |event: &&EventView| parse_rfc3339_millis(&event.at).is_some_and(|at| at <= until);
    let left_again = |other: &&EventView| {
        matches!(&other.detail,
        EventDetail::Moved { peer, from, .. }
            if event.detail.peer() == Some(peer) && *from == Some(wanted))
            && is_move(&event.detail)
    };
    events.iter().take_while(young).take_while(|other| !left_again(other)).find_map(|other| {
        let EventDetail::Cost { peer, from, cost, .. } = &other.detail else { return None };
        (*from == wanted && event.detail.peer() == Some(peer)).then(|| cost.clone())
    })
}

/// The cost an event itself carries.
fn own_cost(detail: &EventDetail) -> Option<FailoverCostView> {
    if let EventDetail::Moved { from: Some(_), cause, .. } = detail {
        return Some(cause.cost.clone());
    }
    let EventDetail::Cost { cost, .. } = detail else { return None };
    Some(cost.clone())
}

/// The route that an event reports as left, suspect or not up.
fn left_route(detail: &EventDetail) -> Option<u32> {
    if let EventDetail::Moved { from, .. } = detail {
        return *from;
    }
    if let EventDetail::Suspect { route, .. } = detail {
        return Some(*route);
    }
    let EventDetail::StateChanged { route, to, .. } = detail else { return None };
    (*to != RouteState::Up).then_some(*route)
}

#[cfg(test)]
mod tests;

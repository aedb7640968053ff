//! The story of one event, put together from the events that are kept. Pure.
//!
//! Bounds: at most [`BEFORE`] events before and [`AFTER`] after; those before not older than
//! [`WINDOW`] and younger than the move before.

use netft::failover::cost::OPEN;
use serde::{Deserialize, Serialize};

use super::{
    cause::Cost,
    schema::{Event, What},
};

/// Events told before the one that is asked for.
const BEFORE: usize = 24;
/// Events told after it.
const AFTER: usize = 12;
/// What is older does not explain a move, milliseconds: longer than any default detection time.
const WINDOW: u64 = 10_000;

/// `GET /v1/why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// The event that is asked for.
    pub event: Event,
    /// What led to it, oldest first.
    pub before: Vec<Event>,
    /// What came of it, oldest first, up to the next move.
    pub after: Vec<Event>,
    /// What it cost; null where nothing was left.
    pub cost: Option<Cost>,
    /// Nothing can be added to the cost.
    pub cost_final: bool,
    /// The ends of the routes that are named and still exist.
    pub routes: Vec<Ends>,
    /// The oldest event that is kept.
    pub oldest: u64,
    /// The newest event.
    pub newest: u64,
}

/// The two ends of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// Its number.
    pub route: u32,
    /// The physical address and port here.
    pub real_local: std::net::SocketAddr,
    /// The physical address and port there.
    pub real_remote: std::net::SocketAddr,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The last move.
    Last,
    /// The event of this number.
    Event(u64),
    /// The last move from or to this route, or else its last change.
    Route(u32),
}

/// The story of an event, as of the time `at` (RFC 3339).
///
/// # Errors
/// Why there is none, in one line.
pub fn story(events: &[Event], subject: Subject, at: &str) -> Result<Story, String> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else {
        return Err("nothing has happened yet".to_owned());
    };
    let (oldest, newest) = (first.seq, last.seq);
    let kept = format!("events {oldest} to {newest} are kept");
    let found = match subject {
        Subject::Event(seq) => events.iter().position(|event| event.seq == seq),
        Subject::Last => events.iter().rposition(|event| is_move(&event.what)),
        Subject::Route(route) => {
            let of = |event: &Event| concerns(&event.what, route);
            let moved = |event: &Event| is_move(&event.what) && of(event);
            events.iter().rposition(moved).or_else(|| events.iter().rposition(of))
        }
    };
    let place = found.ok_or_else(|| match subject {
        Subject::Event(seq) if seq > newest => format!("there is no event {seq} yet: {kept}"),
        Subject::Event(seq) => format!("event {seq} is gone: {kept}"),
        Subject::Last if oldest > 1 => format!("no move is kept: {kept}; see netft events"),
        Subject::Last => format!("no data has moved yet: {kept}; see netft events"),
        Subject::Route(route) => format!("nothing about route {route} is kept: {kept}"),
    })?;
    let event = events[place].clone();
    let before = before(&events[..place], &event);
    let after = after(&events[place + 1..], &event);
    let told = cost_after(&events[place + 1..], &event);
    let age = millis(at).unwrap_or_default().saturating_sub(millis(&event.at).unwrap_or_default());
    let cost_final = told.is_some()
        || after.iter().any(|event| is_move(&event.what))
        || u128::from(age) > OPEN.as_millis();
    let cost = told.or_else(|| match &event.what {
        What::Moved { from: Some(_), cause, .. } => Some(cause.cost.clone()),
        What::Cost { cost, .. } => Some(cost.clone()),
        _ => None,
    });
    Ok(Story { event, before, after, cost, cost_final, routes: Vec::new(), oldest, newest })
}

/// Every route an event names.
pub fn routes_of(what: &What) -> Vec<u32> {
    match what {
        What::Moved { from, to, cause, .. } => {
            let others = cause.candidates.iter().map(|candidate| candidate.route);
            from.iter().chain(to).copied().chain(others).collect()
        }
        What::Cost { from, to, .. } => [*from].into_iter().chain(*to).collect(),
        What::RouteAdded { route, .. }
        | What::RouteRemoved { route, .. }
        | What::RemoteReachable { route, .. }
        | What::StateChanged { route, .. }
        | What::EarlyWarning { route, .. }
        | What::Suspect { route, .. }
        | What::AddressAdopted { route, .. }
        | What::PathMtuChanged { route, .. } => vec![*route],
        _ => Vec::new(),
    }
}

const fn is_move(what: &What) -> bool {
    matches!(what, What::Moved { .. })
}

/// Whether an event is about a route: not merely as one that could have been chosen.
fn concerns(what: &What, wanted: u32) -> bool {
    match what {
        What::Moved { from, to, .. } => [*from, *to].contains(&Some(wanted)),
        other => routes_of(other).contains(&wanted),
    }
}

fn peer_of(what: &What) -> Option<&str> {
    match what {
        What::RouteAdded { peer, .. }
        | What::RouteRemoved { peer, .. }
        | What::RemoteReachable { peer, .. }
        | What::RemoteUnreachable { peer }
        | What::StateChanged { peer, .. }
        | What::EarlyWarning { peer, .. }
        | What::Ready { peer, .. }
        | What::SessionEstablished { peer, .. }
        | What::SessionEnded { peer }
        | What::Moved { peer, .. }
        | What::Suspect { peer, .. }
        | What::SessionRefused { peer, .. }
        | What::DuplicateNode { peer }
        | What::NameFailed { peer, .. }
        | What::PathMtuChanged { peer, .. }
        | What::AddressAdopted { peer, .. }
        | What::Cost { peer, .. }
        | What::Drain { peer, .. } => Some(peer),
        What::AdapterRestored { .. }
        | What::Stalled { .. }
        | What::Reconfigured
        | What::EventsLost { .. } => None,
    }
}

/// Whether two events may have to do with each other: same peer, or about the node itself.
fn related(one: &What, other: &What) -> bool {
    match (peer_of(one), peer_of(other)) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

fn before(events: &[Event], event: &Event) -> Vec<Event> {
    let now = millis(&event.at).unwrap_or_default();
    let young =
        |event: &&Event| millis(&event.at).is_some_and(|at| now.saturating_sub(at) <= WINDOW);
    let mut found: Vec<_> = events
        .iter()
        .rev()
        .take_while(young)
        .filter(|other| related(&event.what, &other.what))
        .take_while(|other| !is_move(&other.what))
        // The cost of an earlier move explains nothing.
        .filter(|other| !matches!(other.what, What::Cost { .. }))
        .take(BEFORE)
        .cloned()
        .collect();
    found.reverse();
    found
}

fn after(events: &[Event], event: &Event) -> Vec<Event> {
    let mut found = Vec::new();
    for other in events.iter().filter(|other| peer_of(&other.what).is_some()) {
        if !related(&event.what, &other.what) {
            continue;
        }
        let last = is_move(&other.what);
        // What is in between is left out, the end of the story is not.
        if last || found.len() < AFTER {
            found.push(other.clone());
        }
        if last {
            break;
        }
    }
    found
}

/// The cost told after an event for the route it is about.
fn cost_after(events: &[Event], event: &Event) -> Option<Cost> {
    let wanted = match &event.what {
        What::Moved { from, .. } => (*from)?,
        What::Suspect { route, .. } => *route,
        What::StateChanged { route, to, .. } if to != "up" => *route,
        _ => return None,
    };
    let until = millis(&event.at)? + WINDOW;
    let young = |event: &&Event| millis(&event.at).is_some_and(|at| at <= until);
    let left_again = |other: &&Event| {
        matches!(&other.what,
        What::Moved { peer, from, .. }
            if peer_of(&event.what) == Some(peer) && *from == Some(wanted))
            && is_move(&event.what)
    };
    events.iter().take_while(young).take_while(|other| !left_again(other)).find_map(|other| {
        match &other.what {
            What::Cost { peer, from, cost, .. }
                if *from == wanted && peer_of(&event.what) == Some(peer) =>
            {
                Some(cost.clone())
            }
            _ => None,
        }
    })
}

/// Milliseconds since 0000-03-01 of an RFC 3339 time in UTC, as the daemon writes it; `None` for
/// anything else.
pub fn millis(at: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| at.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let ms = number(20..23)?;
    // Years start in March, so that the leap day comes last.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = year * 365 + year / 4 - year / 100
        + year / 400
        + (month * 153 + 2) / 5
        + day.checked_sub(1)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

#[cfg(test)]
mod tests;

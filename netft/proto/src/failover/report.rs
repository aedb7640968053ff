//! Why data moved: what was known at that moment of the route that was left, and of every other
//! one that could have been chosen. Plain values, copied out of the engine. Pure.

use std::time::Duration;

use crate::{
    failover::cost::Cost,
    ids::RouteId,
    route::{
        event::Reason,
        params::Priority,
        route_fsm::{Route, Word},
        routes::Routes,
        select::rank,
        status::RouteState,
    },
    time::Time,
};

/// Candidates kept; the worst are left out and counted.
pub const MAX_CANDIDATES: usize = 8;

/// What was known when data moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// The route that was left; `None` when there was none, or it was removed.
    pub left: Option<Left>,
    /// The other routes, best first.
    pub candidates: Vec<Candidate>,
    /// How many more there were.
    pub more: usize,
    /// For how long no route carried data before this move.
    pub dark: Option<Duration>,
    /// What it has cost so far; [`EventKind::Cost`](crate::route::EventKind::Cost) says it all.
    pub cost: Cost,
}

/// The route that was left, as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// Its number.
    pub route: RouteId,
    /// Its state.
    pub state: RouteState,
    /// When a heartbeat was last heard on it.
    pub last_heard: Option<Time>,
    /// When one of ours was last answered: both directions worked.
    pub last_answered: Option<Time>,
    /// Since when its data stayed unacknowledged.
    pub suspect: Option<Time>,
    /// What the peer last said of it.
    pub said: Option<Said>,
    /// The last heartbeats both ways, oldest first, one a line.
    pub heartbeats: Vec<String>,
}

/// What a peer last said of its end of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// It hears this node there.
    pub heard: bool,
    /// Its end is broken.
    pub local_down: bool,
    /// Its operator took the route out of use.
    pub admin_down: bool,
}

/// A route that could have been chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
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
    /// How much longer data may not return to it.
    pub held: Option<Duration>,
    /// What was decided about it.
    pub verdict: Verdict,
}

/// Why a route was chosen, or was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It carries data from here on.
    Chosen,
    /// It works, and another one comes first: by priority, then by its addresses.
    Behind,
    /// It works, and failed too lately.
    Held,
    /// Only one direction is proven.
    HalfProven,
    /// It is down, or this node may not send there.
    NotUp,
    /// An operator took it out of use.
    AdminDown,
    /// It works, and an operator at either end drains it.
    Drained,
    /// It works badly.
    BrownOut,
}

impl Verdict {
    /// The word in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Behind => "behind another",
            Self::Held => "held",
            Self::HalfProven => "half proven",
            Self::NotUp => "not up",
            Self::AdminDown => "admin-down",
            Self::Drained => "drained",
            Self::BrownOut => "brown-out",
        }
    }
}

/// What is known of a peer's routes as data moves from one to another.
pub(crate) fn cause(
    routes: &Routes,
    from: Option<RouteId>,
    to: Option<RouteId>,
    now: Time,
) -> Cause {
    let chosen = to.and_then(|id| routes.get(&id));
    let mut others: Vec<_> = routes.values().filter(|route| Some(route.id) != from).collect();
    others.sort_by_key(|route| (Some(route.id) != to, class(route), rank(route)));
    let candidates = others.iter().take(MAX_CANDIDATES);
    Cause {
        left: from.and_then(|id| routes.get(&id)).map(|route| left(route, now)),
        candidates: candidates.map(|route| candidate(route, chosen, now)).collect(),
        more: others.len().saturating_sub(MAX_CANDIDATES),
        dark: None,
        cost: Cost::default(),
    }
}

fn class(route: &Route) -> u8 {
    match route.state {
        RouteState::Up => 0,
        RouteState::Init => 1,
        RouteState::Down => 2,
        RouteState::AdminDown => 3,
    }
}

fn left(route: &Route, now: Time) -> Left {
    Left {
        route: route.id,
        state: route.state,
        last_heard: route.last_heard,
        last_answered: route.last_answered,
        suspect: route.suspect,
        said: route.word.map(|Word { heard, local_down, admin_down, .. }| Said {
            heard,
            local_down,
            admin_down,
        }),
        heartbeats: route.history.dump(now),
    }
}

fn candidate(route: &Route, chosen: Option<&Route>, now: Time) -> Candidate {
    let held = route.hold.until().map(|until| until.since(now)).filter(|left| !left.is_zero());
    let verdict = match route.state {
        _ if chosen.is_some_and(|chosen| chosen.id == route.id) => Verdict::Chosen,
        RouteState::AdminDown => Verdict::AdminDown,
        // One that is held carries data when no other is up.
        RouteState::Up if held.is_some() && chosen.is_some_and(|it| it.hold.over(now)) => {
            Verdict::Held
        }
        RouteState::Up if route.drained() => Verdict::Drained,
        RouteState::Up if route.health.brown => Verdict::BrownOut,
        RouteState::Up => Verdict::Behind,
        RouteState::Init if route.usable() => Verdict::HalfProven,
        RouteState::Init | RouteState::Down => Verdict::NotUp,
    };
    Candidate {
        route: route.id,
        state: route.state,
        reason: route.reason,
        priority: route.spec.priority,
        suspect: route.suspect.is_some(),
        held,
        verdict,
    }
}

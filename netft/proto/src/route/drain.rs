//! The conditions of a drain, from the status of the routes. Pure.

use crate::{
    ids::{PeerId, RouteId},
    route::{state::RouteState, status::RouteStatus},
};

/// The first peer that draining the routes `wanted` would leave without a route that is up and not
/// drained. A peer that has none already loses nothing.
pub fn would_strand_peer(routes: &[RouteStatus], wanted: &[RouteId]) -> Option<PeerId> {
    let lost = routes.iter().filter(|route| {
        wanted.contains(&route.id) && route.drain.is_none() && (can_serve(route) || route.active)
    });
    lost.map(|route| route.spec.peer).find(|peer| {
        let mut others = routes.iter().filter(|r| r.spec.peer == *peer && !wanted.contains(&r.id));
        !others.any(can_serve)
    })
}

/// The condition a drain waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainWait {
    /// No other route to the peer is up: data stays.
    NowhereToGo,
    /// This node's data is about to leave.
    Leaving,
    /// The peer has not reported that its data has left.
    Peer,
}

impl DrainWait {
    /// The text that follows the name of a route.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NowhereToGo => "no other route to the peer is up, so data stays",
            Self::Leaving => "data of this node has not left",
            Self::Peer => "the peer has not said that its data has left",
        }
    }
}

/// The condition the drain of a route waits for; `None` when it is drained, not to be drained, or
/// gone.
pub fn drain_wait(routes: &[RouteStatus], id: RouteId) -> Option<DrainWait> {
    let route = routes.iter().find(|route| route.id == id)?;
    let drain = route.drain.filter(|drain| !drain.is_done())?;
    let peer = route.spec.peer;
    let other = routes.iter().any(|r| r.spec.peer == peer && r.id != id && can_serve(r));
    Some(match (drain.left_here, other) {
        (true, _) => DrainWait::Peer,
        (false, true) => DrainWait::Leaving,
        (false, false) => DrainWait::NowhereToGo,
    })
}

/// Returns whether the route is up and not drained.
fn can_serve(route: &RouteStatus) -> bool {
    route.state == RouteState::Up && route.drain.is_none()
}

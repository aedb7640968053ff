//! Draining a route: make before break. Pure.
//!
//! A drained route stays alive and its heartbeats go on, but both ends prefer every other route
//! that is up, held or not. It serves as the last resort: taking it out of use whatever happens is
//! what `admin_down` is for. The order lives as long as the route and is not kept over a restart.
//!
//! Whether the peer's data has left is proven by its own word: the answer to a request that was
//! sent after the order carries the order's effect, because a node settles what a request says
//! before it answers.

use crate::{
    ids::{PeerId, RouteId},
    route::{
        event::Reason,
        route_fsm::Route,
        status::{RouteState, RouteStatus},
    },
    time::Time,
};

/// How far a drain got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainStatus {
    /// Ordered on this node.
    pub here: bool,
    /// Ordered at the peer.
    pub at_peer: bool,
    /// This node's data goes elsewhere.
    pub left_here: bool,
    /// The peer's data goes elsewhere: it said so after it learned of the order, or it is heard
    /// on no route.
    pub left_at_peer: bool,
}

impl DrainStatus {
    /// Both directions have left the route.
    pub const fn is_done(self) -> bool {
        self.left_here && self.left_at_peer
    }

    /// The stage the drain is in.
    pub const fn stage(self) -> DrainStage {
        if self.is_done() { DrainStage::Drained } else { DrainStage::Draining }
    }
}

/// The stages of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStage {
    /// Ordered; data leaves.
    Draining,
    /// Both directions have left.
    Drained,
    /// In use again.
    Undrained,
}

impl DrainStage {
    /// The word in output and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Undrained => "undrained",
        }
    }
}

/// The first peer that would be left without a route that is up and not drained, if the routes
/// `wanted` were drained. A peer that has none anyway loses nothing.
pub fn would_strand_peer(routes: &[RouteStatus], wanted: &[RouteId]) -> Option<PeerId> {
    let lost = routes.iter().filter(|route| {
        wanted.contains(&route.id) && route.drain.is_none() && (can_serve(route) || route.active)
    });
    lost.map(|route| route.spec.peer).find(|peer| {
        let mut others = routes.iter().filter(|r| r.spec.peer == *peer && !wanted.contains(&r.id));
        !others.any(can_serve)
    })
}

/// What a drain waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainWait {
    /// No other route to the peer is up: data stays.
    NowhereToGo,
    /// This node's data is about to leave.
    Leaving,
    /// The peer has not said that its data has left.
    Peer,
}

impl DrainWait {
    /// In words, to follow the name of a route.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NowhereToGo => "no other route to the peer is up, so data stays",
            Self::Leaving => "data of this node has not left",
            Self::Peer => "the peer has not said that its data has left",
        }
    }
}

/// What draining a route waits for; `None` when it is drained, not to be drained, or gone.
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

/// Up, and meant to carry data.
fn can_serve(route: &RouteStatus) -> bool {
    route.state == RouteState::Up && route.drain.is_none()
}

/// What a node knows of draining one route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainState {
    /// Since when the order holds here.
    ordered_at: Option<Time>,
    /// The peer answered a request that told of the order.
    peer_informed: bool,
    /// The stage that was told last.
    last_reported_stage: Option<DrainStage>,
}

impl DrainState {
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered_at.is_some()
    }

    /// An operator's order, or its end. Returns whether it changes anything.
    pub(crate) fn set_ordered(&mut self, now: Time, on: bool) -> bool {
        if on == self.is_ordered() {
            return false;
        }
        self.ordered_at = on.then_some(now);
        self.peer_informed = false;
        true
    }

    /// The peer's newest word answers the request sent at `asked`.
    pub(crate) fn on_reply(&mut self, asked: Time) {
        self.peer_informed |= self.ordered_at.is_some_and(|ordered| asked > ordered);
    }

    /// The stage, where it is news.
    pub(crate) fn take_stage_change(&mut self, status: Option<DrainStatus>) -> Option<DrainStage> {
        let stage = status.map(DrainStatus::stage);
        let before = std::mem::replace(&mut self.last_reported_stage, stage);
        (before != stage).then_some(stage.unwrap_or(DrainStage::Undrained))
    }
}

impl Route {
    /// Drained by an operator at one of its ends: it serves last.
    pub(crate) fn is_drained(&self) -> bool {
        self.drain.is_ordered() || self.is_drained_at_peer()
    }

    fn is_drained_at_peer(&self) -> bool {
        self.report.is_some_and(|word| word.draining)
    }

    /// How far the drain got; `heard`: the peer is heard on some route.
    pub(crate) fn drain_status(&self, active: bool, heard: bool) -> Option<DrainStatus> {
        let carries = self.report.is_some_and(|word| word.carries);
        // The peer's own order and what it did about it come in one heartbeat.
        let known = self.drain.peer_informed || !self.drain.is_ordered();
        self.is_drained().then_some(DrainStatus {
            here: self.drain.is_ordered(),
            at_peer: self.is_drained_at_peer(),
            left_here: !active,
            left_at_peer: !heard || (known && !carries),
        })
    }

    /// Why data leaves the route for one that is not drained.
    pub(crate) fn drain_reason(&self) -> Reason {
        if self.drain.is_ordered() { Reason::Draining } else { Reason::PeerDraining }
    }
}

//! Draining a route: make before break. Pure.
//!
//! A drained route stays alive and its heartbeats go on, but both ends prefer every other route
//! that is up, held down or not. It carries data only as the last resort; `admin_down` is the order
//! that takes a route out of use unconditionally. The drains that outlive a route are in
//! [`overrides`](crate::overrides).
//!
//! The peer's own report proves that its data has left the route: the reply to a request that was
//! sent after the order carries the effect of the order, because a node applies a request before it
//! answers it.

use crate::{route::state::Reason, time::Time};

/// Progress of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DrainStatus {
    /// Ordered on this node.
    pub here: bool,
    /// Ordered at the peer.
    pub at_peer: bool,
    /// This node's data has left the route.
    pub left_here: bool,
    /// The peer's data has left the route: it reported so after it learned of the order, or it is
    /// heard on no route.
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DrainStage {
    /// Ordered; data is leaving.
    Draining,
    /// Both directions have left.
    Drained,
    /// In use again.
    Undrained,
}

impl DrainStage {
    /// The name in output and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Undrained => "undrained",
        }
    }
}

/// The drain of one route.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct DrainState {
    /// When it was ordered here.
    ordered_at: Option<Time>,
    /// The peer answered a request that was sent after the order.
    peer_informed: bool,
    /// The stage of the last event.
    last_reported_stage: Option<DrainStage>,
}

impl DrainState {
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered_at.is_some()
    }

    /// Returns whether the peer's report reflects the order, if there is one here. The peer's own
    /// order and its effect arrive in one heartbeat.
    pub(crate) fn is_peer_informed(&self) -> bool {
        self.peer_informed || !self.is_ordered()
    }

    /// Why data leaves a drained route for another one.
    pub(crate) fn drain_reason(&self) -> Reason {
        if self.is_ordered() { Reason::Draining } else { Reason::PeerDraining }
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

    /// The peer's newest report answers the request sent at `sent`.
    pub(crate) fn on_reply(&mut self, sent: Time) {
        self.peer_informed |= self.ordered_at.is_some_and(|ordered| sent > ordered);
    }

    /// The stage, once per change.
    pub(crate) fn take_stage_change(&mut self, status: Option<DrainStatus>) -> Option<DrainStage> {
        let stage = status.map(DrainStatus::stage);
        let before = std::mem::replace(&mut self.last_reported_stage, stage);
        (before != stage).then_some(stage.unwrap_or(DrainStage::Undrained))
    }
}

//! The state machine of one route. Pure.
//!
//! ```text
//!                 rx = heartbeats of the peer arrive on the route
//!                 tx = the peer reports that ours arrive there, and its end works
//!
//!          ┌── admin ──▶ admin-down          (a local fault, or no session: down)
//!    rx, tx │
//!    no no ─┴─▶ down      yes no / no yes ──▶ init      yes yes ──▶ up
//! ```

use crate::{
    route::state::{Reason, RouteState},
    time::Time,
};

/// The facts that the state of a route is derived from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteFacts {
    /// An operator took the route out of use here.
    pub(crate) admin_down: bool,
    /// The latest of the local faults that hold.
    pub(crate) fault: Option<Reason>,
    /// Heartbeats of the peer arrive.
    pub(crate) rx: bool,
    /// This node may send: the peer reports that its heartbeats arrive.
    pub(crate) tx: bool,
    /// Why rx ended, or never began.
    pub(crate) rx_loss_reason: Reason,
    /// Why tx ended, or never began.
    pub(crate) tx_loss_reason: Reason,
}

/// The derived state, and its last transition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DerivedState {
    pub(crate) state: RouteState,
    /// When the route entered this state.
    pub(crate) since: Time,
    /// Why the route entered this state.
    pub(crate) reason: Reason,
    pub(crate) tx: bool,
    /// rx and tx of the last update.
    last_directions: (bool, bool),
    /// Why the route last lost a direction or was taken out of use.
    pub(crate) loss_reason: Reason,
}

impl DerivedState {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            state: RouteState::Down,
            since: now,
            reason: Reason::Added,
            tx: false,
            last_directions: (false, false),
            loss_reason: Reason::Added,
        }
    }

    /// Derives the state from the facts. Returns the previous state if it changed.
    pub(crate) fn update(&mut self, now: Time, facts: &RouteFacts) -> Option<RouteState> {
        let RouteFacts { rx, tx, .. } = *facts;
        let to = derive_state(facts);
        self.tx = tx;
        let from = std::mem::replace(&mut self.state, to);
        let (had_rx, had_tx) = std::mem::replace(&mut self.last_directions, (rx, tx));
        // Heartbeats go on while the route is out of use, so returning from there loses nothing.
        let in_use = from != RouteState::AdminDown;
        let lost = (in_use && had_rx && !rx, in_use && had_tx && !tx);
        let reason = transition_reason(to, facts, lost);
        if lost != (false, false) || to == RouteState::AdminDown {
            self.loss_reason = reason;
        }
        if from == to {
            return None;
        }
        (self.since, self.reason) = (now, reason);
        Some(from)
    }
}

fn derive_state(facts: &RouteFacts) -> RouteState {
    match (facts.rx, facts.tx) {
        _ if facts.admin_down => RouteState::AdminDown,
        _ if facts.fault.is_some() => RouteState::Down,
        (true, true) => RouteState::Up,
        (false, false) => RouteState::Down,
        (true, false) | (false, true) => RouteState::Init,
    }
}

/// Why a route that lost these directions is in its state.
fn transition_reason(
    state: RouteState,
    facts: &RouteFacts,
    (lost_rx, lost_tx): (bool, bool),
) -> Reason {
    if let Some(fault) = facts.fault.filter(|_| !facts.admin_down) {
        return fault;
    }
    match (state, facts.rx) {
        (RouteState::AdminDown, _) => Reason::Admin,
        (RouteState::Up, _) => Reason::BothWays,
        _ if lost_rx => facts.rx_loss_reason,
        _ if lost_tx => facts.tx_loss_reason,
        (RouteState::Init, true) => Reason::Heard,
        (RouteState::Init, false) => Reason::PeerHears,
        (RouteState::Down, _) => facts.rx_loss_reason,
    }
}

#[cfg(test)]
mod tests;

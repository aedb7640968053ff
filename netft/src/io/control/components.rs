//! The driver's components, in the order they are polled.

use netft_proto::time::Time;

use super::{
    carrier_poll::CarrierPoll,
    component::{Actions, Component, Input, View},
    frame_limits::FrameLimits,
    nat::NatTraversal,
    quic_connections::QuicConnections,
    redial::Redial,
    relay::RelayRoutes,
    retries::Retries,
};

/// How many components are polled.
pub(super) const COMPONENT_COUNT: usize = 6;

/// Every component, and the helpers that have no deadlines.
#[derive(Default)]
pub(super) struct Components {
    pub(super) carrier_poll: CarrierPoll,
    pub(super) relay: RelayRoutes,
    pub(super) nat: NatTraversal,
    pub(super) redial: Redial,
    pub(super) retries: Retries,
    pub(super) connections: QuicConnections,
    pub(super) frame_limits: FrameLimits,
}

impl Components {
    /// The components in the order they are polled: QUIC connections last, right before the
    /// engine's timers.
    fn in_order(&mut self) -> [&mut dyn Component; COMPONENT_COUNT] {
        let Self { carrier_poll, relay, nat, redial, retries, connections, .. } = self;
        [carrier_poll, relay, nat, redial, retries, connections]
    }

    /// The earliest deadline.
    pub(super) fn next_wake(&self) -> Option<Time> {
        let Self { carrier_poll, relay, nat, redial, retries, connections, .. } = self;
        let all: [&dyn Component; COMPONENT_COUNT] =
            [carrier_poll, relay, nat, redial, retries, connections];
        all.into_iter().filter_map(|component| component.next_wake()).min()
    }

    /// Polls the component at a place in the order.
    pub(super) fn poll(&mut self, place: usize, now: Time, view: &View<'_>, actions: &mut Actions) {
        self.in_order()[place].poll(now, view, actions);
    }

    pub(super) fn on_input(
        &mut self,
        now: Time,
        input: &Input<'_>,
        view: &View<'_>,
        actions: &mut Actions,
    ) {
        for component in self.in_order() {
            component.on_input(now, input, view, actions);
        }
    }
}

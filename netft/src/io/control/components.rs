//! The driver's components, in the order they are polled.

use netft_proto::time::Time;

use super::{
    carrier_poll::CarrierPoll,
    component::{Actions, Component, Input, View},
    drill_runner::DrillRunner,
    frame_limits::FrameLimits,
    nat::NatTraversal,
    network_watch::NetworkWatch,
    overlay_watch::OverlayWatch,
    overrides::OverrideTable,
    peer_absence::AbsentPeers,
    quic_connections::QuicConnections,
    redial::Redial,
    relay::RelayRoutes,
    retries::Retries,
    route_trials::RouteTrials,
    segmented_sends::SegmentedSends,
};

/// How many components are polled.
pub(super) const COMPONENT_COUNT: usize = 13;

/// Every component, and the helpers that have no deadlines.
#[derive(Default)]
pub(super) struct Components {
    pub(super) carrier_poll: CarrierPoll,
    pub(super) relay: RelayRoutes,
    pub(super) nat: NatTraversal,
    pub(super) redial: Redial,
    pub(super) absent: AbsentPeers,
    pub(super) retries: Retries,
    pub(super) network_watch: NetworkWatch,
    pub(super) overrides: OverrideTable,
    pub(super) overlay_watch: OverlayWatch,
    pub(super) trials: RouteTrials,
    pub(super) drill: DrillRunner,
    pub(super) segmented_sends: SegmentedSends,
    pub(super) connections: QuicConnections,
    pub(super) frame_limits: FrameLimits,
}

impl Components {
    /// The components in the order they are polled: QUIC connections last, right before the
    /// engine's timers.
    fn in_order(&mut self) -> [&mut dyn Component; COMPONENT_COUNT] {
        let Self {
            carrier_poll,
            relay,
            nat,
            redial,
            absent,
            retries,
            network_watch,
            overrides,
            overlay_watch,
            trials,
            drill,
            segmented_sends,
            connections,
            ..
        } = self;
        [
            carrier_poll,
            relay,
            nat,
            redial,
            absent,
            retries,
            network_watch,
            overrides,
            overlay_watch,
            trials,
            drill,
            segmented_sends,
            connections,
        ]
    }

    /// The earliest deadline.
    pub(super) fn next_wake(&mut self) -> Option<Time> {
        self.in_order().into_iter().filter_map(|component| component.next_wake()).min()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use netft_proto::{ids::PeerId, route::Transport};

    use super::*;
    use crate::io::{
        clock,
        control::{component::Action, test_node::TestNode},
        identity,
    };

    /// A timer of QUIC that expired and was not polled would be due for ever.
    #[test]
    fn every_component_is_polled_and_a_transports_timers_run() {
        let mut node = TestNode::new(1);
        let key = identity::generate_key().unwrap();
        node.config.peers[0].key = identity::public_key(&key).unwrap();
        let id = node.add_route(PeerId(0));
        node.routes.get_mut(id).unwrap().plan.spec.transport = Transport::Quic;
        let mut components = Components::default();
        let poll = |components: &mut Components, now| {
            let mut actions = Actions::default();
            for place in 0..COMPONENT_COUNT {
                components.poll(place, now, &node.view(), &mut actions);
            }
            actions.into_actions()
        };
        let mut actions = Actions::default();
        let start = clock::now();
        components.on_input(start, &Input::RoutesChanged, &node.view(), &mut actions);
        let dial = components.connections.next_wake().unwrap();
        let polled = poll(&mut components, dial);
        assert!(polled.iter().any(|action| matches!(action, Action::PollCarriers(_))));
        let timer = |components: &Components| {
            components.connections.transport_of(id).unwrap().next_timeout()
        };
        let due = timer(&components).unwrap();
        assert!(components.next_wake().unwrap() <= due);
        while clock::now() < due {
            thread::sleep(due.since(clock::now()));
        }
        poll(&mut components, clock::now());
        assert!(timer(&components).unwrap() > due, "the probe timeout backed off");
    }
}

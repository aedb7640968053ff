//! Routes on which segmented sends vanish: the decisions of [`SegmentationFallback`].

use netft_proto::{
    engine::EngineInput,
    ids::RouteId,
    loss_detection::segmentation::SegmentationFallback,
    route::{EventKind, RouteStatus},
    time::Time,
};

use crate::io::control::component::{Action, Actions, Component, Input, View};

/// The routes that send plainly.
#[derive(Default)]
pub(super) struct SegmentedSends(SegmentationFallback);

impl SegmentedSends {
    /// Returns whether the frames of a route are sent one by one.
    pub(super) fn is_plain(&self, route: RouteId) -> bool {
        self.0.is_plain(route)
    }

    /// The routes whose frames are sent one by one.
    pub(super) fn plain_routes(&self) -> impl Iterator<Item = RouteId> + '_ {
        self.0.plain_routes()
    }
}

impl Component for SegmentedSends {
    fn next_wake(&self) -> Option<Time> {
        self.0.next_wake()
    }

    fn on_input(&mut self, now: Time, input: &Input<'_>, view: &View<'_>, actions: &mut Actions) {
        let Input::SegmentsVanish(route) = *input else { return };
        if view.routes.contains(route) && self.0.on_vanishing(now, route) {
            tracing::debug!(%route, "segmented sends are silent: the path MTU is confirmed first");
            actions.feed_engine(EngineInput::RecheckPathMtu(route));
        }
    }

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if self.0.next_wake().is_none() {
            return;
        }
        let statuses = view.engine.route_statuses();
        let find = |route| statuses.iter().find(|status: &&RouteStatus| status.id == route);
        let changed = self.0.poll(now, |route| Some(find(route)?.path_mtu.proven));
        for (route, plain) in changed {
            let Some(peer) = find(route).map(|status| status.spec.peer) else { continue };
            actions.push(Action::Emit(EventKind::SegmentedSends { route, peer, plain }));
            actions.feed_engine(EngineInput::SegmentationChanged(route));
            actions.push(Action::RebuildTable("a route changed between segmented and plain sends"));
        }
    }
}

#[cfg(test)]
mod tests {
    use netft_proto::{ids::PeerId, loss_detection::segmentation::RETRY_INTERVAL};

    use super::*;
    use crate::io::control::test_node::{TestNode, actions_of, due_actions};

    #[test]
    fn the_path_mtu_is_confirmed_before_a_route_sends_plainly() {
        let mut node = TestNode::new(1);
        let route = node.add_route(PeerId(0));
        let (mut sends, at) = (SegmentedSends::default(), Time::from_millis);
        let vanish = Input::SegmentsVanish(route);
        let asked = actions_of(&mut sends, at(100), &vanish, &node);
        assert!(
            matches!(asked[..], [Action::Engine(EngineInput::RecheckPathMtu(of))] if of == route),
            "{asked:?}"
        );
        assert!(actions_of(&mut sends, at(101), &vanish, &node).is_empty());
        assert!(due_actions(&mut sends, at(200), &node).is_empty() && !sends.is_plain(route));
        assert_eq!(sends.0.poll(at(201), |_| Some(Some(at(150)))), [(route, true)]);
        assert!(sends.is_plain(route) && sends.plain_routes().eq([route]));
        let again = due_actions(&mut sends, at(201) + RETRY_INTERVAL, &node);
        assert!(
            matches!(
                again[..],
                [
                    Action::Emit(EventKind::SegmentedSends { plain: false, .. }),
                    Action::Engine(EngineInput::SegmentationChanged(_)),
                    Action::RebuildTable(_)
                ]
            ),
            "{again:?}"
        );
        assert!(!sends.is_plain(route));
    }
}

//! The operator's overrides in the driver: those for a new route, the end of those that are
//! limited in time, and every change on its way to the disk.

use netft_proto::{
    config::Config,
    engine::EngineInput,
    ids::RouteId,
    overrides::{NamedRoute, OperatorOverrides, PolicyOverride, TimeLimit, TooManyOverrides},
    route::RouteChange,
    time::Time,
};
use tokio::sync::watch;

use crate::{
    api::overrides::PublishedOverrides,
    io::control::{
        component::{Actions, Component, Input, View},
        route_table::RouteEntry,
    },
};

/// The overrides in force.
#[derive(Default)]
pub(crate) struct OverrideTable {
    overrides: OperatorOverrides,
    published: watch::Sender<PublishedOverrides>,
}

impl OverrideTable {
    /// The overrides of an earlier run, whose limits count from [`Time::ZERO`], from `now` on.
    pub(crate) fn new(
        mut overrides: OperatorOverrides,
        published: watch::Sender<PublishedOverrides>,
        now: Time,
    ) -> Self {
        overrides.start_at(now);
        // They are on the disk: no receiver is woken.
        published.send_if_modified(|last| {
            last.overrides.clone_from(&overrides);
            false
        });
        Self { overrides, published }
    }

    pub(super) fn overrides(&self) -> &OperatorOverrides {
        &self.overrides
    }

    /// Returns the overrides for a route that was just added or replaced.
    pub(super) fn initial_change(&self, config: &Config, entry: &RouteEntry) -> RouteChange {
        route_ends(config, entry).map_or_else(RouteChange::default, |ends| {
            self.overrides.initial_change(&ends, &entry.plan.ifname)
        })
    }

    /// Takes in an operator's change of a route.
    pub(super) fn change_route(
        &mut self,
        config: &Config,
        entry: &RouteEntry,
        change: &RouteChange,
    ) -> Result<(), TooManyOverrides> {
        if let Some(ends) = route_ends(config, entry) {
            self.overrides.change_route(&ends, change)?;
            self.publish();
        }
        Ok(())
    }

    /// Takes in the drain of one route, or its end.
    pub(super) fn drain_route(
        &mut self,
        config: &Config,
        entry: &RouteEntry,
        (on, limit): (bool, Option<TimeLimit>),
    ) -> Result<(), TooManyOverrides> {
        if let Some(ends) = route_ends(config, entry) {
            match on {
                true => self.overrides.drain_route(&ends, limit)?,
                false => self.overrides.use_route(&ends, &entry.plan.ifname)?,
            }
            self.publish();
        }
        Ok(())
    }

    /// Takes in the drain of an interface, or its end. `over`: the routes over it.
    pub(super) fn drain_interface(
        &mut self,
        name: &str,
        over: &[NamedRoute],
        (on, limit): (bool, Option<TimeLimit>),
    ) -> Result<(), TooManyOverrides> {
        match on {
            true => self.overrides.drain_interface(name, limit, over)?,
            false => self.overrides.use_interface(name, over),
        }
        self.publish();
        Ok(())
    }

    /// Drops the overrides about values of a route that the config describes otherwise.
    pub(super) fn forget_values(
        &mut self,
        config: &Config,
        entry: &RouteEntry,
        (timing, priority): (bool, bool),
    ) {
        if let Some(ends) = route_ends(config, entry) {
            self.overrides.forget_values(&ends, timing, priority);
            self.publish();
        }
    }

    pub(super) fn set_policies(&mut self, policies: PolicyOverride) {
        self.overrides.set_policies(policies);
        self.publish();
    }

    /// Keeps the policies of those peers alone for which `is_in_force` returns true.
    pub(super) fn retain_policies(&mut self, is_in_force: impl FnMut(&PolicyOverride) -> bool) {
        self.overrides.retain_policies(is_in_force);
        self.publish();
    }

    /// Publishes the overrides if they changed.
    fn publish(&self) {
        self.published.send_if_modified(|last| {
            let is_changed = last.overrides != self.overrides;
            if is_changed {
                last.overrides.clone_from(&self.overrides);
                last.revision += 1;
            }
            is_changed
        });
    }
}

/// The ends that a route has in every run; `None` for a route over a relay, which has others each
/// time.
pub(super) fn route_ends(config: &Config, entry: &RouteEntry) -> Option<NamedRoute> {
    let (peer, local, remote) = entry.route_key();
    let peer = config.peer_of(peer)?.name.clone();
    (!entry.is_relayed()).then_some(NamedRoute { peer, local, remote })
}

/// The routes that are to be drained. One over a relay has the drain of its interface alone.
fn drained_routes(overrides: &OperatorOverrides, view: &View<'_>) -> Vec<RouteId> {
    let is_drained = |entry: &RouteEntry| {
        let interface = &entry.plan.ifname;
        match route_ends(view.config, entry) {
            Some(ends) => overrides.is_drained(&ends, interface),
            None => overrides.for_interface(interface).is_some(),
        }
    };
    view.routes.iter().filter(|(_, entry)| is_drained(entry)).map(|(id, _)| id).collect()
}

impl Component for OverrideTable {
    fn next_wake(&self) -> Option<Time> {
        self.overrides.next_end()
    }

    fn on_input(&mut self, _: Time, _: &Input<'_>, _: &View<'_>, _: &mut Actions) {}

    fn poll(&mut self, now: Time, view: &View<'_>, actions: &mut Actions) {
        if self.overrides.next_end().is_none_or(|end| end > now) {
            return;
        }
        let before = drained_routes(&self.overrides, view);
        self.overrides.end_due(now);
        self.publish();
        let after = drained_routes(&self.overrides, view);
        for id in before.into_iter().filter(|id| !after.contains(id)) {
            tracing::info!(route = %id, "the time of its drain is over: in use again");
            let change = RouteChange { drain: Some(false), ..RouteChange::default() };
            actions.feed_engine(EngineInput::ChangeRoute { id, change });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use netft_proto::{
        ids::PeerId,
        route::{PeerPolicies, Policy, Priority},
    };

    use super::*;
    use crate::io::control::{
        component::Action,
        test_node::{TestNode, due_actions},
    };

    const ONE_HOUR: Duration = Duration::from_secs(3600);

    fn limit() -> Option<TimeLimit> {
        Some(TimeLimit::new(Time::ZERO, 0, ONE_HOUR))
    }

    #[test]
    fn a_limited_drain_ends_with_the_routes_it_is_about() {
        let mut node = TestNode::new(2);
        let routes = [node.add_route(PeerId(0)), node.add_route(PeerId(1))];
        let mut table = OverrideTable::default();
        let entry = node.routes.get(routes[1]).unwrap();
        table.drain_interface("eth0", &[], (true, limit())).unwrap();
        table.drain_route(&node.config, entry, (true, None)).unwrap();
        assert_eq!(table.next_wake(), Some(Time::ZERO + ONE_HOUR));
        let before = Time::ZERO + (ONE_HOUR - Duration::from_millis(1));
        assert!(due_actions(&mut table, before, &node).is_empty());
        let actions = due_actions(&mut table, Time::ZERO + ONE_HOUR, &node);
        let [Action::Engine(EngineInput::ChangeRoute { id, change })] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(
            (*id, change.drain),
            (routes[0], Some(false)),
            "the other one is drained itself"
        );
        assert_eq!(table.next_wake(), None);
    }

    #[test]
    fn a_change_is_published_once() {
        let mut node = TestNode::new(1);
        let route = node.add_route(PeerId(0));
        let (published, seen) = watch::channel(PublishedOverrides::default());
        let mut overrides = OperatorOverrides::default();
        overrides.drain_interface("eth0", limit(), &[]).unwrap();
        let now = Time::from_millis(500);
        let mut table = OverrideTable::new(overrides, published, now);
        assert_eq!(seen.borrow().revision, 0, "it is on the disk already");
        assert_eq!(table.next_wake(), Some(now + ONE_HOUR));
        let entry = node.routes.get(route).unwrap();
        assert_eq!(table.initial_change(&node.config, entry).drain, Some(true));
        let change = RouteChange { priority: Some(Priority(3)), ..RouteChange::default() };
        for _ in 0..2 {
            table.change_route(&node.config, entry, &change).unwrap();
        }
        assert_eq!(seen.borrow().revision, 1);
        assert_eq!(table.initial_change(&node.config, entry).priority, Some(Priority(3)));
        table.forget_values(&node.config, entry, (true, true));
        let plain = PeerPolicies::default();
        let policies = PeerPolicies::new(Policy::Balance);
        table.set_policies(PolicyOverride { peer: "n2".into(), policies, configured: plain });
        table.retain_policies(|_| false);
        assert_eq!(seen.borrow().revision, 4);
        assert_eq!(seen.borrow().overrides, *table.overrides());
    }
}

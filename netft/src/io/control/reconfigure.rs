//! The effect of another config on the routes: those that are in both plans keep their number,
//! socket and session.

use std::collections::BTreeMap;

use netft_proto::{
    config::{Config, ConfigChange, describe_timing},
    ids::RouteId,
    route::{Priority, RouteSpec, Timing},
    topology::PlannedRoute,
};

use crate::io::{control::component::View, host_state::HostState};

/// The effect of another config on the routes.
pub(super) struct ReconfigurePlan {
    pub(super) changes: Vec<ConfigChange>,
    /// The routes that stay and are described differently: what they become, and the timing and
    /// priority that are planned for them.
    pub(super) updated_specs: Vec<(RouteId, RouteSpec, (Timing, Priority))>,
}

/// Compares the routes with those of another config.
pub(super) fn compare_routes(
    view: &View<'_>,
    config: &Config,
    host_state: &HostState,
) -> ReconfigurePlan {
    let planned = view.planner.plan_routes(config, host_state, view.routes, view.engine).routes;
    let planned: BTreeMap<_, _> =
        planned.into_iter().map(|plan| (plan.route_key(), plan)).collect();
    let mut result = ReconfigurePlan { changes: Vec::new(), updated_specs: Vec::new() };
    for (id, entry) in view.routes.iter().filter(|(_, entry)| !entry.is_relayed()) {
        let Some(after) = planned.get(&entry.route_key()) else {
            let what = format!("route {id}: {}", describe_ends(view.config, &entry.plan));
            result.changes.push(ConfigChange::removed(what));
            continue;
        };
        let Some(running) = view.engine.route_spec(id) else { continue };
        let (mut spec, what) = merge_route_spec(running, &entry.plan.spec, &after.spec);
        entry.apply_learned_remote(&mut spec);
        if !what.is_empty() {
            let what = format!("route {id}: {}: {what}", describe_ends(config, after));
            result.changes.push(ConfigChange::changed(what));
        }
        if spec != *running {
            result.updated_specs.push((id, spec, (after.spec.timing, after.spec.priority)));
        }
    }
    let known: Vec<_> = view.routes.entries().map(|entry| entry.route_key()).collect();
    let added = planned.into_iter().filter(|(key, _)| !known.contains(key));
    result.changes.extend(added.map(|(_, plan)| {
        let (ends, priority) = (describe_ends(config, &plan), plan.spec.priority.0);
        let timing = describe_timing(plan.spec.timing);
        ConfigChange::added(format!("route {ends}, {timing}, priority {priority}"))
    }));
    result
}

/// `running`, with what is planned otherwise in `after` than in `before`, and that in words: an
/// operator's change of a route stays until the config changes the same.
fn merge_route_spec(
    running: &RouteSpec,
    before: &RouteSpec,
    after: &RouteSpec,
) -> (RouteSpec, String) {
    let mut spec = after.clone();
    let mut words = Vec::new();
    if before.timing == after.timing {
        spec.timing = running.timing;
    } else {
        let (from, to) = (describe_timing(running.timing), describe_timing(after.timing));
        words.push(format!("{from} → {to}"));
    }
    if before.priority == after.priority {
        spec.priority = running.priority;
    } else {
        words.push(format!("priority {} → {}", running.priority.0, after.priority.0));
    }
    if running.transport != after.transport {
        words.push(format!("transport {} → {}", running.transport, after.transport));
    }
    (spec, words.join(", "))
}

fn describe_ends(config: &Config, plan: &PlannedRoute) -> String {
    let peer = config.peer_of(plan.spec.peer).map_or("?", |peer| peer.name.as_str());
    format!("{} → {} (peer {peer})", plan.spec.real_local, plan.spec.real_remote)
}

#[cfg(test)]
mod tests {
    use netft_proto::ids::PeerId;

    use super::*;
    use crate::io::control::test_node::planned_route;

    #[test]
    fn a_change_by_hand_stays_until_the_config_changes_the_same() {
        let before = planned_route(PeerId(0)).spec;
        let running = RouteSpec { priority: Priority(7), ..before.clone() };
        let (spec, what) = merge_route_spec(&running, &before, &before);
        assert_eq!((spec.priority, what.as_str()), (Priority(7), ""));
        let after = RouteSpec { priority: Priority(3), ..before.clone() };
        let (spec, what) = merge_route_spec(&running, &before, &after);
        assert_eq!((spec.priority, what.as_str()), (Priority(3), "priority 7 → 3"));
        assert_eq!(spec.timing, running.timing);
    }
}

//! Overrides between the library, JSON and words. Pure.

use std::time::{Duration, UNIX_EPOCH};

use netft::{
    api::{
        overrides::{NamedRoute, PolicyOverride, RouteDrain, RouteRuntimeOverride, TimeLimit},
        snapshot::Snapshot,
    },
    route::{Attributes, RouteStatus},
};

use super::{local_interface::find_local_interface, schema::OverrideView};
use crate::clock::format_rfc3339;

/// Every override, those for interfaces first.
pub fn to_override_views(snapshot: &Snapshot) -> Vec<OverrideView> {
    let overrides = &snapshot.overrides;
    let mut views = Vec::new();
    for one in &overrides.interfaces {
        let is_over = |route: &RouteStatus| {
            let interface = find_local_interface(snapshot, route.spec.real_local.ip());
            interface.is_some_and(|(_, it)| it.name.as_deref() == Some(one.name.as_str()))
        };
        let over = snapshot.routes.iter().filter(|route| is_over(route));
        views.push(OverrideView {
            kind: "drain".to_owned(),
            interface: Some(one.name.clone()),
            until: one.limit.map(end_text),
            routes: sorted(over.map(|route| route.id.0)),
            ..OverrideView::default()
        });
    }
    for one in &overrides.routes {
        views.extend(route_override_views(one, snapshot));
    }
    views.extend(overrides.peers.iter().map(to_policy_view));
    views
}

fn route_override_views(one: &RouteRuntimeOverride, snapshot: &Snapshot) -> Vec<OverrideView> {
    let NamedRoute { peer, local, remote } = &one.ends;
    let is_named = |route: &RouteStatus| {
        let name = snapshot.peers.iter().find(|it| it.status.peer == route.spec.peer);
        // A learned address stands in the place of the planned one.
        let is_learned = route.spec.attributes.0 & Attributes::LEARNED != 0;
        name.is_some_and(|it| it.name == *peer)
            && route.spec.real_local == *local
            && (route.spec.real_remote == *remote || is_learned)
    };
    let named = snapshot.routes.iter().filter(|route| is_named(route));
    let base = OverrideView {
        peer: Some(peer.clone()),
        real_local: Some(*local),
        real_remote: Some(*remote),
        routes: sorted(named.map(|route| route.id.0)),
        ..OverrideView::default()
    };
    let view = |kind: &str, value: Option<String>, limit: Option<TimeLimit>| OverrideView {
        kind: kind.to_owned(),
        value,
        until: limit.map(end_text),
        ..base.clone()
    };
    let drain = one.drain.map(|drain| match drain {
        RouteDrain::Drained(limit) => view("drain", None, limit),
        RouteDrain::InUse => view("in-use", None, None),
    });
    let down = one.admin_down.then(|| view("admin-down", None, None));
    let priority = one.priority.map(|it| OverrideView {
        priority: Some(it.0),
        ..view("priority", Some(it.0.to_string()), None)
    });
    let timing = one.timing.map(|it| {
        let (delay, threshold) = (it.delay.as_millis(), it.threshold.get());
        let value = format!("delay {delay} ms, threshold {threshold}");
        OverrideView {
            delay_ms: Some(delay),
            threshold: Some(threshold),
            ..view("timing", Some(value), None)
        }
    });
    [drain, down, priority, timing].into_iter().flatten().collect()
}

fn to_policy_view(one: &PolicyOverride) -> OverrideView {
    let classes = match one.policies.classes().len() {
        0 => String::new(),
        1 => ", 1 class".to_owned(),
        count => format!(", {count} classes"),
    };
    OverrideView {
        kind: "policies".to_owned(),
        peer: Some(one.peer.clone()),
        value: Some(format!("{}{classes}", one.policies.default_policy())),
        ..OverrideView::default()
    }
}

fn sorted(numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

fn end_text(limit: TimeLimit) -> String {
    format_rfc3339(UNIX_EPOCH + Duration::from_millis(limit.wall_end_ms))
}

/// An override in one line, not escaped.
pub fn override_text(one: &OverrideView) -> String {
    let subject = match (&one.interface, &one.peer, one.real_local, one.real_remote) {
        (Some(interface), ..) => format!("interface {interface}"),
        (None, Some(peer), Some(local), Some(remote)) => {
            format!("route {local} → {remote} (peer {peer})")
        }
        (None, peer, ..) => format!("peer {}", peer.as_deref().unwrap_or("?")),
    };
    let what = match (one.kind.as_str(), &one.value) {
        ("drain", _) => "drained".to_owned(),
        ("in-use", _) => "in use, although its interface is drained".to_owned(),
        ("timing", Some(value)) => value.clone(),
        (kind, Some(value)) => format!("{kind} {value}"),
        (kind, None) => kind.to_owned(),
    };
    let until = one.until.as_ref().map_or_else(String::new, |at| format!(" until {at}"));
    let is_waiting = one.routes.is_empty() && one.kind != "policies";
    let waiting = if is_waiting { " (no such route at present)" } else { "" };
    format!("{subject}: {what}{until}{waiting}")
}

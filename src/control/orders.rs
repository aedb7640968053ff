//! Standing orders between the library, JSON and words. Pure.

use std::time::{Duration, UNIX_EPOCH};

use netft::{
    api::{
        orders::{OrderedRoute, PolicyOrder, RouteDrain, RouteOrder, TimeLimit},
        snapshot::Snapshot,
    },
    route::{Attributes, RouteStatus},
};

use super::{local_interface::find_local_interface, schema::OrderView};
use crate::clock::format_rfc3339;

/// Every order, those for interfaces first.
pub fn to_order_views(snapshot: &Snapshot) -> Vec<OrderView> {
    let orders = &snapshot.orders;
    let mut views = Vec::new();
    for order in &orders.interfaces {
        let is_over = |route: &RouteStatus| {
            let interface = find_local_interface(snapshot, route.spec.real_local.ip());
            interface.is_some_and(|(_, it)| it.name.as_deref() == Some(order.name.as_str()))
        };
        let over = snapshot.routes.iter().filter(|route| is_over(route));
        views.push(OrderView {
            kind: "drain".to_owned(),
            interface: Some(order.name.clone()),
            until: order.limit.map(end_text),
            routes: sorted(over.map(|route| route.id.0)),
            ..OrderView::default()
        });
    }
    for order in &orders.routes {
        views.extend(route_order_views(order, snapshot));
    }
    views.extend(orders.peers.iter().map(to_policy_view));
    views
}

fn route_order_views(order: &RouteOrder, snapshot: &Snapshot) -> Vec<OrderView> {
    let OrderedRoute { peer, local, remote } = &order.ends;
    let is_named = |route: &RouteStatus| {
        let name = snapshot.peers.iter().find(|it| it.status.peer == route.spec.peer);
        // A learned address stands in the place of the planned one.
        let is_learned = route.spec.attributes.0 & Attributes::LEARNED != 0;
        name.is_some_and(|it| it.name == *peer)
            && route.spec.real_local == *local
            && (route.spec.real_remote == *remote || is_learned)
    };
    let named = snapshot.routes.iter().filter(|route| is_named(route));
    let base = OrderView {
        peer: Some(peer.clone()),
        real_local: Some(*local),
        real_remote: Some(*remote),
        routes: sorted(named.map(|route| route.id.0)),
        ..OrderView::default()
    };
    let view = |kind: &str, value: Option<String>, limit: Option<TimeLimit>| OrderView {
        kind: kind.to_owned(),
        value,
        until: limit.map(end_text),
        ..base.clone()
    };
    let drain = order.drain.map(|drain| match drain {
        RouteDrain::Drained(limit) => view("drain", None, limit),
        RouteDrain::InUse => view("in-use", None, None),
    });
    let down = order.admin_down.then(|| view("admin-down", None, None));
    let priority = order.priority.map(|it| view("priority", Some(it.0.to_string()), None));
    let timing = order.timing.map(|it| {
        let value = format!("delay {} ms, threshold {}", it.delay.as_millis(), it.threshold.get());
        view("timing", Some(value), None)
    });
    [drain, down, priority, timing].into_iter().flatten().collect()
}

fn to_policy_view(order: &PolicyOrder) -> OrderView {
    let classes = match order.policies.classes().len() {
        0 => String::new(),
        1 => ", 1 class".to_owned(),
        count => format!(", {count} classes"),
    };
    OrderView {
        kind: "policies".to_owned(),
        peer: Some(order.peer.clone()),
        value: Some(format!("{}{classes}", order.policies.default_policy())),
        ..OrderView::default()
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

/// An order in one line, not escaped.
pub fn order_text(order: &OrderView) -> String {
    let subject = match (&order.interface, &order.peer, order.real_local, order.real_remote) {
        (Some(interface), ..) => format!("interface {interface}"),
        (None, Some(peer), Some(local), Some(remote)) => {
            format!("route {local} → {remote} (peer {peer})")
        }
        (None, peer, ..) => format!("peer {}", peer.as_deref().unwrap_or("?")),
    };
    let what = match (order.kind.as_str(), &order.value) {
        ("drain", _) => "drained".to_owned(),
        ("in-use", _) => "in use, although its interface is drained".to_owned(),
        ("timing", Some(value)) => value.clone(),
        (kind, Some(value)) => format!("{kind} {value}"),
        (kind, None) => kind.to_owned(),
    };
    let until = order.until.as_ref().map_or_else(String::new, |at| format!(" until {at}"));
    let is_waiting = order.routes.is_empty() && order.kind != "policies";
    let waiting = if is_waiting { " (no such route at present)" } else { "" };
    format!("{subject}: {what}{until}{waiting}")
}

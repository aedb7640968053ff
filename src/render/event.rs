//! Events as lines: the same words for the log and for `netft events`. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use netft::route::Attributes;

use crate::{
    control::{
        cause::FailoverCost,
        schema::{EventDetail, RouteFields},
    },
    text::{escape, format_millis},
};

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLevel {
    /// Something works.
    Info,
    /// Something stopped working, or is about to.
    Warn,
}

/// The ends of the routes, learned from the events themselves, so that every line can name them.
#[derive(Clone, Debug, Default)]
pub struct RouteEndpointMap(BTreeMap<u32, (SocketAddr, SocketAddr)>);

impl RouteEndpointMap {
    /// Takes the ends of a route from elsewhere.
    pub fn insert_route(&mut self, route: u32, local: SocketAddr, remote: SocketAddr) {
        self.0.insert(route, (local, remote));
    }

    /// Learns from an event; call it before the event is written.
    pub fn learn_from(&mut self, what: &EventDetail) {
        if let EventDetail::RouteAdded { route, fields, .. } = what {
            self.insert_route(*route, fields.real_local, fields.real_remote);
        }
        if let EventDetail::AddressLearned { route, to, .. } = what
            && let Some((_, remote)) = self.0.get_mut(route)
        {
            *remote = *to;
        }
    }

    /// Forgets what an event ended; call it after the event is written.
    pub fn forget_removed(&mut self, what: &EventDetail) {
        if let EventDetail::RouteRemoved { route, .. } = what {
            self.0.remove(route);
        }
    }

    /// A route with its ends, if they are known.
    pub(super) fn route_label(&self, route: u32) -> String {
        match self.0.get(&route) {
            Some((local, remote)) => format!("route {route} ({local} -> {remote})"),
            None => format!("route {route}"),
        }
    }
}

/// How loud an event is.
pub fn event_level(what: &EventDetail) -> EventLevel {
    match what {
        EventDetail::StateChanged { to, .. } if to == "down" => EventLevel::Warn,
        EventDetail::RemoteUnreachable { .. }
        | EventDetail::EarlyWarning { .. }
        | EventDetail::SessionEnded { .. }
        | EventDetail::Moved { to: None, .. }
        | EventDetail::AdapterRestored { .. }
        | EventDetail::SessionRefused { .. }
        | EventDetail::DuplicateNode { .. }
        | EventDetail::NameFailed { .. }
        | EventDetail::Stalled { .. }
        | EventDetail::EventsLost { .. } => EventLevel::Warn,
        EventDetail::PathMtuChanged { from, to, .. } if to < from => EventLevel::Warn,
        _ => EventLevel::Info,
    }
}

/// An event in one line, and its history in more. Ports are in host order.
pub fn event_lines(what: &EventDetail, ends: &RouteEndpointMap) -> Vec<String> {
    let mut lines = vec![escape(&event_line(what, ends))];
    if let EventDetail::StateChanged { history, .. } = what {
        lines.extend(history.iter().map(|heartbeat| format!("  {}", escape(heartbeat))));
    }
    lines
}

/// An event in one line, not escaped.
pub(super) fn event_line(what: &EventDetail, ends: &RouteEndpointMap) -> String {
    match what {
        EventDetail::RouteAdded { route, peer, transport, fields } => {
            // NetFT's eight fields, and what differs from its only carrier.
            let transport_text = if transport == "quic" { ", transport quic" } else { "" };
            format!("added route {route} to {peer}: {}{transport_text}", route_fields_text(fields))
        }
        EventDetail::RouteRemoved { route, peer, fields } => {
            format!("removed route {route} to {peer}: {}", route_fields_text(fields))
        }
        EventDetail::RemoteReachable { route, peer } => {
            format!("{peer} is reachable: heard on {}", ends.route_label(*route))
        }
        EventDetail::RemoteUnreachable { peer } => {
            format!("{peer} is unreachable: every route to it is down")
        }
        EventDetail::StateChanged { route, peer, from, to, reason, last_heard_ms_ago, .. } => {
            let heard = match last_heard_ms_ago {
                Some(ms) if to == "down" => format!(", last heard {ms} ms ago"),
                None if to == "down" => ", never heard".to_owned(),
                _ => String::new(),
            };
            format!("{} to {peer}: {from} -> {to}: {reason}{heard}", ends.route_label(*route))
        }
        EventDetail::EarlyWarning { route, peer, missed, threshold } => {
            format!(
                "{} to {peer}: {missed} of {threshold} heartbeats missed",
                ends.route_label(*route)
            )
        }
        EventDetail::Ready { peer, waited_ms } => {
            format!("ready for {peer} after {waited_ms} ms wait")
        }
        EventDetail::SessionEstablished { peer, boot_id } => {
            format!("session with {peer} established, its boot id is {boot_id}")
        }
        EventDetail::SessionEnded { peer } => format!("session with {peer} ended"),
        EventDetail::Moved { peer, from, to, reason, .. } => {
            let end = |route: &Option<u32>| match route {
                Some(route) => ends.route_label(*route),
                None => "no route".to_owned(),
            };
            format!("data to {peer} moved: {} -> {}: {reason}", end(from), end(to))
        }
        EventDetail::Suspect { route, .. } => {
            let route = ends.route_label(*route);
            format!("{route} is suspect: unacknowledged data goes out again on another route")
        }
        EventDetail::AdapterRestored { what } => what.clone(),
        EventDetail::SessionRefused { peer, reason } => format!("no session with {peer}: {reason}"),
        EventDetail::NameFailed { peer, name, reason } => {
            format!("{name}, a name of {peer}, cannot be looked up: {reason}; tried again")
        }
        EventDetail::DuplicateNode { peer } => {
            format!("a second machine uses the key of {peer}: it is refused; give it its own key")
        }
        EventDetail::Stalled { length_ms } => {
            format!("this node was not scheduled for {length_ms} ms; no route is blamed for it")
        }
        EventDetail::PathMtuChanged { route, peer, from, to } => {
            let route = ends.route_label(*route);
            format!("{route} to {peer}: carries packets of {to} bytes, before {from}")
        }
        EventDetail::Cost { peer, from, cost: it, .. } => {
            format!("leaving {} to {peer} cost: {}", ends.route_label(*from), cost_text(it))
        }
        EventDetail::AddressLearned { route, peer, from, to } => {
            let before = from.map_or_else(String::new, |from| format!(", before {from}"));
            format!("route {route} to {peer}: the peer answers at {to}{before}")
        }
        EventDetail::Reconfigured => "another config is in force".to_owned(),
        EventDetail::Drain { route, peer, stage } => {
            format!("{} to {peer}: {stage}", ends.route_label(*route))
        }
        EventDetail::EventsLost { count } => format!("{count} events were not kept"),
    }
}

/// What leaving a route cost, in words.
pub fn cost_text(cost: &FailoverCost) -> String {
    let FailoverCost { resent, duplicated, lost, .. } = cost;
    let stall = match (cost.stall_us, cost.stall_by.as_deref()) {
        (None, _) => "data did not stand still".to_owned(),
        (Some(us), Some("data")) => format!("data stood still for {}", format_millis(us)),
        (Some(us), _) => {
            format!("nothing was under way; data would have waited {} at most", format_millis(us))
        }
    };
    format!("{stall}; frames: {resent} sent again, {duplicated} sent twice, {lost} given up")
}

fn route_fields_text(fields: &RouteFields) -> String {
    let RouteFields { real_local, real_remote, virtual_local, virtual_remote, .. } = fields;
    let RouteFields { delay_ms, threshold, priority, attributes, .. } = fields;
    let names = Attributes(*attributes);
    format!(
        "real_local {real_local}, real_remote {real_remote}, virtual_local {virtual_local}, \
         virtual_remote {virtual_remote}, delay {delay_ms} ms, threshold {threshold}, \
         priority {priority}, attributes {attributes} ({names})"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn added() -> EventDetail {
        EventDetail::RouteAdded {
            route: 1,
            peer: "b".to_owned(),
            transport: "udp".to_owned(),
            fields: RouteFields {
                real_local: "10.1.0.1:3343".parse().unwrap(),
                real_remote: "10.1.0.2:3343".parse().unwrap(),
                virtual_local: "fe80::1".parse().unwrap(),
                virtual_remote: "fe80::2".parse().unwrap(),
                delay_ms: 30,
                threshold: 5,
                priority: 2000,
                attributes: 1,
            },
        }
    }

    #[test]
    fn c9_a_route_is_added_with_its_eight_fields_and_ports_in_host_order() {
        let expected = "added route 1 to b: real_local 10.1.0.1:3343, real_remote 10.1.0.2:3343, \
             virtual_local fe80::1, virtual_remote fe80::2, delay 30 ms, threshold 5, \
             priority 2000, attributes 1 (same-subnet)";
        assert_eq!(event_lines(&added(), &RouteEndpointMap::default()), [expected]);
    }

    #[test]
    fn a_change_names_ends_states_reason_and_history() {
        let mut ends = RouteEndpointMap::default();
        let change = |history: Vec<String>| EventDetail::StateChanged {
            route: 1,
            peer: "b".to_owned(),
            from: "up".to_owned(),
            to: "down".to_owned(),
            reason: "heartbeats missed".to_owned(),
            last_heard_ms_ago: Some(151),
            history,
        };
        let unknown = "route 1 to b: up -> down: heartbeats missed, last heard 151 ms ago";
        assert_eq!(event_lines(&change(Vec::new()), &ends), [unknown]);
        ends.learn_from(&added());
        let known = unknown.replace("route 1", "route 1 (10.1.0.1:3343 -> 10.1.0.2:3343)");
        let shown = event_lines(&change(vec!["41 lost".to_owned()]), &ends);
        assert_eq!(shown, [known.as_str(), "  41 lost"]);
        assert_eq!(event_level(&change(Vec::new())), EventLevel::Warn);
    }

    #[test]
    fn c_14_a_hostile_name_reaches_no_terminal() {
        let what = EventDetail::SessionEnded { peer: "b\x1b[2J\n".to_owned() };
        assert_eq!(
            event_lines(&what, &RouteEndpointMap::default()),
            [r"session with b\u{1b}[2J\u{a} ended"]
        );
    }
}

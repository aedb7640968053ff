//! Events as lines: the same words for the log and for `netft events`. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use netft::route::Attributes;

use super::text::{escape, millis};
use crate::control::{
    cause::Cost,
    schema::{EightFields, What},
};

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something works.
    Info,
    /// Something stopped working, or is about to.
    Warn,
}

/// The ends of the routes, learned from the events themselves, so that every line can name them.
#[derive(Clone, Debug, Default)]
pub struct Ends(BTreeMap<u32, (SocketAddr, SocketAddr)>);

impl Ends {
    /// Takes the ends of a route from elsewhere.
    pub fn insert(&mut self, route: u32, local: SocketAddr, remote: SocketAddr) {
        self.0.insert(route, (local, remote));
    }

    /// Learns from an event; call it before the event is written.
    pub fn learn(&mut self, what: &What) {
        if let What::RouteAdded { route, fields, .. } = what {
            self.insert(*route, fields.real_local, fields.real_remote);
        }
        if let What::AddressAdopted { route, to, .. } = what
            && let Some((_, remote)) = self.0.get_mut(route)
        {
            *remote = *to;
        }
    }

    /// Forgets what an event ended; call it after the event is written.
    pub fn forget(&mut self, what: &What) {
        if let What::RouteRemoved { route, .. } = what {
            self.0.remove(route);
        }
    }

    /// A route with its ends, if they are known.
    pub(super) fn route(&self, route: u32) -> String {
        match self.0.get(&route) {
            Some((local, remote)) => format!("route {route} ({local} -> {remote})"),
            None => format!("route {route}"),
        }
    }
}

/// How loud an event is.
pub fn level(what: &What) -> Level {
    match what {
        What::StateChanged { to, .. } if to == "down" => Level::Warn,
        What::RemoteUnreachable { .. }
        | What::EarlyWarning { .. }
        | What::SessionEnded { .. }
        | What::Moved { to: None, .. }
        | What::AdapterRestored { .. }
        | What::SessionRefused { .. }
        | What::DuplicateNode { .. }
        | What::NameFailed { .. }
        | What::Stalled { .. }
        | What::EventsLost { .. } => Level::Warn,
        What::PathMtuChanged { from, to, .. } if to < from => Level::Warn,
        _ => Level::Info,
    }
}

/// An event in one line, and its history in more. Ports are in host order.
pub fn lines(what: &What, ends: &Ends) -> Vec<String> {
    let mut lines = vec![escape(&line(what, ends))];
    if let What::StateChanged { history, .. } = what {
        lines.extend(history.iter().map(|heartbeat| format!("  {}", escape(heartbeat))));
    }
    lines
}

/// An event in one line, not escaped.
pub(super) fn line(what: &What, ends: &Ends) -> String {
    match what {
        What::RouteAdded { route, peer, carrier, fields } => {
            // NetFT's eight fields, and what differs from its only carrier.
            let carrier = if carrier == "quic" { ", carrier quic" } else { "" };
            format!("added route {route} to {peer}: {}{carrier}", eight(fields))
        }
        What::RouteRemoved { route, peer, fields } => {
            format!("removed route {route} to {peer}: {}", eight(fields))
        }
        What::RemoteReachable { route, peer } => {
            format!("{peer} is reachable: heard on {}", ends.route(*route))
        }
        What::RemoteUnreachable { peer } => {
            format!("{peer} is unreachable: every route to it is down")
        }
        What::StateChanged { route, peer, from, to, reason, last_heard_ms_ago, .. } => {
            let heard = match last_heard_ms_ago {
                Some(ms) if to == "down" => format!(", last heard {ms} ms ago"),
                None if to == "down" => ", never heard".to_owned(),
                _ => String::new(),
            };
            format!("{} to {peer}: {from} -> {to}: {reason}{heard}", ends.route(*route))
        }
        What::EarlyWarning { route, peer, missed, threshold } => {
            format!("{} to {peer}: {missed} of {threshold} heartbeats missed", ends.route(*route))
        }
        What::Ready { peer, waited_ms } => {
            format!("ready for {peer} after {waited_ms} ms wait")
        }
        What::SessionEstablished { peer, boot_id } => {
            format!("session with {peer} established, its boot id is {boot_id}")
        }
        What::SessionEnded { peer } => format!("session with {peer} ended"),
        What::Moved { peer, from, to, reason, .. } => {
            let end = |route: &Option<u32>| match route {
                Some(route) => ends.route(*route),
                None => "no route".to_owned(),
            };
            format!("data to {peer} moved: {} -> {}: {reason}", end(from), end(to))
        }
        What::Suspect { route, .. } => {
            let route = ends.route(*route);
            format!("{route} is suspect: unacknowledged data goes out again on another route")
        }
        What::AdapterRestored { what } => what.clone(),
        What::SessionRefused { peer, reason } => format!("no session with {peer}: {reason}"),
        What::NameFailed { peer, name, reason } => {
            format!("{name}, a name of {peer}, cannot be looked up: {reason}; tried again")
        }
        What::DuplicateNode { peer } => {
            format!("a second machine uses the key of {peer}: it is refused; give it its own key")
        }
        What::Stalled { length_ms } => {
            format!("this node was not scheduled for {length_ms} ms; no route is blamed for it")
        }
        What::PathMtuChanged { route, peer, from, to } => {
            let route = ends.route(*route);
            format!("{route} to {peer}: carries packets of {to} bytes, before {from}")
        }
        What::Cost { peer, from, cost: it, .. } => {
            format!("leaving {} to {peer} cost: {}", ends.route(*from), cost(it))
        }
        What::AddressAdopted { route, peer, from, to } => {
            let before = from.map_or_else(String::new, |from| format!(", before {from}"));
            format!("route {route} to {peer}: the peer answers at {to}{before}")
        }
        What::Reconfigured => "another config is in force".to_owned(),
        What::Drain { route, peer, stage } => format!("{} to {peer}: {stage}", ends.route(*route)),
        What::EventsLost { count } => format!("{count} events were not kept"),
    }
}

/// What leaving a route cost, in words.
pub fn cost(cost: &Cost) -> String {
    let Cost { resent, duplicated, lost, .. } = cost;
    let stall = match (cost.stall_us, cost.stall_by.as_deref()) {
        (None, _) => "data did not stand still".to_owned(),
        (Some(us), Some("data")) => format!("data stood still for {}", millis(us)),
        (Some(us), _) => {
            format!("nothing was under way; data would have waited {} at most", millis(us))
        }
    };
    format!("{stall}; frames: {resent} sent again, {duplicated} sent twice, {lost} given up")
}

fn eight(fields: &EightFields) -> String {
    let EightFields { real_local, real_remote, virtual_local, virtual_remote, .. } = fields;
    let EightFields { delay_ms, threshold, priority, attributes, .. } = fields;
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

    fn added() -> What {
        What::RouteAdded {
            route: 1,
            peer: "b".to_owned(),
            carrier: "udp".to_owned(),
            fields: EightFields {
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
        assert_eq!(lines(&added(), &Ends::default()), [expected]);
    }

    #[test]
    fn a_change_names_ends_states_reason_and_history() {
        let mut ends = Ends::default();
        let change = |history: Vec<String>| What::StateChanged {
            route: 1,
            peer: "b".to_owned(),
            from: "up".to_owned(),
            to: "down".to_owned(),
            reason: "heartbeats missed".to_owned(),
            last_heard_ms_ago: Some(151),
            history,
        };
        let unknown = "route 1 to b: up -> down: heartbeats missed, last heard 151 ms ago";
        assert_eq!(lines(&change(Vec::new()), &ends), [unknown]);
        ends.learn(&added());
        let known = unknown.replace("route 1", "route 1 (10.1.0.1:3343 -> 10.1.0.2:3343)");
        let shown = lines(&change(vec!["41 lost".to_owned()]), &ends);
        assert_eq!(shown, [known.as_str(), "  41 lost"]);
        assert_eq!(level(&change(Vec::new())), Level::Warn);
    }

    #[test]
    fn c_14_a_hostile_name_reaches_no_terminal() {
        let what = What::SessionEnded { peer: "b\x1b[2J\n".to_owned() };
        assert_eq!(lines(&what, &Ends::default()), [r"session with b\u{1b}[2J\u{a} ended"]);
    }
}

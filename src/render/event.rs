//! Events as lines, for the log and for `netft events`. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use netft::{
    failover::stall_histogram::StallSource,
    route::{Attributes, NetworkChange, RouteState, Transport},
};

use crate::{
    control::{
        cause::FailoverCostView,
        schema::{EventDetail, RouteFields},
    },
    text::{escape, format_millis},
};

/// Log level of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLevel {
    /// Normal operation.
    Info,
    /// A failure, or a sign of one.
    Warn,
}

/// Endpoints of the routes, taken from the events, so that every line can show them.
#[derive(Clone, Debug, Default)]
pub struct RouteEndpointMap(BTreeMap<u32, (SocketAddr, SocketAddr)>);

impl RouteEndpointMap {
    /// Sets the endpoints of a route.
    pub fn insert_route(&mut self, route: u32, local: SocketAddr, remote: SocketAddr) {
        self.0.insert(route, (local, remote));
    }

    /// Takes endpoints from an event; to be called before the event is written.
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

    /// Removes the endpoints of a removed route, and those of an earlier run; to be called after
    /// the event is written.
    pub fn forget_removed(&mut self, what: &EventDetail) {
        match what {
            EventDetail::RouteRemoved { route, .. } => drop(self.0.remove(route)),
            EventDetail::Restarted { .. } => self.0.clear(),
            _ => {}
        }
    }

    /// A route with its endpoints, if they are known.
    pub(super) fn route_label(&self, route: u32) -> String {
        match self.0.get(&route) {
            Some((local, remote)) => format!("route {route} ({local} -> {remote})"),
            None => format!("route {route}"),
        }
    }
}

/// Log level of an event.
pub fn event_level(what: &EventDetail) -> EventLevel {
    let warn_if = |bad: bool| if bad { EventLevel::Warn } else { EventLevel::Info };
    match what {
        EventDetail::StateChanged { to, .. } => warn_if(*to == RouteState::Down),
        EventDetail::Moved { to, .. } => warn_if(to.is_none()),
        EventDetail::PathMtuChanged { from, to, .. } => warn_if(to < from),
        EventDetail::NetworkChanged { change, .. } => {
            warn_if(matches!(change, NetworkChange::Partitioned | NetworkChange::Down))
        }
        EventDetail::SegmentedSends { plain, .. } => warn_if(*plain),
        EventDetail::DrillEnded { outcome, recovered, .. } => {
            warn_if(outcome != "completed" || !recovered)
        }
        EventDetail::VipChanged { state, .. } => warn_if(state == "failed"),
        EventDetail::RemoteUnreachable { .. }
        | EventDetail::RemoteGone { .. }
        | EventDetail::EarlyWarning { .. }
        | EventDetail::SessionEnded { .. }
        | EventDetail::AdapterRestored { .. }
        | EventDetail::VipNotice { .. }
        | EventDetail::OverlayFault { .. }
        | EventDetail::OverlayLost { .. }
        | EventDetail::SessionRefused { .. }
        | EventDetail::DuplicateNode { .. }
        | EventDetail::KeyCopied { .. }
        | EventDetail::NameFailed { .. }
        | EventDetail::Stalled { .. }
        | EventDetail::InterfaceListCut { .. }
        | EventDetail::OverridesRefused { .. }
        | EventDetail::EventsLost { .. }
        | EventDetail::EventsLeftOut { .. } => EventLevel::Warn,
        EventDetail::RouteAdded { .. }
        | EventDetail::RouteRemoved { .. }
        | EventDetail::RemoteReachable { .. }
        | EventDetail::Ready { .. }
        | EventDetail::OverlayAnswers { .. }
        | EventDetail::SessionEstablished { .. }
        | EventDetail::Suspect { .. }
        | EventDetail::Cost { .. }
        | EventDetail::Drain { .. }
        | EventDetail::DrillStarted { .. }
        | EventDetail::Reconfigured
        | EventDetail::Restarted { .. }
        | EventDetail::HostSettingChanged { .. }
        | EventDetail::InterfaceChanged { .. }
        | EventDetail::AddressLearned { .. } => EventLevel::Info,
    }
}

/// An event in one line, its heartbeat history in further lines. Ports are in host order.
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
            // NetFT's eight fields, then the transport where it is not NetFT's only one.
            let transport_text = match transport {
                Transport::Udp => "",
                Transport::Quic => ", transport quic",
            };
            format!("added route {route} to {peer}: {}{transport_text}", route_fields_text(fields))
        }
        EventDetail::RouteRemoved { route, peer, fields } => {
            format!("removed route {route} to {peer}: {}", route_fields_text(fields))
        }
        EventDetail::RemoteReachable { route, peer } => {
            format!("{peer} is reachable on {}", ends.route_label(*route))
        }
        EventDetail::RemoteUnreachable { peer } => {
            format!("{peer} is unreachable: every route to it is down")
        }
        EventDetail::RemoteGone { peer, after_ms } => {
            format!("{peer} is gone: silent on every route for {} s", after_ms / 1000)
        }
        EventDetail::StateChanged { route, peer, from, to, reason, last_heard_ms_ago, .. } => {
            let heard = match last_heard_ms_ago {
                Some(ms) if *to == RouteState::Down => format!(", last heartbeat {ms} ms ago"),
                None if *to == RouteState::Down => ", no heartbeat so far".to_owned(),
                _ => String::new(),
            };
            format!("{} to {peer}: {from} -> {to}: {reason}{heard}", ends.route_label(*route))
        }
        EventDetail::EarlyWarning { route, peer, missed, threshold, withheld } => {
            let route = ends.route_label(*route);
            let withheld = match withheld {
                0 => String::new(),
                count => format!("; {count} such warnings were left out before"),
            };
            format!("{route} to {peer}: {missed} of {threshold} heartbeats missed{withheld}")
        }
        EventDetail::Ready { peer, waited_ms } => {
            format!("ready to carry data to {peer} after {waited_ms} ms")
        }
        EventDetail::SessionEstablished { peer, boot_id } => {
            format!("session with {peer} established, boot id {boot_id}")
        }
        EventDetail::SessionEnded { peer, cause, .. } if cause.is_empty() => {
            format!("session with {peer} ended")
        }
        EventDetail::SessionEnded { peer, by, cause } => {
            format!("session with {peer} ended by {}: {cause}", by.replace('-', " "))
        }
        EventDetail::Moved { peer, from, to, reason, .. } => {
            let end = |route: &Option<u32>| match route {
                Some(route) => ends.route_label(*route),
                None => "no route".to_owned(),
            };
            format!("data to {peer} moved: {} -> {}: {reason}", end(from), end(to))
        }
        EventDetail::Suspect { route, .. } => {
            let route = ends.route_label(*route);
            format!("{route} is suspect: unacknowledged frames retransmitted on another route")
        }
        EventDetail::AdapterRestored { what } | EventDetail::OverlayFault { what } => what.clone(),
        EventDetail::OverlayLost { peer, what } => format!("{peer}: {what}"),
        EventDetail::OverlayAnswers { peer } => format!("{peer} answers through the adapter again"),
        EventDetail::SessionRefused { peer, reason } => {
            format!("no session with {peer}: {reason}")
        }
        EventDetail::NameFailed { peer, name, reason } => {
            format!("cannot resolve {name} of peer {peer}: {reason}; retrying")
        }
        EventDetail::KeyCopied { peer } => format!(
            "another machine uses this node's key, and {peer} refuses it: a cloned node; on the \
             copy remove the key file and run `netft keygen`"
        ),
        EventDetail::DuplicateNode { peer } => {
            format!("a second node uses the key of {peer} and is refused: give it its own key")
        }
        EventDetail::Stalled { length_ms } => {
            format!(
                "this node was not scheduled for {length_ms} ms; detection is extended by that time"
            )
        }
        EventDetail::PathMtuChanged { route, peer, from, to } => {
            let route = ends.route_label(*route);
            format!("{route} to {peer}: path MTU {from} -> {to} bytes")
        }
        EventDetail::SegmentedSends { route, peer, plain } => {
            let route = ends.route_label(*route);
            if *plain {
                format!(
                    "{route} to {peer}: segmented sends (UDP_SEGMENT) vanish and single datagrams \
                     arrive: frames are sent one by one for an hour"
                )
            } else {
                format!("{route} to {peer}: segmented sends are tried again")
            }
        }
        EventDetail::Cost { peer, from, cost: it, .. } => {
            format!("cost of leaving {} to {peer}: {}", ends.route_label(*from), cost_text(it))
        }
        EventDetail::AddressLearned { route, peer, from, to } => {
            let before = from.map_or_else(String::new, |from| format!(", formerly {from}"));
            format!("route {route} to {peer}: peer address learned: {to}{before}")
        }
        EventDetail::InterfaceListCut { listed, usable } => format!(
            "this node has {usable} usable addresses, and peers learn only {listed} of them: \
             exclude some under topology"
        ),
        EventDetail::VipChanged { vip, addresses, state, reason } => {
            let why = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("floating address {vip} ({addresses}) is {state}{why}")
        }
        EventDetail::VipNotice { vip, what } => format!("floating address {vip}: {what}"),
        EventDetail::HostSettingChanged { what } => {
            format!("kernel setting changed while netftd runs: {what}")
        }
        EventDetail::OverridesRefused { reason } => format!("overrides refused: {reason}"),
        EventDetail::Reconfigured => "configuration reloaded".to_owned(),
        EventDetail::NetworkChanged { prefix, change } => network_text(prefix, *change),
        EventDetail::InterfaceChanged { peer, prefix, address, added } => {
            let what = if *added { "added to" } else { "removed from" };
            let owner = peer.as_ref().map_or_else(String::new, |peer| format!(" of {peer}"));
            format!("interface {address}{owner} {what} network {prefix}")
        }
        EventDetail::Drain { route, peer, stage } => {
            format!("{} to {peer}: {}", ends.route_label(*route), stage.as_str())
        }
        EventDetail::Restarted { version } => {
            format!("netftd {version} started: the events before are of an earlier run")
        }
        EventDetail::DrillStarted { target, fault, length_ms, .. } => {
            format!("drill began: {fault} on {target} for {length_ms} ms")
        }
        EventDetail::DrillEnded { target, fault, outcome, reason, lost, resent, .. } => {
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
            format!(
                "drill {outcome}{reason}: {fault} on {target} is undone; frames: {resent} \
                 retransmitted, {lost} lost"
            )
        }
        EventDetail::EventsLost { count } => format!("{count} events were lost"),
        EventDetail::EventsLeftOut { peer, count } => {
            let about = peer.as_ref().map_or_else(String::new, |peer| format!(" about {peer}"));
            format!("{count} events{about} exceeded the rate limit; the latest are kept")
        }
    }
}

fn network_text(prefix: &str, change: NetworkChange) -> String {
    let why = match change {
        NetworkChange::Added | NetworkChange::Removed | NetworkChange::Up => "",
        NetworkChange::Partitioned => ": some interfaces in it are reached and others are not",
        NetworkChange::Down => ": no interface in it is reached",
        NetworkChange::Unavailable => ": this node has no interface in it",
    };
    format!("network {prefix} {}{why}", change.as_str())
}

/// Cost of leaving a route, as text.
pub fn cost_text(cost: &FailoverCostView) -> String {
    let FailoverCostView { resent, duplicated, lost, .. } = cost;
    let stall = match (cost.stall_us, cost.stall_by) {
        (None, _) => "no data stall".to_owned(),
        (Some(us), Some(StallSource::Data)) => format!("data stalled for {}", format_millis(us)),
        (Some(us), Some(StallSource::Heartbeats) | None) => {
            format!("no data was in flight; a stall would have been at most {}", format_millis(us))
        }
    };
    format!("{stall}; frames: {resent} retransmitted, {duplicated} duplicated, {lost} lost")
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
            transport: Transport::Udp,
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
            from: RouteState::Up,
            to: RouteState::Down,
            reason: "heartbeats missed".to_owned(),
            last_heard_ms_ago: Some(151),
            history,
        };
        let unknown = "route 1 to b: up -> down: heartbeats missed, last heartbeat 151 ms ago";
        assert_eq!(event_lines(&change(Vec::new()), &ends), [unknown]);
        ends.learn_from(&added());
        let known = unknown.replace("route 1", "route 1 (10.1.0.1:3343 -> 10.1.0.2:3343)");
        let shown = event_lines(&change(vec!["41 lost".to_owned()]), &ends);
        assert_eq!(shown, [known.as_str(), "  41 lost"]);
        assert_eq!(event_level(&change(Vec::new())), EventLevel::Warn);
    }

    #[test]
    fn c_14_a_hostile_name_reaches_no_terminal() {
        let what = EventDetail::SessionEnded {
            peer: "b\x1b[2J\n".to_owned(),
            by: "this-node".to_owned(),
            cause: "violation".to_owned(),
        };
        assert_eq!(
            event_lines(&what, &RouteEndpointMap::default()),
            [r"session with b\u{1b}[2J\u{a} ended by this node: violation"]
        );
    }
}

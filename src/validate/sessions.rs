//! Checks of what the daemon knows of its peers: sessions, their routes, netmasks. Pure.
//!
//! The true cause is named where it is known; a firewall only where nothing else explains it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netft::{
    api::session::SessionCause,
    route::{Reason, RouteState},
    topology::RoutePlan,
};

use super::facts::{DaemonFacts, NodeFacts};
use crate::control::schema::{EventDetail, Finding, PeerView, RouteView, SessionState, Severity};

/// Keys that a second node uses, as the daemon has seen.
pub(super) fn check_cloned_keys(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let Some(daemon) = &facts.daemon else { return Vec::new() };
    let told = daemon.events.iter().filter_map(|event| match event {
        EventDetail::DuplicateNode { peer } => {
            Some((peer.as_str(), "a second node uses this peer's key"))
        }
        EventDetail::KeyCopied { .. } => Some(("this node", "a second node uses this node's key")),
        _ => None,
    });
    // By the session it is known which of both the peer takes for the copy.
    let refused = daemon.sessions.iter().filter_map(|peer| {
        let reason = peer.session_reason.as_deref().unwrap_or("no session");
        (peer.session_cause == Some(SessionCause::Duplicate))
            .then_some((peer.name.as_str(), reason))
    });
    let cloned: BTreeMap<_, _> = told.chain(refused).collect();
    let found = |(peer, what): (&str, &str)| {
        Finding::new(
            Severity::Error,
            "cloned-identity",
            peer,
            what,
            "on the copy: remove the key file, run `netft keygen`, and put the new public key into \
             every node's configuration",
        )
    };
    cloned.into_iter().map(found).collect()
}

/// Peers without a session, for a cause that the daemon knows.
pub(super) fn check_sessions(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let sessions = facts.daemon.iter().flat_map(|daemon| &daemon.sessions);
    sessions.filter_map(|peer| check_session(facts, peer)).collect()
}

fn check_session(facts: &NodeFacts, peer: &PeerView) -> Option<Finding> {
    let reason = peer.session_reason.as_deref().unwrap_or("no session");
    let name = &peer.name;
    let own_key = facts.config.public_key;
    let (id, remedy) = match peer.session_cause? {
        // The routes say it, each by itself.
        SessionCause::Silent | SessionCause::NoNetwork => return None,
        // Told by `check_cloned_keys`.
        SessionCause::Duplicate => return None,
        SessionCause::NoAddress => {
            ("no-address", "correct `addresses` of the peer, or the routes of this node".to_owned())
        }
        SessionCause::NoAnswer => (
            "no-answer",
            format!(
                "start netftd on {name} and run `netft validate` there; allow UDP port {} in on it \
                 and through firewalls in between; the path has to carry packets of 1,228 bytes \
                 (`ping -M do -s 1200 ADDRESS`)",
                facts.config.session.port
            ),
        ),
        SessionCause::SmallMtu => (
            "small-mtu",
            format!(
                "raise the MTU of the interface here and at {name} to 1,280 bytes or more, or add \
                 another network"
            ),
        ),
        SessionCause::WrongKey => (
            "wrong-key",
            format!(
                "`netft pubkey` on {name} prints its key: put it under `key` of this peer, then \
                 `netft reload`; or correct its address"
            ),
        ),
        SessionCause::KeyRefused => (
            "refused-by-peer",
            format!(
                "in the configuration of {name} add or correct the `[[peer]]` of this node: \
                 `key = \"{own_key}\"`, then `netft reload` there"
            ),
        ),
        SessionCause::Refused => {
            let what = format!("{name} and this node");
            ("refused", format!("make the configurations and versions of {what} agree"))
        }
    };
    Some(Finding::new(Severity::Error, id, name, reason, remedy))
}

/// Routes that carry nothing in one or both directions.
pub(super) fn check_routes(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let Some(daemon) = &facts.daemon else { return Vec::new() };
    let broken = daemon
        .routes
        .iter()
        .filter(|route| !carries(route) && route.state != RouteState::AdminDown);
    let mut findings: Vec<Finding> = Vec::new();
    for route in broken {
        let finding = match check_local_end(facts, daemon, route) {
            Some(finding) => finding,
            // Without a session no heartbeat is sent: the session's own finding says why.
            None if !has_session(daemon, &route.peer) => continue,
            None => check_direction(daemon, route),
        };
        // An interface is named once, whatever routes leave through it.
        if !findings.iter().any(|other| (&other.id, &other.place) == (&finding.id, &finding.place))
        {
            findings.push(finding);
        }
    }
    findings
}

const fn carries(route: &RouteView) -> bool {
    route.tx && route.rx
}

fn has_session(daemon: &DaemonFacts, peer: &str) -> bool {
    let known = daemon.sessions.iter().find(|known| known.name == peer);
    known.is_none_or(|known| known.session_state != SessionState::None)
}

/// Error where no other route leads to the peer.
fn route_severity(daemon: &DaemonFacts, route: &RouteView) -> Severity {
    match daemon.routes.iter().any(|other| other.peer == route.peer && carries(other)) {
        true => Severity::Warning,
        false => Severity::Error,
    }
}

fn route_place(route: &RouteView) -> String {
    format!("{}: {} → {}", route.peer, route.real_local, route.real_remote)
}

/// A fault of this node's own end, or one that the peer reports of its end.
fn check_local_end(facts: &NodeFacts, daemon: &DaemonFacts, route: &RouteView) -> Option<Finding> {
    let (local, remote) = (route.real_local.ip(), route.real_remote.ip());
    let owner = facts.links.iter().find(|link| link.interface.owns_address(local));
    let interface = owner.map_or_else(|| local.to_string(), |link| link.interface.name.clone());
    let is_for = |reason: Reason| route.reason == reason.as_str();
    let (id, place, what, remedy) = if is_for(Reason::CarrierLost) {
        let what = "no carrier: the cable is out, or the port at its other end is off".to_owned();
        let remedy = format!("plug in the cable of {interface}, and enable the switch port");
        ("no-carrier", interface, what, remedy)
    } else if is_for(Reason::InterfaceDown) {
        let remedy = format!("`ip link set {interface} up`");
        ("interface-down", interface, "the interface is set down".to_owned(), remedy)
    } else if is_for(Reason::InterfaceGone) || is_for(Reason::AddressGone) {
        let what = format!("no interface has the address {local}");
        let remedy = "add it again, or wait until the peer learns of the others".to_owned();
        ("address-gone", route_place(route), what, remedy)
    } else if is_for(Reason::SendError) {
        let what = format!("the kernel refuses to send from {local} to {remote}");
        let remedy = format!(
            "`ip route get {remote} from {local}` shows why: add the route or rule that is \
             missing, or allow it in the output chain"
        );
        ("send-error", route_place(route), what, remedy)
    } else if is_for(Reason::PeerLocalDown) {
        let what = format!("{}'s end is down: its interface, cable or address", route.peer);
        let remedy = format!("on {} check the interface with {remote}", route.peer);
        ("peer-end-down", route_place(route), what, remedy)
    } else if is_for(Reason::PeerAdmin) {
        let what = format!("an operator took the route out of use on {}", route.peer);
        let remedy = format!("`netft route up` on {}", route.peer);
        return Some(Finding::new(
            Severity::Note,
            "disabled-at-peer",
            route_place(route),
            what,
            remedy,
        ));
    } else {
        return None;
    };
    Some(Finding::new(route_severity(daemon, route), id, place, what, remedy))
}

/// Datagrams are lost in one or both directions, and nothing on this node explains it.
fn check_direction(daemon: &DaemonFacts, route: &RouteView) -> Finding {
    let RouteView { peer, real_local, real_remote, .. } = route;
    let (here, there) = (real_local.port(), real_remote.port());
    let (id, what, remedy) = match (route.tx, route.rx) {
        (false, true) => (
            "one-way",
            format!("{peer} receives nothing from this node on this route"),
            format!("allow UDP port {there} in on {peer}: `netft validate` there shows the rule"),
        ),
        (true, false) => (
            "one-way",
            format!("this node receives nothing from {peer} on this route"),
            format!("allow UDP port {here} out of {peer} and through firewalls in between"),
        ),
        _ => (
            "no-answer",
            format!("nothing is received from {peer} on this route ({})", route.reason),
            format!(
                "check that {peer} is running and its cable plugged in; run `netft validate` on \
                 it; allow UDP port {there} through firewalls in between"
            ),
        ),
    };
    Finding::new(route_severity(daemon, route), id, route_place(route), what, remedy)
}

/// Interfaces of this node and of a peer in one another's prefix, with netmasks that differ: one
/// takes the other for a neighbour, and the other sends its answers to a router.
pub(super) fn check_netmasks(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let Some(daemon) = &facts.daemon else { return Vec::new() };
    let prefixes: Vec<_> = daemon
        .networks
        .iter()
        .filter_map(|network| Some((network.prefix.parse::<IpNet>().ok()?, network)))
        .collect();
    let mut findings = Vec::new();
    for (number, (one, network)) in prefixes.iter().enumerate() {
        for (other, second) in &prefixes[number + 1..] {
            let differs = one.prefix_len() != other.prefix_len()
                && (one.contains(&other.network()) || other.contains(&one.network()));
            if !differs {
                continue;
            }
            let own = &facts.config.name;
            let mut holders: Vec<_> = [(one, network), (other, second)]
                .into_iter()
                .flat_map(|(prefix, network)| {
                    let length = prefix.prefix_len();
                    network.interfaces.iter().map(move |end| (end, length))
                })
                .collect();
            holders.sort_by_key(|(end, _)| (&end.node != own, end.node.clone(), end.address));
            let lengths: BTreeSet<_> = holders.iter().map(|(_, length)| *length).collect();
            let nodes: BTreeSet<_> = holders.iter().map(|(end, _)| &end.node).collect();
            if lengths.len() < 2 || nodes.len() < 2 {
                continue;
            }
            let listed = holders
                .iter()
                .take(8)
                .map(|(end, length)| format!("{} has {}/{length}", end.node, end.address));
            findings.push(Finding::new(
                Severity::Warning,
                "netmask-differs",
                format!("{one}, {other}"),
                format!("one network with two netmasks: {}", listed.collect::<Vec<_>>().join(", ")),
                "give every interface in it the same prefix length",
            ));
        }
    }
    findings
}

//! Why there is no working session with a peer, from what the driver knows. Pure.

use std::collections::BTreeSet;

use netft_proto::{
    config::PeerConfig,
    ids::PeerId,
    route::{PeerStatus, RouteState},
    time::Time,
};

use crate::{
    api::session::{SessionCause, SessionProblem},
    io::control::{component::View, sockets::max_datagram},
};

/// Bytes of the largest UDP payload of a handshake (RFC 9000 section 14.1): every path carries it,
/// or no session comes about.
const HANDSHAKE_PAYLOAD: usize = 1200;
/// Most reasons listed in one line.
const MAX_LISTED_REASONS: usize = 4;

/// The problem of a peer; `None` while heartbeats arrive under a session.
pub(super) fn session_problem(
    view: &View<'_>,
    peer: &PeerConfig,
    status: &PeerStatus,
    now: Time,
) -> Option<SessionProblem> {
    if status.session && status.heard {
        return None;
    }
    let entry = view.peers.get(peer.id)?;
    let routes: Vec<_> =
        view.routes.iter().filter(|(_, entry)| entry.plan.spec.peer == peer.id).collect();
    let handshake = entry.handshake_problem();
    if let Some(refused) = handshake.filter(|problem| problem.cause != SessionCause::NoAnswer) {
        return Some(refused.clone());
    }
    if routes.is_empty() {
        return Some(no_address(view, peer));
    }
    let faulty = routes.iter().filter_map(|(_, entry)| {
        let interface = match entry.plan.ifname.as_str() {
            "" => entry.plan.spec.real_local.ip().to_string(),
            name => name.to_owned(),
        };
        Some(format!("{interface}: {}", entry.reported_fault?))
    });
    let faulty: Vec<_> = faulty.collect();
    if faulty.len() == routes.len() {
        let text = format!("no network towards it works: {}", list_reasons(faulty));
        return Some(SessionProblem::new(SessionCause::NoNetwork, text));
    }
    if status.session {
        return Some(silent_session(view, peer, status, now));
    }
    let dialled = match entry.session_end {
        Some(cause) => format!("the last session ended: {}; dialling", cause.description()),
        None => "dialling: no answer yet; is netftd running there?".to_owned(),
    };
    Some(handshake.cloned().map_or_else(
        || SessionProblem::new(SessionCause::NoAnswer, dialled),
        |problem| {
            let text = format!(
                "{}; is netftd running there, does a firewall drop UDP, does the path carry \
                 packets of 1,228 bytes (IPv6: 1,248)?",
                problem.text
            );
            SessionProblem::new(problem.cause, text)
        },
    ))
}

/// The problem of a peer whose routes all leave through interfaces that take no packet of a
/// handshake. Their routes carry data once a session stands.
pub(super) fn small_mtu_problem(view: &View<'_>, peer: PeerId) -> Option<SessionProblem> {
    let routes = view.routes.iter().filter(|(_, entry)| entry.plan.spec.peer == peer);
    let mut small = Vec::new();
    for (_, entry) in routes {
        let interface = view.planner.host_state().interface(entry.plan.ifindex)?;
        let remote = entry.plan.spec.real_remote.ip();
        if max_datagram(interface.mtu, remote) >= HANDSHAKE_PAYLOAD {
            return None;
        }
        let needed = HANDSHAKE_PAYLOAD + if remote.is_ipv4() { 28 } else { 48 };
        let (name, mtu) = (&entry.plan.ifname, interface.mtu);
        small.push(format!("{name} has an MTU of {mtu} bytes, and a session needs {needed}"));
    }
    (!small.is_empty()).then(|| SessionProblem::new(SessionCause::SmallMtu, list_reasons(small)))
}

fn no_address(view: &View<'_>, peer: &PeerConfig) -> SessionProblem {
    let unrouted = view.planner.unrouted_of(peer.id);
    let mut reasons: Vec<_> =
        unrouted.map(|address| format!("{}: {}", address.remote.ip(), address.reason)).collect();
    // A reload may have removed a name.
    let problems = view.peers.get(peer.id).into_iter().flat_map(|entry| &entry.name_problems);
    let problems = problems.filter(|(name, _)| peer.names.iter().any(|known| known.host == **name));
    reasons.extend(problems.map(|(_, problem)| problem.clone()));
    let text = if !reasons.is_empty() {
        format!("no route leads to any of its addresses: {}", list_reasons(reasons))
    } else if peer.addresses.is_empty() && peer.names.is_empty() {
        "no address of it is known: name one under `addresses`, or let it dial this node".to_owned()
    } else {
        "no route leads to any of its addresses".to_owned()
    };
    SessionProblem::new(SessionCause::NoAddress, text)
}

/// A session whose keys outlive every route.
fn silent_session(
    view: &View<'_>,
    peer: &PeerConfig,
    status: &PeerStatus,
    now: Time,
) -> SessionProblem {
    let routes = view.engine.route_statuses().into_iter();
    let routes: Vec<_> = routes.filter(|route| route.spec.peer == peer.id).collect();
    let down = routes.iter().filter(|route| route.state != RouteState::Up);
    let reasons = list_reasons(down.map(|route| route.reason.to_string()));
    let heard = match status.last_heard {
        Some(at) => format!("for {} s", now.since(at).as_secs()),
        None => "so far".to_owned(),
    };
    let count = match routes.len() {
        1 => "its one route".to_owned(),
        count => format!("any of its {count} routes"),
    };
    let text = format!("no heartbeat {heard} on {count}: {reasons}");
    SessionProblem::new(SessionCause::Silent, text)
}

/// Different reasons in one line.
fn list_reasons(reasons: impl IntoIterator<Item = String>) -> String {
    let reasons: BTreeSet<_> = reasons.into_iter().collect();
    let more = reasons.len().saturating_sub(MAX_LISTED_REASONS);
    let listed: Vec<_> = reasons.into_iter().take(MAX_LISTED_REASONS).collect();
    match more {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use netft_proto::{
        engine::EngineInput,
        route::{Reason, SessionEndCause},
    };

    use super::*;
    use crate::io::control::test_node::TestNode;

    fn problem(node: &TestNode, now: Time) -> Option<SessionProblem> {
        let status = node.engine.peer_statuses()[0];
        session_problem(&node.view(), &node.config.peers[0], &status, now)
    }

    #[test]
    fn t_03_a_peer_without_a_working_session_says_why() {
        let mut node = TestNode::new(1);
        let now = Time::from_millis(1000);
        let cause = |node: &TestNode| problem(node, now).map(|problem| problem.cause);
        assert_eq!(cause(&node), Some(SessionCause::NoAddress));
        let route = node.add_route(PeerId(0));
        assert_eq!(cause(&node), Some(SessionCause::Silent));
        node.bring_up(now, PeerId(0), route);
        assert_eq!(problem(&node, now), None);
        // The keys outlive the peer.
        let later = now + Duration::from_secs(12);
        (0..=1200).for_each(|step| node.engine.on_timer(now + Duration::from_millis(10) * step));
        let silent = problem(&node, later).unwrap();
        assert_eq!(silent.cause, SessionCause::Silent);
        assert_eq!(silent.text, "no heartbeat for 12 s on its one route: heartbeats missed");
        node.engine
            .on_input(later, EngineInput::SessionDown(PeerId(0), SessionEndCause::PeerStopped))
            .unwrap();
        assert_eq!(cause(&node), Some(SessionCause::NoAnswer));
        node.routes.get_mut(route).unwrap().reported_fault = Some(Reason::CarrierLost);
        let down = problem(&node, later).unwrap();
        assert_eq!(down.cause, SessionCause::NoNetwork);
        assert!(down.text.ends_with("eth0: carrier lost"), "{down:?}");
        let refused = SessionProblem::new(SessionCause::KeyRefused, "refused");
        node.peers.get_mut(PeerId(0)).unwrap().note_handshake_problem(later, refused.clone());
        assert_eq!(problem(&node, later), Some(refused));
    }
}

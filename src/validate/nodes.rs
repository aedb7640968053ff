//! Checks across two nodes: peers that gave no answer, clock skew, path MTU below the interface MTU
//! or different by direction. Pure.

use netft::{route::RouteState, topology::RoutePlan};

use super::facts::NodeFacts;
use crate::control::schema::{Finding, PeerPath, PeerValidation, RouteView, Severity};

/// Largest tolerated clock skew, milliseconds: more than NTP leaves and than an answer takes.
const MAX_CLOCK_SKEW_MS: u64 = 2000;
/// Age up to which a path MTU counts as proven, milliseconds: idle routes are probed every 10 s.
const PATH_MTU_FRESH_MS: u64 = 15_000;

fn peer_validations(facts: &NodeFacts) -> &[PeerValidation] {
    facts.daemon.as_ref().map_or(&[], |daemon| &daemon.peers)
}

/// Peers that were not checked.
pub(super) fn check_unasked_peers(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let unasked =
        peer_validations(facts).iter().filter_map(|answer| Some((answer, answer.error.as_ref()?)));
    unasked
        .map(|(PeerValidation { peer, .. }, error)| {
            let what = format!("{peer} was not checked: {error}");
            let remedy = format!("run `netft validate` on {peer}");
            Finding::new(Severity::Warning, "peer-not-asked", peer, what, remedy)
        })
        .collect()
}

/// Clock skew between two nodes.
pub(super) fn check_clock_skew(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let skewed =
        peer_validations(facts).iter().filter_map(|answer| Some((answer, answer.clock_skew_ms?)));
    skewed
        .filter(|(_, skew)| skew.unsigned_abs() > MAX_CLOCK_SKEW_MS)
        .map(|(PeerValidation { peer, .. }, skew)| {
            let side = if skew < 0 { "behind" } else { "ahead of" };
            let seconds = skew.unsigned_abs() / 1000;
            Finding::new(
                Severity::Warning,
                "clock-skew",
                peer,
                format!(
                    "its clock is {seconds} s {side} this node's: log times of both cannot be \
                     compared"
                ),
                "`timedatectl` on both shows which one is wrong; there run `timedatectl set-ntp \
                 true`, or install chrony",
            )
        })
        .collect()
}

/// Routes with a path MTU below their interface MTU, by probes of this node; and with one that
/// differs by direction, by probes of both nodes.
pub(super) fn check_path_mtu(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let routes = facts.daemon.iter().flat_map(|daemon| &daemon.routes);
    let up = routes.filter(|route| route.state == RouteState::Up && route.via.is_none());
    up.flat_map(|route| {
        [check_reduced_path_mtu(facts, route), check_asymmetric_path_mtu(facts, route)]
    })
    .flatten()
    .collect()
}

fn route_place(facts: &NodeFacts, route: &RouteView) -> String {
    let RouteView { peer, real_local, real_remote, .. } = route;
    let owner = facts.links.iter().find(|link| link.interface.owns_address(real_local.ip()));
    let name = owner.map_or("?", |link| &link.interface.name);
    format!("{peer}: {real_local} → {real_remote} ({name})")
}

/// Routes on which segmented sends vanish.
pub(super) fn check_segmented_sends(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let routes = facts.daemon.iter().flat_map(|daemon| &daemon.routes);
    let plain = routes.filter(|route| route.plain_sends);
    let finding = |route: &RouteView| {
        let RouteView { peer, real_local, real_remote, .. } = route;
        let place = format!("{peer}: {real_local} → {real_remote}");
        let what = "segmented sends (UDP_SEGMENT) vanish on this route, so its frames are sent one \
                    by one, which costs CPU";
        let remedy = "update this node's kernel or the firmware of its network card, or switch the \
                      card's offload off: `ethtool -K CARD tx-udp-segmentation off`";
        Finding::new(Severity::Warning, "segmented-sends", place, what, remedy)
    };
    plain.map(finding).collect()
}

fn check_reduced_path_mtu(facts: &NodeFacts, route: &RouteView) -> Option<Finding> {
    const FINDING_ID: &str = "path-mtu";
    let (carries, takes) = (route.path_mtu?, route.path_mtu_limit?);
    let at = route_place(facts, route);
    if carries < takes {
        let sure = if route.path_mtu_probing { "at least " } else { "" };
        return Some(Finding::new(
            Severity::Warning,
            FINDING_ID,
            at,
            format!(
                "packets of {sure}{carries} bytes pass, the interface MTU is {takes}: \
                 something on the path drops larger ones"
            ),
            format!(
                "allow {takes} bytes on every switch, bridge and tunnel of the path; else set the \
                 MTU of this interface to {carries}, on every node of its network"
            ),
        ));
    }
    if route.path_mtu_age_ms.is_none_or(|age| age > PATH_MTU_FRESH_MS) {
        let what = format!("no recent probe of the interface MTU, {takes} bytes, was answered");
        let remedy = "run this again; if it persists, look for lost heartbeats in `netft events`";
        return Some(Finding::new(Severity::Note, FINDING_ID, at, what, remedy));
    }
    None
}

/// The peer's side is its route with the same endpoints; behind NAT there is none.
fn check_asymmetric_path_mtu(facts: &NodeFacts, route: &RouteView) -> Option<Finding> {
    let answer = peer_validations(facts).iter().find(|answer| answer.peer == route.peer)?;
    let same = |path: &&PeerPath| {
        (path.real_local, path.real_remote) == (route.real_remote, route.real_local)
    };
    let (out, back) = (route.path_mtu?, answer.paths.iter().find(same)?);
    // A path MTU that is still probed is a lower bound.
    if out == back.path_mtu || route.path_mtu_probing || back.path_mtu_probing {
        return None;
    }
    let (takes, theirs) = (route.path_mtu_limit?, back.path_mtu_limit);
    let peer = &route.peer;
    let remedy = if takes == theirs {
        "find what differs by direction on the path: a switch port, a tunnel, a policy route"
            .to_owned()
    } else {
        let (most, least) = (takes.max(theirs), takes.min(theirs));
        format!(
            "give the interfaces of both nodes one MTU: {most} if the network carries it, else \
             {least}"
        )
    };
    Some(Finding::new(
        Severity::Warning,
        "path-mtu-differs",
        route_place(facts, route),
        format!("packets of {out} bytes reach {peer}, packets of {} come back", back.path_mtu),
        remedy,
    ))
}

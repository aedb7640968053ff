//! What only two nodes together can tell: who could not be asked, clocks that differ, paths that
//! carry less than their interfaces say, or less one way than the other. Pure.

use netft::topology::RoutePlan;

use super::facts::NodeFacts;
use crate::control::schema::{Finding, PeerPath, PeerValidation, Route, Severity};

/// Clocks further apart than this, milliseconds, put logs of two nodes in a wrong order that NTP
/// would not; what an answer takes is far less.
const MAX_CLOCK_SKEW_MS: u64 = 2000;
/// A path MTU that was proven within this time, milliseconds, was proven: idle routes are
/// confirmed every 10 s.
const PATH_MTU_FRESH_MS: u64 = 15_000;

fn peer_validations(facts: &NodeFacts) -> &[PeerValidation] {
    facts.daemon.as_ref().map_or(&[], |daemon| &daemon.peers)
}

/// A peer that was not asked may have anything wrong with it.
pub(super) fn check_unasked_peers(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let unasked =
        peer_validations(facts).iter().filter_map(|answer| Some((answer, answer.error.as_ref()?)));
    unasked
        .map(|(PeerValidation { peer, .. }, error)| {
            let what = format!("what is wrong on {peer} is not known: {error}");
            let remedy = format!("run `netft validate` on {peer}");
            Finding::new(Severity::Warning, "peer-not-asked", peer, what, remedy)
        })
        .collect()
}

/// Clocks of two nodes that differ.
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
                format!("its clock is {seconds} s {side} this node's: their logs do not compare"),
                "`timedatectl` on both tells which one is wrong; there `timedatectl set-ntp true`, \
                 or install chrony",
            )
        })
        .collect()
}

/// Routes that carry less than their interface takes, by probes of this node; and those that
/// carry less one way than the other, by probes of both.
pub(super) fn check_path_mtu(facts: &NodeFacts, _: &RoutePlan) -> Vec<Finding> {
    let routes = facts.daemon.iter().flat_map(|daemon| &daemon.routes);
    let up = routes.filter(|route| route.state == "up" && route.via.is_none());
    up.flat_map(|route| {
        [check_reduced_path_mtu(facts, route), check_asymmetric_path_mtu(facts, route)]
    })
    .flatten()
    .collect()
}

fn route_place(facts: &NodeFacts, route: &Route) -> String {
    let Route { peer, real_local, real_remote, .. } = route;
    let owner = facts.links.iter().find(|link| link.interface.owns_address(real_local.ip()));
    let name = owner.map_or("?", |link| &link.interface.name);
    format!("{peer}: {real_local} → {real_remote} ({name})")
}

fn check_reduced_path_mtu(facts: &NodeFacts, route: &Route) -> Option<Finding> {
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
                "packets of {sure}{carries} bytes get through, the interface takes {takes}: \
                 something on the way drops larger ones"
            ),
            format!(
                "let every switch, bridge and tunnel on the way carry {takes} bytes; else set the \
                 MTU of this interface to {carries}, on every node of its network"
            ),
        ));
    }
    if route.path_mtu_age_ms.is_none_or(|age| age > PATH_MTU_FRESH_MS) {
        let what = format!("no probe of the interface's {takes} bytes was answered lately");
        let remedy = "run this again; if it stays, look at `netft events` for lost heartbeats";
        return Some(Finding::new(Severity::Note, FINDING_ID, at, what, remedy));
    }
    None
}

/// The peer's half is its route with the same two ends. Behind address translation there is none.
fn check_asymmetric_path_mtu(facts: &NodeFacts, route: &Route) -> Option<Finding> {
    let answer = peer_validations(facts).iter().find(|answer| answer.peer == route.peer)?;
    let same = |path: &&PeerPath| {
        (path.real_local, path.real_remote) == (route.real_remote, route.real_local)
    };
    let (out, back) = (route.path_mtu?, answer.paths.iter().find(same)?);
    // What is still searched for is only known to be no less.
    if out == back.path_mtu || route.path_mtu_probing || back.path_mtu_probing {
        return None;
    }
    let (takes, theirs) = (route.path_mtu_limit?, back.path_mtu_limit);
    let peer = &route.peer;
    let remedy = if takes == theirs {
        "look for what differs by direction on the way: a switch port, a tunnel, a policy route"
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
        format!("{out} bytes get to {peer}, {} come back", back.path_mtu),
        remedy,
    ))
}

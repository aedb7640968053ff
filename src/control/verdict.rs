//! Verdict on a node: does every peer survive the next failure? Pure.

use netft::{
    api::snapshot::{PeerInfo, Snapshot},
    route::{RouteState, RouteStatus},
};
use serde::{Deserialize, Serialize};

use crate::text::NO_PEERS;

/// Reasons in one verdict; the others are counted.
const MAX_REASONS: usize = 16;

/// Verdict on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RedundancyVerdict {
    /// The verdict.
    pub state: RedundancyState,
    /// Reasons of a verdict that is not `redundant`, one line each; at most 16, and the number of
    /// the others.
    pub reasons: Vec<String>,
}

/// State of the redundancy, the worst last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RedundancyState {
    /// Every peer has at least two routes that are up, and no route is down.
    Redundant,
    /// Every peer is reachable; a route is down, or a peer has one route only.
    #[default]
    Degraded,
    /// A peer is unreachable, or the adapter is down.
    CutOff,
}

impl RedundancyState {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redundant => "redundant",
            Self::Degraded => "degraded",
            Self::CutOff => "cut off",
        }
    }
}

/// Routes to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerRouteCounts {
    /// Up, not drained, and its own: a relayed one shares the fate of another.
    pub(super) up: usize,
    /// All, without relayed ones.
    pub(super) total: usize,
}

/// Counts the routes to a peer.
pub(super) fn count_peer_routes(snapshot: &Snapshot, peer: &PeerInfo) -> PeerRouteCounts {
    let routes: Vec<_> = own_routes(snapshot, peer).collect();
    let is_up = |route: &&&RouteStatus| route.state == RouteState::Up && route.drain.is_none();
    PeerRouteCounts { up: routes.iter().filter(is_up).count(), total: routes.len() }
}

fn own_routes<'s>(
    snapshot: &'s Snapshot,
    peer: &PeerInfo,
) -> impl Iterator<Item = &'s RouteStatus> {
    let id = peer.status.peer;
    let to_peer = snapshot.routes.iter().filter(move |route| route.spec.peer == id);
    to_peer.filter(|route| !snapshot.relay_of.contains_key(&route.id))
}

/// Judges a node.
pub(super) fn judge_redundancy(snapshot: &Snapshot) -> RedundancyVerdict {
    use RedundancyState::{CutOff, Degraded, Redundant};
    let mut findings = Vec::new();
    if !snapshot.adapter.up {
        findings.push((CutOff, format!("the adapter {} is down", snapshot.adapter.name)));
    }
    if snapshot.peers.is_empty() {
        findings.push((Degraded, NO_PEERS.to_owned()));
    }
    snapshot.peers.iter().for_each(|peer| judge_peer(snapshot, peer, &mut findings));
    let state = findings.iter().map(|(state, _)| *state).max().unwrap_or(Redundant);
    // The worst first.
    findings.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
    let more = findings.len().saturating_sub(MAX_REASONS);
    let mut reasons: Vec<_> = findings.into_iter().map(|(_, reason)| reason).collect();
    reasons.truncate(MAX_REASONS);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    RedundancyVerdict { state, reasons }
}

fn judge_peer(snapshot: &Snapshot, peer: &PeerInfo, findings: &mut Vec<(RedundancyState, String)>) {
    let name = &peer.name;
    if !peer.status.reachable {
        let why = peer.session_problem.as_ref();
        let why = why.map_or_else(|| "no route to it is usable".to_owned(), |it| it.text.clone());
        return findings.push((RedundancyState::CutOff, format!("{name} is unreachable: {why}")));
    }
    if let Some(problem) = peer.overlay_problem {
        findings.push((RedundancyState::CutOff, format!("{name} is unreachable: {problem}")));
    }
    let PeerRouteCounts { up, total } = count_peer_routes(snapshot, peer);
    if up < 2 {
        let text = format!("{name} has {up} of {total} routes up: the next failure cuts it off");
        findings.push((RedundancyState::Degraded, text));
    }
    let is_failed = |state| matches!(state, RouteState::Down | RouteState::Init);
    for route in own_routes(snapshot, peer).filter(|route| is_failed(route.state)) {
        let text = format!("route {} to {name} is {}: {}", route.id.0, route.state, route.reason);
        findings.push((RedundancyState::Degraded, text));
    }
}

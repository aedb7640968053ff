//! The invariants about a node's state, checked after every step the node takes.
//!
//! | rule | says |
//! |---|---|
//! | 1 | data goes where the engine itself says it may, and the table says what the engine says |
//! | 2 | while a network is good, data uses a way that works, or that died within the bound |
//! | 3 | the engine always has a next wake, never in the past after a tick |
//! | 4 | no route is down, or warned of, before its silence was long enough |
//! | 5 | after every repair, every route comes up and data returns to the best |
//! | 6 | a heartbeat goes out within 190 % of the delay, requests at least 75 % apart but for news |
//! | 7 | the two ends agree whether a route over a good network is up |
//! | 8 | a route over a dead way does not stay up |
//! | 9 | silence ends rx with the detection time, not later |
//! | 10 | a node tells of a stall once, and only after one |
//! | 11 | a request is answered at once, on its route |
//! | 12 | a new session begins with nothing proven |
//! | 13 | no packet is delivered twice |
//! | 14 | nothing in flight is lost while a network is good (in full: `delivery.rs`) |
//! | 15 | data is sent again on another route that is up; suspicion ends with the detection time |
//! | 16 | data leaves a drained network while one that is not drained is good |

use crate::{
    route::{RouteState, RouteStatus},
    sim::{
        check::{CheckResult, InvariantChecker},
        node::SimNode,
        scenario::peer_id,
        truth::GroundTruth,
    },
    time::Time,
};

/// What the rules look at.
pub(crate) struct ClusterView<'a> {
    pub(crate) now: Time,
    pub(crate) nodes: &'a [SimNode],
    pub(crate) truth: &'a GroundTruth,
    /// The node's timers have just fired.
    pub(crate) ticked: bool,
}

impl InvariantChecker {
    /// Every rule about one node that runs.
    pub(crate) fn check_node(&mut self, node: usize, view: &ClusterView<'_>) -> CheckResult {
        for peer in (0..view.nodes.len()).filter(|peer| *peer != node) {
            self.check_active_route(node, peer, view)?;
            self.check_forwarding(node, peer, view)?;
            self.check_drain(node, peer, view)?;
            for (network, route) in routes_to_peer(view.nodes, node, peer).iter().enumerate() {
                let place = (node, peer, network);
                self.check_cadence(place, view)?;
                self.check_agreement(place, route, view)?;
                self.check_dead_route(place, route, view)?;
                self.check_detection(place, route, view)?;
                self.check_suspect_duration(place, route, view)?;
            }
        }
        Ok(())
    }

    /// Rule 1.
    fn check_active_route(
        &mut self,
        node: usize,
        peer: usize,
        view: &ClusterView<'_>,
    ) -> CheckResult {
        let says = |words: &str| Err(format!("rule 1: node {node} to {peer}: {words}"));
        let this = &view.nodes[node];
        let active = this.peers.iter().find(|p| p.peer == peer_id(peer)).and_then(|p| p.active);
        let row = this.table.peers.iter().find(|row| row.peer == peer_id(peer));
        if row.and_then(|row| row.active) != active {
            return says("the table names another active route than the engine");
        }
        let routes = routes_to_peer(view.nodes, node, peer);
        let up = routes.iter().any(|route| route.state == RouteState::Up);
        let whole = |network: usize, memory: &mut Self| {
            let used = routes[network].tx && routes[network].state != RouteState::AdminDown;
            used && !memory.observation_mut(node, peer, network).faulted
        };
        let half = (0..routes.len()).any(|network| whole(network, self));
        let Some(active) = active else {
            return if up || half { says("a route works and none is active") } else { Ok(()) };
        };
        let Some(network) = routes.iter().position(|route| route.id == active) else {
            return says("the active route leads elsewhere");
        };
        let route = &routes[network];
        if self.observation_mut(node, peer, network).faulted {
            says(&format!("active on network {network}, broken at this end"))
        } else if route.state != RouteState::Up && (up || !route.tx) {
            let RouteStatus { state, tx, .. } = route;
            says(&format!("active on network {network}: {state}, tx {tx}, another up: {up}"))
        } else if route.state == RouteState::AdminDown {
            says(&format!("active on network {network}, which is out of use"))
        } else {
            Ok(())
        }
    }

    /// Rule 2.
    fn check_forwarding(
        &mut self,
        node: usize,
        peer: usize,
        view: &ClusterView<'_>,
    ) -> CheckResult {
        let routes = routes_to_peer(view.nodes, node, peer);
        let proven = |network: usize| {
            let since = view.truth.clean_since(network, node, peer)?;
            (view.now.since(since) > self.bounds.max_proof_time()).then_some((network, since))
        };
        let Some((good, since)) = (0..routes.len()).find_map(proven) else { return Ok(()) };
        let says = |words: String| {
            Err(format!(
                "rule 2: node {node} to {peer}: network {good} good since {since}, {words}"
            ))
        };
        let Some(network) = routes.iter().position(|route| route.active) else {
            return says("no route active".to_owned());
        };
        match view.truth.blocked_since(network, node, peer) {
            Some(died) if view.now.since(died) > self.bounds.max_failover_time(network) => {
                says(format!("active on network {network}, dead since {died}"))
            }
            _ => Ok(()),
        }
    }

    /// Rule 13.
    fn check_drain(&mut self, node: usize, peer: usize, view: &ClusterView<'_>) -> CheckResult {
        let routes = routes_to_peer(view.nodes, node, peer);
        let Some(network) = routes.iter().position(|route| route.active) else { return Ok(()) };
        let Some(ordered) = view.truth.drained_since(network, node, peer) else { return Ok(()) };
        // The order is told with every heartbeat, over every network.
        let propagation = self.bounds.max_delay + self.bounds.max_travel + self.bounds.slack;
        let good = |network: usize| {
            let since = view.truth.clean_since(network, node, peer)?;
            let kept = view.truth.undrained_since(network, node, peer)?;
            let known = (since + self.bounds.max_proof_time()).max(kept).max(ordered);
            (view.now > known + propagation).then_some((network, since))
        };
        match (0..routes.len()).find_map(good) {
            Some((good, since)) => Err(format!(
                "rule 13: node {node} to {peer}: active on network {network}, drained since \
                 {ordered}, while network {good} is good since {since}"
            )),
            None => Ok(()),
        }
    }

    /// Rule 6, for heartbeats that do not come at all.
    fn check_cadence(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        view: &ClusterView<'_>,
    ) -> CheckResult {
        let most = self.bounds.delay_of(network) * 19 / 10 + self.bounds.slack;
        match self.observation_mut(node, peer, network).last_sent {
            Some(last) if view.now.since(last) > most => Err(format!(
                "rule 6: node {node} to {peer} over network {network}: no heartbeat since {last}"
            )),
            _ => Ok(()),
        }
    }

    /// Rule 7.
    fn check_agreement(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        route: &RouteStatus,
        view: &ClusterView<'_>,
    ) -> CheckResult {
        let there = routes_to_peer(view.nodes, peer, node).get(network).map(|route| route.state);
        let up = |state| state == RouteState::Up;
        let differs = there.is_some_and(|there| up(there) != up(route.state));
        let most = self.bounds.max_disagreement(network);
        let differ =
            &mut self.observation_mut(node.min(peer), node.max(peer), network).disagree_since;
        if !differs {
            *differ = None;
            return Ok(());
        }
        let since = *differ.get_or_insert(view.now);
        let Some(clean) = view.truth.clean_since(network, node, peer) else { return Ok(()) };
        if view.now.since(since.max(clean)) > most {
            return Err(format!(
                "rule 7: nodes {node} and {peer} disagree about network {network} since {since}, \
                 good since {clean}"
            ));
        }
        Ok(())
    }

    /// Rule 8.
    fn check_dead_route(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        route: &RouteStatus,
        view: &ClusterView<'_>,
    ) -> CheckResult {
        if route.state != RouteState::Up {
            return Ok(());
        }
        let here = view.truth.last_disturbed(node);
        let both = here.max(view.truth.last_disturbed(peer));
        let detection = self.bounds.detection_time_of(network);
        let deaf = view.truth.blocked_since(network, peer, node).map(|at| at.max(here));
        let mute = view.truth.blocked_since(network, node, peer).map(|at| at.max(both));
        let late = |since: Option<Time>, most| since.is_some_and(|at| view.now.since(at) > most);
        if late(deaf, detection + self.bounds.max_travel + self.bounds.slack)
            || late(mute, self.bounds.max_dead_route_up_time(network))
        {
            return Err(format!(
                "rule 8: node {node} to {peer} over network {network}: up, although the way out \
                 is dead since {mute:?}, the way in since {deaf:?}"
            ));
        }
        Ok(())
    }

    /// Rule 9.
    fn check_detection(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        route: &RouteStatus,
        view: &ClusterView<'_>,
    ) -> CheckResult {
        let detection = self.bounds.detection_time_of(network);
        // A node that was stalled grants everyone one more detection time.
        let undisturbed = view.now.since(view.truth.last_disturbed(node)) > detection * 2;
        match self.observation_mut(node, peer, network).last_heard {
            Some(heard) if view.ticked && route.rx && undisturbed => {
                if view.now.since(heard) < detection {
                    return Ok(());
                }
                Err(format!(
                    "rule 9: node {node} to {peer} over network {network}: nothing heard since \
                     {heard}, still rx"
                ))
            }
            _ => Ok(()),
        }
    }
}

impl InvariantChecker {
    /// Rule 15: data is doubled only while a route is suspect.
    fn check_suspect_duration(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        route: &RouteStatus,
        view: &ClusterView<'_>,
    ) -> CheckResult {
        let most = self.bounds.detection_time_of(network);
        let suspect = &mut self.observation_mut(node, peer, network).suspect_since;
        if !route.suspect {
            *suspect = None;
            return Ok(());
        }
        let since = *suspect.get_or_insert(view.now);
        if !view.ticked || view.now.since(since) < most {
            return Ok(());
        }
        Err(format!("rule 15: node {node} to {peer} over network {network}: suspect since {since}"))
    }
}

/// Rule 12.
pub(crate) fn check_new_session(node: usize, peer: usize, routes: &[RouteStatus]) -> CheckResult {
    let mut to_peer = routes.iter().filter(|route| route.spec.peer == peer_id(peer));
    match to_peer.find(|route| route.rx || route.tx || route.active) {
        Some(RouteStatus { id, .. }) => Err(format!(
            "rule 12: node {node} to {peer}: route {id} is proven before the session is"
        )),
        None => Ok(()),
    }
}

/// A node's routes to one peer, by network; none while the node is dead.
pub(crate) fn routes_to_peer(nodes: &[SimNode], node: usize, peer: usize) -> &[RouteStatus] {
    let all = &nodes[node].routes;
    // Routes are listed by number: peer by peer, network by network, without the node itself.
    let networks = all.len() / (nodes.len() - 1);
    let first = (peer - usize::from(peer > node)) * networks;
    all.get(first..first + networks).unwrap_or_default()
}

//! The invariants about a node's state, checked after every step the node takes.
//!
//! | rule | invariant |
//! |---|---|
//! | 1 | data goes where the engine says it may, and the table says what the engine says |
//! | 2 | while a network is good, data uses a direction that works, or that died within the bound |
//! | 3 | the engine always has a next wake, never in the past after a tick |
//! | 4 | no route is down, or warned of, before its silence was long enough |
//! | 5 | after every repair, every route comes up and data returns to the best |
//! | 6 | a heartbeat goes out within 190 % of the delay, requests at least 75 % apart but for news |
//! | 7 | the two ends agree whether a route over a good network is up |
//! | 8 | a route over a dead direction does not stay up |
//! | 9 | silence ends rx at the detection time, not later |
//! | 10 | a node reports a stall once, and only after one |
//! | 11 | a request is answered at once, on its route |
//! | 12 | a new session begins with nothing proven |
//! | 13 | no packet is delivered twice |
//! | 14 | nothing in flight is lost while a network is good (in full: `delivery.rs`) |
//! | 15 | retransmissions use another route that is up; suspicion ends at the detection time |
//! | 16 | data leaves a drained network while one that is not drained is good |
//! | 17 | bulk data leaves a network that loses 3 % of it or more while another one is good |
//! | 18 | data does not alternate: it leaves a route for its loss once in five seconds |
//! | 19 | no route on which segmented sends vanish keeps carrying them (`data.rs`) |

use crate::{
    route::{RouteState, RouteStatus},
    sim::{
        check::{CheckResult, InvariantChecker},
        node::SimNode,
        scenario::peer_id,
    },
    time::Time,
};

/// A node after its step, among the others.
pub(crate) struct NodeView<'a> {
    pub(crate) now: Time,
    pub(crate) node: usize,
    pub(crate) nodes: &'a [SimNode],
    /// The node's timers have just fired.
    pub(crate) ticked: bool,
}

impl InvariantChecker {
    /// Every rule about the state of a node that runs.
    pub(crate) fn check_node(&mut self, view: &NodeView<'_>) -> CheckResult {
        let node = view.node;
        for peer in (0..view.nodes.len()).filter(|peer| *peer != node) {
            self.check_active_route(node, peer, view)?;
            self.check_forwarding(node, peer, view)?;
            self.check_drain(node, peer, view)?;
            self.check_data_loss(node, peer, view)?;
            for (network, route) in routes_to_peer(view.nodes, node, peer).iter().enumerate() {
                let place = (node, peer, network);
                if route.heartbeats.last_heard.is_none() {
                    // A peer that was never heard there is asked less and less often.
                    self.observation_mut(node, peer, network).reset_cadence();
                }
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
    fn check_active_route(&mut self, node: usize, peer: usize, view: &NodeView<'_>) -> CheckResult {
        let violation = |text: &str| Err(format!("rule 1: node {node} to {peer}: {text}"));
        let this = &view.nodes[node];
        let active = this.peers.iter().find(|p| p.peer == peer_id(peer)).and_then(|p| p.active);
        let row = this.rows.get(&peer_id(peer));
        if row.and_then(|row| row.active) != active {
            return violation("the table has another active route than the engine");
        }
        let routes = routes_to_peer(view.nodes, node, peer);
        let up = routes.iter().any(|route| route.state == RouteState::Up);
        // A route whose outgoing direction works carries data even if it is not up.
        let carries_data = |network: usize, checker: &mut Self| {
            let in_use = routes[network].tx && routes[network].state != RouteState::AdminDown;
            in_use && !checker.observation_mut(node, peer, network).faulted
        };
        let some_route_works = (0..routes.len()).any(|network| carries_data(network, self));
        let Some(active) = active else {
            if up || some_route_works {
                return violation("a route works and none is active");
            }
            return Ok(());
        };
        let Some(network) = routes.iter().position(|route| route.id == active) else {
            return violation("the active route leads to another peer");
        };
        let route = &routes[network];
        if self.observation_mut(node, peer, network).faulted {
            violation(&format!("active on network {network}, which has a local fault"))
        } else if route.state != RouteState::Up && (up || !route.tx) {
            let RouteStatus { state, tx, .. } = route;
            violation(&format!("active on network {network}: {state}, tx {tx}, another up: {up}"))
        } else if route.state == RouteState::AdminDown {
            violation(&format!("active on network {network}, which is admin-down"))
        } else {
            Ok(())
        }
    }

    /// Rule 2.
    fn check_forwarding(&mut self, node: usize, peer: usize, view: &NodeView<'_>) -> CheckResult {
        let routes = routes_to_peer(view.nodes, node, peer);
        let proven = |network: usize| {
            let since = self.truth.clean_since(network, node, peer)?;
            (view.now.since(since) > self.bounds.max_proof_time()).then_some((network, since))
        };
        let Some((good, since)) = (0..routes.len()).find_map(proven) else { return Ok(()) };
        let violation = |text: String| {
            Err(format!("rule 2: node {node} to {peer}: network {good} good since {since}, {text}"))
        };
        let Some(network) = routes.iter().position(|route| route.active) else {
            return violation("no route active".to_owned());
        };
        match self.truth.blocked_since(network, node, peer) {
            Some(died) if view.now.since(died) > self.bounds.max_failover_time(network) => {
                violation(format!("active on network {network}, dead since {died}"))
            }
            _ => Ok(()),
        }
    }

    /// Rule 16.
    fn check_drain(&mut self, node: usize, peer: usize, view: &NodeView<'_>) -> CheckResult {
        let routes = routes_to_peer(view.nodes, node, peer);
        let Some(network) = routes.iter().position(|route| route.active) else { return Ok(()) };
        let Some(drained) = self.truth.drained_since(network, node, peer) else { return Ok(()) };
        // The peer learns of the drain with the next heartbeat on any network.
        let propagation = self.bounds.max_delay + self.bounds.max_travel + self.bounds.slack;
        let good = |network: usize| {
            let since = self.truth.clean_since(network, node, peer)?;
            let undrained = self.truth.undrained_since(network, node, peer)?;
            let known = (since + self.bounds.max_proof_time()).max(undrained).max(drained);
            (view.now > known + propagation).then_some((network, since))
        };
        match (0..routes.len()).find_map(good) {
            Some((good, since)) => Err(format!(
                "rule 16: node {node} to {peer}: active on network {network}, drained since \
                 {drained}, while network {good} is good since {since}"
            )),
            None => Ok(()),
        }
    }

    /// Rule 17. A network that was left, or failed, has to prove itself first.
    fn check_data_loss(&mut self, node: usize, peer: usize, view: &NodeView<'_>) -> CheckResult {
        let Some(most) = self.bounds.max_data_loss_time else { return Ok(()) };
        let routes = routes_to_peer(view.nodes, node, peer);
        let active = routes.iter().position(|route| route.active);
        let Some(network) = active else { return Ok(()) };
        let others = (0..routes.len()).filter(|other| *other != network);
        others.clone().for_each(|n| self.observation_mut(node, peer, n).active_since = None);
        let observation = self.observation_mut(node, peer, network);
        let used = *observation.active_since.get_or_insert(view.now);
        let Some(lossy) = self.truth.lossy_since(network, node, peer) else { return Ok(()) };
        for other in others {
            let route = &routes[other];
            if route.brown_out || !route.hold_down.left.is_zero() || route.suspect {
                continue;
            }
            let Some(good) = self.truth.clean_since(other, node, peer) else { continue };
            let known = lossy.max(used).max(good + self.bounds.max_proof_time());
            if view.now.since(known) > most {
                return Err(format!(
                    "rule 17: node {node} to {peer}: active on network {network}, which loses data \
                     since {lossy}, while network {other} is good since {good}"
                ));
            }
        }
        Ok(())
    }

    /// Rule 6, for heartbeats that are not sent at all.
    fn check_cadence(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        view: &NodeView<'_>,
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
        view: &NodeView<'_>,
    ) -> CheckResult {
        let there = routes_to_peer(view.nodes, peer, node).get(network).map(|route| route.state);
        let up = |state| state == RouteState::Up;
        let differs = there.is_some_and(|there| up(there) != up(route.state));
        let most = self.bounds.max_disagreement(network);
        let disagree =
            &mut self.observation_mut(node.min(peer), node.max(peer), network).disagree_since;
        if !differs {
            *disagree = None;
            return Ok(());
        }
        let since = *disagree.get_or_insert(view.now);
        let Some(clean) = self.truth.clean_since(network, node, peer) else { return Ok(()) };
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
        view: &NodeView<'_>,
    ) -> CheckResult {
        if route.state != RouteState::Up {
            return Ok(());
        }
        let here = self.truth.last_disturbed(node);
        let both = here.max(self.truth.last_disturbed(peer));
        let detection = self.bounds.detection_time_of(network);
        let receives_nothing = self.truth.blocked_since(network, peer, node).map(|at| at.max(here));
        let sends_nothing = self.truth.blocked_since(network, node, peer).map(|at| at.max(both));
        let late = |since: Option<Time>, most| since.is_some_and(|at| view.now.since(at) > most);
        if late(receives_nothing, detection + self.bounds.max_travel + self.bounds.slack)
            || late(sends_nothing, self.bounds.max_dead_route_up_time(network))
        {
            return Err(format!(
                "rule 8: node {node} to {peer} over network {network}: up, although the direction \
                 out is dead since {sends_nothing:?}, the direction in since {receives_nothing:?}"
            ));
        }
        Ok(())
    }

    /// Rule 9.
    fn check_detection(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        route: &RouteStatus,
        view: &NodeView<'_>,
    ) -> CheckResult {
        let detection = self.bounds.detection_time_of(network);
        // A node that was stalled extends every deadline by one detection time.
        let undisturbed = view.now.since(self.truth.last_disturbed(node)) > detection * 2;
        match self.observation_mut(node, peer, network).last_heard {
            Some(heard) if view.ticked && route.rx && undisturbed => {
                if view.now.since(heard) < detection {
                    return Ok(());
                }
                Err(format!(
                    "rule 9: node {node} to {peer} over network {network}: no heartbeat since \
                     {heard}, still rx"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Rule 15: data is duplicated only while a route is suspect.
    fn check_suspect_duration(
        &mut self,
        (node, peer, network): (usize, usize, usize),
        route: &RouteStatus,
        view: &NodeView<'_>,
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
        Some(RouteStatus { id, .. }) => {
            Err(format!("rule 12: node {node} to {peer}: route {id} is proven before its session"))
        }
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

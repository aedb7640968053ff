//! `netft validate`: finds faults of a node before they cause an outage, as NetFT's cluster
//! validation does.
//!
//! Every node checks itself ([`run_checks`]); netftd queries its peers for their findings, and some
//! checks compare two nodes (`nodes`). [`facts`] reads the kernel, the firewall and the daemon; the
//! checks are pure ([`checks`], [`links`], [`firewall`]) and work on the gathered [`NodeFacts`].

mod addresses;
mod bounded;
pub mod checks;
pub mod facts;
pub mod firewall;
pub mod links;
mod nodes;
mod overlay;
mod overrides;
mod sessions;

use std::net::IpAddr;

pub use bounded::run_within;
pub use facts::{DaemonFacts, NodeFacts};
use netft::{
    api::host::StackedLink,
    route::{Attributes, Delay, Priority, RouteSpec, Threshold, Timing, Transport},
    topology,
    topology::{Advertisements, KernelWays, PlanInputs, PlannedRoute, RouteActivities, RoutePlan},
};

use crate::control::schema::{Finding, RouteView, Severity};

/// Findings of every check, most severe first.
pub fn run_checks(facts: &NodeFacts) -> Vec<Finding> {
    let plan = facts.plan_routes();
    let mut findings: Vec<_> =
        checks::ALL_CHECKS.iter().flat_map(|check| check(facts, &plan)).collect();
    tracing::debug!(findings = findings.len(), routes = plan.routes.len(), "checks run");
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Exit code: 0 no findings or notes, 1 warnings, 2 errors.
pub fn exit_code<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> u8 {
    match findings.into_iter().map(|finding| finding.severity).max() {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Error) => 2,
    }
}

impl NodeFacts {
    /// Routes of the configuration on the present interfaces, and those of the daemon to
    /// addresses that peers advertised.
    pub fn plan_routes(&self) -> RoutePlan {
        let interfaces: Vec<_> = self.links.iter().map(|link| link.interface.clone()).collect();
        let (ways, activities) = (KernelWays::new(), RouteActivities::new());
        let advertisements = Advertisements::new();
        let inputs = PlanInputs {
            interfaces: &interfaces,
            sources: &self.sources,
            ways: &ways,
            activities: &activities,
            advertisements: &advertisements,
            resolved: &topology::link_local_addresses(&self.config, &interfaces),
        };
        let mut plan = topology::plan_routes(&self.config, &inputs, &[]);
        let learned = self.daemon.iter().flat_map(|daemon| &daemon.routes);
        for route in learned.filter_map(|route| self.planned_route(route)) {
            if plan.routes.iter().all(|known| known.route_key() != route.route_key()) {
                plan.routes.push(route);
            }
        }
        plan
    }

    fn planned_route(&self, route: &RouteView) -> Option<PlannedRoute> {
        // A relayed one is no route of this node's interfaces.
        if route.via.is_some() {
            return None;
        }
        let peer = self.config.peers.iter().find(|peer| peer.name == route.peer)?;
        let owns = |addr: IpAddr| move |link: &&StackedLink| link.interface.owns_address(addr);
        let owner = self.links.iter().find(owns(route.real_local.ip()))?;
        let spec = RouteSpec {
            peer: peer.id,
            real_local: route.real_local,
            real_remote: route.real_remote,
            virtual_local: route.virtual_local,
            virtual_remote: route.virtual_remote,
            timing: Timing {
                delay: Delay::from_millis(route.delay_ms.into()).ok()?,
                threshold: Threshold::new(route.threshold.into()).ok()?,
            },
            priority: Priority(route.priority),
            attributes: Attributes(route.attributes),
            transport: Transport::Udp,
        };
        let (ifindex, ifname) = (owner.interface.index, owner.interface.name.clone());
        Some(PlannedRoute { spec, ifindex, ifname })
    }

    /// The interface of this number.
    pub fn link_by_index(&self, index: u32) -> Option<&StackedLink> {
        self.links.iter().find(|link| link.interface.index == index)
    }
}

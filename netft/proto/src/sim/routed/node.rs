//! One node of a routed world: engine, plan, adopted pairs, as its driver holds them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use crate::{
    config::Config,
    engine::{Engine, EngineInput},
    ids::{PeerId, RouteId},
    route::{RouteState, RouteStatus, path_validation::PathValidator},
    sim::routed::{RoutedBug, world::Host},
    time::Time,
    topology::{
        self, Advertisements, Interface, KernelWays, PlanInputs, PlannedRoute, ResolvedAddresses,
        RouteActivities, RouteActivity, RouteDiff, SourceAddresses,
    },
    wire::interfaces::{AdvertisedEndpoint, Advertisement},
};

/// The only peer of a node.
pub(crate) const PEER: PeerId = PeerId(0);

/// The identity of a route.
pub(crate) type RouteEnds = (SocketAddr, SocketAddr);

/// One node.
pub(crate) struct RoutedNode {
    pub(crate) config: Config,
    pub(crate) engine: Engine,
    pub(crate) validator: PathValidator,
    pub(crate) routes: BTreeMap<RouteId, PlannedRoute>,
    last_id: u32,
    interfaces: Vec<Interface>,
    sources: SourceAddresses,
    ways: KernelWays,
    far: Advertisements,
    /// The list last sent to the peer.
    pub(crate) advertisement: Advertisement,
    /// When pairs are tried next.
    pub(crate) trials_due: Option<Time>,
    bug: Option<RoutedBug>,
}

impl RoutedNode {
    pub(crate) fn new(config: Config, engine: Engine, bug: Option<RoutedBug>) -> Self {
        Self {
            config,
            engine,
            validator: PathValidator::default(),
            routes: BTreeMap::new(),
            last_id: 0,
            interfaces: Vec::new(),
            sources: SourceAddresses::new(),
            ways: KernelWays::new(),
            far: Advertisements::new(),
            advertisement: Advertisement::default(),
            trials_due: None,
            bug,
        }
    }

    /// Reads the kernel's state. Returns whether it changed.
    pub(crate) fn read_kernel(&mut self, host: &Host) -> bool {
        let resolved = ResolvedAddresses::new();
        let interfaces = host.interfaces();
        let remotes = topology::off_subnet_remotes(&self.config, &interfaces, &resolved);
        let sources = host.sources(remotes);
        let pairs = topology::cross_subnet_pairs(&self.config, &interfaces, &self.far, &resolved);
        let ways = host.ways(&pairs);
        let before = (&self.interfaces, &self.sources, &self.ways);
        let is_changed = before != (&interfaces, &sources, &ways);
        (self.interfaces, self.sources, self.ways) = (interfaces, sources, ways);
        is_changed
    }

    /// The interface list for the peer, if it changed.
    pub(crate) fn next_advertisement(&mut self) -> Option<Advertisement> {
        let running: Vec<_> = self.routes.values().cloned().collect();
        let (config, interfaces) = (&self.config, &self.interfaces);
        let mut next = topology::build_advertisement(config, interfaces, &running, &self.ways);
        next.serial = self.advertisement.serial;
        if next == self.advertisement {
            return None;
        }
        next.serial += 1;
        self.advertisement = next.clone();
        Some(next)
    }

    pub(crate) fn set_far(&mut self, list: Advertisement) {
        self.far.insert(PEER, list);
    }

    fn activities(&self, now: Time) -> RouteActivities {
        let session = self.engine.peer_statuses().iter().any(|peer| peer.session);
        let keyed = self.engine.route_statuses().into_iter().filter_map(|status| {
            let activity = RouteActivity::of_route(&status, session, now);
            Some((self.routes.get(&status.id)?.route_key(), activity))
        });
        keyed.collect()
    }

    fn inputs<'a>(
        &'a self,
        activities: &'a RouteActivities,
        resolved: &'a ResolvedAddresses,
    ) -> PlanInputs<'a> {
        PlanInputs {
            interfaces: &self.interfaces,
            sources: &self.sources,
            ways: &self.ways,
            activities,
            advertisements: &self.far,
            resolved,
        }
    }

    /// The difference between what runs and what is planned.
    pub(crate) fn plan(&self, now: Time) -> RouteDiff {
        let running: Vec<_> = self.routes.values().cloned().collect();
        let (mut activities, resolved) = (self.activities(now), ResolvedAddresses::new());
        if self.bug == Some(RoutedBug::OrderRemoves) {
            for activity in activities.values_mut() {
                if matches!(activity, RouteActivity::Up | RouteActivity::Heard) {
                    *activity = RouteActivity::Fresh;
                }
            }
        }
        let inputs = self.inputs(&activities, &resolved);
        let mut planned = topology::plan_routes(&self.config, &inputs, &running).routes;
        if self.bug == Some(RoutedBug::RankDecides) {
            let pairs = self.pairs_by_rank();
            planned.retain(|route| {
                pairs.contains(&(route.spec.real_local.ip(), route.spec.real_remote.ip()))
            });
        }
        topology::diff_routes(&running, &planned)
    }

    /// The first with the first by metric and address, whatever leads where.
    fn pairs_by_rank(&self) -> Vec<(IpAddr, IpAddr)> {
        let ranked = |list: &Advertisement, v6: bool| {
            let of_family = list.endpoints.iter().filter(|it| it.addr.is_ipv6() == v6);
            let mut ends: Vec<AdvertisedEndpoint> = of_family.copied().collect();
            ends.sort_by_key(|end| (end.metric, end.addr));
            ends
        };
        let Some(far) = self.far.get(&PEER) else { return Vec::new() };
        let pairs = [false, true].into_iter().flat_map(|v6| {
            let (own, far) = (ranked(&self.advertisement, v6), ranked(far, v6));
            let count = if own.is_empty() || far.is_empty() { 0 } else { own.len().max(far.len()) };
            let pair = move |n: usize| (own[n % own.len()].addr, far[n % far.len()].addr);
            (0..count).map(pair)
        });
        pairs.collect()
    }

    /// The route to where the peer was heard without one.
    pub(crate) fn plan_adopted(&self, (local, remote): RouteEnds) -> Option<PlannedRoute> {
        let is_full = self.routes.len() >= topology::MAX_ROUTES_PER_PEER;
        if is_full || self.bug == Some(RoutedBug::NoLearning) {
            return None;
        }
        let (activities, resolved) = (RouteActivities::new(), ResolvedAddresses::new());
        let inputs = self.inputs(&activities, &resolved);
        topology::plan_adopted_route(&self.config, &inputs, (PEER, local, remote))
    }

    pub(crate) fn add_route(&mut self, plan: PlannedRoute) -> (RouteId, EngineInput) {
        self.last_id += 1;
        let id = RouteId(self.last_id);
        let spec = plan.spec.clone();
        self.routes.insert(id, plan);
        (id, EngineInput::AddRoute { id, spec })
    }

    /// The route with these ends.
    pub(crate) fn route_between(&self, ends: RouteEnds) -> Option<RouteId> {
        let is_between =
            |plan: &PlannedRoute| (plan.spec.real_local, plan.spec.real_remote) == ends;
        self.routes.iter().find(|(_, plan)| is_between(plan)).map(|(id, _)| *id)
    }

    /// Notes when the activity of a route changes by itself, at the latest at `soon`.
    pub(crate) fn schedule_trials(&mut self, now: Time, soon: Option<Time>) {
        let statuses = self.engine.route_statuses();
        let next = statuses.iter().filter_map(|status| RouteActivity::next_change(status, now));
        self.trials_due = next.chain(soon).min();
    }

    /// The routes, a line each.
    pub(crate) fn to_text(&self) -> String {
        let line = |status: RouteStatus| {
            let (spec, beats) = (&status.spec, &status.heartbeats);
            let (local, remote) = (spec.real_local.ip(), spec.real_remote.ip());
            let (state, tried) = (status.state, beats.tried_since);
            format!("{} {local} {remote} {state} tried {tried:?} {}\n", status.id, beats.sent)
        };
        let lines = self.engine.route_statuses().into_iter().map(line);
        format!("node, peer at {:?}\n{}", self.config.peers[0].addresses, lines.collect::<String>())
    }

    /// The routes that are up.
    pub(crate) fn up_routes(&self) -> Vec<RouteStatus> {
        let statuses = self.engine.route_statuses().into_iter();
        statuses.filter(|status| status.state == RouteState::Up).collect()
    }
}

//! Overrides: an operator's changes while the node runs. They outlive the routes they are about,
//! the sessions and the process. Pure.
//!
//! A route is named by its ends, because its number belongs to one run. An override that names no
//! present route waits for one. At most [`MAX_OVERRIDES`] routes and interfaces have overrides; a
//! further one is refused.

mod limit;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use crate::overrides::limit::{MAX_LIMIT, MIN_LIMIT, TimeLimit};
use crate::{
    route::{PeerPolicies, Priority, RouteChange, Timing},
    time::Time,
};

/// Largest number of routes and interfaces with overrides.
pub const MAX_OVERRIDES: usize = 1024;

/// The ends of a route, which outlive its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct NamedRoute {
    /// The peer's name.
    pub peer: String,
    /// The physical address here.
    pub local: SocketAddr,
    /// The physical address there, as planned.
    pub remote: SocketAddr,
}

/// The override for one route that is drained, or is not while its interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum RouteDrain {
    /// Drained, until the limit if there is one.
    Drained(Option<TimeLimit>),
    /// In use, although its interface is drained.
    InUse,
}

/// The overrides for one route.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RouteRuntimeOverride {
    /// The route.
    pub ends: NamedRoute,
    /// Its drain, if that is not its interface's.
    pub drain: Option<RouteDrain>,
    /// It is out of use.
    pub admin_down: bool,
    /// Its priority.
    pub priority: Option<Priority>,
    /// Its delay and threshold.
    pub timing: Option<Timing>,
}

/// The drain of every route over an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct InterfaceOverride {
    /// The interface.
    pub name: String,
    /// When it ends by itself.
    pub limit: Option<TimeLimit>,
}

/// The policies of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PolicyOverride {
    /// The peer's name.
    pub peer: String,
    /// Its policies.
    pub policies: PeerPolicies,
    /// Those of the config at that time: once it says something else, the override is over.
    pub configured: PeerPolicies,
}

/// No further route or interface can have an override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyOverrides;

/// The overrides in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OperatorOverrides {
    /// The routes with overrides of their own, each once.
    pub routes: Vec<RouteRuntimeOverride>,
    /// The drained interfaces, each once.
    pub interfaces: Vec<InterfaceOverride>,
    /// The peers whose policies were changed, each once.
    pub peers: Vec<PolicyOverride>,
}

impl RouteRuntimeOverride {
    /// No override, for a route.
    pub fn new(ends: NamedRoute) -> Self {
        Self { ends, drain: None, admin_down: false, priority: None, timing: None }
    }

    fn is_empty(&self) -> bool {
        self.drain.is_none() && !self.admin_down && self.priority.is_none() && self.timing.is_none()
    }
}

impl OperatorOverrides {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.interfaces.is_empty() && self.peers.is_empty()
    }

    /// The overrides for one route.
    pub fn for_route(&self, ends: &NamedRoute) -> Option<&RouteRuntimeOverride> {
        self.routes.iter().find(|one| one.ends == *ends)
    }

    /// The drain of an interface.
    pub fn for_interface(&self, name: &str) -> Option<&InterfaceOverride> {
        self.interfaces.iter().find(|one| one.name == name)
    }

    /// Returns whether a route over `interface` is to be drained.
    pub fn is_drained(&self, ends: &NamedRoute, interface: &str) -> bool {
        match self.for_route(ends).and_then(|one| one.drain) {
            Some(RouteDrain::Drained(_)) => true,
            Some(RouteDrain::InUse) => false,
            None => self.for_interface(interface).is_some(),
        }
    }

    /// Returns the overrides for a route over `interface` that was just added.
    pub fn initial_change(&self, ends: &NamedRoute, interface: &str) -> RouteChange {
        let one = self.for_route(ends);
        RouteChange {
            timing: one.and_then(|one| one.timing),
            priority: one.and_then(|one| one.priority),
            admin_down: one.is_some_and(|one| one.admin_down).then_some(true),
            drain: self.is_drained(ends, interface).then_some(true),
        }
    }

    /// Takes in an operator's change of a route, but for its drain: see
    /// [`drain_route`](Self::drain_route).
    ///
    /// # Errors
    /// There are too many overrides; nothing changed.
    pub fn change_route(
        &mut self,
        ends: &NamedRoute,
        change: &RouteChange,
    ) -> Result<(), TooManyOverrides> {
        self.edit_route(ends, |one| {
            one.timing = change.timing.or(one.timing);
            one.priority = change.priority.or(one.priority);
            one.admin_down = change.admin_down.unwrap_or(one.admin_down);
        })
    }

    /// Drains a route.
    ///
    /// # Errors
    /// There are too many overrides; nothing changed.
    pub fn drain_route(
        &mut self,
        ends: &NamedRoute,
        limit: Option<TimeLimit>,
    ) -> Result<(), TooManyOverrides> {
        self.edit_route(ends, |one| {
            let known = match one.drain {
                Some(RouteDrain::Drained(known)) => known,
                _ => None,
            };
            one.drain = Some(RouteDrain::Drained(TimeLimit::replace(known, limit)));
        })
    }

    /// Ends the drain of a route, also while its interface is drained.
    ///
    /// # Errors
    /// There are too many overrides; nothing changed.
    pub fn use_route(
        &mut self,
        ends: &NamedRoute,
        interface: &str,
    ) -> Result<(), TooManyOverrides> {
        let is_exception = self.for_interface(interface).is_some();
        self.edit_route(ends, |one| one.drain = is_exception.then_some(RouteDrain::InUse))
    }

    /// Drains every route over an interface, those to come too.
    ///
    /// # Errors
    /// There are too many overrides; nothing changed.
    pub fn drain_interface(
        &mut self,
        name: &str,
        limit: Option<TimeLimit>,
        over: &[NamedRoute],
    ) -> Result<(), TooManyOverrides> {
        match self.interfaces.iter_mut().find(|one| one.name == name) {
            Some(one) => one.limit = TimeLimit::replace(one.limit, limit),
            None => {
                self.check_room()?;
                self.interfaces.push(InterfaceOverride { name: name.to_owned(), limit });
            }
        }
        // An exception was made for a former override.
        for one in self.routes.iter_mut().filter(|one| over.contains(&one.ends)) {
            if one.drain == Some(RouteDrain::InUse) {
                one.drain = None;
            }
        }
        self.drop_empty();
        Ok(())
    }

    /// Ends the drain of an interface, and that of every route over it.
    pub fn use_interface(&mut self, name: &str, over: &[NamedRoute]) {
        self.interfaces.retain(|one| one.name != name);
        for one in self.routes.iter_mut().filter(|one| over.contains(&one.ends)) {
            one.drain = None;
        }
        self.drop_empty();
    }

    /// Drops the overrides about values that the config describes otherwise.
    pub fn forget_values(&mut self, ends: &NamedRoute, timing: bool, priority: bool) {
        for one in self.routes.iter_mut().filter(|one| one.ends == *ends) {
            one.timing = one.timing.filter(|_| !timing);
            one.priority = one.priority.filter(|_| !priority);
        }
        self.drop_empty();
    }

    /// Replaces the policies of a peer. Those of the config are no override.
    pub fn set_policies(&mut self, policies: PolicyOverride) {
        self.peers.retain(|known| known.peer != policies.peer);
        if policies.policies != policies.configured {
            self.peers.push(policies);
        }
    }

    /// Keeps the policies of those peers alone for which `is_in_force` returns true.
    pub fn retain_policies(&mut self, is_in_force: impl FnMut(&PolicyOverride) -> bool) {
        self.peers.retain(is_in_force);
    }

    /// When the next drain ends by itself.
    pub fn next_end(&self) -> Option<Time> {
        self.limits().map(|limit| limit.ends_at).min()
    }

    /// Ends the drains that are due. Returns whether there were any.
    pub fn end_due(&mut self, now: Time) -> bool {
        if self.next_end().is_none_or(|end| end > now) {
            return false;
        }
        let is_due = |limit: Option<TimeLimit>| limit.is_some_and(|limit| limit.ends_at <= now);
        self.interfaces.retain(|one| !is_due(one.limit));
        for one in &mut self.routes {
            if matches!(one.drain, Some(RouteDrain::Drained(limit)) if is_due(limit)) {
                one.drain = None;
            }
        }
        self.drop_empty();
        true
    }

    /// Moves the limits, which count from [`Time::ZERO`], to count from `now`.
    pub fn start_at(&mut self, now: Time) {
        for limit in self.limits_mut() {
            *limit = limit.start_at(now);
        }
    }

    fn limits(&self) -> impl Iterator<Item = TimeLimit> {
        let routes = self.routes.iter().filter_map(|one| match one.drain {
            Some(RouteDrain::Drained(limit)) => limit,
            _ => None,
        });
        self.interfaces.iter().filter_map(|one| one.limit).chain(routes)
    }

    fn limits_mut(&mut self) -> impl Iterator<Item = &mut TimeLimit> {
        let routes = self.routes.iter_mut().filter_map(|one| match &mut one.drain {
            Some(RouteDrain::Drained(limit)) => limit.as_mut(),
            _ => None,
        });
        self.interfaces.iter_mut().filter_map(|one| one.limit.as_mut()).chain(routes)
    }

    fn edit_route(
        &mut self,
        ends: &NamedRoute,
        edit: impl FnOnce(&mut RouteRuntimeOverride),
    ) -> Result<(), TooManyOverrides> {
        if let Some(one) = self.routes.iter_mut().find(|one| one.ends == *ends) {
            edit(one);
        } else {
            let mut one = RouteRuntimeOverride::new(ends.clone());
            edit(&mut one);
            if !one.is_empty() {
                self.check_room()?;
                self.routes.push(one);
            }
        }
        self.drop_empty();
        Ok(())
    }

    fn check_room(&self) -> Result<(), TooManyOverrides> {
        let count = self.routes.len() + self.interfaces.len();
        if count < MAX_OVERRIDES { Ok(()) } else { Err(TooManyOverrides) }
    }

    /// Drops overrides that say nothing, such as an exception from a drain that is over.
    pub fn drop_empty(&mut self) {
        if self.interfaces.is_empty() {
            for one in &mut self.routes {
                one.drain = one.drain.filter(|drain| *drain != RouteDrain::InUse);
            }
        }
        self.routes.retain(|one| !one.is_empty());
    }
}

//! Standing orders: what an operator decided while the node runs. They outlive the routes they are
//! about, the sessions and the process. Pure.
//!
//! A route is named by its ends, because its number belongs to one run. An order that names no
//! present route waits for one. At most [`MAX_ORDERS`] routes and interfaces have orders; a further
//! one is refused.

mod limit;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use crate::orders::limit::{MAX_LIMIT, MIN_LIMIT, TimeLimit};
use crate::{
    route::{PeerPolicies, Priority, RouteChange, Timing},
    time::Time,
};

/// Largest number of routes and interfaces with orders.
pub const MAX_ORDERS: usize = 1024;

/// The ends of a route, which outlive its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OrderedRoute {
    /// The peer's name.
    pub peer: String,
    /// The physical address here.
    pub local: SocketAddr,
    /// The physical address there, as planned.
    pub remote: SocketAddr,
}

/// The order for one route that is drained, or is not while its interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum RouteDrain {
    /// Drained, until the limit if there is one.
    Drained(Option<TimeLimit>),
    /// In use, although its interface is drained.
    InUse,
}

/// The orders for one route.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct RouteOrder {
    /// The route.
    pub ends: OrderedRoute,
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
pub struct InterfaceOrder {
    /// The interface.
    pub name: String,
    /// When it ends by itself.
    pub limit: Option<TimeLimit>,
}

/// The policies of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PolicyOrder {
    /// The peer's name.
    pub peer: String,
    /// Its policies.
    pub policies: PeerPolicies,
    /// Those of the config when they were ordered: once it says something else, the order is over.
    pub configured: PeerPolicies,
}

/// No further route or interface can have an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyOrders;

/// The orders in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StandingOrders {
    /// The routes with orders of their own, each once.
    pub routes: Vec<RouteOrder>,
    /// The drained interfaces, each once.
    pub interfaces: Vec<InterfaceOrder>,
    /// The peers whose policies were changed, each once.
    pub peers: Vec<PolicyOrder>,
}

impl RouteOrder {
    /// No order, for a route.
    pub fn new(ends: OrderedRoute) -> Self {
        Self { ends, drain: None, admin_down: false, priority: None, timing: None }
    }

    fn is_empty(&self) -> bool {
        self.drain.is_none() && !self.admin_down && self.priority.is_none() && self.timing.is_none()
    }
}

impl StandingOrders {
    /// Returns whether nothing is ordered.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.interfaces.is_empty() && self.peers.is_empty()
    }

    /// The orders for one route.
    pub fn for_route(&self, ends: &OrderedRoute) -> Option<&RouteOrder> {
        self.routes.iter().find(|order| order.ends == *ends)
    }

    /// The drain of an interface.
    pub fn for_interface(&self, name: &str) -> Option<&InterfaceOrder> {
        self.interfaces.iter().find(|order| order.name == name)
    }

    /// Returns whether a route over `interface` is to be drained.
    pub fn is_drained(&self, ends: &OrderedRoute, interface: &str) -> bool {
        match self.for_route(ends).and_then(|order| order.drain) {
            Some(RouteDrain::Drained(_)) => true,
            Some(RouteDrain::InUse) => false,
            None => self.for_interface(interface).is_some(),
        }
    }

    /// Returns the orders for a route over `interface` that was just added.
    pub fn initial_change(&self, ends: &OrderedRoute, interface: &str) -> RouteChange {
        let order = self.for_route(ends);
        RouteChange {
            timing: order.and_then(|order| order.timing),
            priority: order.and_then(|order| order.priority),
            admin_down: order.is_some_and(|order| order.admin_down).then_some(true),
            drain: self.is_drained(ends, interface).then_some(true),
        }
    }

    /// Takes in an operator's change of a route; its drain is ordered by
    /// [`drain_route`](Self::drain_route).
    ///
    /// # Errors
    /// There are too many orders; nothing changed.
    pub fn change_route(
        &mut self,
        ends: &OrderedRoute,
        change: &RouteChange,
    ) -> Result<(), TooManyOrders> {
        self.edit_route(ends, |order| {
            order.timing = change.timing.or(order.timing);
            order.priority = change.priority.or(order.priority);
            order.admin_down = change.admin_down.unwrap_or(order.admin_down);
        })
    }

    /// Drains a route.
    ///
    /// # Errors
    /// There are too many orders; nothing changed.
    pub fn drain_route(
        &mut self,
        ends: &OrderedRoute,
        limit: Option<TimeLimit>,
    ) -> Result<(), TooManyOrders> {
        self.edit_route(ends, |order| {
            let known = match order.drain {
                Some(RouteDrain::Drained(known)) => known,
                _ => None,
            };
            order.drain = Some(RouteDrain::Drained(TimeLimit::replace(known, limit)));
        })
    }

    /// Ends the drain of a route, also while its interface is drained.
    ///
    /// # Errors
    /// There are too many orders; nothing changed.
    pub fn use_route(&mut self, ends: &OrderedRoute, interface: &str) -> Result<(), TooManyOrders> {
        let is_exception = self.for_interface(interface).is_some();
        self.edit_route(ends, |order| order.drain = is_exception.then_some(RouteDrain::InUse))
    }

    /// Drains every route over an interface, those to come too.
    ///
    /// # Errors
    /// There are too many orders; nothing changed.
    pub fn drain_interface(
        &mut self,
        name: &str,
        limit: Option<TimeLimit>,
        over: &[OrderedRoute],
    ) -> Result<(), TooManyOrders> {
        match self.interfaces.iter_mut().find(|order| order.name == name) {
            Some(order) => order.limit = TimeLimit::replace(order.limit, limit),
            None => {
                self.check_room()?;
                self.interfaces.push(InterfaceOrder { name: name.to_owned(), limit });
            }
        }
        // An exception was made for a former order.
        for order in self.routes.iter_mut().filter(|order| over.contains(&order.ends)) {
            if order.drain == Some(RouteDrain::InUse) {
                order.drain = None;
            }
        }
        self.drop_empty();
        Ok(())
    }

    /// Ends the drain of an interface, and that of every route over it.
    pub fn use_interface(&mut self, name: &str, over: &[OrderedRoute]) {
        self.interfaces.retain(|order| order.name != name);
        for order in self.routes.iter_mut().filter(|order| over.contains(&order.ends)) {
            order.drain = None;
        }
        self.drop_empty();
    }

    /// Drops the orders about values that the config describes otherwise.
    pub fn forget_values(&mut self, ends: &OrderedRoute, timing: bool, priority: bool) {
        for order in self.routes.iter_mut().filter(|order| order.ends == *ends) {
            order.timing = order.timing.filter(|_| !timing);
            order.priority = order.priority.filter(|_| !priority);
        }
        self.drop_empty();
    }

    /// Orders the policies of a peer. Those of the config are none.
    pub fn set_policies(&mut self, order: PolicyOrder) {
        self.peers.retain(|known| known.peer != order.peer);
        if order.policies != order.configured {
            self.peers.push(order);
        }
    }

    /// Keeps the policies of those peers alone for which `is_in_force` returns true.
    pub fn retain_policies(&mut self, is_in_force: impl FnMut(&PolicyOrder) -> bool) {
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
        self.interfaces.retain(|order| !is_due(order.limit));
        for order in &mut self.routes {
            if matches!(order.drain, Some(RouteDrain::Drained(limit)) if is_due(limit)) {
                order.drain = None;
            }
        }
        self.drop_empty();
        true
    }

    /// Orders whose limits count from [`Time::ZERO`] count from `now`.
    pub fn start_at(&mut self, now: Time) {
        for limit in self.limits_mut() {
            *limit = limit.start_at(now);
        }
    }

    fn limits(&self) -> impl Iterator<Item = TimeLimit> {
        let routes = self.routes.iter().filter_map(|order| match order.drain {
            Some(RouteDrain::Drained(limit)) => limit,
            _ => None,
        });
        self.interfaces.iter().filter_map(|order| order.limit).chain(routes)
    }

    fn limits_mut(&mut self) -> impl Iterator<Item = &mut TimeLimit> {
        let routes = self.routes.iter_mut().filter_map(|order| match &mut order.drain {
            Some(RouteDrain::Drained(limit)) => limit.as_mut(),
            _ => None,
        });
        self.interfaces.iter_mut().filter_map(|order| order.limit.as_mut()).chain(routes)
    }

    fn edit_route(
        &mut self,
        ends: &OrderedRoute,
        edit: impl FnOnce(&mut RouteOrder),
    ) -> Result<(), TooManyOrders> {
        if let Some(order) = self.routes.iter_mut().find(|order| order.ends == *ends) {
            edit(order);
        } else {
            let mut order = RouteOrder::new(ends.clone());
            edit(&mut order);
            if !order.is_empty() {
                self.check_room()?;
                self.routes.push(order);
            }
        }
        self.drop_empty();
        Ok(())
    }

    fn check_room(&self) -> Result<(), TooManyOrders> {
        let count = self.routes.len() + self.interfaces.len();
        if count < MAX_ORDERS { Ok(()) } else { Err(TooManyOrders) }
    }

    /// Drops orders that say nothing, such as an exception from a drain that is over.
    pub fn drop_empty(&mut self) {
        if self.interfaces.is_empty() {
            for order in &mut self.routes {
                order.drain = order.drain.filter(|drain| *drain != RouteDrain::InUse);
            }
        }
        self.routes.retain(|order| !order.is_empty());
    }
}

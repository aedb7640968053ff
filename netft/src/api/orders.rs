//! What an operator decided while the node runs, for those who keep it over a restart.

pub use netft_proto::orders::{
    InterfaceOrder, MAX_LIMIT, MAX_ORDERS, MIN_LIMIT, OrderedRoute, PolicyOrder, RouteDrain,
    RouteOrder, StandingOrders, TimeLimit,
};

/// The orders in force, and how often they changed since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedOrders {
    /// Number of changes.
    pub revision: u64,
    /// The orders.
    pub orders: StandingOrders,
}

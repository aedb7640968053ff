//! What an operator decided while the node runs, for those who keep it over a restart.

pub use netft_proto::overrides::{
    InterfaceOverride, MAX_LIMIT, MAX_OVERRIDES, MIN_LIMIT, NamedRoute, OperatorOverrides,
    PolicyOverride, RouteDrain, RouteRuntimeOverride, TimeLimit,
};

/// The overrides in force, and how often they changed since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedOverrides {
    /// Number of changes.
    pub revision: u64,
    /// The overrides.
    pub overrides: OperatorOverrides,
}

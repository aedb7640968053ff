//! The routes that should exist, and the local faults of those that do. Pure.
//!
//! The driver lists the interfaces, asks the kernel for the sources of the addresses in
//! [`off_subnet_remotes`] and the ways between those of [`cross_subnet_pairs`], calls
//! [`plan_routes()`], compares with what runs by [`diff_routes()`], and asks [`faults`] at every
//! change of an interface. Bounds: one route per configured address of a peer, or one per route
//! override that names a local address; [`MAX_ROUTES_PER_PEER`] others; [`MAX_WAY_QUERIES`].

pub(crate) mod activity;
pub(crate) mod advertisement;
pub(crate) mod candidates;
pub(crate) mod diff;
pub(crate) mod faults;
pub mod names;
pub(crate) mod nat;
pub(crate) mod networks;
pub(crate) mod plan;
pub(crate) mod reachable;
pub(crate) mod shared_subnets;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod types;

pub use crate::topology::{
    activity::RouteActivity,
    advertisement::{
        MAX_LISTENING_ADDRESSES, build_advertisement, listening_addresses, ranked_endpoints,
    },
    diff::{RouteDiff, diff_routes},
    faults::{LocalEndStatus, detect_faults},
    names::{ResolvedAddresses, link_local_addresses},
    nat::{is_behind_nat, plan_adopted_route, plan_learned_route},
    networks::{
        can_carry_routes, interface_metric,
        inventory::{
            InterfaceState, MetricSource, NetworkCache, NetworkInfo, NetworkInterface,
            NetworkState, RouteLink, build_inventory,
        },
        is_container_bridge, is_overlay_or_bridge, network_capacity, network_role,
    },
    plan::{MAX_WAY_QUERIES, cross_subnet_pairs, off_subnet_remotes, plan_routes},
    reachable::MAX_ROUTES_PER_PEER,
    shared_subnets::{SharedSubnets, shared_subnets},
    types::{
        Advertisements, Interface, KernelWays, LocalAddr, PlanInputs, PlannedRoute,
        RouteActivities, RoutePlan, SourceAddresses, UnroutedAddress, UnroutedReason,
    },
};

//! The routes that should exist, and the local faults of those that do. Pure.
//!
//! The driver lists the interfaces, asks the kernel for the sources of the addresses in
//! [`off_subnet_remotes`], calls [`plan_routes()`], compares with what runs by [`diff_routes()`],
//! and asks [`faults`] at every change of an interface. Bounds: one route per address of a peer, or
//! one per route override that names a local address; the config bounds both.

pub(crate) mod advertisement;
pub(crate) mod diff;
pub(crate) mod faults;
pub mod names;
pub(crate) mod nat;
pub(crate) mod networks;
pub(crate) mod pairs;
pub(crate) mod plan;
pub(crate) mod shared_subnets;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod types;

pub use crate::topology::{
    advertisement::{
        MAX_LISTENING_ADDRESSES, build_advertisement, listening_addresses, ranked_endpoints,
    },
    diff::{RouteDiff, diff_routes},
    faults::{LocalEndStatus, detect_faults},
    names::{ResolvedAddresses, link_local_addresses},
    nat::{is_behind_nat, plan_learned_route},
    networks::{
        can_carry_routes, interface_metric,
        inventory::{
            InterfaceState, MetricSource, NetworkCache, NetworkInfo, NetworkInterface,
            NetworkState, RouteLink, build_inventory,
        },
        is_container_bridge, is_overlay_or_bridge, network_capacity, network_role,
    },
    plan::{cross_subnet_pairs, off_subnet_remotes, plan_routes},
    shared_subnets::{SharedSubnets, shared_subnets},
    types::{
        Advertisements, Interface, LocalAddr, PlanInputs, PlannedRoute, RoutablePairs, RoutePlan,
        SourceAddresses, UnroutedAddress, UnroutedReason,
    },
};

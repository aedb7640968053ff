//! Kernel side of the floating addresses: the fence, messages to neighbors, addresses.

pub(crate) mod addresses;
pub(crate) mod fence;
mod fence_leases;
mod fence_rules;
mod frames;
mod neighbor_filter;
pub(crate) mod neighbor_socket;

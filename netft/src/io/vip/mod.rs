//! Kernel side of the floating addresses: fence, addresses, messages to neighbors and to servers.

pub(crate) mod addresses;
mod dhcp_packet;
pub(crate) mod dhcp_socket;
pub(crate) mod fence;
mod fence_leases;
mod fence_rules;
mod frames;
mod neighbor_filter;
pub(crate) mod neighbor_socket;

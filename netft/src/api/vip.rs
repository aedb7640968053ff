//! The kernel side of the floating addresses, for the service that owns them.

pub use crate::io::{
    clock::now,
    vip::{
        addresses::{InterfaceWatch, VipInterfaces},
        dhcp_socket::DhcpSocket,
        fence::{FenceWatch, VipFence, remove_fence},
        neighbor_socket::NeighborSocket,
    },
};

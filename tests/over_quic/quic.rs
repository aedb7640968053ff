//! Every route over QUIC.

#[path = "../big_mtu.rs"]
mod big_mtu;
#[path = "../failover.rs"]
mod failover;
#[path = "../multicast.rs"]
mod multicast;
#[path = "../path_mtu.rs"]
mod path_mtu;

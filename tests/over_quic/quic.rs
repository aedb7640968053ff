//! Every route over QUIC.

#[path = "../big_mtu.rs"]
mod big_mtu;
#[path = "../bulk.rs"]
mod bulk;
#[path = "../failover.rs"]
mod failover;
#[path = "../multicast.rs"]
mod multicast;
#[path = "../path_mtu.rs"]
mod path_mtu;

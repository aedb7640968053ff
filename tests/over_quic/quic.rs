//! Every route over QUIC.

#[path = "../adapter.rs"]
mod adapter;
#[path = "../big_mtu.rs"]
mod big_mtu;
#[path = "../bulk.rs"]
mod bulk;
#[path = "../carriers.rs"]
mod carriers;
#[path = "../failover.rs"]
mod failover;
#[path = "../faults.rs"]
mod faults;
#[path = "../hosts.rs"]
mod hosts;
#[path = "../names.rs"]
mod names;
#[path = "../nothing_lost.rs"]
mod nothing_lost;
#[path = "../path_mtu.rs"]
mod path_mtu;
#[path = "../planned_moves.rs"]
mod planned_moves;
#[path = "../policies.rs"]
mod policies;
#[path = "../quic_carrier.rs"]
mod quic_carrier;
#[path = "../reload.rs"]
mod reload;
#[path = "../relay.rs"]
mod relay;
#[path = "../multicast.rs"]
mod multicast;
#[path = "../security.rs"]
mod security;
#[path = "../stall.rs"]
mod stall;
#[path = "../topology.rs"]
mod topology;
#[path = "../why.rs"]
mod why;

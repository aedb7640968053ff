//! Routes of both carriers, QUIC as one end asks.

#[path = "../failover_transports.rs"]
mod carriers;
#[path = "../planned_moves.rs"]
mod planned_moves;

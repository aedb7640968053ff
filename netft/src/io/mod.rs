//! The only I/O: TUN, sockets, packet path, netlink, QUIC control session, driver.

pub mod counters;
pub mod fib;
pub mod identity;
pub mod quic;
pub mod sys;

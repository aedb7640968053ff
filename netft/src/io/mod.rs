//! The only I/O: TUN, sockets, packet path, netlink, QUIC control session, driver.

pub mod clock;
pub mod counters;
pub mod fib;
pub mod sys;
pub mod worker;

//! The only I/O: TUN, sockets, packet path, netlink, QUIC control session, driver.

pub mod counters;
pub mod fib;
pub mod guard;
pub mod lock;
pub mod netlink;
pub mod sys;
pub mod tun;

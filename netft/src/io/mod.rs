//! The only I/O: TUN, sockets, packet path, netlink, QUIC control session, driver.

pub mod clock;
pub mod counters;
pub(crate) mod driver;
pub mod fib;
pub mod guard;
pub mod identity;
pub(crate) mod keeper;
pub mod lock;
pub(crate) mod lookout;
pub mod netlink;
pub mod quic;
pub mod relays;
pub(crate) mod resolver;
pub mod steering;
pub mod sys;
pub mod tun;
pub mod worker;

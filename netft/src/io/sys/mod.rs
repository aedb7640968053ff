//! The leaf of `unsafe`: system calls without a safe wrapper in a crate, one file per device.

pub mod clock;
pub mod epoll;
pub mod glink;
pub mod heap;
pub mod prefetch;
pub mod reuseport;
pub mod speed;
pub mod tun;
pub mod udp;

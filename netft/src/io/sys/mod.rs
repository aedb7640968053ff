//! All `unsafe` code: system calls that have no safe wrapper, one file per interface.

pub mod arp;
pub mod clock;
pub mod epoll;
pub mod glink;
pub mod heap;
pub mod packet;
pub mod prefetch;
pub mod reuseport;
pub mod scheduling;
pub mod signals;
pub mod speed;
pub mod tun;
pub mod udp;

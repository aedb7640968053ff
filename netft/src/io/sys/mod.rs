//! System calls no safe crate covers. The only place with `unsafe`.

pub mod epoll;
pub mod udp;

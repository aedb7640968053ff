//! netft: a virtual network adapter that outlives the networks under it.
//!
//! The rooms, and what each may touch (a test in `tests/tidy.rs` enforces it):
//!
//! | module | decides or does | touches |
//! |---|---|---|
//! | [`wire`] | header, heartbeat, acknowledgement, hello, seal/open, replay window | nothing |
//! | [`packet`] | inner IP packets: parse, split super-packets, coalesce, checksums | nothing |
//! | [`route`] | state machine, selection, hold, history, engine, forwarding table | `wire` types |
//! | [`topology`] | interfaces and peers → which routes should exist | `route` types |
//! | [`sim`] | virtual clock, networks with faults, invariants | the pure part |
//! | [`io`] | TUN, sockets, packet path, netlink, QUIC, driver | everything |
//! | [`adapter`] | the front door: open, snapshot, events, routes, close | `io` |

pub mod adapter;
pub mod addr;
pub mod config;
pub mod id;
pub mod io;
pub mod packet;
pub mod route;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;
pub mod topology;
pub mod wire;

pub use adapter::Adapter;
pub use id::{NodeKey, PeerId, RouteId};
pub use time::Time;

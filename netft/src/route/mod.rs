//! Decisions about routes. Pure: no clock, socket, thread, file or random source.
//!
//! [`Engine`] is the door: it takes heartbeats, faults and the time, and says what to send, which
//! table the packet path should read, and what happened. Behind it one file per question: is a
//! route up (`machine`), which one carries data (`select`), when may data return (`hold`), how good
//! is a route (`quality`), how large a datagram it carries (`mtu`).

mod engine;
mod event;
mod history;
mod hold;
mod jitter;
mod machine;
mod mtu;
mod params;
mod quality;
pub mod recovery;
mod select;
mod spec;
mod status;
mod table;

#[cfg(feature = "sim")]
pub use engine::Bug;
pub use engine::{Engine, EngineConfig, Input, Output};
pub use event::{Event, EventKind, Reason};
pub use mtu::PMTU_RAISE_TIMER;
pub use params::{Attributes, Carrier, Class, Delay, ParamError, Priority, Threshold, Timing};
pub use spec::{RouteChange, RouteSpec};
pub use status::{PeerStatus, RouteState, RouteStatus};
pub use table::{PeerForwarding, Table};

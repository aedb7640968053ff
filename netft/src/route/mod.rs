//! Decisions about routes. Pure: no clock, socket, thread, file or random source.
//!
//! [`Engine`] is the door: it takes heartbeats, faults and the time, and says what to send, which
//! table the packet path should read, and what happened. Behind it one file per question: is a
//! route up (`machine`), which one carries data (`select`), when may data return (`hold`), which
//! one should be left empty (`drain`), how good is a route (`quality`), how large a datagram it
//! carries (`mtu`), is another one clearly better (`brownout`), why data moved (`cause`) and what
//! that cost (`cost`, `stall`). How a peer's traffic uses its routes is in [`policy`] and
//! [`balance`]; requests without news are answered without it (`answer`). Beside it, one per peer
//! and worker: what is in flight, and where it goes again ([`flight`]).

mod answer;
pub mod balance;
mod brownout;
mod cause;
pub mod challenges;
mod cost;
pub mod drain;
mod engine;
mod event;
pub mod flight;
mod history;
mod hold;
mod jitter;
mod machine;
mod mtu;
mod params;
pub mod policy;
mod quality;
pub mod recovery;
mod routes;
mod select;
mod slots;
mod spec;
pub mod stall;
mod status;
mod table;
mod turns;

pub use answer::Form;
pub use cause::{Candidate, Cause, Left, MAX_CANDIDATES, Said, Verdict};
pub use cost::{Cost, OPEN as COST_OPEN, Tally};
pub use drain::{DrainStage, DrainStatus};
#[cfg(feature = "sim")]
pub use engine::Bug;
pub use engine::{Engine, EngineConfig, Input, Output};
pub use event::{Event, EventKind, Reason};
pub use mtu::PMTU_RAISE_TIMER;
pub use params::{Attributes, Carrier, Class, Delay, ParamError, Priority, Threshold, Timing};
pub use policy::{PeerChange, Policies, Policy, TrafficClass};
pub use spec::{RouteChange, RouteSpec};
pub use status::{PathMtuStatus, PeerStatus, RouteState, RouteStatus};
pub use table::{PeerForwarding, Table};

//! Decisions about routes. Pure: no clock, socket, thread, file or random source.

mod event;
mod params;
mod spec;
mod status;
mod table;

pub use event::{Event, EventKind, Reason};
pub use params::{Attributes, Carrier, Class, Delay, ParamError, Priority, Threshold, Timing};
pub use spec::{RouteChange, RouteSpec};
pub use status::{PeerStatus, RouteState, RouteStatus};
pub use table::{PeerForwarding, Table};

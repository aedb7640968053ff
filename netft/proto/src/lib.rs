//! netft's protocol and decisions, without I/O.
//!
//! Nothing here knows a clock, a socket, a thread, a file or a source of randomness: every input
//! carries its time, and the crate depends on nothing that could do I/O.

pub mod cadence;
pub mod config;
pub mod engine;
pub mod failover;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
pub mod loss_detection;
pub mod packet;
pub mod route;
pub mod session;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;
pub mod topology;
pub mod wire;

pub use ids::{NodeKey, PeerId, RouteId};
pub use time::Time;

//! When heartbeats leave: jitter, taking turns with the peer, leaving together, replies without
//! the engine.

pub mod alternation;
pub mod coalescing;
pub mod jitter;
pub mod reply_template;

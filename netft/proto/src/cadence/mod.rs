//! When heartbeats leave: jitter, alternation with the peer, coalescing over routes, and replies
//! that bypass the engine.

pub mod alternation;
pub mod coalescing;
pub mod jitter;
pub mod reply_template;
pub mod request_schedule;

//! Hand-over of a running adapter to a successor process. Pure.
//!
//! ```text
//! predecessor                             successor
//! serving    ── starts ────────────────▶  reads config, checks environment
//!            ◀───────────────── ready ──  waiting
//! freezing: workers stopped, state saved, device and sockets kept
//!            ── take (descriptors) ───▶   opens the adapter
//! waiting    ◀─────────────── serving ──  serving
//! exits
//! ```
//!
//! Until the successor is ready nothing of the predecessor changes: one that dies, hangs, refuses
//! or speaks another version costs nothing. After that the predecessor waits for the successor to
//! serve, and serves again itself only once the successor is gone, so that no two processes ever
//! read one queue.

mod message;
mod predecessor;
mod successor;
#[cfg(test)]
mod tests;

pub use message::{
    HANDOVER_VERSION, MAX_MESSAGE_LEN, PredecessorMessage, SuccessorMessage, UnknownMessage,
};
pub use predecessor::{Predecessor, PredecessorAction, PredecessorInput};
pub use successor::{Successor, SuccessorAction, SuccessorInput};

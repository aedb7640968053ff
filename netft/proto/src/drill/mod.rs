//! Drills: a failure rehearsed on a running node, bounded in time and always undone. Pure.
//!
//! ```text
//! order ─▶ plan_drill ─▶ the routes it makes fail, or why it is refused
//! events, route states ─▶ Drill ─▶ lift the fault, then finish ─▶ DrillReport ─▶ DrillObjective
//! ```
//!
//! The fault itself is the caller's: it drops or delays datagrams at the sockets of these routes,
//! in both directions as [`DrillFault`] says. The datagrams that go are drawn by
//! [`DatagramDice`].

mod datagram_dice;
mod machine;
pub(crate) mod order;
mod plan;
pub(crate) mod report;
#[cfg(test)]
mod tests;

pub use datagram_dice::DatagramDice;
pub use machine::{Drill, DrillStep, RECOVERY_TIMEOUT, SETTLE_TIME};
pub use order::{
    DrillFault, DrillOrder, DrillTarget, MAX_DRILL_LENGTH, MAX_INJECTED_DELAY, MIN_DRILL_LENGTH,
};
pub use plan::{DrillRefusal, DrillRoute, plan_drill};
pub use report::{
    AbortCause, DetectionSign, DrillObjective, DrillOutcome, DrillReport, DrillVerdict,
    DrilledRoute,
};

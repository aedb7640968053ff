//! Reports on failovers: the cause, the cost, and the distribution of stalls.

pub mod cost;
pub mod move_counts;
pub mod report;
pub mod stall_histogram;

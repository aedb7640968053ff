//! A move of data from one route to another: why it happened, what it cost, how long it stalled.

pub mod cost;
pub mod report;
pub mod stall_histogram;

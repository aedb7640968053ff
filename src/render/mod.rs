//! Text output of `netft`: tables and event lines, escaped for a terminal. Pure.

pub mod event;
pub mod networks;
pub mod table;
pub mod validation;
pub mod views;
pub mod why;

//! Text output of `netft`: tables, texts and event lines, escaped for a terminal. Pure.

pub mod cluster;
pub mod drill;
pub mod event;
pub mod health;
pub mod html;
pub mod style;
pub mod table;
pub mod tables;
pub mod top;
pub mod tuning;
pub mod validation;
pub mod views;
pub mod vips;
pub mod why;

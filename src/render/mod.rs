//! Text for people: tables, one line per event, and nothing a terminal could be tricked with.
//! Pure.

pub mod event;
pub mod networks;
pub mod table;
pub mod validation;
pub mod views;
pub mod why;

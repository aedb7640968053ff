//! `netftd`: the program that owns an adapter.

pub mod clock;
pub mod node;

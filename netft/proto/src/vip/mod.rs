//! Floating addresses: which node answers for an address, and how it takes it and lets it go.
//!
//! An engine that exists decides on the owner and grants it a lease with a [`FencingToken`]; the
//! kernel enforces the lease.

pub mod ownership;
mod token;

pub use crate::vip::token::FencingToken;

//! The TUN device: its lock, its queues, and the reconciler of its state.

pub mod lock;
pub(crate) mod policy_rule;
pub mod reconciler;
pub mod repairs;
pub mod tun;
pub mod types;

//! The TUN device: its lock, its queues, and putting it back when somebody takes it away.

pub mod lock;
pub mod reconciler;
pub mod tun;
pub mod types;

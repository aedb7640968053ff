//! Hello: the first message each side sends on the control session. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The most bytes of a node name (reliability C-14).
pub const MAX_NAME: usize = 64;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The wire version of the sender.
    pub version: u8,
    /// Random per start of the daemon: tells a restart from a reconnect.
    pub boot_id: u64,
    /// The number the receiver must put into frames for this session.
    pub session: u32,
    /// The sender's virtual IPv4 address.
    pub virtual_v4: Ipv4Addr,
    /// The sender's virtual IPv6 address.
    pub virtual_v6: Ipv6Addr,
    /// Whether the sender's CPU has AES instructions: both true → AES-256-GCM.
    pub aes: bool,
    /// Whether the sender's adapter is up.
    pub adapter_up: bool,
    /// The sender's node name: 1–[`MAX_NAME`] bytes of `[A-Za-z0-9._-]`.
    pub name: String,
}

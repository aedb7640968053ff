//! Bytes on the wire: pure codecs and the authenticated envelope.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |0 0|ver| kind  |     flags     |         reserved (0)          |
//! +---------------+---------------+-------------------------------+
//! |                 session (the receiver's number)               |
//! +---------------------------------------------------------------+
//! |                                                               |
//! +                        counter (64 bit)                       +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |  sealed: data = whole inner IP packets, one after another, or |
//! |          one slice of one; heartbeat; acknowledgement; path   |
//! |          MTU probe; relayed datagram; challenge  + 16 byte tag|
//! +---------------------------------------------------------------+
//! ```
//!
//! The two top bits of the first byte are zero: QUIC sets the second one (RFC 9443), so one port
//! carries both. The whole header is the AEAD's associated data, the counter is its nonce.

pub mod ack;
pub mod challenge;
mod drop_reason;
pub mod header;
pub mod heartbeat;
pub mod hello;
pub mod interfaces;
pub mod probe;
mod reader;
pub mod relay;

pub use crate::wire::drop_reason::DropReason;

//! Wire format: pure codecs of the frame header and of every message.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |0 0|ver| kind  |     flags     |     queue     | reserved (0)  |
//! +---------------+---------------+-------------------------------+
//! |                session id (the receiver's)                    |
//! +---------------------------------------------------------------+
//! |                                                               |
//! +                        counter (64 bit)                       +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |  sealed: data = whole inner IP packets, one after another, or |
//! |          one fragment of one; heartbeat; acknowledgement;     |
//! |          path MTU probe; relayed datagram; path challenge     |
//! |          + 16 byte AEAD tag                                   |
//! +---------------------------------------------------------------+
//! ```
//!
//! The two top bits of the first byte are zero. QUIC sets the second one (the fixed bit), so both
//! share one port (RFC 9443). The whole header is the AEAD's associated data, the counter is its
//! nonce.

pub mod ack;
pub mod challenge;
mod drop_reason;
pub mod header;
pub mod heartbeat;
pub mod hello;
pub mod interfaces;
pub mod probe;
pub(crate) mod reader;
pub mod relay;
pub mod topic;
pub mod version;

pub use crate::wire::drop_reason::DropReason;

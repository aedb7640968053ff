//! Questions from node to node on the control session.

pub use crate::io::quic::{MAX_REPLY_LEN, PeerQuery, QueryError};

//! Joining a cluster with a token.

pub use crate::io::quic::{JoinAttempt, JoinError, Joiner, request_join};

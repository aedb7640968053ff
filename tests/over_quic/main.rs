//! Kernel tests of UDP again, over QUIC and over routes of both carriers.

#![allow(clippy::duplicate_mod, clippy::unwrap_used, missing_docs)]

mod mixed;
mod quic;

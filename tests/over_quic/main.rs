//! Kernel tests of the main job again: with QUIC for every route, and with both carriers between
//! one pair. Each runs with what its module is called as `NETFT_TRANSPORT`; with that variable set
//! (`quic`, `mixed`) any other test file runs so too:
//! `NETFT_TRANSPORT=quic cargo test --test nothing_lost`.
//!
//! About netft's own datagrams on the wire, hence about UDP, are only `w_01`, `w_02`, `w_07` and
//! `w_12` in `security.rs`.

#![allow(clippy::duplicate_mod, clippy::unwrap_used, missing_docs)]

mod mixed;
mod quic;

//! The control session with each peer.

pub(in crate::io) mod control;
pub(in crate::io) mod dialer;
pub(in crate::io) mod event;
pub(in crate::io) mod handshake;
pub(in crate::io) mod hello_exchange;
pub(crate) mod manager;
pub(in crate::io) mod newest_advertisement;
pub(in crate::io) mod peer;
pub(in crate::io) mod peer_request;
pub(in crate::io) mod rekey;
pub(in crate::io) mod report_limiter;
pub(in crate::io) mod session_id;
pub(in crate::io) mod session_set;

//! Frame classes and send results of a transport connection.

use crate::io::sys::udp::SendFault;

/// Treatment of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum FrameClass {
    /// Data: sent while the window has room.
    Bulk,
    /// Heartbeats, acknowledgements, probes: always sent, marked as network control (CS6).
    Control,
}

/// Result of a send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::io) struct SendOutcome {
    /// Frames sent.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames dropped because the window was full.
    pub window_full: u64,
    /// Frames dropped because they exceed the connection's or the path's MTU.
    pub too_big: u64,
    /// Frames dropped without a connection.
    pub unconnected: u64,
    /// Error of the kernel, if any.
    pub fault: Option<(SendFault, i32)>,
}

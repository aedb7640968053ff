//! Frame classes and send results of a transport connection.

use crate::io::sys::udp::SendFault;

/// How frames are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::io) enum FrameClass {
    /// Data: taken while the window has room.
    Bulk,
    /// Heartbeats, acknowledgements, probes: always taken, and marked as network control.
    Control,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::io) struct SendOutcome {
    /// Frames QUIC took.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames the window had no room for.
    pub window_full: u64,
    /// Frames larger than the connection carries.
    pub too_big: u64,
    /// Frames there was no connection for.
    pub unconnected: u64,
    /// What the kernel refused, if it did.
    pub fault: Option<(SendFault, i32)>,
}

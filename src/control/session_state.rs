//! State of the session with a peer, as the answers name it. Pure.

/// State of the session with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// Heartbeats of the peer arrive.
    Up,
    /// There are keys, and no heartbeat arrives on any route.
    Silent,
    /// There are no keys.
    #[default]
    None,
}

impl SessionState {
    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Silent => "silent",
            Self::None => "none",
        }
    }
}

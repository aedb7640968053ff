//! Why a packet was dropped: one word per reason, counted per worker, shown by the CLI.

/// Why a packet did not go on. Every drop is counted under exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// Shorter than its header, or a length inside it does not fit.
    Malformed,
    /// A version, kind or flag this build does not know, or a reserved bit set.
    Unsupported,
    /// No session has this number.
    UnknownSession,
    /// The tag does not match: forged, damaged, or another key.
    NotAuthentic,
    /// Received before, or too old to tell.
    Replayed,
    /// An authentic control frame that names another route than the one it came on.
    Misrouted,
    /// The inner packet is neither IPv4 nor IPv6, or its lengths lie.
    InnerMalformed,
    /// The inner source address is not the sending peer's.
    InnerSource,
    /// The inner destination is not this node's.
    InnerDestination,
    /// The inner destination belongs to no peer.
    NoPeer,
    /// The peer has no session yet.
    NoSession,
    /// No route to the peer is usable.
    NoRoute,
    /// The packet is larger than the route carries.
    TooBig,
    /// One of our own frames came back through the adapter (routing loop).
    Loop,
    /// The socket refused the packet.
    SendFailed,
    /// The adapter refused the packet.
    AdapterFailed,
    /// A bounded queue was full.
    QueueFull,
    /// The sender is no configured peer.
    UnknownSource,
    /// The session's counter space is used up; a fresh handshake is due.
    KeyExhausted,
    /// A heartbeat of a former run of the peer, which has restarted since.
    FormerBoot,
    /// A packet that came in slices never became whole: one was lost, or too much was waiting.
    Incomplete,
    /// More multicast and broadcast packets from the adapter than the config allows.
    MulticastRate,
    /// A datagram to be relayed, or that was: this node does not do that, or it came over a relay
    /// already.
    RelayRefused,
    /// More datagrams to be relayed than the config allows.
    RelayRate,
}

impl DropReason {
    /// Every reason, in the order of their indexes.
    pub const ALL: [Self; 24] = [
        Self::Malformed,
        Self::Unsupported,
        Self::UnknownSession,
        Self::NotAuthentic,
        Self::Replayed,
        Self::Misrouted,
        Self::InnerMalformed,
        Self::InnerSource,
        Self::InnerDestination,
        Self::NoPeer,
        Self::NoSession,
        Self::NoRoute,
        Self::TooBig,
        Self::Loop,
        Self::SendFailed,
        Self::AdapterFailed,
        Self::QueueFull,
        Self::UnknownSource,
        Self::KeyExhausted,
        Self::FormerBoot,
        Self::Incomplete,
        Self::MulticastRate,
        Self::RelayRefused,
        Self::RelayRate,
    ];

    /// The name in JSON output and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::UnknownSession => "unknown_session",
            Self::NotAuthentic => "not_authentic",
            Self::Replayed => "replayed",
            Self::Misrouted => "misrouted",
            Self::InnerMalformed => "inner_malformed",
            Self::InnerSource => "inner_source",
            Self::InnerDestination => "inner_destination",
            Self::NoPeer => "no_peer",
            Self::NoSession => "no_session",
            Self::NoRoute => "no_route",
            Self::TooBig => "too_big",
            Self::Loop => "loop",
            Self::SendFailed => "send_failed",
            Self::AdapterFailed => "adapter_failed",
            Self::QueueFull => "queue_full",
            Self::UnknownSource => "unknown_source",
            Self::KeyExhausted => "key_exhausted",
            Self::FormerBoot => "former_boot",
            Self::Incomplete => "incomplete",
            Self::MulticastRate => "multicast_rate",
            Self::RelayRefused => "relay_refused",
            Self::RelayRate => "relay_rate",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn indexes_are_places_in_all_and_names_differ() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        let names: BTreeSet<_> = DropReason::ALL.map(DropReason::as_str).into();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}

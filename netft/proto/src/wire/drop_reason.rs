//! Why a packet was dropped: one reason per drop, counted per worker, shown by the CLI.

macro_rules! define_drop_reasons {
    ($($(#[doc = $text:literal])+ $variant:ident = $name:literal,)+) => {
        /// The reason why a packet was dropped. Every drop is counted under exactly one of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(usize)]
        pub enum DropReason {
            $($(#[doc = $text])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in the order of their indexes.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in JSON output and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The description for an operator, one line.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($text),+).trim_ascii(),)+
                }
            }
        }
    };
}

// A new reason needs one entry here: description, variant, and name in JSON output and metrics.
define_drop_reasons! {
    /// Shorter than its header, or a length field does not fit.
    Malformed = "malformed",
    /// Unknown version, type or flag, or a reserved bit set.
    Unsupported = "unsupported",
    /// No session has this id.
    UnknownSession = "unknown_session",
    /// The AEAD tag does not match: forged, damaged, or sealed with another key.
    NotAuthentic = "not_authentic",
    /// Received before, or older than the replay window.
    Replayed = "replayed",
    /// An authentic control frame that names another route than the one it arrived on.
    Misrouted = "misrouted",
    /// The inner packet is neither IPv4 nor IPv6, or its length fields are wrong.
    InnerMalformed = "inner_malformed",
    /// The inner source address is not the sending peer's.
    InnerSource = "inner_source",
    /// The inner destination is not this node's.
    InnerDestination = "inner_destination",
    /// The inner destination belongs to no peer.
    NoPeer = "no_peer",
    /// The peer has no session yet.
    NoSession = "no_session",
    /// No route to the peer is usable.
    NoRoute = "no_route",
    /// No route to the peer has been usable for `failover.unreachable`: the sender got ICMP
    /// "destination unreachable".
    Unreachable = "unreachable",
    /// The packet is larger than the route's MTU.
    TooBig = "too_big",
    /// A frame of this node came back through the adapter (routing loop).
    Loop = "loop",
    /// The socket refused the packet.
    SendFailed = "send_failed",
    /// The adapter refused the packet.
    AdapterFailed = "adapter_failed",
    /// A bounded queue was full.
    QueueFull = "queue_full",
    /// The source address belongs to no configured peer.
    UnknownSource = "unknown_source",
    /// The session's counter space is used up; a new handshake is due.
    KeyExhausted = "key_exhausted",
    /// A heartbeat from before the peer's last restart.
    FormerBoot = "former_boot",
    /// A fragmented packet was not completed: a fragment was lost, or too many were pending.
    Incomplete = "incomplete",
    /// More QUIC handshake packets on a route than handshakes need.
    HandshakeRate = "handshake_rate",
    /// More multicast and broadcast packets from the adapter than the configured rate.
    MulticastRate = "multicast_rate",
    /// A relay frame, but this node neither relays nor uses relays, or it came over a relay
    /// already.
    RelayRefused = "relay_refused",
    /// More datagrams to relay than the configured rate.
    RelayRate = "relay_rate",
    /// For a virtual address of this node or in the name of a peer's, but not through the adapter.
    OutsideAdapter = "outside_adapter",
    /// Of another host, for a peer, and this node does not forward (`adapter.forward`).
    NotForwarded = "not_forwarded",
    /// For a peer, but it would have left by another interface than the adapter.
    LeftAdapter = "left_adapter",
    /// For a peer, from a source address that is not this node's.
    ForeignSource = "foreign_source",
    /// To or from a floating address of this node whose lease ended.
    LeaseEnded = "lease_ended",
    /// A drill's fault dropped the datagram.
    DrillFault = "drill_fault",
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
        let one_line = |text: &str| !text.contains("  ") && text.ends_with('.');
        assert!(DropReason::ALL.iter().all(|reason| one_line(reason.description())));
    }
}

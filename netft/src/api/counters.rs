//! The packet counters, each declared once.
//!
//! A new counter needs one entry in `packet_counters`. From it follow the atomic that workers add
//! to (`io::counters::Counters`), the sum in a [`CounterSnapshot`], the JSON key and the Prometheus
//! counter with its help text. It is counted with `Counters::add(&counters.NAME, n)`.

use netft_proto::wire::DropReason;

/// Passes the table of packet counters to the macro `$with`. An entry: help text, field, JSON key,
/// Prometheus name.
#[doc(hidden)]
#[macro_export]
macro_rules! packet_counters {
    ($with:ident) => {
        $with! {
            /// Packets read from the adapter; a super-packet counts once.
            adapter_reads, "adapter_reads", "netft_adapter_reads_total";
            /// Inner bytes read from the adapter, without those of dropped packets.
            tx_bytes, "tx_bytes", "netft_sent_bytes_total";
            /// Frames sent.
            tx_frames, "tx_frames", "netft_sent_frames_total";
            /// Authentic frames received.
            rx_frames, "rx_frames", "netft_received_frames_total";
            /// Inner bytes written to the adapter.
            rx_bytes, "rx_bytes", "netft_received_bytes_total";
            /// Writes to the adapter; a coalesced super-packet counts once.
            adapter_writes, "adapter_writes", "netft_adapter_writes_total";
            /// Datagrams the kernel dropped because a socket's receive buffer was full.
            socket_overflow, "socket_overflow", "netft_socket_overflow_datagrams_total";
            /// Frames retransmitted on another route because nothing acknowledged them.
            resent_frames, "resent_frames", "netft_resent_frames_total";
            /// Frames sent on a second route as well: the first is suspect, or the policy says so.
            duplicated_frames, "duplicated_frames", "netft_duplicated_frames_total";
            /// Acknowledgements sent.
            acks_sent, "acks_sent", "netft_acknowledgements_sent_total";
            /// Frames forgotten unacknowledged: the retransmit buffer was full, or they were too
            /// old.
            retransmit_overflow, "ring_overflow", "netft_lost_frames_total";
            /// Datagrams relayed for other nodes.
            relayed_frames, "relayed_frames", "netft_relayed_frames_total";
            /// Path challenges sent to source addresses of heartbeats that belong to no route.
            challenges_sent, "challenges_sent", "netft_challenges_sent_total";
        }
    };
}

#[doc(hidden)]
pub use packet_counters;

/// One counter of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketCounter {
    /// Its Prometheus name.
    pub metric: &'static str,
    /// Its help text, one line.
    pub help: &'static str,
    /// Its value.
    pub value: u64,
}

macro_rules! define_snapshot {
    ($($(#[doc = $help:literal])+ $field:ident, $json:literal, $metric:literal;)+) => {
        /// Packet counters since the adapter was opened, summed over the workers.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct CounterSnapshot {
            $($(#[doc = $help])+ pub $field: u64,)+
            /// Drops by reason, every reason listed.
            pub drops: Vec<(DropReason, u64)>,
        }

        impl CounterSnapshot {
            /// Every counter but the drops, in the order of the table.
            pub fn packet_counters(&self) -> impl Iterator<Item = PacketCounter> {
                [$(PacketCounter {
                    metric: $metric,
                    help: concat!($($help),+).trim_ascii(),
                    value: self.$field,
                }),+]
                .into_iter()
            }
        }
    };
}

packet_counters!(define_snapshot);

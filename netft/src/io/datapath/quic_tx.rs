//! Transmission of data frames in the QUIC connection of a path.

use netft_proto::wire::DropReason;

use crate::io::{
    datapath::tx_context::TxContext,
    path::Path,
    quic::transport::{FrameClass, QuicTransport},
};

/// Sends data frames of `stride` bytes, the last may be shorter. Frames that exceed the congestion
/// window are dropped, the newest first.
pub(super) fn transmit_over_quic(
    path: &Path,
    transport: &QuicTransport,
    bytes: &[u8],
    stride: usize,
    context: &mut TxContext<'_>,
) {
    let outcome = transport.send_frames(bytes, stride, path.max_datagram, FrameClass::Bulk);
    context.count_sent(path, outcome.bytes as usize, outcome.sent);
    let lost = [
        (DropReason::QueueFull, outcome.window_full),
        (DropReason::TooBig, outcome.too_big),
        (DropReason::SendFailed, outcome.unconnected),
    ];
    for (reason, frames) in lost.into_iter().filter(|(_, frames)| *frames > 0) {
        context.counters.count_drops(reason, frames);
    }
    if let Some(fault) = outcome.fault {
        // QUIC does not say how many of them the kernel refused.
        context.on_send_failed(path, 1, fault);
    }
}

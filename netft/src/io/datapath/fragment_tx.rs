//! Fragmentation of packets larger than a frame. The fragments of a packet leave in one segmented
//! send.

use netft_proto::{
    packet::gso::GsoPlan,
    session::fragment::{FRAGMENT_HEADER_LEN, FragmentLayout},
    wire::{
        DropReason,
        header::{FLAG_FRAGMENT, FLAG_PARTIAL_CHECKSUM, FRAME_OVERHEAD},
    },
};

use crate::io::datapath::{
    tx_batch::{TxBatch, TxTarget},
    tx_context::TxContext,
};

/// Sends the packets of `plan`, fragmented where they do not fit a frame. `scratch` holds those
/// that are not contiguous in the adapter's packet.
///
/// # Errors
/// [`DropReason::TooBig`] when the packet needs more than
/// [`MAX_FRAGMENTS`](netft_proto::session::fragment::MAX_FRAGMENTS); [`DropReason::KeyExhausted`].
pub(super) fn send_fragmented(
    batch: &mut TxBatch,
    to: &mut TxTarget<'_>,
    context: &mut TxContext<'_>,
    plan: &GsoPlan<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let flags = if plan.has_partial_checksum() { FLAG_PARTIAL_CHECKSUM } else { 0 };
    if let Some(packet) = plan.as_unchanged() {
        return send_packet_fragments(batch, to, context, flags, packet);
    }
    for i in 0..plan.packet_count() {
        let len = plan.packet_len(i);
        if len + FRAME_OVERHEAD <= to.max_frame {
            batch.push_bundled(to, context, flags, len, |slot| {
                plan.write_packet(i, slot);
            });
            continue;
        }
        scratch.resize(len, 0);
        plan.write_packet(i, scratch);
        send_packet_fragments(batch, to, context, flags, scratch)?;
    }
    Ok(())
}

/// Sends one packet in fragments.
fn send_packet_fragments(
    batch: &mut TxBatch,
    to: &mut TxTarget<'_>,
    context: &mut TxContext<'_>,
    flags: u8,
    packet: &[u8],
) -> Result<(), DropReason> {
    let layout = FragmentLayout::new(packet.len(), to.max_frame - FRAME_OVERHEAD)?;
    let count = layout.fragment_count();
    let first = to.sealer.session().reserve_counters(count as u64)?;
    batch.keep_together(to, context, count, FRAGMENT_HEADER_LEN + layout.byte_range(0).len());
    for index in 0..count {
        let len = FRAGMENT_HEADER_LEN + layout.byte_range(index).len();
        batch.push_frame(to, context, (flags | FLAG_FRAGMENT, first + index as u64), len, |slot| {
            layout.write_fragment(index, packet, slot);
        });
    }
    Ok(())
}

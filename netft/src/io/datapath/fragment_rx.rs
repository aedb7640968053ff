//! Received fragments: packets larger than a frame, reassembled.
//!
//! The fragments of a packet usually arrive in one merged receive, side by side: then the packet is
//! written to the adapter from where they were decrypted, without a copy. Fragments that arrived
//! apart (another route, receive or worker) are reassembled in their session, under its lock.

use std::{io::IoSlice, ops::Range};

use netft_proto::{
    packet::{gro, gro::TunWrite},
    session::{
        Session,
        fragment::{FRAGMENT_HEADER_LEN, Fragment, MAX_FRAGMENTS},
    },
    wire::{
        DropReason,
        header::{FLAG_PARTIAL_CHECKSUM, FrameHeader},
    },
};

use crate::io::{clock, counters::Counters, datapath::adapter_writer::InnerDelivery, fib::Fib};

/// The reassembly of one receive.
pub(super) struct FragmentReceiver<'a> {
    fib: &'a Fib,
    counters: &'a Counters,
    /// The fragments of one packet so far.
    run: Option<FragmentRun>,
}

/// The fragments of one packet that were decrypted side by side, beginning with the first.
struct FragmentRun {
    /// This node's number of the session.
    session: u32,
    flags: u8,
    fragment: Fragment,
    /// Fragments so far.
    count: usize,
    /// Offset of the first fragment's piece of the packet.
    at: usize,
    /// Distance from one piece to the next.
    stride: usize,
}

impl FragmentRun {
    /// The range of piece `index` in the receive buffer.
    fn piece_range(&self, index: usize) -> Range<usize> {
        let start = self.at + index * self.stride;
        start..start + self.fragment.layout.byte_range(index).len()
    }

    /// Returns whether the fragment at `at` of the buffer is the next one.
    fn is_next(&self, session: u32, flags: u8, next: &Fragment, at: usize) -> bool {
        let expected = Fragment { index: self.count, ..self.fragment };
        (self.session, self.flags, expected) == (session, flags, *next)
            && at == self.at + self.count * self.stride
    }
}

impl<'a> FragmentReceiver<'a> {
    pub(super) fn new(fib: &'a Fib, counters: &'a Counters) -> Self {
        Self { fib, counters, run: None }
    }

    /// Takes the fragment in `input[start..end]`; the frames of a receive are `stride` bytes apart.
    pub(super) fn process_fragment(
        &mut self,
        input: &mut [u8],
        header: &FrameHeader,
        (start, end, stride): (usize, usize, usize),
        session: &Session,
        delivery: &mut InnerDelivery<'_>,
    ) -> Result<(), DropReason> {
        let payload = input.get(start..end).unwrap_or_default();
        let fragment = Fragment::decode(header.counter, payload)?;
        let (flags, at) = (header.flags, start + FRAGMENT_HEADER_LEN);
        if let Some(run) = &mut self.run
            && run.is_next(header.session_id, flags, &fragment, at)
        {
            run.count += 1;
            if run.count < fragment.layout.fragment_count() {
                return Ok(());
            }
            return match self.run.take() {
                Some(run) => write_contiguous(input, &run, session, delivery),
                None => Ok(()),
            };
        }
        self.store_run(input, delivery);
        if fragment.index == 0 {
            let session = header.session_id;
            self.run = Some(FragmentRun { session, flags, fragment, count: 1, at, stride });
            return Ok(());
        }
        self.store_fragment(input, at..end, (&fragment, flags), session, delivery)
    }

    /// Moves an incomplete run to its session, where the other fragments may arrive later.
    pub(super) fn store_run(&mut self, input: &mut [u8], delivery: &mut InnerDelivery<'_>) {
        let Some(run) = self.run.take() else { return };
        let Some(session) = self.fib.sessions.get(&run.session) else { return };
        for index in 0..run.count {
            let fragment = Fragment { index, ..run.fragment };
            let (piece, tagged) = (run.piece_range(index), (&fragment, run.flags));
            if let Err(reason) = self.store_fragment(input, piece, tagged, session, delivery) {
                self.counters.count_drop(reason);
            }
        }
    }

    /// Drops packets of a session whose fragments are overdue.
    pub(super) fn expire_fragments(&self, session: &Session) {
        self.count_incomplete(session.expire_partial_packets(clock::now));
    }

    /// Adds `input[piece]`, which does not follow the other fragments of its packet, to the
    /// session.
    fn store_fragment(
        &self,
        input: &mut [u8],
        piece: Range<usize>,
        (fragment, flags): (&Fragment, u8),
        session: &Session,
        delivery: &mut InnerDelivery<'_>,
    ) -> Result<(), DropReason> {
        let added = session.add_fragment(clock::now(), fragment, flags, &input[piece])?;
        self.count_incomplete(added.discarded);
        let Some(mut packet) = added.completed else { return Ok(()) };
        let partial = flags & FLAG_PARTIAL_CHECKSUM != 0;
        let result = if delivery.format.has_offload() {
            delivery.check_packet(&packet, packet.len(), session).map(|inner| {
                delivery.flush(input);
                let hdr = gro::passthrough_header(&mut packet, &inner, partial);
                let encoded = hdr.encode();
                let header = &encoded[..delivery.format.header_len()];
                let slices = &[IoSlice::new(header), IoSlice::new(&packet)];
                let bytes = packet.len();
                delivery.writer.write_merged(&TunWrite { hdr, packets: 1, bytes, slices });
            })
        } else {
            delivery.deliver_plain(&mut packet, partial, session)
        };
        session.recycle_buffer(packet);
        result
    }

    fn count_incomplete(&self, packets: u64) {
        self.counters.count_drops(DropReason::Incomplete, packets);
    }
}

/// Writes a packet whose fragments are all in the buffer.
fn write_contiguous(
    input: &mut [u8],
    run: &FragmentRun,
    session: &Session,
    delivery: &mut InnerDelivery<'_>,
) -> Result<(), DropReason> {
    let layout = run.fragment.layout;
    let pieces = (0..layout.fragment_count()).map(|index| run.piece_range(index));
    let partial = run.flags & FLAG_PARTIAL_CHECKSUM != 0;
    let offload = delivery.format.has_offload();
    if partial && !offload {
        // The checksum is completed here, over the packet in one piece.
        let mut packet = Vec::with_capacity(layout.packet_len());
        pieces.for_each(|piece| packet.extend_from_slice(&input[piece]));
        return delivery.deliver_plain(&mut packet, partial, session);
    }
    let inner = delivery.check_packet(&input[run.piece_range(0)], layout.packet_len(), session)?;
    // Packets that arrived earlier are written earlier.
    delivery.flush(input);
    let hdr = gro::passthrough_header(&mut input[run.piece_range(0)], &inner, partial);
    let encoded = hdr.encode();
    let mut slices = [IoSlice::new(&[]); MAX_FRAGMENTS + 1];
    slices[0] = IoSlice::new(&encoded[..delivery.format.header_len()]);
    for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
        *slice = IoSlice::new(&input[piece]);
    }
    let slices = &slices[usize::from(!offload)..=layout.fragment_count()];
    let bytes = layout.packet_len();
    delivery.writer.write_merged(&TunWrite { hdr, packets: 1, bytes, slices });
    Ok(())
}

//! Packets that no frame holds: cut into slices on the way out, put together on the way in.
//!
//! The slices of a packet leave in one segmented send and usually arrive in one merged receive,
//! side by side: then the packet is written to the adapter from where its slices were opened,
//! without a copy. Slices that came apart (another route, another receive, another worker) meet
//! in their session, under its lock.

use std::{io::IoSlice, ops::Range};

use netft_proto::{
    packet::{
        checksum, gro,
        gro::{GroCoalescer, TunWrite},
        gso::GsoPlan,
        ip::InnerHeaders,
    },
    session::{
        Session,
        fragment::{FRAGMENT_HEADER_LEN, Fragment, FragmentLayout, MAX_FRAGMENTS},
    },
    wire::{
        DropReason,
        header::{FLAG_FRAGMENT, FLAG_PARTIAL_CHECKSUM, FRAME_OVERHEAD, FrameHeader},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        rx::RxBatch,
        tx_batch::{TxBatch, TxContext, TxTarget},
    },
};

/// Sends the packets of `split`, in slices where they do not fit a frame. `scratch` is where those
/// are made that do not stand in the adapter's packet as they are.
///
/// # Errors
/// [`DropReason::TooBig`] when not even slices carry it; [`DropReason::KeyExhausted`].
pub(super) fn send_fragmented(
    out: &mut TxBatch,
    to: &mut TxTarget<'_>,
    context: &mut TxContext<'_>,
    split: &GsoPlan<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let flags = if split.has_partial_checksum() { FLAG_PARTIAL_CHECKSUM } else { 0 };
    if let Some(packet) = split.as_unchanged() {
        return send_packet_fragments(out, to, context, flags, packet);
    }
    for i in 0..split.packet_count() {
        let len = split.packet_len(i);
        if len + FRAME_OVERHEAD <= to.max_frame {
            out.push_bundled(to, context, flags, len, |slot| {
                split.write_packet(i, slot);
            });
            continue;
        }
        scratch.resize(len, 0);
        split.write_packet(i, scratch);
        send_packet_fragments(out, to, context, flags, scratch)?;
    }
    Ok(())
}

/// Sends one packet in slices.
fn send_packet_fragments(
    out: &mut TxBatch,
    to: &mut TxTarget<'_>,
    context: &mut TxContext<'_>,
    flags: u8,
    packet: &[u8],
) -> Result<(), DropReason> {
    let cut = FragmentLayout::new(packet.len(), to.max_frame - FRAME_OVERHEAD)?;
    let count = cut.fragment_count();
    let first = to.sealer.session().reserve_counters(count as u64)?;
    out.keep_together(to, context, count, FRAGMENT_HEADER_LEN + cut.byte_range(0).len());
    for index in 0..count {
        let len = FRAGMENT_HEADER_LEN + cut.byte_range(index).len();
        out.push_frame(to, context, (flags | FLAG_FRAGMENT, first + index as u64), len, |slot| {
            cut.write_fragment(index, packet, slot);
        });
    }
    Ok(())
}

/// The slices of one packet that were opened side by side, beginning with the first.
pub(super) struct FragmentRun {
    /// This node's number of the session.
    session: u32,
    flags: u8,
    fragment: Fragment,
    /// How many are there.
    count: usize,
    /// Where the first one's piece of the packet stands.
    at: usize,
    /// From one piece to the next.
    stride: usize,
}

impl FragmentRun {
    /// The place of piece `index` in the receive buffer.
    fn piece_range(&self, index: usize) -> Range<usize> {
        let start = self.at + index * self.stride;
        start..start + self.fragment.layout.byte_range(index).len()
    }

    /// Whether the slice at `at` of the buffer is the next one.
    fn is_next(&self, session: u32, flags: u8, next: &Fragment, at: usize) -> bool {
        let slice = Fragment { index: self.count, ..self.fragment };
        (self.session, self.flags, slice) == (session, flags, *next)
            && at == self.at + self.count * self.stride
    }
}

impl RxBatch<'_, '_> {
    /// A slice, `input[start..end]`; the frames of a receive stand `stride` bytes apart.
    pub(super) fn process_fragment(
        &mut self,
        input: &mut [u8],
        header: &FrameHeader,
        (start, end, stride): (usize, usize, usize),
        session: &Session,
        mut merge: Option<&mut GroCoalescer>,
    ) -> Result<(), DropReason> {
        let payload = input.get(start..end).unwrap_or_default();
        let slice = Fragment::decode(header.counter, payload)?;
        let (flags, at) = (header.flags, start + FRAGMENT_HEADER_LEN);
        if let Some(run) = &mut self.fragment_run
            && run.is_next(header.session_id, flags, &slice, at)
        {
            run.count += 1;
            if run.count < slice.layout.fragment_count() {
                return Ok(());
            }
            return match self.fragment_run.take() {
                Some(run) => self.write_contiguous(input, &run, session, merge),
                None => Ok(()),
            };
        }
        self.store_fragment_run(input, merge.as_deref_mut());
        if slice.index == 0 {
            let session = header.session_id;
            self.fragment_run =
                Some(FragmentRun { session, flags, fragment: slice, count: 1, at, stride });
            return Ok(());
        }
        self.store_fragment(input, at..end, (&slice, flags), session, merge)
    }

    /// Keeps the slices of a run that nothing continues, until the others come.
    pub(super) fn store_fragment_run(
        &mut self,
        input: &mut [u8],
        mut merge: Option<&mut GroCoalescer>,
    ) {
        let Some(run) = self.fragment_run.take() else { return };
        let Some(session) = self.fib.sessions.get(&run.session) else { return };
        for index in 0..run.count {
            let slice = Fragment { index, ..run.fragment };
            let (piece, merge) = (run.piece_range(index), merge.as_deref_mut());
            if let Err(reason) =
                self.store_fragment(input, piece, (&slice, run.flags), session, merge)
            {
                self.count_drop(reason);
            }
        }
    }

    /// All slices of a packet are in the buffer.
    fn write_contiguous(
        &mut self,
        input: &mut [u8],
        run: &FragmentRun,
        session: &Session,
        merge: Option<&mut GroCoalescer>,
    ) -> Result<(), DropReason> {
        let cut = run.fragment.layout;
        let pieces = (0..cut.fragment_count()).map(|index| run.piece_range(index));
        let partial = run.flags & FLAG_PARTIAL_CHECKSUM != 0;
        let offload = merge.is_some();
        if partial && !offload {
            // The checksum is finished here, over the packet in one piece.
            let mut packet = Vec::with_capacity(cut.packet_len());
            pieces.for_each(|piece| packet.extend_from_slice(&input[piece]));
            return self.write_packet(&mut packet, partial, session);
        }
        let inner =
            self.check_inner_packet(&input[run.piece_range(0)], cut.packet_len(), session)?;
        // What came before it goes before it.
        if let Some(merge) = merge {
            merge.flush_all(input, &mut |write| self.writer.write_merged(write));
        }
        let hdr = gro::passthrough_header(&mut input[run.piece_range(0)], &inner, partial);
        let encoded = hdr.encode();
        let mut slices = [IoSlice::new(&[]); MAX_FRAGMENTS + 1];
        slices[0] = IoSlice::new(&encoded);
        for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
            *slice = IoSlice::new(&input[piece]);
        }
        let slices = &slices[usize::from(!offload)..=cut.fragment_count()];
        self.writer.write_merged(&TunWrite { hdr, packets: 1, bytes: cut.packet_len(), slices });
        Ok(())
    }

    /// A slice that does not follow the others of its packet: `input[piece]`.
    fn store_fragment(
        &mut self,
        input: &mut [u8],
        piece: Range<usize>,
        (slice, flags): (&Fragment, u8),
        session: &Session,
        merge: Option<&mut GroCoalescer>,
    ) -> Result<(), DropReason> {
        let added = session.add_fragment(clock::now(), slice, flags, &input[piece])?;
        self.count_incomplete(added.discarded);
        let Some(mut packet) = added.completed else { return Ok(()) };
        let partial = flags & FLAG_PARTIAL_CHECKSUM != 0;
        let result = match merge {
            None => self.write_packet(&mut packet, partial, session),
            Some(merge) => self.check_inner_packet(&packet, packet.len(), session).map(|inner| {
                merge.flush_all(input, &mut |write| self.writer.write_merged(write));
                let hdr = gro::passthrough_header(&mut packet, &inner, partial);
                let encoded = hdr.encode();
                let slices = &[IoSlice::new(&encoded), IoSlice::new(&packet)];
                self.writer.write_merged(&TunWrite {
                    hdr,
                    packets: 1,
                    bytes: packet.len(),
                    slices,
                });
            }),
        };
        session.recycle_buffer(packet);
        result
    }

    /// A packet for an adapter without offload.
    fn write_packet(
        &mut self,
        packet: &mut [u8],
        partial: bool,
        session: &Session,
    ) -> Result<(), DropReason> {
        let inner = self.check_inner_packet(packet, packet.len(), session)?;
        if partial {
            checksum::complete_checksum(packet, &inner);
        }
        self.writer.write_plain(packet);
        Ok(())
    }

    /// Whether a packet of `total` bytes, which begins with `head`, goes from the peer to here.
    fn check_inner_packet(
        &self,
        head: &[u8],
        total: usize,
        session: &Session,
    ) -> Result<InnerHeaders, DropReason> {
        let inner = InnerHeaders::parse_head(head, total)?;
        if inner.len != total {
            return Err(DropReason::InnerMalformed);
        }
        if !session.peer_addrs().contains(inner.src) {
            return Err(DropReason::InnerSource);
        }
        if !self.is_for_us(&inner, head) {
            return Err(DropReason::InnerDestination);
        }
        Ok(inner)
    }

    /// Gives up packets whose slices stay away.
    pub(super) fn expire_fragments(&self) {
        if let Some((_, session, _)) = &self.session {
            self.count_incomplete(session.expire_partial_packets(clock::now));
        }
    }

    fn count_incomplete(&self, packets: u64) {
        let dropped = &self.context.counters.drops[DropReason::Incomplete as usize];
        Counters::add(dropped, packets);
    }
}

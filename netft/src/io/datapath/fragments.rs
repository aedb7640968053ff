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
        gro::{Coalescer, Write},
        gso::Split,
        ip::Inner,
    },
    session::{
        Session,
        fragment::{Cut, MAX_SLICES, SLICE_LEN, Slice},
    },
    wire::{
        DropReason,
        header::{FLAG_PARTIAL_CHECKSUM, FLAG_SLICE, Header, OVERHEAD},
    },
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        rx::Batch,
        tx_batch::{Context, Out, Target},
    },
};

/// Sends the packets of `split`, in slices where they do not fit a frame. `scratch` is where those
/// are made that do not stand in the adapter's packet as they are.
///
/// # Errors
/// [`DropReason::TooBig`] when not even slices carry it; [`DropReason::KeyExhausted`].
pub(super) fn send(
    out: &mut Out,
    to: &mut Target<'_>,
    context: &mut Context<'_>,
    split: &Split<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let flags = if split.partial() { FLAG_PARTIAL_CHECKSUM } else { 0 };
    if let Some(packet) = split.as_is() {
        return one(out, to, context, flags, packet);
    }
    for i in 0..split.count() {
        let len = split.len(i);
        if len + OVERHEAD <= to.max_frame {
            out.bundle(to, context, flags, len, |slot| {
                split.write(i, slot);
            });
            continue;
        }
        scratch.resize(len, 0);
        split.write(i, scratch);
        one(out, to, context, flags, scratch)?;
    }
    Ok(())
}

/// Sends one packet in slices.
fn one(
    out: &mut Out,
    to: &mut Target<'_>,
    context: &mut Context<'_>,
    flags: u8,
    packet: &[u8],
) -> Result<(), DropReason> {
    let cut = Cut::new(packet.len(), to.max_frame - OVERHEAD)?;
    let count = cut.count();
    let first = to.sealer.session().reserve(count as u64)?;
    out.keep_together(to, context, count, SLICE_LEN + cut.range(0).len());
    for index in 0..count {
        let len = SLICE_LEN + cut.range(index).len();
        out.frame(to, context, (flags | FLAG_SLICE, first + index as u64), len, |slot| {
            cut.write(index, packet, slot);
        });
    }
    Ok(())
}

/// The slices of one packet that were opened side by side, beginning with the first.
pub(super) struct Run {
    /// This node's number of the session.
    session: u32,
    flags: u8,
    slice: Slice,
    /// How many are there.
    count: usize,
    /// Where the first one's piece of the packet stands.
    at: usize,
    /// From one piece to the next.
    stride: usize,
}

impl Run {
    /// The place of piece `index` in the receive buffer.
    fn piece(&self, index: usize) -> Range<usize> {
        let start = self.at + index * self.stride;
        start..start + self.slice.cut.range(index).len()
    }

    /// Whether the slice at `at` of the buffer is the next one.
    fn goes_on(&self, session: u32, flags: u8, next: &Slice, at: usize) -> bool {
        let slice = Slice { index: self.count, ..self.slice };
        (self.session, self.flags, slice) == (session, flags, *next)
            && at == self.at + self.count * self.stride
    }
}

impl Batch<'_, '_> {
    /// A slice, `input[start..end]`; the frames of a receive stand `stride` bytes apart.
    pub(super) fn slice(
        &mut self,
        input: &mut [u8],
        header: &Header,
        (start, end, stride): (usize, usize, usize),
        session: &Session,
        mut merge: Option<&mut Coalescer>,
    ) -> Result<(), DropReason> {
        let payload = input.get(start..end).unwrap_or_default();
        let slice = Slice::decode(header.counter, payload)?;
        let (flags, at) = (header.flags, start + SLICE_LEN);
        if let Some(run) = &mut self.run
            && run.goes_on(header.session, flags, &slice, at)
        {
            run.count += 1;
            if run.count < slice.cut.count() {
                return Ok(());
            }
            return match self.run.take() {
                Some(run) => self.side_by_side(input, &run, session, merge),
                None => Ok(()),
            };
        }
        self.end_run(input, merge.as_deref_mut());
        if slice.index == 0 {
            let session = header.session;
            self.run = Some(Run { session, flags, slice, count: 1, at, stride });
            return Ok(());
        }
        self.apart(input, at..end, (&slice, flags), session, merge)
    }

    /// Keeps the slices of a run that nothing continues, until the others come.
    pub(super) fn end_run(&mut self, input: &mut [u8], mut merge: Option<&mut Coalescer>) {
        let Some(run) = self.run.take() else { return };
        let Some(session) = self.fib.sessions.get(&run.session) else { return };
        for index in 0..run.count {
            let slice = Slice { index, ..run.slice };
            let (piece, merge) = (run.piece(index), merge.as_deref_mut());
            if let Err(reason) = self.apart(input, piece, (&slice, run.flags), session, merge) {
                self.drop(reason);
            }
        }
    }

    /// All slices of a packet are in the buffer.
    fn side_by_side(
        &mut self,
        input: &mut [u8],
        run: &Run,
        session: &Session,
        merge: Option<&mut Coalescer>,
    ) -> Result<(), DropReason> {
        let cut = run.slice.cut;
        let pieces = (0..cut.count()).map(|index| run.piece(index));
        let partial = run.flags & FLAG_PARTIAL_CHECKSUM != 0;
        let offload = merge.is_some();
        if partial && !offload {
            // The checksum is finished here, over the packet in one piece.
            let mut packet = Vec::with_capacity(cut.total());
            pieces.for_each(|piece| packet.extend_from_slice(&input[piece]));
            return self.plain(&mut packet, partial, session);
        }
        let inner = self.admit(&input[run.piece(0)], cut.total(), session)?;
        // What came before it goes before it.
        if let Some(merge) = merge {
            merge.flush(input, &mut |write| self.writer.merged(write));
        }
        let hdr = gro::as_it_came(&mut input[run.piece(0)], &inner, partial);
        let encoded = hdr.encode();
        let mut slices = [IoSlice::new(&[]); MAX_SLICES + 1];
        slices[0] = IoSlice::new(&encoded);
        for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
            *slice = IoSlice::new(&input[piece]);
        }
        let slices = &slices[usize::from(!offload)..=cut.count()];
        self.writer.merged(&Write { hdr, packets: 1, bytes: cut.total(), slices });
        Ok(())
    }

    /// A slice that does not follow the others of its packet: `input[piece]`.
    fn apart(
        &mut self,
        input: &mut [u8],
        piece: Range<usize>,
        (slice, flags): (&Slice, u8),
        session: &Session,
        merge: Option<&mut Coalescer>,
    ) -> Result<(), DropReason> {
        let added = session.keep_slice(clock::now(), slice, flags, &input[piece])?;
        self.lost(added.lost);
        let Some(mut packet) = added.whole else { return Ok(()) };
        let partial = flags & FLAG_PARTIAL_CHECKSUM != 0;
        let result = match merge {
            None => self.plain(&mut packet, partial, session),
            Some(merge) => self.admit(&packet, packet.len(), session).map(|inner| {
                merge.flush(input, &mut |write| self.writer.merged(write));
                let hdr = gro::as_it_came(&mut packet, &inner, partial);
                let encoded = hdr.encode();
                let slices = &[IoSlice::new(&encoded), IoSlice::new(&packet)];
                self.writer.merged(&Write { hdr, packets: 1, bytes: packet.len(), slices });
            }),
        };
        session.recycle_packet(packet);
        result
    }

    /// A packet for an adapter without offload.
    fn plain(
        &mut self,
        packet: &mut [u8],
        partial: bool,
        session: &Session,
    ) -> Result<(), DropReason> {
        let inner = self.admit(packet, packet.len(), session)?;
        if partial {
            checksum::finish(packet, &inner);
        }
        self.writer.plain(packet);
        Ok(())
    }

    /// Whether a packet of `total` bytes, which begins with `head`, goes from the peer to here.
    fn admit(&self, head: &[u8], total: usize, session: &Session) -> Result<Inner, DropReason> {
        let inner = Inner::parse_head(head, total)?;
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
    pub(super) fn expire(&self) {
        if let Some((_, session, _)) = &self.session {
            self.lost(session.expire_slices(clock::now));
        }
    }

    fn lost(&self, packets: u64) {
        let dropped = &self.lent.counters.drops[DropReason::Incomplete as usize];
        Counters::add(dropped, packets);
    }
}

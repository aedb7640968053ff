//! One receive: a batch of datagrams of one source, decrypted in place and dispatched by kind.

use std::sync::Arc;

use netft_proto::{
    packet::{gro::GroCoalescer, handshake_limit::HandshakeLimiter},
    session::{FrameOpener, Session},
    wire::{
        DropReason,
        ack::Ack,
        challenge::Challenge,
        header,
        header::{FLAG_FRAGMENT, FLAG_PARTIAL_CHECKSUM, FrameHeader, FrameKind, HEADER_LEN},
        heartbeat::Heartbeat,
        probe::Probe,
        relay::RelayHeader,
    },
};

use crate::io::datapath::{
    acks::ReceivedData,
    adapter_writer::InnerDelivery,
    control_rx,
    fragment_rx::FragmentReceiver,
    relay,
    rx_context::{RxContext, RxSource},
};

/// The state of one receive.
pub(super) struct RxBatch<'a, 'l> {
    pub(super) context: &'a RxContext<'l>,
    pub(super) source: RxSource<'l>,
    pub(super) delivery: InnerDelivery<'a>,
    /// The data that acknowledgements follow from.
    pub(super) received: ReceivedData<'l>,
    fragments: FragmentReceiver<'l>,
    pub(super) handshake_limiter: &'a mut HandshakeLimiter,
    /// The session of the last frame.
    session: Option<(u32, &'l Arc<Session>, FrameOpener<'l>)>,
    /// Authentic frames so far.
    pub(super) frame_count: u64,
    /// Data frames among them.
    pub(super) data_frames: u64,
    /// Bytes of the data frames.
    pub(super) data_bytes: u64,
    has_heartbeat: bool,
}

impl<'a, 'l> RxBatch<'a, 'l> {
    pub(super) fn new(
        context: &'a RxContext<'l>,
        source: RxSource<'l>,
        coalescer: &'a mut GroCoalescer,
        handshake_limiter: &'a mut HandshakeLimiter,
    ) -> Self {
        Self {
            context,
            source,
            delivery: InnerDelivery::new(context, coalescer),
            received: ReceivedData::default(),
            fragments: FragmentReceiver::new(context.fib, context.counters),
            handshake_limiter,
            session: None,
            frame_count: 0,
            data_frames: 0,
            data_bytes: 0,
            has_heartbeat: false,
        }
    }

    /// Returns whether the batch was one heartbeat and nothing else.
    pub(super) fn is_lone_heartbeat(&self) -> bool {
        self.has_heartbeat && self.frame_count == 1
    }

    /// Processes datagrams of `segment` bytes each, the last may be shorter.
    #[inline]
    pub(super) fn process_datagrams(&mut self, input: &mut [u8], segment: usize) {
        if input.is_empty() {
            return self.count_drop(DropReason::Malformed);
        }
        let mut start = 0;
        while start < input.len() {
            let end = (start + segment).min(input.len());
            if header::is_quic(input[start]) {
                self.process_quic(&input[start..end]);
            } else if let Err(reason) = self.process_frame(input, (start, end, segment)) {
                self.count_drop(reason);
            }
            start = end;
        }
        self.flush_opened(input);
    }

    /// Writes the packets that stand decrypted in `input`, before other bytes take their place.
    #[inline]
    pub(super) fn flush_opened(&mut self, input: &mut [u8]) {
        self.fragments.store_run(input, &mut self.delivery);
        if let Some((_, session, _)) = &self.session {
            self.fragments.expire_fragments(session);
        }
        self.delivery.flush(input);
    }

    /// One frame, `input[start..end]`; the next one stands `segment` bytes behind its start.
    #[inline]
    pub(super) fn process_frame(
        &mut self,
        input: &mut [u8],
        (start, end, segment): (usize, usize, usize),
    ) -> Result<(), DropReason> {
        let frame = &mut input[start..end];
        let header = FrameHeader::decode(frame)?;
        let session = self.look_up_session(header.session_id)?;
        let payload = match session.open(&header, frame) {
            Ok(payload) => payload,
            Err(reason) => return Err(self.on_open_failed(&header, reason)),
        };
        let session = session.session();
        self.frame_count += 1;
        match header.kind {
            FrameKind::Data => {
                self.data_frames += 1;
                self.data_bytes += (end - start) as u64;
                if let Some((_, session, _)) = &self.session {
                    self.received.record_data(session, header.counter);
                }
                let first = start + HEADER_LEN;
                let end = first + payload.len();
                if header.flags & FLAG_FRAGMENT != 0 {
                    let place = (first, end, segment);
                    let delivery = &mut self.delivery;
                    return self
                        .fragments
                        .process_fragment(input, &header, place, session, delivery);
                }
                let partial = header.flags & FLAG_PARTIAL_CHECKSUM != 0;
                self.delivery.deliver_packets(input, (first, end), partial, session.peer_addrs())
            }
            FrameKind::Ack => {
                let ack = Ack::decode(payload)?;
                if let Some((_, session, _)) = &self.session
                    && ack.immediate_ack_request != 0
                {
                    self.received.immediate_ack = Some((*session, ack.immediate_ack_request));
                }
                if let Some(frames) = ack.arrivals()
                    && let Some(route) = self.source.route_of_peer(self.context.fib, session.peer())
                {
                    session.record_peer_arrivals(route, frames);
                }
                session.on_ack_received(ack);
                Ok(())
            }
            FrameKind::Heartbeat => {
                self.has_heartbeat = true;
                let heartbeat = Heartbeat::decode(payload)?;
                control_rx::process_heartbeat(self.context, &mut self.source, session, heartbeat)
            }
            FrameKind::Probe => {
                let probe = Probe::decode(payload)?;
                control_rx::report_probe(self.context, &mut self.source, session.peer(), probe)
            }
            FrameKind::Challenge => {
                let challenge = Challenge::decode(payload)?;
                let source = &mut self.source;
                control_rx::report_challenge(self.context, source, session.peer(), challenge);
                Ok(())
            }
            FrameKind::Relay => {
                let relay = RelayHeader::decode(payload)?;
                let (socket, frame) = (self.source.socket, &mut input[start..end]);
                relay::process_relay_frame(self.context, socket, relay, frame, session)
            }
        }
    }

    /// Notes an authentic duplicate of data: the sender did not receive its acknowledgement.
    #[cold]
    fn on_open_failed(&mut self, header: &FrameHeader, reason: DropReason) -> DropReason {
        if (header.kind, reason) == (FrameKind::Data, DropReason::Replayed) {
            self.received.duplicate_frames += 1;
            self.received.duplicate_session = self.session.as_ref().map(|(_, session, _)| *session);
        }
        reason
    }

    #[inline]
    fn look_up_session(&mut self, number: u32) -> Result<&mut FrameOpener<'l>, DropReason> {
        if self.session.as_ref().is_none_or(|(last, ..)| *last != number) {
            let found = self.context.fib.sessions.get(&number);
            let session = found.ok_or(DropReason::UnknownSession)?;
            self.session = Some((number, session, session.frame_opener()));
        }
        let (.., opener) = self.session.as_mut().ok_or(DropReason::UnknownSession)?;
        Ok(opener)
    }

    #[inline]
    pub(super) fn count_drop(&self, reason: DropReason) {
        self.context.counters.count_drop(reason);
    }
}

//! Unacknowledged frames: they stay where they were sealed until they are acknowledged.
//!
//! Nothing is copied: [`TxBatch`](crate::io::datapath::tx_batch::TxBatch) seals into a chunk of the
//! [`FrameArena`], and the buffer remembers which span of it was one send. What is retransmitted,
//! when and on which path, is decided in [`loss_detection`](netft_proto::loss_detection).

use std::{sync::Arc, time::Duration};

use netft_proto::{
    ids::{PeerId, RouteId},
    loss_detection::{
        RetransmitLimits, SentBatch, SentFrames, UsablePath, outstanding_batches, resume_sent,
        take_acked_frames, take_vanishing_segments,
    },
    session::Session,
    time::Time,
};

use crate::io::{
    clock,
    counters::Counters,
    datapath::{
        acks::AckSender,
        frame_arena::{ArenaSpan, FrameArena, frame_counter},
        report::FromWorker,
        transmit::{PlainSockets, transmit_frames},
        tx_context::TxContext,
    },
    fib::Fib,
    handover::UnackedSend,
    path::Path,
};

/// The unacknowledged frames of one worker.
pub(super) struct RetransmitBuffers {
    limits: RetransmitLimits,
    by_session: Vec<SessionBuffer>,
    /// Chunks of finished sends; empty between turns, kept for its memory.
    released_chunks: Vec<usize>,
}

/// The unacknowledged frames of one session.
struct SessionBuffer {
    peer: PeerId,
    session: Arc<Session>,
    seen_ack_version: u64,
    sent_frames: SentFrames<ArenaSpan>,
}

impl RetransmitBuffers {
    pub(super) fn new(limits: RetransmitLimits) -> Self {
        Self { limits, by_session: Vec::new(), released_chunks: Vec::new() }
    }

    /// Keeps a send on `path` until it is acknowledged, unless retransmission is disabled. Returns
    /// whether it is kept.
    pub(super) fn record_sent(
        &mut self,
        session: &Arc<Session>,
        path: UsablePath,
        duplicate: Option<RouteId>,
        (span, bytes): (ArenaSpan, &[u8]),
    ) -> bool {
        if self.limits.is_disabled() {
            return false;
        }
        let sent_frames = &mut self.buffer_of(session).sent_frames;
        sent_frames.on_sent(span, span.to_frames(bytes), path, duplicate, clock::now());
        true
    }

    /// Keeps a send of a predecessor process as if it had just left.
    pub(super) fn resume_sent(
        &mut self,
        session: &Arc<Session>,
        send: &UnackedSend,
        (span, bytes): (ArenaSpan, &[u8]),
    ) {
        let now = clock::now();
        // Of no epoch: what a hand-over delays is no loss of the route.
        let path = UsablePath { route: send.route, rtt: None, loss_epoch: u32::MAX };
        let (layout, marks) = (span.to_frames(bytes), (send.copy, send.acked));
        let sent_frames = &mut self.buffer_of(session).sent_frames;
        resume_sent(sent_frames, (span, layout), path, marks, now);
    }

    /// The unacknowledged sends, oldest first, for a successor process.
    pub(super) fn to_unacked(&self, arena: &FrameArena) -> Vec<UnackedSend> {
        let mut unacked = Vec::new();
        for SessionBuffer { session, sent_frames, .. } in &self.by_session {
            for (route, batch) in outstanding_batches(sent_frames) {
                let span = batch.payload;
                unacked.push(UnackedSend {
                    session: session.local_id(),
                    route,
                    copy: batch.copy_route(),
                    acked: batch.acked_mask(),
                    stride: span.stride,
                    bytes: arena.span_bytes(span).to_vec(),
                });
            }
        }
        unacked
    }

    fn buffer_of(&mut self, session: &Arc<Session>) -> &mut SessionBuffer {
        let local = session.local_id();
        let known = self.by_session.iter().position(|buffer| buffer.session.local_id() == local);
        let place = known.unwrap_or_else(|| {
            self.by_session.push(SessionBuffer::new(session.clone(), self.limits));
            self.by_session.len() - 1
        });
        &mut self.by_session[place]
    }

    /// Processes acknowledgements, retransmits what a path may have lost, and releases what is
    /// done. Called once per turn, before anything new is sent: what was sent earlier leaves
    /// earlier.
    ///
    /// `can_judge_silence`: nothing is unread in the sockets, so a missing acknowledgement means
    /// something.
    pub(super) fn poll_loss_detection(
        &mut self,
        fib: &Fib,
        arena: &mut FrameArena,
        plain: &mut PlainSockets,
        context: &mut TxContext<'_>,
        acks: &mut AckSender,
        can_judge_silence: bool,
    ) {
        if self.by_session.is_empty() {
            return;
        }
        let now = clock::now();
        let Self { by_session, released_chunks, .. } = self;
        for buffer in by_session.iter_mut() {
            let lost = buffer.process_acks(now, arena, released_chunks);
            Counters::add(&context.counters.retransmit_overflow, lost);
            buffer.session.record_lost(lost);
            released_chunks.drain(..).for_each(|chunk| arena.release_send(chunk));
            let SessionBuffer { peer, session, sent_frames, .. } = buffer;
            let entry = fib.peers.iter().find(|entry| entry.peer == *peer);
            let Some(entry) = entry.filter(|_| !sent_frames.is_empty()) else { continue };
            while let Some(loss) = sent_frames.take_data_loss(now) {
                context.driver_queue.report_data_loss(loss, context.counters);
            }
            let paths = || entry.usable_paths();
            let usable = || paths().map(|path| path.route_rtt());
            while let Some(reroute) = sent_frames.poll_reroute(now, usable(), can_judge_silence) {
                let Some(path) = paths().find(|path| path.route == reroute.to) else { break };
                let mut frames = 0;
                for sent in sent_frames.rerouted_batches(&reroute) {
                    let bytes = arena.span_bytes(sent.payload);
                    frames += retransmit_frames(path, bytes, sent, plain, context);
                }
                let resent = (frames, session.route_counts(reroute.from));
                context.driver_queue.report_reroute(*peer, &reroute, resent, context.counters);
            }
            while let Some(request) =
                sent_frames.request_immediate_ack(now, usable(), can_judge_silence)
            {
                let Some(path) = paths().find(|path| path.route == request.to) else { break };
                acks.request_immediate_ack(session, request, path, context.counters);
            }
            if let Some(route) = take_vanishing_segments(sent_frames) {
                context.driver_queue.send(FromWorker::SegmentsVanish(route), context.counters);
            }
            if let Some(route) = sent_frames.take_sole_path_silent() {
                context.driver_queue.report_suspect(route, context.counters);
            }
        }
        by_session.retain(|buffer| {
            !buffer.sent_frames.is_empty() || fib.sessions.contains_key(&buffer.session.local_id())
        });
    }

    /// Time until [`poll_loss_detection`](Self::poll_loss_detection) has something to do without
    /// an acknowledgement.
    pub(super) fn loss_timeout(&self) -> Option<Duration> {
        let now = clock::now();
        let timeout = |buffer: &SessionBuffer| buffer.sent_frames.until_next_timeout(now);
        self.by_session.iter().filter_map(timeout).min()
    }
}

impl SessionBuffer {
    fn new(session: Arc<Session>, limits: RetransmitLimits) -> Self {
        Self {
            peer: session.peer(),
            session,
            seen_ack_version: 0,
            sent_frames: SentFrames::new(limits),
        }
    }

    /// Processes the peer's acknowledgement and forgets what is too old. `released` receives the
    /// chunk of every finished send. Returns the number of frames forgotten unacknowledged.
    fn process_acks(&mut self, now: Time, arena: &FrameArena, released: &mut Vec<usize>) -> u64 {
        self.sent_frames.on_ack_request_answered(self.session.last_immediate_ack());
        if let Some(ack) = self.session.poll_ack(&mut self.seen_ack_version) {
            let counter = |span: &ArenaSpan, n: u32| {
                frame_counter(arena.span_bytes(*span), span.stride, n as usize)
            };
            self.sent_frames.on_ack_received(now, &ack, counter, |span| released.push(span.chunk));
            let session = &self.session;
            let count = |route, frames| session.record_acked_frames(route, frames);
            take_acked_frames(&mut self.sent_frames, count);
        }
        self.sent_frames.discard_expired(now, |span| released.push(span.chunk))
    }
}

/// Retransmits the frames of one send that are not acknowledged. Returns how many.
fn retransmit_frames(
    path: &Path,
    bytes: &[u8],
    sent: &SentBatch<ArenaSpan>,
    plain: &mut PlainSockets,
    context: &mut TxContext<'_>,
) -> u64 {
    let stride = sent.payload.stride;
    let mut frames = 0;
    for (first, count) in sent.missing_runs() {
        let start = first as usize * stride;
        let end = (start + count as usize * stride).min(bytes.len());
        transmit_frames(path, &bytes[start..end], stride, plain, context);
        frames += u64::from(count);
    }
    Counters::add(&context.counters.resent_frames, frames);
    frames
}

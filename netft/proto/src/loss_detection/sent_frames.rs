//! The outstanding frames of one session: transmission, acknowledgement, expiry.

use std::{collections::VecDeque, time::Duration};

use crate::{
    ids::RouteId,
    loss_detection::{
        copies::CopyRoutes,
        path_states::PathStates,
        sent_frame::{BatchLayout, SentBatch},
        types::{RetransmitLimits, UsablePath},
    },
    time::Time,
    wire::ack::Ack,
};

/// The largest allowance for a stall of the peer: its route may fail during the stall as well.
const MAX_PEER_STALL: Duration = Duration::from_millis(50);

/// The outstanding frames of one session. `P` identifies a batch for its owner.
#[derive(Debug)]
pub struct SentFrames<P> {
    pub(crate) limits: RetransmitLimits,
    pub(crate) batches: VecDeque<SentBatch<P>>,
    pub(crate) bytes: usize,
    pub(crate) paths: PathStates,
    /// Numbers every transmission and retransmission, over all paths.
    pub(crate) last_send_number: u64,
    /// The last stall the peer reported, and when.
    pub(crate) peer_stall: (Duration, Time),
    /// The only usable path, when its PTO expired.
    pub(crate) sole_path_silent: Option<RouteId>,
}

impl<P> SentFrames<P> {
    /// Creates an empty set.
    pub fn new(limits: RetransmitLimits) -> Self {
        Self {
            limits,
            batches: VecDeque::new(),
            bytes: 0,
            paths: PathStates::default(),
            last_send_number: 0,
            peer_stall: (Duration::ZERO, Time::ZERO),
            sole_path_silent: None,
        }
    }

    /// Returns whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Adds a batch that was sent, also on route `duplicate`: its acknowledgement then proves
    /// neither. Not to be called when retransmission is disabled.
    #[inline]
    pub fn on_sent(
        &mut self,
        payload: P,
        layout: BatchLayout,
        path: UsablePath,
        duplicate: Option<RouteId>,
        now: Time,
    ) {
        let path_index = self.paths.index_for_send(path, now);
        self.paths.get_mut(path_index).in_flight += 1;
        self.last_send_number += 1;
        self.bytes += layout.bytes;
        self.batches.push_back(SentBatch {
            payload,
            layout,
            acked: 0,
            path_index,
            first_sent_at: now,
            last_sent_at: now,
            send_number: self.last_send_number,
            resent: false,
            copies: CopyRoutes::new(duplicate),
            sent_while_suspect: self.paths.get(path_index).suspect,
            counted_lost: 0,
        });
    }

    /// Applies an acknowledgement. `counter` is the counter of the nth frame of a batch; `forget`
    /// receives every batch that is acknowledged or declared lost.
    pub fn on_ack_received(
        &mut self,
        now: Time,
        ack: &Ack,
        counter: impl Fn(&P, u32) -> u64,
        mut forget: impl FnMut(P),
    ) {
        let stalled = Duration::from_millis(ack.stalled_ms.into()).min(MAX_PEER_STALL);
        if !stalled.is_zero() {
            self.peer_stall = (stalled, now);
        }
        // An immediate acknowledgement took another path and does not prove this one alive.
        let is_regular = ack.immediate_ack_request == 0 && ack.immediate_ack_reply == 0;
        let received_at = is_regular.then_some(now);
        for batch in &mut self.batches {
            if batch.layout.first > ack.highest {
                break;
            }
            let newly_acked = batch.apply_ack(ack, &counter);
            if newly_acked == 0 {
                continue;
            }
            self.paths.count_acked(batch, newly_acked);
            // An acknowledgement does not tell which copy arrived (Karn).
            if !batch.is_ambiguous() {
                self.paths.get_mut(batch.path_index).on_delivered(batch, received_at);
            }
        }
        // After a stall of the peer the sample measures the stall, not the path.
        self.paths.take_rtt_samples(now, stalled.is_zero());
        self.remove_finished(ack.highest, now, &mut forget);
    }

    /// Removes the batches up to counter `highest` that are acknowledged or lost. A batch lost on a
    /// suspect path stays until it is retransmitted.
    fn remove_finished(&mut self, highest: u64, now: Time, forget: &mut impl FnMut(P)) {
        let Self { batches, paths, bytes, .. } = self;
        let mut index = 0;
        while let Some(batch) = batches.get_mut(index).filter(|it| it.layout.first <= highest) {
            let path = paths.get_mut(batch.path_index);
            path.count_if_overtaken(batch, now);
            let is_lost = !batch.is_acked() && path.is_lost(batch, now);
            path.lost_while_suspect |= is_lost && batch.sent_while_suspect;
            if !batch.is_acked() && (!is_lost || batch.sent_while_suspect) {
                index += 1;
                continue;
            }
            path.data_loss.on_finished(batch);
            path.in_flight -= 1;
            if let Some(finished) = batches.remove(index) {
                *bytes -= finished.layout.bytes;
                forget(finished.payload);
            }
        }
    }

    /// Discards batches beyond the age or memory limit. Returns how many unacknowledged frames that
    /// were.
    pub fn discard_expired(&mut self, now: Time, mut forget: impl FnMut(P)) -> u64 {
        let mut frames = 0;
        while let Some(oldest) = self.batches.front() {
            let young = now.since(oldest.first_sent_at) <= self.limits.age;
            if young && self.bytes <= self.limits.bytes {
                break;
            }
            let Some(expired) = self.batches.pop_front() else { break };
            frames += u64::from(expired.missing_count());
            self.bytes -= expired.layout.bytes;
            self.paths.get_mut(expired.path_index).in_flight -= 1;
            forget(expired.payload);
        }
        frames
    }
}

//! The state of one path: a route as the acknowledgements of its own batches show it.

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{
        ack_request::AckRequestState, data_loss::DataLossCounter, delivered::DeliveredBySize,
        rtt_estimator::RttEstimator, segmentation::SegmentLosses, sent_frame::SentBatch,
        types::UsablePath,
    },
    time::Time,
};

/// One path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathState {
    pub(crate) route: RouteId,
    pub(crate) rtt_estimator: RttEstimator,
    /// Its round-trip time by its heartbeats.
    pub(crate) heartbeat_rtt: Option<Duration>,
    pub(crate) ack_request: AckRequestState,
    /// Batches in flight.
    pub(crate) in_flight: usize,
    /// Frames acknowledged, whichever copy arrived, and not passed on yet.
    pub(crate) acked_frames: u64,
    /// The newest batches delivered, by frame size.
    pub(crate) delivered: DeliveredBySize,
    /// Evidence that segmented sends vanish.
    pub(crate) segments: SegmentLosses,
    /// First use or last PTO expiry: no silence starts earlier.
    pub(crate) pto_base: Time,
    /// PTO expiries since the last delivery.
    pub(crate) pto_count: u32,
    /// The PTO expired, and nothing sent since is known to be delivered.
    pub(crate) suspect: bool,
    /// A batch sent while the path was suspect is lost and not retransmitted yet.
    pub(crate) lost_while_suspect: bool,
    /// Transmission time of the newest batch that the acknowledgement being applied covers.
    pub(crate) sample_sent_at: Option<Time>,
    pub(crate) last_used: Time,
    pub(crate) data_loss: DataLossCounter,
}

impl PathState {
    pub(crate) fn new(usable: UsablePath, now: Time) -> Self {
        Self {
            route: usable.route,
            rtt_estimator: usable.rtt.map_or_else(RttEstimator::default, RttEstimator::from_rtt),
            heartbeat_rtt: usable.rtt,
            ack_request: AckRequestState::default(),
            in_flight: 0,
            acked_frames: 0,
            delivered: DeliveredBySize::default(),
            segments: SegmentLosses::default(),
            pto_base: now,
            pto_count: 0,
            suspect: false,
            lost_while_suspect: false,
            sample_sent_at: None,
            last_used: now,
            data_loss: DataLossCounter::new(usable.loss_epoch),
        }
    }

    /// Upper estimate of the transit time of a datagram and its acknowledgement.
    pub(crate) fn max_transit_time(&self) -> Duration {
        self.heartbeat_rtt.map_or(Duration::ZERO, |rtt| rtt * 5 / 4)
    }

    /// A batch sent on this path alone was acknowledged, in whole or in part. `received_at`: when
    /// the acknowledgement arrived, unless it was requested.
    pub(crate) fn on_delivered<P>(&mut self, batch: &SentBatch<P>, received_at: Option<Time>) {
        // The missing frames of a partly acknowledged batch are not overtaken yet.
        let delivered = if batch.is_acked() { batch.send_number } else { batch.send_number - 1 };
        self.delivered.on_delivered(delivered, batch.largest_acked(), received_at);
        self.segments.on_delivered(batch.send_number, batch.layout.count, batch.wire_bytes());
        self.pto_count = 0;
        self.suspect = false;
        if received_at.is_some() {
            self.sample_sent_at = Some(batch.last_sent_at);
        }
    }

    /// Factor of the PTO: it doubles per expiry. Two paths that die together cost one PTO each.
    pub(crate) fn pto_backoff(&self) -> u32 {
        1 << self.pto_count.min(6)
    }

    /// The PTO expired.
    pub(crate) fn on_pto(&mut self, now: Time) {
        self.pto_count += 1;
        self.pto_base = now;
    }
}

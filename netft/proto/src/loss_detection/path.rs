//! The state of each path: a route as the acknowledgements of its own batches show it.

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{
        delivered::DeliveredBySize, rtt_estimator::RttEstimator, sent_frame::SentBatch,
        types::UsablePath,
    },
    time::Time,
};

/// Paths kept beyond those with batches in flight.
const MAX_REMEMBERED_PATHS: usize = 16;

/// Later batches on the path that have to be delivered before a batch counts as lost (RFC 9002
/// section 6.1.1 has 3): until then an exclusion of the path still retransmits it.
const REORDER_THRESHOLD: u64 = 64;

/// The last request for an immediate acknowledgement about a path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckRequestState {
    /// The request that is not answered: its number and when it was sent.
    pending: Option<(u16, Time)>,
    /// When the request was sent that was answered since the last evaluation.
    answered_sent_at: Option<Time>,
}

impl AckRequestState {
    pub(crate) fn on_requested(&mut self, number: u16, now: Time) {
        self.pending = Some((number, now));
    }

    /// The peer answered the request `answered`.
    pub(crate) fn on_answer(&mut self, answered: u16) {
        if let Some((number, at)) = self.pending
            && number == answered
        {
            *self = Self { pending: None, answered_sent_at: Some(at) };
        }
    }

    /// When the request was sent that is not answered.
    pub(crate) fn requested_at(&self) -> Option<Time> {
        self.pending.map(|(_, at)| at)
    }

    /// When the request was sent that was answered since the last call.
    pub(crate) fn take_answered(&mut self) -> Option<Time> {
        self.answered_sent_at.take()
    }
}

/// One path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathState {
    pub(crate) route: RouteId,
    pub(crate) rtt_estimator: RttEstimator,
    /// Its round-trip time by its heartbeats.
    heartbeat_rtt: Option<Duration>,
    pub(crate) ack_request: AckRequestState,
    /// Batches in flight.
    pub(crate) in_flight: usize,
    /// The newest batches delivered, by frame size.
    pub(crate) delivered: DeliveredBySize,
    /// First use or last PTO expiry: no silence starts earlier.
    pub(crate) pto_base: Time,
    /// PTO expiries since the last delivery.
    pto_count: u32,
    /// The PTO expired, and nothing sent since is known to be delivered.
    pub(crate) suspect: bool,
    /// A batch sent while the path was suspect is lost and not retransmitted yet.
    pub(crate) lost_while_suspect: bool,
    /// Transmission time of the newest batch that the acknowledgement being applied covers.
    sample_sent_at: Option<Time>,
    last_used: Time,
}

impl PathState {
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
        self.pto_count = 0;
        self.suspect = false;
        if received_at.is_some() {
            self.sample_sent_at = Some(batch.last_sent_at);
        }
    }

    /// Returns whether a batch is lost: later ones on the path were delivered.
    pub(crate) fn is_lost<P>(&self, batch: &SentBatch<P>) -> bool {
        let later = if batch.sent_while_suspect { 0 } else { REORDER_THRESHOLD };
        self.delivered.covers(batch.send_number + later, batch.largest_missing())
    }

    /// The PTO expired.
    pub(crate) fn on_pto(&mut self, now: Time) {
        self.pto_count += 1;
        self.pto_base = now;
    }
}

/// The paths of a session. An index stays valid while batches are in flight on its path.
#[derive(Debug, Default)]
pub(crate) struct PathStates {
    paths: Vec<PathState>,
}

impl PathStates {
    /// The index of the path that is about to carry a batch.
    #[inline]
    pub(crate) fn index_for_send(&mut self, usable: UsablePath, now: Time) -> usize {
        let index = match self.paths.iter().position(|path| path.route == usable.route) {
            Some(index) => index,
            None => self.insert_path(usable, now),
        };
        self.paths[index].last_used = now;
        self.paths[index].heartbeat_rtt = usable.rtt;
        index
    }

    pub(crate) fn indices(&self) -> std::ops::Range<usize> {
        0..self.paths.len()
    }

    pub(crate) fn get(&self, index: usize) -> &PathState {
        &self.paths[index]
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.paths.iter_mut()
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut PathState {
        &mut self.paths[index]
    }

    pub(crate) fn find_index(&self, wanted: impl Fn(&PathState) -> bool) -> Option<usize> {
        self.paths.iter().position(wanted)
    }

    /// PTO expiries of a route in a row.
    pub(crate) fn pto_count(&self, route: RouteId) -> u32 {
        self.paths.iter().find(|path| path.route == route).map_or(0, |path| path.pto_count)
    }

    /// Applies the RTT samples of an acknowledgement, one per path, if it is `representative`.
    pub(crate) fn take_rtt_samples(&mut self, now: Time, representative: bool) {
        for path in &mut self.paths {
            if let Some(sent) = path.sample_sent_at.take().filter(|_| representative) {
                path.rtt_estimator.add_sample(now.since(sent));
            }
        }
    }

    #[cold]
    fn insert_path(&mut self, usable: UsablePath, now: Time) -> usize {
        let path = PathState {
            route: usable.route,
            rtt_estimator: usable.rtt.map_or_else(RttEstimator::default, RttEstimator::from_rtt),
            heartbeat_rtt: usable.rtt,
            ack_request: AckRequestState::default(),
            in_flight: 0,
            delivered: DeliveredBySize::default(),
            pto_base: now,
            pto_count: 0,
            suspect: false,
            lost_while_suspect: false,
            sample_sent_at: None,
            last_used: now,
        };
        let idle = self.paths.iter().enumerate().filter(|(_, path)| path.in_flight == 0);
        match idle.min_by_key(|(_, path)| path.last_used).map(|(index, _)| index) {
            Some(index) if self.paths.len() >= MAX_REMEMBERED_PATHS => {
                self.paths[index] = path;
                index
            }
            _ => {
                self.paths.push(path);
                self.paths.len() - 1
            }
        }
    }
}

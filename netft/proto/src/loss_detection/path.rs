//! One route as its own sends show it.

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{
        SentBatch, UsablePath, delivered::DeliveredBySize, immediate_ack::AckRequestState,
        rtt_estimator::RttEstimator,
    },
    time::Time,
};

/// Routes remembered beyond those with something in flight.
const MAX_REMEMBERED_PATHS: usize = 16;

/// Sends lost alone wait for so many later ones on their route, in case it is given up.
const REORDER_THRESHOLD: u64 = 64;

/// One route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathState {
    pub(crate) route: RouteId,
    pub(crate) rtt_estimator: RttEstimator,
    /// Its round-trip time by its heartbeats.
    heartbeat_rtt: Option<Duration>,
    pub(crate) ack_request: AckRequestState,
    /// Sends in flight here.
    pub(crate) in_flight: usize,
    /// The newest sendings here that are known to have arrived.
    pub(crate) delivered: DeliveredBySize,
    /// When the route was first used, or last struck.
    pub(crate) pto_base: Time,
    /// Silences here since anything arrived.
    pto_count: u32,
    /// What was in flight here left it for its silence, and nothing sent since is known to have
    /// arrived.
    pub(crate) suspect: bool,
    /// Something that left while the route was in doubt is lost, and not sent again yet.
    pub(crate) lost_while_suspect: bool,
    /// When the newest send acknowledged by the present acknowledgement was sent.
    sample_sent_at: Option<Time>,
    last_used: Time,
}

impl PathState {
    /// How long a datagram is under way at most, and its acknowledgement as well.
    pub(crate) fn max_transit_time(&self) -> Duration {
        self.heartbeat_rtt.map_or(Duration::ZERO, |rtt| rtt * 5 / 4)
    }

    /// A send that went out here and nowhere else was acknowledged, all of it or some. `came`: when
    /// the acknowledgement came, if it came by itself.
    pub(crate) fn on_delivered<P>(&mut self, sent: &SentBatch<P>, came: Option<Time>) {
        // What a send lost of itself has no later neighbour yet.
        let passed = if sent.is_acked() { sent.send_number } else { sent.send_number - 1 };
        self.delivered.on_delivered(passed, sent.largest_acked(), came);
        self.pto_count = 0;
        self.suspect = false;
        if came.is_some() {
            self.sample_sent_at = Some(sent.last_sent_at);
        }
    }

    /// Whether a send is past hope: later ones here arrived.
    pub(crate) fn is_lost<P>(&self, sent: &SentBatch<P>) -> bool {
        let later = if sent.sent_while_suspect { 0 } else { REORDER_THRESHOLD };
        self.delivered.covers(sent.send_number + later, sent.largest_missing())
    }

    /// Silence made the route suspect.
    pub(crate) fn on_pto(&mut self, now: Time) {
        self.pto_count += 1;
        self.pto_base = now;
    }
}

/// The routes of a flight. Places stay valid while something is in flight there.
#[derive(Debug, Default)]
pub(crate) struct PathStates {
    paths: Vec<PathState>,
}

impl PathStates {
    /// The place of a route that is about to get a send.
    #[inline]
    pub(crate) fn index_for_send(&mut self, way: UsablePath, now: Time) -> usize {
        let place = match self.paths.iter().position(|path| path.route == way.route) {
            Some(place) => place,
            None => self.insert_path(way, now),
        };
        self.paths[place].last_used = now;
        self.paths[place].heartbeat_rtt = way.rtt;
        place
    }

    pub(crate) fn indices(&self) -> std::ops::Range<usize> {
        0..self.paths.len()
    }

    pub(crate) fn get(&self, place: usize) -> &PathState {
        &self.paths[place]
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PathState> {
        self.paths.iter_mut()
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> &mut PathState {
        &mut self.paths[place]
    }

    pub(crate) fn find_index(&self, wanted: impl Fn(&PathState) -> bool) -> Option<usize> {
        self.paths.iter().position(wanted)
    }

    /// How often in a row a route was silent.
    pub(crate) fn pto_count(&self, route: RouteId) -> u32 {
        self.paths.iter().find(|path| path.route == route).map_or(0, |lane| lane.pto_count)
    }

    /// Takes in how long the sends an acknowledgement was for have waited: one sample per route.
    pub(crate) fn take_rtt_samples(&mut self, now: Time, representative: bool) {
        for path in &mut self.paths {
            if let Some(sent) = path.sample_sent_at.take().filter(|_| representative) {
                path.rtt_estimator.add_sample(now.since(sent));
            }
        }
    }

    #[cold]
    fn insert_path(&mut self, way: UsablePath, now: Time) -> usize {
        let path = PathState {
            route: way.route,
            rtt_estimator: way.rtt.map_or_else(RttEstimator::default, RttEstimator::from_rtt),
            heartbeat_rtt: way.rtt,
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
        match idle.min_by_key(|(_, path)| path.last_used).map(|(place, _)| place) {
            Some(place) if self.paths.len() >= MAX_REMEMBERED_PATHS => {
                self.paths[place] = path;
                place
            }
            _ => {
                self.paths.push(path);
                self.paths.len() - 1
            }
        }
    }
}

//! One route as its own sends show it.

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{Sent, Way, delivered::Passed, immediate_ack::Asked, rtt_estimator::Recovery},
    time::Time,
};

/// Routes remembered beyond those with something in flight.
const REMEMBERED: usize = 16;

/// Sends lost alone wait for so many later ones on their route, in case it is given up.
const STRAGGLER: u64 = 64;

/// One route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub(crate) route: RouteId,
    pub(crate) recovery: Recovery,
    /// Its round-trip time by its heartbeats.
    rtt: Option<Duration>,
    pub(crate) asked: Asked,
    /// Sends in flight here.
    pub(crate) waiting: usize,
    /// The newest sendings here that are known to have arrived.
    pub(crate) passed: Passed,
    /// When the route was first used, or last struck.
    pub(crate) since: Time,
    /// Silences here since anything arrived.
    strikes: u32,
    /// What was in flight here left it for its silence, and nothing sent since is known to have
    /// arrived.
    pub(crate) doubted: bool,
    /// Something that left while the route was in doubt is lost, and not sent again yet.
    pub(crate) lost_in_doubt: bool,
    /// When the newest send acknowledged by the present acknowledgement was sent.
    sample: Option<Time>,
    used: Time,
}

impl Lane {
    /// How long a datagram is under way at most, and its acknowledgement as well.
    pub(crate) fn transit(&self) -> Duration {
        self.rtt.map_or(Duration::ZERO, |rtt| rtt * 5 / 4)
    }

    /// A send that went out here and nowhere else was acknowledged, all of it or some. `came`: when
    /// the acknowledgement came, if it came by itself.
    pub(crate) fn credit<P>(&mut self, sent: &Sent<P>, came: Option<Time>) {
        // What a send lost of itself has no later neighbour yet.
        let passed = if sent.done() { sent.order } else { sent.order - 1 };
        self.passed.note(passed, sent.largest_acked(), came);
        self.strikes = 0;
        self.doubted = false;
        if came.is_some() {
            self.sample = Some(sent.at);
        }
    }

    /// Whether a send is past hope: later ones here arrived.
    pub(crate) fn lost<P>(&self, sent: &Sent<P>) -> bool {
        let later = if sent.doubtful { 0 } else { STRAGGLER };
        self.passed.covers(sent.order + later, sent.largest_missing())
    }

    /// Silence made the route suspect.
    pub(crate) fn strike(&mut self, now: Time) {
        self.strikes += 1;
        self.since = now;
    }
}

/// The routes of a flight. Places stay valid while something is in flight there.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    all: Vec<Lane>,
}

impl Lanes {
    /// The place of a route that is about to get a send.
    #[inline]
    pub(crate) fn place(&mut self, way: Way, now: Time) -> usize {
        let place = match self.all.iter().position(|lane| lane.route == way.route) {
            Some(place) => place,
            None => self.add(way, now),
        };
        self.all[place].used = now;
        self.all[place].rtt = way.rtt;
        place
    }

    pub(crate) fn places(&self) -> std::ops::Range<usize> {
        0..self.all.len()
    }

    pub(crate) fn get(&self, place: usize) -> &Lane {
        &self.all[place]
    }

    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.all.iter_mut()
    }

    pub(crate) fn at(&mut self, place: usize) -> &mut Lane {
        &mut self.all[place]
    }

    pub(crate) fn find(&self, wanted: impl Fn(&Lane) -> bool) -> Option<usize> {
        self.all.iter().position(wanted)
    }

    /// How often in a row a route was silent.
    pub(crate) fn strikes(&self, route: RouteId) -> u32 {
        self.all.iter().find(|lane| lane.route == route).map_or(0, |lane| lane.strikes)
    }

    /// Takes in how long the sends an acknowledgement was for have waited: one sample per route.
    pub(crate) fn measure(&mut self, now: Time, representative: bool) {
        for lane in &mut self.all {
            if let Some(sent) = lane.sample.take().filter(|_| representative) {
                lane.recovery.sample(now.since(sent));
            }
        }
    }

    #[cold]
    fn add(&mut self, way: Way, now: Time) -> usize {
        let lane = Lane {
            route: way.route,
            recovery: way.rtt.map_or_else(Recovery::default, Recovery::expect),
            rtt: way.rtt,
            asked: Asked::default(),
            waiting: 0,
            passed: Passed::default(),
            since: now,
            strikes: 0,
            doubted: false,
            lost_in_doubt: false,
            sample: None,
            used: now,
        };
        let idle = self.all.iter().enumerate().filter(|(_, lane)| lane.waiting == 0);
        match idle.min_by_key(|(_, lane)| lane.used).map(|(place, _)| place) {
            Some(place) if self.all.len() >= REMEMBERED => {
                self.all[place] = lane;
                place
            }
            _ => {
                self.all.push(lane);
                self.all.len() - 1
            }
        }
    }
}

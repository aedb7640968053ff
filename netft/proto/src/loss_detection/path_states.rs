//! The paths of one session.

use crate::{
    ids::RouteId,
    loss_detection::{path::PathState, sent_frame::SentBatch, types::UsablePath},
    time::Time,
};

/// Paths kept beyond those with batches in flight.
const MAX_REMEMBERED_PATHS: usize = 16;

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
        self.paths[index].data_loss.enter_epoch(usable.loss_epoch, now);
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

    /// Counts frames of a batch as acknowledged on every path that carried them in its present
    /// epoch.
    #[inline]
    pub(crate) fn count_acked<P>(&mut self, batch: &SentBatch<P>, frames: u32) {
        let count = |path: &mut PathState| {
            if path.data_loss.counts(batch) {
                path.acked_frames += u64::from(frames);
            }
        };
        count(self.get_mut(batch.path_index));
        for route in batch.copies.iter() {
            self.paths.iter_mut().filter(|path| path.route == route).for_each(count);
        }
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
        let path = PathState::new(usable, now);
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

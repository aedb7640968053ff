//! Retransmission on another path: the path PTO, excluded paths, batches lost on a suspect path.

use std::time::Duration;

use crate::{
    loss_detection::{
        path::PathState,
        sent_frame::SentBatch,
        sent_frames::SentFrames,
        types::{Reroute, STALL_REPORT_PERIOD, UsablePath},
        vanishing_segments::note_silent_segments,
    },
    time::Time,
};

impl<P> SentFrames<P> {
    /// The next retransmission that is due; to be called until it returns `None`. `usable`: the
    /// routes data may take, best first. `drained`: every received datagram has been processed, so
    /// silence proves loss (after a late wake-up the sockets are read before a path is suspected).
    pub fn poll_reroute(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = UsablePath> + Clone,
        drained: bool,
    ) -> Option<Reroute> {
        let excluded = |path: &PathState| usable.clone().all(|it| it.route != path.route);
        if let Some(from) = self.paths.find_index(|path| path.in_flight > 0 && excluded(path))
            && let Some(to) = usable.clone().next()
        {
            return Some(self.reroute_batches(from, to, false, now, |_, _| true));
        }
        if let Some(reroute) = self.reroute_lost_while_suspect(now, usable.clone()) {
            return Some(reroute);
        }
        if drained { self.reroute_silent_path(now, usable) } else { None }
    }

    /// Retransmits the batches of a path whose PTO expired, or that an immediate acknowledgement
    /// left out, and marks the path as suspect.
    fn reroute_silent_path(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = UsablePath> + Clone,
    ) -> Option<Reroute> {
        for from in self.paths.indices() {
            let confirmed = self.take_confirmed_loss(from);
            if !confirmed && !self.until_pto(from, now).is_some_and(|left| left.is_zero()) {
                continue;
            }
            note_silent_segments(self, from);
            self.paths.get_mut(from).on_pto(now);
            let silent_route = self.paths.get(from).route;
            // Of several other paths the one with the fewest expiries.
            let others = usable.clone().filter(|it| it.route != silent_route);
            let Some(to) = others.min_by_key(|it| self.paths.pto_count(it.route)) else {
                // There is no other path, but its path MTU may have shrunk.
                self.sole_path_silent = Some(silent_route);
                continue;
            };
            self.paths.get_mut(from).suspect = true;
            return Some(self.reroute_batches(from, to, true, now, |_, _| true));
        }
        None
    }

    /// Retransmits the batches that were sent on a path after it became suspect and are lost.
    fn reroute_lost_while_suspect(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = UsablePath> + Clone,
    ) -> Option<Reroute> {
        while let Some(from) = self.paths.find_index(|path| path.lost_while_suspect) {
            let path = self.paths.get_mut(from);
            path.lost_while_suspect = false;
            let Some(to) = usable.clone().find(|it| it.route != path.route) else {
                // Without another path the loss is left to the transport protocol above.
                let batches = self.batches.iter_mut();
                batches.for_each(|batch| batch.sent_while_suspect &= batch.path_index != from);
                continue;
            };
            let reroute = self.reroute_batches(from, to, false, now, |path, batch| {
                batch.sent_while_suspect && path.is_lost(batch, now)
            });
            if !reroute.is_empty() {
                return Some(reroute);
            }
        }
        None
    }

    /// Assigns the `wanted` batches of one path to another, under new send numbers.
    fn reroute_batches(
        &mut self,
        from: usize,
        path: UsablePath,
        suspect: bool,
        now: Time,
        wanted: impl Fn(&PathState, &SentBatch<P>) -> bool,
    ) -> Reroute {
        let to = self.paths.index_for_send(path, now);
        let to_is_suspect = self.paths.get(to).suspect;
        let first = self.last_send_number + 1;
        let mut waited = Duration::ZERO;
        for batch in self.batches.iter_mut().filter(|batch| batch.path_index == from) {
            if !wanted(self.paths.get(from), batch) {
                continue;
            }
            self.last_send_number += 1;
            (batch.send_number, batch.last_sent_at) = (self.last_send_number, now);
            (batch.path_index, batch.resent) = (to, true);
            batch.copies.add(self.paths.get(from).route);
            batch.sent_while_suspect = to_is_suspect;
            waited = waited.max(now.since(batch.first_sent_at));
            self.paths.get_mut(from).in_flight -= 1;
            self.paths.get_mut(to).in_flight += 1;
        }
        let (from, to) = (self.paths.get(from).route, path.route);
        let send_numbers = (first, self.last_send_number);
        Reroute { from, to, suspect, waited, send_numbers }
    }

    /// The batches of a reroute, in the order of their counters.
    pub fn rerouted_batches(&self, reroute: &Reroute) -> impl Iterator<Item = &SentBatch<P>> {
        let (first, last) = reroute.send_numbers;
        let batches = self.batches.iter();
        batches.filter(move |batch| first <= batch.send_number && batch.send_number <= last)
    }

    pub(crate) fn pto_for_path(&self, path_index: usize, now: Time) -> Duration {
        let (stalled, reported_at) = self.peer_stall;
        let is_recent = now.since(reported_at) < STALL_REPORT_PERIOD;
        let allowance = if is_recent { stalled } else { Duration::ZERO };
        let path = self.paths.get(path_index);
        path.rtt_estimator.pto() * path.pto_backoff() + allowance
    }

    /// Time until the PTO of a path expires; `None` while nothing on it is silent.
    pub(crate) fn until_pto(&self, path_index: usize, now: Time) -> Option<Duration> {
        let since = self.silent_since(path_index)?;
        Some(self.pto_for_path(path_index, now).saturating_sub(now.since(since)))
    }

    /// Start of the silence: the last of the oldest silent batch's transmission, the last delivery
    /// of a frame of its size, and the last PTO.
    pub(crate) fn silent_since(&self, path_index: usize) -> Option<Time> {
        let path = self.paths.get(path_index);
        if path.in_flight == 0 {
            return None;
        }
        let oldest = self.silent_batches(path_index).next()?;
        let progress = path.delivered.last_progress(oldest.largest_missing());
        Some(oldest.last_sent_at.max(path.pto_base).max(progress))
    }

    /// The batches of a path after which nothing of their size was delivered.
    pub(crate) fn silent_batches(&self, path_index: usize) -> impl Iterator<Item = &SentBatch<P>> {
        let delivered = self.paths.get(path_index).delivered;
        let on_path = self.batches.iter().filter(move |batch| batch.path_index == path_index);
        on_path.filter(move |batch| !delivered.covers(batch.send_number, batch.largest_missing()))
    }
}

//! The receiver's side: when data is acknowledged, and on which paths (RFC 9000 section 13.2).

use std::time::Duration;

use crate::{loss_detection::rtt_estimator::MAX_ACK_DELAY, time::Time};

/// Unacknowledged frames that trigger an acknowledgement at once.
const MAX_UNACKED_FRAMES: u64 = 256;

/// The acknowledgement due for one session, from the first unacknowledged frame. `W` identifies a
/// return path.
#[derive(Clone, Copy, Debug)]
pub struct AckSchedule<W> {
    since: Time,
    frames: u64,
    /// Where data last arrived: the only path proven at this moment, in that direction.
    last_path: W,
    /// Where data arrived before that: its sender awaits the count of what arrived there, and may
    /// send nothing there that would bring it.
    previous_path: Option<W>,
    /// Where a duplicate arrived: its sender receives no acknowledgement, so the other return path
    /// may have failed.
    duplicate_path: Option<W>,
}

impl<W: Copy + PartialEq> AckSchedule<W> {
    /// Starts the delay for data that arrived on `path`.
    pub fn new(path: W, now: Time) -> Self {
        Self { since: now, frames: 0, last_path: path, previous_path: None, duplicate_path: None }
    }

    /// Counts new data.
    pub fn on_new_data(&mut self, frames: u64, path: W) {
        self.frames += frames;
        if path != self.last_path {
            self.previous_path = Some(self.last_path);
            self.last_path = path;
        }
    }

    /// Counts data that was received before.
    pub fn on_duplicate(&mut self, path: W) {
        self.duplicate_path = Some(path);
    }

    /// Returns whether the acknowledgement is due.
    pub fn is_due(&self, now: Time) -> bool {
        self.frames >= MAX_UNACKED_FRAMES || self.until_due(now).is_zero()
    }

    /// Time until it is due, if no more data arrives.
    pub fn until_due(&self, now: Time) -> Duration {
        MAX_ACK_DELAY.saturating_sub(now.since(self.since))
    }

    /// The paths that carry the acknowledgement. The path where data arrived is proven in that
    /// direction only: while the other one is unproven (`up`), the path of this node's own data
    /// carries a copy.
    pub fn return_paths<U: Fn(W) -> bool>(
        &self,
        up: U,
        own: Option<W>,
    ) -> impl Iterator<Item = W> + use<W, U> {
        let last = self.last_path;
        let previous = self.previous_path.filter(|path| *path != last);
        let repeated = self.duplicate_path.filter(|path| *path != last && Some(*path) != previous);
        let is_listed = |own: &W| *own == last || [previous, repeated].contains(&Some(*own));
        let own = own.filter(|own| !up(last) && !is_listed(own));
        [Some(last), previous, repeated, own].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_due_after_a_delay_or_many_frames() {
        let mut schedule = AckSchedule::new('a', Time::from_millis(100));
        schedule.on_new_data(255, 'a');
        assert!(!schedule.is_due(Time::from_millis(104)));
        assert!(schedule.is_due(Time::from_millis(105)));
        schedule.on_new_data(1, 'b');
        assert!(schedule.is_due(Time::from_millis(100)));
        assert_eq!(paths(&schedule), "ba");
    }

    fn paths(schedule: &AckSchedule<char>) -> String {
        schedule.return_paths(|_| true, Some('z')).collect()
    }

    #[test]
    fn a_duplicate_is_acknowledged_on_its_own_path_too() {
        let mut schedule = AckSchedule::new('a', Time::ZERO);
        schedule.on_duplicate('a');
        assert_eq!(paths(&schedule), "a");
        schedule.on_duplicate('b');
        assert_eq!(paths(&schedule), "ab");
    }

    /// F-40. A route that carried copies for a comparison and gets no more.
    #[test]
    fn data_is_acknowledged_where_it_arrived_before_too() {
        let mut schedule = AckSchedule::new('a', Time::ZERO);
        schedule.on_new_data(1, 'a');
        schedule.on_new_data(1, 'b');
        assert_eq!(paths(&schedule), "ba");
        schedule.on_new_data(1, 'a');
        schedule.on_duplicate('b');
        assert_eq!(paths(&schedule), "ab");
    }

    /// Two opposite half-routes: data on one is acknowledged on the other.
    #[test]
    fn an_unproven_return_path_is_not_the_only_one() {
        let schedule = AckSchedule::new('a', Time::ZERO);
        assert_eq!(schedule.return_paths(|_| false, Some('b')).collect::<String>(), "ab");
        assert_eq!(schedule.return_paths(|_| false, Some('a')).collect::<String>(), "a");
        assert_eq!(schedule.return_paths(|_| false, None).collect::<String>(), "a");
    }
}

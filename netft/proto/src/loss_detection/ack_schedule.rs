//! When data is acknowledged, and where: the receiver's half.

use std::time::Duration;

use crate::{loss_detection::rtt_estimator::MAX_ACK_DELAY, time::Time};

/// Frames that are acknowledged at once.
const MAX_UNACKED_FRAMES: u64 = 256;

/// What is owed for one session's data, from the first frame that is not acknowledged. `W` is a
/// way back, as its owner knows it.
#[derive(Clone, Copy, Debug)]
pub struct AckSchedule<W> {
    since: Time,
    frames: u64,
    /// Where data came last: the only way that is known to work at this moment.
    last_path: W,
    /// Where data came that was here before: its sender sees no acknowledgement, so the other way
    /// back may be dead.
    duplicate_path: Option<W>,
}

impl<W: Copy + PartialEq> AckSchedule<W> {
    /// Owes for data that came this way at this moment.
    pub fn new(way: W, now: Time) -> Self {
        Self { since: now, frames: 0, last_path: way, duplicate_path: None }
    }

    /// New data came.
    pub fn on_new_data(&mut self, frames: u64, way: W) {
        self.frames += frames;
        self.last_path = way;
    }

    /// Data came that was here before.
    pub fn on_duplicate(&mut self, way: W) {
        self.duplicate_path = Some(way);
    }

    /// Whether it is time to acknowledge.
    pub fn is_due(&self, now: Time) -> bool {
        self.frames >= MAX_UNACKED_FRAMES || self.until_due(now).is_zero()
    }

    /// How long it may still wait, if nothing more comes.
    pub fn until_due(&self, now: Time) -> Duration {
        MAX_ACK_DELAY.saturating_sub(now.since(self.since))
    }

    /// The ways the acknowledgement takes. Where data came is known to work in that direction only:
    /// when this node has no proof of the other (`up`), the way of its own data is taken as well.
    pub fn return_paths<U: Fn(W) -> bool>(
        &self,
        up: U,
        own: Option<W>,
    ) -> impl Iterator<Item = W> + use<W, U> {
        let last = self.last_path;
        let repeated = self.duplicate_path.filter(|way| *way != last);
        let own = own.filter(|own| !up(last) && *own != last && Some(*own) != repeated);
        [Some(last), repeated, own].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_due_after_a_while_or_many_frames() {
        let mut debt = AckSchedule::new('a', Time::from_millis(100));
        debt.on_new_data(255, 'a');
        assert!(!debt.is_due(Time::from_millis(104)));
        assert!(debt.is_due(Time::from_millis(105)));
        debt.on_new_data(1, 'b');
        assert!(debt.is_due(Time::from_millis(100)));
        assert_eq!(ways(&debt), "b");
    }

    fn ways(debt: &AckSchedule<char>) -> String {
        debt.return_paths(|_| true, Some('z')).collect()
    }

    #[test]
    fn what_came_again_is_acknowledged_where_it_came_too() {
        let mut debt = AckSchedule::new('a', Time::ZERO);
        debt.on_duplicate('a');
        assert_eq!(ways(&debt), "a");
        debt.on_duplicate('b');
        assert_eq!(ways(&debt), "ab");
    }

    /// Two opposite half-routes: what comes on one is acknowledged on the other.
    #[test]
    fn a_way_that_is_not_proven_back_is_not_the_only_one() {
        let debt = AckSchedule::new('a', Time::ZERO);
        assert_eq!(debt.return_paths(|_| false, Some('b')).collect::<String>(), "ab");
        assert_eq!(debt.return_paths(|_| false, Some('a')).collect::<String>(), "a");
        assert_eq!(debt.return_paths(|_| false, None).collect::<String>(), "a");
    }
}

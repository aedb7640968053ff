//! Hold-down: how long a route that failed has to stay up before data returns to it. Pure.

use std::time::Duration;

use crate::time::Time;

/// The longest hold-down.
pub(crate) const MAX_HOLD: Duration = Duration::from_secs(60);
/// One flap decays after this long without another.
const FLAP_DECAY: Duration = Duration::from_secs(60);

/// Hold-down of one route. It doubles with every flap up to [`MAX_HOLD`] and halves per
/// [`FLAP_DECAY`] without one, so data always returns to a route that stays up.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct HoldDown {
    flaps: u32,
    last_flap: Time,
    /// The route was lost and has not been up since.
    lost: bool,
    /// When data may return, if the route stays up; `None` without a loss.
    until: Option<Time>,
}

impl HoldDown {
    /// The route was up and was lost.
    pub(crate) fn on_lost(&mut self, now: Time) {
        self.flaps = self.unforgiven_flaps(now).saturating_add(1);
        self.last_flap = now;
        self.lost = true;
        self.until = None;
    }

    /// The route is up; `base` is the hold-down after a first failure. A route that never failed is
    /// not held down, and one that was only out of use keeps its hold-down.
    pub(crate) fn on_up(&mut self, now: Time, base: Duration) {
        if std::mem::take(&mut self.lost) {
            self.until = Some(now + self.hold_length(now, base));
        }
    }

    /// Restarts the hold-down with the next [`on_up`](Self::on_up): the route is still worse.
    pub(crate) fn restart_hold(&mut self) {
        self.lost = true;
        self.until = None;
    }

    /// Ends the hold-down: a comparison proved the route better than the one that carries data.
    pub(crate) fn end(&mut self) {
        (self.lost, self.until) = (false, None);
    }

    /// Removes the last flap: the route was not at fault, as when the peer restarted.
    pub(crate) fn forgive_loss(&mut self) {
        if std::mem::take(&mut self.lost) {
            self.flaps = self.flaps.saturating_sub(1);
        }
    }

    /// Forgets an elapsed hold-down when the order of the routes changes: a move that follows is no
    /// failback.
    pub(crate) fn clear_elapsed(&mut self, now: Time) {
        if self.is_over(now) {
            self.until = None;
        }
    }

    /// When the hold-down ends or ended, after a loss.
    pub(crate) fn hold_end(&self) -> Option<Time> {
        self.until
    }

    /// Time until data may return; zero once it may.
    pub(crate) fn time_left(&self, now: Time) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// Flaps that have not decayed: each doubles the hold-down.
    pub(crate) fn flaps(&self, now: Time) -> u32 {
        self.unforgiven_flaps(now)
    }

    /// Returns whether data may move to the route although another one works.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    fn hold_length(&self, now: Time, base: Duration) -> Duration {
        match self.unforgiven_flaps(now) {
            0 => base,
            flaps => base.saturating_mul(1 << (flaps - 1).min(16)).min(MAX_HOLD.max(base)),
        }
    }

    fn unforgiven_flaps(&self, now: Time) -> u32 {
        let quiet = now.since(self.last_flap).as_nanos() / FLAP_DECAY.as_nanos();
        self.flaps.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX)).min(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(1);

    #[test]
    fn the_hold_doubles_with_flaps_is_bounded_and_forgets() {
        let mut hold = HoldDown::default();
        let mut now = Time::from_millis(1000);
        hold.on_up(now, BASE);
        assert!(hold.is_over(now), "a route that never failed is not held");
        let mut lengths = Vec::new();
        for _ in 0..9 {
            hold.on_lost(now);
            hold.on_up(now, BASE);
            lengths.push(hold.until.expect("held").since(now).as_secs());
            now = now + Duration::from_secs(1);
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!((hold.flaps(now), hold.time_left(now)), (9, Duration::from_secs(59)));
        now = now + FLAP_DECAY * 20;
        assert_eq!((hold.flaps(now), hold.time_left(now)), (0, Duration::ZERO));
        hold.on_lost(now);
        hold.on_up(now, BASE);
        assert_eq!(hold.until.expect("held").since(now), BASE);
    }
}

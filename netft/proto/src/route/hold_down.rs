//! How long a route that failed must stay good before data returns to it. Pure.

use std::time::Duration;

use crate::time::Time;

/// The longest hold.
pub(crate) const MAX_HOLD: Duration = Duration::from_secs(60);
/// A flap is forgiven after this long without another.
const FORGIVE: Duration = Duration::from_secs(60);

/// Doubles with every flap up to [`MAX_HOLD`], halves per [`FORGIVE`] of quiet: a healed route
/// always comes back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    flaps: u32,
    last: Time,
    /// Lost, and not up since.
    lost: bool,
    /// Data may return from here on, while the route stays up; `None` if no loss is behind it.
    until: Option<Time>,
}

impl Hold {
    /// The route was up and is lost.
    pub(crate) fn lost(&mut self, now: Time) {
        self.flaps = self.remaining(now).saturating_add(1);
        self.last = now;
        self.lost = true;
        self.until = None;
    }

    /// The route is up; `base` is the hold after a first failure. A route that never failed
    /// is not held, and one that was only out of use is held as it was.
    pub(crate) fn up(&mut self, now: Time, base: Duration) {
        if std::mem::take(&mut self.lost) {
            self.until = Some(now + self.length(now, base));
        }
    }

    /// The route is not good after all: its hold begins anew when it is.
    pub(crate) fn again(&mut self) {
        self.lost = true;
        self.until = None;
    }

    /// The loss was not the route's: the peer restarted.
    pub(crate) fn excuse(&mut self) {
        if std::mem::take(&mut self.lost) {
            self.flaps = self.flaps.saturating_sub(1);
        }
    }

    /// The route's place among the others is new: what comes of it is no return.
    pub(crate) fn settled(&mut self, now: Time) {
        if self.over(now) {
            self.until = None;
        }
    }

    /// When the hold ends or ended, if a loss is behind the route.
    pub(crate) fn until(&self) -> Option<Time> {
        self.until
    }

    /// How long data must still wait before it may return, while a loss is behind the route; zero
    /// once it may.
    pub(crate) fn left(&self, now: Time) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// The flaps that are not forgiven: each doubles the hold.
    pub(crate) fn flaps(&self, now: Time) -> u32 {
        self.remaining(now)
    }

    /// Whether data may move to the route although another one works.
    pub(crate) fn over(&self, now: Time) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    fn length(&self, now: Time, base: Duration) -> Duration {
        match self.remaining(now) {
            0 => base,
            flaps => base.saturating_mul(1 << (flaps - 1).min(16)).min(MAX_HOLD.max(base)),
        }
    }

    fn remaining(&self, now: Time) -> u32 {
        let quiet = now.since(self.last).as_nanos() / FORGIVE.as_nanos();
        self.flaps.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX)).min(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(1);

    #[test]
    fn the_hold_doubles_with_flaps_is_bounded_and_forgets() {
        let mut hold = Hold::default();
        let mut now = Time::from_millis(1000);
        hold.up(now, BASE);
        assert!(hold.over(now), "a route that never failed is not held");
        let mut lengths = Vec::new();
        for _ in 0..9 {
            hold.lost(now);
            hold.up(now, BASE);
            lengths.push(hold.until.expect("held").since(now).as_secs());
            now = now + Duration::from_secs(1);
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!((hold.flaps(now), hold.left(now)), (9, Duration::from_secs(59)));
        now = now + FORGIVE * 20;
        assert_eq!((hold.flaps(now), hold.left(now)), (0, Duration::ZERO));
        hold.lost(now);
        hold.up(now, BASE);
        assert_eq!(hold.until.expect("held").since(now), BASE);
    }
}

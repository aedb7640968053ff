//! The one place where the library's [`Time`] becomes wall-clock time.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use netft::Time;

/// Knows which wall-clock moment one [`Time`] was.
#[derive(Debug)]
pub struct WallClock {
    anchor: Mutex<(Time, SystemTime)>,
}

impl WallClock {
    /// A clock that was read as `now` at this moment.
    pub fn new(now: Time) -> Self {
        Self { anchor: Mutex::new((now, SystemTime::now())) }
    }

    /// Follows steps of the wall clock: `now` was read at this moment.
    pub fn follow_wall_clock(&self, now: Time) {
        self.set_anchor(now, SystemTime::now());
    }

    fn set_anchor(&self, now: Time, wall: SystemTime) {
        *self.lock_anchor() = (now, wall);
    }

    /// `at` as RFC 3339 in UTC, with milliseconds.
    pub fn to_rfc3339(&self, at: Time) -> String {
        let (now, wall) = *self.lock_anchor();
        let wall = if at >= now {
            wall.checked_add(at.since(now))
        } else {
            wall.checked_sub(now.since(at))
        };
        format_rfc3339(wall.unwrap_or(UNIX_EPOCH))
    }

    fn lock_anchor(&self) -> std::sync::MutexGuard<'_, (Time, SystemTime)> {
        self.anchor.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn format_rfc3339(wall: SystemTime) -> String {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month, day of a day number since 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms": years start in March, eras have 400 years).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_right() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399_001, "2100-02-28T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(format_rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn moments_before_and_after_the_anchor_keep_their_distance() {
        let clock = WallClock::new(Time::ZERO);
        clock.set_anchor(Time::from_millis(5000), UNIX_EPOCH + Duration::from_secs(60));
        assert_eq!(clock.to_rfc3339(Time::from_millis(5001)), "1970-01-01T00:01:00.001Z");
        assert_eq!(clock.to_rfc3339(Time::from_millis(4000)), "1970-01-01T00:00:59.000Z");
    }
}

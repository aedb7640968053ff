//! Wall-clock times: RFC 3339 out and in, and the one place where the library's [`Time`] becomes
//! one.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil::DateTime, tz::TimeZone};
use netft::Time;

/// First moment of the year 0000, the first of RFC 3339.
const FIRST_MOMENT: Timestamp = Timestamp::constant(-62_167_219_200, 0);

/// Anchor between the library's clock and the wall clock.
#[derive(Debug)]
pub struct WallClock {
    anchor: Mutex<(Time, SystemTime)>,
}

impl WallClock {
    /// A clock for which `now` is this moment.
    pub fn new(now: Time) -> Self {
        Self { anchor: Mutex::new((now, SystemTime::now())) }
    }

    /// Follows steps of the wall clock: `now` is this moment.
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

    fn lock_anchor(&self) -> MutexGuard<'_, (Time, SystemTime)> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wall clock, milliseconds since 1970.
pub fn wall_clock_ms() -> u64 {
    millis_since_epoch(SystemTime::now())
}

/// Milliseconds since 1970; none before that.
fn millis_since_epoch(wall: SystemTime) -> u64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970 of an RFC 3339 time; `None` for anything else.
pub fn parse_rfc3339_millis(at: &str) -> Option<i64> {
    at.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// An RFC 3339 time in a time zone, with milliseconds; `None` for anything else.
pub fn to_zone(at: &str, zone: &TimeZone) -> Option<String> {
    let moment = at.parse::<Timestamp>().ok()?;
    let offset = zone.to_offset(moment);
    Some(match offset.is_zero() {
        true => format!("{moment:.3}"),
        false => format!("{:.3}", moment.display_with_offset(offset)),
    })
}

/// The time of day of an RFC 3339 time in a time zone; `None` for anything else.
pub fn to_zone_time(at: &str, zone: &TimeZone) -> Option<String> {
    let moment = at.parse::<Timestamp>().ok()?;
    Some(zone.to_datetime(moment).time().strftime("%H:%M:%S").to_string())
}

/// Milliseconds since 1970 of a moment as an operator gives it: an age (`10m`, `1h 30m`), an RFC
/// 3339 time, or a local date and time.
///
/// # Errors
/// Another text.
pub fn parse_moment(text: &str) -> Result<i64, String> {
    let now = Timestamp::now();
    let age = text.parse::<SignedDuration>().ok().filter(|age| !age.is_negative());
    if let Some(moment) = age.and_then(|age| now.checked_sub(age).ok()) {
        return Ok(moment.as_millisecond());
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_millisecond());
    }
    let local = text.parse::<DateTime>().ok();
    let local = local.and_then(|local| TimeZone::system().to_timestamp(local).ok());
    local.map(Timestamp::as_millisecond).ok_or_else(|| {
        "give an age such as 10m or 2h, or a time such as 2026-11-30 14:05 or \
         2026-11-30T14:05:00Z"
            .to_owned()
    })
}

/// A duration as an operator gives it: `90s`, `2h`, `1h 30m`, `3d`.
///
/// # Errors
/// Another text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok();
    let day = SpanRelativeTo::days_are_24_hours();
    let duration = span.and_then(|span| span.to_duration(day).ok());
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration.ok_or_else(|| "give a time such as 90s, 30m, 2h or 3d".to_owned())
}

/// A wall-clock time as RFC 3339; the nearest one that RFC 3339 can tell (years 0000 to 9999).
pub fn format_rfc3339(wall: SystemTime) -> String {
    let nearest = if wall < UNIX_EPOCH { FIRST_MOMENT } else { Timestamp::MAX };
    let moment = Timestamp::try_from(wall).unwrap_or(nearest).max(FIRST_MOMENT);
    format!("{moment:.3}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_written_and_read_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399_001, "2100-02-28T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(format_rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), text);
            assert_eq!(parse_rfc3339_millis(text), i64::try_from(millis).ok());
        }
        let far = |years: u64| Duration::from_secs(years * 31_556_952);
        for (wall, text) in [
            (UNIX_EPOCH.checked_sub(Duration::from_secs(1)), "1969-12-31T23:59:59.000Z"),
            (UNIX_EPOCH.checked_sub(far(3000)), "0000-01-01T00:00:00.000Z"),
            (UNIX_EPOCH.checked_sub(far(20_000)), "0000-01-01T00:00:00.000Z"),
            (UNIX_EPOCH.checked_add(far(20_000)), "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(format_rfc3339(wall.unwrap()), text);
            let is_before = text < "1970";
            assert_eq!(millis_since_epoch(wall.unwrap()) == 0, is_before, "{text}");
        }
        for bad in ["", "x", "2026-11-21", "\u{e4}026-11-21T03:02:00.000Z"] {
            assert_eq!(parse_rfc3339_millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_shown_in_the_readers_zone() {
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        let at = "2026-11-30T23:30:00.123Z";
        assert_eq!(to_zone(at, &berlin).unwrap(), "2026-12-01T00:30:00.123+01:00");
        assert_eq!(to_zone(at, &TimeZone::UTC).unwrap(), at);
        assert_eq!(to_zone("soon", &berlin), None);
        assert_eq!(to_zone_time(at, &berlin).unwrap(), "00:30:00");
        assert_eq!(to_zone_time("soon", &berlin), None);
    }

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        let now = Timestamp::now().as_millisecond();
        let age = now - parse_moment("10m").unwrap();
        assert!((600_000..660_000).contains(&age), "{age}");
        assert_eq!(parse_moment("1970-01-01T00:00:01Z"), Ok(1000));
        assert_eq!(parse_moment("1970-01-01 00:00:01Z"), Ok(1000));
        assert!(parse_moment("2026-11-30 14:05").is_ok());
        for bad in ["", "-10m", "soon", "14"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_has_its_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h 30m", 5400), ("3d", 259_200)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "2", "-2h", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
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

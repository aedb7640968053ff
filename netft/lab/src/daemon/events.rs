//! Events of a daemon, as `netft events -f --json` prints them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;

use crate::{error::LabError, scheduling};

/// Precision of timestamps.
const TIMESTAMP_PRECISION: Duration = Duration::from_millis(1);

/// One event.
#[derive(Clone, Debug)]
pub struct EventLine {
    /// Sequence number.
    pub seq: u64,
    /// Wall-clock time.
    pub at: SystemTime,
    /// Name, such as `state-changed` or `moved`.
    pub name: String,
    /// The whole line.
    pub json: Value,
}

impl EventLine {
    /// An integer field, such as a route.
    pub fn u64_field(&self, key: &str) -> Option<u64> {
        self.json.get(key)?.as_u64()
    }

    /// A truth value, such as `plain`.
    pub fn bool_field(&self, key: &str) -> Option<bool> {
        self.json.get(key)?.as_bool()
    }

    /// A string field, such as a state.
    pub fn str_field(&self, key: &str) -> Option<&str> {
        self.json.get(key)?.as_str()
    }

    /// Returns true when it happened at `moment` or later, within the precision of timestamps.
    pub fn is_at_or_after(&self, moment: SystemTime) -> bool {
        self.at + TIMESTAMP_PRECISION >= moment
    }

    fn parse_line(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let at = parse_rfc3339(line.get("at")?.as_str()?)?;
        let name = line.get("event")?.as_str()?.to_owned();
        let seq = line.get("seq").and_then(Value::as_u64).unwrap_or_default();
        Some(Self { seq, at, name, json: line })
    }
}

/// A running `netft events -f --json`.
#[derive(Debug)]
pub struct EventFollower {
    child: Child,
    seen: Arc<Mutex<Vec<EventLine>>>,
}

impl EventFollower {
    pub(super) fn follow_command(mut command: Command) -> Result<Self, LabError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(LabError::io_error("follow events"))?;
        let seen = Arc::<Mutex<Vec<EventLine>>>::default();
        if let Some(output) = child.stdout.take() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Some(event) = EventLine::parse_line(&line) {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                    }
                }
            });
        }
        Ok(Self { child, seen })
    }

    /// The events seen so far.
    pub fn events_so_far(&self) -> Vec<EventLine> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first event at or after `since` that `want` accepts.
    ///
    /// # Errors
    /// After `limit`, with the events seen.
    pub fn wait_for(
        &self,
        what: &str,
        since: SystemTime,
        limit: Duration,
        want: impl Fn(&EventLine) -> bool,
    ) -> Result<EventLine, LabError> {
        let deadline = Instant::now() + limit;
        loop {
            let seen = self.events_so_far();
            if let Some(event) =
                seen.iter().find(|event| event.is_at_or_after(since) && want(event))
            {
                return Ok(event.clone());
            }
            if Instant::now() > deadline {
                let lines: Vec<String> = seen.iter().map(|event| event.json.to_string()).collect();
                let text = format!("timed out waiting for {what}; events:\n{}", lines.join("\n"));
                return Err(LabError::Daemon(scheduling::blame_wait(
                    deadline - limit,
                    limit,
                    text,
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for EventFollower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an RFC 3339 time.
fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    SystemTime::try_from(text.parse::<jiff::Timestamp>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn wall_clock_times_are_read_exactly() {
        let seconds = |text| {
            parse_rfc3339(text)
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                .map(|d| d.as_micros())
        };
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:00.5Z"), Some(951_825_600_500_000));
        assert_eq!(seconds("2026-11-21T10:35:44.123456Z"), Some(1_795_257_344_123_456));
        assert_eq!(seconds("2026-11-21 10:35"), None);
    }

    #[test]
    fn an_event_is_read_from_its_line() {
        let line = r#"{"seq":7,"at":"2026-11-21T10:35:44.1Z","event":"moved","from":1,"to":null}"#;
        let event = EventLine::parse_line(line).expect("the line is complete");
        assert_eq!((event.seq, event.name.as_str()), (7, "moved"));
        assert_eq!((event.u64_field("from"), event.u64_field("to")), (Some(1), None));
    }
}

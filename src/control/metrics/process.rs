//! Figures of the daemon's process, under the names that every Prometheus client uses.

use std::fs;

use super::page::{MetricKind, MetricsPage};

/// Clock ticks a second in `/proc` (USER_HZ, part of the kernel's ABI).
const USER_HZ: f64 = 100.0;

/// Figures of a process; those that cannot be read are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    threads: Option<u64>,
    open_files: Option<u64>,
}

impl ProcessFigures {
    /// Reads the figures of this process.
    pub fn read_own() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        let figures = Self::parse_texts(
            &read("/proc/self/stat"),
            &read("/proc/self/status"),
            &read("/proc/stat"),
        );
        // The directory itself was open while it was read.
        Self { open_files: files.map(|count| count.saturating_sub(1)), ..figures }
    }

    /// Parses `/proc/self/stat`, `/proc/self/status` and `/proc/stat` (proc(5)).
    fn parse_texts(stat: &str, status: &str, machine: &str) -> Self {
        // The name in parentheses may hold anything; field 3 follows it.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            line[key.len()..].split_whitespace().next()?.parse::<u64>().ok()
        };
        let booted = value(machine, "btime ");
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / USER_HZ),
            start_seconds: booted.zip(field(22)).map(|(boot, at)| boot as f64 + at / USER_HZ),
            resident_bytes: value(status, "VmRSS:").map(|kib| kib * 1024),
            threads: value(status, "Threads:"),
            open_files: None,
        }
    }

    /// Writes the figures that are known.
    pub(super) fn write_to(&self, page: &mut MetricsPage) {
        use MetricKind::{Counter, Gauge};
        let whole = |value: Option<u64>| value.map(|value| value as f64);
        for (name, kind, help, value) in [
            (
                "process_cpu_seconds_total",
                Counter,
                "Processor time, user and system.",
                self.cpu_seconds,
            ),
            (
                "process_start_time_seconds",
                Gauge,
                "Start of the process, seconds since 1970.",
                self.start_seconds,
            ),
            (
                "process_resident_memory_bytes",
                Gauge,
                "Resident memory.",
                whole(self.resident_bytes),
            ),
            ("process_threads", Gauge, "Threads.", whole(self.threads)),
            ("process_open_fds", Gauge, "Open file descriptors.", whole(self.open_files)),
        ] {
            if let Some(value) = value {
                page.write_single_sample(name, kind, help, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_and_nonsense_is_left_out() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 5 0 1000 1 2 3";
        let status = "Name:\tnetftd\nVmRSS:\t   2048 kB\nThreads:\t5\n";
        let found = ProcessFigures::parse_texts(stat, status, "cpu 1\nbtime 1700000000\n");
        let expected = ProcessFigures {
            cpu_seconds: Some(4.0),
            start_seconds: Some(1_700_000_010.0),
            resident_bytes: Some(2 << 20),
            threads: Some(5),
            open_files: None,
        };
        assert_eq!(found, expected);
        assert_eq!(ProcessFigures::parse_texts("", "", "x"), ProcessFigures::default());
    }
}

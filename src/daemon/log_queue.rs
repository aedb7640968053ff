//! Log lines on their way to standard error: a bounded queue and the thread that writes it.
//!
//! A reader that stops, a full disk or a closed pipe holds up the writer thread alone. Bound:
//! [`QUEUE_BYTES`]; beyond it the newest line is dropped. Lost lines are counted, and a line says
//! how many once writing works.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use tracing::Level;

use super::log_format::LineStyle;
use crate::control::log_counts::LogCounts;

/// Bytes that wait for the writer.
const QUEUE_BYTES: usize = 256 << 10;

/// Where lines go.
pub(super) trait LineSink {
    /// Writes a part of `bytes` and returns its length; may wait for a reader.
    ///
    /// # Errors
    /// Of the kernel.
    fn write_part(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// Standard error. One that is non-blocking is waited for.
pub(super) struct StandardError;

impl LineSink for StandardError {
    fn write_part(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The descriptor itself: `std::io::Stderr` has a lock, and reports a closed one as success.
        let fd = io::stderr();
        loop {
            match rustix::io::write(&fd, bytes) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait_writable(fd.as_fd())?,
                other => return Ok(other?),
            }
        }
    }
}

fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct LogQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    counts: Arc<LogCounts>,
    /// Form of its own lines.
    style: LineStyle,
}

#[derive(Debug, Default)]
struct QueueState {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The writer has a line in its hands.
    writing: bool,
    /// Lines dropped as the queue was full, not yet told.
    overflowed: u64,
}

impl LogQueue {
    pub(super) fn new(counts: Arc<LogCounts>, style: LineStyle) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), counts, style }
    }

    /// Adds a line about the log itself, or about the end of the daemon.
    pub(super) fn push_notice(&self, level: Level, text: &str) {
        self.push_line(self.style.notice_line(level, text));
    }

    fn lock_state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line. Never waits; a full queue drops it.
    pub(super) fn push_line(&self, line: Vec<u8>) {
        let mut state = self.lock_state();
        if state.bytes + line.len() > QUEUE_BYTES {
            state.overflowed += 1;
            self.counts.add_lost(1);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        self.changed.notify_all();
    }

    /// Has the writer look at its notices.
    pub(super) fn wake_writer(&self) {
        self.push_line(Vec::new());
    }

    /// Waits until every line is written, at most `limit`.
    pub(super) fn flush_lines(&self, limit: Duration) {
        let is_pending = |state: &mut QueueState| state.writing || !state.lines.is_empty();
        let state = self.lock_state();
        drop(self.changed.wait_timeout_while(state, limit, is_pending));
    }

    /// The next line and the lines dropped so far. `None` at `until`.
    fn take_line(&self, until: Option<Instant>) -> Option<(Vec<u8>, u64)> {
        let mut state = self.lock_state();
        state.writing = false;
        self.changed.notify_all();
        let is_empty = |state: &mut QueueState| state.lines.is_empty();
        state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(limit) => {
                let waited = self.changed.wait_timeout_while(state, limit, is_empty);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait_while(state, is_empty);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        let line = state.lines.pop_front()?;
        state.bytes -= line.len();
        state.writing = true;
        // Lines are dropped behind the queue: reported when it is empty.
        let overflowed =
            if state.lines.is_empty() { std::mem::take(&mut state.overflowed) } else { 0 };
        Some((line, overflowed))
    }
}

#[cfg(test)]
impl LogQueue {
    /// Every line that waits.
    pub(super) fn take_all(&self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lock_state().lines);
        let lines = lines.into_iter().filter(|line| !line.is_empty());
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
    }
}

/// The thread's state: writes the lines of a queue to a sink.
pub(super) struct LineWriter<S> {
    queue: Arc<LogQueue>,
    sink: S,
    /// Lines refused since the last one that was written, and the last error.
    refused: u64,
    last_error: Option<io::Error>,
    /// The sink took a part of a line and refused the rest.
    mid_line: bool,
}

impl<S: LineSink> LineWriter<S> {
    pub(super) fn new(queue: Arc<LogQueue>, sink: S) -> Self {
        Self { queue, sink, refused: 0, last_error: None, mid_line: false }
    }

    /// Writes one line, or returns at `until`.
    pub(super) fn write_next(&mut self, until: Option<Instant>) {
        let Some((line, overflowed)) = self.queue.take_line(until) else { return };
        if self.refused > 0 && !line.is_empty() {
            let cause = self.last_error.as_ref().map_or_else(String::new, ToString::to_string);
            let text = format!("{} log lines were lost: {cause}", self.refused);
            if !self.write_notice(&text) {
                self.count_refused();
                return;
            }
            self.refused = 0;
        }
        if !self.write_line(&line) {
            self.count_refused();
        }
        if overflowed > 0 {
            let text = format!("{overflowed} log lines were lost: nobody read the log in time");
            // Refused: the counter has them.
            self.write_notice(&text);
        }
    }

    fn count_refused(&mut self) {
        self.refused += 1;
        self.queue.counts.add_lost(1);
    }

    fn write_notice(&mut self, text: &str) -> bool {
        let line = self.queue.style.notice_line(Level::WARN, text);
        self.write_line(&line)
    }

    fn write_line(&mut self, line: &[u8]) -> bool {
        if line.is_empty() {
            return true;
        }
        if self.mid_line && !self.write_whole(b"\n") {
            return false;
        }
        self.mid_line = false;
        self.write_whole(line)
    }

    fn write_whole(&mut self, mut rest: &[u8]) -> bool {
        while !rest.is_empty() {
            match self.sink.write_part(rest) {
                Ok(0) => return false,
                Ok(count) => {
                    rest = &rest[count..];
                    self.mid_line = !rest.is_empty();
                }
                Err(error) => {
                    self.last_error = Some(error);
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc;

    use super::*;

    /// A disk of `room` bytes.
    #[derive(Default)]
    struct SmallDisk {
        room: usize,
        text: Vec<u8>,
    }

    impl LineSink for SmallDisk {
        fn write_part(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(Errno::NOSPC.into());
            }
            self.room -= count;
            self.text.extend(&bytes[..count]);
            Ok(count)
        }
    }

    fn writer(sink: SmallDisk) -> (Arc<LogQueue>, LineWriter<SmallDisk>) {
        let queue = Arc::new(LogQueue::new(Arc::default(), LineStyle::default()));
        (Arc::clone(&queue), LineWriter::new(queue, sink))
    }

    #[test]
    fn refused_lines_are_counted_and_told_when_writing_works() {
        let (queue, mut writer) = writer(SmallDisk { room: 9, text: Vec::new() });
        for line in ["one\n", "second\n", "third\n"] {
            queue.push_line(line.into());
            writer.write_next(None);
        }
        assert_eq!(writer.sink.text, b"one\nsecon");
        assert_eq!(queue.counts.read_counts().lost_lines, 2);
        writer.sink.room = 1000;
        queue.push_line("fourth\n".into());
        writer.write_next(None);
        queue.push_line("fifth\n".into());
        writer.write_next(None);
        let text = String::from_utf8(writer.sink.text).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["one", "secon"]);
        assert!(lines[2].contains("WARN 2 log lines were lost: No space left"), "{text}");
        assert_eq!(lines[3..], ["fourth", "fifth"]);
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_tells() {
        let (queue, mut writer) = writer(SmallDisk { room: usize::MAX, text: Vec::new() });
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        (0..300).for_each(|_| queue.push_line(line.clone()));
        assert_eq!(queue.counts.read_counts().lost_lines, 44);
        (0..256).for_each(|_| writer.write_next(None));
        let text = String::from_utf8(writer.sink.text).unwrap();
        assert_eq!(text.lines().count(), 257);
        assert!(text.lines().last().unwrap().contains("44 log lines were lost: nobody read"));
    }

    #[test]
    fn a_reader_that_stopped_holds_up_neither_pushes_nor_the_end() {
        struct Stopped(mpsc::Receiver<()>);
        impl LineSink for Stopped {
            fn write_part(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
        }
        let (resume, stopped) = mpsc::channel();
        let queue = Arc::new(LogQueue::new(Arc::default(), LineStyle::default()));
        let mut writer = LineWriter::new(Arc::clone(&queue), Stopped(stopped));
        let thread = std::thread::spawn(move || writer.write_next(None));
        (0..10_000).for_each(|_| queue.push_line(b"a line that waits for its reader\n".to_vec()));
        assert!(queue.counts.read_counts().lost_lines > 0);
        queue.flush_lines(Duration::from_millis(1));
        drop(resume);
        thread.join().unwrap();
    }
}

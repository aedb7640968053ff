//! Event history over restarts: every event is appended to a file of the state directory, one JSON
//! object a line, and the next start begins with them.
//!
//! Bounds: a file that would outgrow [`MAX_FILE_BYTES`] becomes the former one, and replaces the
//! one before; so at most twice as much is on the disk, and as many events as the journal holds are
//! read. A line that is cut or damaged is skipped. Events that the disk does not take are offered
//! again with the next one, while the journal has them.

use std::{
    fs,
    fs::{DirBuilder, File, OpenOptions},
    io,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::OFlags;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::control::{journal::EventJournal, schema::EventView};

/// Largest file of events, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How long events may be in the page cache only: a power failure loses those.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Largest number of an event that is taken from the disk; JSON readers are exact up to it.
const MAX_EVENT_NUMBER: u64 = 1 << 53;

/// The files of one adapter's events.
#[derive(Clone, Debug)]
pub(super) struct EventHistory {
    path: PathBuf,
    max_bytes: u64,
}

/// The task that writes every event to the disk.
pub(super) struct SavedHistory {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl EventHistory {
    pub(super) fn new(state_dir: &Path, adapter: &str) -> Self {
        let path = state_dir.join(format!("{adapter}.events"));
        Self { path, max_bytes: MAX_FILE_BYTES }
    }

    fn former_path(&self) -> PathBuf {
        self.path.with_extension("events.1")
    }

    /// The events of earlier processes, oldest first.
    pub(super) async fn load(&self) -> Vec<EventView> {
        let history = self.clone();
        spawn_blocking(move || history.read_events()).await.unwrap_or_default()
    }

    fn read_events(&self) -> Vec<EventView> {
        let mut events: Vec<EventView> = Vec::new();
        let mut skipped = 0_usize;
        for path in [self.former_path(), self.path.clone()] {
            let bytes = match self.read_file(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    tracing::warn!("cannot read {}: {error}", path.display());
                    continue;
                }
            };
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let newest = events.last().map_or(0, |event| event.seq);
                match serde_json::from_slice::<EventView>(line) {
                    Ok(event) if (newest + 1..MAX_EVENT_NUMBER).contains(&event.seq) => {
                        events.push(event);
                    }
                    _ => skipped += 1,
                }
            }
        }
        if skipped > 0 {
            tracing::debug!(skipped, "lines of the event history cannot be read");
        }
        events
    }

    /// At most as much of the file as this program writes.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open_own(path, OpenOptions::new().read(true))?
            .take(self.max_bytes)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes every event of `journal` from here on, in a task of its own. `written`: the number of
    /// the last event on the disk.
    pub(super) fn keep_saved(self, journal: Arc<EventJournal>, written: u64) -> SavedHistory {
        let (stop, stopped) = oneshot::channel();
        let writer = HistoryWriter::new(self, written);
        SavedHistory { stop, task: tokio::spawn(writer.save_events(journal, stopped)) }
    }

    /// The file, at the start of a line.
    fn open_file(&self) -> io::Result<File> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let options = &mut OpenOptions::new();
        let mut file = open_own(&self.path, options.read(true).append(true).create(true))?;
        if file.metadata()?.len() > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(file)
    }
}

impl SavedHistory {
    /// Writes what is left, and ends.
    pub(super) async fn finish(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

/// Opens a regular file, and follows no link.
fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.mode(0o600).custom_flags(flags.bits() as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Appends events to the file.
struct HistoryWriter {
    history: EventHistory,
    /// Number of the last event on the disk.
    written: u64,
    /// Number of the last event that the disk was given.
    offered: u64,
    file: Option<File>,
    is_failing: bool,
}

impl HistoryWriter {
    fn new(history: EventHistory, written: u64) -> Self {
        Self { history, written, offered: written, file: None, is_failing: false }
    }

    async fn save_events(mut self, journal: Arc<EventJournal>, stopped: oneshot::Receiver<()>) {
        let mut latest = journal.subscribe();
        let mut stopped = std::pin::pin!(stopped);
        let (mut is_last, mut sync_at) = (false, None);
        while !is_last {
            let due = async {
                match sync_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let sync = tokio::select! {
                biased;
                _ = &mut stopped => {
                    is_last = true;
                    true
                }
                () = due => true,
                _ = latest.wait_for(|seq| *seq > self.offered) => false,
            };
            sync_at = match sync {
                true => None,
                false => sync_at.or_else(|| Some(Instant::now() + SYNC_INTERVAL)),
            };
            let events = journal.events_after(self.written);
            // The task may be dropped while the disk is slow; the write goes on.
            let step = move || {
                self.append_events(&events, sync);
                self
            };
            let Ok(writer) = spawn_blocking(step).await else { return };
            self = writer;
        }
    }

    /// Appends the events; `sync`: to the disk, not only to the kernel.
    fn append_events(&mut self, events: &[EventView], sync: bool) {
        self.offered = events.last().map_or(self.offered, |event| event.seq);
        match self.try_append(events, sync) {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                // A line may be cut: the next attempt begins on a new one.
                self.file = None;
                if !self.is_failing {
                    let path = self.history.path.display();
                    tracing::warn!(
                        "the next start will not know these events: cannot write {path}: {error}"
                    );
                }
                self.is_failing = true;
            }
        }
    }

    fn try_append(&mut self, events: &[EventView], sync: bool) -> io::Result<()> {
        for event in events {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            self.file_for(line.len() as u64)?.write_all(&line)?;
            self.written = event.seq;
        }
        match &self.file {
            Some(file) if sync => file.sync_data(),
            _ => Ok(()),
        }
    }

    /// The file, with room for `more` bytes.
    fn file_for(&mut self, more: u64) -> io::Result<&mut File> {
        let history = &self.history;
        let mut file = match self.file.take() {
            Some(file) => file,
            None => history.open_file()?,
        };
        if file.metadata()?.len() + more > history.max_bytes {
            file.sync_data()?;
            fs::rename(&history.path, history.former_path())?;
            file = history.open_file()?;
        }
        Ok(self.file.insert(file))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::control::schema::EventDetail;

    fn journal_of(history: &EventHistory) -> Arc<EventJournal> {
        Arc::new(EventJournal::with_history(history.read_events()))
    }

    fn tell(journal: &EventJournal, count: u64) {
        for length_ms in 1..=count {
            journal.push("2026-01-01T00:00:00.000Z".to_owned(), EventDetail::Stalled { length_ms });
        }
    }

    fn numbers(events: &[EventView]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[tokio::test]
    async fn events_survive_a_process_that_is_killed_and_go_on_counting() {
        let folder = tempfile::tempdir().unwrap();
        let history = EventHistory::new(&folder.path().join("state"), "netft0");
        assert_eq!(history.load().await, []);
        for run in 0..3 {
            let journal = journal_of(&history);
            let written = *journal.subscribe().borrow();
            assert_eq!(written, run * 4);
            let saved = history.clone().keep_saved(Arc::clone(&journal), written);
            tell(&journal, 4);
            while history.read_events().len() as u64 != written + 4 {
                tokio::task::yield_now().await;
            }
            // As by a signal that kills: no word to the task.
            saved.task.abort();
        }
        let events = history.load().await;
        assert_eq!(numbers(&events), (1..=12).collect::<Vec<_>>());
        let journal = journal_of(&history);
        let saved = history.clone().keep_saved(Arc::clone(&journal), 12);
        tell(&journal, 1);
        saved.finish().await;
        assert_eq!(history.read_events().len(), 13, "what is left is written at the end");
    }

    #[test]
    fn the_files_stay_within_their_bound_and_hold_the_newest_events() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = EventHistory::new(folder.path(), "netft0");
        history.max_bytes = 4096;
        let journal = EventJournal::default();
        let mut writer = HistoryWriter::new(history.clone(), 0);
        for _ in 0..200 {
            tell(&journal, 3);
            writer.append_events(&journal.events_after(writer.written), false);
            let sizes = fs::read_dir(folder.path()).unwrap();
            let sizes = sizes.map(|entry| entry.unwrap().metadata().unwrap().len());
            let sizes: Vec<_> = sizes.collect();
            assert!(sizes.len() <= 2 && sizes.iter().all(|size| *size <= 4096), "{sizes:?}");
        }
        let events = history.read_events();
        let newest = numbers(&events);
        assert_eq!(*newest.last().unwrap(), 600);
        assert_eq!(newest, (newest[0]..=600).collect::<Vec<_>>(), "without a gap");
    }

    #[test]
    fn a_cut_or_damaged_line_costs_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let history = EventHistory::new(folder.path(), "netft0");
        let journal = EventJournal::default();
        let mut writer = HistoryWriter::new(history.clone(), 0);
        tell(&journal, 3);
        writer.append_events(&journal.events_after(0), true);
        let whole = fs::read(&history.path).unwrap();
        for len in 0..whole.len() {
            fs::write(&history.path, &whole[..len]).unwrap();
            let left = history.read_events();
            // The next process goes on behind the cut.
            let next = EventJournal::with_history(left.clone());
            let written = left.last().map_or(0, |event| event.seq);
            let mut writer = HistoryWriter::new(history.clone(), written);
            tell(&next, 1);
            writer.append_events(&next.events_after(writer.written), false);
            assert_eq!(history.read_events().len(), left.len() + 1, "cut at {len}");
        }
        let damaged = [&whole[..], b"\xff\xfe\n{}\n{\"seq\":2}\n", &whole].concat();
        fs::write(&history.path, damaged).unwrap();
        assert_eq!(numbers(&history.read_events()), [1, 2, 3]);
        // A number that would leave no room for the next one.
        let text = String::from_utf8(whole).unwrap();
        let huge = text.replace("\"seq\":3", &format!("\"seq\":{}", u64::MAX));
        fs::write(&history.path, huge).unwrap();
        assert_eq!(numbers(&history.read_events()), [1, 2]);
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_the_history_alone() {
        let folder = tempfile::tempdir().unwrap();
        // A link is not followed.
        std::os::unix::fs::symlink(
            folder.path().join("other"),
            folder.path().join("netft0.events"),
        )
        .unwrap();
        let history = EventHistory::new(folder.path(), "netft0");
        let journal = EventJournal::default();
        let mut writer = HistoryWriter::new(history.clone(), 0);
        tell(&journal, 2);
        writer.append_events(&journal.events_after(0), true);
        assert!(writer.is_failing && !folder.path().join("other").exists());
        fs::remove_file(&history.path).unwrap();
        tell(&journal, 1);
        writer.append_events(&journal.events_after(writer.written), true);
        assert!(!writer.is_failing);
        assert_eq!(numbers(&history.read_events()), [1, 2, 3]);
    }
}

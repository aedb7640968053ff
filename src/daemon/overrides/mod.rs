//! The operator's overrides over restarts: every change is on the disk before its command is
//! answered, and the next start begins with them.

mod file;
mod stored;

use std::{path::Path, time::Duration};

use netft::api::overrides::{OperatorOverrides, PublishedOverrides};
use tokio::{sync::watch, time::timeout};

use self::file::OverrideFile;
use crate::clock::wall_clock_ms;

/// Interval of the attempts while the disk refuses the file.
const SAVE_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The outcome of the last attempt to write the overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SaveOutcome {
    /// The overrides it was about, by their revision.
    revision: u64,
    /// Why they are not on the disk.
    problem: Option<String>,
}

/// The overrides, and how far they are on the disk.
#[derive(Debug)]
pub(super) struct SavedOverrides {
    overrides: watch::Receiver<PublishedOverrides>,
    outcome: watch::Receiver<SaveOutcome>,
}

/// The file of the overrides, with what it said at the start.
pub(super) struct OverrideStore {
    file: OverrideFile,
    /// The overrides of the former run.
    pub(super) overrides: OperatorOverrides,
    /// Why the file could not be used, and what became of it.
    pub(super) problem: Option<String>,
    /// Interval of the attempts while the disk refuses the file.
    retry_interval: Duration,
}

impl OverrideStore {
    /// Reads the overrides of `adapter` in the state directory.
    pub(super) fn open(state_dir: &Path, adapter: &str) -> Self {
        let file = OverrideFile::new(state_dir, adapter);
        let (overrides, problem) = match file.load(wall_clock_ms()) {
            Ok(overrides) => (overrides, None),
            Err(problem) => (OperatorOverrides::default(), Some(problem)),
        };
        Self { file, overrides, problem, retry_interval: SAVE_RETRY_INTERVAL }
    }

    /// Checks that this program can read the file, and leaves it as it is.
    ///
    /// # Errors
    /// It cannot.
    pub(super) fn check(state_dir: &Path, adapter: &str) -> Result<(), String> {
        OverrideFile::new(state_dir, adapter).check(wall_clock_ms())
    }

    /// Writes every change of `overrides` to the disk, in a task that ends with their sender.
    pub(super) fn keep_saved(
        self,
        overrides: watch::Receiver<PublishedOverrides>,
    ) -> SavedOverrides {
        let (outcome_tx, outcome) = watch::channel(SaveOutcome::default());
        let retry = self.retry_interval;
        tokio::spawn(save_changes(self.file, retry, overrides.clone(), outcome_tx));
        SavedOverrides { overrides, outcome }
    }
}

impl SavedOverrides {
    /// Waits until the present overrides are on the disk, at most `wait`; else the reason. Without
    /// time to wait: that of the last attempt.
    pub(super) async fn wait_saved(&self, wait: Duration) -> Option<String> {
        if wait.is_zero() {
            return self.outcome.borrow().problem.clone();
        }
        let revision = self.overrides.borrow().revision;
        let mut outcome = self.outcome.clone();
        let saved = outcome.wait_for(|outcome| outcome.revision >= revision);
        match timeout(wait, saved).await {
            Ok(Ok(outcome)) => outcome.problem.clone(),
            Ok(Err(_)) => Some("netftd is stopping".to_owned()),
            Err(_) => Some(format!("the disk has not taken them within {} ms", wait.as_millis())),
        }
    }
}

async fn save_changes(
    file: OverrideFile,
    retry_interval: Duration,
    mut overrides: watch::Receiver<PublishedOverrides>,
    outcome: watch::Sender<SaveOutcome>,
) {
    loop {
        let is_failing = outcome.borrow().problem.is_some();
        let changed = match is_failing {
            true => timeout(retry_interval, overrides.changed()).await.unwrap_or(Ok(())),
            false => overrides.changed().await,
        };
        if changed.is_err() {
            return;
        }
        let PublishedOverrides { revision, overrides } = overrides.borrow_and_update().clone();
        let (writer, count) = (file.clone(), overrides.routes.len() + overrides.interfaces.len());
        // The task may be dropped while the disk is slow; the write goes on.
        let written = tokio::task::spawn_blocking(move || writer.save(&overrides)).await;
        let problem = written.unwrap_or_else(|error| Err(error.to_string())).err();
        match &problem {
            Some(problem) if !is_failing => {
                tracing::error!("overrides are in force only until netftd stops: {problem}");
            }
            Some(problem) => tracing::debug!(problem, "overrides not saved"),
            None => tracing::debug!(revision, count, "overrides saved"),
        }
        outcome.send_replace(SaveOutcome { revision, problem });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    const SAVE_TIMEOUT: Duration = Duration::from_secs(60);

    fn drained(name: &str) -> PublishedOverrides {
        let mut overrides = OperatorOverrides::default();
        overrides.drain_interface(name, None, &[]).unwrap();
        PublishedOverrides { revision: 1, overrides }
    }

    #[tokio::test]
    async fn a_change_is_on_the_disk_once_the_wait_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state");
        let (changes, overrides) = watch::channel(PublishedOverrides::default());
        let saved = OverrideStore::open(&dir, "netft0").keep_saved(overrides);
        assert_eq!(saved.wait_saved(Duration::ZERO).await, None, "nothing to save");
        changes.send_replace(drained("eth0"));
        assert_eq!(saved.wait_saved(SAVE_TIMEOUT).await, None);
        let next = OverrideStore::open(&dir, "netft0");
        assert_eq!((next.overrides, next.problem), (drained("eth0").overrides, None));
        drop(changes);
        assert_eq!(saved.wait_saved(SAVE_TIMEOUT).await, None, "what is saved stays saved");
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_tried_again_and_the_wait_says_so() {
        let folder = tempfile::tempdir().unwrap();
        // A file in place of the directory refuses root too.
        let dir = folder.path().join("state");
        fs::write(&dir, "").unwrap();
        let (changes, overrides) = watch::channel(PublishedOverrides::default());
        let mut store = OverrideStore::open(&dir, "netft0");
        store.retry_interval = Duration::from_millis(5);
        let saved = store.keep_saved(overrides);
        changes.send_replace(drained("eth0"));
        let problem = saved.wait_saved(SAVE_TIMEOUT).await.unwrap();
        assert!(problem.contains("cannot write") && problem.contains("state"), "{problem}");
        fs::remove_file(&dir).unwrap();
        let mut outcome = saved.outcome.clone();
        outcome.wait_for(|outcome| outcome.problem.is_none()).await.unwrap();
        assert_eq!(OverrideStore::open(&dir, "netft0").overrides, drained("eth0").overrides);
    }
}

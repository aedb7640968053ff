//! Log and vote on disk. Every write is on the disk (fsync) before it is acknowledged: redb commits
//! that way.

use std::{fmt::Debug, ops::RangeBounds, path::Path, sync::Arc};

use openraft::{
    AnyError, Entry, ErrorSubject, ErrorVerb, LogId, LogState, RaftLogReader, StorageError,
    StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use super::types::OwnershipLog;

/// Entries by index.
const LOG_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Vote, last purged entry, snapshot.
const META_TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const VOTE_KEY: &str = "vote";
const PURGED_KEY: &str = "purged";
const SNAPSHOT_KEY: &str = "snapshot";

type StoreResult<T> = Result<T, AnyError>;
type RaftStorageError = StorageError<u64>;

/// The store of one node.
#[derive(Clone)]
pub(super) struct OwnershipStore {
    db: Arc<Database>,
}

impl OwnershipStore {
    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// It is damaged, locked or cannot be created: in words for the operator.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let open = || -> StoreResult<Database> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|e| AnyError::new(&e))?;
            }
            let db = Database::create(path).map_err(|e| AnyError::new(&e))?;
            let write = db.begin_write().map_err(|e| AnyError::new(&e))?;
            write.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
            write.open_table(META_TABLE).map_err(|e| AnyError::new(&e))?;
            write.commit().map_err(|e| AnyError::new(&e))?;
            Ok(db)
        };
        let failed = |error: AnyError| {
            format!(
                "the ownership store {} is not usable ({error}): this node does not vote, so that \
                 it cannot vote twice. If the file is lost, remove the node from \
                 `ownership.voters` on all nodes, delete the file, and add it again",
                path.display()
            )
        };
        let store = Self { db: Arc::new(open().map_err(failed)?) };
        store.check_entries().map_err(failed)?;
        Ok(store)
    }

    /// Reads everything once: damage shows now, not in an election.
    fn check_entries(&self) -> StoreResult<()> {
        self.read_meta::<Vote<u64>>(VOTE_KEY)?;
        self.read_meta::<LogId<u64>>(PURGED_KEY)?;
        let mut expected = None;
        for entry in self.read_entries(..)? {
            if expected.is_some_and(|index| index != entry.log_id.index) {
                return Err(AnyError::error(format!("a gap before entry {}", entry.log_id.index)));
            }
            expected = Some(entry.log_id.index + 1);
        }
        Ok(())
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &str) -> StoreResult<Option<T>> {
        let read = self.db.begin_read().map_err(|e| AnyError::new(&e))?;
        let table = read.open_table(META_TABLE).map_err(|e| AnyError::new(&e))?;
        let value = table.get(key).map_err(|e| AnyError::new(&e))?;
        value
            .map(|bytes| serde_json::from_slice(bytes.value()).map_err(|e| AnyError::new(&e)))
            .transpose()
    }

    fn read_entries(&self, range: impl RangeBounds<u64>) -> StoreResult<Vec<Entry<OwnershipLog>>> {
        let read = self.db.begin_read().map_err(|e| AnyError::new(&e))?;
        let table = read.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
        let rows = table.range(range).map_err(|e| AnyError::new(&e))?;
        rows.map(|row| {
            let (_, bytes) = row.map_err(|e| AnyError::new(&e))?;
            serde_json::from_slice(bytes.value()).map_err(|e| AnyError::new(&e))
        })
        .collect()
    }

    /// Runs `change` in a transaction on a blocking thread, and commits it to the disk.
    async fn commit(
        &self,
        change: impl FnOnce(&WriteTransaction) -> StoreResult<()> + Send + 'static,
    ) -> StoreResult<()> {
        let db = Arc::clone(&self.db);
        let work = move || {
            let write = db.begin_write().map_err(|e| AnyError::new(&e))?;
            change(&write)?;
            write.commit().map_err(|e| AnyError::new(&e))
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| AnyError::new(&e))?
    }

    async fn write_meta(&self, key: &'static str, value: &impl Serialize) -> StoreResult<()> {
        let bytes = serde_json::to_vec(value).map_err(|e| AnyError::new(&e))?;
        self.commit(move |write| put_meta(write, key, &bytes)).await
    }

    /// The last snapshot.
    // The error is the one that openraft's traits return.
    #[allow(clippy::result_large_err)]
    pub(super) fn read_snapshot<T: DeserializeOwned>(&self) -> Result<Option<T>, RaftStorageError> {
        self.read_meta(SNAPSHOT_KEY)
            .map_err(|e| io_error(ErrorSubject::Snapshot(None), ErrorVerb::Read, e))
    }

    /// Replaces the snapshot.
    pub(super) async fn write_snapshot(
        &self,
        snapshot: &impl Serialize,
    ) -> Result<(), RaftStorageError> {
        let written = self.write_meta(SNAPSHOT_KEY, snapshot).await;
        written.map_err(|e| io_error(ErrorSubject::Snapshot(None), ErrorVerb::Write, e))
    }
}

fn put_meta(write: &WriteTransaction, key: &str, bytes: &[u8]) -> StoreResult<()> {
    let mut table = write.open_table(META_TABLE).map_err(|e| AnyError::new(&e))?;
    table.insert(key, bytes).map_err(|e| AnyError::new(&e))?;
    Ok(())
}

fn io_error(subject: ErrorSubject<u64>, verb: ErrorVerb, error: AnyError) -> RaftStorageError {
    tracing::error!(%error, "the ownership store failed: this node stops voting");
    StorageIOError::new(subject, verb, error).into()
}

impl RaftLogReader<OwnershipLog> for OwnershipStore {
    async fn try_get_log_entries<R>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<OwnershipLog>>, RaftStorageError>
    where
        R: RangeBounds<u64> + Clone + Debug + openraft::OptionalSend,
    {
        self.read_entries(range).map_err(|e| io_error(ErrorSubject::Logs, ErrorVerb::Read, e))
    }
}

impl RaftLogStorage<OwnershipLog> for OwnershipStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<OwnershipLog>, RaftStorageError> {
        let read = || -> StoreResult<LogState<OwnershipLog>> {
            let last_purged_log_id: Option<LogId<u64>> = self.read_meta(PURGED_KEY)?;
            let read = self.db.begin_read().map_err(|e| AnyError::new(&e))?;
            let table = read.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
            let last = table.last().map_err(|e| AnyError::new(&e))?;
            let last = last
                .map(|(_, bytes)| serde_json::from_slice::<Entry<OwnershipLog>>(bytes.value()))
                .transpose()
                .map_err(|e| AnyError::new(&e))?;
            let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
            Ok(LogState { last_purged_log_id, last_log_id })
        };
        read().map_err(|e| io_error(ErrorSubject::Logs, ErrorVerb::Read, e))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), RaftStorageError> {
        let saved = self.write_meta(VOTE_KEY, vote).await;
        saved.map_err(|e| io_error(ErrorSubject::Vote, ErrorVerb::Write, e))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, RaftStorageError> {
        self.read_meta(VOTE_KEY).map_err(|e| io_error(ErrorSubject::Vote, ErrorVerb::Read, e))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<OwnershipLog>,
    ) -> Result<(), RaftStorageError>
    where
        I: IntoIterator<Item = Entry<OwnershipLog>> + openraft::OptionalSend,
        I::IntoIter: openraft::OptionalSend,
    {
        let encode = |entry: Entry<OwnershipLog>| {
            let bytes = serde_json::to_vec(&entry).map_err(|e| AnyError::new(&e))?;
            Ok((entry.log_id.index, bytes))
        };
        let rows: StoreResult<Vec<_>> = entries.into_iter().map(encode).collect();
        let appended = match rows {
            Ok(rows) => {
                self.commit(move |write| {
                    let mut table = write.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
                    for (index, bytes) in rows {
                        table.insert(index, bytes.as_slice()).map_err(|e| AnyError::new(&e))?;
                    }
                    Ok(())
                })
                .await
            }
            Err(error) => Err(error),
        };
        match appended {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.to_string())));
                Err(io_error(ErrorSubject::Logs, ErrorVerb::Write, error))
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), RaftStorageError> {
        let removed = self
            .commit(move |write| {
                let mut table = write.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
                table.retain_in(log_id.index.., |_, _| false).map_err(|e| AnyError::new(&e))
            })
            .await;
        removed.map_err(|e| io_error(ErrorSubject::Log(log_id), ErrorVerb::Delete, e))
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), RaftStorageError> {
        let purge = async {
            let bytes = serde_json::to_vec(&log_id).map_err(|e| AnyError::new(&e))?;
            self.commit(move |write| {
                put_meta(write, PURGED_KEY, &bytes)?;
                let mut table = write.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
                table.retain_in(..=log_id.index, |_, _| false).map_err(|e| AnyError::new(&e))
            })
            .await
        };
        purge.await.map_err(|e| io_error(ErrorSubject::Log(log_id), ErrorVerb::Delete, e))
    }
}

//! Log and vote on disk. Every write is on the disk (fsync) before it is acknowledged. It is
//! committed in two phases, so that redb takes damage of the newest commit for damage: with one
//! phase it would take it for a crash, and go back to the commit before, without the last vote.

use std::{
    fmt::Debug,
    ops::RangeBounds,
    panic,
    path::{Path, PathBuf},
    sync::Arc,
};

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
/// Written whenever the store is opened, with a value of this length, bytes.
const ROOM_KEY: &str = "room";
const ROOM_PROBE_LEN: usize = 128 * 1024;

type StoreResult<T> = Result<T, AnyError>;
type RaftStorageError = StorageError<u64>;

/// Why the store cannot be used; in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreProblem {
    /// The former process or task that used it has not ended.
    #[error("{0}")]
    InUse(String),
    /// The disk is full, or refuses it.
    #[error("{0}")]
    Unusable(String),
    /// Its content is not what was written, or it is gone.
    #[error("{0}")]
    Damaged(String),
}

/// The store of one node.
#[derive(Clone)]
pub(super) struct OwnershipStore {
    db: Arc<Database>,
}

impl OwnershipStore {
    /// Opens the store and reads everything once: damage shows now, not in an election.
    ///
    /// # Errors
    /// It is damaged, locked, or cannot be read or written.
    pub(super) fn open(path: &Path, may_create: bool) -> Result<Self, StoreProblem> {
        // redb and the checks may panic on a file that nobody wrote so.
        let opened = panic::catch_unwind(|| Self::open_checked(path, may_create));
        let panicked = |_| Err(StoreOpenError::Damaged("its content makes no sense".to_owned()));
        opened.unwrap_or_else(panicked).map_err(|error| error.describe(path))
    }

    fn open_checked(path: &Path, may_create: bool) -> Result<Self, StoreOpenError> {
        let mut db = if path.exists() {
            let db = Database::open(path)?;
            std::fs::File::create(marker_path(path))?;
            db
        } else if may_create && !marker_path(path).exists() {
            create_database(path)?
        } else {
            return Err(StoreOpenError::Damaged("the file is gone".to_owned()));
        };
        if !db.check_integrity()? {
            return Err(StoreOpenError::Damaged("it does not match its checksums".to_owned()));
        }
        let store = Self { db: Arc::new(db) };
        store.check_entries().map_err(|error| StoreOpenError::Damaged(error.to_string()))?;
        // A disk that is full shows here, and not in the next election. What the file grows by is
        // free in it afterwards.
        let probe = vec![0; ROOM_PROBE_LEN];
        let written = write_durably(&store.db, |write| put_meta(write, ROOM_KEY, &probe));
        let freed =
            written.and_then(|()| write_durably(&store.db, |write| put_meta(write, ROOM_KEY, &[])));
        freed.map_err(|error| StoreOpenError::Disk(error.to_string()))?;
        Ok(store)
    }

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
        let work = move || write_durably(&db, change);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| AnyError::new(&e))?
    }

    async fn write_meta(&self, key: &'static str, value: &impl Serialize) -> StoreResult<()> {
        let bytes = serde_json::to_vec(value).map_err(|e| AnyError::new(&e))?;
        self.commit(move |write| put_meta(write, key, &bytes)).await
    }

    /// Writes entries at the end of the log.
    pub(super) async fn append_entries(
        &self,
        entries: impl IntoIterator<Item = Entry<OwnershipLog>>,
    ) -> StoreResult<()> {
        let encode = |entry: Entry<OwnershipLog>| {
            let bytes = serde_json::to_vec(&entry).map_err(|e| AnyError::new(&e))?;
            Ok((entry.log_id.index, bytes))
        };
        let rows: StoreResult<Vec<_>> = entries.into_iter().map(encode).collect();
        let rows = rows?;
        self.commit(move |write| {
            let mut table = write.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
            for (index, bytes) in rows {
                table.insert(index, bytes.as_slice()).map_err(|e| AnyError::new(&e))?;
            }
            Ok(())
        })
        .await
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

/// Runs `change` in a transaction, and commits it to the disk.
fn write_durably(
    db: &Database,
    change: impl FnOnce(&WriteTransaction) -> StoreResult<()>,
) -> StoreResult<()> {
    let mut write = db.begin_write().map_err(|e| AnyError::new(&e))?;
    write.set_two_phase_commit(true);
    change(&write)?;
    write.commit().map_err(|e| AnyError::new(&e))
}

/// The file that outlives a store that somebody deletes: this node has voted.
fn marker_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".known");
    name.into()
}

/// Forgets that this node voted: the other voters have removed it from their number.
pub(super) fn forget_store(store: &Path) {
    match std::fs::remove_file(marker_path(store)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, "ownership: the mark of a former voter stays");
        }
        _ => {}
    }
}

/// Creates the file whole: one that is there was complete once.
fn create_database(path: &Path) -> Result<Database, StoreOpenError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let begun = path.with_extension("new");
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let db = Database::create(&begun)?;
    let created = write_durably(&db, |write| {
        write.open_table(LOG_TABLE).map_err(|e| AnyError::new(&e))?;
        write.open_table(META_TABLE).map_err(|e| AnyError::new(&e))?;
        Ok(())
    });
    created.map_err(|error| StoreOpenError::Disk(error.to_string()))?;
    std::fs::File::create(marker_path(path))?.sync_all()?;
    std::fs::rename(&begun, path)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(db)
}

/// Why the file could not be opened.
#[derive(Debug)]
enum StoreOpenError {
    InUse,
    Disk(String),
    Damaged(String),
}

impl From<std::io::Error> for StoreOpenError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // Not what redb writes, or shorter.
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Disk(error.to_string()),
        }
    }
}

impl From<redb::Error> for StoreOpenError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::PreviousIo => Self::Disk(error.to_string()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<redb::DatabaseError> for StoreOpenError {
    fn from(error: redb::DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}

impl StoreOpenError {
    fn describe(self, path: &Path) -> StoreProblem {
        let path = path.display();
        match self {
            Self::InUse => StoreProblem::InUse(format!(
                "the ownership store {path} is used by another process: this node does not vote"
            )),
            Self::Disk(error) => StoreProblem::Unusable(format!(
                "the ownership store {path} cannot be written ({error}): this node does not vote \
                 until it can; make room on its disk, or give netftd the right to write it"
            )),
            Self::Damaged(error) => StoreProblem::Damaged(format!(
                "the ownership store {path} is damaged ({error}): this node does not vote, so that \
                 it cannot vote twice. Remove the node from `ownership.voters` on all nodes, \
                 delete the file, and add it again"
            )),
        }
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
        let appended = self.append_entries(entries).await;
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

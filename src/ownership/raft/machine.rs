//! The replicated state of one node, and its snapshots.

use std::{
    io::Cursor,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use netft::vip::{FencingToken, ownership::OwnershipState};
use openraft::{
    AnyError, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership, storage::RaftStateMachine,
};
use serde::{Deserialize, Serialize};

use super::{store::OwnershipStore, types::OwnershipLog};

/// State after the entries that were applied.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId<u64>>,
    membership: StoredMembership<u64, openraft::BasicNode>,
    state: OwnershipState,
}

/// The state, shared by raft, which changes it, and the engine, which reads it.
#[derive(Clone)]
pub(super) struct OwnershipMachine {
    applied: Arc<Mutex<Applied>>,
    store: OwnershipStore,
}

impl OwnershipMachine {
    /// The state of the last snapshot; the entries after it are applied again.
    pub(super) fn restore(store: OwnershipStore) -> Result<Self, String> {
        let snapshot = store.read_snapshot().map_err(|error| error.to_string())?;
        Ok(Self { applied: Arc::new(Mutex::new(snapshot.unwrap_or_default())), store })
    }

    /// Reads the state.
    pub(super) fn with_state<T>(&self, read: impl FnOnce(&OwnershipState) -> T) -> T {
        read(&self.lock_applied().state)
    }

    fn lock_applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The error is the one that openraft's traits return.
    #[allow(clippy::result_large_err)]
    fn to_snapshot(applied: &Applied) -> Result<Snapshot<OwnershipLog>, StorageError<u64>> {
        let bytes = serde_json::to_vec(applied)
            .map_err(|e| StorageIOError::write_snapshot(None, AnyError::new(&e)))?;
        let snapshot_id = applied.last.map_or_else(String::new, |last| last.to_string());
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
            snapshot_id,
        };
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}

impl RaftSnapshotBuilder<OwnershipLog> for OwnershipMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<OwnershipLog>, StorageError<u64>> {
        let applied = self.lock_applied().clone();
        self.store.write_snapshot(&applied).await?;
        Self::to_snapshot(&applied)
    }
}

impl RaftStateMachine<OwnershipLog> for OwnershipMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, openraft::BasicNode>), StorageError<u64>>
    {
        let applied = self.lock_applied();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<bool>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<OwnershipLog>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.lock_applied();
        let apply = |entry: Entry<OwnershipLog>| {
            applied.last = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Blank => false,
                EntryPayload::Normal(command) => {
                    let (term, index) = (entry.log_id.leader_id.term, entry.log_id.index);
                    applied.state.apply_command(FencingToken { term, index }, &command)
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    false
                }
            }
        };
        Ok(entries.into_iter().map(apply).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let applied: Applied = serde_json::from_slice(snapshot.get_ref()).map_err(|e| {
            StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&e))
        })?;
        self.store.write_snapshot(&applied).await?;
        *self.lock_applied() = applied;
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<OwnershipLog>>, StorageError<u64>> {
        let snapshot: Option<Applied> = self.store.read_snapshot()?;
        snapshot.as_ref().map(Self::to_snapshot).transpose()
    }
}

//! Content of etcd as a node reads and writes it.

use std::collections::{BTreeMap, BTreeSet};

/// The etcd server that answered, and the raft term that it had applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdServer {
    /// Number of the server.
    pub member: u64,
    /// Raft term of the last entry that it had applied.
    pub term: u64,
}

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdEntry {
    /// The key without the prefix of all keys.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Revision that created it.
    pub created: u64,
    /// Lease that it lives with; 0: none.
    pub lease: i64,
}

/// The owner of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnerEntry {
    /// Name of the node, and number of its key.
    pub(super) owner: String,
    pub(super) created: u64,
    pub(super) lease: i64,
}

/// All keys, by one linearizable read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdView {
    pub(super) server: EtcdServer,
    pub(super) owners: BTreeMap<String, OwnerEntry>,
    pub(super) able: BTreeMap<String, BTreeSet<String>>,
    pub(super) leases: BTreeMap<String, i64>,
    pub(super) pins: BTreeMap<String, String>,
}

impl EtcdView {
    /// Sorts what was read. Keys of other kinds are left out.
    pub fn new(server: EtcdServer, entries: impl IntoIterator<Item = EtcdEntry>) -> Self {
        let mut view = Self {
            server,
            owners: BTreeMap::new(),
            able: BTreeMap::new(),
            leases: BTreeMap::new(),
            pins: BTreeMap::new(),
        };
        for EtcdEntry { key, value, created, lease } in entries {
            match key.split_once('/') {
                Some(("vip", name)) => {
                    let entry = OwnerEntry { owner: value, created, lease };
                    view.owners.insert(name.to_owned(), entry);
                }
                Some(("node", name)) => {
                    let able = value.split_whitespace().map(str::to_owned).collect();
                    view.able.insert(name.to_owned(), able);
                    view.leases.insert(name.to_owned(), lease);
                }
                Some(("pin", name)) => {
                    view.pins.insert(name.to_owned(), value);
                }
                _ => {}
            }
        }
        view
    }

    /// The owner's name.
    pub(super) fn owner_name(&self, vip: &str) -> Option<&str> {
        self.owners.get(vip).map(|entry| node_of(&entry.owner))
    }
}

/// The name in an owner's value.
pub(super) fn node_of(owner: &str) -> &str {
    owner.split(' ').next().unwrap_or(owner)
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtcdWrite {
    /// Writes a key whatever it holds, under a lease.
    Put {
        /// The key without the prefix.
        key: String,
        /// Its value.
        value: String,
        /// The lease.
        lease: i64,
    },
    /// Creates a key that is not there, under a lease.
    Create {
        /// The key without the prefix.
        key: String,
        /// Its value.
        value: String,
        /// The lease.
        lease: i64,
    },
    /// Moves a key that is the one created at `created`, under `old_lease`, to another lease.
    Adopt {
        /// The key without the prefix.
        key: String,
        /// Its value.
        value: String,
        /// Revision that created it.
        created: u64,
        /// The lease that it lives with.
        old_lease: i64,
        /// The new lease.
        lease: i64,
    },
    /// Deletes a key that is the one created at `created`.
    Delete {
        /// The key without the prefix.
        key: String,
        /// Revision that created it.
        created: u64,
    },
}

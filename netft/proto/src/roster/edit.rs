//! Changes of a roster by its writer: each gives the next version, which is then signed.

use crate::{
    config::MAX_PEERS,
    ids::NodeKey,
    roster::{
        assign,
        document::{NodeAddress, NodeRole, Roster, RosterNode},
    },
};

/// Reason for refusing a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// No node has this name.
    #[error("the cluster has no node {0:?}")]
    UnknownNode(String),
    /// Another node has this name.
    #[error(
        "the cluster has a node {0:?} with another key; choose another name, or remove it first"
    )]
    NameTaken(String),
    /// Another node has this key.
    #[error("this key belongs to node {0:?}; give each node its own with `netft keygen`")]
    KeyTaken(String),
    /// Another node has this address.
    #[error("address {address} belongs to node {owner:?}")]
    AddressTaken {
        /// The address.
        address: String,
        /// Its node.
        owner: String,
    },
    /// The node has no key that could replace its own.
    #[error("node {0:?} has no next key")]
    NoNextKey(String),
    /// More nodes than one node can know.
    #[error("the cluster has {0} nodes already, the most one node can know")]
    Full(usize),
    /// A key of low order.
    #[error(transparent)]
    Key(#[from] crate::ids::NodeKeyError),
}

/// A node to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// Its physical addresses.
    pub addresses: Vec<NodeAddress>,
    /// Its site; empty: none.
    pub site: String,
    /// Its roles; none: member.
    pub roles: Vec<NodeRole>,
}

/// A change of one node; `None` leaves a setting as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// Its name.
    pub name: Option<String>,
    /// Its physical addresses, all of them.
    pub addresses: Option<Vec<NodeAddress>>,
    /// Its site; empty: none.
    pub site: Option<String>,
    /// Its roles.
    pub roles: Option<Vec<NodeRole>>,
}

impl Roster {
    /// The next version, with one more node, which gets virtual addresses of its own.
    ///
    /// # Errors
    /// [`EditError`]; a node that is there already, under this name and key, is none: its
    /// addresses, site and roles are replaced.
    pub fn with_node(&self, entry: NodeEntry) -> Result<Self, EditError> {
        // The text form refuses a weak key as well.
        entry.key.to_string().parse::<NodeKey>()?;
        let NodeEntry { name, key, addresses, site, roles } = entry;
        match (self.node_named(&name), self.node_with_key(&key)) {
            (Some(node), _) if node.owns_key(&key) => {
                let (addresses, site, roles) = (Some(addresses), Some(site), Some(roles));
                return self.with_change(&name, NodeChange { name: None, addresses, site, roles });
            }
            (Some(_), _) => return Err(EditError::NameTaken(name)),
            (None, Some(other)) => return Err(EditError::KeyTaken(other.name.clone())),
            (None, None) => {}
        }
        if self.nodes.len() > MAX_PEERS {
            return Err(EditError::Full(self.nodes.len()));
        }
        let addrs = assign::assign_addrs(self, &key);
        let node = RosterNode { addresses, site, roles, ..RosterNode::new(name, key, addrs) };
        let mut next = self.next_version();
        next.nodes.push(node);
        next.checked()
    }

    /// The next version, with a node that joins under this name, key and addresses; `None` when it
    /// is there already. Its site and roles stay: they are the operator's.
    ///
    /// # Errors
    /// [`EditError`].
    pub fn with_joiner(
        &self,
        name: &str,
        key: NodeKey,
        addresses: Vec<NodeAddress>,
    ) -> Result<Option<Self>, EditError> {
        let next = match self.node_named(name).filter(|node| node.owns_key(&key)) {
            Some(_) => {
                let addresses = Some(addresses);
                self.with_change(name, NodeChange { addresses, ..NodeChange::default() })?
            }
            None => {
                let (name, site, roles) = (name.to_owned(), String::new(), Vec::new());
                self.with_node(NodeEntry { name, key, addresses, site, roles })?
            }
        };
        let same = Self { serial: self.serial, ..next.clone() };
        Ok((same.without_lines() != self.clone().without_lines()).then_some(next))
    }

    /// The next version, without a node.
    ///
    /// # Errors
    /// [`EditError::UnknownNode`].
    pub fn without_node(&self, name: &str) -> Result<Self, EditError> {
        let mut next = self.next_version();
        let before = next.nodes.len();
        next.nodes.retain(|node| node.name != name);
        if next.nodes.len() == before {
            return Err(EditError::UnknownNode(name.to_owned()));
        }
        Ok(next)
    }

    /// The next version, with a node changed.
    ///
    /// # Errors
    /// [`EditError::UnknownNode`], [`EditError::NameTaken`], [`EditError::AddressTaken`].
    pub fn with_change(&self, name: &str, change: NodeChange) -> Result<Self, EditError> {
        let mut next = self.next_version();
        let node = next.node_mut(name)?;
        if let Some(new) = change.name.filter(|new| new != name) {
            if self.node_named(&new).is_some() {
                return Err(EditError::NameTaken(new));
            }
            node.name = new;
        }
        if let Some(addresses) = change.addresses {
            node.addresses = addresses;
        }
        if let Some(site) = change.site {
            node.site = site;
        }
        if let Some(roles) = change.roles {
            node.roles = roles;
        }
        next.checked()
    }

    /// The next version, in which a node's next key is accepted beside its present one.
    ///
    /// # Errors
    /// [`EditError::UnknownNode`], [`EditError::KeyTaken`], or a weak key.
    pub fn with_next_key(&self, name: &str, key: NodeKey) -> Result<Self, EditError> {
        key.to_string().parse::<NodeKey>()?;
        if let Some(owner) =
            self.node_with_key(&key).filter(|owner| owner.name != name || owner.key == key)
        {
            return Err(EditError::KeyTaken(owner.name.clone()));
        }
        let mut next = self.next_version();
        next.node_mut(name)?.next_key = Some(key);
        next.checked()
    }

    /// The next version, in which a node's next key is its key, and the former one nobody's.
    ///
    /// # Errors
    /// [`EditError::UnknownNode`], [`EditError::NoNextKey`].
    pub fn with_rotated_key(&self, name: &str) -> Result<Self, EditError> {
        let mut next = self.next_version();
        let node = next.node_mut(name)?;
        node.key = node.next_key.take().ok_or_else(|| EditError::NoNextKey(name.to_owned()))?;
        next.checked()
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut RosterNode, EditError> {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        node.ok_or_else(|| EditError::UnknownNode(name.to_owned()))
    }

    fn next_version(&self) -> Self {
        Self { serial: self.serial + 1, ..self.clone() }
    }

    /// Sorted by name, and no address given to two nodes.
    fn checked(mut self) -> Result<Self, EditError> {
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut owners = std::collections::BTreeMap::new();
        for node in &mut self.nodes {
            node.addresses.sort();
            node.addresses.dedup();
            node.roles.sort();
            node.roles.dedup();
            for address in &node.addresses {
                if let Some(owner) = owners.insert(address.clone(), node.name.clone()) {
                    return Err(EditError::AddressTaken { address: address.to_string(), owner });
                }
            }
        }
        Ok(self)
    }
}

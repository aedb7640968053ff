//! The document: the cluster, its nodes, and their text form.

use std::{
    collections::BTreeMap,
    fmt,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use crate::{
    config::HostName,
    ids::{NodeKey, virtual_addrs::VirtualAddrs},
    roster::cluster_id::ClusterId,
};

/// Nodes in one roster, at most.
pub const MAX_NODES: usize = 1024;
/// Physical addresses and names of one node, at most.
pub const MAX_NODE_ADDRESSES: usize = 32;
/// Bytes of a signed roster, at most: one reply of a control session, with its header.
pub const MAX_ROSTER_LEN: usize = 255 * 1024;
/// Format of the text. A document of another format is refused; an unknown key is not.
pub(super) const ROSTER_FORMAT: u64 = 1;

/// A cluster's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Name of the cluster, as a node's name.
    pub cluster: String,
    /// The cluster's public key, which is its id.
    pub id: ClusterId,
    /// Number of this version, from 1 on.
    pub serial: u64,
    /// The nodes, sorted by name.
    pub nodes: Vec<RosterNode>,
    /// Keys that this release does not know, with their values, as they stand in the text.
    pub extra: Vec<(String, String)>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterNode {
    /// Its name: 1–64 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// Its public key.
    pub key: NodeKey,
    /// The key that replaces it.
    pub next_key: Option<NodeKey>,
    /// Its physical addresses and their names.
    pub addresses: Vec<NodeAddress>,
    /// Its site; empty: none.
    pub site: String,
    /// Its roles, without repetition; none stands for [`NodeRole::Member`].
    pub roles: Vec<NodeRole>,
    /// Its virtual addresses, which outlive its key.
    pub addrs: VirtualAddrs,
    /// As [`Roster::extra`].
    pub extra: Vec<(String, String)>,
    /// Line of its table in the text it was read from; 0 when it was not.
    pub line: u32,
}

/// A physical address of a node, or a name of some.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeAddress {
    /// An address.
    Addr(SocketAddr),
    /// A name.
    Host(HostName),
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Host(host) => host.fmt(f),
        }
    }
}

/// Part that a node takes in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeRole {
    /// Runs services.
    Member,
    /// Votes only.
    Witness,
    /// Forwards datagrams between nodes that share no route that is up.
    Relay,
}

impl NodeRole {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Member, Self::Witness, Self::Relay];

    /// The word in the text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Witness => "witness",
            Self::Relay => "relay",
        }
    }

    /// The role of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

impl RosterNode {
    /// A member without physical addresses.
    pub fn new(name: impl Into<String>, key: NodeKey, addrs: VirtualAddrs) -> Self {
        Self {
            name: name.into(),
            key,
            next_key: None,
            addresses: Vec::new(),
            site: String::new(),
            roles: Vec::new(),
            addrs,
            extra: Vec::new(),
            line: 0,
        }
    }

    /// Returns whether the node takes this part.
    pub fn has_role(&self, role: NodeRole) -> bool {
        match self.roles.as_slice() {
            [] => role == NodeRole::Member,
            roles => roles.contains(&role),
        }
    }

    /// Returns whether `key` is its key, or the one that replaces it.
    pub fn owns_key(&self, key: &NodeKey) -> bool {
        self.key == *key || self.next_key == Some(*key)
    }

    fn write_text(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key} = {value}");
        };
        line("name", quoted(&self.name));
        line("key", quoted(self.key));
        if let Some(key) = self.next_key {
            line("next_key", quoted(key));
        }
        if !self.addresses.is_empty() {
            line("addresses", quoted_list(&self.addresses));
        }
        if !self.site.is_empty() {
            line("site", quoted(&self.site));
        }
        if !self.roles.is_empty() {
            let words: Vec<_> = self.roles.iter().map(|role| role.as_str()).collect();
            line("roles", quoted_list(&words));
        }
        line("address", quoted(self.addrs.v4));
        line("address6", quoted(self.addrs.v6));
        self.extra.iter().for_each(|(key, value)| line(key, value.clone()));
    }
}

/// Text of a roster without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterText(pub String);

impl Roster {
    /// An empty roster with serial 1.
    pub fn new(cluster: impl Into<String>, id: ClusterId) -> Self {
        Self { cluster: cluster.into(), id, serial: 1, nodes: Vec::new(), extra: Vec::new() }
    }

    /// The node of this name.
    pub fn node_named(&self, name: &str) -> Option<&RosterNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node that this key is, or will be, the key of.
    pub fn node_with_key(&self, key: &NodeKey) -> Option<&RosterNode> {
        self.nodes.iter().find(|node| node.owns_key(key))
    }

    /// Every virtual address, with the name of its node.
    pub fn virtual_owners(&self) -> BTreeMap<IpAddr, &str> {
        let both = |node: &RosterNode| [IpAddr::V4(node.addrs.v4), IpAddr::V6(node.addrs.v6)];
        let nodes = self.nodes.iter();
        nodes.flat_map(|node| both(node).map(|addr| (addr, node.name.as_str()))).collect()
    }

    /// The text that is signed.
    pub fn to_text(&self) -> RosterText {
        let mut out = format!(
            "# Nodes of cluster {}. Signed: change it with `netft cluster`, not by hand.\n",
            self.cluster
        );
        // Writing to a String cannot fail.
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key} = {value}");
        };
        line("format", ROSTER_FORMAT.to_string());
        line("cluster", quoted(&self.cluster));
        line("id", quoted(self.id));
        line("serial", self.serial.to_string());
        self.extra.iter().for_each(|(key, value)| line(key, value.clone()));
        for node in &self.nodes {
            out.push_str("\n[[node]]\n");
            node.write_text(&mut out);
        }
        RosterText(out)
    }

    /// Forgets the places in the text, for a comparison of what two rosters say.
    #[must_use]
    pub fn without_lines(mut self) -> Self {
        self.nodes.iter_mut().for_each(|node| node.line = 0);
        self
    }
}

/// A TOML string of text that needs no escapes.
fn quoted(text: impl fmt::Display) -> String {
    format!("\"{text}\"")
}

fn quoted_list(items: &[impl fmt::Display]) -> String {
    let items: Vec<_> = items.iter().map(quoted).collect();
    format!("[{}]", items.join(", "))
}

//! JSON of the cluster's roster.

use std::{collections::BTreeMap, net::SocketAddr};

use netft::roster::{NodeRole, RosterNode, SignedRoster};
use serde::{Deserialize, Serialize};

/// `GET /v1/cluster`, and the answer to a change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClusterStatus {
    /// Name of the cluster; `None` when this node is in none.
    pub cluster: Option<String>,
    /// Its id: its public key.
    pub id: Option<String>,
    /// Serial of the roster in force.
    pub serial: Option<u64>,
    /// First bytes of the roster's SHA-256.
    pub digest: Option<String>,
    /// The roster names this node.
    pub member: bool,
    /// The cluster's private key is on this node, so that it can change the roster.
    pub can_sign: bool,
    /// Reason why the roster is not in force, or not on disk.
    pub problem: Option<String>,
    /// The nodes, by name.
    pub nodes: Vec<ClusterNodeView>,
    /// Documents of peers that were refused.
    #[serde(default)]
    pub rosters_refused: u64,
    /// Invites of this node that let somebody in.
    #[serde(default)]
    pub invites_open: u64,
    /// Nodes that joined here since netftd started.
    #[serde(default)]
    pub joins_accepted: u64,
    /// Attempts to join here that were refused, by reason.
    #[serde(default)]
    pub joins_refused: BTreeMap<String, u64>,
    /// The highest wire version that every node with a known one speaks; null where they share
    /// none.
    #[serde(default)]
    pub wire_version: Option<u8>,
    /// Nodes whose wire versions are not known, by name: without a session since netftd started.
    #[serde(default)]
    pub wire_unknown: Vec<String>,
    /// The signed document.
    pub roster: Option<String>,
}

/// A node of the roster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClusterNodeView {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub key: String,
    /// The key that replaces it.
    pub next_key: Option<String>,
    /// Its physical addresses.
    pub addresses: Vec<String>,
    /// Its site.
    pub site: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its virtual IPv4 address.
    pub address: String,
    /// Its virtual IPv6 address.
    pub address6: String,
    /// It is this node.
    pub this_node: bool,
    /// A session with it is up.
    pub session: bool,
    /// Serial of its roster, as far as this node knows.
    pub serial: Option<u64>,
    /// A problem with its roster.
    pub problem: Option<String>,
    /// Its release, by its last hello.
    #[serde(default)]
    pub release: Option<String>,
    /// The lowest and the highest wire version that it speaks, by its last hello.
    #[serde(default)]
    pub wire_versions: Option<[u8; 2]>,
}

/// `POST /v1/cluster/invite`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct InviteOrder {
    /// Name of the only node it is for.
    pub name: Option<String>,
    /// Time until it ends, seconds.
    pub ttl_s: u64,
    /// Nodes that may join with it.
    pub uses: u32,
    /// Addresses of this node that the token names.
    pub addresses: Vec<SocketAddr>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InviteAnswer {
    /// The token: a secret.
    pub token: String,
    /// Number of the invite, as it stands in the log.
    pub invite: String,
    /// Name of the only node it is for.
    pub name: Option<String>,
    /// Nodes that may join with it.
    pub uses: u32,
    /// Time until it ends, seconds.
    pub ttl_s: u64,
}

/// `POST /v1/cluster/key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NextKeyOrder {
    /// Name of the node whose next key is wanted.
    pub node: String,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NextKeyAnswer {
    /// The public key that will replace the node's.
    pub key: String,
}

impl ClusterStatus {
    /// The status of a roster alone.
    pub fn from_roster(signed: &SignedRoster) -> Self {
        let (roster, version) = (signed.roster(), signed.version());
        Self {
            cluster: Some(roster.cluster.clone()),
            id: Some(roster.id.to_string()),
            serial: Some(version.serial),
            digest: Some(version.short_digest()),
            nodes: roster.nodes.iter().map(ClusterNodeView::from_node).collect(),
            roster: Some(signed.text().to_owned()),
            ..Self::default()
        }
    }
}

impl ClusterNodeView {
    fn from_node(node: &RosterNode) -> Self {
        let roles = NodeRole::ALL.into_iter().filter(|role| node.has_role(*role));
        Self {
            name: node.name.clone(),
            key: node.key.to_string(),
            next_key: node.next_key.map(|key| key.to_string()),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            site: (!node.site.is_empty()).then(|| node.site.clone()),
            roles: roles.map(|role| role.as_str().to_owned()).collect(),
            address: node.addrs.v4.to_string(),
            address6: node.addrs.v6.to_string(),
            ..Self::default()
        }
    }
}

//! The roster as the settings of one node: its peers, its own addresses and site.
//!
//! `[[peer]]` blocks of the config stay: one for a node of the roster adds routes, policies and
//! addresses to it, one for another node is a peer beside the cluster. Where the two say different
//! things neither wins: the contradiction is reported with both places.

use crate::{
    config::{Config, PeerConfig},
    ids::virtual_addrs::VirtualAddrs,
    roster::document::{NodeAddress, NodeRole, Roster, RosterNode},
};

/// A roster seen by the node whose config it is applied to.
#[derive(Clone, Copy, Debug)]
pub struct ClusterView<'a>(pub &'a Roster);

/// Two settings that cannot both hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The two statements.
    pub reason: String,
    /// Place of the setting in the config.
    pub place: ContradictionPlace,
    /// Line of the node in the roster; 0: unknown.
    pub roster_line: u32,
}

/// A place in the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContradictionPlace {
    /// `node.name`.
    NodeName,
    /// `node.key`.
    NodeKey,
    /// `node.site`.
    NodeSite,
    /// `adapter.address` or `adapter.address6`.
    NodeAddress,
    /// `name` of this peer, by its place in the config.
    PeerName(usize),
    /// `key` of this peer.
    PeerKey(usize),
    /// `address` or `address6` of this peer.
    PeerAddress(usize),
}

impl<'a> ClusterView<'a> {
    /// Applies the roster to the config of the node that holds `config.public_key`. Returns whether
    /// the roster names that node; without it no peer is taken from the roster, since nobody there
    /// accepts this node.
    ///
    /// # Errors
    /// Every contradiction; the config is not to be used then.
    pub fn apply_to(self, config: &mut Config) -> Result<bool, Vec<Contradiction>> {
        let mut found = Vec::new();
        let Some(own) = self.own_node(config, &mut found) else {
            return if found.is_empty() { Ok(false) } else { Err(found) };
        };
        apply_own(own, config, &mut found);
        for (place, peer) in config.peers.iter().enumerate() {
            self.check_peer(place, peer, &mut found);
        }
        if !found.is_empty() {
            return Err(found);
        }
        for node in self.0.nodes.iter().filter(|node| node.name != own.name) {
            match config.peers.iter_mut().find(|peer| node.owns_key(&peer.key)) {
                Some(peer) => add_to_peer(node, peer),
                None => {
                    let mut peer = PeerConfig::new(&node.name, node.key);
                    add_to_peer(node, &mut peer);
                    config.peers.push(peer);
                }
            }
            config.relay.use_relays |= node.has_role(NodeRole::Relay);
        }
        config.relay.offer |= own.has_role(NodeRole::Relay);
        config.assign_ids();
        Ok(true)
    }

    /// The entry of the node with this config.
    fn own_node(self, config: &Config, found: &mut Vec<Contradiction>) -> Option<&'a RosterNode> {
        let (by_key, by_name) =
            (self.0.node_with_key(&config.public_key), self.0.node_named(&config.name));
        match (by_key, by_name) {
            (Some(node), _) if node.name == config.name => return Some(node),
            (Some(node), _) => found.push(Contradiction {
                reason: format!(
                    "this node is {:?} here, and the roster calls the node with its key {:?}",
                    config.name, node.name
                ),
                place: ContradictionPlace::NodeName,
                roster_line: node.line,
            }),
            (None, Some(node)) => found.push(Contradiction {
                reason: format!(
                    "this node's key is {}, and the roster has {:?} with the key {}",
                    config.public_key, node.name, node.key
                ),
                place: ContradictionPlace::NodeKey,
                roster_line: node.line,
            }),
            (None, None) => {}
        }
        None
    }

    fn check_peer(self, place: usize, peer: &PeerConfig, found: &mut Vec<Contradiction>) {
        let mut report = |place, node: &RosterNode, reason| {
            found.push(Contradiction { reason, place, roster_line: node.line });
        };
        let same = match (self.0.node_with_key(&peer.key), self.0.node_named(&peer.name)) {
            (Some(node), _) if node.name != peer.name => {
                let reason = format!(
                    "peer {:?} has this key here, and {:?} has it in the roster",
                    peer.name, node.name
                );
                return report(ContradictionPlace::PeerName(place), node, reason);
            }
            (_, Some(node)) if !node.owns_key(&peer.key) => {
                let reason = format!(
                    "peer {:?} has the key {} here, and {} in the roster",
                    peer.name, peer.key, node.key
                );
                return report(ContradictionPlace::PeerKey(place), node, reason);
            }
            (same, _) => same,
        };
        if let Some(node) = same {
            if !agrees(peer.addrs, VirtualAddrs::derive_from_key(&peer.key), node.addrs) {
                let reason = format!(
                    "peer {:?} has the virtual addresses {} and {} here, and {} and {} in the \
                     roster",
                    peer.name, peer.addrs.v4, peer.addrs.v6, node.addrs.v4, node.addrs.v6
                );
                report(ContradictionPlace::PeerAddress(place), node, reason);
            }
            return;
        }
        let collides =
            |node: &&RosterNode| node.addrs.v4 == peer.addrs.v4 || node.addrs.v6 == peer.addrs.v6;
        if let Some(node) = self.0.nodes.iter().find(collides) {
            let reason = format!(
                "peer {:?} has a virtual address that the roster assigns to {:?}",
                peer.name, node.name
            );
            report(ContradictionPlace::PeerAddress(place), node, reason);
        }
    }
}

fn apply_own(own: &RosterNode, config: &mut Config, found: &mut Vec<Contradiction>) {
    let roster_line = own.line;
    let derived = VirtualAddrs::derive_from_key(&config.public_key);
    let given = config.adapter.addrs;
    if agrees(given, derived, own.addrs) {
        config.adapter.addrs = own.addrs;
    } else {
        let reason = format!(
            "this node has the virtual addresses {} and {} here, and {} and {} in the roster",
            given.v4, given.v6, own.addrs.v4, own.addrs.v6
        );
        let place = ContradictionPlace::NodeAddress;
        found.push(Contradiction { reason, place, roster_line });
    }
    if config.site.is_empty() {
        config.site.clone_from(&own.site);
    } else if !own.site.is_empty() && config.site != own.site {
        let reason = format!(
            "this node is at site {:?} here, and at {:?} in the roster",
            config.site, own.site
        );
        let place = ContradictionPlace::NodeSite;
        found.push(Contradiction { reason, place, roster_line });
    }
}

/// True if the addresses of the config are those of the roster, or none that somebody chose.
fn agrees(given: VirtualAddrs, derived: VirtualAddrs, roster: VirtualAddrs) -> bool {
    (given.v4 == derived.v4 || given.v4 == roster.v4)
        && (given.v6 == derived.v6 || given.v6 == roster.v6)
}

fn add_to_peer(node: &RosterNode, peer: &mut PeerConfig) {
    peer.addrs = node.addrs;
    (peer.key, peer.next_key) = (node.key, node.next_key);
    for address in &node.addresses {
        match address {
            NodeAddress::Addr(addr) if !peer.addresses.contains(addr) => peer.addresses.push(*addr),
            NodeAddress::Host(host) if !peer.names.contains(host) => peer.names.push(host.clone()),
            NodeAddress::Addr(_) | NodeAddress::Host(_) => {}
        }
    }
}

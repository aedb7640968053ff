//! Arguments of `netft cluster`.

use std::{net::IpAddr, path::PathBuf};

use clap::Subcommand;
use netft::{
    NodeKey,
    config::DEFAULT_PORT,
    roster::{NodeAddress, NodeRole},
};

use crate::config::node_name;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Create a cluster with this node as its first one; its key stays here.
    Create(CreateArgs),
    /// List the nodes of the roster.
    Show,
    /// Show which roster each node has, and what is wrong.
    Status,
    /// Add a node by its public key.
    Add(AddArgs),
    /// Remove a node: its sessions end everywhere, and it is refused from then on.
    Remove {
        /// Node name.
        #[arg(value_parser = node_name)]
        name: String,
    },
    /// Rename a node; its key and virtual addresses stay.
    Rename {
        /// Node name.
        #[arg(value_parser = node_name)]
        name: String,
        /// New name.
        #[arg(value_parser = node_name)]
        new: String,
    },
    /// Change addresses, site or roles of a node.
    Set(SetArgs),
    /// Print the signed roster, or write it to a file.
    Export {
        /// File to write [default: standard output]
        file: Option<PathBuf>,
    },
    /// Go over to a signed roster with a higher serial.
    Import {
        /// File that `export` or `generate` wrote.
        file: PathBuf,
    },
    /// Write one folder per node, for configuration management.
    Generate(GenerateArgs),
    /// Keep the cluster's private key.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Cluster name.
    #[arg(value_parser = node_name)]
    pub(super) cluster: String,
    /// Node name, if there is no configuration file [default: the host name]
    #[arg(long, value_parser = node_name)]
    pub(super) name: Option<String>,
    /// Configuration file of this node; it is written if missing.
    #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
    pub(super) config: PathBuf,
    /// Address of this node, with or without port; repeatable [default: one per network]
    #[arg(long = "address", value_name = "ADDRESS", value_parser = parse_address)]
    pub(super) addresses: Vec<NodeAddress>,
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// Node name.
    #[arg(value_parser = node_name)]
    pub(super) name: String,
    /// Its public key: `netft pubkey` prints it there.
    #[arg(long, value_parser = parse_key)]
    pub(super) key: NodeKey,
    /// Its address or name, with or without port; repeatable.
    #[arg(long = "address", value_name = "ADDRESS", value_parser = parse_address)]
    pub(super) addresses: Vec<NodeAddress>,
    /// Its site.
    #[arg(long, value_parser = node_name)]
    pub(super) site: Option<String>,
    /// Its role: member, witness or relay; repeatable [default: member]
    #[arg(long = "role", value_name = "ROLE", value_parser = parse_role)]
    pub(super) roles: Vec<NodeRole>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SetArgs {
    /// Node name.
    #[arg(value_parser = node_name)]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) change: NodeChangeArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct NodeChangeArgs {
    /// All its addresses; repeatable.
    #[arg(long = "address", value_name = "ADDRESS", value_parser = parse_address)]
    pub(super) addresses: Vec<NodeAddress>,
    /// Its site; empty: none.
    #[arg(long, value_parser = parse_site)]
    pub(super) site: Option<String>,
    /// All its roles; repeatable.
    #[arg(long = "role", value_name = "ROLE", value_parser = parse_role)]
    pub(super) roles: Vec<NodeRole>,
}

#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    /// Inventory: `cluster = "…"` and one `[[node]]` with `name` and `addresses` per node.
    #[arg(long, value_name = "FILE")]
    pub(super) inventory: PathBuf,
    /// Folder to write to; keys that are there are kept.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Copy the cluster's private key to a file: whoever has it can change the cluster.
    Backup {
        /// File to create; it must not exist.
        file: PathBuf,
    },
    /// Put a copy of the cluster's private key on this node.
    Restore {
        /// File that `backup` wrote.
        file: PathBuf,
    },
}

fn parse_key(text: &str) -> Result<NodeKey, String> {
    text.parse().map_err(|error: netft::ids::NodeKeyError| error.to_string())
}

fn parse_role(text: &str) -> Result<NodeRole, String> {
    NodeRole::from_word(text).ok_or_else(|| "a role is member, witness or relay".to_owned())
}

fn parse_site(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { node_name(text) }
}

/// An address or a name; without a port it gets the default one.
pub(super) fn parse_address(text: &str) -> Result<NodeAddress, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(NodeAddress::Addr((addr, DEFAULT_PORT).into()));
    }
    match text.parse() {
        Err(_) if !text.contains(':') => format!("{text}:{DEFAULT_PORT}").parse(),
        parsed => parsed,
    }
}

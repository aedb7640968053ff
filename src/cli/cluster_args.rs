//! Arguments of `netft cluster`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Subcommand;
use netft::{
    NodeKey,
    config::{DEFAULT_PORT, MAX_PEERS},
    roster::{NodeAddress, NodeRole},
};

use crate::{clock::parse_duration, config::node_name};

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Create a cluster with this node as its first one; its key stays here.
    Create(CreateArgs),
    /// Print a token with which new nodes join; run it where the cluster's key is.
    Invite(InviteArgs),
    /// Join a cluster with a token: write key, config and roster, and start netftd.
    Join(JoinArgs),
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
    /// Replace a node's key; keep the cluster's private key.
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
    #[command(flatten)]
    pub(super) own: OwnNodeArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct OwnNodeArgs {
    /// Configuration file of this node; it is written if missing.
    #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
    pub(super) config: PathBuf,
    /// Address of this node, with or without port; repeatable [default: one per network]
    #[arg(long = "address", value_name = "ADDRESS", value_parser = parse_address)]
    pub(super) addresses: Vec<NodeAddress>,
    #[command(flatten)]
    pub(super) start: StartArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    /// Do not start netftd.
    #[arg(long)]
    pub(super) no_start: bool,
    /// Shell command that starts netftd [default: systemctl enable --now netftd, where systemd
    /// runs it]
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_start")]
    pub(super) start_with: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct InviteArgs {
    /// Name of the only node that may join with it.
    #[arg(long, value_parser = node_name, conflicts_with = "uses")]
    pub(super) name: Option<String>,
    /// Time until the token expires: at most 7 days.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    pub(super) ttl: Duration,
    /// Nodes that may join with it: 1–256.
    #[arg(long, value_name = "COUNT", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=MAX_PEERS as i64))]
    pub(super) uses: u32,
    /// Address of this node for the token, with or without port; repeatable [default: those of
    /// the roster]
    #[arg(long = "address", value_name = "ADDRESS", value_parser = parse_socket_addr)]
    pub(super) addresses: Vec<SocketAddr>,
}

#[derive(Debug, clap::Args)]
pub(super) struct JoinArgs {
    /// Token that `netft cluster invite` printed; `-` reads it from standard input, which keeps it
    /// out of the list of processes.
    pub(super) token: String,
    /// Node name, if there is no configuration file [default: the token's, else the host name]
    #[arg(long, value_parser = node_name)]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) own: OwnNodeArgs,
    /// Seconds to wait until the routes are up: 0–600.
    #[arg(long, value_name = "SECONDS", default_value = "30",
        value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(super) timeout: u64,
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
    /// Replace the key of a node: sessions and virtual addresses stay.
    Rotate(RotateArgs),
    /// Put a copy of the cluster's private key on this node.
    Restore {
        /// File that `backup` wrote.
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct RotateArgs {
    /// Node name [default: this node]
    #[arg(value_parser = node_name)]
    pub(super) name: Option<String>,
    /// Seconds to wait until every node accepts the next key: 0–600.
    #[arg(long, value_name = "SECONDS", default_value = "10",
        value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(super) timeout: u64,
    /// Go on without the nodes that do not accept the next key yet.
    #[arg(long)]
    pub(super) force: bool,
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

/// An address; without a port it gets the default one.
fn parse_socket_addr(text: &str) -> Result<SocketAddr, String> {
    match parse_address(text)? {
        NodeAddress::Addr(addr) => Ok(addr),
        NodeAddress::Host(_) => Err("an address is needed: a token holds no names".to_owned()),
    }
}

//! The arguments of `netft`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use netft::route::{Delay, ParamError, Threshold};

use super::peer::PeerCommand;
use crate::{
    config::{adapter_name, node_name},
    control::why::EventSelector,
    exit::EXIT_CODES,
};

/// Asks and steers the virtual network adapter of this node.
#[derive(Debug, Parser)]
#[command(name = "netft", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct NetftArgs {
    #[command(flatten)]
    pub(super) target: DaemonTarget,
    #[command(subcommand)]
    pub(super) command: NetftCommand,
}

/// Which daemon is asked, and how the answer is shown.
#[derive(Debug, clap::Args)]
pub(super) struct DaemonTarget {
    /// The control socket of the daemon.
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// The adapter whose daemon is asked.
    #[arg(long, global = true, value_name = "NAME", value_parser = adapter_name)]
    pub(super) adapter: Option<String>,
    /// Where daemons keep their sockets.
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/netft")]
    pub(super) runtime_dir: PathBuf,
    /// Shows the answer as JSON, as it came.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum NetftCommand {
    /// Shows the node, its adapter, and its counters.
    Status,
    /// Lists the routes; `*` marks those that carry data.
    Routes,
    /// Shows or changes one route.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Moves data off every route over an interface, both ways, before anything is unplugged.
    Drain {
        /// The interface.
        interface: String,
        #[command(flatten)]
        drain: DrainOptions,
    },
    /// Uses the routes over a drained interface again.
    Undrain {
        /// The interface.
        interface: String,
    },
    /// Lists the networks the nodes' interfaces form, as this node sees them.
    Networks,
    /// Lists the peers.
    Peers,
    /// Shows or changes one peer.
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Shows what happened.
    Events(EventsArgs),
    /// Tells the story of an event: what was seen, what was decided, what it cost.
    Why(WhyArgs),
    /// Prints every figure in the Prometheus text format.
    Metrics,
    /// Makes the daemon read its config file again; prints what changes.
    Reload {
        /// Prints what would change, and changes nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints the names of the nodes' virtual addresses, or keeps them in a hosts file.
    Hosts(HostsArgs),
    /// Checks this node and its peers: what is wrong, where, and what to do.
    #[command(after_help = VALIDATE_CODES)]
    Validate {
        /// The config to check.
        #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
        config: PathBuf,
        /// Checks this node only, and asks no peer what it finds on itself.
        #[arg(long)]
        local: bool,
    },
    /// Makes a key file and prints its public key.
    Keygen {
        /// The file to write; it must not exist.
        #[arg(default_value = "/etc/netft/key")]
        file: PathBuf,
    },
    /// Prints the public key of a key file: what the peers' configs need.
    Pubkey {
        /// The key file.
        #[arg(default_value = "/etc/netft/key")]
        file: PathBuf,
    },
    /// Writes a first config from the networks of this machine.
    Init(InitArgs),
    /// Shows a failover inside namespaces of its own.
    Demo(DemoArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Draws the run into this file.
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

/// The exit codes of `netft validate`, for `--help`.
const VALIDATE_CODES: &str = "Exit codes:
  0  fine, or notes only, on every node
  1  warnings
  2  errors
  3  this machine cannot be looked at";

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// Shows a route.
    Show {
        /// Its number.
        id: u32,
    },
    /// Changes a route while the daemon runs.
    Set {
        /// Its number.
        id: u32,
        #[command(flatten)]
        change: RouteChangeArgs,
    },
    /// Moves data off a route, both ways; it stays alive and serves when nothing else does.
    Drain {
        /// Its number.
        id: u32,
        #[command(flatten)]
        drain: DrainOptions,
    },
    /// Uses a drained route again.
    Undrain {
        /// Its number.
        id: u32,
    },
    /// Takes a route out of use.
    Down {
        /// Its number.
        id: u32,
    },
    /// Puts a route back into use.
    Up {
        /// Its number.
        id: u32,
    },
}

/// How a drain is carried out.
#[derive(Debug, clap::Args)]
pub(super) struct DrainOptions {
    /// Even if a peer has no other route that is up; its data then stays.
    #[arg(long)]
    pub(super) force: bool,
    /// How long to wait until both directions have left: 0–600.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(super) timeout: u64,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct RouteChangeArgs {
    /// Lower is preferred.
    #[arg(long)]
    pub(super) priority: Option<u32>,
    /// Milliseconds between heartbeats: 5–60000.
    #[arg(long, value_name = "MS", value_parser = parse_delay)]
    pub(super) delay: Option<u64>,
    /// Heartbeats missed before the route is down: 2–120.
    #[arg(long, value_name = "COUNT", value_parser = parse_threshold)]
    pub(super) threshold: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Goes on with what happens from here on.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Leaves out events up to this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) after: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct HostsArgs {
    /// Writes them into the file, in a block of their own.
    #[arg(long, conflicts_with = "remove")]
    pub(super) sync: bool,
    /// Takes the block out of the file.
    #[arg(long)]
    pub(super) remove: bool,
    /// The hosts file.
    #[arg(long, value_name = "FILE", default_value = crate::hosts::file::HOSTS_PATH)]
    pub(super) file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// The number of an event (see netft events --json), or `last`: the last move.
    #[arg(value_name = "EVENT", default_value = "last", value_parser = parse_event_selector)]
    pub(super) event: EventSelector,
    /// The last move from or to this route, or else its last change.
    #[arg(long, value_name = "NUMBER", conflicts_with = "event")]
    pub(super) route: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// This node's name [default: the machine's]
    #[arg(long, value_parser = node_name)]
    pub(super) name: Option<String>,
    /// The config to write; it must not exist. The key goes beside it.
    #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
    pub(super) output: PathBuf,
}

fn parse_event_selector(text: &str) -> Result<EventSelector, String> {
    if text == "last" {
        return Ok(EventSelector::Last);
    }
    let number =
        text.parse().map_err(|_| "this is no event's number, and not `last`".to_owned())?;
    Ok(EventSelector::Event(number))
}

fn parse_delay(text: &str) -> Result<u64, String> {
    parse_number(text, |ms| Delay::from_millis(ms).map(drop))
}

fn parse_threshold(text: &str) -> Result<u64, String> {
    parse_number(text, |count| Threshold::new(count).map(drop))
}

fn parse_number(text: &str, check: fn(u64) -> Result<(), ParamError>) -> Result<u64, String> {
    let number = text.parse().map_err(|_| "this is no whole number".to_owned())?;
    check(number).map_err(|error| error.to_string())?;
    Ok(number)
}

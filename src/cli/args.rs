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

/// Shows and controls the virtual network adapter of this node.
#[derive(Debug, Parser)]
#[command(name = "netft", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct NetftArgs {
    #[command(flatten)]
    pub(super) target: DaemonTarget,
    #[command(subcommand)]
    pub(super) command: NetftCommand,
}

/// The daemon to ask, and the output format.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct DaemonTarget {
    /// Control socket of the daemon.
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Adapter of the daemon.
    #[arg(long, global = true, value_name = "NAME", value_parser = adapter_name)]
    pub(super) adapter: Option<String>,
    /// Directory of the control sockets.
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/netft")]
    pub(super) runtime_dir: PathBuf,
    /// Prints the answer as JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum NetftCommand {
    /// Shows the node, its adapter and its counters.
    Status,
    /// Lists the routes; `*` marks those that carry data.
    Routes,
    /// Shows or changes one route.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Drains an interface before maintenance: moves data off its routes in both directions.
    Drain {
        /// Interface name.
        interface: String,
        #[command(flatten)]
        drain: DrainOptions,
    },
    /// Ends the drain of an interface.
    Undrain {
        /// Interface name.
        interface: String,
    },
    /// Lists the networks between the nodes, as this node sees them.
    Networks,
    /// Lists the peers.
    Peers,
    /// Shows or changes one peer.
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Lists the recent events.
    Events(EventsArgs),
    /// Explains an event, such as a failover: what led to it, the route selection, its cost.
    Why(WhyArgs),
    /// Prints the metrics in the Prometheus text format.
    Metrics,
    /// Reloads the daemon's configuration file and prints the changes.
    Reload {
        /// Prints the changes without applying them.
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints host names for the virtual addresses, or writes them to a hosts file.
    Hosts(HostsArgs),
    /// Checks this node and its peers for faults; each finding names place and remedy.
    #[command(after_help = VALIDATE_CODES)]
    Validate {
        /// Configuration file to check.
        #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
        config: PathBuf,
        /// Checks this node only, not its peers.
        #[arg(long)]
        local: bool,
    },
    /// Creates a key file and prints its public key.
    Keygen {
        /// Key file to create; it must not exist.
        #[arg(default_value = "/etc/netft/key")]
        file: PathBuf,
    },
    /// Prints the public key of a key file, for the configuration of its peers.
    Pubkey {
        /// Key file.
        #[arg(default_value = "/etc/netft/key")]
        file: PathBuf,
    },
    /// Writes an initial configuration from the networks of this machine.
    Init(InitArgs),
    /// Demonstrates failovers in network namespaces of its own, without root.
    Demo(DemoArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Writes a chart of the run to this SVG file.
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

/// Exit codes of `netft validate`, for `--help`.
const VALIDATE_CODES: &str = "Exit codes:
  0  no findings, or notes only
  1  warnings
  2  errors
  3  this machine cannot be inspected";

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// Shows a route.
    Show {
        /// Route number.
        id: u32,
    },
    /// Changes a route until netftd stops.
    Set {
        /// Route number.
        id: u32,
        #[command(flatten)]
        change: RouteChangeArgs,
    },
    /// Drains a route: moves data off it in both directions; it stays up as a last resort.
    Drain {
        /// Route number.
        id: u32,
        #[command(flatten)]
        drain: DrainOptions,
    },
    /// Ends the drain of a route.
    Undrain {
        /// Route number.
        id: u32,
    },
    /// Disables a route (admin-down).
    Down {
        /// Route number.
        id: u32,
    },
    /// Enables a disabled route.
    Up {
        /// Route number.
        id: u32,
    },
}

/// Options of a drain.
#[derive(Debug, clap::Args)]
pub(super) struct DrainOptions {
    /// Drains even if a peer has no other route that is up; its data then stays on it.
    #[arg(long)]
    pub(super) force: bool,
    /// Seconds to wait until both directions have moved: 0–600.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(super) timeout: u64,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct RouteChangeArgs {
    /// Priority; lower is preferred.
    #[arg(long)]
    pub(super) priority: Option<u32>,
    /// Milliseconds between heartbeats: 5–60000.
    #[arg(long, value_name = "MS", value_parser = parse_delay)]
    pub(super) delay: Option<u64>,
    /// Missed heartbeats after which the route is down: 2–120.
    #[arg(long, value_name = "COUNT", value_parser = parse_threshold)]
    pub(super) threshold: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Keeps printing new events.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Prints only events after this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) after: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct HostsArgs {
    /// Writes the names to the hosts file, in a marked block.
    #[arg(long, conflicts_with = "remove")]
    pub(super) sync: bool,
    /// Removes the block from the hosts file.
    #[arg(long)]
    pub(super) remove: bool,
    /// Hosts file.
    #[arg(long, value_name = "FILE", default_value = crate::hosts::file::HOSTS_PATH)]
    pub(super) file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// Event number (see `netft events`), or `last`: the last move of data.
    #[arg(value_name = "EVENT", default_value = "last", value_parser = parse_event_selector)]
    pub(super) event: EventSelector,
    /// Explains the last move from or to this route, else its last change.
    #[arg(long, value_name = "NUMBER", conflicts_with = "event")]
    pub(super) route: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// Node name [default: the host name]
    #[arg(long, value_parser = node_name)]
    pub(super) name: Option<String>,
    /// Configuration file to create; it must not exist. The key file goes beside it.
    #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
    pub(super) output: PathBuf,
    /// Lists the networks of this machine as `[[network]]` tables: then no other is used.
    #[arg(long)]
    pub(super) networks: bool,
}

fn parse_event_selector(text: &str) -> Result<EventSelector, String> {
    if text == "last" {
        return Ok(EventSelector::Last);
    }
    let number = text.parse().map_err(|_| "not an event number and not `last`".to_owned())?;
    Ok(EventSelector::Event(number))
}

fn parse_delay(text: &str) -> Result<u64, String> {
    parse_number(text, |ms| Delay::from_millis(ms).map(drop))
}

fn parse_threshold(text: &str) -> Result<u64, String> {
    parse_number(text, |count| Threshold::new(count).map(drop))
}

fn parse_number(text: &str, check: fn(u64) -> Result<(), ParamError>) -> Result<u64, String> {
    let number = text.parse().map_err(|_| "not a whole number".to_owned())?;
    check(number).map_err(|error| error.to_string())?;
    Ok(number)
}

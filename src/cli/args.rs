//! The arguments of `netft`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use netft::route::{Delay, ParamError, Threshold};

use super::{failure::EXIT_CODES, peer::PeerCommand};
use crate::{config::adapter_name, config::node_name, control::why::Subject, demo::DemoArgs};

/// Asks and steers the virtual network adapter of this node.
#[derive(Debug, Parser)]
#[command(name = "netft", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Which daemon is asked, and how the answer is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
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
pub(super) enum Command {
    /// Shows the node, its adapter, and its counters.
    Status,
    /// Lists the routes; `*` marks those that carry data.
    Routes,
    /// Shows or changes one route.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Lists the peers.
    Peers,
    /// Shows or changes one peer.
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Shows what happened.
    Events(Events),
    /// Tells the story of an event: what was seen, what was decided, what it cost.
    Why(Why),
    /// Prints every figure in the Prometheus text format.
    Metrics,
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
    Init(Init),
    /// Shows a failover inside namespaces of its own.
    Demo(DemoArgs),
}

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
        change: Change,
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

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct Change {
    /// Lower is preferred.
    #[arg(long)]
    pub(super) priority: Option<u32>,
    /// Milliseconds between heartbeats: 5–60000.
    #[arg(long, value_name = "MS", value_parser = delay)]
    pub(super) delay: Option<u64>,
    /// Heartbeats missed before the route is down: 2–120.
    #[arg(long, value_name = "COUNT", value_parser = threshold)]
    pub(super) threshold: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Events {
    /// Goes on with what happens from here on.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Leaves out events up to this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) after: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct Why {
    /// The number of an event (see netft events --json), or `last`: the last move.
    #[arg(value_name = "EVENT", default_value = "last", value_parser = event)]
    pub(super) event: Subject,
    /// The last move from or to this route, or else its last change.
    #[arg(long, value_name = "NUMBER", conflicts_with = "event")]
    pub(super) route: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// This node's name [default: the machine's]
    #[arg(long, value_parser = node_name)]
    pub(super) name: Option<String>,
    /// The config to write; it must not exist. The key goes beside it.
    #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
    pub(super) output: PathBuf,
}

fn event(text: &str) -> Result<Subject, String> {
    if text == "last" {
        return Ok(Subject::Last);
    }
    let number =
        text.parse().map_err(|_| "this is no event's number, and not `last`".to_owned())?;
    Ok(Subject::Event(number))
}

fn delay(text: &str) -> Result<u64, String> {
    number(text, |ms| Delay::from_millis(ms).map(drop))
}

fn threshold(text: &str) -> Result<u64, String> {
    number(text, |count| Threshold::new(count).map(drop))
}

fn number(text: &str, check: fn(u64) -> Result<(), ParamError>) -> Result<u64, String> {
    let number = text.parse().map_err(|_| "this is no whole number".to_owned())?;
    check(number).map_err(|error| error.to_string())?;
    Ok(number)
}

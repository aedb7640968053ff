//! The arguments of `netft`.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use ipnet::IpNet;
use netft::{
    api::overrides::{MAX_LIMIT, MIN_LIMIT},
    route::{Delay, ParamError, RouteState, Threshold},
};

use super::{
    cluster_args::ClusterCommand,
    drill::{DRILL_CODES, DrillArgs},
    event_id::parse_event_id,
    output,
    peer::PeerCommand,
    vip::VipCommand,
};
use crate::{
    clock::{parse_duration, parse_moment},
    cluster::store::resolve_state_dir,
    config::{adapter_name, node_name},
    control::{schema::SessionState, why::EventSelector, words::Word},
    exit::EXIT_CODES,
    render::style::OutputStyle,
};

/// Show and control the virtual network adapter of this node.
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
    /// Directory of the state that outlives a restart [default: /var/lib/netft, with another
    /// --runtime-dir its folder `state`]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print tables whole, however wide.
    #[arg(long, global = true)]
    pub(super) wide: bool,
    /// Print times in UTC.
    #[arg(long, global = true)]
    pub(super) utc: bool,
}

impl DaemonTarget {
    /// Directory of the state.
    pub(super) fn state_dir(&self) -> PathBuf {
        resolve_state_dir(self.state_dir.as_deref(), &self.runtime_dir)
    }

    /// Style of the output.
    pub(super) fn output_style(&self) -> OutputStyle {
        output::detect_style(self.wide, self.utc)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum NetftCommand {
    /// Show the verdict on this node, its adapter and its counters.
    #[command(after_help = STATUS_CODES)]
    Status,
    /// Report the verdict as a plugin of Nagios or Icinga.
    #[command(after_help = CHECK_CODES)]
    Check,
    /// Wait until peers are reachable, such as in a unit that needs them.
    Wait(WaitArgs),
    /// List the routes; `*` marks those that carry data.
    Routes(RoutesArgs),
    /// Show or change one route.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Drain an interface before maintenance: moves data off its routes in both directions, also
    /// after a restart.
    Drain {
        /// Interface name.
        interface: String,
        #[command(flatten)]
        drain: DrainOptions,
    },
    /// End the drain of an interface.
    Undrain {
        /// Interface name.
        interface: String,
    },
    /// Rehearse a failure on the running node: bounded in time, undone by itself, measured.
    #[command(after_help = DRILL_CODES)]
    Drill(DrillArgs),
    /// List the networks between the nodes, as this node sees them.
    Networks,
    /// List the peers.
    Peers(PeersArgs),
    /// Show or change one peer.
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Show and control the floating addresses.
    #[command(subcommand)]
    Vip(VipCommand),
    /// Show peers, routes, their traffic and the events live; drains routes after a confirmation.
    Top(TopArgs),
    /// List the recent events.
    Events(EventsArgs),
    /// Explain an event, such as a failover: what led to it, the route selection, its cost.
    Why(WhyArgs),
    /// Print the metrics in the Prometheus text format.
    Metrics,
    /// List the differences between the running node and its configuration file: changes of the
    /// file that are not in force, and an operator's changes that it does not have.
    Diff {
        /// Write changed priorities, timings and policies into the file; its comments stay.
        #[arg(long)]
        save: bool,
    },
    /// Reload the daemon's configuration file and print the changes.
    Reload {
        /// Print the changes without applying them.
        #[arg(long)]
        dry_run: bool,
    },
    /// Hand the adapter over to another netftd: the program's new file, or another one.
    Upgrade {
        /// Program of the successor [default: the file of the running netftd]
        binary: Option<PathBuf>,
        /// Seconds for the successor to be ready: 1–4; after that the running netftd serves on.
        #[arg(long, value_name = "SECONDS", default_value_t = 4)]
        #[arg(value_parser = clap::value_parser!(u64).range(1..=4))]
        timeout: u64,
    },
    /// Print host names for the virtual addresses, or write them to a hosts file.
    Hosts(HostsArgs),
    /// Check this node and its peers for faults; each finding names place and remedy.
    #[command(after_help = VALIDATE_CODES)]
    Validate {
        /// Configuration file to check.
        #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
        config: PathBuf,
        /// Check this node only, not its peers.
        #[arg(long)]
        local: bool,
    },
    /// Compare each route's detection time with what its measured RTT and loss allow.
    Tune(TuneArgs),
    /// Collect configuration, state, events, log and kernel facts in an archive, without secrets.
    Report(ReportArgs),
    /// Create a key file and print its public key.
    Keygen {
        /// Key file to create; it must not exist.
        #[arg(default_value = "/etc/netft/key")]
        file: PathBuf,
    },
    /// Print the public key of a key file, for the configuration of its peers.
    Pubkey {
        /// Key file.
        #[arg(default_value = "/etc/netft/key")]
        file: PathBuf,
    },
    /// Create, show and change the cluster that this node belongs to.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Write an initial configuration from the networks of this machine.
    Init(InitArgs),
    /// Demonstrate failovers in network namespaces of its own, without root.
    Demo(DemoArgs),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum DemoScenario {
    #[default]
    Routes,
    Vip,
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Scenario: `routes`, the active route breaks three ways; `vip`, the owner of a floating
    /// address is killed, then stopped
    #[arg(value_enum, default_value_t)]
    pub(super) scenario: DemoScenario,
    /// Write a chart of the run to this SVG file (`routes` only).
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

/// Exit codes of `netft status`, for `--help`.
const STATUS_CODES: &str = "Exit codes:
  0  redundant: every peer has at least two routes that are up, and no route is down
  1  degraded: every peer is reachable
  2  cut off: a peer is unreachable, or the adapter is down
  3  unknown: no answer from netftd";

/// Exit codes of `netft check`, for `--help`.
const CHECK_CODES: &str = "Exit codes:
  0  OK: redundant
  1  WARNING: degraded
  2  CRITICAL: cut off, or no answer from netftd";

#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Wait for this peer; repeat it for more [default: all]
    #[arg(long = "peer", value_name = "NAME", value_parser = node_name)]
    pub(super) peers: Vec<String>,
    /// Give up after this time: 0–86400 s.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(super) timeout: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct TuneArgs {
    /// Times a year that loss alone may take a route down.
    #[arg(long, value_name = "PER_YEAR", default_value_t = 1.0, value_parser = parse_budget)]
    pub(super) false_alarms: f64,
    /// Show only the routes to this peer.
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub(super) peer: Option<String>,
}

fn parse_budget(text: &str) -> Result<f64, String> {
    let budget = text.parse::<f64>().map_err(|error| error.to_string())?;
    if budget.is_finite() && budget > 0.0 {
        Ok(budget)
    } else {
        Err("a number above 0, such as 0.1".to_owned())
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct RoutesArgs {
    /// Show only the routes to this peer.
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub(super) peer: Option<String>,
    /// Show only routes in this state: up, init, down or admin-down.
    #[arg(long, value_name = "STATE", value_parser = parse_route_state)]
    pub(super) state: Option<RouteState>,
    /// Show only routes that start in this network, such as 10.1.0.0/24.
    #[arg(long, value_name = "PREFIX")]
    pub(super) network: Option<IpNet>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PeersArgs {
    /// Show only this peer.
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub(super) peer: Option<String>,
    /// Show only peers whose session is in this state: up, silent or none.
    #[arg(long, value_name = "STATE", value_parser = parse_session_state)]
    pub(super) state: Option<SessionState>,
}

/// Exit codes of `netft validate`, for `--help`.
const VALIDATE_CODES: &str = "Exit codes:
  0  no findings, or notes only
  1  warnings
  2  errors
  3  this machine cannot be inspected";

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// Show a route.
    Show {
        /// Route number.
        id: u32,
    },
    /// Change a route; the change stays over a restart.
    Set {
        /// Route number.
        id: u32,
        #[command(flatten)]
        change: RouteChangeArgs,
        /// Write the change into the configuration file, too; its comments stay.
        #[arg(long)]
        save: bool,
    },
    /// Drain a route: moves data off it in both directions; it stays up as a last resort.
    Drain {
        /// Route number.
        id: u32,
        #[command(flatten)]
        drain: DrainOptions,
    },
    /// End the drain of a route.
    Undrain {
        /// Route number.
        id: u32,
    },
    /// Disable a route (admin-down).
    Down {
        /// Route number.
        id: u32,
    },
    /// Enable a disabled route.
    Up {
        /// Route number.
        id: u32,
    },
}

/// Options of a drain.
#[derive(Debug, clap::Args)]
pub(super) struct DrainOptions {
    /// Drain even if a peer has no other route that is up; its data then stays on it.
    #[arg(long)]
    pub(super) force: bool,
    /// Seconds to wait until both directions have moved: 0–600.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=600))]
    pub(super) timeout: u64,
    /// Time after which the drain ends by itself, such as 2h or 30m: 1s–90d. It goes on over a
    /// restart.
    #[arg(long, value_name = "TIME", value_parser = parse_limit)]
    pub(super) until: Option<Duration>,
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
    /// Keep printing new events.
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Print only events after this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) after: u64,
    /// Print only events since then: an age such as 10m, or a time such as 2026-11-30 14:05.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(super) since: Option<i64>,
    /// Print only the last events.
    #[arg(short = 'n', long = "lines", value_name = "COUNT")]
    pub(super) count: Option<usize>,
    /// Print only events about this peer.
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub(super) peer: Option<String>,
    /// Print only events of this kind, such as moved; repeat it for more.
    #[arg(long = "id", value_name = "EVENT", value_parser = parse_event_id)]
    pub(super) ids: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// Archive to create; it must not exist [default: netft-report-NODE-TIME.tar]
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Configuration file to include.
    #[arg(long, value_name = "FILE", default_value = "/etc/netft/netft.toml")]
    pub(super) config: PathBuf,
    /// Ask no peer for its findings.
    #[arg(long)]
    pub(super) local: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// Append every sample to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct HostsArgs {
    /// Write the names to the hosts file, in a marked block.
    #[arg(long, conflicts_with = "remove")]
    pub(super) sync: bool,
    /// Remove the block from the hosts file.
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
    /// Explain the last move from or to this route, else its last change.
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
    /// List the networks of this machine as `[[network]]` tables: then no other is used.
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

fn parse_route_state(text: &str) -> Result<RouteState, String> {
    RouteState::from_word(text).ok_or_else(|| "a state is up, init, down or admin-down".to_owned())
}

fn parse_session_state(text: &str) -> Result<SessionState, String> {
    SessionState::from_word(text).ok_or_else(|| "a state is up, silent or none".to_owned())
}

fn parse_delay(text: &str) -> Result<u64, String> {
    parse_number(text, |ms| Delay::from_millis(ms).map(drop))
}

fn parse_threshold(text: &str) -> Result<u64, String> {
    parse_number(text, |count| Threshold::new(count).map(drop))
}

fn parse_limit(text: &str) -> Result<Duration, String> {
    let limit = parse_duration(text)?;
    match (MIN_LIMIT..=MAX_LIMIT).contains(&limit) {
        true => Ok(limit),
        false => Err("a drain ends after 1 s to 90 days".to_owned()),
    }
}

fn parse_number(text: &str, check: fn(u64) -> Result<(), ParamError>) -> Result<u64, String> {
    let number = text.parse().map_err(|_| "not a whole number".to_owned())?;
    check(number).map_err(|error| error.to_string())?;
    Ok(number)
}
